r"""Lost without collapse: the phase diagram of the paper's spectrum at two thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common import PAPER, SEED, WIDTH, array, rounded

from geomem.show.figures.theory import phase_handles, plot_phase_diagram
from geomem.theory.averages import Effort, planted_average
from geomem.theory.phase import phase_diagram
from geomem.theory.priors import Gaussian

SIGMAS, SIZES = np.geomspace(0.02, 4, 48), np.geomspace(2, 1e6, 33)
KEPT = (0.5, 0.75)  # thresholds of "lost"
DRAWN = ("lost_without_collapse", "opening_sigma", "retention_sigma", "paper_sigma",
         "two_points_sigma", "collapse_sigma", "multiplicity")  # fmt: skip


def compute() -> dict[str, Any]:
    r"""Counts of cells, the least that is kept before collapse, and what the figure shows."""
    effort = Effort(points=8, seed=SEED)
    maps = [phase_diagram(PAPER, SIGMAS, SIZES, kept=k, effort=effort) for k in KEPT]
    half, milder = maps
    undecided = half.participation < 0.5
    kept = half.retention.where(undecided).stack(cell=("sigma", "num_samples", "group"))
    cell = kept.isel(cell=int(kept.fillna(9).argmin("cell")))
    where = {n: cell[n] for n in ("sigma", "num_samples", "group")}
    return {
        "cells": int(undecided.sum()),
        "shaded_at_half": int(half.lost_without_collapse.sum()),
        "shaded_at_three_quarters": {
            f"{v:g}": int(milder.lost_without_collapse.sel(group=v).sum())
            for v in milder.group.values
        },
        "least_kept_before_collapse": (
            float(cell),
            float(half.retention_stderr.sel(where)),
        ),
        "where": {n: float(v) for n, v in where.items()},
        "zero_variance_z": _zero_variance(),
        "maps": {
            f"{m.attrs['kept']:g}": {
                n: {"dims": list(m[n].dims), "values": rounded(m[n].astype(float), 5)}
                for n in DRAWN
            }
            for m in maps
        },
        "groups": rounded(half.group),
    }


def draw(document: dict[str, Any], out: Path) -> None:
    r"""The diagram at the two thresholds."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.3), layout="constrained", sharey=True)
    coordinates = {"sigma": SIGMAS, "num_samples": SIZES, "group": document["groups"]}
    for ax, (kept, found) in zip(axes, document["maps"].items(), strict=True):
        data = {n: (tuple(v["dims"]), array(v["values"])) for n, v in found.items()}
        phases = xr.Dataset(data, coordinates, attrs={"kept": float(kept)})
        plot_phase_diagram(phases, ax, legend=False)
        ax.set_title(f"lost: less than {100 * float(kept):g} % kept")
        ax.set_xlim(2, 1e6)
    axes[1].set_ylabel("")
    handles = phase_handles(phases)
    for handle in handles:
        if "kept, exact" in str(handle.get_label()):
            handle.set_label("kept to that share, exact")
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.savefig(out / "theory-phases.png")
    plt.close(figure)


def _zero_variance() -> float:
    # A direction of (almost) no variance keeps 1 - E sum w²: the largest deviation found,
    # over its standard error.
    worst = 0.0
    for sigma in (0.1, 0.3, 1.0):
        p = planted_average(
            Gaussian((*PAPER, 1e-10)), sigma, [3, 30, 1e3, 1e6], effort=Effort(seed=SEED)
        )
        error = np.hypot(p.retention_stderr[:, -1], p.participation_stderr)
        deviation = np.abs(p.retention[:, -1] - 1 + p.participation)
        worst = max(worst, float((deviation / error).max()))
    return worst
