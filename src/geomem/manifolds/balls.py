r"""Solid balls of any dimension, and the lollipop that is made of three of them.

The uniform law on a ball of radius R in m dimensions is a mixture of spheres of radius
:math:`r \leq R`, with weights :math:`\propto r^{m-1}`. With the sphere's denoiser in closed form
(:mod:`geomem.manifolds.curved`) one integral is left,

.. math::
    D(y, \sigma) = y \, \frac{\int_0^R r^{m-1} \, S_r(y) \, \frac{r^2}{\sigma^2}
        \frac{A_m(\kappa_r)}{\kappa_r} \, dr}{\int_0^R r^{m-1} \, S_r(y) \, dr} \, , \qquad
    \kappa_r = \frac{r \|y\|}{\sigma^2} \, ,

whose integrand is the density of a noncentral chi variable: one bell near
:math:`\sqrt{\|y\|^2 + (m - 1) \sigma^2}`, of width sigma or less, or what the rim cuts off of it.
Gauss-Legendre nodes on the part that weighs anything converge exponentially, at any level.

A ball of dimension 1 is a segment, of dimension 0 a point. Put together they are the lollipop of
Kamkari et al.: a disc, a stick and a dot, with dimensions 2, 1 and 0 in one data set.

References:
    | Kamkari et al., A geometric view of data complexity (2024), arXiv 2406.03537: the lollipop
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from geomem.arguments import Number, Values, Whole, checked
from geomem.denoiser import as_columns
from geomem.errors import InputError
from geomem.manifolds.curved import mean_over_sphere
from geomem.manifolds.linear import orthonormal
from geomem.manifolds.quadrature import Embedding, check_points, gaussian_log_norm
from geomem.manifolds.squiggles import Union
from geomem.noise import level_of_each

# Nodes along the radius: the integrand falls by e^-40 between the middle of them and an end.
_NODES = 48
_REACH = 9.0


class BallDenoiser:
    r"""Exact denoiser of the uniform law on a ball, a segment or a point.

    Arguments:
        dim: The dimension m of the ball.
        radius: Its radius R.
        embedding: Where its m coordinates lie in the ambient space.
    """

    exact: Literal[True] = True

    def __init__(self, dim: int, radius: float, embedding: Embedding) -> None:
        self.dim, self.radius, self.embedding = dim, radius, embedding

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        y, levels = self._ask(x, sigma)
        gain, _ = self._radial(_length(y), levels)
        return self.embedding.place(gain[:, None] * y).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        y, levels = self._ask(x, sigma)
        _, inside = self._radial(_length(y), levels)
        outside = self.embedding.outside(x) / (2 * levels**2)
        return inside - outside - gaussian_log_norm(levels, self.embedding.ambient_dim)

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor | float, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``, with shape :math:`(B, n)`, in float64.

        With :math:`D = g(|y|) \, y` the Jacobian is :math:`g I + |y| g' \hat y \hat y^\top`.
        """
        y, levels = self._ask(x, sigma)
        U = self.embedding.frame.to(x.device).T @ as_columns(directions, x)
        length = _length(y).detach()
        with torch.enable_grad():
            at = length.clone().requires_grad_()
            gain, _ = self._radial(at, levels)
            slope = torch.zeros_like(length)
            if self.dim:
                (slope,) = torch.autograd.grad(gain.sum(), at)
        unit = y / length.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        along, radial = (unit @ U).square(), (length * slope)[:, None]
        return gain.detach()[:, None] * U.square().sum(0) + radial * along

    def _ask(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        levels = level_of_each(sigma, x)
        return self.embedding.inside(check_points(x, self.embedding.ambient_dim)), levels

    def _radial(self, length: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        # D's factor of y, and ln E exp(-|y - x_0|²/2 sigma²), both of shape (B).
        if self.dim == 0:
            return torch.zeros_like(length), -(length**2) / (2 * sigma**2)
        r, log_weights = self._nodes(length.detach(), sigma)
        ratio, log_mean = mean_over_sphere(r * (length / sigma**2)[:, None], self.dim)
        t = sigma[:, None]
        logs = log_weights + log_mean - (length[:, None] - r).square() / (2 * t**2)
        gain = (logs.softmax(1) * ratio * (r / t) ** 2).sum(1)
        return gain, logs.logsumexp(1)

    def _nodes(self, length: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        # Radii (B, n) and the logarithms of their weights, which sum to 1 over the whole ball.
        R, m = self.radius, self.dim
        kappa = R * length / sigma**2
        slope = (m - 1) / R + (R / sigma**2) * (
            kappa * length / R * mean_over_sphere(kappa, m)[0] - 1
        )
        # The integrand is log-concave: where it still rises at the rim, it falls inwards from
        # there like exp(-slope t) at least, elsewhere like the noise about its top.
        cut, top = slope > 0, (length**2 + (m - 1) * sigma**2).sqrt()
        steep = torch.minimum(2 * _REACH * sigma, 40 / slope.clamp(min=1e-300))
        low = torch.where(cut, R - steep, top - _REACH * sigma).clamp(min=0)
        high = torch.where(cut, R, (top + _REACH * sigma).clamp(max=R))
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        half = (high - low)[:, None] / 2
        r = low[:, None] + half * (1 + torch.from_numpy(nodes).to(half))
        logs = (half * torch.from_numpy(weights).to(half)).log()
        return r, logs + (m - 1) * (r / R).log() + math.log(m / R)


def _length(y: Tensor) -> Tensor:
    # Of derivative 0 at 0, where D is even about the centre.
    squares = y.square().sum(-1)
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)


@checked
class Ball:
    r"""The uniform law on a ball of dimension m, in d dimensions.

    Arguments:
        dim: The dimension m; a ball of dimension 1 is a segment, of dimension 0 a point.
        ambient_dim: The dimension :math:`d \geq m` of the space around.
        radius: The radius R, above 0: half the length of a segment.
        centre: Where its centre lies, with shape :math:`(d)`; 0 if not given.
        basis: Orthonormal columns that span it, with shape :math:`(d, m)`; if not given, the
            first m coordinates, or a random frame of ``seed``.
        seed: The seed of a random frame.

    Raises:
        InputError: If it does not fit, shapes do not match, or the basis is not orthonormal.

    Example:
        >>> ball = Ball(3, ambient_dim=30, seed=0)
        >>> x = ball.sample(4, torch.Generator().manual_seed(0))
        >>> x.norm(dim=1) < 1
        tensor([True, True, True, True])
        >>> ball.population_denoiser()(torch.zeros(1, 30).double(), torch.tensor(0.1)).norm()
        tensor(0., dtype=torch.float64)
    """

    def __init__(
        self,
        dim: Annotated[int, Whole(least=0)],
        ambient_dim: Annotated[int, Whole(least=1)],
        radius: Annotated[float, Number(above=0.0)] = 1.0,
        *,
        centre: Annotated[Tensor, Values(shape="(d)")] | None = None,
        basis: Tensor | None = None,
        seed: int | None = None,
    ) -> None:
        frame = Embedding.of(max(dim, 1), ambient_dim, seed).frame[:, :dim]
        if basis is not None:
            frame = orthonormal(basis, ambient_dim, dim)
        centre = torch.zeros(ambient_dim) if centre is None else centre
        if centre.shape != (ambient_dim,):
            raise InputError(
                f"`centre` has shape {tuple(centre.shape)}; pass one of ({ambient_dim},)"
            )
        self.dim, self.radius = dim, float(radius)
        self.embedding = Embedding(frame, centre.double())

    @property
    def ambient_dim(self) -> int:
        return self.embedding.ambient_dim

    @property
    def variance(self) -> float:
        r"""The variance :math:`R^2 / (m + 2)` along each of its coordinates."""
        return self.radius**2 / (self.dim + 2)

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points, with shape :math:`(N, d)`, in float64."""
        z = torch.randn(num_samples, self.dim, generator=rng, dtype=torch.float64)
        u = torch.rand(num_samples, 1, generator=rng, dtype=torch.float64)
        unit = z / z.norm(dim=1, keepdim=True) if self.dim else z
        return self.embedding.place(self.radius * u ** (1 / max(self.dim, 1)) * unit)

    def tangent(self, x_0: Tensor) -> Tensor:
        r"""Orthonormal tangent bases at points ``(B, d)``, with shape :math:`(B, d, m)`."""
        check_points(x_0, self.ambient_dim)
        return self.embedding.frame.to(x_0.device).expand(len(x_0), -1, -1)

    def distance(self, x: Tensor) -> Tensor:
        r"""Distances of points ``(B, d)`` to the ball, with shape (B)."""
        y = self.embedding.inside(check_points(x, self.ambient_dim))
        beyond = (
            (y.norm(dim=1) - self.radius).clamp(min=0) if self.dim else torch.zeros(len(x)).to(y)
        )
        return (self.embedding.outside(x) + beyond.square()).sqrt()

    def population_denoiser(self) -> BallDenoiser:
        r"""The exact denoiser: an integral over spheres."""
        return BallDenoiser(self.dim, self.radius, self.embedding)


@checked
class Lollipop(Union):
    r"""A disc on a stick, and a dot: points of dimension 2, 1 and 0 in one data set.

    The candy lies about (3, 3), the stick runs towards the origin from its rim to (1.5, 1.5), and
    the dot is the origin: what Kamkari et al. sample, with four points on the candy to two on the
    stick and one dot.

    Arguments:
        ambient_dim: The dimension :math:`d \geq 2` of the space around.
        radius: The radius of the candy, less than its distance 2.1 from the end of the stick.
        weights: The shares of candy, stick and dot, in any unit.
        seed: The seed of a random frame; the first two coordinates if not given.

    Raises:
        InputError: If it does not fit, or a share is not above 0.

    Example:
        >>> lollipop = Lollipop()
        >>> x = lollipop.sample(700, torch.Generator().manual_seed(0))
        >>> lollipop.dimension_at(x).bincount()  # dot, stick, candy
        tensor([ 97, 191, 412])
    """

    def __init__(
        self,
        ambient_dim: Annotated[int, Whole(least=2)] = 2,
        *,
        radius: Annotated[float, Number(above=0.0, below=2.1)] = 1.0,
        weights: Sequence[float] = (4.0, 2.0, 1.0),
        seed: int | None = None,
    ) -> None:
        frame = Embedding.of(2, ambient_dim, seed).frame
        diagonal = frame.sum(1) / math.sqrt(2)
        # Along the diagonal: where the candy's centre, its rim, and the end of the stick lie.
        centre, end = 3 * math.sqrt(2), 1.5 * math.sqrt(2)
        rim = centre - radius
        candy = Ball(2, ambient_dim, radius, centre=centre * diagonal, basis=frame)
        stick = Ball(
            1,
            ambient_dim,
            (rim - end) / 2,
            centre=(rim + end) / 2 * diagonal,
            basis=diagonal[:, None],
        )
        super().__init__([candy, stick, Ball(0, ambient_dim)], weights)
