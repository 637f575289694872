r"""Local dimensions of a run: means over images, and how many images have one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.stats import clustered_mean

Array = NDArray[np.float64]
DIMS = ("dimension_method", "denoiser", "at", "num_samples", "sigma")


def local_dimension_numbers(
    dataset: xr.Dataset, networks: Mapping[int, Sequence[int]]
) -> xr.Dataset:
    r"""What each dimension method says of each denoiser, if the run asked any.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        networks: The training-set sizes to report, and the seeds of their finished trainings.

    Returns:
        ``local_dimension`` and ``local_dimension_stderr`` (dimension_method, denoiser, at,
        num_samples, sigma): the mean over images that have a dimension, ± over image groups,
        or over trainings where a network has several. ``local_dimension_answered``, alike: the
        share of the images asked for which the method has an answer; NaN if none was asked.
    """
    if "local_dimension" not in dataset:
        return xr.Dataset()
    sizes = list(networks)
    values = dataset.local_dimension.isel(step=-1).sel(num_samples=sizes)
    values = values.transpose(*DIMS[:-1], "seed", "sigma", "point")
    asked = dataset.attrs["dimension_points"]
    first = dataset.error.isel(step=-1, at=0, sigma=0, point=0, draw=0, direction=0)
    first = first.sel(num_samples=sizes).transpose("denoiser", "num_samples", "seed")
    measured = first.notnull().values.any(-1)
    found = np.full((3, *(values.sizes[d] for d in DIMS)), np.nan)
    for m, d, a, n in np.ndindex(*(values.sizes[name] for name in DIMS[:-1])):
        if not measured[d, n]:
            continue
        size, learned = sizes[n], values.denoiser.values[d] == "learned"
        groups = dataset.point_group.values[a]
        there = np.flatnonzero(groups >= 0)[:asked]
        there = there[:size] if values["at"].values[a] == "training" else there
        one = values[m, d, a, n].sel(seed=networks[size] if learned else values.seed.values[:1])
        found[:, m, d, a, n] = _means(one.values[..., there].astype(float), groups[there])
    names = ("local_dimension", "local_dimension_stderr", "local_dimension_answered")
    arrays = {name: (DIMS, array, {"units": "1"}) for name, array in zip(names, found, strict=True)}
    return xr.Dataset(arrays, coords={d: values[d].values for d in DIMS})


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
