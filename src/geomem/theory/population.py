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
Pastur hold for large matrices; for two groups of columns, see :func:`marchenko_pastur_edges`.

References:
    | Spectral gaps of generative diffusion (Ventura et al., 2024), https://arxiv.org/abs/2410.05898
    | Mutual information and minimum mean-square error (Guo, Shamai & Verdú, 2005)
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from scipy.stats import qmc

from geomem.arguments import Number, Values, Whole, checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.stats import Estimate
from geomem.theory.moments import Array
from geomem.theory.priors import GaussianMixture, Sigma, Sigmas, check_variances

Normalisation = Literal["dim", "ambient", "none"]
Size = Annotated[int, Whole(least=1)]


@checked
def jacobian_spectrum(variances: ArrayLike, sigma: Sigma, ambient_dim: Size) -> Array:
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
    return v / (v + sigma**2)


@checked
def score_spectrum(variances: ArrayLike, sigma: Sigma, ambient_dim: Size) -> Array:
    r"""Singular values of the score Jacobian, from the largest to the smallest.

    Example:
        >>> score_spectrum([1.0, 0.25], 0.5, 3)
        array([4. , 2. , 0.8])
    """
    return 1 / (sigma**2 + _padded(variances, ambient_dim)[::-1])


@checked
def dimension(variances: ArrayLike, sigma: Sigmas) -> Array:
    r"""Dimension :math:`\sum_k v_k / (v_k + \sigma^2)`, with the shape of sigma.

    Example:
        >>> float(dimension([1.0, 0.25], 0.5))
        1.3
    """
    v, t = check_variances(variances), np.asarray(sigma, float)[..., None] ** 2
    return np.asarray((v / (v + t)).sum(-1))


@checked
def information(variances: ArrayLike, sigma: Sigmas) -> Array:
    r"""Information :math:`\frac12 \sum_k \ln(1 + v_k / \sigma^2)` in nats, shaped as sigma.

    Example:
        >>> float(information([3.0], 1.0).round(4)) == round(math.log(2), 4)
        True
    """
    v, t = check_variances(variances), np.asarray(sigma, float)[..., None] ** 2
    return np.asarray(np.log1p(v / t).sum(-1) / 2)


@checked
def random_factor(
    ambient_dim: Size,
    dim: Size,
    rng: np.random.Generator,
    *,
    scale: Annotated[float, Number(least=0)] = 1.0,
    normalisation: Normalisation = "dim",
) -> Array:
    r"""Random F of shape :math:`(d, m)` with i.i.d. normal entries; see the edges below."""
    Forecast(0, 16.0 * ambient_dim * dim).check_memory("pass a smaller `ambient_dim` or `dim`")
    divisor = {"dim": dim, "ambient": ambient_dim, "none": 1}[normalisation]
    return scale / math.sqrt(divisor) * rng.standard_normal((ambient_dim, dim))


@checked
def marchenko_pastur_edges(
    ambient_dim: Size,
    dim: Size,
    *,
    scale: Annotated[float, Number(least=0)] = 1.0,
    normalisation: Normalisation = "dim",
) -> tuple[float, float]:
    r"""Edges of the variances of a random factor.

    ==============  =====================  ====================================
    normalisation   variance of entries    edges
    ==============  =====================  ====================================
    dim             :math:`s^2 / m`        :math:`s^2 (1 \pm \sqrt{d/m})^2`
    ambient         :math:`s^2 / d`        :math:`s^2 (1 \pm \sqrt{m/d})^2`
    none            :math:`s^2`            :math:`s^2 (\sqrt d \pm \sqrt m)^2`
    ==============  =====================  ====================================

    Of two groups of columns in one F the low one is confined to what the high one leaves free,
    :math:`d \to d - m_{\mathrm{high}}`. Measured at d = 1000, 200 + 200, s = 1 and .3: low group
    [.092, .77]; (800, 200) gives [.09, .81], its own edges (1000, 200) would be [.138, .94].

    Example:
        >>> marchenko_pastur_edges(400, 100)
        (1.0, 9.0)
        >>> marchenko_pastur_edges(400, 100, normalisation="ambient")
        (0.25, 2.25)
    """
    divisor = {"dim": dim, "ambient": ambient_dim, "none": 1}[normalisation]
    entry = scale**2 / divisor
    roots = math.sqrt(ambient_dim), math.sqrt(dim)
    return entry * (roots[0] - roots[1]) ** 2, entry * (roots[0] + roots[1]) ** 2


@checked
def mixture_information(
    prior: GaussianMixture, sigma: Sigma, *, seed: Annotated[int, Whole(least=0)] = 0
) -> tuple[Estimate, Estimate]:
    r"""Information :math:`I(x_0; x_\sigma)` of a mixture, in nats, and its dimension.

    The dimension is :math:`\mathbb{E} \, \mathrm{tr} \nabla_x D`. Both are averaged over noisy
    points, 16 scramblings of 256 Sobol points; their spread is the error.

    Example:
        Two far clusters of dimension one each, and next to nothing between them.

        >>> prior = GaussianMixture([0.5, 0.5], [[-9.0], [9.0]], [[1.0], [1.0]])
        >>> nats, dim = mixture_information(prior, 0.1)
        >>> abs(nats.z_score(math.log(2) + float(information([1.0], 0.1)))) < 4, dim
        (True, 0.990099 ± 0)
    """
    d, means = prior.ambient_dim, []
    for k in range(16):
        rng = np.random.default_rng(np.random.SeedSequence([seed, k]))
        x = prior.noisy(sigma, qmc.Sobol(prior.num_uniforms, seed=rng).random(256))
        nats = [-log_density(prior, one, sigma) for one in x]
        trace = [np.trace(prior.control(one, sigma, np.eye(d))) for one in x]
        means.append((np.mean(nats), np.mean(trace)))
    entropy, dims = np.transpose(means)
    noise = d * math.log(2 * math.pi * math.e) / 2
    return Estimate.of_mean(entropy - noise), Estimate.of_mean(dims)


@checked
def log_density(
    prior: GaussianMixture, x: Annotated[ArrayLike, Values(shape="(d)")], sigma: Sigma
) -> float:
    r"""Log density of :math:`x = x_0 + \sigma z`, per unit of :math:`\sigma^d`.

    Arguments:
        prior: The law of :math:`x_0`.
        x: The noisy point, with shape :math:`(d)`.
        sigma: The noise level.
    """
    point, terms = np.asarray(x, float), []
    if len(point) != prior.ambient_dim:
        raise InputError(f"`x` has {len(point)} coordinates; the prior has {prior.ambient_dim}")
    for c in prior.components:
        offset = c.to_axes(point - c.mean)
        ratio = 1 + c.variances / sigma**2
        energy = (offset**2 / (sigma**2 * ratio)).sum()
        terms.append(c.log_weight - (np.log(2 * np.pi * ratio).sum() + energy) / 2)
    return float(logsumexp(terms))


def _padded(variances: ArrayLike, ambient_dim: int) -> Array:
    v = np.sort(check_variances(variances))[::-1]
    if ambient_dim < len(v):
        raise InputError(f"`ambient_dim` is {ambient_dim}, below the {len(v)} variances; raise it")
    Forecast(0, 16.0 * ambient_dim).check_memory("pass a smaller `ambient_dim`")
    return np.concatenate([v, np.zeros(ambient_dim - len(v))])
