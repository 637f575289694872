r"""``geomem theory``: what should happen, on the command line.

Each class is one subcommand: its fields are the options, ``run()`` prints and returns the
exit status. Tables are for people, ``--json`` is one document on standard output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomem.cli.output import (
    estimate,
    estimates,
    level_or_dash,
    plain,
    print_json,
    print_table,
    shortened,
)
from geomem.cli.theory_check import Check
from geomem.compute.progress import Progress
from geomem.errors import InputError
from geomem.theory.maps import Kind, information_budget, retention_map
from geomem.theory.moments import Array
from geomem.theory.phase import phase_diagram, phase_diagram_of_data
from geomem.theory.population import dimension, information, jacobian_spectrum
from geomem.theory.priors import Gaussian, check_sizes, check_variances, finite


@dataclass(frozen=True)
class Spectrum:
    r"""Eigenvalues that infinitely much data would give, level by level.

    Example: geomem theory spectrum --variances 1 1 .09 .09 --ambient-dim 30 --sigmas .1 .3 1
    """

    variances: tuple[float, ...]
    """Variance along each direction of the manifold."""
    ambient_dim: int | None = None
    """Dimension of the space around; by default the number of variances."""
    sigmas: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    """Noise levels, in the data's units."""
    json: bool = False
    """Print one JSON document."""
    figure: Path | None = None
    """Draw to this .png, .svg or .pdf."""

    def run(self) -> int:
        r"""Prints the spectrum at each level; returns the exit status."""
        d = self.ambient_dim or len(self.variances)
        kept = dimension(self.variances, self.sigmas)
        rows = np.stack([jacobian_spectrum(self.variances, s, d) for s in self.sigmas])
        table = xr.Dataset(
            {
                "eigenvalue": (("sigma", "rank"), rows),
                "dimension": ("sigma", kept),
                "information": ("sigma", information(self.variances, self.sigmas)),
            },
            {"sigma": list(self.sigmas), "rank": np.arange(1, d + 1)},
        )
        _draw(self.figure, "plot_spectrum", table)
        if self.json:
            return print_json(table)
        rows_text = [
            [f"{s:g}", f"{i:.3f}", f"{n:.3f}", shortened(r)]
            for s, i, n, r in zip(
                self.sigmas, table.dimension.values, table.information.values, rows, strict=True
            )
        ]
        return print_table(["sigma", "dimension", "information (nats)", "eigenvalues"], rows_text)


@dataclass(frozen=True)
class Critical:
    r"""Levels at which each group opens, is lost, and the set collapses: exact and the paper's.

    Example: geomem theory critical --variances 1 1 .09 .09 .09 .09 .09 --num-samples 50 1000
    """

    variances: tuple[float, ...]
    """Variance along each direction of the manifold."""
    num_samples: tuple[float, ...] = (100.0, 1000.0, 10_000.0)
    """Sizes of the training set, from 2 to 1e12."""
    levels: int = 21
    """Number of noise levels between which crossings are interpolated."""
    json: bool = False
    """Print one JSON document."""
    figure: Path | None = None
    """Draw to this .png, .svg or .pdf."""

    def run(self) -> int:
        r"""Prints a line for each size and group; returns the exit status."""
        sizes = _sizes(self.num_samples)
        if self.levels < 3:
            raise InputError("a crossing needs three levels; pass --levels 3 or more")
        levels = _levels(self.variances, sizes, self.levels)
        with _Steps(len(levels), "retention") as progress:
            lines = phase_diagram(self.variances, levels, sizes, progress=progress)
        names = ["retention_sigma", "paper_sigma", "paper_sigma_gaussian"]
        lines = lines[[*names, "opening_sigma", "collapse_sigma", "two_points_sigma"]]
        _draw(self.figure, "plot_critical", lines)
        if self.json:
            return print_json(lines)
        rows = [
            [
                f"{n:g}",
                f"{v:g}",
                *(
                    level_or_dash(lines.sel(num_samples=n, group=v)[name])
                    for name in ("opening_sigma", *names, "two_points_sigma", "collapse_sigma")
                ),
            ]
            for n in lines.num_samples.values
            for v in lines.group.values
        ]
        head = ["N", "variance", "opens", "half kept", "t*, |y|=1", "t*, Gauss"]
        title = "critical levels, as sigma (t* is the paper's)"
        return print_table([*head, "2 points", "ln N = I"], rows, title)


