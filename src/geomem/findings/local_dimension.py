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
    shape = (values.sizes["dimension_method"], len(rows), *values.shape[2:4])
    found = np.full((3, *shape), np.nan)
    for m, r, a in np.ndindex(*shape[:3]):
        here = (m, list(rows[r]), a)
        points = np.flatnonzero(asked[here].any((0, 1)))
        if len(points):
            groups = dataset.point_group.values[a][points]
            found[:, m, r, a] = _means(values.values[here][..., points].astype(float), groups)
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


def _means(values: Array, groups: NDArray[np.int64]) -> Array:
    # Of shape (trainings, levels, images): mean, error and share of answers at each level.
    answered = (~np.isnan(values)).mean((0, 2))
    rows = [[clustered_mean(v[:, None], groups) for v in training] for training in values]
    means = np.array([[mean[0] for mean, _ in row] for row in rows])
    if len(rows) == 1:
        return np.stack([means[0], np.array([error[0] for _, error in rows[0]]), answered])
    count = (~np.isnan(means)).sum(0)
    mean = np.nansum(means, 0) / np.where(count, count, np.nan)
    spread = np.sqrt(np.nansum((means - mean) ** 2, 0) / np.where(count > 1, count - 1, np.nan))
    return np.stack([mean, spread / np.sqrt(np.maximum(count, 1)), answered])
