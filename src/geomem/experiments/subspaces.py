r"""Which subspace is lost first: retention and missing dimension of both groups, N by level.

Of networks at their own training points, with noise: the diagonal of the Jacobian along the
two directions of high and the five of low variance, over the control's at the same points. On
Gaussian samples the control is the population, on normalised ones a network that never saw the
points. Errors hold both what trainings and what points differ by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from geomem.experiments.exact import GROUPS, LEVELS, MOST, ExactRetention, beyond
from geomem.experiments.experiment import Experiment, Judgement, Runs, Scale, Table, Verdict
from geomem.experiments.linear import KINDS, LIMITS, RECIPE, sweep_of, trainings, unfinished
from geomem.manifolds import PAPER_VARIANCES
from geomem.runs.load import load
from geomem.stats import Estimate
from geomem.theory.condensation import t_star

LEAST = 0.05  # of a dimension that the control keeps, below which retention is undefined
SURE = 3.0  # standard errors between groups, from which an order is an order
MANY = 0.8  # of the sure cells
LOST = 0.1  # of retention, below that of the largest N: what even those networks lack is no memory
SHOWN = (0.0527, 0.109, 0.322)  # levels of the table


class Subspaces(Experiment):
    r"""High against low variance, in networks at training points."""

    name = "linear-subspaces"
    title = "Which subspace is lost first"
    quote = (
        "Perhaps counterintuitively, we find that, under some conditions, subspaces of higher "
        "variance are lost first due to memorization effects."
    )
    claim = (
        "Where the groups differ, the group of high variance should keep the smaller share of "
        "what its control keeps."
    )
    limits = LIMITS

    def trainings(self, scale: Scale) -> Runs:
        r"""The trainings of all linear experiments."""
        return trainings(scale)

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Retention of both groups, their order cell by cell, and the rank correlations."""
        sizes = sweep_of("gaussian", scale).sizes
        asked = tuple(int(n) for n in sizes if n != "all" and int(n) <= MOST)
        exact = ExactRetention(asked, LEVELS).run(out / "linear-exact-retention.json")
        cells, rows, orders, links = {}, [], [], []
        for kind in KINDS:
            dataset = load(out / f"linear-{kind}")
            for step in sorted({int(s) for s in dataset.step.values if not np.isnan(s)}):
                found = retention_of(dataset, step)
                cells[kind, step] = found
                for what, least in (("a tenth lost", LOST), ("all", -np.inf)):
                    counts = map(str, sure_cells(found, least))
                    orders.append([kind, f"{step:,}", what, *counts])
                links.append([kind, f"{step:,}", *correlations(found, exact)])
            rows += _rows(kind, cells[kind, step])
        last = {kind: cells[kind, step] for kind in KINDS}
        check = beyond(exact)
        verdict, why = _verdict({kind: sure_cells(found) for kind, found in last.items()})
        return Judgement(
            verdict,
            why,
            [
                *(
                    _ran(kind, found, max(s for k, s in cells if k == kind))
                    for kind, found in last.items()
                ),
                *unfinished(out),
                "Both are looked at on the way, too; 16 levels; at 64 noised training points.",
                RECIPE,
                f"Exact denoisers: {exact['asked']['total']:,} planted points of each size (fewer "
                "above N = 1,000), in "
                "data sets of their own, beside the exact prediction at finite size.",
                "The verdict counts cells in which something is lost: that was added after a first "
                "look, since networks of any N lack a few percent that no data set explains; the "
                "counts over all cells stand beside it.",
            ],
            [
                Table(
                    "Retention of high / low variance at training points, last step "
                    "(± over trainings and points)",
                    ["samples", "N", *(f"σ = {s:.3g}" for s in SHOWN)],
                    rows,
                ),
                Table(
                    "Cells in which a group has lost a tenth beside the largest N, and all; "
                    f"in how many of them the groups differ by more than {SURE:g} standard errors",
                    [
                        "samples",
                        "steps",
                        "of cells",
                        "number",
                        "high variance first",
                        "low variance first",
                        "in missing dimension: high first",
                        "low first",
                    ],
                    orders,
                ),
                Table(
                    "Rank correlation of retention over cells and groups; theory is of the plane",
                    ["samples", "steps", "with the exact prediction", "with t/t* of the paper"],
                    links,
                ),
                Table(
                    "Exact denoisers: measured against predicted exactly",
                    [
                        "cells",
                        "beyond 3 joint standard errors",
                        "largest",
                        "rms",
                        "cells with an error of at most .01",
                    ],
                    [
                        [
                            str(check["cells"]),
                            str(check["beyond"]),
                            f"{check['largest']:.1f}",
                            f"{check['rms_z']:.2f}",
                            str(check["known"]),
                        ]
                    ],
                ),
            ],
            {"exact": exact, **{kind: _plain(found) for kind, found in last.items()}},
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Retention against level: exact denoisers and networks, high solid and low dashed."""
        return _figure(document["curves"])


# ------------------------------------------------------------------------------- numbers


def _ran(kind: str, found: xr.Dataset, step: int) -> str:
    pairs = zip(found.num_samples.values, found.attrs["trainings"], strict=True)
    names = ", ".join(f"{int(n):,} ({count})" for n, count in pairs)
    return f"On {kind} samples N = {names}, with their trainings, of {step:,} steps."


def retention_of(dataset: xr.Dataset, step: int) -> xr.Dataset:
    r"""Retention and missing dimension of both groups, by size and level, with errors.

    Arguments:
        dataset: What :func:`geomem.load` returns of a sweep.
        step: The step of the trainings.

    Returns:
        Over ``num_samples``, ``sigma`` and ``group``: ``retention``, ``missing`` (dimensions)
        and their ``_stderr``; without group ``difference`` and ``missing_difference``, high
        minus low, with their errors; ``control``, what it keeps of one direction.
    """
    kept = dataset.diagonal.sel(at="training").transpose("subject", "sigma", "point", "direction")
    kind, control = dataset["kind"].values, dataset.attrs["control"]
    whole = kept.values[np.flatnonzero(kind == control)[0]]  # (sigma, point, direction)
    own = (kind == "learned") & (dataset.step.values == step) & dataset.measured.values
    sizes = sorted({int(n) for n in dataset.num_samples.values[own]})
    shape = (len(sizes), kept.sizes["sigma"])
    arrays = {name: np.full((*shape, 2), np.nan) for name in ("retention", "missing", "control")}
    arrays |= {name: np.full((*shape, 2), np.nan) for name in ("r_error", "m_error")}
    pairs = {name: np.full((*shape, 2), np.nan) for name in ("difference", "missing_difference")}
    for n, size in enumerate(sizes):
        mine = kept.values[own & (dataset.num_samples.values == size)]
        there = ~np.isnan(mine[0, 0, :, 0])
        mine = mine[:, :, there].astype(float)  # (training, sigma, point, direction)
        for k in range(shape[1]):
            shares, missing = [], []
            for g, group in enumerate(GROUPS.values()):
                count = group.stop - group.start
                base = whole[k, there, group].astype(float).sum(-1)  # (point)
                each = mine[:, k, :, group].sum(-1)  # (training, point)
                shares.append(each / base.mean())
                missing.append(base - each)
                arrays["control"][n, k, g] = base.mean() / count
                # Of a ratio of means over the same points.
                r = each.mean() / base.mean()
                arrays["retention"][n, k, g] = r
                arrays["r_error"][n, k, g] = _two_way((each - r * base) / base.mean())
                arrays["missing"][n, k, g] = missing[-1].mean()
                arrays["m_error"][n, k, g] = _two_way(missing[-1])
            for name, pair in (("difference", shares), ("missing_difference", missing)):
                difference = pair[0] - pair[1]
                pairs[name][n, k] = difference.mean(), _two_way(difference)
    wide = ("num_samples", "sigma", "group")
    found: dict[str, Any] = {
        "retention": (wide, arrays["retention"]),
        "retention_stderr": (wide, arrays["r_error"]),
        "missing": (wide, arrays["missing"]),
        "missing_stderr": (wide, arrays["m_error"]),
        "control": (wide, arrays["control"]),
    }
    for name, array in pairs.items():
        found[name] = (wide[:2], array[..., 0])
        found[f"{name}_stderr"] = (wide[:2], array[..., 1])
    trainings = [int((own & (dataset.num_samples.values == n)).sum()) for n in sizes]
    coords = {"num_samples": sizes, "sigma": dataset.sigma.values, "group": list(GROUPS)}
    return xr.Dataset(found, coords, {"trainings": trainings})


def _two_way(values: np.ndarray) -> float:
    # Of (training, point): what trainings differ by, and what points differ by.
    trainings, points = values.shape
    over_points = values.mean(0).var(ddof=1) / points if points > 1 else np.nan
    over_trainings = values.mean(1).var(ddof=1) / trainings if trainings > 1 else 0.0
    return float(np.sqrt(over_points + over_trainings))


def _defined(found: xr.Dataset) -> np.ndarray:
    return np.asarray((found.control >= LEAST).all("group").values)


def sure_cells(found: xr.Dataset, least: float = LOST) -> tuple[int, ...]:
    r"""Cells where so much is lost; high first and low first by retention; by missing dimension.

    Arguments:
        found: What :func:`retention_of` returns.
        least: How much retention is lost, below that of the largest N.
    """
    lost = (found.retention.isel(num_samples=-1) - found.retention >= least).any("group")
    asked = _defined(found) & lost.transpose("num_samples", "sigma").values
    z = (found.difference / found.difference_stderr).values[asked]
    m = (found.missing_difference / found.missing_difference_stderr).values[asked]
    sure = (z < -SURE, z > SURE, m > SURE, m < -SURE)
    return (int(asked.sum()), *(int(order.sum()) for order in sure))


def correlations(found: xr.Dataset, exact: Mapping[str, Any]) -> list[str]:
    r"""Spearman's rank correlation with the exact prediction and with the paper's t/t*.

    Over the sizes and between the levels that were predicted; interpolated in ln sigma.
    """
    levels = np.log(exact["asked"]["sigmas"])
    known = _defined(found)
    predicted, paper, measured = [], [], []
    for n, size in enumerate(found.num_samples.values):
        if str(size) not in exact["predicted"]:
            continue
        stars = t_star(PAPER_VARIANCES, int(size), gaussian=True)
        for k, sigma in enumerate(found.sigma.values):
            inside = levels[0] <= np.log(sigma) <= levels[-1]
            for g, (name, group) in enumerate(GROUPS.items()):
                if known[n, k] and inside:
                    cells = np.array(exact["predicted"][str(size)][name])[:, 0]
                    predicted.append(np.interp(np.log(sigma), levels, cells))
                    paper.append(sigma**2 / stars[group.start])
                    measured.append(found.retention.values[n, k, g])
    if len(measured) < 3:
        return ["too few cells"] * 2
    return [f"{spearmanr(measured, other).statistic:.2f}" for other in (predicted, paper)]


def retention_cells(found: xr.Dataset, size: int | float, levels: Sequence[float]) -> list[str]:
    r"""Retention of high / low variance with errors, at the measured levels nearest to these.

    Arguments:
        found: What :func:`retention_of` returns.
        size: The number of training points.
        levels: The levels.
    """
    cells = []
    for sigma in levels:
        one = found.sel(num_samples=size).sel(sigma=sigma, method="nearest")
        pair = (Estimate(float(one.retention[g]), float(one.retention_stderr[g])) for g in (0, 1))
        cells.append(" / ".join(map(repr, pair)))
    return cells


def _rows(kind: str, found: xr.Dataset) -> list[list[str]]:
    return [
        [kind, f"{int(size):,}", *retention_cells(found, size, SHOWN)]
        for size in found.num_samples.values
    ]


def _verdict(counts: Mapping[str, tuple[int, ...]]) -> tuple[Verdict, str]:
    parts, first = [], {}
    for kind, (cells, high, low, *_) in counts.items():
        first[kind] = high / (high + low) if high + low else np.nan
        parts.append(f"{kind} samples: high first in {high}, low in {low} of {cells} cells")
    text = "; ".join(parts)
    known = [share for share in first.values() if np.isfinite(share)]
    if not known:
        return "undecided at this scale", f"No cell tells the groups apart ({text})."
    if all(share >= MANY for share in known):
        return "confirmed", f"Where groups differ, high variance keeps less ({text})."
    if all(share <= 1 - MANY for share in known):
        return "not seen", (
            f"Where groups differ, the *low* variance keeps the smaller share ({text})."
        )
    return "confirmed in this regime", (
        f"Which group keeps the smaller share depends on the cell ({text})."
    )


def _plain(found: xr.Dataset) -> dict[str, Any]:
    def rounded(values: np.ndarray) -> Any:
        return [
            [[None if np.isnan(v) else float(f"{v:.4g}") for v in pair] for pair in row]
            for row in values
        ]

    shown = found.retention.where(found.control >= LEAST)
    return {
        "sizes": [int(n) for n in found.num_samples.values],
        "sigmas": [float(f"{s:.4g}") for s in found.sigma.values],
        "trainings": found.attrs["trainings"],
        "retention": rounded(shown.values),
        "retention_stderr": rounded(found.retention_stderr.values),
        "missing": rounded(found.missing.values),
        "missing_stderr": rounded(found.missing_stderr.values),
    }


# -------------------------------------------------------------------------------- figure


def _figure(curves: Mapping[str, Any]) -> Figure:
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True, sharey="row", squeeze=False)
    sizes = [int(n) for n in curves["exact"]["measured"]]
    colors = dict(zip(sizes, colormaps["viridis"](np.linspace(0, 0.9, len(sizes))), strict=True))
    v = dict(zip(GROUPS, (1.0, 0.09), strict=True))
    counts = dict(zip(GROUPS, (2, 5), strict=True))
    sigmas = np.array(curves["exact"]["asked"]["sigmas"])
    for n, color in colors.items():
        for group, style in zip(GROUPS, ("-", "--"), strict=True):
            whole = counts[group] * v[group] / (v[group] + sigmas**2)
            predicted, measured = (
                np.array(curves["exact"][name][str(n)][group])[:, 0]
                for name in ("predicted", "measured")
            )
            grid[0, 0].plot(sigmas, predicted, style, color=color, lw=1)
            grid[0, 0].plot(sigmas, measured, "o", color=color, ms=2.5)
            grid[1, 0].plot(sigmas, whole * (1 - predicted), style, color=color, lw=1)
            grid[1, 0].plot(sigmas, whole * (1 - measured), "o", color=color, ms=2.5)
    for column, kind in enumerate(KINDS, start=1):
        one = curves[kind]
        for r, name in enumerate(("retention", "missing")):
            values = np.array(one[name], float)
            errors = np.nan_to_num(np.array(one[f"{name}_stderr"], float))
            for n, size in enumerate(one["sizes"]):
                for g, style in enumerate(("-", "--")):
                    grid[r, column].errorbar(
                        one["sigmas"], values[n, :, g], errors[n, :, g], ls=style,
                        color=colors.get(size, "k"), lw=1, marker=".", ms=3, elinewidth=0.6,
                    )  # fmt: skip
    titles = ("exact denoisers: predicted, dots measured", "networks, Gaussian samples",
              "networks, normalised samples")  # fmt: skip
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
        ax.set_ylim(-0.1, 1.3)
    for ax in grid[1]:
        ax.set(xscale="log", xlabel="σ")
    grid[0, 0].set_ylabel("retention, of the control's")
    grid[1, 0].set_ylabel("missing dimension")
    for ax in grid.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7)
    handles = [Line2D([], [], color=c, label=f"N = {n:,}") for n, c in colors.items()]
    handles += [
        Line2D([], [], color="0.4", ls=s, label=f"{g} variance")
        for g, s in zip(GROUPS, ("-", "--"), strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure
