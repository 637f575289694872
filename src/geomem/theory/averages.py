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
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import qmc

from geomem.arguments import Number, Whole, checked
from geomem.errors import Inconclusive
from geomem.theory.draws import Sampled, average_over_draws
from geomem.theory.finite_size import point_moments
from geomem.theory.moments import Array, Quenched, Source, average_fresh, average_planted, pool
from geomem.theory.prediction import Prediction, pooled_prediction, wave_number
from geomem.theory.priors import GaussianMixture, Sigma, Sizes, check_directions, check_sizes

REPLICATES = 16  # independent scramblings: the t-distribution of 15 is close to normal


@checked
@dataclass(frozen=True)
class Effort:
    r"""How much is drawn for an average over planted points.

    Attributes:
        points: Noisy points in each replicate, a power of two; four times as many of a prior
            that is only known by its draws.
        sources: Planted points behind each of them, a power of two; there one.
        replicates: Independent scramblings.
        seed: The seed of all of them.
    """

    points: Annotated[int, Whole(least=1)] = 8
    sources: Annotated[int, Whole(least=1)] = 16
    replicates: Annotated[int, Whole(least=2)] = REPLICATES
    seed: Annotated[int, Whole(least=0)] = 0


USUAL = Effort()


@checked
def planted_average(
    prior: GaussianMixture | Sampled,
    sigma: Sigma,
    num_samples: Sizes,
    *,
    directions: ArrayLike | None = None,
    matrix: bool = False,
    bounded: bool = False,
    effort: Effort = USUAL,
    accuracy: Annotated[float | None, Number(above=0)] = None,
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
    sizes = check_sizes(num_samples)
    u = prior.axes if directions is None else check_directions(directions, prior.ambient_dim)
    equal = None
    components = () if isinstance(prior, Sampled) else prior.components
    if directions is None and not matrix and len(components) == 1:
        # Axes of equal variance are equal on average: their mean has the smaller error.
        v = components[0].variances
        same = np.isclose(v[:, None], v, rtol=1e-9, atol=0) | np.eye(len(v), dtype=bool)
        equal = same / same.sum(0)
    for doubling in range(6):
        more = replace(effort, points=effort.points << doubling)
        if isinstance(prior, Sampled):
            samples, controls = _over_drawn(
                prior, sigma, sizes.ravel(), u, more, matrix, bounded, fresh
            )
        else:
            average = _Average(prior, sigma, sizes.ravel(), u, more, matrix, bounded, equal, fresh)
            samples, controls = average.run()
        p = pooled_prediction(samples, controls, sigma, sizes.shape, "planted points")
        pairs = ((p.retention, p.retention_stderr), (p.participation, p.participation_stderr))
        if accuracy is None or all(
            bool((e <= np.maximum(accuracy * np.abs(value), 5e-4))[np.isfinite(value)].all())
            for value, e in pairs
        ):
            return p
    raise Inconclusive(
        f"the average over planted points at sigma = {sigma:g} keeps an error above "
        f"{accuracy:.1%} after {more.points * more.replicates} points; ask for less accuracy"
    )


def _over_drawn(
    prior: Sampled,
    sigma: float,
    sizes: Array,
    u: Array,
    effort: Effort,
    matrix: bool,
    bounded: bool,
    fresh: bool,
) -> tuple[list[Quenched], list[Array]]:
    samples, controls = [], []
    for k in range(effort.replicates):
        draws = prior.draw(k, prior.num_draws)
        sources = prior.draw(k, 4 * effort.points, purpose=1 + effort.seed)
        rng = np.random.default_rng(np.random.SeedSequence([prior.seed, 2, k, effort.seed]))
        noisy = sources + sigma * rng.standard_normal(sources.shape)
        each = [
            average_over_draws(
                draws, x, None if fresh else y, sigma, sizes, u, matrix=matrix, bounded=bounded
            )
            for x, y in zip(noisy, sources, strict=True)
        ]
        samples.append(replace(pool([q for q, _ in each]), errors=None))
        controls.append(np.mean([c for _, c in each], axis=0))
    return samples, controls


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

    def run(self) -> tuple[list[Quenched], list[Array]]:
        r"""Averages and controls of all replicates."""
        return _normalised([self._replicate(k) for k in range(self.effort.replicates)])

    def _replicate(self, index: int) -> _Weighted:
        seeds = np.random.SeedSequence([self.effort.seed, index]).spawn(2)
        n, k = self.effort.points, self.prior.num_uniforms
        u, x_weights = _far_too(n, k, seeds[0])
        v, v_weights = _far_too(n * self.effort.sources, k, seeds[1])
        x = self.prior.noisy(self.sigma, u)
        uniforms, y_weights = v.reshape(n, -1, k), v_weights.reshape(n, -1)
        rows = [self._point(*draw) for draw in zip(x, uniforms, y_weights, strict=True)]
        weight = x_weights * [row.weight for row in rows]
        q = _mean([row.sums for row in rows], x_weights)
        if self.equal is not None:
            coherence = None if q.coherence is None else q.coherence @ self.equal
            q = replace(q, covariance=q.covariance @ self.equal, coherence=coherence)
        control = np.tensordot(weight, [row.control for row in rows], axes=1) / len(x)
        return _Weighted(q, control, float(weight.mean()))

    def _point(self, x: Array, uniforms: Array, weights: Array) -> _Weighted:
        full = self.prior.control(x, self.sigma, self.directions)
        scale = wave_number(full) if self.bounded else None
        control = full if self.matrix else np.diag(full)
        y, energies = None, None
        if not self.fresh:
            y = self.prior.behind(x, self.sigma, uniforms)
            energies = self.prior.source_energy(x, y, self.sigma)
        moments = point_moments(
            self.prior,
            x,
            self.sigma,
            self.directions,
            float(self.sizes.max()),
            energies,
            matrix=self.matrix,
            scale=scale,
        )
        if y is None or energies is None:
            return _Weighted(average_fresh(moments, self.sizes), control, 1.0)
        source = Source((y - x) @ self.directions.T / self.sigma, energies, scale)
        q = average_planted(moments, source, self.sizes)
        return _Weighted(_over_sources(q, weights), control, float(weights.mean()))


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


def _far_too(count: int, dim: int, seed: np.random.SeedSequence) -> tuple[Array, Array]:
    # Sobol points with their weights. Points far out and close in are rare and matter most (N =
    # 10^4 in 8 dimensions: all of the participation). The radius is drawn from u = (1 - cos πs)
    # / 2 and weighted with du/ds. In 40 repetitions z-scores then have deviations of .8 to 1.1;
    # without it, up to 2.
    uniforms = qmc.Sobol(dim, seed=np.random.default_rng(seed)).random(count)
    angle = np.pi * uniforms[:, 0]
    bent = np.concatenate([(1 - np.cos(angle))[:, None] / 2, uniforms[:, 1:]], axis=1)
    return bent, np.pi / 2 * np.sin(angle) + 1e-12
