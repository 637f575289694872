r"""What a plan asks, part by part: near-duplicates, the Gaussian guide, what subsets keep.

A part of the work is a subject: the images themselves (``data``), the Gaussian of their
covariance at one noise level (``linear``), the exact denoisers of all their subsets at some noisy
images (``empirical``). Each has its own record, so that an interrupted plan goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject
from geomem.theory.duplicates import near_duplicates, without_copies
from geomem.theory.moments import Array
from geomem.theory.planning import GUIDE_EFFORT, KEPT, gaussian_guide, retention_at_sources
from geomem.theory.population import information

GRID = 16  # sizes between which N is interpolated
WIDEST = 4096  # dimensions up to which the guide is integrated; above, only its information
SIFTED = 16  # directions that near-duplicates are sifted by
LISTED = 1000  # pairs of near-duplicates that are named
PICTURES = 12  # pairs, and groups, whose pixels are kept where asked for


@dataclass(frozen=True, eq=False)
class Part(Subject):
    r"""A part of a plan's work.

    Attributes:
        places: Its noise levels of the study, or its sources in the order of the seed.
    """

    places: range = range(0)


def variances_of(content: Mapping[str, Any]) -> Array:
    r"""All shrunk variances of the reserved images, falling, with shape (d)."""
    linear = content["linear_control"]
    return np.array(linear["variances"] + [linear["rest"]] * linear["complement"])


@dataclass(frozen=True)
class NearDuplicates:
    r"""Gives ``different``, the images of the pool without copies, and what the copies are.

    ``exact_image`` and ``exact_group`` (exact), ``near_image`` (near, two), ``near_ratio`` (near):
    the first 1,000 pairs; ``near_count``, ``near_images``, ``near_threshold``,
    ``typical_distance``, ``neighbour_dimension``; absent where there is none. Where images have
    names, ``exact_name`` and ``near_name``. Also ``vector`` (single, axis_0, ...): the principal
    directions that are planned for, means over many images and so no image's pixels.

    Attributes:
        show_images: Whether pixels of some of them are kept: ``picture`` and ``picture_image``.
    """

    show_images: bool = False

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        if subject.description.kind != "data":
            return xr.Dataset()
        if study.source is None:
            raise InputError("a study of no data has no duplicates; make it with geomem.Plan")
        data, pool = study.source.data, np.asarray(study.source.split.pool)
        by_digest: dict[str, list[int]] = {}
        for i, digest in enumerate(data.digests()):
            by_digest.setdefault(digest, []).append(i)
        exact = [group for group in by_digest.values() if len(group) > 1]
        distinct = np.array([group[0] for group in by_digest.values()])
        axes = study.directions.vectors[:, :SIFTED].double().numpy().T
        twins = near_duplicates(data.tensor(distinct).flatten(1).numpy(), axes, seed=study.seed)
        pairs = [(int(distinct[i]), int(distinct[j]), ratio) for i, j, ratio in twins.pairs]
        copies = [(g[0], i) for g in exact for i in g[1:]] + [p[:2] for p in pairs]
        place = {int(i): k for k, i in enumerate(pool)}
        inside = [(place[i], place[j]) for i, j in copies if i in place and j in place]
        number, one = "image number", "1"
        columns: dict[str, tuple[Any, ...]] = {
            "different": ("pool", pool[without_copies(len(pool), inside)], number, "no copy"),
            "exact_image": ("exact", [i for g in exact for i in g], number, "exact duplicate"),
            "exact_group": ("exact", [k for k, g in enumerate(exact) for _ in g], one, "its group"),
            "near_image": (("near", "two"), [p[:2] for p in pairs[:LISTED]], number, "near pair"),
            "near_ratio": ("near", [p[2] for p in pairs[:LISTED]], one, "distance over typical"),
            "near_count": ((), len(pairs), "pairs", "pairs of near-duplicates"),
            "near_images": ((), len({i for p in pairs for i in p[:2]}), "images", "in such pairs"),
            "near_threshold": ((), twins.threshold, one, "ratio below which pairs are near"),
            "typical_distance": ((), twins.typical, "data units", "usual nearest distance"),
            "neighbour_dimension": ((), twins.dimension, one, "dimension of neighbourhoods"),
        }
        if data.files is not None and exact:
            names = np.array([data.files[i] for g in exact for i in g], dtype=object)
            columns["exact_name"] = ("exact", names, "file name", "exact duplicate")
        if data.files is not None and pairs:
            names = np.array([[data.files[i] for i in p[:2]] for p in pairs[:LISTED]], dtype=object)
            columns["near_name"] = (("near", "two"), names, "file name", "near pair")
        axis = [f"axis_{k}" for k in range(len(study.item_shape))]
        planned = len(study.content["direction_variances"])
        vectors = study.directions.vectors[:, :planned].T.float().numpy()
        columns["vector"] = (("single", *axis), vectors.reshape(planned, *study.item_shape), one,
                             "principal direction")  # fmt: skip
        shown = sorted({i for p in [*pairs[:PICTURES], *exact[:PICTURES]] for i in map(int, p[:2])})
        if self.show_images and shown:
            pixels = data.tensor(shown).float().numpy()
            columns["picture"] = (("shown", *axis), pixels, "data units", "picture of an image")
            columns["picture_image"] = ("shown", shown, number, "the image")
        return _named({k: v for k, v in columns.items() if np.size(v[1])})


@dataclass(frozen=True)
class GaussianGuide:
    r"""Gives ``information`` (sigma), ``guide`` (share, sigma, direction), ``guide_retention``.

    Of the Gaussian of the data's covariance, see :func:`geomem.theory.planning.gaussian_guide`;
    NaN at levels of other parts, and by direction where there are more than 4096 dimensions.
    ``guide_retention`` (sigma, asked, direction) is at the sizes that the study asks for.
    """

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        if subject.description.kind != "linear" or not isinstance(subject, Part):
            return xr.Dataset()
        v, levels = variances_of(study.content), study.sigmas.numpy()
        count, asked = len(study.content["direction_variances"]), study.content["sizes"]
        nats = np.full(len(levels), np.nan)
        sizes = np.full((len(KEPT), len(levels), count), np.nan)
        retention = np.full((len(levels), len(asked), count), np.nan)
        for done, i in enumerate(subject.places, start=1):
            nats[i] = information(v, levels[i : i + 1])[0]
            if len(v) <= WIDEST:
                own = replace(GUIDE_EFFORT, seed=GUIDE_EFFORT.seed + 1000 * (len(levels) - 1 - i))
                found = gaussian_guide(v, levels[i : i + 1], count, num_samples=asked, effort=own)
                sizes[:, i], retention[i] = found.num_samples[:, 0], found.retention[0]
            report(done / len(subject.places))
        columns: dict[str, tuple[Any, ...]] = {
            "information": ("sigma", nats, "nats", "I(x_0; x_sigma) of the Gaussian"),
            "guide": (("share", "sigma", "direction"), sizes, "images", "N of the Gaussian"),
        }
        if asked:
            dims = ("sigma", "asked", "direction")
            columns["guide_retention"] = (dims, retention, "1", "retention of the Gaussian")
        return _named(columns)


@dataclass(frozen=True)
class SubsetRetention:
    r"""Gives what subsets keep at some noisy images: ``kept_variance`` and what goes with it.

    See :func:`geomem.theory.planning.retention_at_sources`: ``kept_variance`` (source, sigma,
    size, direction), ``participation``, ``reference_kept``, ``reference_points``, and
    ``subset_size`` (size).
    """

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        exact = subject.denoiser
        if not isinstance(subject, Part) or not isinstance(exact, EmpiricalDenoiser):
            return xr.Dataset()
        if not subject.places:
            return xr.Dataset()  # fewer images are different than noise was meant for
        points = exact.data.flatten(1).double().numpy()
        M, places = len(points), subject.places
        grid = np.geomspace(2, M, GRID).round()
        asked = [n for n in study.content["sizes"] or usual_sizes(M) if n <= M]
        vectors = study.directions.vectors[:, : len(study.content["direction_variances"])]
        raw = retention_at_sources(
            points,
            study.sigmas.numpy(),
            np.unique([*grid, *asked]),
            vectors.double().numpy().T,
            some=places,
            seed=study.seed,
            progress=lambda done: report(done / len(places)),
        )
        kept, points_of = "posterior variance kept by", "effective points of all but the source"
        columns: dict[str, tuple[Any, ...]] = {
            "subset_size": ("size", raw.num_samples.values, "images", "size of the subsets"),
            "kept_variance": (("source", "sigma", "size", "direction"), raw.kept.values,
                              "sigma^2", f"{kept} subsets"),
            "participation": (("source", "sigma", "size"), raw.participation.values,
                              "1", "sum of squared posterior weights"),
            "reference_kept": (("source", "sigma", "direction"), raw.reference_kept.values,
                               "sigma^2", f"{kept} all images"),
            "reference_points": (("source", "sigma"), raw.reference_points.values,
                                 "images", points_of),
        }  # fmt: skip
        return _named(columns)


def _named(columns: Mapping[str, tuple[Any, ...]]) -> xr.Dataset:
    return xr.Dataset(
        {
            name: (dims, values, {"units": units, "long_name": said})
            for name, (dims, values, units, said) in columns.items()
        }
    )


def usual_sizes(pool: int) -> list[int]:
    r"""Sizes that are shown where none is asked for.

    Example:
        >>> usual_sizes(1297)
        [32, 100, 300, 1000, 1297]
    """
    usual = [32, *(first * 10**k for k in range(2, 7) for first in (1, 3))]
    return [n for n in usual if n < pool] + [pool]


def parts_bytes(content: Mapping[str, Any]) -> float:
    r"""Bytes that a part takes at its peak: points twice in float64, and its answers."""
    data = content["data"]
    points: float = 8.0 * math.prod(data["item_shape"]) * (2.2 * data["pool"] + data["images"])
    sizes = len(content["sizes"]) + GRID + 16
    cells = len(content["sigmas"]) * sizes * (len(content["direction_variances"]) + 4)
    return points + 8.0 * 3 * 16 * cells + 2**28
