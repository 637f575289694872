r"""Any other prior, by draws from it. **[ours]**

The moments of :mod:`geomem.theory.moments` are then means over :math:`S` draws, exact for
training points drawn *with replacement* from these. That stands for the prior as long as
the set is small against the draws; here :math:`N \leq S / 10` is required. Scrambled Sobol
draws repeated with independent scramblings give the standard error. The identity holds for
any set of draws, so it checks the quadrature and not the draws: the spread does.

Where the posterior needs points closer than the draws lie (small :math:`\sigma`, large
:math:`m`), their spread grows and says so; use a Gaussian or a mixture there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import qmc

from geomem.errors import Inconclusive, InputError
from geomem.theory.finite_size import TOLERANCE, Prediction, as_prediction, wave_number
from geomem.theory.moments import (
    Array,
    Moments,
    Quenched,
    Source,
    average_fresh,
    average_planted,
    pool,
)
from geomem.theory.priors import check_directions, check_sigma, check_sizes, finite

MARGIN = 25.0


@dataclass(frozen=True)
class Sampled:
    r"""A prior known by how uniform numbers become its points.

    Attributes:
        transform: Maps uniforms of shape :math:`(S, k)` to points of shape :math:`(S, d)`.
        num_uniforms: The number :math:`k` of uniforms that a point takes.
        ambient_dim: The dimension :math:`d`.
        num_draws: The number :math:`S` of draws in each replicate, a power of two.
        replicates: The number of independent scramblings.
        seed: Their seed.

    Example:
        Two points: at equal distance, half of the sets of two hold both.

        >>> coin = Sampled(lambda u: np.where(u < 0.5, -1.0, 1.0), 1, 1)
        >>> p = predict_sampled(coin, [0.0], 0.5, [2])
        >>> p.retention.round(6), p.participation.round(6)
        (array([[0.5]]), array([0.5]))
    """

    transform: Callable[[Array], Array]
    num_uniforms: int
    ambient_dim: int
    num_draws: int = 8192
    replicates: int = 16
    seed: int = 0

    def draw(self, replicate: int, count: int, purpose: int = 0) -> Array:
        r"""Points of one replicate, with shape :math:`(count, d)`."""
        seed = np.random.SeedSequence([self.seed, purpose, replicate])
        sobol = qmc.Sobol(self.num_uniforms, seed=np.random.default_rng(seed))
        return finite(self.transform(sobol.random(count)), "the draws of the prior")


def predict_sampled(
    prior: Sampled,
    x: ArrayLike,
    sigma: float,
    num_samples: ArrayLike,
    *,
    planted: ArrayLike | None = None,
    directions: ArrayLike | None = None,
    matrix: bool = False,
    bounded: bool = False,
) -> Prediction:
    r"""What N points of a sampled prior keep, seen from one noisy point.

    Arguments and result as in :func:`geomem.theory.finite_size.predict`.

    Raises:
        InputError: If an argument cannot be used, or N exceeds a tenth of the draws.
        Inconclusive: If the identity fails.
    """
    sigma, sizes, u = _checked(prior, sigma, num_samples, directions)
    x = finite(x, "x")
    y = None if planted is None else finite(planted, "planted")[None]
    results = []
    for k in range(prior.replicates):
        points = prior.draw(k, prior.num_draws)
        results.append(_one(points, x, y, sigma, sizes.ravel(), u, matrix, bounded))
    return _pooled(results, sigma, sizes.shape)


def planted_average_sampled(
    prior: Sampled,
    sigma: float,
    num_samples: ArrayLike,
    *,
    directions: ArrayLike | None = None,
    matrix: bool = False,
    bounded: bool = False,
    points: int = 32,
) -> Prediction:
    r"""The same averaged over training points and their noise; ``points`` in each replicate."""
    sigma, sizes, u = _checked(prior, sigma, num_samples, directions)
    results = []
    for k in range(prior.replicates):
        sources, draws = prior.draw(k, points, purpose=1), prior.draw(k, prior.num_draws)
        rng = np.random.default_rng(np.random.SeedSequence([prior.seed, 2, k]))
        noisy = sources + sigma * rng.standard_normal(sources.shape)
        single = [
            _one(draws, x, y[None], sigma, sizes.ravel(), u, matrix, bounded)
            for x, y in zip(noisy, sources, strict=True)
        ]
        control = np.mean([c for _, c in single], axis=0)
        results.append((replace(pool([q for q, _ in single]), errors=None), control))
    return _pooled(results, sigma, sizes.shape)


def _checked(
    prior: Sampled, sigma: float, num_samples: ArrayLike, directions: ArrayLike | None
) -> tuple[float, Array, Array]:
    sizes = check_sizes(num_samples)
    if sizes.max() > prior.num_draws / 10:
        raise InputError(
            f"N = {sizes.max():g} needs at least {10 * sizes.max():g} draws; raise num_draws"
        )
    d = prior.ambient_dim
    u = np.eye(d) if directions is None else check_directions(directions, d)
    return check_sigma(sigma), sizes, u


def _one(
    points: Array,
    x: Array,
    y: Array | None,
    sigma: float,
    sizes: Array,
    u: Array,
    matrix: bool,
    bounded: bool,
) -> tuple[Quenched, Array]:
    offsets = (points - x) / sigma
    energy = (offsets**2).sum(1) / 2
    floor = energy.min()  # a common factor of all weights
    places, full = offsets @ u.T, None
    full = _population(energy - floor, places)
    scale = wave_number(full) if bounded else None
    control = full if matrix else np.diag(full)
    if y is None:
        grid = _grid(energy - floor, float(sizes.max()), None)
        return average_fresh(
            draw_moments(energy - floor, places, *grid, matrix=matrix, scale=scale), sizes
        ), control
    planted = ((y - x) / sigma) ** 2
    energies = planted.sum(1) / 2 - floor
    grid = _grid(energy - floor, float(sizes.max()), energies)
    moments = draw_moments(energy - floor, places, *grid, matrix=matrix, scale=scale)
    q = average_planted(moments, Source((y - x) @ u.T / sigma, energies, scale), sizes)
    coherence = None if q.coherence is None else q.coherence[:, 0]
    return Quenched(q.covariance[:, 0], q.participation[:, 0], q.pairs[:, 0], coherence), control


def draw_moments(
    energy: Array,
    places: Array,
    log_lambda: Array,
    weights: Array,
    *,
    matrix: bool = False,
    scale: Array | None = None,
) -> Moments:
    r"""Moments over draws.

    Arguments:
        energy: The energies in units of :math:`\sigma^2`, with shape :math:`(S)`.
        places: :math:`u \cdot (y - x) / \sigma`, with shape :math:`(S, K)`.
        log_lambda: The abscissas, with shape :math:`(L)`.
        weights: Their quadrature weights, with shape :math:`(L)`.
        matrix: Whether second moments are full matrices.
        scale: :math:`\kappa` of the bounded retention, with shape :math:`(K)`.
    """
    b = np.exp(log_lambda[:, None] - energy)
    survive = np.exp(-b)
    kernel = b * survive / len(energy)
    pairs = places[:, :, None] * places[:, None, :] if matrix else places**2
    wave = None if scale is None else kernel @ np.exp(1j * scale * places)
    return Moments(
        log_lambda,
        weights,
        survive.mean(1),
        -np.expm1(-b).mean(1),
        kernel.sum(1),
        kernel @ places,
        np.tensordot(kernel, pairs, axes=1),
        (b * kernel).sum(1),
        wave,
    )


def _population(energy: Array, places: Array) -> Array:
    w = np.exp(-energy)
    w = w / w.sum()
    centred = places - w @ places
    return np.asarray((w[:, None] * centred).T @ centred)


def _grid(energy: Array, largest: float, planted: Array | None) -> tuple[Array, Array]:
    # From where N (1 - φ) vanishes to where the source, or all points, have been met.
    low = -np.log(largest) - MARGIN
    high = float(energy.max()) + 4
    if planted is not None:
        low, high = min(low, float(planted.min()) - 16), float(planted.max()) + 4
    count = int((high - low) / 0.5) + 2
    nodes = np.linspace(low, high, count)
    return nodes, np.full(count, nodes[1] - nodes[0])


def _pooled(
    results: list[tuple[Quenched, Array]], sigma: float, shape: tuple[int, ...]
) -> Prediction:
    control = np.mean([c for _, c in results], axis=0)
    total = np.mean([q.covariance for q, _ in results], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(control != 0, total / control, 0.0)
    quenched = pool(
        [replace(q, covariance=q.covariance - ratio * (c - control)) for q, c in results]
    )
    prediction = as_prediction(quenched, control, sigma, shape, "draws of the prior")
    if not (prediction.identity_defect < TOLERANCE).all():
        raise Inconclusive(
            f"the average at sigma = {sigma:g} fails its identity by "
            f"{prediction.identity_defect.max():.1g}; no number is returned"
        )
    return prediction
