r"""Averages over training sets as integrals over one variable. **[ours]**

For a noisy point :math:`x` and a clean point :math:`y` of the prior, let
:math:`e = \exp(-\|x - y\|^2 / 2t)`. The exact denoiser of :math:`N` points divides by
:math:`Z = \sum_i e_i`, and :math:`Z^{-p} = \int \lambda^{p-1} e^{-\lambda Z} d\lambda /
\Gamma(p)` turns the quotient into a product of independent factors. With

.. math::
    \varphi = \mathbb{E}[e^{-\lambda e}] \, , \quad
    \psi_0 = \mathbb{E}[e \, e^{-\lambda e}] \, , \quad
    \psi_1 = \mathbb{E}[y \, e \, e^{-\lambda e}] \, , \quad
    \Psi_2 = \mathbb{E}[y y^\top e \, e^{-\lambda e}] \, , \quad
    q = \mathbb{E}[e^2 e^{-\lambda e}]

the averages over training sets of :math:`N` independent points are

.. math::
    \mathbb{E} \textstyle\sum_i w_i^2 &= N \int \lambda \varphi^{N-1} q \, d\lambda \\
    \mathbb{E} \, \mathrm{Cov}_w &= N (N-1) \int \lambda \varphi^{N-2}
        (\psi_0 \Psi_2 - \psi_1 \psi_1^\top) \, d\lambda

and, with :math:`n = N - 1` and a training point :math:`y_1` planted, where
:math:`b = \lambda e_1`,

.. math::
    \mathbb{E} \textstyle\sum_i w_i^2 &= n \int \lambda e^{-b} \varphi^{n-1} q \, d\lambda
        + \int \lambda e_1^2 e^{-b} \varphi^n d\lambda \\
    \mathbb{E} \, \mathrm{Cov}_w &= n (n-1) \int \lambda e^{-b} \varphi^{n-2}
        (\psi_0 \Psi_2 - \psi_1 \psi_1^\top) \, d\lambda
        + n \int \lambda e_1 e^{-b} \varphi^{n-1} \,
        \mathbb{E}[(y - y_1)(y - y_1)^\top e \, e^{-\lambda e}] \, d\lambda \, .

Nothing is asymptotic: :math:`N`, the dimension and the prior are arbitrary. The same
integrals with :math:`\psi_0^2` (:math:`2 \psi_0`) for the bracket give
:math:`\mathbb{E} \sum_{i \neq j} w_i w_j`, and :math:`(\sum w)^2 = 1` is the error bar:
it is always computed. With :math:`|\psi_\kappa|^2` they give the bounded retention.

Here :math:`\lambda = e^\ell`, every moment carries its powers of :math:`\lambda`, lengths
are in units of the noise (:math:`\sigma = 1`), and :math:`y` is measured from :math:`x`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# log(phi) is cut here: exp(-800) is zero, while 0 * inf would not be (N = 2).
FLOOR = -800.0


@dataclass(frozen=True)
class Moments:
    r"""The moments of one clean point, seen from one noisy point.

    Attributes:
        log_lambda: The abscissas :math:`\ell`, with shape :math:`(L)`.
        weights: The quadrature weights :math:`d\ell`, with shape :math:`(L)`.
        phi: :math:`\varphi`, with shape :math:`(L)`.
        missing: :math:`1 - \varphi`, accurate where it is small, with shape :math:`(L)`.
        psi: :math:`\lambda \psi_0`, with shape :math:`(L)`.
        first: :math:`\lambda \, u \cdot \psi_1`, with shape :math:`(L, K)`.
        second: :math:`\lambda \, u^\top \Psi_2 u` with shape :math:`(L, K)`, or
            :math:`\lambda \Psi_2` with shape :math:`(L, K, K)`.
        square: :math:`\lambda^2 q`, with shape :math:`(L)`.
        wave: :math:`\lambda \, \mathbb{E}[e^{i \kappa u \cdot y} e \, e^{-\lambda e}]`,
            with shape :math:`(L, K)`, where it was asked for.
    """

    log_lambda: Array
    weights: Array
    phi: Array
    missing: Array
    psi: Array
    first: Array
    second: Array
    square: Array
    wave: NDArray[np.complex128] | None = None

    def __add__(self, other: Moments) -> Moments:
        r"""Moments of a mixture, from those of its weighted components on one grid."""
        names = ("phi", "missing", "psi", "first", "second", "square")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        waves = (self.wave, other.wave)
        wave = None if waves[0] is None or waves[1] is None else waves[0] + waves[1]
        return Moments(self.log_lambda, self.weights, **sums, wave=wave)

    @property
    def log_phi(self) -> Array:
        r""":math:`\ln \varphi`, from whichever of the two is accurate."""
        small = np.log(np.maximum(self.phi, np.exp(FLOOR / 2)))
        near = np.log1p(-np.minimum(self.missing, 0.5))
        return np.where(self.missing < 0.5, near, small)

    def outer(self, a: Array, b: Array) -> Array:
        r""":math:`a b^\top`, or its diagonal, as :attr:`second` has it."""
        return a[..., :, None] * b[..., None, :] if self.second.ndim == 3 else a * b

    def per_point(self, values: Array) -> Array:
        r"""Values of shape :math:`(..., L)` made to multiply :attr:`second`."""
        return values.reshape(values.shape + (1,) * (self.second.ndim - 1))


@dataclass(frozen=True)
class Quenched:
    r"""Averages over training sets; leading axes are sizes (and planted points).

    Attributes:
        covariance: :math:`u^\top \mathbb{E}[\mathrm{Cov}_w] u`, in units of :math:`\sigma^2`.
        participation: :math:`\mathbb{E} \sum_i w_i^2`.
        pairs: :math:`\mathbb{E} \sum_{i \neq j} w_i w_j`; the two sum to 1.
        coherence: :math:`\mathbb{E} | \sum_i w_i e^{i \kappa u \cdot y_i} |^2`, or None.
        errors: Standard errors of all of these, where they were sampled.
    """

    covariance: Array
    participation: Array
    pairs: Array
    coherence: Array | None = None
    errors: Quenched | None = None

    @property
    def identity_defect(self) -> Array:
        r"""How far :math:`\mathbb{E} (\sum_i w_i)^2` is from 1: the error bar."""
        return np.abs(self.participation + self.pairs - 1)


def pool(samples: Sequence[Quenched]) -> Quenched:
    r"""Mean of independent replicates, with their standard errors."""

    def apply(reduce: Callable[[Array], Array]) -> dict[str, Array | None]:
        names = ("covariance", "participation", "pairs", "coherence")
        columns = {name: [getattr(s, name) for s in samples] for name in names}
        return {k: None if v[0] is None else reduce(np.stack(v)) for k, v in columns.items()}

    root = np.sqrt(len(samples))
    errors = apply(lambda v: v.std(0, ddof=1) / root)
    return Quenched(**apply(lambda v: v.mean(0)), errors=Quenched(**errors))  # type: ignore[arg-type]


def average_fresh(moments: Moments, sizes: Array) -> Quenched:
    r"""Averages where no training point is special.

    Arguments:
        moments: The moments at the noisy point.
        sizes: The sizes :math:`N \geq 2`, with shape :math:`(S)`.

    Returns:
        Averages with leading shape :math:`(S)`.
    """
    N = sizes[:, None]
    ones = moments.weights * N * _power(moments, N - 1)
    twos = moments.weights * N * (N - 1) * _power(moments, N - 2)
    participation = ones @ moments.square
    return Quenched(
        _contract(twos, _spread(moments)),
        participation,
        twos @ moments.psi**2,
        _coherence(participation, twos @ np.abs(moments.wave) ** 2)
        if moments.wave is not None
        else None,
    )


@dataclass(frozen=True)
class Source:
    r"""Training points that are planted, one at a time.

    Attributes:
        position: :math:`u \cdot (y_1 - x)` in units of the noise, with shape :math:`(R, K)`.
        energy: :math:`-\ln e_1`, with shape :math:`(R)`.
        scale: :math:`\kappa` of the bounded retention, with shape :math:`(K)`.
    """

    position: Array
    energy: Array
    scale: Array | None = None


def average_planted(moments: Moments, source: Source, sizes: Array) -> Quenched:
    r"""Averages where the training point behind the noisy point is known.

    Arguments:
        moments: The moments at the noisy point.
        source: The planted points.
        sizes: The sizes :math:`N \geq 2`, with shape :math:`(S)`.

    Returns:
        Averages with leading shape :math:`(S, R)`.
    """
    n = sizes[:, None, None] - 1
    b = np.exp(moments.log_lambda - source.energy[:, None])
    alone = moments.weights * np.exp(-b)
    one = n * alone * _power(moments, n - 1)
    two = n * (n - 1) * alone * _power(moments, n - 2)
    participation = one @ moments.square + (b * b * alone * _power(moments, n)).sum(-1)
    mixed = b * one
    return Quenched(
        _contract(two, _spread(moments)) + _mixed(moments, source, mixed),
        participation,
        two @ moments.psi**2 + 2 * mixed @ moments.psi,
        _planted_coherence(moments, source, participation, two, mixed)
        if moments.wave is not None
        else None,
    )


def average_point(
    moments: Moments, source: tuple[Array, float] | None, sizes: Array, scale: Array | None
) -> Quenched:
    r"""Averages at one noisy point, with one training point planted or none.

    Arguments:
        moments: The moments at the noisy point.
        source: Position, with shape :math:`(K)`, and energy of the planted point, if any.
        sizes: The sizes, with shape :math:`(S)`.
        scale: :math:`\kappa` of the bounded retention, with shape :math:`(K)`.

    Returns:
        Averages with leading shape :math:`(S)`.
    """
    if source is None:
        return average_fresh(moments, sizes)
    planted = Source(source[0][None], np.array([source[1]]), scale)
    q = average_planted(moments, planted, sizes)
    coherence = None if q.coherence is None else q.coherence[:, 0]
    return Quenched(q.covariance[:, 0], q.participation[:, 0], q.pairs[:, 0], coherence)


def _power(moments: Moments, exponent: Array) -> Array:
    # Negative exponents occur between N = 1 and 3 only, and at 1 with the prefactor 0.
    return np.exp(np.clip(exponent * moments.log_phi, FLOOR, 300.0))


def _spread(moments: Moments) -> Array:
    return moments.per_point(moments.psi) * moments.second - moments.outer(
        moments.first, moments.first
    )


def _contract(weights: Array, values: NDArray[Any]) -> NDArray[Any]:
    return np.tensordot(weights, values, axes=1)


def _mixed(moments: Moments, source: Source, weights: Array) -> Array:
    # E[(y - y₁)(y - y₁)ᵀ e exp(-λe)], one planted point at a time
    y = source.position
    cross = moments.outer(y, _contract(weights, moments.first))
    if cross.ndim == y.ndim + 2:
        cross = (cross + cross.swapaxes(-1, -2)) / 2
    return (
        _contract(weights, moments.second)
        - 2 * cross
        + moments.outer(y, y) * moments.per_point(weights @ moments.psi)
    )


def _coherence(participation: Array, pairs: Array) -> Array:
    return participation[..., None] + pairs


def _planted_coherence(
    moments: Moments, source: Source, participation: Array, two: Array, mixed: Array
) -> Array:
    assert moments.wave is not None
    assert source.scale is not None
    phase = np.exp(-1j * source.scale * source.position)
    crossed: Array = 2 * (phase * _contract(mixed, moments.wave)).real
    return _coherence(participation, two @ np.abs(moments.wave) ** 2 + crossed)
