r"""The inverse question: how many images does it take to keep a direction? **[ours]**

From images alone, before any training. The M images at hand are the prior
(:mod:`geomem.theory.data_prior`): subsets of N of them keep the share

.. math:: r_u(\sigma; N) = \frac{\sum_q \mathbb{E} \, u^\top \mathrm{Cov}_w(x_q; N) \, u}
    {\sum_q u^\top \mathrm{Cov}_w(x_q; M) \, u} \, , \qquad x_q = y_q + \sigma z_q

of what all M keep, over noisy versions of Q of the images. It grows with N from 0 to 1, so the
size :math:`N_u(\sigma)` at which a direction is kept to 50 or 90 % exists and is unique.

**What is predicted** is the exact denoiser of N points: a model that memorizes exactly, the
worst case. What trained networks do relative to it is for a sweep to measure.

**How far off it is.** The numerator has no bias as an estimate for the population. The control,
all M images, keeps too little: 1 - c / n of the population's, with n the median of its
*effective points*, source left out, and c from .7 (2 dimensions) to 2.5 (8 and 20 dimensions;
measured on Gaussian data, M = 300 and 2,000, n from 1.3 to 38). So :math:`r_u` is too large and
:math:`N_u` too small by that much, and

* n >= 20: N is given; its upper end is where the retention, less its error, reaches the level
  over 1 - 2.5 / n, which for 90 % may be beyond M;
* n < 20 and 1 - .7 / n below the level: all M images fall short of it: "more than M";
* n < 20 otherwise: too few images to say; N at the level over 1 - .7 / n is a lower end.

Beyond M there is a guide from above, the exact theory of the Gaussian with the data's shrunk
covariance: of all laws with that covariance it has the largest :math:`I(x_0; x_\sigma)`, and
needs the most points to avoid collapse. Errors come from blocks of sources: for 24 Gaussian data
sets (M = 400, 5 dimensions) 281 of 288 intervals of 95 % held the exact size, and 142 of 144
lower ends were below it. **Limitation:** at small noise a few sources with a rare near
neighbour carry the mean, and the blocks may miss them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree
from scipy.stats import t as student

from geomem.errors import Inconclusive, InputError
from geomem.stats import numpy_rng
from geomem.theory.averages import Effort, planted_average
from geomem.theory.collapse import collapse_sigma
from geomem.theory.data_prior import ENOUGH, data_prior
from geomem.theory.moments import Array
from geomem.theory.population import information
from geomem.theory.priors import Gaussian, check_sigma, check_sizes, check_variances, finite

KEPT = (0.5, 0.9)  # retention asked for
OPEN = 0.05  # of the noise: what a control must keep for a ratio to mean anything
DEFICIT = (0.7, 2.5)  # of the control, over its effective points: least and most measured
BLOCKS = 16
TOGETHER = 4  # sources between two words on the progress
LARGEST = 1e12  # size up to which the Gaussian guide is computed
GUIDE_EFFORT = Effort(points=4, sources=8, replicates=16)
CONFIDENCE = 0.95
MOST_PAIRS = 1_000_000  # of near-duplicates that are looked at

# What is said of a direction at a noise level.
FOUND, TOO_FEW, MORE, CLOSED = "found", "too few images", "more than M", "not open"


# ------------------------------------------------------------------------- what is kept


def retention_of_subsets(
    points: ArrayLike,
    sigmas: ArrayLike,
    num_samples: ArrayLike,
    directions: ArrayLike,
    *,
    sources: int = 128,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> xr.Dataset:
    r"""What subsets of a data set keep of each direction, on average over its points.

    Arguments:
        points: The data, with shape :math:`(M, d)`.
        sigmas: Increasing noise levels, with shape :math:`(T)`.
        num_samples: The sizes, 1 to M, with shape :math:`(S)`; 1 and M are added.
        directions: Unit directions as rows, with shape :math:`(K, d)`.
        sources: How many of the points get noise.
        seed: The seed of their choice and of their noise.
        progress: Called with the number of sources that are done.

    Returns:
        Over ``sigma``, ``num_samples``, ``direction``: ``retention`` relative to all M points,
        ``participation``, with standard errors; over ``sigma``: ``reference_points``, the median
        of the effective points of all M; ``control``, what M points keep in units of the noise.

    Raises:
        InputError: If there are fewer than 16 points, or an argument cannot be used.
    """
    data = finite(points, "the images")
    sizes = np.unique(np.concatenate([[1.0], check_sizes(num_samples), [float(len(data))]]))
    if min(len(data), sources) < BLOCKS:
        raise InputError(
            f"{len(data)} images and {sources} sources are too few; pass {BLOCKS} or more of both"
        )
    index = numpy_rng(seed, "plan: sources").permutation(len(data))[:sources]
    z = numpy_rng(seed, "plan: noise").standard_normal((len(index), data.shape[1]))
    rows = []
    for start in range(0, len(index), TOGETHER):
        some = slice(start, start + TOGETHER)
        where = partial(data_prior, sources=index[some], noise=z[some], directions=directions)
        rows.append(where(data, sigmas, sizes, trace=False))
        progress(min(start + TOGETHER, len(index)))
    return _over_sources(xr.concat(rows, dim="source"))


def _over_sources(raw: xr.Dataset) -> xr.Dataset:
    kept, control = raw.kept.values, raw.reference_kept.values[:, :, None]
    full, each = ("sigma", "num_samples", "direction"), ("sigma", "num_samples")
    ratio, stderr = _ratio(kept, control)
    participation, participation_stderr = _ratio(raw.participation.values, np.ones((1, 1, 1)))
    return xr.Dataset(
        {
            "retention": (full, ratio),
            "retention_stderr": (full, stderr),
            "participation": (each, participation),
            "participation_stderr": (each, participation_stderr),
            "reference_points": raw.reference_points.median("source"),
            "control": raw.reference_kept.mean("source"),
        },
        {"sigma": raw.sigma.values, "num_samples": raw.num_samples.values},
    )


def _ratio(above: Array, below: Array) -> tuple[Array, Array]:
    # Mean over mean, over the first axis; the error leaves out one block of sources at a time.
    blocks = np.array_split(np.arange(len(above)), BLOCKS)
    below = np.broadcast_to(below, np.broadcast_shapes(above.shape, below.shape))
    tops, bottoms = (np.stack([a[b].sum(0) for b in blocks]) for a in (above, below))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = tops.sum(0) / bottoms.sum(0)
        without = (tops.sum(0) - tops) / (bottoms.sum(0) - bottoms)
    stderr = np.sqrt((BLOCKS - 1) / BLOCKS * ((without - without.mean(0)) ** 2).sum(0))
    return ratio, stderr


def _quantile() -> float:
    return float(student.ppf((1 + CONFIDENCE) / 2, BLOCKS - 1))


# ------------------------------------------------------------------------ what is needed


@dataclass(frozen=True)
class Needed:
    r"""The size at which one direction is kept to a level, at one noise level.

    Attributes:
        status: ``found``, ``too few images``, ``more than M`` or ``not open``.
        num_samples: The size, relative to all M points; None unless it is found.
        low, high: A 95 % interval: ``low`` may be M, ``high`` is None where it is beyond M.
    """

    status: str
    num_samples: float | None = None
    low: float | None = None
    high: float | None = None


def needed_sizes(map_: xr.Dataset, kept: float) -> list[list[Needed]]:
    r"""The size that keeps each direction to a level, by noise level and direction.

    Arguments:
        map_: What :func:`retention_of_subsets` returned.
        kept: The retention asked for, between 0 and 1.
    """
    if not 0 < kept < 1:
        raise InputError(f"the retention asked for is {kept:g}; pass one between 0 and 1")
    columns = range(map_.sizes["direction"])
    rows = [map_.isel(sigma=i) for i in range(map_.sizes["sigma"])]
    return [[_needed(row.isel(direction=k), kept) for k in columns] for row in rows]


def _needed(column: xr.Dataset, kept: float) -> Needed:
    sizes, n = column.num_samples.values, float(column.reference_points)
    if n >= ENOUGH and float(column.control) < OPEN:  # with less, it may be M that lost it
        return Needed(CLOSED)
    least, most = (1 - c / max(n, 1e-9) for c in DEFICIT)
    if n < ENOUGH and least < kept:
        return Needed(MORE, low=float(sizes[-1]))
    value, error = column.retention.values, _quantile() * column.retention_stderr.values
    if n < ENOUGH:
        return Needed(TOO_FEW, low=size_at(sizes, value + error, kept / least))
    low = size_at(sizes, value + error, kept)
    high = size_at(sizes, value - error, kept / most)
    return Needed(FOUND, size_at(sizes, value, kept), low, high)


def size_at(num_samples: Array, retention: Array, kept: float) -> float | None:
    r"""The size at which a retention passes a level, in ln N; None if the largest keeps less.

    Example:
        >>> sizes = np.geomspace(1, 100, 33)
        >>> round(size_at(sizes, 1 - 1 / sizes, 0.75), 1)
        4.0
    """
    value = np.maximum.accumulate(retention)
    if value[-1] < kept:
        return None
    if value[0] >= kept:
        return float(num_samples[0])
    curve = PchipInterpolator(np.log(num_samples), value - kept + 1e-13 * np.arange(len(value)))
    return float(np.exp(curve.roots(extrapolate=False)[0]))


# --------------------------------------------------------------------------- collapse


@dataclass(frozen=True)
class Collapse:
    r"""The noise level at which a set of this size is down to 2 effective points.

    Attributes:
        num_samples: The size.
        sigma: The level; None if it is outside the levels looked at.
        low, high: The ends of its 95 % interval, None likewise.
        guide: The level ln N = I of the Gaussian with the data's covariance.
    """

    num_samples: float
    sigma: float | None
    low: float | None
    high: float | None
    guide: float | None


def collapse_levels(
    map_: xr.Dataset, num_samples: Sequence[float], variances: ArrayLike
) -> list[Collapse]:
    r"""The level of 2 effective points for each size, in the units of the data.

    Arguments:
        map_: What :func:`retention_of_subsets` returned, at these sizes if they are not above M.
        num_samples: The sizes.
        variances: The shrunk variances of the data, with shape :math:`(d)`.
    """
    return [_collapse(map_, float(N), check_variances(variances)) for N in num_samples]


def _collapse(map_: xr.Dataset, size: float, variances: Array) -> Collapse:
    guide = collapse_sigma(variances, size) if size >= 2 else None
    if size > map_.num_samples.values[-1]:
        return Collapse(size, None, None, None, guide)
    one = map_.sel(num_samples=size)
    free, error = 1 - one.participation.values, _quantile() * one.participation_stderr.values
    # More left over (free + error) collapses at a lower level.
    middle, low, high = (_level_at(one.sigma.values, free + k * error) for k in (0, 1, -1))
    return Collapse(size, middle, low, high, guide)


def _level_at(sigmas: Array, free: Array) -> float | None:
    value = np.maximum.accumulate(free)
    if not value[0] < 0.5 <= value[-1]:
        return None
    curve = PchipInterpolator(np.log(sigmas), value - 0.5 + 1e-13 * np.arange(len(value)))
    return float(np.exp(curve.roots(extrapolate=False)[0]))


# ---------------------------------------------------------------------- the Gaussian guide


def gaussian_guide(
    variances: ArrayLike,
    sigmas: ArrayLike,
    count: int,
    *,
    kept: Sequence[float] = KEPT,
    effort: Effort = GUIDE_EFFORT,
    progress: Callable[[int], None] = lambda done: None,
) -> xr.Dataset:
    r"""The size at which a Gaussian keeps its first directions: the guide from above.

    Arguments:
        variances: Its variances by falling size, with shape :math:`(d)`.
        sigmas: The noise levels, with shape :math:`(T)`.
        count: How many directions are asked for.
        kept: The retentions asked for.
        effort: How much is drawn.
        progress: Called with the number of levels done.

    Returns:
        ``information``, :math:`I(x_0; x_\sigma)` in nats, over ``sigma``; ``num_samples`` over
        ``kept``, ``sigma``, ``direction``: infinity where it is above 10^12, and NaN where the
        population does not keep the direction or no number reached its accuracy.
    """
    v, levels = check_variances(variances), np.atleast_1d(finite(sigmas, "the noise levels"))
    rows = []
    for done, sigma in enumerate(levels):
        own = replace(effort, seed=effort.seed + 1000 * done)
        rows.append(_guide(v, check_sigma(sigma), count, kept, own))
        progress(done + 1)
    return xr.Dataset(
        {
            "information": ("sigma", [float(information(v, s)) for s in levels]),
            "num_samples": (("kept", "sigma", "direction"), np.stack(rows, axis=1)),
        },
        {"sigma": levels, "kept": list(kept)},
    )


def _guide(v: Array, sigma: float, count: int, kept: Sequence[float], effort: Effort) -> Array:
    out = np.full((len(kept), count), np.inf)
    share = v[:count] / (v[:count] + sigma**2)
    if information(v, sigma) < math.log(LARGEST) + 6:  # beyond, nothing is kept at 10^12
        sizes = np.concatenate([[1.0], np.geomspace(2, LARGEST, 81)])
        prior, u = Gaussian(v), np.eye(len(v))[:count]
        try:
            r = planted_average(prior, sigma, sizes, directions=u, effort=effort).retention
        except Inconclusive:
            return np.full_like(out, np.nan)
        found = [[size_at(sizes, r[:, k], level) for k in range(count)] for level in kept]
        out = np.array(found, dtype=float)  # None, above 10^12, becomes NaN
        out[np.isnan(out)] = np.inf
    out[:, share < OPEN] = np.nan
    return out


# --------------------------------------------------------------------------- near-duplicates


@dataclass(frozen=True)
class Twins:
    r"""Pairs of points much nearer to each other than nearest neighbours usually are.

    Attributes:
        pairs: ``(i, j, ratio)``, nearest first: the distance over ``typical``.
        typical: The median distance to the nearest neighbour that is not an exact copy.
        threshold: Pairs below this ratio are listed: a third, or less where more than one image
            in 1,000 would be as near by chance.
        dimension: The dimension in which neighbours spread, by their distance ratios.
    """

    pairs: tuple[tuple[int, int, float], ...]
    typical: float
    threshold: float
    dimension: float


def near_duplicates(
    points: ArrayLike, directions: ArrayLike, *, sample: int = 256, seed: int = 0
) -> Twins:
    r"""Finds near-duplicates among distinct points; none is missed.

    Distances along a few directions never exceed distances: pairs are sifted by these, and
    only what is left is measured in full.

    Arguments:
        points: The data without exact duplicates, with shape :math:`(n, d)`.
        directions: Orthonormal directions of high variance, as rows, with shape :math:`(K, d)`.
        sample: How many points say what is typical.
        seed: The seed of their choice.
    """
    data = np.asarray(points)
    chosen = numpy_rng(seed, "plan: neighbours").permutation(len(data))[:sample]
    two = np.array([_two_nearest(data, int(i)) for i in chosen])
    typical = float(np.median(two[:, 0]))
    ratios = np.log(np.maximum(two[:, 1] / np.maximum(two[:, 0], 1e-300), 1 + 1e-9))
    dimension = float(1 / ratios.mean())
    # P(nearest < c typical) = 1 - 2^(-c^m) where points are locally uniform in m dimensions.
    threshold = min(1 / 3, 0.00144 ** (1 / dimension))
    tree = cKDTree(data @ np.asarray(directions, data.dtype).T)
    while tree.count_neighbors(tree, threshold * typical) > 2 * MOST_PAIRS + len(data):
        threshold /= 2
    pairs = _pairs(data, tree, threshold * typical)
    named = sorted((r / typical, i, j) for i, j, r in pairs)
    return Twins(tuple((i, j, r) for r, i, j in named), typical, threshold, dimension)


def _two_nearest(data: np.ndarray, i: int) -> tuple[float, float]:
    squares = np.empty(len(data))
    for start in range(0, len(data), 4096):
        rows = slice(start, start + 4096)
        squares[rows] = ((data[rows] - data[i]) ** 2).sum(1)
    squares[i] = np.inf
    first, second = np.sqrt(np.partition(squares, 1)[:2])
    return float(first), float(second)


def _pairs(data: np.ndarray, tree: cKDTree, radius: float) -> list[tuple[int, int, float]]:
    found = []
    for i, j in tree.query_pairs(radius * (1 + 1e-5), output_type="ndarray"):
        distance = float(np.sqrt(((data[i].astype(float) - data[j]) ** 2).sum()))
        if distance < radius:
            found.append((int(i), int(j), distance))
    return found
