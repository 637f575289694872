r"""The population: what infinitely much data would give. **[known]**

On a linear manifold :math:`x_0 = F z` the covariance has the variances :math:`v_k = s_k^2`
along :math:`m` directions and zero along the others. At noise level :math:`\sigma`, with
:math:`t = \sigma^2`,

.. math:: \nabla_x D: \quad \frac{v_k}{v_k + t} \text{ and } 0 \, , \qquad
    |\nabla_x s|: \quad \frac{1}{t + v_k} \text{ and } \frac{1}{t} \, .

Direction k *opens* as t falls below :math:`v_k`. Between groups of variances a and b the
scaled gap :math:`t / (t + b) - t / (t + a)` is largest at :math:`t = \sqrt{a b}`.

*Dimension is information per e-fold of noise*: :math:`\sum_k v_k / (v_k + t) = -d I / d \ln
\sigma` for :math:`I(x_0; x_\sigma) = \frac12 \sum_k \ln(1 + v_k / t)` nats, and likewise for
any law (I-MMSE).

**Validity.** Exact for Gaussian data, mixtures by sampling. The edges of Marchenko and
Pastur hold for large matrices; for two groups of columns, see :func:`two_group_edges`.

References:
    | Spectral gaps of generative diffusion (Ventura et al., 2024), https://arxiv.org/abs/2410.05898
    | Mutual information and minimum mean-square error (Guo, Shamai & Verdú, 2005)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import qmc

from geomem.errors import InputError
from geomem.stats import Estimate
from geomem.theory.moments import Array
from geomem.theory.priors import GaussianMixture, check_sigma, check_variances, finite

Normalisation = Literal["dim", "ambient", "none"]


def jacobian_spectrum(variances: ArrayLike, sigma: float, ambient_dim: int) -> Array:
    r"""Eigenvalues of the denoiser Jacobian, from the largest to the smallest.

    Arguments:
        variances: The variances :math:`v_k`, with shape :math:`(m)`.
        sigma: The noise level.
        ambient_dim: The dimension :math:`d \geq m`.

    Returns:
        The eigenvalues, with shape :math:`(d)`.

    Example:
        >>> jacobian_spectrum([1.0, 0.25], 0.5, 3)
        array([0.8, 0.5, 0. ])
    """
    v = _padded(variances, ambient_dim)
    return v / (v + check_sigma(sigma) ** 2)


def score_spectrum(variances: ArrayLike, sigma: float, ambient_dim: int) -> Array:
    r"""Singular values of the score Jacobian, from the largest to the smallest.

    Example:
        >>> score_spectrum([1.0, 0.25], 0.5, 3)
        array([4. , 2. , 0.8])
    """
    return 1 / (check_sigma(sigma) ** 2 + _padded(variances, ambient_dim)[::-1])


def opening_sigmas(variances: ArrayLike) -> Array:
    r"""Levels at which each direction opens: its eigenvalue passes 1/2 at :math:`\sqrt{v_k}`."""
    return np.sqrt(check_variances(variances))


def largest_gap_level(high: float, low: float) -> float:
    r"""The :math:`t = \sigma^2` at which the gap between two groups is largest.

    .. math:: \arg \max_t \left[ \frac{t}{t + b} - \frac{t}{t + a} \right] = \sqrt{a b}

    Example:
        >>> round(largest_gap_level(1.0, 0.09), 6)
        0.3
    """
    a, b = check_variances([high, low])
    return math.sqrt(a * b)


def scaled_gap(high: float, low: float, sigma: float) -> float:
    r"""The gap :math:`t/(t+b) - t/(t+a)` between two groups of variances a > b."""
    t = check_sigma(sigma) ** 2
    a, b = check_variances([high, low])
    return float(t / (t + b) - t / (t + a))


def dimension(variances: ArrayLike, sigma: ArrayLike) -> Array:
    r"""Dimension :math:`\sum_k v_k / (v_k + \sigma^2)`, with the shape of sigma.

    Example:
        >>> float(dimension([1.0, 0.25], 0.5))
        1.3
    """
    v, t = check_variances(variances), _levels(sigma)[..., None] ** 2
    return np.asarray((v / (v + t)).sum(-1))


def information(variances: ArrayLike, sigma: ArrayLike) -> Array:
    r"""Information :math:`\frac12 \sum_k \ln(1 + v_k / \sigma^2)` in nats, shaped as sigma.

    Example:
        >>> float(information([3.0], 1.0).round(4)) == round(math.log(2), 4)
        True
    """
    v, t = check_variances(variances), _levels(sigma)[..., None] ** 2
    return np.asarray(np.log1p(v / t).sum(-1) / 2)


def factor_variances(factor: ArrayLike) -> Array:
    r"""Variances of :math:`x_0 = F z`: squared singular values, largest first."""
    F = finite(factor, "the factor")
    if F.ndim != 2:
        raise InputError(f"a factor is a matrix (d, m); got shape {F.shape}")
    return np.asarray(np.linalg.svd(F, compute_uv=False) ** 2)


def random_factor(
    ambient_dim: int,
    dim: int,
    rng: np.random.Generator,
    *,
    scale: float = 1.0,
    normalisation: Normalisation = "dim",
) -> Array:
    r"""Random F of shape :math:`(d, m)` with i.i.d. normal entries; see the edges below."""
    entry = _entry_variance(ambient_dim, dim, scale, normalisation)
    return math.sqrt(entry) * rng.standard_normal((ambient_dim, dim))


def marchenko_pastur_edges(
    ambient_dim: int, dim: int, *, scale: float = 1.0, normalisation: Normalisation = "dim"
) -> tuple[float, float]:
    r"""Edges of the variances of a random factor.

    ==============  =====================  ====================================
    normalisation   variance of entries    edges
    ==============  =====================  ====================================
    dim             :math:`s^2 / m`        :math:`s^2 (1 \pm \sqrt{d/m})^2`
    ambient         :math:`s^2 / d`        :math:`s^2 (1 \pm \sqrt{m/d})^2`
    none            :math:`s^2`            :math:`s^2 (\sqrt d \pm \sqrt m)^2`
    ==============  =====================  ====================================

    Example:
        >>> marchenko_pastur_edges(400, 100)
        (1.0, 9.0)
        >>> marchenko_pastur_edges(400, 100, normalisation="ambient")
        (0.25, 2.25)
    """
    entry = _entry_variance(ambient_dim, dim, scale, normalisation)
    roots = math.sqrt(ambient_dim), math.sqrt(dim)
    return entry * (roots[0] - roots[1]) ** 2, entry * (roots[0] + roots[1]) ** 2


def two_group_edges(
    ambient_dim: int, dims: tuple[int, int], scales: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    r"""Edges for two groups of columns in one F, entries of variance :math:`s^2 / m` each.

    The high group has its own edges; the low group is confined to what the high one leaves
    free, :math:`d \to d - m_{\mathrm{high}}`. Measured at d = 1000, 200 + 200, s = 1 and .3:
    low group [.092, .77]; this gives [.09, .81], its own edges would be [.138, .94].

    Example:
        >>> high, low = two_group_edges(1000, (200, 200), (1.0, 0.3))
        >>> [round(e, 2) for e in low]
        [0.09, 0.81]
    """
    high = marchenko_pastur_edges(ambient_dim, dims[0], scale=scales[0])
    low = marchenko_pastur_edges(ambient_dim - dims[0], dims[1], scale=scales[1])
    return high, low


def mixture_dimension(prior: GaussianMixture, sigma: float, *, seed: int = 0) -> Estimate:
    r"""Population dimension :math:`\mathbb{E} \, \mathrm{tr} \nabla_x D` of a mixture.

    Averaged over noisy points, 16 scramblings of 256 Sobol points; the spread is the error.

    Example:
        Two far clusters of dimension one each, and next to nothing between them.

        >>> prior = GaussianMixture([0.5, 0.5], [[-9.0], [9.0]], [[1.0], [1.0]])
        >>> mixture_dimension(prior, 0.1)
        0.990099 ± 0
    """
    sigma, u = check_sigma(sigma), np.eye(prior.ambient_dim)
    return _over_noisy(prior, sigma, seed, lambda x: float(np.trace(prior.control(x, sigma, u))))


def mixture_information(prior: GaussianMixture, sigma: float, *, seed: int = 0) -> Estimate:
    r"""Information :math:`I(x_0; x_\sigma)` of a mixture, in nats, with its sampling error.

    Example:
        >>> prior = GaussianMixture([0.5, 0.5], [[-9.0], [9.0]], [[1.0], [1.0]])
        >>> expected = math.log(2) + information([1.0], 0.1)
        >>> abs(mixture_information(prior, 0.1).z_score(float(expected))) < 4
        True
    """
    sigma = check_sigma(sigma)
    entropy_of_noise = prior.ambient_dim * math.log(2 * math.pi * math.e) / 2
    return _over_noisy(
        prior, sigma, seed, lambda x: -log_density(prior, x, sigma) - entropy_of_noise
    )


def log_density(prior: GaussianMixture, x: ArrayLike, sigma: float) -> float:
    r"""Log density of :math:`x = x_0 + \sigma z`, per unit of :math:`\sigma^d`.

    Arguments:
        prior: The law of :math:`x_0`.
        x: The noisy point, with shape :math:`(d)`.
        sigma: The noise level.
    """
    point, terms = finite(x, "x"), []
    for c in prior.components:
        offset = c.to_axes(point - c.mean)
        ratio = 1 + c.variances / sigma**2
        energy = (offset**2 / (sigma**2 * ratio)).sum()
        terms.append(c.log_weight - (np.log(2 * np.pi * ratio).sum() + energy) / 2)
    return float(logsumexp(terms))


def _over_noisy(
    prior: GaussianMixture, sigma: float, seed: int, function: Callable[[Array], float]
) -> Estimate:
    means = []
    for k in range(16):
        rng = np.random.default_rng(np.random.SeedSequence([seed, k]))
        u = qmc.Sobol(prior.num_uniforms, seed=rng).random(256)
        means.append(np.mean([function(x) for x in prior.noisy(sigma, u)]))
    return Estimate.of_mean(means)


def _entry_variance(
    ambient_dim: int, dim: int, scale: float, normalisation: Normalisation
) -> float:
    if min(ambient_dim, dim) < 1:
        raise InputError(f"dimensions are at least 1; got d = {ambient_dim}, m = {dim}")
    divisor = {"dim": dim, "ambient": ambient_dim, "none": 1}
    return scale**2 / divisor[normalisation]


def _padded(variances: ArrayLike, ambient_dim: int) -> Array:
    v = np.sort(check_variances(variances))[::-1]
    if ambient_dim < len(v):
        raise InputError(f"ambient_dim is {ambient_dim}, below the {len(v)} variances; raise it")
    return np.concatenate([v, np.zeros(ambient_dim - len(v))])


def _levels(sigma: ArrayLike) -> Array:
    levels = finite(sigma, "the noise levels")
    if (levels <= 0).any():
        raise InputError(f"the noise level is {levels.min():g}; pass sigma > 0")
    return levels
