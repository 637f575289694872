r"""The table of numbers: a column for each network, a row for each quantity, with its error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geomem.findings.sentences import (
    copy_rate,
    estimate,
    largest_identity_z,
    networks,
    state,
)
from geomem.show.figures.data import exact_row, peak_level, shown_rows, words

Cell = tuple[str, str]
MISSING: Cell = ("not measured", "")


@dataclass(frozen=True)
class Row:
    r"""One quantity: its name, how it was obtained, and a cell for each column.

    A cell is a number with its error, and what else has to be said about it.
    """

    name: str
    how: str
    cells: list[Cell]

    @property
    def once(self) -> Cell | None:
        r"""What is no number and the same in each column, to be said once."""
        first = self.cells[0]
        words_only = not any(c.isdigit() for c in first[0])
        return first if words_only and all(cell == first for cell in self.cells) else None


@dataclass(frozen=True)
class Table:
    r"""The labels of the columns, with the place of their colour (None: grey), and the rows."""

    columns: list[tuple[str, int | None]]
    rows: list[Row]


def table(known: xr.Dataset) -> Table:
    r"""The table of numbers: all networks, and all of their steps.

    Arguments:
        known: What :func:`geomem.numbers` returns.
    """
    shown = shown_rows(known)
    members = networks(known, early=True) or [known.isel(subject=k) for k in shown]
    control, information = known.attrs["control"], words(known, "density").total

    def plain(name: str) -> Callable[[xr.Dataset], Cell]:
        return lambda row: _estimate(row, name)

    def kept(at: str) -> Callable[[xr.Dataset], Cell]:
        def cell(row: xr.Dataset) -> Cell:
            if at not in row["at"].values:
                return MISSING
            return _estimate(row.isel(sigma=peak_level(row)).sel(at=at), "dimension")

        return cell

    many = "control" in known.dims

    def exact(row: xr.Dataset) -> Cell:
        beside = exact_row(known, row)
        return MISSING if beside is None else _estimate(beside, "information")

    def share(row: xr.Dataset) -> Cell:
        row = row.isel(sigma=peak_level(row))
        value, more = _estimate(row, "lost_share")
        return value, more or f"at σ = {float(row.sigma_relative):.2g} rms"

    def p_value(row: xr.Dataset) -> Cell:
        if "information" in row and state(row) == "underfit":
            return "nothing can be said", "undertrained: worse than the linear control"
        if "p_value" not in row:
            return MISSING
        p = float(row.p_value)
        return ("no test", "too few image groups") if math.isnan(p) else (f"{p:.2g}", "")

    def rate(name: str) -> Callable[[xr.Dataset], Cell]:
        def cell(row: xr.Dataset) -> Cell:
            if name not in row:
                return MISSING
            found = copy_rate(row, name)
            if isinstance(found, str):
                return found, "takes 199 held-out images"
            count, _, interval = str(found).partition(" (")
            return count, interval.rstrip(")").removesuffix(" at 95 %")

        return cell

    def memorized(row: xr.Dataset) -> Cell:
        count = float(row.memorized_images) if "memorized_images" in row else math.nan
        total = int(np.isfinite(row.point_p_value).sum()) if "point_p_value" in row else 0
        return MISSING if math.isnan(count) else (f"{count:.0f} of {total}", "")

    def auc(row: xr.Dataset) -> Cell:
        if "auc" not in row or math.isnan(float(row.auc[0])):
            return MISSING
        low, high = float(row.auc_low[0]), float(row.auc_high[0])
        loss = f"; plain loss {float(row.auc[1]):.3f}"
        return f"{float(row.auc[0]):.3f}", f"{low:.3f} to {high:.3f}{loss}"

    def tpr(row: xr.Dataset) -> Cell:
        if "tpr" not in row or math.isnan(float(row.tpr[0])):
            return MISSING
        low, high = float(row.tpr_low[0]), float(row.tpr_high[0])
        return f"{100 * float(row.tpr[0]):.0f} %", f"{100 * low:.0f} % to {100 * high:.0f} %"

    def beside_control(name: str) -> Callable[[xr.Dataset], Cell]:
        def cell(row: xr.Dataset) -> Cell:
            return _estimate(row.sel(control=name), "information_beside")

        return cell

    others = [str(c) for c in known["control"].values if str(c) != control] if many else []
    beside = [
        (
            f"{information.capitalize()} beside the {name} control, nats",
            "the same images and calls, another control",
            beside_control(name),
        )
        for name in others
    ]

    def ratio(row: xr.Dataset) -> Cell:
        value = float(row.median_ratio) if "median_ratio" in row else math.nan
        return MISSING if math.isnan(value) else (f"{value:.2f}", "")

    def identity(row: xr.Dataset) -> Cell:
        z = largest_identity_z(row)
        return ("not checked", "no Jacobian") if math.isnan(z) else (f"{z:.1f}", "")

    asked: list[tuple[str, str, Callable[[xr.Dataset], Cell]]] = [
        (
            "p-value",
            "permutation of training and held-out images, all levels at once",
            p_value,
        ),
        (
            f"{information.capitalize()}, nats",
            "the control's error minus the network's at training images, over the window",
            plain("information"),
        ),
        (
            "of the exact denoiser, nats",
            "what the exact denoiser of the same number of images would have memorized",
            exact,
        ),
        (
            f"of the {control} control, nats",
            "all that could have been, had the network made no error",
            plain("control_information"),
        ),
        ("Largest lost share", "of the control's dimension; at this noise level", share),
        ("Dimension kept at training images", "directions, at that level", kept("training")),
        ("Dimension kept at held-out images", "directions, at that level", kept("held_out")),
        (
            "Excess on new images, nats",
            "by which the network is worse than the control there; below 0, better",
            plain("excess"),
        ),
        (
            "Variance over disjoint trainings, nats",
            "half the squared difference of two networks that share no image, at new images",
            plain("variance"),
        ),
        (
            "Bias, nats",
            "the excess of these networks minus their variance; below 0, better than the control",
            plain("bias"),
        ),
        (
            "Agreement of disjoint trainings",
            "share of their squared error at new images that they have in common",
            plain("agreement"),
        ),
        *beside,
        (
            "Images memorized one by one",
            "their nats beyond held-out images', at most 5 % of them by chance",
            memorized,
        ),
        (
            "AUC of members",
            "training against held-out images, by nats; beside it by the plain loss",
            auc,
        ),
        (
            "True positives at 1 % false ones",
            "of the same score, with 95 % interval",
            tpr,
        ),
        (
            "Copies among samples",
            "distance ratio among the smallest 1 % of held-out images'; with 95 % interval",
            rate("copies"),
        ),
        (
            "Spurious samples",
            "no copy, but nearer to another sample than held-out images are to each other",
            rate("spurious"),
        ),
        ("New samples", "neither copies nor spurious; with 95 % interval", rate("new_samples")),
        (
            "Reserved images called copies",
            "should be about 1 %; with 95 % interval",
            rate("unseen_copies"),
        ),
        (
            "Reserved images called spurious",
            "should be about 1 %; with 95 % interval",
            rate("unseen_spurious"),
        ),
        (
            "Median distance ratio of samples",
            "nearest over second-nearest training image; no error known",
            ratio,
        ),
        ("Identity check, largest |z|", "of all levels; above 4 is a fault", identity),
    ]
    rows = [Row(name, how, [cell(row) for row in members]) for name, how, cell in asked]
    columns = [
        (str(r["label"].item()), shown.index(k) if (k := int(r["subject"])) in shown else None)
        for r in members
    ]
    return Table(columns, [row for row in rows if row.once != MISSING])


def _estimate(row: xr.Dataset, name: str) -> Cell:
    found = estimate(row, name) if name in row else None
    return MISSING if found is None or math.isnan(found.value) else (str(found), "")
