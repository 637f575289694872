r"""What the page of a plan shows of its pilot: predictions, and the law with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.findings.pilot_sentences import tables
from geomem.show.page.layout import drawn

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")


def pilot_content(pilot: Mapping[str, Any]) -> dict[str, Any]:
    r"""Tables and figure of a pilot, for the template.

    Arguments:
        pilot: What ``plan.json`` holds of it.
    """
    return {
        "tables": [
            {"title": title, "head": head, "rows": rows} for title, head, rows in tables(pilot)
        ],
        "figure": drawn(lambda inks: law_figure(pilot, inks)),
        **{key: pilot[key] for key in ("recipe", "law")},
    }


def law_figure(pilot: Mapping[str, Any], inks: Mapping[str, str]) -> Figure:
    r"""Memorized share against N, a panel a width: measured by the pilot, predicted beyond.

    Arguments:
        pilot: What ``plan.json`` holds of it.
        inks: Colours of text and lines.
    """
    widths = list(dict.fromkeys(row["width"] for row in pilot["predictions"]))
    figure = Figure(figsize=(min(9.6, 1.2 + 4.2 * len(widths)), 4.0), layout="constrained")
    grid = figure.subplots(1, len(widths), sharey=True, squeeze=False)[0]
    for ax, width in zip(grid, widths, strict=True):
        _plot(pilot, width, ax, inks)
    grid[0].set_ylabel("memorized share")
    grid[-1].legend(frameon=False, fontsize=8)
    return figure


def _plot(pilot: Mapping[str, Any], width: float | None, ax: Axes, inks: Mapping[str, str]) -> None:
    cells = {key: np.array(values) for key, values in pilot["trainings"].items()}
    mine = cells["width"] == (1.0 if width is None else width)
    for step in np.unique(cells["step"]):
        at = mine & (cells["step"] == step)
        ax.errorbar(
            cells["num_samples"][at], cells["share"][at], 1.645 * cells["share_stderr"][at],
            fmt="o", ms=5, lw=1, color=inks["ink"],
            alpha=float(0.25 + 0.75 * step / cells["step"].max()),
            label="pilot" if step == cells["step"].max() else None,
        )  # fmt: skip
    rows = [row for row in pilot["predictions"] if row["width"] == width]
    for colour, steps in zip(COLOURS, dict.fromkeys(row["steps"] for row in rows), strict=True):
        some = sorted(
            (row for row in rows if row["steps"] == steps), key=lambda row: row["num_samples"]
        )
        n = [row["num_samples"] for row in some]
        low, value, high = ([row["share"][k] for row in some] for k in ("low", "value", "high"))
        ax.fill_between(n, low, high, color=colour, alpha=0.15, lw=0)
        ax.plot(n, value, "-", lw=1.6, color=colour, label=f"{steps:,} steps")
    ax.axhline(pilot["most"], color=inks["muted"], lw=0.9, ls=":")
    ax.set(xscale="log", ylim=(-0.05, 1.02), xlabel="images N")
    if width is not None:
        ax.set_title(f"width {width:.0f}", fontsize=11)
    ax.grid(color=inks["grid"], lw=0.8)
    ax.set_axisbelow(True)
