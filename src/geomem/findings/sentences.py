r"""Findings: what the numbers of a run say, in words. Pure functions of the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from geomem.errors import InputError
from geomem.findings.numbers import numbers
from geomem.measure.copies import LEVEL
from geomem.measure.subject import NETWORKS
from geomem.stats import Estimate, Proportion

ALPHA = 0.05
SHOWN = 6  # rows that a sentence lists, the first ones and the last ones


def estimate(row: xr.Dataset, name: str, **at: Any) -> Estimate:
    r"""One number of :func:`geomem.findings.numbers.numbers` with its standard error."""
    value, stderr = (float(row[k].sel(at)) for k in (name, f"{name}_stderr"))
    return Estimate(value, stderr)


def networks(known: xr.Dataset, *, early: bool = False) -> list[xr.Dataset]:
    r"""The rows of networks, in order: what pages and sentences speak of first.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        early: Whether steps of a training before its last one are among them.
    """
    rows = [known.isel(subject=k) for k in range(known.sizes["subject"])]
    rows = [row for row in rows if row["kind"].item() in NETWORKS]
    last: dict[tuple[str, ...], float] = {}
    for row in rows:
        last[_recipe(row)] = max(last.get(_recipe(row), -1.0), np.nan_to_num(float(row.step)))
    return [r for r in rows if early or np.nan_to_num(float(r.step)) == last[_recipe(r)]]


def _recipe(row: xr.Dataset) -> tuple[str, ...]:
    labelled = str(row["label"].item()) if math.isnan(float(row.num_samples)) else ""
    return (*(str(row[name].item()) for name in ("kind", "num_samples", "width")), labelled)


def sentences(known: xr.Dataset) -> list[str]:
    r"""What a run says: how much, where, and what became of samples.

    Arguments:
        known: What :func:`geomem.numbers` returns.
    """
    rows = networks(known)
    if not rows:
        kinds = ", ".join(sorted({str(k) for k in known["kind"].values}))
        return [f"No network was measured, only {kinds}: nothing is said about memorization."]
    if "information" not in known:
        if "dimension" not in known:
            return ["Denoising errors were not measured, so nothing is said about memorization."]
        missing = "held-out images" if "held_out" not in known["at"].values else "a control"
        missing = "training images" if "training" not in known["at"].values else missing
        return [
            f"No {missing.removeprefix('a ')} was measured, so nothing is said about memorization; "
            f"add {missing}."
        ]
    found = [_how_much(known, rows), _where(rows)]
    return [*found, _samples(rows)] if "copies" in known else [*found, NO_SAMPLES]


NO_SAMPLES = "No samples were drawn, so nothing is said about copies."


def listed(rows: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    r"""Rows that a sentence names: all of a few, else the first and the last ones."""
    half = SHOWN // 2
    return list(rows) if len(rows) <= SHOWN else [*rows[:half], *rows[-half:]]


def window(known: xr.Dataset) -> str:
    r"""The window of noise levels in which nats are counted, in words."""
    low, high = known.attrs["window"]
    return f"{low / known.attrs['rms']:.2g} to {high / known.attrs['rms']:.2g} rms"


def state(row: xr.Dataset) -> str:
    r"""What can be said of a row: underfit, no test, not significant, or told apart."""
    nats, p = estimate(row, "information"), float(row.p_value)
    if nats.value < -2 * nats.stderr:
        return "underfit"
    return "no test" if math.isnan(p) else "told apart" if p <= ALPHA else "not significant"


def _how_much(known: xr.Dataset, rows: Sequence[xr.Dataset]) -> str:
    control = known.attrs["control"]
    what = "Missing" if control == "population" else "Memorized"
    parts = "; ".join(_one_row(row) for row in listed(rows))
    unfinished = known.attrs["subjects_done"] < known.attrs["subjects_planned"]
    note = " The run is unfinished, and these numbers will change." if unfinished else ""
    return f"{what} information beside the {control} control ({window(known)}): {parts}.{note}"


def _one_row(row: xr.Dataset) -> str:
    name, nats = str(row.label.values), estimate(row, "information")
    if not math.isfinite(nats.value):
        return f"{name}: not measured"
    found, p = state(row), float(row.p_value)
    if found == "underfit":
        return (
            f"{name}: nothing can be said (undertrained: {nats} nats, worse than the control at "
            "its own training images; train longer)"
        )
    if found == "no test":
        return f"{name}: nothing can be said ({nats} nats, fewer than 8 image groups a side)"
    if found == "not significant":
        return f"{name}: none beyond chance ({nats} nats, p = {p:.2g})"
    return (
        f"{name}: {nats} nats of the control's {float(row.control_information):.0f} (training and "
        f"held-out images are told apart, p = {p:.1g})"
    )


def _where(rows: Sequence[xr.Dataset]) -> str:
    row = rows[0]
    share = row.lost_share
    if not np.isfinite(share.values).any():
        return f"No lost share is known of {row.label.values}."
    k = int(np.nanargmax(share.values))
    peak = Estimate(float(share[k]), float(row.lost_share_stderr[k]))
    if not peak.value > 2 * peak.stderr:
        return (
            f"At {row.label.values} no noise level shows a lost share beyond its error (largest "
            f"{peak})."
        )
    ends = rows if len(rows) < 2 else [rows[0], rows[-1]]
    kept = "; ".join(_dimension_at(one, k) for one in ends)
    return (
        f"At {row.label.values} the lost share peaks at sigma = {float(row.sigma_relative[k]):.2g} "
        f"rms: {peak} of the control's dimension is gone at training images; there the dimension "
        f"kept is {kept}."
    )


def _dimension_at(row: xr.Dataset, level: int) -> str:
    training, held_out = (
        estimate(row.isel(sigma=level), "dimension", at=at) for at in ("training", "held_out")
    )
    return f"{training} at training and {held_out} at held-out images for {row.label.values}"


def _samples(rows: Sequence[xr.Dataset]) -> str:
    shown = listed(rows)
    if all(math.isnan(float(row.copies)) for row in rows):
        ratios = ", ".join(f"{float(r.median_ratio):.2f} at {r.label.values}" for r in shown)
        return (
            "Copies among the samples: not calibrated, which takes at least 199 held-out images; "
            f"median distance ratio {ratios}."
        )
    parts = "; ".join(f"{row.label.values}: {copy_rate(row)}" for row in shown)
    unseen = "; ".join(f"{row.label.values}: {_unseen(row)}" for row in shown)
    return (
        f"Copies among the samples: {parts}; reserved images called copies, of which there should "
        f"be 1 %: {unseen}."
    )


def _unseen(row: xr.Dataset) -> str:
    rate = copy_rate(row, "unseen_copies")
    if isinstance(rate, str):
        return rate
    low, high = rate.interval
    return f"{rate}" + ("" if low <= LEVEL <= high else ", beyond chance: so may the copies be")


def copy_rate(row: xr.Dataset, name: str = "copies") -> Proportion | str:
    r"""How many samples of a row are copies, with interval; "not calibrated" where unknown."""
    if math.isnan(float(row[name])):
        return "not calibrated"
    return Proportion(int(row[name]), int(row[f"{name}_of"]))


# ---------------------------------------------------------------------------------- summary

SCALARS = (
    "information",
    "control_information",
    "damage",
    "exact_information",
    "p_value",
    "copies",
    "copies_of",
    "unseen_copies",
    "unseen_copies_of",
    "median_ratio",
)
BY_LEVEL = ("by_level", "by_level_stderr", "lost_share", "lost_share_stderr", "p_level")


def summarize(dataset: xr.Dataset, known: xr.Dataset | None = None) -> dict[str, Any]:
    r"""The summary of a run: findings and the main numbers, as plain JSON values.

    The same study and seed give the same bytes: there is no time and no path in it.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        known: Its numbers, if they have been computed.
    """
    common = {k: plain(v) for k, v in dataset.attrs.items() if k != "run"}
    try:
        known = numbers(dataset) if known is None else known
    except InputError as error:
        return {"schema_version": 2, "run": common, "findings": [str(error)], "subjects": []}
    return {
        "schema_version": 2,
        "run": common,
        "findings": sentences(known),
        "error_over": known.attrs["error_over"],
        "subjects": [_summary_of(known.isel(subject=k)) for k in range(known.sizes["subject"])],
    }


def _summary_of(row: xr.Dataset) -> dict[str, Any]:
    about: dict[str, Any] = {name: str(row[name].values) for name in ("kind", "label")}
    for name in ("num_samples", "step", "width"):
        value = float(row[name])
        if not math.isnan(value):
            about[name] = int(value)
    about["trainings"] = int(row.trainings)
    names = [s for name in SCALARS for s in (name, f"{name}_stderr", f"{name}_low", f"{name}_high")]
    found = {name: plain(row[name].item()) for name in names if name in row}
    found |= {
        name: [plain(v) for v in row[name].values.tolist()] for name in BY_LEVEL if name in row
    }
    if "identity_z" in row:
        z = np.abs(row.identity_z.values)
        found["largest_identity_z"] = plain(float(np.nanmax(z, initial=0.0)))
    empty = (None, [None] * row.sizes.get("sigma", 0))
    return about | {name: value for name, value in found.items() if value not in empty}


def plain(value: Any) -> Any:
    r"""Plain JSON values, to nine digits: more than any of it means, and stable to rounding."""
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return plain(value.item()) if isinstance(value, np.generic) else value
