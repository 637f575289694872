r"""Population denoisers by quadrature: integrals over a chart instead of sums over a sample.

A manifold that is the image of a chart :math:`\varphi` of m parameters with density
:math:`\pi` has the denoiser

.. math::
    D(x, \sigma) = \frac{\int \varphi(\theta) \, \pi(\theta) \, e^{-\|x - \varphi(\theta)\|^2
        / 2 \sigma^2} \, d\theta}{\int \pi(\theta) \, e^{-\|x - \varphi(\theta)\|^2
        / 2 \sigma^2} \, d\theta} \, .

Only parameters whose point lies within a few sigma of the nearest one count, so cells are
split and dropped until those that are left are as small as the noise. The number of nodes
then depends on m and hardly on sigma. Where the integrand is periodic or vanishes at the
ends, the midpoint rule with spacing h is wrong by :math:`e^{-2 \pi^2 \sigma^2 / h^2}` only
(5e-9 at h = sigma); along other axes cells hold Gauss-Legendre nodes.

References:
    | Trefethen & Weideman, The exponentially convergent trapezoidal rule, SIAM Review (2014)
    | https://doi.org/10.1137/130932132
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geomem.arguments import checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.noise import level_of_each

Chart = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Embedding:
    r"""Where a manifold of p coordinates lies in d dimensions: at ``centre + frame @ y``.

    Arguments:
        frame: Orthonormal columns, with shape :math:`(d, p)`.
        centre: The image of 0, with shape :math:`(d)`.
    """

    frame: Tensor
    centre: Tensor

    @classmethod
    def of(cls, size: int, ambient_dim: int, seed: int | None = None) -> Embedding:
        r"""The first coordinates, or a random frame of a seed.

        Raises:
            InputError: If p coordinates do not fit into d dimensions.
        """
        if not 1 <= size <= ambient_dim:
            raise InputError(
                f"{size} coordinates do not fit into ambient_dim = {ambient_dim}; "
                f"pass ambient_dim >= {max(size, 1)}"
            )
        Forecast(0, 32.0 * min(ambient_dim, 2**60) * size).check_memory(
            "pass a smaller `ambient_dim`"
        )
        frame = torch.eye(ambient_dim, size, dtype=torch.float64)
        if seed is not None:
            rng = torch.Generator().manual_seed(seed)
            frame = torch.linalg.qr(
                torch.randn(ambient_dim, size, generator=rng, dtype=torch.float64)
            ).Q
        return cls(frame, torch.zeros(ambient_dim, dtype=torch.float64))

    @property
    def ambient_dim(self) -> int:
        return self.frame.shape[0]

    def inside(self, x: Tensor) -> Tensor:
        r"""Coordinates of points ``(B, d)`` in the frame, with shape (B, p), in float64."""
        return (x.double() - self.centre.to(x.device)) @ self.frame.to(x.device)

    def outside(self, x: Tensor) -> Tensor:
        r"""Squared distances of points ``(B, d)`` from the frame's span, with shape (B)."""
        y = self.inside(x)
        return (x.double() - self.place(y)).square().sum(1)

    def place(self, y: Tensor) -> Tensor:
        r"""Points with coordinates ``(B, p)``, with shape (B, d)."""
        return self.centre.to(y.device) + y @ self.frame.to(y.device).T


def check_points(x: Tensor, size: int) -> Tensor:
    r"""Points ``(B, d)``, if they are finite and as long as they should be."""
    if x.ndim != 2 or x.shape[1] != size:
        raise InputError(f"points must have shape (B, {size}), got {tuple(x.shape)}")
    if not bool(torch.isfinite(x.detach()).all()):
        raise InputError("a point holds NaN or infinite values; check where it comes from")
    return x


def gaussian_log_norm(sigma: Tensor, size: int) -> Tensor:
    r"""Logarithm of the normalising constant of isotropic noise in ``size`` dimensions."""
    return size * (sigma.double().log() + math.log(math.tau) / 2)


