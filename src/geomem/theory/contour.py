r"""Moments of a Gaussian by Mellin-Barnes integrals: no sampling at all. **[ours]**

With :math:`(\lambda e)^p e^{-\lambda e} = \frac{1}{2 \pi i} \int \Gamma(p - \theta)
(\lambda e)^\theta d\theta` each moment of :mod:`geomem.theory.moments` becomes a contour
integral over the *tilted* Gaussian :math:`e^\theta p(y)`, which is closed form at complex
:math:`\theta`: in units of the noise, with variances :math:`a_k` and the noisy point at
:math:`h_k` from the mean,

.. math::
    \ln M(\theta) = - \frac12 \sum_k \ln(1 + \theta a_k)
        - \frac12 \sum_k \frac{\theta h_k^2}{1 + \theta a_k} \, , \quad
    \mathrm{mean}_k - x_k = - \frac{h_k}{1 + \theta a_k} \, , \quad
    \mathrm{var}_k = \frac{a_k}{1 + \theta a_k} \, .

The contour crosses the real axis at the saddle :math:`c` of the integrand,
:math:`\ell = \digamma(p - c) - (\ln M)'(c)`, where it has no cancellation, and opens as
:math:`\theta = c + i \delta \sinh u`, because the nearest singularity (:math:`-1/a_{\max}`,
or a pole of :math:`\Gamma`) sets the scale close by and the decay of :math:`\Gamma` sets
another far away. The trapezoid rule converges exponentially in :math:`u`.

Two things are worth knowing. *Near the pole at 1* (:math:`\lambda` small) the contour runs
to its right and adds the residue :math:`\lambda M(1)`; not where the saddle is much
narrower than its distance to the pole, since residue and integral would cancel there (m =
1000: 17 digits). *Neighbouring* :math:`\ell` *share a contour*: within two standard
deviations of the saddle the cancellation costs one digit of sixteen, and evaluating
:math:`M` was nearly all the work.

References:
    | Paris & Kaminski, Asymptotics and Mellin-Barnes Integrals (2001)
    | Weideman & Trefethen, Parabolic and hyperbolic contours (2007)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, expit, loggamma, zeta

from geomem.theory.moments import Array, Moments

Complex = NDArray[np.complex128]
Numbers = NDArray[Any]  # real at a real tilt, complex on a contour

STEP = 0.12  # of the trapezoid rule along a contour
REACH = 27.0  # |Γ| has decayed by exp(-π/2 * 27) = 4e-19 there
LOGITS = np.linspace(-36.0, 20.0, 170)  # where saddles are tabulated
BLOCK = 2.0  # standard deviations of ℓ that share a contour
BEND = 2.5  # beyond this rate of decay of λ^θ M(θ) the contour bends to the side of it


@dataclass(frozen=True)
class TiltedGaussian:
    r"""A Gaussian component of the prior as a noisy point sees it, in units of the noise.

    Attributes:
        variances: :math:`a_k > 0` along the principal axes, with shape :math:`(r)`.
        offset: :math:`h_k`, noisy point minus mean along the axes, with shape :math:`(r)`.
        directions: The directions :math:`u` in the basis of the axes, with shape
            :math:`(K, r)`.
        shift: :math:`u \cdot (y - x)` from outside of the axes, with shape :math:`(K)`.
        log_weight: Logarithm of the component's weight.
        rest: The energy outside of the axes.
    """

    variances: Array
    offset: Array
    directions: Array
    shift: Array
    log_weight: float = 0.0
    rest: float = 0.0

    @property
    def edge(self) -> float:
        r"""The lowest tilt in use: the singularity, unless that is too far away to matter."""
        return max(self.singularity, -50.0)

    @property
    def singularity(self) -> float:
        r""":math:`-1/a_{\max}`: :math:`\mathbb{E}[e^\theta]` is finite above."""
        return -1.0 / max(float(self.variances.max(initial=0.0)), 0.01)

    def log_mgf(self, theta: Numbers) -> Numbers:
        r""":math:`\ln M(\theta)`, with the shape of :math:`\theta`."""
        stretch = 1 + theta[..., None] * self.variances
        log_det = np.log(stretch).sum(-1)
        energy = theta * (2 * self.rest + (self.offset**2 / stretch).sum(-1))
        out: Numbers = self.log_weight - (log_det + energy) / 2
        return out

    def energy(self, tilt: Array) -> tuple[Array, Array]:
        r"""Mean and variance of the energy under real tilts, with their shape."""
        stretch = 1 + tilt[..., None] * self.variances
        a, h2 = self.variances / stretch, self.offset**2 / stretch**2
        return self.rest + (a + h2).sum(-1) / 2, (a * a / 2 + a * h2).sum(-1)

    def mean(self, theta: Numbers) -> Numbers:
        r"""Tilted means :math:`u \cdot (y - x)`, with shape :math:`(*, K)`."""
        scaled = -self.offset / (1 + theta[..., None] * self.variances)
        return scaled @ self.directions.T + self.shift

    def variance(self, theta: Numbers) -> Numbers:
        r"""Tilted variances along the directions, with shape :math:`(*, K)`."""
        return self._axes(theta) @ (self.directions**2).T

    def covariance(self, theta: Numbers) -> Numbers:
        r"""Tilted covariance matrices, with shape :math:`(*, K, K)`."""
        return (self._axes(theta)[..., None, :] * self.directions) @ self.directions.T

    def _axes(self, theta: Numbers) -> Numbers:
        return self.variances / (1 + theta[..., None] * self.variances)


@dataclass(frozen=True)
class _Contour:
    r"""Contours for blocks of :math:`\ell`; ``right``: of the pole at 1."""

    theta: Complex  # (B, K)
    step: Complex  # dθ, (B, K)
    right: NDArray[np.bool_]  # (B)


def contour_moments(
    gaussian: TiltedGaussian,
    log_lambda: Array,
    weights: Array,
    *,
    matrix: bool = False,
    scale: Array | None = None,
) -> Moments:
    r"""Moments of one Gaussian component on a grid.

    Arguments:
        gaussian: The component as the noisy point sees it.
        log_lambda: The abscissas :math:`\ell`, increasing, with shape :math:`(L)`.
        weights: Their quadrature weights, with shape :math:`(L)`.
        matrix: Whether the second moments are full matrices.
        scale: :math:`\kappa` of the bounded retention, with shape :math:`(K)`.

    Returns:
        The moments; those of a mixture are the sums over its components.
    """
    saddle = _saddle(gaussian, log_lambda, 1, gaussian.edge, 1.0)
    pull = _pull(gaussian, log_lambda)
    block, centre = _blocks(log_lambda, pull, _deviation(gaussian, saddle, 1))
    saddle = _saddle(gaussian, centre, 1, gaussian.edge, 1.0)
    contour = _contour(gaussian, centre, saddle, 1)
    psi, square, first, second, wave = _moments(gaussian, log_lambda, block, contour, matrix, scale)
    phi, missing = _survival(gaussian, log_lambda, block, centre, saddle)
    return Moments(log_lambda, weights, phi, missing, psi, first, second, square, wave)


def _saddle(
    gaussian: TiltedGaussian, log_lambda: Array, power: int, low: float, high: float
) -> Array:
    # ℓ falls from +∞ to -∞ between two singularities: a table in the logit of the place
    # resolves both ends. The contour may miss the saddle by a little.
    c = low + (high - low) * expit(LOGITS)
    level = digamma(power - c) + gaussian.energy(c)[0]
    place: Array = low + (high - low) * expit(np.interp(-log_lambda, -level, LOGITS))
    return place


def _deviation(gaussian: TiltedGaussian, c: Array, power: int) -> Array:
    return np.sqrt(_trigamma(power - c) + gaussian.energy(c)[1])


def _trigamma(x: Array) -> Array:
    mirrored: Array = zeta(2, np.where(x > 0.5, x, 1 - x))
    return np.where(x > 0.5, mirrored, (np.pi / np.sin(np.pi * x)) ** 2 - mirrored)


def _pull(gaussian: TiltedGaussian, log_lambda: Array) -> Array:
    # The rate at which λ^θ M(θ) decays far away: to the left (positive), to the right
    # (negative), or zero where neither is fast enough to be of use.
    left = log_lambda - gaussian.energy(np.ones(()))[0]
    right = log_lambda - gaussian.rest
    return np.where(left > BEND, left, np.where(right < -BEND, right, 0.0))


def _blocks(log_lambda: Array, pull: Array, deviation: Array) -> tuple[NDArray[np.intp], Array]:
    # At large |ℓ| the contour bends, and what it decays by is ℓ itself: none spans a wide ratio.
    width = np.minimum(deviation, np.where(pull != 0, np.maximum(1.0, np.abs(pull) / 2), np.inf))
    travelled = np.cumsum(np.diff(log_lambda, prepend=log_lambda[0]) / width)
    place = (travelled // BLOCK).astype(int) * 3 + np.sign(pull).astype(int)
    _, block = np.unique(place, return_inverse=True)
    return block, np.bincount(block, log_lambda) / np.bincount(block)


def _contour(gaussian: TiltedGaussian, centre: Array, saddle: Array, power: int) -> _Contour:
    right = (saddle > 0.6) & ((1 - saddle) * np.sqrt(1 + gaussian.energy(saddle)[1]) < 2)
    if right.any():
        beyond = _saddle(gaussian, centre[right], 1, 1.0, 2.0)
        saddle = saddle.copy()
        saddle[right] = np.minimum(beyond, 1.5)
    distance = np.minimum(np.abs(saddle - 1), saddle - gaussian.singularity)
    distance = np.where(right, np.minimum(distance, 2 - saddle), distance)
    if power == 0:
        distance = np.minimum(distance, np.abs(saddle))
    delta = np.minimum(distance, 3 / _deviation(gaussian, saddle, power))
    # Not from c << -1, where Γ(p - θ) grows to the left as fast as λ^θ decays.
    bend = np.where(saddle > -1, -0.6 * np.sign(_pull(gaussian, centre)), 0.0)
    return _Contour(*_nodes(saddle, delta, bend[:, None]), right)


def _nodes(saddle: Array, delta: Array, bend: Array) -> tuple[Complex, Complex]:
    # A negative saddle at large ℓ lets Γ(1 - θ) decay only beyond |c|, hence the second reach.
    last = np.arcsinh(np.maximum(REACH, 10 * np.sqrt(np.abs(saddle))) / delta)[:, None]
    u = STEP * (np.arange(int(last.max() / STEP) + 2) + 0.5)
    u, inside = np.minimum(u, last), u < last + STEP
    delta = delta[:, None]
    theta = saddle[:, None] + delta * (1j * np.sinh(u) + bend * (np.cosh(u) - 1))
    step = np.where(inside, STEP * delta * (1j * np.cosh(u) + bend * np.sinh(u)), 0)
    return theta, step


def _kernel(
    gaussian: TiltedGaussian, log_lambda: Array, block: NDArray[np.intp], contour: _Contour, p: int
) -> Complex:
    # The integrand with its dθ, at every ℓ of every block, with shape (L, K).
    log_integrand = loggamma(p - contour.theta) + gaussian.log_mgf(contour.theta)
    exponent = log_integrand[block] + log_lambda[:, None] * contour.theta[block]
    kernel: Complex = np.exp(exponent) * contour.step[block]
    return kernel


def _moments(
    gaussian: TiltedGaussian,
    log_lambda: Array,
    block: NDArray[np.intp],
    contour: _Contour,
    matrix: bool,
    scale: Array | None,
) -> tuple[Array, Array, Array, Array, Complex | None]:
    kernel = _kernel(gaussian, log_lambda, block, contour, 1)
    theta = contour.theta
    residue = _residue(gaussian, log_lambda, contour.right[block])
    psi = _integral(kernel) + residue
    square = _integral(kernel * (1 - theta)[block])  # Γ(2 - θ) = (1 - θ) Γ(1 - θ)

    def integrate(values: Numbers, at_one: Numbers) -> Array:
        inner = [
            np.tensordot(kernel[block == k], v, axes=1).imag / math.pi for k, v in enumerate(values)
        ]
        return np.concatenate(inner) + residue.reshape((-1,) + (1,) * at_one.ndim) * at_one

    one = np.ones(())
    first = integrate(gaussian.mean(theta), gaussian.mean(one))

    def second_moment(at: Numbers) -> Numbers:
        mean = gaussian.mean(at)
        outer = mean[..., :, None] * mean[..., None, :] if matrix else mean**2
        moment: Numbers = (gaussian.covariance(at) if matrix else gaussian.variance(at)) + outer
        return moment

    second = integrate(second_moment(theta), second_moment(one))
    wave = None
    if scale is not None:

        def waves(at: Numbers, trig: np.ufunc) -> Complex:
            # Real and imaginary part apart: each is conjugate-symmetric in θ, their sum is not.
            damping = np.exp(-(scale**2) * gaussian.variance(at) / 2)
            out: Complex = damping * trig(scale * gaussian.mean(at))
            return out

        real, imaginary = (integrate(waves(theta, f), waves(one, f)) for f in (np.cos, np.sin))
        wave = real + 1j * imaginary
        # |wave| <= psi. It is lost in rounding where far points alone contribute (N = 2 at a
        # small noise level) and turn so fast that it is zero in truth.
        wave = np.where(np.abs(wave) <= 1.0001 * np.abs(psi)[:, None], wave, 0)
    return psi, square, first, second, wave


def _residue(gaussian: TiltedGaussian, log_lambda: Array, right: NDArray[np.bool_]) -> Array:
    # λ M(1), where the contour passes right of the pole at 1
    level = log_lambda + gaussian.log_mgf(np.ones(())).real
    return np.exp(np.where(right, level, -np.inf))


def _integral(kernel: Complex) -> Array:
    # The lower half of the contour is the mirror image of the upper.
    value: Array = kernel.sum(-1).imag / math.pi
    return value


def _survival(
    gaussian: TiltedGaussian,
    log_lambda: Array,
    block: NDArray[np.intp],
    centre: Array,
    saddle: Array,
) -> tuple[Array, Array]:
    # Left of the pole of Γ(-θ) at 0 the integral is φ, right of it φ - 1: each is taken
    # where it is small, and the other is its complement.
    low = saddle <= 0
    place = np.empty_like(centre)
    place[low] = _saddle(gaussian, centre[low], 0, gaussian.edge, 0.0)
    place[~low] = _saddle(gaussian, centre[~low], 0, 0.0, 1.0)
    contour = _contour(gaussian, centre, place, 0)
    value = _integral(_kernel(gaussian, log_lambda, block, contour, 0))
    residue = _residue(gaussian, log_lambda, contour.right[block])
    weight = math.exp(gaussian.log_weight)
    phi = np.where(low[block], value, weight + value - residue)
    missing = np.where(low[block], weight - value, residue - value)
    return np.clip(phi, 0, weight), np.clip(missing, 0, weight)
