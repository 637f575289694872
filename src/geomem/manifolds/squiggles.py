r"""Manifolds of unequal dimension: squiggles, unions, and references where nothing is exact.

Data need not have one dimension. A union of curves and surfaces has a dimension at each
point, and its population denoiser is the mixture of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from geomem.arguments import checked
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.exact.mixture import MixtureDenoiser
from geomem.manifolds.charts import ChartManifold, flat_log_prior, uniform_draw
from geomem.manifolds.linear import Manifold
from geomem.manifolds.quadrature import Axis


@checked
class Squiggle(ChartManifold):
    r"""A closed curve or surface that wanders through p dimensions: random Fourier series.

    Coordinate j is :math:`\sum_k a_{jk} \cos(k \cdot \theta + \phi_{jk})`, with frequencies k
    up to ``waves``, normal amplitudes that fall like :math:`1/|k|`, and unit variance in all.

    Arguments:
        dim: The dimension m: 1 for curves, 2 for surfaces.
        ambient_dim: The dimension :math:`d \geq p` of the space around.
        features: The number p of coordinates, at least 2 m + 1: it then meets itself nowhere,
            for almost every seed.
        waves: The highest frequency along each parameter.
        centre: Where its mean lies, a number for all coordinates of y.
        seed: The seed of the series and of the frame.
    """

    def __init__(
        self,
        dim: int,
        ambient_dim: int,
        *,
        features: int = 7,
        waves: int = 2,
        centre: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 1 <= dim <= 2 or features < 2 * dim + 1 or waves < 1:
            raise InputError(
                f"a squiggle has dim 1 or 2, features >= 2 dim + 1 and waves >= 1; "
                f"got {dim}, {features} and {waves}"
            )
        self._series = _fourier(dim, features, waves, seed)
        self._centre = centre
        axes = [Axis(0, math.tau, {1: 128, 2: 40}[dim])] * dim
        super().__init__(
            self._map, axes, uniform_draw(axes), flat_log_prior, ambient_dim, seed=seed + 1
        )

    def _map(self, theta: Tensor) -> Tensor:
        k, amplitude, phase = self._series
        waves = (theta @ k.T)[:, None] + phase  # (n, p, K)
        return self._centre + (amplitude * waves.cos()).sum(2)


def _fourier(dim: int, features: int, waves: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    line = torch.arange(-waves, waves + 1, dtype=torch.float64)
    k = torch.cartesian_prod(*[line] * dim).reshape(-1, dim)
    k = k[len(k) // 2 + 1 :]  # k and -k are one wave, and 0 is none
    a = torch.randn(features, len(k), generator=rng, dtype=torch.float64) / k.norm(dim=1)
    a = a / (a.square().sum() / 2).sqrt()
    phase = math.tau * torch.rand(features, len(k), generator=rng, dtype=torch.float64)
    return k, a, phase


class Part(Manifold, Protocol):
    r"""A manifold that can be part of a union: it knows how far a point is from it."""

    def distance(self, x: Tensor) -> Tensor:
        r"""Distances of points ``(B, d)`` to the manifold, with shape (B)."""


@checked
class Union:
    r"""A mixture of manifolds whose dimensions may differ.

    Arguments:
        parts: Manifolds of one ambient dimension that tell ``distance(x)`` and whose
            denoisers tell ``log_density(x, sigma)``; those of this module do.
        weights: The share of points on each; equal if not given.

    Example:
        >>> union = Union([Squiggle(1, 30), Squiggle(2, 30, seed=5)])
        >>> x = union.sample(100, torch.Generator().manual_seed(0))
        >>> union.dim, sorted(set(union.dimension_at(x).tolist()))
        (2, [1, 2])
    """

    def __init__(self, parts: Sequence[Part], weights: Sequence[float] | None = None) -> None:
        if not parts or len({p.ambient_dim for p in parts}) != 1:
            raise InputError("a union needs manifolds of one ambient dimension, at least one")
        weights = [1.0] * len(parts) if weights is None else list(weights)
        if len(weights) != len(parts) or not all(0 < w < math.inf for w in weights):
            raise InputError("a union needs one weight above 0 for each manifold")
        self.parts = list(parts)
        self.weights = torch.tensor(weights, dtype=torch.float64) / sum(weights)

    @property
    def dim(self) -> int:
        r"""The largest of the dimensions; :meth:`dimension_at` tells that of a point."""
        return max(p.dim for p in self.parts)

    @property
    def ambient_dim(self) -> int:
        return self.parts[0].ambient_dim

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points, with shape :math:`(N, d)`, in float64."""
        which = torch.multinomial(self.weights, num_samples, replacement=True, generator=rng)
        x = torch.empty(num_samples, self.ambient_dim, dtype=torch.float64)
        for k, part in enumerate(self.parts):
            x[which == k] = part.sample(int((which == k).sum()), rng)
        return x

    def part_at(self, x_0: Tensor) -> Tensor:
        r"""Number of the nearest manifold at points ``(B, d)``, with shape (B)."""
        return torch.stack([p.distance(x_0) for p in self.parts]).argmin(0)

    def dimension_at(self, x_0: Tensor) -> Tensor:
        r"""The dimension at points ``(B, d)``, with shape (B)."""
        return torch.tensor([p.dim for p in self.parts])[self.part_at(x_0)]

    def tangent(self, x_0: Tensor) -> Tensor:
        r"""Orthonormal tangent bases at points ``(B, d)``, with shape :math:`(B, d, m)`.

        Raises:
            InputError: If the points lie on manifolds of different dimension.
        """
        which = self.part_at(x_0)
        dims = sorted({self.parts[k].dim for k in which.tolist()})
        if len(dims) > 1:
            raise InputError(
                f"these points have dimensions {dims}, so their bases are not one tensor; "
                "group them by dimension_at(x_0) first"
            )
        basis = torch.empty(len(x_0), self.ambient_dim, *dims, dtype=torch.float64)
        for k in set(which.tolist()):
            basis[which == k] = self.parts[k].tangent(x_0[which == k])
        return basis

    def population_denoiser(self) -> MixtureDenoiser:
        r"""The exact mixture of the parts' denoisers."""
        components: list[Any] = [p.population_denoiser() for p in self.parts]
        return MixtureDenoiser(self.weights, components)


@checked
def reference_denoiser(
    manifold: Manifold, num_samples: int, rng: torch.Generator
) -> tuple[EmpiricalDenoiser, Callable[[Tensor, Tensor], Tensor]]:
    r"""Population denoiser by a very large sample, where quadrature is out of reach.

    Returns:
        The empirical denoiser of the sample, and a function of ``(x, sigma)`` that states its
        accuracy: half the distance between the denoisers of its two halves, in units of sigma,
        with shape :math:`(B)`. The sample serves where this is small, at levels at which many
        of its points share each noisy point.

    Example:
        >>> from geomem.manifolds.curved import Sphere
        >>> rng = torch.Generator().manual_seed(0)
        >>> denoiser, error = reference_denoiser(Sphere(2, 5), 20_000, rng)
        >>> x = Sphere(2, 5).sample(4, rng)
        >>> bool((error(x, torch.tensor(0.3)) < 0.1).all())
        True
    """
    if num_samples < 2:
        raise InputError("a reference sample needs two halves; pass num_samples >= 2")
    data = manifold.sample(num_samples, rng)
    first, second = (EmpiricalDenoiser(half) for half in data.tensor_split(2))

    def error(x: Tensor, sigma: Tensor) -> Tensor:
        difference = first(x, sigma) - second(x, sigma)
        length: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return length / (2 * sigma)

    return EmpiricalDenoiser(data), error
