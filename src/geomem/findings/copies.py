r"""How many samples of a network are copies, and how many reserved images look like some.

The unit of the first is the noise that a sample was drawn from: it is the same for every
training, so several trainings do not multiply it. The unit of the second is the reserved image:
its p-value depends on the training set alone, not on the step or the seed of a training, so it
is counted once for each training set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from geomem.measure.copies import LEVEL
from geomem.stats import Proportion

NAMED = {
    "samples": "generated samples",
    "median_ratio": "median distance ratio of samples",
    "copies": "samples called copies",
    "unseen_copies": "reserved images called copies",
}


def copy_numbers(dataset: xr.Dataset, rows: Sequence[Sequence[int]]) -> xr.Dataset:
    r"""Copies among the samples of each network.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        rows: For each row of numbers, the positions of its trainings among the subjects.

    Returns:
        By ``subject``: ``copies`` of ``copies_of`` with their 95 % interval ``_low`` and
        ``_high``, the same for ``unseen_copies``, ``samples`` and their ``median_ratio``; NaN
        where not calibrated.
    """
    if "sample_ratio" not in dataset:
        return xr.Dataset()
    found = [_row(dataset.isel(subject=list(members))) for members in rows]
    columns = {}
    for name in found[0] if found else ():
        stem = name.removesuffix("_of").removesuffix("_low").removesuffix("_high")
        about = {
            "units": "1",
            "long_name": NAMED[stem] + name.removeprefix(stem).replace("_", ", "),
        }
        columns[name] = ("subject", np.array([row[name] for row in found]), about)
    return xr.Dataset(columns)


def twin_numbers(dataset: xr.Dataset) -> xr.Dataset:
    r"""Near-duplicates among the training images, which explain copies.

    Arguments:
        dataset: What :func:`geomem.load` returns.

    Returns:
        ``near_duplicates`` of ``near_duplicates_of`` training images, of which there should be
        1 % by the calibration alone; nothing where it was not asked or is not calibrated.
    """
    if "twin_p_value" not in dataset:
        return xr.Dataset()
    values = dataset.twin_p_value.values
    known = values[np.isfinite(values)]
    if not len(known):
        return xr.Dataset()
    count = {"units": "1", "long_name": "training images with a near-duplicate among the others"}
    total = {"units": "1", "long_name": "training images that were looked at"}
    return xr.Dataset(
        {
            "near_duplicates": ((), float((known <= LEVEL).sum()), count),
            "near_duplicates_of": ((), float(len(known)), total),
        }
    )


def _row(trainings: xr.Dataset) -> dict[str, float]:
    ratios = trainings.sample_ratio.values
    drawn = ~np.isnan(ratios)
    row = {
        "samples": float(drawn.sum(1).max(initial=0)),
        "median_ratio": float(np.median(ratios[drawn])) if drawn.any() else np.nan,
    }
    for name, column in (("copies", "sample_p_value"), ("unseen_copies", "unseen_p_value")):
        values = trainings[column].values
        known = ~np.isnan(values)
        units = int(known.sum(1).max(initial=0))
        row |= dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
        row[f"{name}_of"] = float(units)
        if units:
            shares = [(v[k] <= LEVEL).mean() for v, k in zip(values, known, strict=True) if k.any()]
            count = Proportion(round(float(np.mean(shares)) * units), units)
            row[name] = float(count.successes)
            row[f"{name}_low"], row[f"{name}_high"] = count.interval
    return row
