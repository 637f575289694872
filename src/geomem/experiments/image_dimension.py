r"""Dimension and memorized nats against N on images: learned, empirical, predicted; theirs, ours.

At noised training and held-out images: the dimension that networks keep, as the trace of their
Jacobian (by Stein, from the same calls as the errors), beside the exact denoiser of the same
images and its prediction from the pool alone. On the same networks the normal bundle, which
takes the dimension for the place of the largest drop of a spectrum of scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from geomem.experiments.experiment import (
    Experiment,
    Judgement,
    Runs,
    Scale,
    Table,
    Verdict,
    last_networks,
    verdict_of,
)
from geomem.experiments.images import (
    LEVEL,
    LIMITS,
    SETS,
    WHOLE,
    finished,
    folder_of,
    missing,
    ran,
    sizes_axis,
    sweep_of,
    trainings,
)
from geomem.experiments.predicted import PredictedDimension
from geomem.findings.crossings import Crossing, crossing, span
from geomem.findings.groups import group_numbers
from geomem.runs.dimension import Dimensions
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.stats import Estimate

SHOWN = (LEVEL, 1.0, 1.7)  # rms: what networks lose, and where exact denoisers still keep something
BUNDLE = (0.03, LEVEL)  # rms: at which the normal bundle is asked, at two points of each kind
METHOD = "normal-bundle"
SHARES = (0.5, 0.25)
SURE = 3.0  # joint standard errors
GRADUAL = (0.1, 0.9)  # a lost share between these is neither all nor nothing
SOURCE = (
    "Achilli, Ventura, Silvestri, Pham, Raya, Krotov, Lucibello, Ambrogioni: *Losing dimensions: "
    "Geometric memorization in generative diffusion*, arXiv 2410.08727, version 2, abstract"
)


class ImageDimension(Experiment):
    r"""Does dimension grow, and memory fall, gradually with N?"""

    name = "images-dimension"
    title = "Dimension and memory against the number of images"
    quote = (
        "as data become scarce, diffusion models experience a smooth collapse where their "
        "capacity to vary across independent directions diminishes"
    )
    source = SOURCE
    claim = (
        "With N the memorized nats per image should fall and the dimension at training points "
        f"rise (at {LEVEL} rms), each by more than {SURE:g} joint errors from the smallest to the "
        f"largest N, and at some N the lost share should lie between {GRADUAL[0]} and "
        f"{GRADUAL[1]}: a collapse by degrees, not at once."
    )
    limits = LIMITS
    usual_sets = SETS

    def trainings(self, scale: Scale) -> Runs:
        r"""The sweep of each set."""
        return trainings(self.sets, scale)

    def measurements(self, out: Path, scale: Scale) -> Runs:
        r"""The normal bundle on the final networks of the first seed."""
        runs = {}
        for data in self.sets:
            step = sweep_of(data, scale).training.steps
            files = last_networks(out / folder_of(data), step, seed=0)
            if files:
                runs[f"{folder_of(data)}-bundle"] = Dimensions(
                    network=files, dimension=(METHOD,), sigmas=BUNDLE, points=2
                )
        return runs

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Nats, dimensions and crossings, set by set."""
        found = finished(out, self.sets, scale)
        rows, ends, theirs, curves, verdicts = [], [], [], {}, {}
        for data, dataset in found.items():
            one = _of_set(dataset, out, data, scale)
            curves[data] = one
            verdicts[data] = {
                "falls": _differs(one["nats"][0], one["nats"][-1]),
                "rises": _differs(one["training"][0][-1], one["training"][0][0]),
                "gradual": any(GRADUAL[0] < s[0] < GRADUAL[1] for s in one["share"]),
            }
            rows += [
                [data, f"{n:,}", _pm(one["nats"][k]), _pm(one["share"][k])]
                + [_pm(one[name][0][k]) for name in ("training", "held_out")]
                + [
                    f"{_pm(one['exact'][s][k])} / {_pm(one['predicted'][s][k])}"
                    for s in range(1, len(SHOWN))
                ]
                for k, n in enumerate(one["sizes"])
            ]
            for what, values in (
                ("over the window", one["share"]),
                (f"at {LEVEL} rms", one["lost"]),
            ):
                spans = [
                    span(_falls(one["sizes"], values, level), one["sizes"]) for level in SHARES
                ]
                ends.append([data, what, *spans])
            theirs += _theirs(data, one)
        verdict, why = _verdict(verdicts, curves)
        levels = [f"{s:g} rms" for s in SHOWN]
        return Judgement(
            verdict,
            why,
            [
                *ran(found, scale),
                *missing(out, self.sets, scale),
                "Dimension of networks is z·(D - x)/σ averaged over 4 draws at each of 64 images; "
                "of exact denoisers the trace of their Jacobian. Predicted from the data: subsets "
                "of N of up to 10,000 images of the pool, averaged exactly, at 128 of its images.",
                "The rules stood in the source before a record of these networks was read.",
            ],
            [
                Table(
                    "Networks after the last step: memorized nats per image, their share of the "
                    f"control's, dimension at {levels[0]}; exact denoisers: dimension measured / "
                    f"predicted from the pool at {' and '.join(levels[1:])}",
                    ["set", "N", "nats", "share", "dimension, training", "held-out"]
                    + [f"exact, {level}" for level in levels[1:]],
                    rows,
                ),
                Table(
                    "N at which the lost share falls below 1/2 and 1/4 (95 % interval over images "
                    "and trainings)",
                    ["set", "share of nats", "1/2", "1/4"],
                    ends,
                ),
                Table(
                    "The paper's way on the same networks: normal bundle (first seed, two points), "
                    "beside the trace of the Jacobian (both seeds, 64 points)",
                    ["set", "N", "σ, rms", "bundle, training", "held-out", "trace, training",
                     "held-out"],
                    theirs,
                ),
            ],
            curves,
        )  # fmt: skip

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Nats, and dimension at three levels, against N; a column a set."""
        return _figure(document["curves"])


# ------------------------------------------------------------------------------- numbers


def _of_set(dataset: xr.Dataset, out: Path, data: str, scale: Scale) -> dict[str, Any]:
    sweep = sweep_of(data, scale)
    last = sweep.training.steps
    learned = group_numbers(dataset, WHOLE).isel(group=0)
    learned = learned.isel(subject=learned.step.values == last).sortby("num_samples")
    exact = group_numbers(dataset, WHOLE, kinds=("empirical",)).isel(group=0)
    sizes = [int(n) for n in learned.num_samples.values]
    exact = exact.isel(subject=[exact.num_samples.values.tolist().index(n) for n in sizes])
    places = [nearest_level(learned, level) for level in SHOWN]
    sigmas = tuple(float(learned.sigma.values[k]) for k in places)
    asked = PredictedDimension(dataset.attrs["data_digest"], tuple(sizes), sigmas)
    predicted = asked.run(out / f"{folder_of(data)}-predicted.json", sweep.source)["predicted"]
    bundle, traces = _bundle(out, data, last), []
    for level in BUNDLE:
        k = nearest_level(learned, level)
        traces.append(
            {at: _pairs(learned[f"{at}_dimension"].isel(sigma=k), learned, at, k)
             for at in ("training", "held_out")}
        )  # fmt: skip
    return {
        "sizes": sizes,
        "levels": [float(f"{learned.sigma_relative.values[k]:.3g}") for k in places],
        "ambient": int(dataset.attrs["ambient_dim"]),
        "nats": column(learned, "nats"),
        "share": column(learned, "whole_share"),
        "lost": column(learned.isel(sigma=places[0]), "share"),
        "exact_nats": column(exact, "nats"),
        "training": [column(learned.isel(sigma=k), "training_dimension") for k in places],
        "held_out": [column(learned.isel(sigma=k), "held_out_dimension") for k in places],
        "exact": [column(exact.isel(sigma=k), "training_dimension") for k in places],
        "predicted": [[predicted[str(n)][s] for n in sizes] for s in range(len(SHOWN))],
        "bundle": bundle,
        "traces": traces,
    }


def nearest_level(known: xr.Dataset, level: float) -> int:
    r"""The place of the measured level nearest to one in rms."""
    return int(np.abs(np.log(known.sigma_relative.values / level)).argmin())


def column(known: xr.Dataset, name: str) -> list[list[float]]:
    r"""Values and errors of a quantity by row, as a document holds them."""
    return [_pair(v, e) for v, e in zip(known[name].values, known[f"{name}_stderr"].values,
                                        strict=True)]  # fmt: skip


def _pair(value: float, error: float) -> list[float]:
    # What is not known is no number of the page: exact denoisers of few points may lack a share.
    known = np.isfinite([value, error]).all()
    return [float(f"{value:.5g}"), float(f"{error:.3g}")] if known else [0.0, 0.0]


def _pairs(values: xr.DataArray, known: xr.Dataset, at: str, level: int) -> list[list[float]]:
    errors = known[f"{at}_dimension_stderr"].isel(sigma=level)
    return [_pair(v, e) for v, e in zip(values.values, errors.values, strict=True)]


def _bundle(out: Path, data: str, step: int) -> dict[str, Any]:
    # By size: at each level and kind the answers of both points; nothing where it was not asked.
    found: dict[str, Any] = {}
    path = out / f"{folder_of(data)}-bundle"
    if not (path / "config.json").exists():
        return found
    dataset = load(path)
    for k, subject in enumerate(RunFolder.open(path).subjects):
        if subject.kind == "learned" and subject.step == step and dataset.measured.values[k]:
            row = dataset.local_dimension.isel(subject=k, dimension_method=0)
            found[str(subject.num_samples)] = {
                at: [
                    [float(v) for v in row.sel(at=at).isel(sigma=s).values if np.isfinite(v)]
                    for s in range(row.sizes["sigma"])
                ]
                for at in ("training", "held_out")
            }
    return found


def _theirs(data: str, one: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for k, n in enumerate(one["sizes"]):
        for s, level in enumerate(BUNDLE):
            answers = one["bundle"].get(str(n))
            cells = [
                ", ".join(f"{v:g}" for v in answers[at][s]) or "no drop" if answers else "not asked"
                for at in ("training", "held_out")
            ]
            ours = [_pm(one["traces"][s][at][k]) for at in ("training", "held_out")]
            rows.append([data, f"{n:,}", f"{level:g}", *cells, *ours])
    return rows


def _pm(pair: Sequence[float]) -> str:
    return repr(Estimate(*pair))


def _differs(more: Sequence[float], less: Sequence[float]) -> float:
    r"""By how many joint standard errors one pair is above another."""
    return Estimate(*more).z_score(Estimate(*less))


def _falls(sizes: Sequence[int], values: Sequence[Sequence[float]], level: float) -> Crossing:
    return crossing(sizes, [v for v, _ in values], [e for _, e in values], level)


def _verdict(
    found: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Any]
) -> tuple[Verdict, str]:
    whole = {
        data: one["falls"] > SURE and one["rises"] > SURE and bool(one["gradual"])
        for data, one in found.items()
    }
    none = all(one["falls"] < SURE and one["rises"] < SURE for one in found.values())
    parts = []
    for data, one in curves.items():
        first, last = one["sizes"][0], one["sizes"][-1]
        parts.append(
            f"{data}: {_pm(one['nats'][0])} nats at N = {first:,} and {_pm(one['nats'][-1])} at "
            f"{last:,}, dimension {_pm(one['training'][0][0])} and "
            f"{_pm(one['training'][0][-1])} of {one['ambient']}"
        )
    why = f"Memorized per image, and kept at {LEVEL} rms: " + "; ".join(parts) + "."
    everywhere = all(whole.values()) and len(whole) > 1
    return verdict_of(everywhere, any(whole.values()), bool(none)), why


# -------------------------------------------------------------------------------- figure


def _figure(curves: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(3.1 * max(2, len(curves)) + 0.4, 8), layout="constrained")
    grid = figure.subplots(3, len(curves), squeeze=False, sharex="col")
    for column, (data, one) in zip(grid.T, curves.items(), strict=True):
        x = np.array(one["sizes"])
        column[0].set_title(data, fontsize=10)
        _bars(column[0], x, one["nats"], "o-", "C0", "networks, training")
        _bars(column[0], x, one["exact_nats"], "x--", "0.4", "exact, measured")
        for row, place in zip(column[1:], (0, 1), strict=True):
            _bars(row, x, one["training"][place], "o-", "C0", "networks, training")
            _bars(row, x, one["held_out"][place], "o:", "C1", "networks, held-out")
            _bars(row, x, one["exact"][place], "x--", "0.4", "exact, measured")
            row.plot(x, [v for v, _ in one["predicted"][place]], "+", color="k", ms=9,
                     label="exact, predicted")  # fmt: skip
            row.set_title(f"σ = {one['levels'][place]:g} rms", fontsize=8, loc="right", pad=2)
        column[2].set(xlabel="training images N")
        for ax in column:
            sizes_axis(ax, one["sizes"])
    grid[0, 0].set_ylabel("memorized nats per image")
    for ax in grid[1:, 0]:
        ax.set_ylabel("dimension kept")
    for ax in grid.flat:
        ax.set_ylim(bottom=0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    handles = {label: h for ax in grid[:, 0] for h, label in zip(*ax.get_legend_handles_labels(),
                                                                strict=True)}  # fmt: skip
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3,
                  frameon=False, fontsize=8)  # fmt: skip
    return figure


def _bars(
    ax: Any, x: np.ndarray, pairs: Sequence[Sequence[float]], style: str, colour: str, label: str
) -> None:
    values, errors = np.array(pairs).T
    ax.errorbar(
        x, values, errors, fmt=style, color=colour, ms=4, lw=1.2, elinewidth=0.8, label=label
    )
