r"""How many samples of a network are copies, and how many reserved images look like some.

The unit of the first is the noise that a sample was drawn from: it is the same for every
training, so several trainings do not multiply it. The unit of the second is the reserved image:
its p-value depends on the training set alone, not on the step or the seed of a training, so it
is counted once for each training set.

A sample that is no copy is *spurious* if it is near another sample, else *new*. Spurious samples
come at least in pairs, while the interval takes samples for independent: of few of them it is
somewhat narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.measure.copies import LEVEL
from geomem.stats import Proportion

NAMED = {
    "samples": "generated samples",
    "median_ratio": "median distance ratio of samples",
    "copies": "samples called copies",
    "unseen_copies": "reserved images called copies",
    "spurious": "samples near another sample and near no training image",
    "new_samples": "samples that are neither copies nor spurious",
    "unseen_spurious": "reserved images called spurious",
}


def copy_numbers(dataset: xr.Dataset, rows: Sequence[Sequence[int]]) -> xr.Dataset:
    r"""Copies among the samples of each network.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        rows: For each row of numbers, the positions of its trainings among the subjects.

    Returns:
        By ``subject``: ``copies`` of ``copies_of`` with their 95 % interval ``_low`` and
        ``_high``, the same for ``unseen_copies``, and where it was looked for ``spurious``,
        ``new_samples`` and ``unseen_spurious``; ``samples`` and their ``median_ratio``; NaN
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
    copy, unseen_copy = (_near(trainings, f"{who}_p_value") for who in ("sample", "unseen"))
    kinds = {"copies": copy, "unseen_copies": unseen_copy}
    if "sibling_p_value" in trainings:
        near, unseen_near = (_near(trainings, f"{who}sibling_p_value") for who in ("", "unseen_"))
        # NaN, not known, wins in each product.
        kinds |= {
            "spurious": (1 - copy) * near,
            "new_samples": (1 - copy) * (1 - near),
            "unseen_spurious": (1 - unseen_copy) * unseen_near,
        }
    for name, values in kinds.items():
        known = ~np.isnan(values)
        units = int(known.sum(1).max(initial=0))
        row |= dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
        row[f"{name}_of"] = float(units)
        if units:
            shares = [v[k].mean() for v, k in zip(values, known, strict=True) if k.any()]
            count = Proportion(round(float(np.mean(shares)) * units), units)
            row[name] = float(count.successes)
            row[f"{name}_low"], row[f"{name}_high"] = count.interval
    return row


def _near(trainings: xr.Dataset, name: str) -> NDArray[np.float64]:
    # 1 where a p-value is at most the level, 0 where it is above, NaN where there is none.
    values = trainings[name].values
    return np.where(np.isnan(values), np.nan, values <= LEVEL)
