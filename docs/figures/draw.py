r"""Draws the figures of the docs from the records of a run: python docs/figures/draw.py RUN OUT."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

import geomem
from geomem.show.figures.data import shown_rows
from geomem.show.figures.run import plot_dimension, plot_levels, plot_signatures

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def draw(run: Path, out: Path) -> None:
    known = geomem.numbers(geomem.load(run))
    count = len(shown_rows(known))
    figure, rows = plt.subplots(1, count, figsize=(11, 2.9), layout="constrained", sharey=True)
    plot_signatures(known, list(rows) if count > 1 else [rows])
    for ax in rows:
        ax.set_xlabel("")
        _plain_ticks(ax.yaxis)
    for ax in rows[1:]:
        ax.set_ylabel("")
    figure.supxlabel("principal direction, by falling variance", fontsize=9)
    figure.savefig(out / f"{run.name}-signature.png", dpi=140)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.1), layout="constrained")
    plot_dimension(known, left)
    left.set_title("learned, at training images", fontsize="medium")
    plot_dimension(known, middle, at="held_out")
    middle.set_title("learned, at held-out images", fontsize="medium")
    plot_levels(known, right)
    right.set_title("memorized, all directions", fontsize="medium")
    top = max(left.get_ylim()[1], middle.get_ylim()[1])
    for ax in (left, middle):
        ax.set_ylim(0, top)
    for ax in (left, middle, right):
        _plain_ticks(ax.xaxis)
    figure.savefig(out / f"{run.name}-curves.png", dpi=140)


def _plain_ticks(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python docs/figures/draw.py RUN OUT_FOLDER")
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
