r"""Laws of the clean points, as the theory of finite size needs them.

A prior answers three questions: how it looks from a noisy point (a sum of tilted Gaussians,
:class:`~geomem.theory.contour.TiltedGaussian`), how noisy points are distributed, and which
clean points are behind one. Draws come from uniform numbers, so that scrambled Sobol points
serve as well as random ones.

A Gaussian on a subspace is a mixture of one. Its normal directions cancel in every weight,
so it is treated inside its subspace and the dimension of the space around it never enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv, logsumexp, ndtri

from geomem.arguments import Number, Values, check
from geomem.errors import InputError
from geomem.theory.contour import TiltedGaussian
from geomem.theory.moments import Array

# What levels and sizes may be: squares of ratios of levels stay finite, and sizes are those
# for which the theory was tried.
Sigma = Annotated[float, Number(least=1e-30, most=1e30)]
Sigmas = Annotated[ArrayLike, Values(shape="(*)", least=1e-30, most=1e30)]
Sizes = Annotated[ArrayLike, Values(shape="(*)", least=1, most=1e12)]


@dataclass(frozen=True)
class Component:
    r"""One Gaussian of a prior in its principal axes.

    Attributes:
        log_weight: Logarithm of its weight.
        mean: Its mean, with shape :math:`(d)`.
        variances: Its variances, zeros included, with shape :math:`(d)`.
        basis: Its principal axes as columns, with shape :math:`(d, d)`, or None for the
            coordinates themselves.
    """

    log_weight: float
    mean: Array
    variances: Array
    basis: Array | None = None

    def to_axes(self, vectors: Array) -> Array:
        r"""Components of row vectors, with shape :math:`(*, d)`, along the axes."""
        return vectors if self.basis is None else vectors @ self.basis

    def from_axes(self, coordinates: Array) -> Array:
        r"""Inverse of :meth:`to_axes`."""
        return coordinates if self.basis is None else coordinates @ self.basis.T

    def seen_from(
        self, x: Array, sigma: float, directions: Array, *, ignore_rest: bool
    ) -> TiltedGaussian:
        r"""The component in units of the noise, relative to a noisy point."""
        open_ = self.variances > 0
        axes, offset = self.to_axes(directions), self.to_axes(x - self.mean) / sigma
        shift = -axes[:, ~open_] @ offset[~open_]
        rest = 0.0 if ignore_rest else float((offset[~open_] ** 2).sum() / 2)
        variances = self.variances[open_] / sigma**2
        return TiltedGaussian(
            variances, offset[open_], axes[:, open_], shift, self.log_weight, rest
        )


class GaussianMixture:
    r"""Mixture of Gaussians in :math:`d` dimensions, singular covariances allowed.

    Arguments:
        weights: The weights, with shape :math:`(C)`; they sum to 1.
        means: The means, with shape :math:`(C, d)`.
        covariances: The covariances, with shape :math:`(C, d, d)`, or the variances along
            the coordinates, with shape :math:`(C, d)`.

    Raises:
        InputError: If shapes disagree, weights do not sum to 1 or variances are negative.

    Example:
        >>> GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[0.04], [0.04]]).ambient_dim
        1
    """

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike) -> None:
        w, mu, cov = (finite(a, "the mixture") for a in (weights, means, covariances))
        if w.ndim != 1 or mu.ndim != 2 or len(mu) != len(w) or cov.shape[:2] != mu.shape:
            raise InputError(
                "a mixture needs weights (C), means (C, d) and covariances (C, d, d) or "
                f"variances (C, d); got {w.shape}, {mu.shape}, {cov.shape}"
            )
        if (w <= 0).any() or abs(w.sum() - 1) > 1e-9:
            raise InputError("the weights of a mixture are positive and sum to 1; rescale them")
        self.components = tuple(
            Component(float(np.log(wi)), m, *_principal(c))
            for wi, m, c in zip(w, mu, cov, strict=True)
        )

    @property
    def ambient_dim(self) -> int:
        r"""The dimension :math:`d` in which noisy points and directions are given."""
        return len(self.components[0].mean)

    @property
    def mean(self) -> Array:
        r"""The mean, with shape :math:`(d)`."""
        return np.asarray(sum(np.exp(c.log_weight) * c.mean for c in self.components))

    @property
    def axes(self) -> Array:
        r"""The directions that are reported by default, with shape :math:`(d, d)`."""
        return np.eye(self.ambient_dim)

    @cached_property
    def num_uniforms(self) -> int:
        r"""How many uniform numbers a draw takes."""
        return self.ambient_dim + 1 + (len(self.components) > 1)

    def seen_from(self, x: Array, sigma: float, directions: Array) -> list[TiltedGaussian]:
        r"""The components relative to a noisy point, in units of the noise.

        Arguments:
            x: The noisy point, with shape :math:`(d)`.
            sigma: The noise level.
            directions: Unit directions, with shape :math:`(K, d)`.
        """
        lone = len(self.components) == 1
        return [c.seen_from(x, sigma, directions, ignore_rest=lone) for c in self.components]

    def source_energy(self, x: Array, y: Array, sigma: float) -> Array:
        r""":math:`-\ln e_1` of planted points in the units of :meth:`seen_from`.

        Arguments:
            x: The noisy point, with shape :math:`(d)`.
            y: Clean points, with shape :math:`(R, d)`.
            sigma: The noise level.
        """
        offset = (y - x) / sigma
        if len(self.components) == 1:  # as there, the normal directions cancel
            component = self.components[0]
            offset = component.to_axes(offset)[:, component.variances > 0]
        energy: Array = (offset**2).sum(1) / 2
        return energy

    def noisy(self, sigma: float, uniforms: Array) -> Array:
        r"""Draws of :math:`x = x_0 + \sigma z`, from uniforms of shape :math:`(n, k)`."""
        weights = np.exp([c.log_weight for c in self.components])
        which, normal = self._split(weights, uniforms)
        x = np.empty_like(normal)
        for k, c in enumerate(self.components):
            spread = np.sqrt(c.variances + sigma**2) * normal[which == k]
            x[which == k] = c.mean + c.from_axes(spread)
        return x

    def behind(self, x: Array, sigma: float, uniforms: Array) -> Array:
        r"""Draws of :math:`x_0` given :math:`x`, from uniforms of shape :math:`(n, k)`."""
        which, normal = self._split(self._responsibilities(x, sigma), uniforms)
        y = np.empty_like(normal)
        for k, c in enumerate(self.components):
            gain = c.variances / (c.variances + sigma**2)
            centre = gain * c.to_axes(x - c.mean)
            y[which == k] = c.mean + c.from_axes(
                centre + sigma * np.sqrt(gain) * normal[which == k]
            )
        return y

    def control(self, x: Array, sigma: float, directions: Array) -> Array:
        r"""Population posterior covariance at :math:`x` in units of :math:`\sigma^2`.

        Returns:
            The covariance matrix along the directions, with shape :math:`(K, K)`.
        """
        seen, one = self.seen_from(x, sigma, directions), np.ones(())
        share = self._responsibilities(x, sigma)
        means = np.stack([np.real(c.mean(one)) for c in seen])
        mean = share @ means
        within = sum(w * np.real(c.covariance(one)) for w, c in zip(share, seen, strict=True))
        return np.asarray(within + (share[:, None] * (means - mean)).T @ (means - mean))

    def _responsibilities(self, x: Array, sigma: float) -> Array:
        if len(self.components) == 1:
            return np.ones(1)
        none = np.zeros((0, self.ambient_dim))
        logits = [float(np.real(c.log_mgf(np.ones(())))) for c in self.seen_from(x, sigma, none)]
        share: Array = np.exp(np.array(logits) - logsumexp(logits))
        return share

    def _split(self, weights: Array, uniforms: Array) -> tuple[NDArray[np.intp], Array]:
        # Which component, and standard normal numbers whose radius is one coordinate of its
        # own: nine tenths of what fluctuates in an average over x depends on the radius, and
        # a coordinate of its own is what Sobol points integrate best.
        u = np.clip(uniforms, 1e-15, 1 - 1e-15)
        normal, which = ndtri(u[:, 1 : self.ambient_dim + 1]), np.zeros(len(u), dtype=np.intp)
        if len(self.components) > 1:
            which = np.searchsorted(np.cumsum(weights)[:-1], u[:, -1])
        open_ = np.any([c.variances > 0 for c in self.components], axis=0)
        if len(self.components) > 1 and any(c.basis is not None for c in self.components):
            open_[:] = True
        radius = np.sqrt(2 * gammaincinv(open_.sum() / 2, u[:, 0]))
        normal[:, open_] *= (radius / np.sqrt((normal[:, open_] ** 2).sum(1)))[:, None]
        return which, normal


class Gaussian(GaussianMixture):
    r"""Gaussian around the origin, by its variances along the coordinates.

    Noisy points and directions are given inside its subspace; for a rotated one, or one
    with another mean, use :meth:`from_covariance` or :meth:`from_factor`.

    Arguments:
        variances: The variances :math:`v_k \geq 0`, with shape :math:`(m)`.

    Raises:
        InputError: If a variance is negative or not a number, or all are zero.

    Example:
        >>> Gaussian([1.0, 0.09]).variances.tolist()
        [1.0, 0.09]
    """

    def __init__(self, variances: ArrayLike) -> None:
        v = check_variances(variances)
        self.components = (Component(0.0, np.zeros(len(v)), v),)

    @staticmethod
    def from_covariance(covariance: ArrayLike, mean: ArrayLike | None = None) -> Gaussian:
        r"""Gaussian with a full covariance of shape :math:`(d, d)`."""
        cov = finite(covariance, "the covariance")
        centre = np.zeros(len(cov)) if mean is None else finite(mean, "the mean")
        gaussian = Gaussian.__new__(Gaussian)
        GaussianMixture.__init__(gaussian, [1.0], centre[None], cov[None])
        return gaussian

    @staticmethod
    def from_factor(factor: ArrayLike, mean: ArrayLike | None = None) -> Gaussian:
        r"""Gaussian of :math:`x_0 = F z`, for :math:`F` of shape :math:`(d, m)`."""
        F = finite(factor, "the factor")
        return Gaussian.from_covariance(F @ F.T, mean)

    @property
    def variances(self) -> Array:
        r"""Variances along :attr:`axes`, with shape :math:`(d)`."""
        return self.components[0].variances

    @property
    def axes(self) -> Array:
        r"""The principal directions as rows, with shape :math:`(d, d)`."""
        component = self.components[0]
        return np.eye(self.ambient_dim) if component.basis is None else component.basis.T


def check_variances(variances: ArrayLike) -> Array:
    r"""Variances as an array of shape :math:`(m)`, or an error that says what is wrong.

    Example:
        >>> check_variances([1.0, -0.5])
        Traceback (most recent call last):
        ...
        geomem.errors.InputError: `variances` has -0.5 at place 2; they are never negative
    """
    shape = Annotated[ArrayLike, Values(shape="(m)", most=1e30)]
    v = np.asarray(check("variances", np.atleast_1d(np.asarray(variances)), shape), float)
    if not (v > 0).any():
        raise InputError("`variances` has none above zero; pass at least one")
    if (v < 0).any():
        k = int(np.argmax(v < 0))
        raise InputError(f"`variances` has {v[k]:g} at place {k + 1}; they are never negative")
    return v


def check_sizes(num_samples: ArrayLike) -> Array:
    r"""Training-set sizes as floats, from 1 to 10^12: none between 1 and 2."""
    sizes = np.asarray(check("num_samples", num_samples, Sizes), dtype=float)
    if ((sizes > 1) & (sizes < 2)).any():
        raise InputError("`num_samples` has a size between 1 and 2; pass N >= 2 (or exactly 1)")
    return sizes


def check_directions(directions: ArrayLike, dim: int) -> Array:
    r"""Unit directions as rows, with shape :math:`(K, d)`, or an error."""
    shape = Annotated[ArrayLike, Values(shape=f"(K, {dim})")]
    u = np.asarray(check("directions", np.atleast_2d(np.asarray(directions)), shape), float)
    length = np.sqrt((u**2).sum(1))
    if (np.abs(length - 1) > 1e-6).any():
        k = int(np.argmax(np.abs(length - 1)))
        raise InputError(f"direction {k + 1} has length {length[k]:g}; divide it by its length")
    return u


def finite(values: ArrayLike, name: str) -> Array:
    r"""Numbers as a float64 array, or an error that names them."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers in a regular array; check them") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} contain NaN or infinity; remove them")
    return array


def _principal(covariance: Array) -> tuple[Array, Array | None]:
    if covariance.ndim == 1:
        if (covariance < 0).any():
            raise InputError("variances are never negative; check the covariances")
        return covariance, None
    if not np.allclose(covariance, covariance.T, rtol=1e-8, atol=1e-12):
        raise InputError("a covariance is symmetric; pass (C + C.T) / 2")
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    # What eigh returns for an exact zero is below this multiple of the largest eigenvalue.
    floor = 10 * len(values) * np.finfo(float).eps * max(values[0], 0.0)
    if values[-1] < -max(floor, 1e-12):
        raise InputError(f"a covariance has the eigenvalue {values[-1]:g}; they are never negative")
    return np.where(values > floor, values, 0.0), vectors
