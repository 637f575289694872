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

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.samples import samples_of
from geomem.measure.study import Report, Study
from geomem.measure.subject import NETWORKS, Subject
from geomem.stats import conformal_p_values

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


def p_values(ratios: NDArray[np.float64], held_out: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Conformal p-values of samples' ratios among held-out images' ratios.

    Arguments:
        ratios: The samples' ratios, with shape :math:`(B)`.
        held_out: The held-out images' ratios to the same training set, with shape :math:`(m)`.

    Returns:
        The p-values, with shape :math:`(B)`; NaN where held-out images are too few to calibrate.
    """
    if len(held_out) < MIN_CALIBRATION or np.isnan(held_out).any():
        return np.full(len(ratios), np.nan)
    return conformal_p_values(ratios, held_out)


@checked
@dataclass(frozen=True)
class Copies:
    r"""Compares samples with training images, and reserved images for comparison.

    Gives ``sample_ratio``, ``sample_distance``, ``sample_nearest`` and ``sample_p_value``
    (sample), and ``unseen_p_value`` (unseen) of the reserved images, which depends on the
    training set alone. Of subjects that are no networks, or whose training set is not known,
    it gives nothing.

    Attributes:
        count: How many samples are compared.
        gallery: Of how many the nearest training image's pixels are kept, if any are.
        show_images: Whether they are.
    """

    count: Annotated[int, Whole(least=0)] = 256
    gallery: Annotated[int, Whole(least=0)] = 16
    show_images: bool = False

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        if not self.count or subject.description.kind not in NETWORKS or subject.training is None:
            return xr.Dataset()
        source = study.source
        if source is None:
            return xr.Dataset()
        index = np.array(subject.training)
        training, groups = source.data.tensor(index), source.groups[index]
        found, held, spare = (
            nearest(images, training, groups)
            for images in (
                samples_of(subject, study, self.count),
                source.data.tensor(source.split.held_out),
                source.reserved,
            )
        )
        one = {"units": "1"}
        record = xr.Dataset(
            {
                "sample_ratio": ("sample", found.ratio, one | {"long_name": "distance ratio"}),
                "sample_distance": (
                    "sample",
                    found.distance,
                    {"units": "data units", "long_name": "distance to the nearest training image"},
                ),
                "sample_nearest": (
                    "sample",
                    index[found.index],
                    one | {"long_name": "number of the nearest training image in the data"},
                ),
                "sample_p_value": (
                    "sample",
                    p_values(found.ratio, held.ratio),
                    one | {"long_name": "conformal p-value of the distance ratio"},
                ),
                "unseen_p_value": (
                    "unseen",
                    p_values(spare.ratio, held.ratio),
                    one | {"long_name": "conformal p-value of a reserved image's distance ratio"},
                ),
            }
        )
        if self.show_images:
            pixels = training[torch.from_numpy(found.index[: self.gallery])].numpy()
            dims = ("gallery", *(f"axis_{k}" for k in range(pixels.ndim - 1)))
            named = {"units": "data units", "long_name": "training image nearest to a sample"}
            record["nearest_image"] = (dims, pixels, named)
        return record
