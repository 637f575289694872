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
from geomem.stats import Proportion, conformal_p_values

MIN_CALIBRATION = 199
LEVEL = 0.01


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
    centre = training.flatten(1).double().mean(0)
    data, asked = training.flatten(1).double() - centre, queries.flatten(1).double() - centre
    size = max(1, 2**26 // max(data.numel(), 1) + 64)
    parts = [_nearest(q, data, groups) for q in torch.split(asked, size)]
    index, distance, ratio = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Nearest(index, distance, ratio)


def _nearest(
    queries: Tensor, data: Tensor, groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    # One product picks candidates; explicit differences decide among them, since a distance
    # of 0 comes out of the product as anything up to 1e-7.
    product = data.square().sum(1) - 2 * queries @ data.T
    candidates = product.topk(min(32, len(data)), dim=1, largest=False).indices
    rows = [_one(q, data, c, groups) for q, c in zip(queries, candidates, strict=True)]
    index, distance, ratio = zip(*rows, strict=True)
    return np.array(index), np.array(distance), np.array(ratio)


def _one(
    query: Tensor, data: Tensor, candidates: Tensor, groups: NDArray[np.int64]
) -> tuple[int, float, float]:
    rows = candidates.numpy(force=True)
    if len(set(groups[rows])) == 1 and len(rows) < len(data):
        rows = np.arange(len(data))  # one large group lies in front: look at everything
    distances = (data[rows] - query).square().sum(1).sqrt().numpy(force=True)
    first = int(distances.argmin())
    others = distances[groups[rows] != groups[rows[first]]]
    if not len(others):
        return int(rows[first]), float(distances[first]), np.nan
    second = float(others.min())  # two groups at distance 0: equally near, no copy of one
    ratio = float(distances[first]) / second if second > 0 else 1.0
    return int(rows[first]), float(distances[first]), ratio


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
