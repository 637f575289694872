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
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import digamma, expit, logsumexp

from geomem.theory.moments import Array

STEP = 0.35
NEGLIGIBLE = np.log(1e-12)


class Tilted(Protocol):
    r"""What the grid must know of a component of the prior."""

    @property
    def edge(self) -> float: ...

    def log_mgf(self, theta: NDArray[Any]) -> NDArray[Any]: ...

    def energy(self, tilt: Array) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class Grid:
    r"""Abscissas and weights of a quadrature over :math:`\ell`, with shape :math:`(L)`."""

    log_lambda: Array
    weights: Array


def fresh_grid(components: Sequence[Tilted], largest: float) -> Grid:
    r"""Grid where no training point is special, good for all sizes from 2 to ``largest``."""
    low, high = left_end(components, largest), right_end(components)
    dense = np.unique(np.concatenate([_levels(c)[0] for c in components] + [[low, high]]))
    dense = dense[(dense >= low) & (dense <= high)]
    travelled = _cumulative(dense, 1 / _scale(components, dense))
    map_ = CubicSpline(travelled, dense)
    count = int(travelled[-1] / STEP) + 2
    u = np.linspace(0, travelled[-1], count)
    return Grid(map_(u), map_(u, 1) * (u[1] - u[0]))


def planted_grid(components: Sequence[Tilted], largest: float, energies: Array) -> Grid:
    r"""Grid for sources of the given energies, good for all sizes up to ``largest``."""
    low = min(left_end(components, largest), float(energies.min()) - 16)
    high = float(energies.max()) + 4
    count = int((high - low) / STEP) + 2
    nodes = np.linspace(low, high, count)
    return Grid(nodes, np.full(count, nodes[1] - nodes[0]))


def left_end(components: Sequence[Tilted], largest: float) -> float:
    r"""Below it :math:`N (1 - \varphi)` is negligible."""
    tilt = np.linspace(0.05, 1, 20)
    return float(((NEGLIGIBLE - np.log(largest) - _total(components, tilt)) / tilt).max())


def right_end(components: Sequence[Tilted]) -> float:
    r"""Above it :math:`N \lambda \psi_0` is negligible even at :math:`N = 2`."""
    tilt: Array = max(c.edge for c in components) * (1 - 0.5 ** np.arange(1.0, 30.0))
    bound = (1 - tilt) * (np.log1p(-tilt) - 1)
    return float(((NEGLIGIBLE - bound - _total(components, tilt)) / tilt).min())


def _total(components: Sequence[Tilted], tilt: Array) -> Array:
    total: Array = logsumexp([c.log_mgf(tilt) for c in components], axis=0)
    return total


def _levels(component: Tilted) -> tuple[Array, Array]:
    # ℓ and 1/scale² along the saddles of one component, ℓ increasing
    tilt = component.edge + (1 - component.edge) * expit(np.linspace(9, -18, 300))
    mean, variance = component.energy(tilt)
    return digamma(1 - tilt) + mean, tilt**2 + 4 / (4 + variance)


def _scale(components: Sequence[Tilted], log_lambda: Array) -> Array:
    rates = [np.interp(log_lambda, *_levels(c)) for c in components]
    scale: Array = 1 / np.sqrt(np.max(rates, axis=0))
    return scale


def _cumulative(x: Array, density: Array) -> Array:
    pieces = np.diff(x) * (density[1:] + density[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(pieces)])
