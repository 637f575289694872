r"""Manifolds that are drawn by a chart: ring torus, swiss roll, hidden manifold.

A chart maps m parameters to points; derivatives of it are the tangents, and quadrature over
the parameters is the population denoiser (:mod:`geomem.manifolds.quadrature`), to an accuracy
that its :meth:`~geomem.manifolds.quadrature.ChartDenoiser.error` measures.

References:
    | Goldt et al., Modelling the influence of data structure on learning: the hidden manifold
    | model, arXiv 1909.11500
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.compute.memory import check_memory
from geomem.errors import InputError
from geomem.manifolds.quadrature import Axis, ChartDenoiser, Embedding, Rule, check_points
from geomem.stats import torch_rng

# Standard normal parameters are integrated up to here: 6e-10 of them lie beyond.
_NORMAL_REACH = 6.2


def normal_axis(cells: int) -> Axis:
    r"""The range of a standard normal parameter."""
    return Axis(-_NORMAL_REACH, _NORMAL_REACH, cells)


@checked
class ChartManifold:
    r"""The image of a chart of m parameters, in d dimensions.

    Arguments:
        chart: Maps parameters ``(n, m)`` to coordinates ``(n, p)``, in float64; smooth.
        axes: The range of each parameter.
        draw: Draws parameters ``(N, m)`` from their density, given N and a generator.
        log_prior: Logarithm of that density, ``(n, m)`` to ``(n)``, up to a constant.
        ambient_dim: The dimension :math:`d \geq p` of the space around.
        seed: The seed of a random frame; the first p coordinates if not given.

    Raises:
        InputError: If the coordinates do not fit into d dimensions.

    Example:
        A parabola:

        >>> curve = ChartManifold(
        ...     lambda t: torch.cat([t, t**2], dim=1),
        ...     [Axis(-1.0, 1.0, closed=False)],
        ...     lambda n, rng: 2 * torch.rand(n, 1, generator=rng, dtype=torch.float64) - 1,
        ...     lambda t: 0 * t[:, 0],
        ...     ambient_dim=5,
        ... )
        >>> curve.tangent(torch.zeros(1, 5)).flatten().abs()
        tensor([1., 0., 0., 0., 0.], dtype=torch.float64)
    """

    def __init__(
        self,
        chart: Callable[[Tensor], Tensor],
        axes: Sequence[Axis],
        draw: Callable[[int, torch.Generator], Tensor],
        log_prior: Callable[[Tensor], Tensor],
        ambient_dim: int,
        *,
        seed: int | None = None,
    ) -> None:
        self.chart, self.axes, self._draw, self._log_prior = chart, list(axes), draw, log_prior
        middle = torch.tensor([[(a.low + a.high) / 2 for a in self.axes]]).double()
        self.embedding = Embedding.of(chart(middle).shape[1], ambient_dim, seed)
        self._guesses: tuple[Tensor, Tensor] | None = None

    @property
    def dim(self) -> int:
        return len(self.axes)

    @property
    def ambient_dim(self) -> int:
        return self.embedding.ambient_dim

    def sample_parameters(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent parameters, with shape :math:`(N, m)`, in float64."""
        return self._draw(num_samples, rng)

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points, with shape :math:`(N, d)`, in float64."""
        return self.points(self.sample_parameters(num_samples, rng))

    def points(self, parameters: Tensor) -> Tensor:
        r"""The points of parameters ``(B, m)``, with shape :math:`(B, d)`."""
        return self.embedding.place(self.chart(parameters.double()))

    def derivatives(self, parameters: Tensor) -> Tensor:
        r"""How points move with each parameter, at ``(B, m)``, with shape (B, d, m)."""
        return self.embedding.frame @ _derivatives(self.chart, parameters.double())

    def tangent_at(self, parameters: Tensor) -> Tensor:
        r"""Orthonormal tangent bases at parameters ``(B, m)``, with shape (B, d, m)."""
        basis: Tensor = torch.linalg.qr(self.derivatives(parameters)).Q
        return basis

    def tangent(self, x_0: Tensor) -> Tensor:
        r"""Orthonormal tangent bases at points ``(B, d)``, with shape :math:`(B, d, m)`.

        Off the manifold, those at the nearest point of it.
        """
        return self.tangent_at(self.parameters(x_0))

    def distance(self, x: Tensor) -> Tensor:
        r"""Distances of points ``(B, d)`` to the manifold, with shape (B)."""
        nearest = self.points(self.parameters(x).to(x.device))
        length: Tensor = torch.linalg.vector_norm(x.double() - nearest, dim=1)
        return length

    def parameters(self, x_0: Tensor) -> Tensor:
        r"""Parameters of the points nearest to ``(B, d)``, with shape :math:`(B, m)`.

        The best of a grid, and Gauss-Newton steps from there, each halved until it improves.
        """
        y = self.embedding.inside(check_points(x_0, self.ambient_dim)).cpu()
        grid, points = self._grid()
        theta = grid[torch.cdist(y, points).argmin(1)]
        for _ in range(30):
            theta = self._improve(theta, y)
        return theta

    def _grid(self) -> tuple[Tensor, Tensor]:
        if self._guesses is None:
            # Parameters of the law, and a regular grid where there can be one.
            theta = self._draw(8192, torch_rng(0, "guesses"))
            if self.dim <= 3:
                lines = [torch.linspace(a.low, a.high, a.cells + 1).double() for a in self.axes]
                theta = torch.cat([theta, torch.cartesian_prod(*lines).reshape(-1, self.dim)])
            self._guesses = theta, self.chart(theta)
        return self._guesses

    def _improve(self, theta: Tensor, y: Tensor) -> Tensor:
        residual = y - self.chart(theta)
        J = _derivatives(self.chart, theta)
        step = torch.linalg.lstsq(J, residual[..., None]).solution[..., 0]
        before, low, high = residual.square().sum(1), *self._ends()
        best = theta
        for shrink in (0.125, 0.25, 0.5, 1.0):
            moved = (theta + shrink * step).clamp(low, high)
            after = (y - self.chart(moved)).square().sum(1)
            better = after < before
            best, before = torch.where(better[:, None], moved, best), after.minimum(before)
        return best

    def _ends(self) -> tuple[Tensor, Tensor]:
        low, high = zip(*((a.low, a.high) for a in self.axes), strict=True)
        return torch.tensor(low).double(), torch.tensor(high).double()

    def population_denoiser(self, rule: Rule | None = None) -> ChartDenoiser:
        r"""The population denoiser, by quadrature over the parameters.

        Raises:
            InputError: If there are more than 3 parameters: quadrature is out of reach.
        """
        if self.dim > 3:
            raise InputError(
                f"quadrature over {self.dim} parameters takes too many nodes; "
                "use reference_denoiser(manifold, num_samples, rng) and state its accuracy"
            )
        return ChartDenoiser(self.chart, self._log_prior, self.axes, self.embedding, rule)


def _derivatives(chart: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    # The pullback is linear in its cotangent, so its own pullback is the pushforward: one
    # backward pass a parameter for all rows, which do not see each other.
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        y = chart(theta)
        cotangent = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, theta, cotangent, create_graph=True)
        columns = [
            torch.autograd.grad(pulled[:, k].sum(), cotangent, retain_graph=True)[0]
            for k in range(theta.shape[1])
        ]
    return torch.stack(columns, dim=2)


@checked
class RingTorus(ChartManifold):
    r"""The torus of a ring, uniform in its area: the product of circles bent into 3-d.

    Arguments:
        ambient_dim: The dimension :math:`d \geq 3` of the space around.
        ring: The radius of the ring.
        tube: The radius of its tube, less than that of the ring.
        seed: The seed of a random frame; the first 3 coordinates if not given.
    """

    def __init__(
        self, ambient_dim: int, ring: float = 1.0, tube: float = 0.4, *, seed: int | None = None
    ) -> None:
        if not 0 < tube < ring < math.inf:
            raise InputError(f"a ring torus has 0 < tube < ring, got {tube} and {ring}")
        self.ring, self.tube = ring, tube
        axes = [Axis(0, math.tau, 48), Axis(0, math.tau, 24)]
        super().__init__(self._map, axes, self._angles, self._log_area, ambient_dim, seed=seed)

    def _map(self, theta: Tensor) -> Tensor:
        u, v = theta.unbind(1)
        out = self.ring + self.tube * v.cos()
        return torch.stack([out * u.cos(), out * u.sin(), self.tube * v.sin()], dim=1)

    def _log_area(self, theta: Tensor) -> Tensor:
        return (self.ring + self.tube * theta[:, 1].cos()).log()

    def _angles(self, num_samples: int, rng: torch.Generator) -> Tensor:
        # Rejection: half or more of the angles are kept, the inside of the ring less often.
        kept = torch.zeros(0, 2, dtype=torch.float64)
        while len(kept) < num_samples:
            u = torch.rand(2 * num_samples, 3, generator=rng, dtype=torch.float64)
            theta = math.tau * u[:, :2]
            area = (self.ring + self.tube * theta[:, 1].cos()) / (self.ring + self.tube)
            kept = torch.cat([kept, theta[u[:, 2] < area]])
        return kept[:num_samples]


@checked
class SwissRoll(ChartManifold):
    r"""The swiss roll, rolled from a rectangle, of largest radius 1.

    The angle is uniform in :math:`[3 \pi / 2, 9 \pi / 2]` and the height in [-1, 1], as is
    usual; it ends abruptly, so cells hold Gauss-Legendre nodes.

    Arguments:
        ambient_dim: The dimension :math:`d \geq 3` of the space around.
        seed: The seed of a random frame; the first 3 coordinates if not given.
    """

    def __init__(self, ambient_dim: int, *, seed: int | None = None) -> None:
        axes = [
            Axis(1.5 * math.pi, 4.5 * math.pi, 64, closed=False),
            Axis(-1.0, 1.0, 12, closed=False),
        ]
        super().__init__(_roll, axes, uniform_draw(axes), flat_log_prior, ambient_dim, seed=seed)


def _roll(theta: Tensor) -> Tensor:
    t, height = theta.unbind(1)
    radius = t / (4.5 * math.pi)
    return torch.stack([radius * t.cos(), height, radius * t.sin()], dim=1)


def uniform_draw(axes: Sequence[Axis]) -> Callable[[int, torch.Generator], Tensor]:
    r"""Draws parameters uniformly between the ends of their axes."""
    low = torch.tensor([a.low for a in axes], dtype=torch.float64)
    size = torch.tensor([a.high - a.low for a in axes], dtype=torch.float64)

    def draw(num_samples: int, rng: torch.Generator) -> Tensor:
        return low + size * torch.rand(num_samples, len(axes), generator=rng, dtype=torch.float64)

    return draw


def flat_log_prior(theta: Tensor) -> Tensor:
    r"""Log-density of uniform parameters ``(n, m)``."""
    return torch.zeros(len(theta), dtype=torch.float64)


def normal_draw(dim: int) -> Callable[[int, torch.Generator], Tensor]:
    r"""Draws standard normal parameters."""
    return lambda n, rng: torch.randn(n, dim, generator=rng, dtype=torch.float64)


def normal_log_prior(theta: Tensor) -> Tensor:
    r"""Log-density of standard normal parameters ``(n, m)``, up to a constant."""
    return -theta.square().sum(1) / 2


@checked
class HiddenManifold(ChartManifold):
    r"""The hidden manifold :math:`y = \tanh(F z)` of a normal latent :math:`z`.

    F has normal entries of variance 1/m, so that each coordinate is bent alike.

    Arguments:
        dim: The dimension m of the latent.
        ambient_dim: The dimension d of the space around.
        features: How many coordinates y has, at most d; d if not given. With fewer, they lie
            in a random frame, and quadrature takes less memory.
        seed: The seed of F and of the frame.

    Raises:
        InputError: If m is not between 1 and the number of coordinates.
    """

    def __init__(
        self,
        dim: int,
        ambient_dim: Annotated[int, Whole(least=1, most=10**8)],
        *,
        features: Annotated[int, Whole(least=1, most=10**8)] | None = None,
        seed: int = 0,
    ) -> None:
        features = ambient_dim if features is None else features
        if not 1 <= dim <= features:
            raise InputError(f"a latent of dim {dim} needs 1 <= dim <= {features} features")
        check_memory(16.0 * features * dim, "this manifold", "pass fewer `features`")
        rng = torch.Generator().manual_seed(seed)
        F = torch.randn(features, dim, generator=rng, dtype=torch.float64) / dim**0.5
        cells = {1: 256, 2: 64, 3: 24}.get(dim, 1)
        super().__init__(
            lambda z: (z @ F.T).tanh(),
            [normal_axis(cells)] * dim,
            normal_draw(dim),
            normal_log_prior,
            ambient_dim,
            seed=None if features == ambient_dim else seed + 1,
        )
