r"""Critical sizes and critical noise levels, from averages over planted points. **[ours]**

They exist because retention averaged over planted points grows with N from 0 to 1
(:mod:`geomem.theory.averages`). Means at a fresh point or at the centre need not, and no
critical value is read from these.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from geomem.arguments import Number, checked
from geomem.stats import Estimate
from geomem.theory.averages import USUAL, Effort, planted_average
from geomem.theory.moments import Array
from geomem.theory.priors import GaussianMixture, Sigma, Sigmas

LARGEST = 1e12
Share = Annotated[float, Number(above=0, below=1)]


@checked
def critical_sizes(
    prior: GaussianMixture,
    sigma: Sigma,
    *,
    level: Share = 0.5,
    directions: ArrayLike | None = None,
    effort: Effort = USUAL,
) -> list[Estimate | None]:
    r"""The size :math:`N_u(\sigma)` at which each direction is kept to a level.

    Arguments:
        prior: The law of the clean points.
        sigma: The noise level.
        level: The retention asked for.
        directions: Unit directions as rows, with shape :math:`(K, d)`.
        effort: How much is drawn.

    Returns:
        For each direction :math:`\ln N_u` and its standard error; None where
        :math:`N_u` is not between 2 and :math:`10^{12}`, or the population keeps nothing.

    Example:
        >>> from geomem.theory.priors import Gaussian
        >>> high, low = critical_sizes(Gaussian([1.0, 0.09]), 0.1)
        >>> round(math.exp(high.value)), round(math.exp(low.value))
        (31, 33)
    """
    log_sizes = np.linspace(math.log(2), math.log(LARGEST), 81)
    p = planted_average(prior, sigma, np.exp(log_sizes), directions=directions, effort=effort)
    columns = zip(p.retention.T, p.retention_stderr.T, strict=True)
    return [_crossing(log_sizes, r, e, level) for r, e in columns]


@checked
def critical_sigma(
    sigmas: Sigmas, retention: ArrayLike, stderr: ArrayLike, level: Share = 0.5
) -> Estimate | None:
    r"""The level :math:`\sigma_u(N)` at which a retention over noise levels crosses a value.

    Arguments:
        sigmas: Increasing noise levels, with shape :math:`(T)`.
        retention: The retention, with shape :math:`(T)`.
        stderr: Its standard error, with shape :math:`(T)`.
        level: The retention asked for.

    Returns:
        :math:`\ln \sigma_u` and its standard error, or None if it is not in the range.
    """
    return _crossing(
        np.log(np.asarray(sigmas, float)),
        np.asarray(retention, float),
        np.asarray(stderr, float),
        level,
    )


def _crossing(at: Array, values: Array, errors: Array, level: float) -> Estimate | None:
    known = np.isfinite(values)
    at, values, errors = at[known], values[known], errors[known]
    if len(at) < 2 or not values[0] < level < values[-1]:
        return None
    curve = PchipInterpolator(at, np.maximum.accumulate(values) + 1e-12 * np.arange(len(at)))
    roots = curve.solve(level, extrapolate=False)
    slope, error = float(curve(roots[0], 1)), float(np.interp(roots[0], at, errors))
    return Estimate(float(roots[0]), error / slope if slope > 0 else math.inf)