@dataclass(frozen=True)
class Retention:
    r"""Kept fraction of each direction's posterior variance, for any N, exact at finite size.

    Examples:
        geomem theory retention --variances 1 1 .09 .09 --num-samples 50 1000 --sigmas .1 .3
        geomem theory retention --cases cases.json --json
    """

    variances: tuple[float, ...] = ()
    """Variance along each direction of the manifold."""
    num_samples: tuple[float, ...] = (100.0, 1000.0)
    """Sizes of the training set, from 2 to 1e12."""
    sigmas: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Noise levels, in the data's units."""
    kind: Kind = "planted"
    """Averaged over noisy training points, over fresh points, or at the centre."""
    cases: Path | None = None
    """A JSON file of cases to predict instead; see the documentation of `check`."""
    json: bool = False
    """Print one JSON document."""
    figure: Path | None = None
    """Draw to this .png, .svg or .pdf."""

    def run(self) -> int:
        r"""Prints predictions with their errors; returns the exit status."""
        if self.cases is not None:
            return self._run_cases(self.cases)
        if not self.variances:
            raise InputError("pass --variances, or a file of --cases")
        levels, sizes = finite(self.sigmas, "the noise levels"), _sizes(self.num_samples)
        prior = Gaussian(self.variances)
        with _Steps(len(levels), "retention") as progress:
            result = retention_map(prior, levels, sizes, kind=self.kind, progress=progress)
        _draw(self.figure, "plot_retention", result)
        if self.json:
            return print_json(result)
        rows = [
            [
                f"{s:g}",
                f"{n:g}",
                estimates(one.retention, one.retention_stderr),
                estimate(float(one.participation), float(one.participation_stderr)),
            ]
            for s in levels
            for n in sizes
            for one in [result.sel(sigma=s, num_samples=n)]
        ]
        return print_table(["sigma", "N", "retention by direction", "participation"], rows)

    def _run_cases(self, path: Path) -> int:
        from geomem.theory.cases import predict_cases, read_cases

        if self.figure is not None:
            raise InputError("cases are single points and make no figure; drop --figure")
        predictions = predict_cases(read_cases(path, references=False))
        if self.json:
            names = ("retention", "retention_stderr", "participation", "participation_stderr")
            document = [{name: plain(getattr(p, name)) for name in names} for p in predictions]
            print(json.dumps({"cases": document}))
            return 0
        rows = [
            [
                str(k),
                estimates(p.retention, p.retention_stderr),
                estimate(float(p.participation), float(p.participation_stderr)),
                p.route,
            ]
            for k, p in enumerate(predictions, start=1)
        ]
        return print_table(["case", "retention by direction", "participation", "route"], rows)


@dataclass(frozen=True)
class Information:
    r"""Missing information in nats: who spends the budget ln N, and at which noise level.

    Example: geomem theory information --variances 1 1 .09 .09 --num-samples 50 --window .03 10
    """

    variances: tuple[float, ...]
    """Variance along each direction of the manifold."""
    num_samples: tuple[float, ...] = (100.0,)
    """Sizes of the training set, from 2 to 1e12."""
    window: tuple[float, float] = (0.03, 10.0)
    """Noise levels between which nats are counted."""
    levels: int = 20
    """Number of noise levels in the window."""
    json: bool = False
    """Print one JSON document."""
    figure: Path | None = None
    """Draw the map of the first size to this .png, .svg or .pdf."""

    def run(self) -> int:
        r"""Prints nats by direction and size; returns the exit status."""
        low, high = self.window
        if not 0 < low < high:
            raise InputError(f"the window is {low:g} to {high:g}; pass 0 < low < high")
        if self.levels < 2:
            raise InputError("an integral needs two levels; pass --levels 2 or more")
        sigmas, sizes = np.geomspace(low, high, self.levels), _sizes(self.num_samples)
        with _Steps(self.levels, "information") as progress:
            map_ = retention_map(Gaussian(self.variances), sigmas, sizes, progress=progress)
        budget = information_budget(map_)
        _draw(self.figure, "plot_information", map_.isel(num_samples=0))
        if self.json:
            return print_json(budget)
        rows = [
            [
                f"{n:g}",
                str(k + 1),
                f"{v:g}",
                estimate(float(one.missing), float(one.missing_stderr)),
                f"{float(one.kept):.3f}",
                f"{float(one.population):.3f}",
            ]
            for n in sizes
            for k, v in enumerate(self.variances)
            for one in [budget.sel(num_samples=n).isel(direction=k)]
        ]
        title = f"nats between sigma = {low:g} and {high:g}; N points have ln N in all"
        return print_table(
            ["N", "direction", "variance", "missing", "kept", "population"], rows, title
        )


@dataclass(frozen=True)
class PhaseDiagram:
    r"""Map over (N, sigma): where directions open, are lost, and where the set collapses.

    Examples:
        geomem theory phase-diagram --variances 1 1 .09 .09 .09 .09 .09 --figure phases.png
        geomem theory phase-diagram --data digits --figure digits.png
    """

    variances: tuple[float, ...] = ()
    """Variance along each direction of the manifold."""
    data: str | None = None
    """A data set as the prior instead: a name, or PATH[:key]."""
    largest: float = 1e6
    """Largest size on the map; a data set ends at its own."""
    sizes: int = 25
    """Number of sizes."""
    levels: int = 25
    """Number of noise levels."""
    kept: float = 0.5
    """Retention below which a group is called lost."""
    seed: int = 0
    """Seed of the points of a data set that are looked at."""
    json: bool = False
    """Print one JSON document."""
    figure: Path | None = None
    """Draw to this .png, .svg or .pdf."""

    def run(self) -> int:
        r"""Computes the map, draws it, prints its lines; returns the exit status."""
        if not 0 < self.kept < 1:
            raise InputError(f"--kept is {self.kept:g}; pass a retention between 0 and 1")
        if bool(self.variances) == (self.data is not None):
            raise InputError("pass either --variances or --data")
        phases = self._of_variances() if self.data is None else self._of_data(self.data)
        _draw(self.figure, "plot_phase_diagram", phases)
        if self.json:
            return print_json(phases)
        share = phases.lost_without_collapse.any("group").mean("sigma")
        rows = [
            [
                f"{n:.4g}",
                level_or_dash(phases.two_points_sigma.sel(num_samples=n)),
                shortened(phases.retention_sigma.sel(num_samples=n).values),
                f"{100 * float(share.sel(num_samples=n)):.0f} %",
            ]
            for n in phases.num_samples.values
        ]
        groups = ", ".join(f"{v:.3g}" for v in phases.group.values)
        head = ["N", "2 points at sigma", f"{self.kept:g} kept at sigma", "lost, not collapsed"]
        print_table(head, rows, f"groups of variance {groups}")
        if not bool(phases.lost_without_collapse.any()):
            print(f"no group is kept below {self.kept:g} with more than 2 effective points")
        return 0

    def _of_variances(self) -> xr.Dataset:
        sizes = _sizes(np.geomspace(2, self.largest, self.sizes))
        levels = _levels(self.variances, sizes, self.levels)
        with _Steps(len(levels), "phase diagram") as progress:
            return phase_diagram(self.variances, levels, sizes, kept=self.kept, progress=progress)

    def _of_data(self, spec: str) -> xr.Dataset:
        from geomem.data import load_data

        loaded = load_data(spec)
        points = loaded.tensor(np.arange(len(loaded))).flatten(1).double().numpy()
        rms = math.sqrt(((points - points.mean(0)) ** 2).mean())
        sizes = np.unique(np.geomspace(2, min(self.largest, len(points)), self.sizes).round())
        levels = rms * np.geomspace(0.03, 10, self.levels)
        return phase_diagram_of_data(points, levels, sizes, kept=self.kept, seed=self.seed)


COMMANDS: dict[str, Callable[..., Any]] = {
    "spectrum": Spectrum,
    "critical": Critical,
    "retention": Retention,
    "information": Information,
    "phase-diagram": PhaseDiagram,
    "check": Check,
}


class _Steps:
    # Progress of a map on standard error, level by level.
    def __init__(self, total: int, label: str) -> None:
        self.progress = Progress(total, label)

    def __enter__(self) -> Callable[[int], None]:
        return self.progress.update

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None and self.progress.terminal:
            self.progress.finish()


def _sizes(num_samples: Sequence[float] | Array) -> Array:
    sizes = np.unique(np.atleast_1d(check_sizes(num_samples)))
    if (sizes < 2).any():
        raise InputError(f"num_samples is {sizes.min():g}; pass sizes N >= 2")
    return sizes


def _levels(variances: Sequence[float], sizes: Array, count: int) -> Array:
    # From well below the last loss to well above the first opening.
    v = check_variances(variances)
    high = 3 * math.sqrt(v.max())
    low = math.sqrt(v[v > 0].min()) / max(10.0, 3 * float(sizes.max()) ** (1 / len(v)))
    return np.geomspace(max(low, high * 1e-4), high, count)


def _draw(path: Path | None, name: str, data: xr.Dataset) -> None:
    if path is None:
        return
    from geomem.show.figures import theory as theory_figures

    figure, ax = theory_figures.new_figure()
    getattr(theory_figures, name)(data, ax)
    theory_figures.save_figure(figure, path)
