r"""Where to put the abscissas :math:`\ell = \ln \lambda` of the integrals over training sets.

The integrands of :mod:`geomem.theory.moments` are analytic in :math:`\ell` and vanish at
both ends, so that the trapezoid rule converges exponentially: a Gumbel factor
:math:`e^{-e^\ell}` is analytic for :math:`|\mathrm{Im} \, \ell| < \pi/2`, hence an error of
:math:`e^{-\pi^2/h}`, 3e-9 for the step h = .5.

With a planted source everything varies on the scale 1. Without, the scale is that of
:math:`N (1 - \varphi)`, whose logarithm has the slope :math:`\theta` (the tilt at
:math:`\ell`), unless the energies themselves spread less: :math:`1 / \sqrt{\theta^2 +
1/(1 + \mathrm{Var}_\theta E)}`. At :math:`N = 2` and :math:`t = .001` the integrand is
thousands wide, and a few dozen abscissas suffice.

The ends come from Markov's bound, :math:`1 - e^{-x} \leq x^c` for :math:`0 < c \leq 1` and
:math:`x e^{-x} \leq C_c x^c` for :math:`c < 0`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import digamma, expit, logsumexp

from geomem.theory.contour import TiltedGaussian
from geomem.theory.moments import Array

STEP = 0.35
NEGLIGIBLE = np.log(1e-12)


def fresh_grid(components: Sequence[TiltedGaussian], largest: float) -> tuple[Array, Array]:
    r"""Abscissas and weights where no training point is special, good for all sizes."""
    low = _left_end(components, largest)
    # From here on N λψ_0 is negligible even at N = 2.
    tilt: Array = max(c.edge for c in components) * (1 - 0.5 ** np.arange(1.0, 30.0))
    bound = (1 - tilt) * (np.log1p(-tilt) - 1)
    high = float(((NEGLIGIBLE - bound - _total(components, tilt)) / tilt).min())
    # ℓ and 1/scale² along the saddles of each component, ℓ increasing
    saddles = []
    for c in components:
        tilt = c.edge + (1 - c.edge) * expit(np.linspace(9, -18, 300))
        mean, variance = c.energy(tilt)
        saddles.append((digamma(1 - tilt) + mean, tilt**2 + 4 / (4 + variance)))
    dense = np.unique(np.concatenate([levels for levels, _ in saddles] + [[low, high]]))
    dense = dense[(dense >= low) & (dense <= high)]
    density = np.sqrt(np.max([np.interp(dense, *saddle) for saddle in saddles], axis=0))
    pieces = np.diff(dense) * (density[1:] + density[:-1]) / 2
    travelled = np.concatenate([[0.0], np.cumsum(pieces)])
    map_ = CubicSpline(travelled, dense)
    count = int(travelled[-1] / STEP) + 2
    u = np.linspace(0, travelled[-1], count)
    return map_(u), map_(u, 1) * (u[1] - u[0])


def planted_grid(
    components: Sequence[TiltedGaussian], largest: float, energies: Array
) -> tuple[Array, Array]:
    r"""Abscissas and weights for sources of the given energies, all sizes up to ``largest``."""
    low = min(_left_end(components, largest), float(energies.min()) - 16)
    high = float(energies.max()) + 4
    count = int((high - low) / STEP) + 2
    nodes = np.linspace(low, high, count)
    return nodes, np.full(count, nodes[1] - nodes[0])


def _left_end(components: Sequence[TiltedGaussian], largest: float) -> float:
    # Below it N (1 - φ) is negligible.
    tilt = np.linspace(0.05, 1, 20)
    return float(((NEGLIGIBLE - np.log(largest) - _total(components, tilt)) / tilt).max())


def _total(components: Sequence[TiltedGaussian], tilt: Array) -> Array:
    total: Array = logsumexp([c.log_mgf(tilt) for c in components], axis=0)
    return total
