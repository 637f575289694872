r"""Findings: what the numbers of a run say, in words. Pure functions of the records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from geomem.errors import InputError
from geomem.findings.numbers import numbers
from geomem.measure.copies import LEVEL
from geomem.stats import Estimate, Proportion

ALPHA = 0.05


def estimate(known: xr.Dataset, name: str, **at: Any) -> Estimate:
    r"""One number of :func:`geomem.findings.numbers.numbers` with its standard error."""
    value, stderr = (float(known[k].sel(at)) for k in (name, f"{name}_stderr"))
    return Estimate(value, stderr)


def sentences(known: xr.Dataset) -> list[str]:
    r"""Three sentences about a sweep: how much, where, and what became of samples."""
    return [_how_much(known), _where(known), _samples(known)]


def _how_much(known: xr.Dataset) -> str:
    low, high = known.attrs["window"]
    window = f"{low / known.attrs['rms']:.2g} to {high / known.attrs['rms']:.2g} rms"
    parts = [_one_size(known, int(n)) for n in _ends(known)]
    control = known.attrs["control"]
    what = "Missing" if control == "population" else "Memorized"
    unfinished = known.attrs["units_done"] < known.attrs["units_planned"]
    note = " The run is unfinished, and these numbers will change." if unfinished else ""
    return f"{what} information beside the {control} control ({window}): {'; '.join(parts)}.{note}"


def _one_size(known: xr.Dataset, n: int) -> str:
    nats = estimate(known, "information", num_samples=n)
    control = float(known.control_information.sel(num_samples=n))
    p = float(known.p_value.sel(num_samples=n))
    if nats.value < -2 * nats.stderr:
        return (
            f"N = {n}: {nats} nats (underfit: worse than the control at its own training images, "
            "so nothing can be said; train longer)"
        )
    if math.isnan(p):
        return f"N = {n}: {nats} nats (fewer than 8 image groups a side: no test)"
    if p > ALPHA:
        return f"N = {n}: {nats} nats (not significant, p = {p:.2g})"
    return (
        f"N = {n}: {nats} nats of the control's {control:.0f} (training and held-out images are "
        f"told apart, p = {p:.1g})"
    )


def _where(known: xr.Dataset) -> str:
    n = int(known.num_samples.values[0])
    share = known.lost_share.sel(num_samples=n)
    k = int(share.values.argmax())
    peak = Estimate(float(share[k]), float(known.lost_share_stderr.sel(num_samples=n)[k]))
    if not peak.value > 2 * peak.stderr:
        return f"At N = {n} no noise level shows a lost share beyond its error (largest {peak})."
    sigma = float(known.sigma_relative[k])
    ends = [_dimension_at(known, int(n), k) for n in _ends(known)]
    return (
        f"At N = {n} the lost share peaks at sigma = {sigma:.2g} rms: {peak} of the control's "
        f"dimension is gone at training images; there the dimension kept is {'; '.join(ends)}."
    )


def _dimension_at(known: xr.Dataset, n: int, level: int) -> str:
    at = {"denoiser": "learned", "num_samples": n, "sigma": known.sigma.values[level]}
    training, held_out = (
        estimate(known, "dimension", at=a, **at) for a in ("training", "held_out")
    )
    return f"{training} at training and {held_out} at held-out images for N = {n}"


def _samples(known: xr.Dataset) -> str:
    if "copies" not in known:
        return "No samples were drawn, so nothing is said about copies."
    if np.isnan(known.copies.values).all():
        return (
            "Copies among the samples: not calibrated, which takes at least 199 held-out images; "
            f"median distance ratio {_ratios(known)}."
        )
    parts = [f"N = {int(n)}: {copy_rate(known, int(n))}" for n in _ends(known)]
    unseen = "; ".join(f"N = {n}: {_unseen(known, n)}" for n in _ends(known))
    return (
        f"Copies among the samples: {'; '.join(parts)}; reserved images called copies, of which "
        f"there should be 1 %: {unseen}."
    )


def _unseen(known: xr.Dataset, n: int) -> str:
    rate = copy_rate(known, n, "unseen_copies")
    if isinstance(rate, str):
        return rate
    low, high = rate.interval
    return f"{rate}" + ("" if low <= LEVEL <= high else ", beyond chance: so may the copies be")


def _ratios(known: xr.Dataset) -> str:
    pairs = [(int(n), float(known.median_ratio.sel(num_samples=n))) for n in _ends(known)]
    return ", ".join(f"{ratio:.2f} at N = {n}" for n, ratio in pairs)


def copy_rate(known: xr.Dataset, n: int, name: str = "copies") -> Proportion | str:
    r"""How many samples are copies, with its interval; "not calibrated" where unknown."""
    row = known.sel(num_samples=n)
    if math.isnan(float(row[name])):
        return "not calibrated"
    return Proportion(int(row[name]), int(row[f"{name}_of"]))


def _ends(known: xr.Dataset) -> list[int]:
    sizes = [int(n) for n in known.num_samples.values]
    return sizes if len(sizes) < 2 else [sizes[0], sizes[-1]]


def summarize(dataset: xr.Dataset) -> dict[str, Any]:
    r"""The summary of a run: findings and the main numbers, as plain JSON values.

    The same design and seed give the same bytes: there is no time and no path in it.
    """
    common = {k: _plain(v) for k, v in dataset.attrs.items() if k != "run"}
    try:
        known = numbers(dataset)
    except InputError as error:
        return {"schema_version": 1, "run": common, "findings": [str(error)], "sizes": []}
    return {
        "schema_version": 1,
        "run": common,
        "findings": sentences(known),
        "error_over": known.attrs["error_over"],
        "sizes": [_row(known, int(n)) for n in known.num_samples.values],
    }


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


def _row(known: xr.Dataset, n: int) -> dict[str, Any]:
    row = known.sel(num_samples=n)
    names = [s for name in SCALARS for s in (name, f"{name}_stderr", f"{name}_low", f"{name}_high")]
    scalars = {name: _plain(row[name].item()) for name in names if name in row}
    by_level = {
        name: [_plain(v) for v in row[name].values.tolist()]
        for name in ("by_level", "by_level_stderr", "lost_share", "lost_share_stderr", "p_level")
    }
    identity = float(np.nanmax(np.abs(row.identity_z.values), initial=0.0))
    return {"num_samples": n, **scalars, **by_level, "largest_identity_z": _plain(identity)}


def _plain(value: Any) -> Any:
    # Nine digits: more than any of it means, and fewer than rounding of sums can change.
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return value.item() if isinstance(value, np.generic) else value
