r"""Collapse: the noise level at which the posterior picks one training point. **[known]**

A noisy point tells :math:`e^I` clean points apart. Once that exceeds the size of the
training set one of them is picked:

.. math:: \ln N = I(x_0; x_\sigma) \, , \qquad
    I = \tfrac12 \sum_k \ln(1 + v_k / t) \text{ for a Gaussian.}

For equal variances :math:`t_C = s^2 / (N^{2/m} - 1)`. For any prior the same holds with the
information density :math:`i(x_0; x) = \ln p(x | x_0) / p(x)` at a typical pair.

**Validity.** Sharp for :math:`m \to \infty` at fixed :math:`\ln N / m`; at finite size a
crossover. **How far off it is.** At planted points the median number of effective points at
:math:`\sigma_C` is 1.5 to 2.1 for N = 10^2, 10^3, 10^4 and seven spectra of m = 1 to 50; at
fresh points it is 1.1 to 6.6.

References:
    | Dynamical Regimes of Diffusion Models (Biroli et al., 2024), https://arxiv.org/abs/2402.18491
    | Losing dimensions under the manifold hypothesis, https://arxiv.org/abs/2502.09578
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from geomem.arguments import Number, Values, checked
from geomem.errors import Inconclusive
from geomem.theory.population import log_density
from geomem.theory.priors import GaussianMixture, Sigma, check_variances


@checked
def collapse_sigma(
    law: ArrayLike | Callable[[float], float],
    num_samples: Annotated[float, Number(least=2, most=1e300)],
) -> float:
    r"""The level :math:`\sigma_C` at which the information of a law passes :math:`\ln N`.

    Arguments:
        law: The variances of a Gaussian, with shape :math:`(m)`; or any falling information
            :math:`I(x_0; x_\sigma)` in nats, or information density, as a function of the level.
        num_samples: The size N.

    Raises:
        InputError: If N < 2: a single point is picked at any level.
        Inconclusive: If the information never reaches :math:`\ln N`, as that of a law on
            fewer than N points.

    Example:
        >>> [round(collapse_sigma([1.0] * 8, N), 3) for N in (10**2, 10**4, 10**6)]
        [0.68, 0.333, 0.181]
    """
    nats: Callable[[float], float]
    if callable(law):
        nats = law
    else:
        v = check_variances(law)
        nats = lambda sigma: float(np.log1p(v / sigma**2).sum() / 2)  # noqa: E731
    target = math.log(num_samples)

    def excess(log_sigma: float) -> float:
        return nats(math.exp(log_sigma)) - target

    low, high = -60.0, 60.0
    if excess(low) < 0 or excess(high) > 0:
        raise Inconclusive(
            f"the information does not pass ln N = {target:.3g} at any noise level; "
            "a law on finitely many points never tells more than their number apart"
        )
    return math.exp(brentq(excess, low, high, xtol=1e-12))


@checked
def information_density(
    prior: GaussianMixture,
    x_0: Annotated[ArrayLike, Values(shape="(d)")],
    x: Annotated[ArrayLike, Values(shape="(d)")],
    sigma: Sigma,
) -> float:
    r"""Information density :math:`\ln p(x | x_0) / p(x)` of one pair, in nats.

    Its mean over pairs is :math:`I(x_0; x_\sigma)`; its spread says how sharp the collapse
    is.

    Example:
        >>> from geomem.theory.priors import Gaussian
        >>> prior = Gaussian([3.0])
        >>> round(information_density(prior, [0.0], [0.0], 1.0), 4) == round(math.log(2), 4)
        True
    """
    clean, noisy = np.asarray(x_0, float), np.asarray(x, float)
    energy = ((noisy - clean) ** 2).sum() / sigma**2
    given = -(len(clean) * math.log(2 * math.pi) + energy) / 2
    return float(given - log_density(prior, noisy, sigma))
