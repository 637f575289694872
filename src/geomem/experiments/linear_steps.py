r"""Whether long training turns the order in which subspaces are lost: retention against steps.

The trainings of the other linear experiments, looked at on their way: networks come nearer to the
exact denoiser of their training set with every step, and that one loses the high variance first
at some levels. All is at their own noised training points, beside the control's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.experiments.exact import GROUPS, LEVELS, MOST, ExactRetention
from geomem.experiments.experiment import Experiment, Judgement, Runs, Scale, Table, Verdict
from geomem.experiments.linear import KINDS, LIMITS, RECIPE, sweep_of, trainings, unfinished
from geomem.experiments.subspaces import (
    MANY,
    SURE,
    Subspaces,
    correlations,
    retention_cells,
    retention_of,
    sure_cells,
)
from geomem.runs.load import load

SHOWN = (0.0527, 0.109, 0.207)  # levels of the table and of the figure
DRAWN = 6  # sizes of the figure at most


class Steps(Experiment):
    r"""High against low variance at training points, step by step."""

    name = "linear-steps"
    title = "Does long training turn the order?"
    quote = Subspaces.quote
    claim = (
        "If short training hid it, the cells in which the group of high variance keeps the smaller "
        "share should become more with steps, and be four fifths of the sure ones at the last."
    )
    limits = LIMITS
    gpu_limits = (
        "200,000 steps at a rate of 1e-3 that falls to 0, of one recipe and one network: the "
        "authors' loss, optimizer and up to 2,000,000 steps at 1e-4 are not tried here."
    )

    def trainings(self, scale: Scale) -> Runs:
        r"""The trainings of all linear experiments."""
        return trainings(scale)

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Retention of both groups and their order, by step.

        Raises:
            InputError: If no training has been measured at two steps.
        """
        there = [kind for kind in KINDS if (out / f"linear-{kind}" / "config.json").exists()]
        found = {kind: _by_step(load(out / f"linear-{kind}")) for kind in there}
        found = {kind: steps for kind, steps in found.items() if len(steps) > 1}
        if not found:
            raise InputError(
                f"in {out} no linear training has been measured at two steps yet; run the same "
                "command again, and let it finish"
            )
        counts = {
            (kind, step): sure_cells(one) for kind, steps in found.items() for step, one in
            steps.items()
        }  # fmt: skip
        verdict, why = _verdict(counts)
        sizes = sweep_of("gaussian", scale).sizes
        asked = tuple(int(n) for n in sizes if n != "all" and int(n) <= MOST)
        exact = ExactRetention(asked, LEVELS).run(out / "linear-exact-retention.json")
        batch = sweep_of("gaussian", scale).training.batch_size
        return Judgement(
            verdict,
            why,
            [
                *(_ran(kind, steps, batch) for kind, steps in found.items()),
                *(f"Nothing is there of {kind} samples." for kind in KINDS if kind not in found),
                *unfinished(out, found),
                "One training passes through all steps; its rate falls only in the second half, so "
                "earlier steps are of trainings that were meant to go on; and weights are averaged "
                "with a half-life of 5 % of all steps, so the first ones hold much of the "
                "beginning, whatever N: cells are judged beside the largest N for that reason.",
                RECIPE,
                "The rule stood in the source before a record of the long trainings was read.",
            ],
            [
                Table(
                    "Cells (N by level) in which a group has lost a tenth beside the largest N; in "
                    f"how many the groups differ by more than {SURE:g} standard errors",
                    [
                        "samples",
                        "steps",
                        "of cells",
                        "high variance first",
                        "low variance first",
                        "rank correlation of retention with the exact prediction",
                        "with t/t* of the paper",
                    ],
                    [
                        [
                            kind,
                            f"{step:,}",
                            *map(str, cells[:3]),
                            *correlations(found[kind][step], exact),
                        ]
                        for (kind, step), cells in counts.items()
                    ],
                ),
                Table(
                    "Retention of high / low variance at training points (± over trainings and "
                    "points)",
                    ["samples", "N", "steps", *(f"σ = {s:.3g}" for s in _levels(found))],
                    [row for kind, steps in found.items() for row in _rows(kind, steps)],
                ),
            ],
            {kind: _plain(steps) for kind, steps in found.items()},
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Retention against steps, a column a size, a row a level; high solid, low dashed."""
        return _figure(document["curves"])


def _by_step(dataset: xr.Dataset) -> dict[int, xr.Dataset]:
    learned = (dataset["kind"].values == "learned") & dataset.measured.values
    steps = sorted({int(s) for s in dataset.step.values[learned]})
    return {step: retention_of(dataset, step) for step in steps}


def _ran(kind: str, steps: Mapping[int, xr.Dataset], batch: int) -> str:
    last = max(steps)
    pairs = zip(steps[last].num_samples.values, steps[last].attrs["trainings"], strict=True)
    names = ", ".join(f"{int(n):,} ({count})" for n, count in pairs)
    smallest = int(steps[last].num_samples.values[0])
    return (
        f"On {kind} samples N = {names}, with their trainings, of {last:,} steps: "
        f"{last * batch // smallest:,} passes over the smallest set. 16 levels, 64 noised training "
        "points."
    )


def _verdict(counts: Mapping[tuple[str, int], tuple[int, ...]]) -> tuple[Verdict, str]:
    shares: dict[str, dict[int, float]] = {}
    parts = []
    for (kind, step), (cells, high, low, *_) in counts.items():
        sure = high + low
        shares.setdefault(kind, {})[step] = high / sure if sure else np.nan
        parts.append(f"{high} of {sure} sure ones ({cells} cells) after {step:,} on {kind} samples")
    why = "High variance keeps less in " + ", ".join(parts) + "."
    ends = [(known[min(known)], known[max(known)]) for known in shares.values()]
    if not all(np.isfinite(last) for _, last in ends):
        return "undecided at this scale", f"No cell tells the groups apart at the end. {why}"
    more = [not last <= first for first, last in ends]
    if all(last >= MANY for _, last in ends) and all(more):
        return "confirmed", f"Long training turns the order. {why}"
    if any(last > 0.5 for _, last in ends):
        return "confirmed in this regime", f"At the end the order depends on the cell. {why}"
    return "not seen", f"Long training does not turn the order. {why}"


def _rows(kind: str, steps: Mapping[int, xr.Dataset]) -> list[list[str]]:
    return [
        [kind, f"{int(size):,}", f"{step:,}", *retention_cells(one, size, SHOWN)]
        for size in steps[max(steps)].num_samples.values
        for step, one in steps.items()
    ]


def _levels(found: Mapping[str, Mapping[int, xr.Dataset]]) -> list[float]:
    # The measured levels nearest to those that are shown.
    sigmas = next(iter(next(iter(found.values())).values())).sigma
    return [float(sigmas.sel(sigma=s, method="nearest")) for s in SHOWN]


def _plain(steps: Mapping[int, xr.Dataset]) -> dict[str, Any]:
    last = steps[max(steps)]
    sizes = [int(n) for n in last.num_samples.values]
    levels = _levels({"": steps})
    return {
        "sizes": sizes,
        "steps": list(steps),
        "sigmas": [float(f"{s:.3g}") for s in levels],
        **{
            name: [
                [
                    [[float(f"{v:.4g}") for v in one[name].sel(num_samples=n, sigma=s).values]
                     for n in sizes]
                    for s in levels
                ]
                for one in steps.values()
            ]
            for name in ("retention", "retention_stderr")
        },
    }  # fmt: skip


def _figure(curves: Mapping[str, Any]) -> Figure:
    kind, one = next(iter(curves.items()))
    every = np.unique(np.linspace(0, len(one["sizes"]) - 1, DRAWN).round().astype(int))
    values, errors = np.array(one["retention"]), np.array(one["retention_stderr"])
    figure = Figure(figsize=(1.9 * len(every) + 0.8, 5.6), layout="constrained")
    grid = figure.subplots(len(SHOWN), len(every), squeeze=False, sharex=True, sharey=True)
    for row, sigma in enumerate(one["sigmas"]):
        for ax, n in zip(grid[row], every, strict=True):
            for g, (name, style) in enumerate(zip(GROUPS, ("o-", "s--"), strict=True)):
                ax.errorbar(
                    one["steps"], values[:, row, n, g], errors[:, row, n, g], fmt=style, ms=3.5,
                    lw=1.2, elinewidth=0.8, color=f"C{g}", label=f"{name} variance",
                )  # fmt: skip
            ax.axhline(1, color="0.8", lw=0.8, zorder=0)
            ax.set(xscale="log", ylim=(-0.05, 1.3))
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=7)
        grid[row, 0].set_ylabel(f"retention at σ = {sigma:g}", fontsize=8)
    for ax, n in zip(grid[0], every, strict=True):
        ax.set_title(f"N = {one['sizes'][n]:,}", fontsize=9)
    for ax in grid[-1]:
        ax.set_xlabel("steps", fontsize=8)
    figure.suptitle(f"{kind} samples", fontsize=9)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
                  frameon=False, fontsize=8)  # fmt: skip
    return figure
