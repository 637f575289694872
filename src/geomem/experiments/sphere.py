r"""Linear against curved, learned: a sphere and the plane of the same covariance.

Both fill six of thirty directions with covariance I, so that no linear analysis tells them
apart; the sphere has dimension 5, the plane 6. Both population denoisers are known, and are the
controls: what is missing beside them is memory, curvature taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from geomem.experiments.experiment import Experiment, Judgement, Runs, Scale, Table, Verdict
from geomem.experiments.images import LEVEL, WHOLE
from geomem.findings.groups import group_numbers
from geomem.runs.load import load
from geomem.runs.sweep import Sweep
from geomem.stats import Estimate

NAMES = {"plane": "linear", "sphere": "sphere"}
SIZES = (10, 30, 100, 300, 1000)
SURE = 3.0  # joint standard errors
SOURCE = (
    "Achilli, Ventura, Silvestri, Pham, Raya, Krotov, Lucibello, Ambrogioni: *Losing dimensions: "
    "Geometric memorization in generative diffusion*, arXiv 2410.08727, version 1, abstract"
)


def sphere_sweep(name: str, scale: Scale) -> Sweep:
    r"""The trainings on one of the two, frozen."""
    long = scale == "gpu"
    return Sweep(
        NAMES[name],
        variances=(1.0,) * 6,
        ambient_dim=30,
        sizes=(*SIZES, 3000, 10_000) if long else SIZES,
        steps=60_000 if long else 4000,
        measured_steps=(4000, 20_000) if long else (1000,),
        seeds=(0, 1, 2, 3) if long else (0, 1),
        network="mlp",
        widths=(128,),
        blocks=2,
        levels=10,
        jacobian_points=0,
        samples=0,
        trajectories=0,
    )


class SpherePlane(Experiment):
    r"""Does curvature change what is lost?"""

    name = "sphere"
    title = "Linear against curved"
    quote = (
        "we extend the theory of memorization in generative diffusion to manifold-supported data"
    )
    source = SOURCE
    claim = (
        "The theory is one of linear manifolds. If it says something of curved ones, networks on a "
        "sphere should lose the same share of the population's error as networks on a plane of "
        f"the same covariance: at each N within {SURE:g} joint errors."
    )
    limits = (
        "One sphere (S^5 in 30 dimensions), one plane, an MLP of width 128, 4,000 steps, two "
        "trainings a size: a difference below the errors of the table is not seen. Curvature that "
        "varies, or is stronger than that of a sphere at the levels measured, is not tried. A "
        "share below 0 is no memory: it is what networks have not learned of the population, on "
        "the sphere its curvature, at every N; it hides as much of what is memorized, so that "
        "shares of both are compared beside different floors."
    )

    def trainings(self, scale: Scale) -> Runs:
        r"""One sweep on each."""
        return {f"sphere-{name}": sphere_sweep(name, scale) for name in NAMES}

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Lost shares, missing nats and dimension of both by N."""
        last = sphere_sweep("plane", scale).training.steps
        known, whole = {}, {}
        for name in NAMES:
            dataset = load(out / f"sphere-{name}")
            found = group_numbers(dataset, WHOLE).isel(group=0)
            found = found.isel(subject=found.step.values == last).sortby("num_samples")
            known[name] = found.swap_dims(subject="num_samples")
            whole[name] = group_numbers(dataset, WHOLE, kinds=("population",)).isel(group=0)
        sizes = [int(n) for n in known["plane"].num_samples.values]
        level = int(np.abs(np.log(known["plane"].sigma_relative.values / LEVEL)).argmin())
        rows, scores = [], {}
        for n in sizes:
            cells = {name: known[name].sel(num_samples=n) for name in NAMES}
            shares = {name: _estimate(cell, "whole_share") for name, cell in cells.items()}
            scores[n] = shares["sphere"].z_score(shares["plane"])
            row = [f"{n:,}"]
            for cell in cells.values():
                row += [repr(_estimate(cell, "nats")), repr(_estimate(cell, "whole_share"))]
            row += [f"{scores[n]:+.1f}"]
            for cell in cells.values():
                at = cell.isel(sigma=level)
                row.append(
                    f"{_estimate(at, 'training_dimension')} / {_estimate(at, 'held_out_dimension')}"
                )
            rows.append(row)
        population = [
            repr(_estimate(whole[name].isel(subject=0, sigma=level), "training_dimension"))
            for name in NAMES
        ]
        rows.append(["population", *["–"] * 5, *population])
        verdict, why = _verdict(scores, known)
        sigma = float(known["plane"].sigma.values[level])
        return Judgement(
            verdict,
            why,
            [
                "A sphere S^5 of radius √6 and a Gaussian plane of covariance I in six of thirty "
                f"dimensions; N = {', '.join(f'{n:,}' for n in sizes)}, nested, two trainings each "
                f"of {last:,} steps of 128, MLP of width 128 with two residual blocks; 64 training "
                "and 64 held-out points, 10 levels, beside the population of each. ± is over "
                "points and trainings together.",
                "The rule stood in the source before a record of these networks was read.",
            ],
            [
                Table(
                    "Missing nats and their share of the population's error, after the last step; "
                    f"dimension kept at σ = {sigma:.2g} at training / held-out points",
                    ["N", "plane, nats", "share", "sphere, nats", "share", "z of the shares",
                     "dimension, plane", "dimension, sphere"],
                    rows,
                )
            ],
            {name: _plain(known[name], level) for name in NAMES},
        )  # fmt: skip

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Lost share, and dimension kept, against N, of both."""
        curves = document["curves"]
        figure = Figure(figsize=(8.2, 3.5), layout="constrained")
        axes = figure.subplots(1, 2)
        for name, colour in (("plane", "C1"), ("sphere", "C0")):
            one = curves[name]
            x = one["sizes"]
            values, errors = np.array(one["share"]).T
            axes[0].errorbar(x, values, errors, fmt="o-", color=colour, ms=4, label=name)
            for at, style in (("training", "o-"), ("held_out", "o:")):
                values, errors = np.array(one[at]).T
                label = f"{name}, {at.replace('_', '-')}"
                axes[1].errorbar(x, values, errors, fmt=style, color=colour, ms=4, label=label)
        axes[0].set_ylabel("lost share of the population's error")
        axes[1].set_ylabel(f"dimension kept, σ = {curves['plane']['sigma']:g}")
        axes[0].axhline(0, color="0.85", lw=0.8)
        for ax in axes:
            ax.set(xscale="log", xlabel="training points N")
            ax.legend(frameon=False, fontsize=8)
            ax.spines[["top", "right"]].set_visible(False)
        return figure


def _estimate(cell: xr.Dataset, name: str) -> Estimate:
    return Estimate(float(cell[name]), float(cell[f"{name}_stderr"]))


def _verdict(scores: Mapping[int, float], known: Mapping[str, xr.Dataset]) -> tuple[Verdict, str]:
    within = {n: abs(z) <= SURE for n, z in scores.items()}
    parts = []
    for n, z in scores.items():
        plane, sphere = (_estimate(known[name].sel(num_samples=n), "whole_share") for name in NAMES)
        parts.append(f"N = {n:,} {plane} and {sphere} (z {z:+.1f})")
    why = f"Lost share on the plane and on the sphere: {'; '.join(parts)}."
    if all(within.values()):
        return "confirmed", why
    return ("confirmed in this regime" if any(within.values()) else "not seen"), why


def _plain(known: xr.Dataset, level: int) -> dict[str, Any]:
    def pairs(values: xr.Dataset, name: str) -> list[list[float]]:
        columns = values[name].values, values[f"{name}_stderr"].values
        return [[float(f"{v:.4g}"), float(f"{e:.3g}")] for v, e in zip(*columns, strict=True)]

    at = known.isel(sigma=level)
    return {
        "sizes": [int(n) for n in known.num_samples.values],
        "sigma": float(f"{float(at.sigma):.3g}"),
        "share": pairs(known, "whole_share"),
        "training": pairs(at, "training_dimension"),
        "held_out": pairs(at, "held_out_dimension"),
    }
