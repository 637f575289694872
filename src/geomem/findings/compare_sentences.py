r"""What a comparison of runs says, in words. A pure function of the compared numbers."""

from __future__ import annotations

import math
from typing import Any

import xarray as xr

from geomem.findings.sentences import window
from geomem.stats import Estimate


def changes(compared: xr.Dataset) -> list[xr.Dataset]:
    r"""The columns that have a partner in the first run, in their order."""
    columns = [compared.isel(column=k) for k in range(compared.sizes["column"])]
    return [column for column in columns if int(column.partner) >= 0]


def value(column: xr.Dataset, name: str) -> Estimate:
    r"""One compared number with its standard error; of ``x_change``, too."""
    return Estimate(float(column[name]), float(column[f"{name}_stderr"]))


def beyond(column: xr.Dataset, name: str) -> bool:
    r"""Whether 0 lies outside of a change's 95 % interval."""
    low, high = (float(column[f"{name}_change_{end}"]) for end in ("low", "high"))
    return low > 0 or high < 0


def name_of(column: xr.Dataset) -> str:
    r"""A network of a run: ``N = 32 of runs/a``."""
    return f"{column.label.item()} of {column.run.item()}"


def headline(compared: xr.Dataset) -> str:
    r"""The comparison in one sentence, for a title; it claims nothing within error."""
    found, first = changes(compared), compared.attrs["runs"][0]
    if not found:
        return "No network of one run has its counterpart in another"
    less, more = (
        [c for c in found if beyond(c, "information") and sign * float(c.information_change) > 0]
        for sign in (-1, 1)
    )
    if len(found) == 1:
        if not (less or more):
            who = name_of(found[0])
            return f"{who} has memorized no less and no more than in {first}, within error"
        gap = value(found[0], "information_change")
        way = "less" if less else "more"
        size = Estimate(abs(gap.value), gap.stderr)
        return f"{name_of(found[0])} has memorized {size} nats {way} than in {first}"
    if not (less or more):
        return (
            f"No network has memorized less or more than its counterpart in {first}, within error"
        )
    counts = [(len(less), "less"), (len(more), "more")]
    said = " and ".join(f"{count} have memorized {way}" for count, way in counts if count)
    return f"Of {len(found)} networks {said} than in {first}, beyond error"


def comparison_sentences(compared: xr.Dataset) -> list[str]:
    r"""What differs beyond error, what does not, and what could not be compared."""
    first = compared.attrs["runs"][0]
    found = [
        _one(column, compared.isel(column=int(column.partner))) for column in changes(compared)
    ]
    columns = [compared.isel(column=k) for k in range(compared.sizes["column"])]
    partners = {int(column.partner) for column in columns}
    without = [
        name_of(column)
        for k, column in enumerate(columns)
        if int(column.partner) < 0 and k not in partners
    ]
    if without:
        more = f" and {len(without) - 6} more" if len(without) > 6 else ""
        found.append(f"Without a counterpart: {', '.join(without[:6])}{more}.")
    control = compared.attrs["control"]
    found.append(
        f"Nats are counted over {window(compared)}, the noise levels that all runs have measured "
        f"(rms of {first}), beside the {control} control that each run has of its own."
    )
    return found


def _one(column: xr.Dataset, partner: xr.Dataset) -> str:
    both = f"{value(partner, 'information')} nats in {partner.run.item()}, "
    both += f"{value(column, 'information')} in {column.run.item()}"
    gap = value(column, "information_change")
    said = f"no difference beyond error ({gap} nats)"
    if beyond(column, "information"):
        way = "less" if gap.value < 0 else "more"
        said = f"{Estimate(abs(gap.value), gap.stderr)} nats {way} are memorized"
    excess = value(column, "excess_change")
    new = ""
    if beyond(column, "excess"):
        way = "better" if excess.value < 0 else "worse"
        size = Estimate(abs(excess.value), excess.stderr)
        new = f"; new images are denoised {size} nats {way} beside the control"
    return f"{column.label.item()}: {both}: {said}{new}. {_pairing(column)}"


def _pairing(column: xr.Dataset) -> str:
    if int(column.trainings) > 1:
        return "Errors are over trainings with different seeds, which are not paired."
    shared, images = float(column.shared_images), float(column.images)
    if not shared or math.isnan(shared):
        return "None of their training images are the same, so nothing is paired."
    return f"Paired at {shared:.0f} training images that both were measured at, of {images:.0f}."


def comparison_table(compared: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    r"""The compared numbers as head and rows of texts: a row for each network of each run."""
    names = {"information": "nats", "largest_share": "lost share", "excess": "excess", "auc": "AUC"}
    names = {k: v for k, v in names.items() if compared[k].notnull().any()}
    head = ["network", "run", *(h for said in names.values() for h in (said, f"{said}, change"))]
    rows = []
    for k in _grouped(compared):
        column = compared.isel(column=k)
        cells = [str(column.label.item()), str(column.run.item())]
        for name in names:
            cells += [_text(column, name), _text(column, f"{name}_change")]
        rows.append(cells)
    return head, rows


def _grouped(compared: xr.Dataset) -> list[int]:
    # Counterparts below each other: the first run's network, then those compared with it.
    partner = compared.partner.values.tolist()
    return sorted(range(len(partner)), key=lambda k: (partner[k] if partner[k] >= 0 else k, k))


def groups(compared: xr.Dataset) -> list[list[int]]:
    r"""Columns that are counterparts of each other, the first run's first."""
    found: dict[int, list[int]] = {}
    for k in _grouped(compared):
        partner = int(compared.partner[k])
        found.setdefault(partner if partner >= 0 else k, []).append(k)
    return list(found.values())


def _text(column: xr.Dataset, name: str) -> str:
    found: Any = value(column, name)
    return "" if math.isnan(found.value) else str(found)
