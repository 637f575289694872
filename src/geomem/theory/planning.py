r"""The inverse question: how many images does it take to keep a direction? **[ours]**

From images alone, before any training. The M images at hand are the prior
(:mod:`geomem.theory.data_prior`): subsets of N of them keep

.. math:: K_u(\sigma; N) = \sum_q \mathbb{E} \, u^\top \mathrm{Cov}_w(x_q; N) \, u \, , \qquad
    x_q = y_q + \sigma z_q

over noisy versions of Q of the images, an estimate without bias of what N images of the
population keep. It grows with N, so the size :math:`N_u(\sigma)` at which 50 or 90 % of
:math:`K_u(\sigma; \infty)` is kept exists and is unique. Copies are no further images: exact ones
are left out, and near ones should be (:func:`near_duplicates`, :func:`without_copies`).

**What is predicted** is the exact denoiser of N points: a model that memorizes exactly, the
worst case. What trained networks do relative to it is for a sweep to measure.

**How much the M images fall short** of the population is read from the data, too. Each doubling
of N adds to K a share :math:`\rho` of what the one before added, and

.. math:: K(\infty) \approx K(M) + \frac{\rho}{1 - \rho} [K(M) - K(\tfrac M2)] \, , \qquad
    \rho = \frac{K(M) - K(M/4)}{K(M/2) - K(M/8)} \, ;

with one :math:`\rho` for all directions together: 1/2 where the shortfall goes like 1/N, nearer
to 1 for heavy tails, whose outliers find neighbours late. Let n be the median of the *effective
points* of all M images, source left out:

* n >= 20: N is given where the extrapolated retention reaches the level, or is above M;
* n < 20 and 1 - .7 / n below the level: all M images fall short of it: "more than M". (.7 is
  the least that was measured: on Gaussian data, n from 1.3 to 38, it was .7 to 2.5);
* n < 20 otherwise: too few images to say; N at the level over 1 - .7 / n is a lower end.

Beyond M there is a guide from above, the exact theory of the Gaussian with the data's shrunk
covariance: of all laws with that covariance it has the largest :math:`I(x_0; x_\sigma)`, and
needs the most points to avoid collapse. Errors come from blocks of sources: for 12
data sets each of four light-tailed populations 321 of 336 intervals of 95 % held the exact size,
and of four heavy-tailed ones 326 of 336 (``benchmarks/plan_coverage.py``); the worst was a scale
mixture of variances, exp(1.2 z), with 30 of 36 at 50 % and 35 of 36 at 90 %.
**Limitation:** at small noise a few sources with a rare near neighbour carry the mean, and the
blocks may miss them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.stats import t as student

from geomem.arguments import Number, Values, Whole, checked
from geomem.errors import Inconclusive, InputError
from geomem.stats import numpy_rng
from geomem.theory.averages import Effort, planted_average
from geomem.theory.collapse import collapse_sigma
from geomem.theory.data_prior import ENOUGH, data_prior
from geomem.theory.duplicates import Twins as Twins
from geomem.theory.duplicates import near_duplicates as near_duplicates
from geomem.theory.duplicates import without_copies as without_copies
from geomem.theory.moments import Array
from geomem.theory.population import information
from geomem.theory.priors import Gaussian, Sigmas, Sizes, check_variances

KEPT = (0.5, 0.9)  # retention asked for
OPEN = 0.05  # of the noise: what a control must keep for a ratio to mean anything
LEAST_DEFICIT = 0.7  # of all M points, over their effective points: the least measured
RATES = (0.3, 0.9)  # of what one doubling of N adds to what the one before added
BLOCKS = 16
TOGETHER = 4  # sources between two words on the progress
LARGEST = 1e12  # size up to which the Gaussian guide is computed
GUIDE_EFFORT = Effort(points=4, sources=8, replicates=16)
QUANTILE = float(student.ppf(0.975, BLOCKS - 1))  # of 95 % intervals

# What is said of a direction at a noise level.
FOUND, TOO_FEW, MORE, CLOSED = "found", "too few images", "more than M", "not open"


# ------------------------------------------------------------------------- what is kept


@checked
def retention_of_subsets(
    points: Annotated[ArrayLike, Values(shape="(M, d)")],
    sigmas: Sigmas,
    num_samples: Sizes,
    directions: Annotated[ArrayLike, Values(shape="(K, d)")],
    *,
    sources: Annotated[int, Whole(least=BLOCKS)] = 128,
    seed: Annotated[int, Whole(least=0)] = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> xr.Dataset:
    r"""What subsets of a data set keep of each direction, on average over its points.

    Arguments:
        points: The data, with shape :math:`(M', d)`; M of them are different, the others are
            left out.
        sigmas: Increasing noise levels, with shape :math:`(T)`.
        num_samples: The sizes, 1 to M, with shape :math:`(S)`; 1, M, M/2, M/4 and M/8 are added.
        directions: Unit directions as rows, with shape :math:`(K, d)`.
        sources: How many of the points get noise.
        seed: The seed of their choice and of their noise.
        progress: Called with the number of sources that are done.

    Returns:
        Over ``sigma``, ``num_samples``, ``direction``: ``retention`` relative to all M points,
        ``population_retention`` relative to the population, as the data extrapolate it,
        ``participation``, with standard errors; over ``sigma``: ``reference_points``, the median
        of the effective points of all M; ``control``, what M points keep in units of the noise.

    Raises:
        InputError: If there are fewer than 16 different points, or an argument cannot be used.
    """
    given = np.asarray(points, dtype=float) + 0.0  # -0.0 is 0.0
    first: dict[bytes, int] = {}
    for i, row in enumerate(given):
        first.setdefault(row.tobytes(), i)
    data, M = given[list(first.values())], len(first)
    if M < BLOCKS:
        raise InputError(f"`points` holds {M} different points; pass {BLOCKS} or more")
    asked = np.ravel(num_samples)
    if asked.max() > M:
        copies = f", since {len(given) - M} of {len(given)} are copies" if len(given) > M else ""
        raise InputError(
            f"`num_samples` exceeds the {M} points of the data{copies}; "
            "what larger sets keep cannot be learned from a smaller one"
        )
    rows = retention_at_sources(
        data, sigmas, asked, directions, some=range(min(sources, M)), seed=seed, progress=progress
    )
    return retention_over_sources(rows)


def retention_at_sources(
    points: Array,
    sigmas: ArrayLike,
    num_samples: ArrayLike,
    directions: ArrayLike,
    *,
    some: range,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> xr.Dataset:
    r"""What subsets keep at some of the sources: the part of the work that takes long.

    Arguments:
        points: Different points, with shape :math:`(M, d)`.
        sigmas, num_samples, directions, seed: As for :func:`retention_of_subsets`.
        some: The sources, by their places in the order that the seed draws, below M.
        progress: Called with the number of them that are done.

    Returns:
        What :func:`geomem.theory.data_prior.data_prior` says at each ``source``.
    """
    M = len(points)
    sizes = np.unique([1.0, *np.ravel(num_samples), *(M / np.array([8, 4, 2, 1]))])
    index = numpy_rng(seed, "plan: sources").permutation(M)[: some.stop]
    rng, rows = numpy_rng(seed, "plan: noise"), []
    for _ in range(some.start):  # the noise of those before is drawn, and left
        rng.standard_normal(points.shape[1])
    for start in range(some.start, some.stop, TOGETHER):
        now = index[start : start + TOGETHER]
        z = rng.standard_normal((len(now), points.shape[1]))
        rows.append(
            data_prior(
                points, sigmas, sizes, sources=now, noise=z, directions=directions, trace=False
            )
        )
        progress(min(start + TOGETHER, some.stop) - some.start)
    return xr.concat(rows, dim="source")


def retention_over_sources(raw: xr.Dataset) -> xr.Dataset:
    r"""The averages over sources, with their errors, see :func:`retention_of_subsets`.

    Arguments:
        raw: What :func:`retention_at_sources` returned, of all sources in their order.
    """
    sizes = raw.num_samples.values
    M = sizes[-1]
    eighth, quarter, half, all_ = (int(np.searchsorted(sizes, M / k)) for k in (8, 4, 2, 1))

    def relative_to_population(kept: Array) -> Array:
        added = np.maximum(kept[:, all_] - kept[:, half], 0)
        in_all = kept.sum(-1, keepdims=True)
        rate = (in_all[:, all_] - in_all[:, quarter]) / (in_all[:, half] - in_all[:, eighth])
        rate = np.clip(np.nan_to_num(rate, nan=0.5), *RATES)
        limit: Array = kept[:, all_] + added * rate / (1 - rate)
        return kept / limit[:, None]

    kept = raw.kept.values
    ratios = {
        "retention": _with_error(kept, lambda k: k / k[:, [all_]]),
        "population_retention": _with_error(kept, relative_to_population),
        "participation": _with_error(raw.participation.values / raw.sizes["source"], lambda p: p),
    }
    dims = ("sigma", "num_samples", "direction")
    variables: dict[str, Any] = {}
    for name, (value, stderr) in ratios.items():
        variables[name] = (dims[: value.ndim], value)
        variables[f"{name}_stderr"] = (dims[: value.ndim], stderr)
    variables["reference_points"] = raw.reference_points.median("source")
    variables["control"] = raw.reference_kept.mean("source")
    return xr.Dataset(variables, {"sigma": raw.sigma.values, "num_samples": sizes})


def _with_error(values: Array, statistic: Callable[[Array], Array]) -> tuple[Array, Array]:
    # A statistic of sums over sources; its error leaves out one block of them at a time.
    blocks = np.array_split(np.arange(len(values)), BLOCKS)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = statistic(values.sum(0))
        scale = len(values)
        without = np.stack(
            [statistic(np.delete(values, b, 0).sum(0) * (scale / (scale - len(b)))) for b in blocks]
        )
    stderr = np.sqrt((BLOCKS - 1) / BLOCKS * ((without - without.mean(0)) ** 2).sum(0))
    return total, stderr


# ------------------------------------------------------------------------ what is needed


@dataclass(frozen=True)
class Needed:
    r"""The size at which one direction is kept to a level, at one noise level.

    Attributes:
        status: ``found``, ``too few images``, ``more than M`` or ``not open``.
        num_samples: The size, relative to the population; None unless it is found.
        low, high: A 95 % interval: ``low`` may be M, ``high`` is None where it is beyond M.
    """

    status: str
    num_samples: float | None = None
    low: float | None = None
    high: float | None = None


@checked
def needed_sizes(
    map_: xr.Dataset, kept: Annotated[float, Number(above=0, below=1)]
) -> list[list[Needed]]:
    r"""The size that keeps each direction to a level, by noise level and direction.

    Arguments:
        map_: What :func:`retention_of_subsets` returned.
        kept: The retention asked for, between 0 and 1.
    """
    sizes = map_.num_samples.values
    names = ("retention", "population_retention")
    dims = ("sigma", "direction", "num_samples")
    columns = {
        name: map_[name].transpose(*dims).values
        for name in (*names, *(f"{name}_stderr" for name in names))
    }

    def one(i: int, k: int) -> Needed:
        n = float(map_.reference_points[i])
        if n >= ENOUGH and float(map_.control[i, k]) < OPEN:  # with less, M may have lost it
            return Needed(CLOSED)
        if n < ENOUGH:
            most = 1 - LEAST_DEFICIT / max(n, 1e-9)
            if most < kept:
                return Needed(MORE, low=float(sizes[-1]))
            upper = columns["retention"][i, k] + QUANTILE * columns["retention_stderr"][i, k]
            return Needed(TOO_FEW, low=_size_at(sizes, upper, kept / most))
        value = columns["population_retention"][i, k]
        error = QUANTILE * columns["population_retention_stderr"][i, k]
        found, low, high = (_size_at(sizes, value + e, kept) for e in (0, error, -error))
        low = float(sizes[-1]) if low is None else low
        return Needed(MORE, low=low) if found is None else Needed(FOUND, found, low, high)

    counts = range(map_.sizes["sigma"]), range(map_.sizes["direction"])
    return [[one(i, k) for k in counts[1]] for i in counts[0]]


def _size_at(at: Array, values: Array, level: float) -> float | None:
    # Where rising values pass a level, in the logarithm; None if the last is below it.
    value = np.maximum.accumulate(values)
    if not value[-1] >= level:
        return None
    if value[0] >= level:
        return float(at[0])
    curve = PchipInterpolator(np.log(at), value - level + 1e-13 * np.arange(len(value)))
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
    v, found = check_variances(variances), []
    for size in map(float, num_samples):
        ends: list[float | None] = [None] * 3
        if size <= map_.num_samples.values[-1]:
            one = map_.sel(num_samples=size)
            free, error = 1 - one.participation.values, QUANTILE * one.participation_stderr.values
            # More left over (free + error) collapses at a lower level.
            for k, value in enumerate((free, free + error, free - error)):
                if value[0] < 0.5:
                    ends[k] = _size_at(one.sigma.values, value, 0.5)
        guide = collapse_sigma(v, size) if size >= 2 else None
        found.append(Collapse(size, ends[0], ends[1], ends[2], guide))
    return found


# ---------------------------------------------------------------------- the Gaussian guide


@checked
def gaussian_guide(
    variances: ArrayLike,
    sigmas: Sigmas,
    count: Annotated[int, Whole(least=1)],
    *,
    kept: Sequence[float] = KEPT,
    num_samples: Sequence[float] = (),
    effort: Effort = GUIDE_EFFORT,
    progress: Callable[[int], None] = lambda done: None,
) -> xr.Dataset:
    r"""The size at which a Gaussian keeps its first directions: the guide from above.

    Arguments:
        variances: Its variances by falling size, with shape :math:`(d)`.
        sigmas: The noise levels, with shape :math:`(T)`.
        count: How many directions are asked for.
        kept: The retentions asked for.
        num_samples: Sizes whose retention is asked for, 2 to 10^12, with shape :math:`(S)`.
        effort: How much is drawn.
        progress: Called with the number of levels done.

    Returns:
        ``information``, :math:`I(x_0; x_\sigma)` in nats, over ``sigma``; ``num_samples`` over
        ``kept``, ``sigma``, ``direction``: infinity where it is above 10^12, and NaN where the
        population does not keep the direction or no number reached its accuracy; and
        ``retention`` over ``sigma``, ``size``, ``direction``, NaN likewise.
    """
    v, levels = check_variances(variances), np.atleast_1d(sigmas)
    sizes, u = np.concatenate([[1.0], np.geomspace(2, LARGEST, 81)]), np.eye(len(v))[:count]
    nats = information(v, levels)
    out = np.full((len(kept), len(levels), count), np.inf)
    retention = np.zeros((len(levels), len(num_samples), count))
    for i, sigma in enumerate(levels):
        if nats[i] < math.log(LARGEST) + 6:  # beyond, nothing is kept at 10^12
            own = replace(effort, seed=effort.seed + 1000 * i)
            try:
                r = planted_average(Gaussian(v), sigma, sizes, directions=u, effort=own).retention
                found = [[_size_at(sizes, r[:, k], at) for k in range(count)] for at in kept]
                out[:, i] = [[np.inf if N is None else N for N in row] for row in found]
                retention[i] = PchipInterpolator(np.log(sizes), r)(np.log(num_samples))
            except Inconclusive:
                out[:, i] = retention[i] = np.nan
        closed = v[:count] < OPEN * (v[:count] + sigma**2)
        out[:, i, closed] = retention[i, :, closed] = np.nan
        progress(i + 1)
    return xr.Dataset(
        {
            "information": ("sigma", nats),
            "num_samples": (("kept", "sigma", "direction"), out),
            "retention": (("sigma", "size", "direction"), retention),
        },
        {"sigma": levels, "kept": list(kept), "size": list(num_samples)},
    )
