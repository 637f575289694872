r"""The table of numbers: a column for each network, a row for each quantity, with its error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geomem.findings.sentences import copy_rate, estimate, networks, state
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

    def exact(row: xr.Dataset) -> Cell:
        beside = exact_row(known, row)
        return MISSING if beside is None else _estimate(beside, "information")

    def share(row: xr.Dataset) -> Cell:
        row = row.isel(sigma=peak_level(row))
        value, more = _estimate(row, "lost_share")
        return value, more or f"at σ = {float(row.sigma_relative):.2g} rms"

    def p_value(row: xr.Dataset) -> Cell:
        if "information" in row and state(row) == "underfit":
            return "nothing can be said", "undertrained: worse than the control"
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
            "Damage, nats",
            "by which the network is worse than the control on new images",
            plain("damage"),
        ),
        (
            "Copies among samples",
            "distance ratio among the smallest 1 % of held-out images'; with 95 % interval",
            rate("copies"),
        ),
        (
            "Reserved images called copies",
            "should be about 1 %; with 95 % interval",
            rate("unseen_copies"),
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


def largest_identity_z(known: xr.Dataset) -> float:
    r"""The largest ``|z|`` of the identity of error and Jacobian; NaN if it was not checked."""
    z = np.abs(known.identity_z.values) if "identity_z" in known else np.array([np.nan])
    return float(np.nanmax(z)) if np.isfinite(z).any() else math.nan
