r"""Are generated samples copies? A ratio of distances, calibrated on images known not to be.

``c = d_1 / d_2`` compares the distance to the nearest training image with that to the nearest
of another group. All N images are searched. What ratio is small is told by held-out images,
which cannot be copies: a sample is called a copy if its conformal p-value among them is at
most 1 %, which takes at least 199 of them. Beside it stands the rate of reserved images, which
are in no training set either and were not used to calibrate: it should be about 1 %.

What is no copy is not thereby new. A network that has put an attractor between its training
images draws it again and again: such *spurious* samples are near each other and near no training
image. The same door sorts them out, with another ratio of distances,

    q = (distance to the nearest other sample) / (distance to the nearest training image)

Had the network drawn from the law of the data, its samples and the held-out images would be
alike, so q is calibrated by held-out images among held-out images, of which as many are looked
through as there are other samples. A sample is *memorized* if it is a copy, *spurious* if it is
not and its p-value of q is at most 1 %, else *new*.

References:
    | Somepalli et al., Diffusion art or digital forgery?, arXiv 2212.03860
    | Yoon et al., Diffusion probabilistic models generalize when they fail to memorize (2023)
    | Pham et al., Memorization to generalization, arXiv 2505.21777 (memorized, spurious, new)
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
from geomem.data.source import Source
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


def siblings(
    queries: Tensor,
    groups: NDArray[np.int64],
    among: Tensor,
    among_groups: NDArray[np.int64],
    count: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    r"""The nearest of so many other images, none of them of a query's own group.

    One image a group is looked at, the first of each, and for each query the same number of
    them: nearest distances fall with how many there are to choose from.

    Arguments:
        queries: The images in question, with shape :math:`(B, *)`.
        groups: Their groups, with shape :math:`(B)`.
        among: The other images, or the same, with shape :math:`(n, *)`.
        among_groups: Their groups, with shape :math:`(n)`.
        count: How many are looked at for each query.

    Returns:
        The place of the nearest among ``among`` and its Euclidean distance, each (B).

    Raises:
        InputError: If there are not so many other groups.
    """
    first = np.sort(np.unique(among_groups, return_index=True)[1])[: count + 1]
    own = groups[:, None] == among_groups[first]
    if len(first) < count or not (len(first) > count or not own.any()):
        raise InputError(f"`count` is {count}, and there are not so many other groups; lower it")
    # Who is not among them does without the last one.
    out = own | (~own.any(1)[:, None] & (np.arange(len(first)) == count))
    others = among[torch.from_numpy(first)].flatten(1).double()
    flat, places, distances = queries.flatten(1).double(), [], []
    for part, none in zip(torch.split(flat, 256), _split(out, 256), strict=True):
        # By differences: a product would lose what is near zero.
        far = torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")
        far[torch.from_numpy(none)] = torch.inf
        distance, place = far.min(1)
        places.append(first[place.numpy()])
        distances.append(distance.numpy())
    return np.concatenate(places), np.concatenate(distances)


def _split(rows: NDArray[np.bool_], size: int) -> list[NDArray[np.bool_]]:
    return [rows[k : k + size] for k in range(0, len(rows), size)]


def sibling_ratios(
    distance: NDArray[np.float64], training: NDArray[np.float64]
) -> NDArray[np.float64]:
    r"""Distances to the nearest other sample over those to the nearest training image, (B).

    Infinite where the latter is 0: what is a training image is near no other sample by it.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(training > 0, distance / training, np.inf)


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
    training set alone; ``sibling_ratio``, ``sibling`` and ``sibling_p_value`` (sample) of the
    nearest other sample, and ``unseen_sibling_p_value`` (unseen) of reserved images among
    held-out ones. Of subjects that are no networks, or whose training set is not known,
    it gives nothing.

    Attributes:
        count: How many samples are compared.
        gallery: Of how many the nearest training image's pixels are kept, if any are.
        show_images: Whether they are.
    """

    count: Annotated[int, Whole(least=0)] = 256
    gallery: Annotated[int, Whole(least=0)] = 48
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
        samples, held_out = (
            samples_of(subject, study, self.count),
            source.data.tensor(source.split.held_out),
        )
        found, held, spare = (
            nearest(images, training, groups) for images in (samples, held_out, source.reserved)
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
        record = record.merge(self._siblings(source, samples, held_out, found, held, spare))
        if self.show_images:
            pixels = training[torch.from_numpy(found.index[: self.gallery])].numpy()
            dims = ("gallery", *(f"axis_{k}" for k in range(pixels.ndim - 1)))
            named = {"units": "data units", "long_name": "training image nearest to a sample"}
            record["nearest_image"] = (dims, pixels, named)
        return record

    def _siblings(
        self,
        source: Source,
        samples: Tensor,
        held_out: Tensor,
        found: Nearest,
        held: Nearest,
        spare: Nearest,
    ) -> xr.Dataset:
        alone = np.arange(len(samples))
        groups, theirs = source.groups[source.split.held_out], source.groups[source.split.reserved]
        count = min(len(samples), len(np.unique(groups))) - 1
        if count < 1:
            return xr.Dataset()
        place, distance = siblings(samples, alone, samples, alone, count)
        _, among = siblings(held_out, groups, held_out, groups, count)
        _, between = siblings(source.reserved, theirs, held_out, groups, count)
        calibration = sibling_ratios(among, held.distance)
        ratio = sibling_ratios(distance, found.distance)
        one = {"units": "1"}
        said = "distance to the nearest other sample over that to the nearest training image"
        chance = "conformal p-value of it among held-out images"
        unseen = p_values(sibling_ratios(between, spare.distance), calibration)
        return xr.Dataset(
            {
                "sibling_ratio": ("sample", ratio, one | {"long_name": said}),
                "sibling": ("sample", place, one | {"long_name": "the nearest other sample"}),
                "sibling_p_value": (
                    "sample",
                    p_values(ratio, calibration),
                    one | {"long_name": chance},
                ),
                "unseen_sibling_p_value": (
                    "unseen",
                    unseen,
                    one | {"long_name": "the same of a reserved image among held-out ones"},
                ),
            }
        )
