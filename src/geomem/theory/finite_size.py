r"""Exact theory of the empirical denoiser at finite size: any N, any dimension. **[ours]**

The exact denoiser of :math:`N` training points has the Jacobian :math:`\mathrm{Cov}_w /
\sigma^2`. Averaged over training sets it is a one-dimensional integral
(:mod:`geomem.theory.moments`), and what is left of direction :math:`u` is its *retention*

.. math:: r_u(\sigma; N) = \frac{\mathbb{E}[u^\top \mathrm{Cov}_w u]}
    {u^\top \mathrm{Cov}_{\mathrm{pop}} \, u} \, ,

1 where the set is as good as infinite data, 0 where the direction is lost. The *missing
dimension* is :math:`\delta_u = u^\top (\mathrm{Cov}_{\mathrm{pop}} - \mathbb{E} \,
\mathrm{Cov}_w) u / \sigma^2`.

*Do not define a critical size by the mean at a fresh point or at the centre.* It is the
derivative of :math:`\mathbb{E}[D]`, so rare training sets with :math:`x` on a border
between two of their points keep it up as :math:`\sigma \to 0` (one x, t = .005: mean .93,
median .006). The *bounded retention* :math:`b_u = (1 - C) / (1 - e^{-1})`, with
:math:`C = \mathbb{E} |\sum_i w_i e^{i \kappa u \cdot y_i}|^2` and :math:`\kappa` one over
the population's posterior deviation, goes to 0 for every kind of point.

**How far off it is.** The identity :math:`\mathbb{E} \sum_i w_i^2 + \mathbb{E} \sum_{i \neq
j} w_i w_j = 1` is computed with every result. Measured for m = 1 to 1000, N = 2 to 10^12,
t = 10^-4 to 10^4: within 3e-5 in 378 planted cases, within 4e-5 in 72 fresh ones. Where it
fails 1e-3, small sets are simulated instead, and otherwise nothing is returned.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from geomem.arguments import Values, check, checked
from geomem.theory.contour import contour_moments
from geomem.theory.draws import Sampled, average_over_draws
from geomem.theory.grid import fresh_grid, planted_grid
from geomem.theory.moments import Array, Moments, average_point
from geomem.theory.prediction import (
    TOLERANCE,
    Prediction,
    as_prediction,
    pooled_prediction,
    wave_number,
)
from geomem.theory.priors import GaussianMixture, Sigma, Sizes, check_directions, check_sizes
from geomem.theory.simulate import simulate


@checked
def predict(
    prior: GaussianMixture | Sampled,
    x: ArrayLike,
    sigma: Sigma,
    num_samples: Sizes,
    *,
    planted: ArrayLike | None = None,
    directions: ArrayLike | None = None,
    matrix: bool = False,
    bounded: bool = False,
) -> Prediction:
    r"""What N points keep, seen from one noisy point.

    Arguments:
        prior: The law of the clean points: a Gaussian, a mixture, or any that can be drawn from.
        x: The noisy point, with shape :math:`(d)`; for the centre pass ``prior.mean``.
        sigma: The noise level.
        num_samples: The sizes :math:`N`, up to 10^12, with any shape.
        planted: The training point :math:`y_1` behind x, with shape :math:`(d)`, if any.
        directions: Unit directions as rows, with shape :math:`(K, d)`; by default the
            principal axes of the prior.
        matrix: Whether the covariance is a full matrix along the directions.
        bounded: Whether to compute the bounded retention, too.

    Raises:
        InputError: If an argument cannot be used, or N exceeds a tenth of a prior's draws.
        Inconclusive: If no method reaches its accuracy.

    Example:
        One point keeps nothing, and so many are as good as the population.

        >>> from geomem.theory.priors import Gaussian
        >>> prior = Gaussian([1.0, 0.09])
        >>> predict(prior, [1.0, 0.3], 0.3, [1, 100, 1e12]).retention.round(3)
        array([[0.   , 0.   ],
               [0.995, 0.975],
               [1.   , 1.   ]])
    """
    shape, sizes = check_sizes(num_samples).shape, check_sizes(num_samples).ravel()
    place = Annotated[ArrayLike, Values(shape=f"({prior.ambient_dim})", least=-1e30, most=1e30)]
    x = np.asarray(check("x", x, place))
    y = None if planted is None else np.asarray(check("planted", planted, place))
    u = prior.axes if directions is None else check_directions(directions, prior.ambient_dim)
    if isinstance(prior, Sampled):
        draws = (prior.draw(k, prior.num_draws) for k in range(prior.replicates))
        rows = [
            average_over_draws(points, x, y, sigma, sizes, u, matrix=matrix, bounded=bounded)
            for points in draws
        ]
        samples, controls = zip(*rows, strict=True)
        return pooled_prediction(samples, controls, sigma, shape, "draws of the prior")
    full, route = prior.control(x, sigma, u), "contour"
    scale = wave_number(full) if bounded else None
    energy = None if y is None else prior.source_energy(x, y[None], sigma)
    with np.errstate(over="ignore", invalid="ignore"):
        moments = point_moments(
            prior, x, sigma, u, float(sizes.max()), energy, matrix=matrix, scale=scale
        )
        source = None
        if y is not None and energy is not None:
            source = (u @ (y - x) / sigma, float(energy[0]))
        quenched = average_point(moments, source, sizes, scale)
    if not (quenched.identity_defect < TOLERANCE).all():
        quenched = simulate(prior, x, y, sigma, sizes, u, matrix=matrix, scale=scale)
        route = "simulation"
    control = full if matrix else np.diag(full)
    return as_prediction(quenched, control, sigma, shape, route)


def point_moments(
    prior: GaussianMixture,
    x: Array,
    sigma: float,
    directions: Array,
    largest: float,
    energies: Array | None,
    *,
    matrix: bool = False,
    scale: Array | None = None,
) -> Moments:
    r"""Moments at one noisy point, on a grid good for all sizes up to the largest."""
    seen = prior.seen_from(x, sigma, directions)
    at = fresh_grid(seen, largest) if energies is None else planted_grid(seen, largest, energies)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the identity sees it
        return reduce(add, [contour_moments(c, *at, matrix=matrix, scale=scale) for c in seen])
