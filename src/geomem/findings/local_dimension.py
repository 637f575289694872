r"""Local dimensions of a run: means over images, and how many images have one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.stats import clustered_mean

Array = NDArray[np.float64]
DIMS = ("dimension_method", "subject", "at", "sigma")


def local_dimension_numbers(dataset: xr.Dataset, rows: Sequence[Sequence[int]]) -> xr.Dataset:
    r"""What each dimension method says of each row of subjects, if the run asked any.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        rows: For each row of numbers, the positions of its trainings among the subjects.

    Returns:
        ``local_dimension`` and ``local_dimension_stderr`` (dimension_method, subject, at,
        sigma): the mean over images that have a dimension, ± over image groups, or over
        trainings where there are several. ``local_dimension_answered``, alike: the share of the
        images asked for which the method has an answer; NaN if none was asked.
    """
    if "local_dimension" not in dataset:
        return xr.Dataset()
    values = dataset.local_dimension.transpose(
        "dimension_method", "subject", "at", "sigma", "point"
    )
    asked = ~np.isnan(values.values)
    if "no_gap" in dataset:
        asked |= dataset.no_gap.transpose(*values.dims).values != ""
    errors = dataset.local_dimension_stderr.transpose(*values.dims).values
    shape = (values.sizes["dimension_method"], len(rows), *values.shape[2:4])
    found = np.full((3, *shape), np.nan)
    for m, r, k in np.ndindex(*shape[:3]):
        here = (m, list(rows[r]), k)
        points = np.flatnonzero(asked[here].any((0, 1)))
        if len(points):
            groups = dataset.point_group.values[k][points]
            value, error = (a[here][..., points].astype(float) for a in (values.values, errors))
            found[:, m, r, k] = _means(value, error, groups)
    names = {
        "local_dimension": ("directions", "local dimension, mean over images that have one"),
        "local_dimension_stderr": ("directions", "its standard error"),
        "local_dimension_answered": ("1", "share of images that have a local dimension"),
    }
    arrays = {
        name: (DIMS, array, {"units": units, "long_name": text})
        for (name, (units, text)), array in zip(names.items(), found, strict=True)
    }
    coords = {name: values[name].values for name in ("dimension_method", "at")}
    return xr.Dataset(arrays, coords=coords)


def _means(values: Array, errors: Array, groups: NDArray[np.int64]) -> Array:
    # Of shape (trainings, levels, images): mean, error and share of answers at each level.
    answered = (~np.isnan(values)).mean((0, 2))
    means, spreads = np.full((2, *values.shape[:2]), np.nan)
    for training, level in np.ndindex(*values.shape[:2]):
        means[training, level], spreads[training, level] = mean_over_images(
            values[training, level], errors[training, level], groups
        )
    if len(values) == 1:
        return np.stack([means[0], spreads[0], answered])
    count = (~np.isnan(means)).sum(0)
    mean = np.nansum(means, 0) / np.where(count, count, np.nan)
    spread = np.sqrt(np.nansum((means - mean) ** 2, 0) / np.where(count > 1, count - 1, np.nan))
    return np.stack([mean, spread / np.sqrt(np.maximum(count, 1)), answered])


def mean_over_images(
    values: Array, errors: Array, groups: NDArray[np.int64]
) -> tuple[float, float]:
    r"""Mean over the images that have a dimension, and its error over image groups.

    .. math:: \delta^2 = s_n^2 + \max \left( 0, \overline{\delta_k^2} - n s_n^2 \right)

    Errors :math:`\delta_k` that are independent are a part of the variance :math:`n s_n^2` over
    the n images, and methods draw at each of them anew. What images do not differ by is common
    to them, such as a bias that a method states, and no mean makes it smaller. One image says
    nothing of the others: its ± is its own.

    Arguments:
        values: The dimensions, NaN where there is none, with shape :math:`(n)`.
        errors: Their standard errors, NaN where not known, with shape :math:`(n)`.
        groups: The group of each image, with shape :math:`(n)`.
    """
    there = ~np.isnan(values)
    if there.sum() == 1:
        return float(values[there][0]), float(errors[there][0])
    (mean,), (spread,) = clustered_mean(values[there, None], groups[there])
    known = np.square(errors[there][~np.isnan(errors[there])])
    common = known.mean() - there.sum() * spread**2 if len(known) else 0.0
    return float(mean), float(np.hypot(spread, np.sqrt(max(0.0, common))))
