r"""Are generated samples copies? A ratio of distances, calibrated on images known not to be.

``c = d_1 / d_2`` compares the distance to the nearest training image with that to the nearest
of another group. All N images are searched. What ratio is small is told by held-out images,
which cannot be copies: a sample is called a copy if its conformal p-value among them is at
most 1 %, which takes at least 199 of them. Beside it stands the rate of reserved images, which
are in no training set either and were not used to calibrate: it should be about 1 %.

References:
    | Somepalli et al., Diffusion art or digital forgery?, arXiv 2212.03860
    | Yoon et al., Diffusion probabilistic models generalize when they fail to memorize (2023)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.stats import Proportion, conformal_p_values

MIN_CALIBRATION = 199
LEVEL = 0.01
_CANDIDATES = 32


@dataclass(frozen=True, eq=False)
class Nearest:
    r"""Nearest training images of queries.

    Attributes:
        index: The nearest training image, with shape :math:`(B)`.
        distance: Its Euclidean distance, with shape :math:`(B)`.
        ratio: That distance over the one to the nearest image of another group; NaN where
            there is no other group, with shape :math:`(B)`.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    ratio: NDArray[np.float64]


def nearest(queries: Tensor, training: Tensor, groups: NDArray[np.int64]) -> Nearest:
    r"""Nearest training images, with the ratio of distances.

    Arguments:
        queries: The images in question, with shape :math:`(B, *)`.
        training: All training images, with shape :math:`(N, *)`.
        groups: The group of each training image, with shape :math:`(N)`.

    Raises:
        InputError: If a query is not finite: a missing distance is not "not a copy".
    """
    if not bool(torch.isfinite(queries).all()):
        raise InputError("a sample holds NaN or infinite values; check the denoiser")
    exact = EmpiricalDenoiser(training)
    found, distances = exact.neighbours(queries, min(_CANDIDATES, len(training)))
    index, distance = found.numpy(force=True), distances.numpy(force=True)
    alone = (groups[index] == groups[index[:, :1]]).all(1)
    if alone.any() and index.shape[1] < len(training):
        return _among_all(exact, queries, groups)  # a large group lies in front
    return Nearest(index[:, 0], distance[:, 0], _ratios(index, distance, groups))


def _among_all(exact: EmpiricalDenoiser, queries: Tensor, groups: NDArray[np.int64]) -> Nearest:
    parts = [exact.neighbours(q[None], exact.num_samples) for q in queries]
    rows = [(i.numpy(force=True), d.numpy(force=True)) for i, d in parts]
    ratios = [_ratios(i, d, groups) for i, d in rows]
    index, distance = (np.concatenate([row[k][:, 0] for row in rows]) for k in (0, 1))
    return Nearest(index, distance, np.concatenate(ratios))


def _ratios(
    index: NDArray[np.int64], distance: NDArray[np.float64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    # The first neighbour of another group; two groups at distance 0 are equally near, which is
    # no copy of one of them.
    other = groups[index] != groups[index[:, :1]]
    second = np.take_along_axis(distance, other.argmax(1)[:, None], axis=1)[:, 0]
    safe = np.where(second > 0, second, 1.0)
    ratio = np.where(second > 0, distance[:, 0] / safe, 1.0)
    return np.where(other.any(1), ratio, np.nan)


@dataclass(frozen=True, eq=False)
class Copies:
    r"""Which samples are copies.

    Attributes:
        p_values: The conformal p-value of each sample; NaN if not calibrated.
        calibrated: Whether there were enough held-out images.
    """

    p_values: NDArray[np.float64]
    calibrated: bool

    @property
    def is_copy(self) -> NDArray[np.bool_]:
        return self.p_values <= LEVEL


def judge(ratios: NDArray[np.float64], held_out: NDArray[np.float64]) -> Copies:
    r"""Conformal p-values of samples' ratios among held-out images' ratios.

    Arguments:
        ratios: The samples' ratios, with shape :math:`(B)`.
        held_out: The held-out images' ratios to the same training set, with shape :math:`(m)`.
    """
    if len(held_out) < MIN_CALIBRATION or np.isnan(held_out).any():
        return Copies(np.full(len(ratios), np.nan), calibrated=False)
    return Copies(conformal_p_values(ratios, held_out), calibrated=True)


def copy_numbers(dataset: xr.Dataset, sizes: Sequence[int]) -> xr.Dataset:
    r"""How many samples of each network are copies, and how many reserved images look so.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        sizes: The training-set sizes to report.

    Returns:
        By ``num_samples``: ``copies`` of ``copies_of`` with their interval, the same for
        ``unseen_copies``, ``samples`` and their ``median_ratio``; NaN where not calibrated.
    """
    coords = {"num_samples": list(sizes)}
    if "sample_ratio" not in dataset:
        return xr.Dataset(coords=coords)
    rows = [_row(dataset.sel(num_samples=n)) for n in sizes]
    columns = {name: ("num_samples", [row[name] for row in rows]) for name in rows[0]}
    return xr.Dataset(columns, coords=coords)


def _row(picked: xr.Dataset) -> dict[str, float]:
    row = {"samples": float((~np.isnan(picked.sample_ratio)).sum())}
    row["median_ratio"] = float(np.nanmedian(picked.sample_ratio))
    for name, column in (("copies", "sample_p_value"), ("unseen_copies", "unseen_p_value")):
        values = picked[column].values.ravel()
        known = values[~np.isnan(values)]
        count = Proportion(int((known <= LEVEL).sum()), len(known)) if len(known) else None
        low, high = count.interval if count else (np.nan, np.nan)
        row |= {name: count.successes if count else np.nan, f"{name}_of": float(len(known))}
        row |= {f"{name}_low": low, f"{name}_high": high}
    return row