@checked
class QuadratureDenoiser:
    r"""Exact denoiser of nodes with weights: an integral as a sum, whatever the rule.

    .. math:: D(x, \sigma) = \frac{\sum_i w_i e^{-\|x - y_i\|^2 / 2 \sigma^2} \, y_i}
        {\sum_i w_i e^{-\|x - y_i\|^2 / 2 \sigma^2}}

    With equal weights it is the empirical denoiser; with importance weights, a reference
    sample that was drawn from another density. It is differentiable in ``x``.

    Arguments:
        nodes: The points :math:`y_i`, with shape :math:`(N, d)`.
        weights: Their weights :math:`w_i`, not negative, with shape :math:`(N)`; any scale.

    Raises:
        InputError: If shapes do not match, or a number is not finite or is negative.

    Example:
        >>> denoiser = QuadratureDenoiser(torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, 3.0]))
        >>> denoiser(torch.tensor([[0.5]]), torch.tensor(0.1))
        tensor([[0.7500]])
    """

    exact: Literal[True] = True

    def __init__(self, nodes: Tensor, weights: Tensor) -> None:
        nodes, weights = nodes.double(), weights.double()
        if nodes.ndim != 2 or not len(nodes) or weights.shape != nodes.shape[:1]:
            raise InputError(
                f"nodes (N, d) need one weight each; got shapes {tuple(nodes.shape)} "
                f"and {tuple(weights.shape)}"
            )
        if not bool(torch.isfinite(nodes).all() and torch.isfinite(weights).all()):
            raise InputError("nodes and weights must be finite; drop those that are not")
        if bool((weights < 0).any()) or float(weights.sum()) == 0:
            raise InputError("weights must not be negative and not all 0")
        kept = weights > 0
        self.nodes = nodes[kept]
        self.log_weights = (weights[kept] / weights.sum()).log()

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        parts = [weighted_mean(y, t, *known)[0] for y, t, known in self._points(x, sigma)]
        return torch.stack(parts).reshape(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        logs = [weighted_mean(y, t, *known)[1] for y, t, known in self._points(x, sigma)]
        return torch.stack(logs) - gaussian_log_norm(level_of_each(sigma, x), x[0].numel())

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor | float, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``, with shape :math:`(B, n)`, in float64."""
        U = directions.double().to(x.device)
        return torch.stack([variances(y, t, *known, U) for y, t, known in self._points(x, sigma)])

    def _points(
        self, x: Tensor, sigma: Tensor | float
    ) -> Iterator[tuple[Tensor, Tensor, tuple[Tensor, Tensor]]]:
        flat = check_points(x.flatten(1), self.nodes.shape[1]).double()
        known = self.nodes.to(x.device), self.log_weights.to(x.device)
        for y, t in zip(flat, level_of_each(sigma, x), strict=True):
            yield y, t, known


def weighted_mean(
    y: Tensor, sigma: Tensor, nodes: Tensor, log_weights: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Posterior mean ``(p)`` and log of the sum of weights ``()`` at one point ``(p)``.

    Nodes are taken about the one nearest to ``y``: differences of points that are a few
    sigma apart keep their digits at any sigma, and the mean moves little from that node.
    """
    nearest, about, logits = _about_nearest(y, sigma, nodes, log_weights)
    mean = nearest + logits.softmax(0) @ about
    return mean, logits.logsumexp(0) - (y - nearest).square().sum() / (2 * sigma**2)


def variances(
    y: Tensor, sigma: Tensor, nodes: Tensor, log_weights: Tensor, directions: Tensor
) -> Tensor:
    r"""Posterior variances along directions ``(p, n)`` over sigma², with shape ``(n)``."""
    _, about, logits = _about_nearest(y, sigma, nodes, log_weights)
    weights, along = logits.softmax(0), about @ directions
    spread: Tensor = weights @ (along - weights @ along).square()
    return spread / sigma**2


def _about_nearest(
    y: Tensor, sigma: Tensor, nodes: Tensor, log_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        nearest = nodes[(nodes - y).square().sum(1).argmin()]
    about = nodes - nearest
    # -|y - y_i|²/2 sigma² up to its value at the nearest node
    logits = log_weights + (about @ (y - nearest) - about.square().sum(1) / 2) / sigma**2
    return nearest, about, logits


@dataclass(frozen=True)
class Axis:
    r"""One parameter of a chart: its range, and what happens at the ends of it.

    Arguments:
        low: The lower end.
        high: The upper end.
        cells: How many cells it is cut into at first; enough to resolve the chart.
        closed: Whether the integrand is periodic or vanishes at both ends.
    """

    low: float
    high: float
    cells: int = 32
    closed: bool = True


@dataclass(frozen=True, kw_only=True)
class Rule:
    r"""How finely a chart is integrated.

    Arguments:
        spacing: The largest distance of nodes along a closed axis, in units of sigma.
        panel: The largest length of a cell along an open axis, in units of sigma.
        order: How many Gauss-Legendre nodes such a cell holds.
        reach: Cells lighter than ``exp(-reach)`` of the heaviest are dropped.
    """

    spacing: float = 1.0
    panel: float = 1.5
    order: int = 5
    reach: float = 24.0

    def finer(self) -> Rule:
        r"""The rule with half the spacing, against which this one is measured."""
        return dataclasses.replace(
            self, spacing=self.spacing / 2, panel=self.panel / 2, reach=self.reach + 10
        )


class ChartDenoiser:
    r"""Population denoiser of the image of a chart, by quadrature around each point.

    Arguments:
        chart: Maps parameters ``(n, m)`` to points ``(n, p)``, in float64.
        log_prior: Logarithm of the density of parameters, ``(n, m)`` to ``(n)``, up to a
            constant.
        axes: One range for each parameter.
        embedding: Where the points lie in the ambient space.
        rule: How finely to integrate; :meth:`error` says what it is worth.
    """

    exact: Literal[True] = True

    def __init__(
        self,
        chart: Chart,
        log_prior: Chart,
        axes: Sequence[Axis],
        embedding: Embedding,
        rule: Rule | None = None,
    ) -> None:
        self.chart, self.log_prior, self.axes = chart, log_prior, list(axes)
        self.embedding, self.rule = embedding, rule or Rule()
        self._base = _grid(self.axes)
        self._half = torch.tensor([(a.high - a.low) / a.cells / 2 for a in self.axes]).double()
        self._first = self._measure(self._base, self._half)
        # The density is normalised on the first cells: exact where the rule is.
        nodes, logs = self._nodes_in(self._base, self._half)
        self._log_total = (log_prior(nodes) + logs).logsumexp(0)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self._evaluate(x, sigma)[0].to(x.dtype)

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor | float, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``, with shape :math:`(B, n)`, in float64."""
        y = self.embedding.inside(check_points(x, self.embedding.ambient_dim))
        U = (self.embedding.frame.T @ directions.to(self.embedding.frame)).to(x.device)
        pairs = zip(y, level_of_each(sigma, x), strict=True)
        return torch.stack([variances(p, t, *self._seen(p, t), U) for p, t in pairs])

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        levels = level_of_each(sigma, x)
        logs = self._evaluate(x, sigma)[1] - self.embedding.outside(x) / (2 * levels**2)
        return logs - gaussian_log_norm(levels, self.embedding.ambient_dim)

    def error(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Distance to the same denoiser on more cells at half the spacing, in units of sigma.

        Arguments:
            x: The noisy points, with shape :math:`(B, d)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.

        Returns:
            :math:`\|D - D_{h/2}\| / \sigma`, with shape :math:`(B)`.
        """
        axes = [dataclasses.replace(a, cells=math.ceil(1.5 * a.cells)) for a in self.axes]
        rule = self.rule.finer()
        finer = ChartDenoiser(self.chart, self.log_prior, axes, self.embedding, rule)
        x = x.detach().double()
        difference = self(x, sigma) - finer(x, sigma)
        length: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return length / sigma.double()

    def _evaluate(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        check_points(x, self.embedding.ambient_dim)
        pairs = zip(self.embedding.inside(x), level_of_each(sigma, x), strict=True)
        found = [weighted_mean(y, t, *self._seen(y, t)) for y, t in pairs]
        means, logs = zip(*found, strict=True)
        return self.embedding.place(torch.stack(means)), torch.stack(logs)

    def _seen(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        # Points of the chart that weigh something, and the logarithms of their weights.
        with torch.no_grad():
            theta, log_weights = self.nodes(y.detach(), sigma.detach())
            points = self.chart(theta).to(y.device)
            logs = (log_weights + self.log_prior(theta) - self._log_total).to(y.device)
            energy = (points - y).square().sum(1) / (2 * sigma**2) - logs
            seen = energy <= energy.min() + self.rule.reach
        return points[seen], logs[seen]

    def nodes(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        r"""Parameters ``(n, m)`` and log-weights ``(n)`` of the integral seen from one point.

        Arguments:
            y: The point in the frame's coordinates, with shape :math:`(p)`.
            sigma: The noise level, with shape :math:`()`.
        """
        y, sigma = y.cpu(), sigma.cpu()
        centres, half, measured = self._base, self._half, self._first
        allowed = torch.tensor([self._allowed(a) for a in self.axes]).double() * sigma
        while True:
            kept = self._visible(y, sigma, *measured)
            centres, lengths = centres[kept], measured[1][kept]
            too_long = lengths.amax(0) / allowed
            if float(too_long.max()) <= 1 or float((half / self._half).min()) < 1e-12:
                return self._nodes_in(centres, half)
            centres, half = _split(centres, half, int(too_long.argmax()))
            measured = self._measure(centres, half, y)

    def _allowed(self, axis: Axis) -> float:
        return self.rule.spacing if axis.closed else self.rule.panel

    def _measure(
        self, centres: Tensor, half: Tensor, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Points, lengths of the cells along each axis (n, m), log-densities, and how far a
        # cell can reach towards y, in squared distance: inf where y is not known.
        points, lengths = self.chart(centres), []
        reach = torch.full((len(centres),), 0.0 if y is not None else math.inf).double()
        for step in half.diag():
            after, before = self.chart(centres + step), self.chart(centres - step)
            lengths.append((after - before).norm(dim=1))
            if y is not None:
                # |y - p - d t/2 - s t²/2|² >= |y - p|² - |(y - p)·d| - |y - p| |s|, t from
                # -1 to 1; a quarter more of d, and m of s, for what is oblique and twisted.
                ray, bend = y - points, (after + before - 2 * points).norm(dim=1)
                reach += 1.25 * ((after - before) * ray).sum(1).abs()
                reach += len(half) * bend * ray.norm(dim=1)
        return points, torch.stack(lengths, dim=1), self.log_prior(centres), reach

    def _visible(
        self,
        y: Tensor,
        sigma: Tensor,
        points: Tensor,
        lengths: Tensor,
        log_prior: Tensor,
        reach: Tensor,
    ) -> Tensor:
        # No point of a cell is nearer than its centre by more than the cell's radius: half its
        # diagonal, and half as much again because charts bend and axes are oblique.
        distance, radius = (points - y).norm(dim=1), 0.75 * lengths.norm(dim=1)
        squares = distance.square()
        nearest = torch.maximum((distance - radius).clamp(min=0).square(), squares - reach)
        least = (squares / (2 * sigma**2) - log_prior).min()
        visible: Tensor = nearest / (2 * sigma**2) - log_prior <= least + self.rule.reach
        return visible

    def _nodes_in(self, centres: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        nodes, logs = centres, half.log().sum().expand(len(centres)) + math.log(2) * len(half)
        for k, axis in enumerate(self.axes):
            if axis.closed:
                continue
            t, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(self.rule.order))
            shift = torch.zeros(len(t), nodes.shape[1], dtype=torch.float64)
            shift[:, k] = t * half[k]
            nodes = (nodes[:, None] + shift).flatten(0, 1)
            logs = (logs[:, None] + (w / 2).log()).flatten()
        return nodes, logs


def _grid(axes: Sequence[Axis]) -> Tensor:
    # Centres of all cells, with shape (n, m).
    lines = [
        a.low + (torch.arange(a.cells, dtype=torch.float64) + 0.5) * (a.high - a.low) / a.cells
        for a in axes
    ]
    return torch.cartesian_prod(*lines).reshape(-1, len(axes))


def _split(centres: Tensor, half: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    # Each cell in two along one axis: most halves are dropped before the next is split.
    half = half.clone()
    half[axis] /= 2
    step = torch.zeros_like(half)
    step[axis] = half[axis]
    return torch.cat([centres - step, centres + step]), half
