r"""Retention averaged over planted points, and the critical sizes and levels. **[ours]**

A network sees its training points with noise: :math:`x = y_1 + \sigma z`. Averaged over
:math:`y_1` and :math:`z` the retention is at most 1 and grows with N, since the exact
denoiser is Bayes-optimal given its training set, and an observer of N + 1 points who is
told of a wrong one faces N. It is 0 at N = 1 and tends to :math:`1 - 1/N` as
:math:`\sigma \to \infty`. Hence the critical size

.. math:: N_u(\sigma): \quad r_u(\sigma; N_u) = 1/2

exists and is unique; :math:`\sigma_u(N)` exists for :math:`N \geq 3` (monotone in every case
tried, no proof).

**How.** The contour integrals depend on :math:`x` and :math:`\lambda`, not on :math:`N` nor
on :math:`y_1`. So :math:`x \sim p_\sigma` comes from scrambled Sobol points, several
:math:`y_1` from the posterior at each, and all sizes share both. The radius of x explains
up to .9 of the variance, is a Sobol coordinate of its own, and is drawn far out and close
in more often than it occurs. The planted form is used
throughout: integrating the source out is cheaper, but wrong at small N or large m (m = 1,
N = 3, t = .003: .18 for .090). The spread of independent scramblings is the standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import qmc

from geomem.errors import Inconclusive
from geomem.theory.finite_size import (
    TOLERANCE,
    Prediction,
    as_prediction,
    point_moments,
    wave_number,
)
from geomem.theory.moments import (
    Array,
    Moments,
    Quenched,
    Source,
    average_fresh,
    average_planted,
    pool,
)
from geomem.theory.priors import GaussianMixture, check_directions, check_sigma, check_sizes

REPLICATES = 16  # independent scramblings: the t-distribution of 15 is close to normal


@dataclass(frozen=True)
class Effort:
    r"""How much is drawn for an average over planted points.

    Attributes:
        points: Noisy points in each replicate, a power of two.
        sources: Planted points behind each of them, a power of two.
        replicates: Independent scramblings.
        seed: The seed of all of them.
    """

    points: int = 8
    sources: int = 16
    replicates: int = REPLICATES
    seed: int = 0


USUAL = Effort()


def planted_average(
    prior: GaussianMixture,
    sigma: float,
    num_samples: ArrayLike,
    *,
    directions: ArrayLike | None = None,
    matrix: bool = False,
    bounded: bool = False,
    effort: Effort = USUAL,
    accuracy: float | None = None,
    fresh: bool = False,
) -> Prediction:
    r"""What N points keep, averaged over training points and their noise.

    Arguments:
        prior: The law of the clean points.
        sigma: The noise level.
        num_samples: The sizes :math:`N`, with any shape; all of them cost about one.
        directions: Unit directions as rows, with shape :math:`(K, d)`; by default the
            principal axes of the prior.
        matrix: Whether the covariance is a full matrix along the directions.
        bounded: Whether to compute the bounded retention, too.
        effort: How much is drawn at first.
        accuracy: If given, draws are doubled until standard errors are below this share
            of the value, or 5e-4.
        fresh: Whether the noisy points come from fresh clean points, of which the training
            set knows nothing. Retention may then exceed 1 and need not fall with sigma.

    Raises:
        InputError: If an argument cannot be used.
        Inconclusive: If the identity fails, or the accuracy is not reached.

    Example:
        >>> from geomem.stats import Estimate
        >>> from geomem.theory.priors import Gaussian
        >>> prior = Gaussian([1.0, 1.0, 0.09, 0.09, 0.09, 0.09, 0.09])
        >>> p = planted_average(prior, 0.1**0.5, [50])
        >>> [Estimate(p.retention[0, k], p.retention_stderr[0, k]) for k in (0, 2)]
        [0.4973 ± 0.0056, 0.4348 ± 0.0056]
    """
    sigma, sizes = check_sigma(sigma), check_sizes(num_samples)
    u = prior.axes if directions is None else check_directions(directions, prior.ambient_dim)
    equal = _equal_axes(prior) if directions is None and not matrix else None
    for doubling in range(6):
        more = replace(effort, points=effort.points << doubling)
        average = _Average(prior, sigma, sizes.ravel(), u, more, matrix, bounded, equal, fresh)
        quenched, control = average.run()
        prediction = as_prediction(quenched, control, sigma, sizes.shape, "planted points")
        _check_identity(prediction)
        if accuracy is None or _reached(prediction, accuracy):
            return prediction
    raise Inconclusive(
        f"the average over planted points at sigma = {sigma:g} keeps an error above "
        f"{accuracy:.1%} after {more.points * more.replicates} points; ask for less accuracy"
    )


@dataclass(frozen=True)
class _Weighted:
    r"""Sums over weighted draws, not yet divided by the sum of the weights."""

    sums: Quenched
    control: Array
    weight: float


@dataclass(frozen=True)
class _Average:
    r"""One average over planted points: what is asked, and how much is drawn."""

    prior: GaussianMixture
    sigma: float
    sizes: Array
    directions: Array
    effort: Effort
    matrix: bool
    bounded: bool
    equal: Array | None
    fresh: bool

    def run(self) -> tuple[Quenched, Array]:
        r"""The averages with their errors, and the control."""
        rows = [self._replicate(k) for k in range(self.effort.replicates)]
        samples, controls = _normalised(rows)
        control = np.mean(controls, axis=0)
        total = np.mean([q.covariance for q in samples], axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(control != 0, total / control, 0.0)
        # Numerator and control fluctuate together: the error of the ratio is that of
        # covariance - ratio * control.
        pairs = zip(samples, controls, strict=True)
        return pool(
            [replace(q, covariance=q.covariance - ratio * (c - control)) for q, c in pairs]
        ), control

    def _replicate(self, index: int) -> _Weighted:
        x, x_weights, uniforms, y_weights = self._draws(index)
        rows = [self._point(*draw) for draw in zip(x, uniforms, y_weights, strict=True)]
        weight = x_weights * [row.weight for row in rows]
        q = _mean([row.sums for row in rows], x_weights)
        if self.equal is not None:
            coherence = None if q.coherence is None else q.coherence @ self.equal
            q = replace(q, covariance=q.covariance @ self.equal, coherence=coherence)
        control = np.tensordot(weight, [row.control for row in rows], axes=1) / len(x)
        return _Weighted(q, control, float(weight.mean()))

    def _draws(self, index: int) -> tuple[Array, Array, Array, Array]:
        seeds = np.random.SeedSequence([self.effort.seed, index]).spawn(2)
        n, k = self.effort.points, self.prior.num_uniforms
        u, u_weights = _far_too(_sobol(n, k, seeds[0]))
        v, v_weights = _far_too(_sobol(n * self.effort.sources, k, seeds[1]))
        x = self.prior.noisy(self.sigma, u)
        return x, u_weights, v.reshape(n, -1, k), v_weights.reshape(n, -1)

    def _point(self, x: Array, uniforms: Array, weights: Array) -> _Weighted:
        full = self.prior.control(x, self.sigma, self.directions)
        scale = wave_number(full) if self.bounded else None
        control = full if self.matrix else np.diag(full)
        if self.fresh:
            moments = self._moments(x, None, scale)
            return _Weighted(average_fresh(moments, self.sizes), control, 1.0)
        y = self.prior.behind(x, self.sigma, uniforms)
        energies = self.prior.source_energy(x, y, self.sigma)
        source = Source((y - x) @ self.directions.T / self.sigma, energies, scale)
        q = average_planted(self._moments(x, energies, scale), source, self.sizes)
        return _Weighted(_over_sources(q, weights), control, float(weights.mean()))

    def _moments(self, x: Array, energies: Array | None, scale: Array | None) -> Moments:
        largest, matrix = float(self.sizes.max()), self.matrix
        return point_moments(
            self.prior,
            x,
            self.sigma,
            self.directions,
            largest,
            energies,
            matrix=matrix,
            scale=scale,
        )


def _over_sources(q: Quenched, weights: Array) -> Quenched:
    # The defect of each source counts: over sources it could average out.
    defect = q.identity_defect.max(1)

    def mean(values: Array) -> Array:
        return np.asarray(np.moveaxis(values, 1, -1) @ weights / len(weights))

    participation = mean(q.participation)
    coherence = None if q.coherence is None else mean(q.coherence)
    pairs = (1 + defect) * weights.mean() - participation
    return Quenched(mean(q.covariance), participation, pairs, coherence)


def _mean(points: Sequence[Quenched], weights: Array) -> Quenched:
    def mean(name: str) -> Array:
        values = np.stack([getattr(q, name) for q in points])
        return np.asarray(np.tensordot(weights, values, axes=1) / len(weights))

    coherence = None if points[0].coherence is None else mean("coherence")
    return Quenched(mean("covariance"), mean("participation"), mean("pairs"), coherence)


def _normalised(rows: Sequence[_Weighted]) -> tuple[list[Quenched], list[Array]]:
    # Sums over sums of weights, over all replicates at once: within one the ratio would be
    # biased. Each replicate becomes its share of the common ratio, to first order.
    weights = np.array([row.weight for row in rows])
    total = weights.mean()

    def shares(values: Sequence[Array]) -> list[Array]:
        ratio = np.mean(values, axis=0) / total
        pairs = zip(values, weights, strict=True)
        return [(v - ratio * (w - total)) / total for v, w in pairs]

    covariance, participation, pairs = (
        shares([getattr(row.sums, name) for row in rows])
        for name in ("covariance", "participation", "pairs")
    )
    waves = [row.sums.coherence for row in rows if row.sums.coherence is not None]
    coherence: Sequence[Array | None] = shares(waves) if waves else [None] * len(rows)
    columns = zip(covariance, participation, pairs, coherence, strict=True)
    samples = [Quenched(*column) for column in columns]
    return samples, shares([row.control for row in rows])


def _far_too(uniforms: Array) -> tuple[Array, Array]:
    # Points far out and close in are rare and matter most (N = 10^4 in 8 dimensions: all of
    # the participation). The radius is drawn from u = (1 - cos πs) / 2 and weighted with
    # du/ds. In 40 repetitions z-scores then have deviations of .8 to 1.1; without it, up to 2.
    angle = np.pi * uniforms[:, 0]
    bent = np.concatenate([(1 - np.cos(angle))[:, None] / 2, uniforms[:, 1:]], axis=1)
    return bent, np.pi / 2 * np.sin(angle) + 1e-12


def _sobol(count: int, dim: int, seed: np.random.SeedSequence) -> Array:
    draws: Array = qmc.Sobol(dim, seed=np.random.default_rng(seed)).random(count)
    return draws


def _equal_axes(prior: GaussianMixture) -> Array | None:
    # Axes of equal variance are equal on average: their mean has the smaller error.
    if len(prior.components) > 1:
        return None
    v = prior.components[0].variances
    same = np.isclose(v[:, None], v, rtol=1e-9, atol=0) | np.eye(len(v), dtype=bool)
    share: Array = same / same.sum(0)
    return share


def _check_identity(prediction: Prediction) -> None:
    if not (prediction.identity_defect < TOLERANCE).all():
        raise Inconclusive(
            f"the average over planted points at sigma = {prediction.sigma:g} fails its identity "
            f"by {prediction.identity_defect.max():.1g}; no number is returned"
        )


def _reached(prediction: Prediction, accuracy: float) -> bool:
    pairs = (
        (prediction.retention, prediction.retention_stderr),
        (prediction.participation, prediction.participation_stderr),
    )
    return all(
        bool((stderr <= np.maximum(accuracy * np.abs(value), 5e-4))[np.isfinite(value)].all())
        for value, stderr in pairs
    )
