r"""Posterior covariance of an exact denoiser, on the training points that carry weight.

With weights :math:`w_i` and mean :math:`m`, :math:`\mathrm{Cov} = F F^\top` for the factor with
columns :math:`\sqrt{w_i} (x_i - m)`. Where memorization lives few points weigh, the factor is
thin, and the whole spectrum costs an eigendecomposition of their number. Where more points
than coordinates weigh, they are added up to the matrix itself.

One pass finds both: products select the points (float32 is enough to select), explicit
differences from the query, in float64, are what is added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from geomem.exact.blocks import Block
from geomem.exact.neighbours import scores
from geomem.exact.posterior import LOG_WEIGHT_ERROR, rounding_of_products, scale
from geomem.exact.twofold import divide, squared_distances
from geomem.operators import Factored, LinearOperator, Matrix

_BYTES = 2**25


def covariance_operator(
    x: Tensor,
    sigma: float,
    blocks: Iterable[Block],
    log_tolerance: float,
    dtype: torch.dtype,
    unit: float,
) -> LinearOperator:
    r"""Covariance of the posterior at one point, in units of ``unit`` squared.

    Arguments:
        x: The query, with shape :math:`(d)`, in float64.
        sigma: The noise level.
        blocks: The training points.
        log_tolerance: Logarithm of the weight, relative to the heaviest point's, below which
            a point may be left out.
        dtype: The dtype of the products that select points.
        unit: What lengths are divided by.

    Returns:
        A :class:`Factored` of shape :math:`(d, k)` for k <= d kept points, else a matrix.
    """
    moments, nearest = _Moments(len(x)), torch.inf
    size = max(1, _BYTES // (8 * len(x)))
    for block in blocks:
        found, error = scores(x[None], block, dtype)
        squares = found[0].double() + (x - block.centre).square().sum()
        nearest = min(nearest, float(squares.min()))
        limit = nearest + 2 * float(error) - 2 * sigma**2 * log_tolerance
        for some in torch.split((squares <= limit).nonzero()[:, 0], size):
            if len(some) == 0:  # all far beyond what came before
                continue
            points = block.points(some)
            moments.add(*_energies(x, points, sigma), (points - x) / unit)
    return moments.operator(log_tolerance)


def _energies(x: Tensor, points: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    # Exponents, to 32 digits where those of float64 would blur the weights.
    variance = points.new_tensor(2 * sigma**2)
    squares = (points - x).square().sum(1)
    error = rounding_of_products(squares.amin(), squares.new_zeros(()), len(x))
    if float(error) <= LOG_WEIGHT_ERROR * float(variance):
        return squares / variance, torch.zeros_like(squares)
    some = torch.split(points, max(1, 2**18 // len(x)))
    found = [squared_distances(x.expand_as(part), part) for part in some]
    high, low = (torch.cat([pair[k] for pair in found]) for k in (0, 1))
    return divide(high, low, variance)


class _Moments:
    # Points one by one while they are few; their weighted sums, about their mean, once they
    # outnumber the coordinates. All weights are relative to the nearest point's, whose exponent
    # is a sum of two float64.
    def __init__(self, d: int) -> None:
        self.d, self.least = d, (torch.inf, 0.0)
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, high: Tensor, low: Tensor, rows: Tensor) -> None:
        self.parts.append((high, low, rows))
        if sum(len(r) for _, _, r in self.parts) > 2 * self.d:
            self.fold(*self.gather())

    def gather(self) -> tuple[Tensor, Tensor, float]:
        r"""Logarithms of weights and rows of what came since, and that of the sums before."""
        high, low, rows = (torch.cat([part[k] for part in self.parts]) for k in range(3))
        first = float(high.min())
        new, old = min(self.least, (first, float(low[high == first].min()))), self.least
        self.parts, self.least = [], new
        return (new[0] - high) + (new[1] - low), rows, (new[0] - old[0]) + (new[1] - old[1])

    def fold(self, logs: Tensor, rows: Tensor, before: float) -> None:
        weights = logs.exp()
        total, old = weights.sum(), math.exp(before)
        if total == 0:  # far lighter than what was there before
            return
        mean = weights @ rows / total
        centred = rows - mean
        second = centred.T @ (weights[:, None] * centred)
        if self.sums is not None:
            # Two sets about their own means (Chan et al. 1983): nothing cancels.
            known = old * self.sums[0]
            step, share = mean - self.sums[1], total / (known + total)
            second += old * self.sums[2] + known * share * torch.outer(step, step)
            mean, total = self.sums[1] + share * step, known + total
        self.sums = total, mean, second

    def operator(self, log_tolerance: float) -> LinearOperator:
        if self.sums is None:
            logs, rows, before = self.gather()
            seen = logs >= log_tolerance
            if int(seen.sum()) <= self.d:
                weights = logs[seen].softmax(0)[:, None]
                centred = rows[seen] - (weights * rows[seen]).sum(0)
                return Factored((weights.sqrt() * centred).T)
            self.fold(logs, rows, before)
        if self.parts:
            self.fold(*self.gather())
        assert self.sums is not None  # a set has at least one point
        total, _, second = self.sums
        return Matrix(second / total)


def diagonal(projected: list[Tensor], weights: Tensor, sigma: Tensor) -> Tensor:
    r"""Variances along directions over :math:`\sigma^2`, from projections and weights.

    Arguments:
        projected: The points' coordinates along the directions, in parts ``(n_k, m)``.
        weights: The posterior weights of all of them, with shape :math:`(B, N)`.
        sigma: The noise level, with shape :math:`()` or :math:`(B)`, in float64.

    Returns:
        The diagonal of the Jacobian, with shape :math:`(B, m)`.
    """
    shares = torch.split(weights, [len(p) for p in projected], dim=1)
    parts = list(zip(shares, projected, strict=True))
    mean = torch.stack([w @ p for w, p in parts]).sum(0)
    level: Tensor = scale(sigma.square(), mean.new_ones(len(weights), 1))
    largest = max(float(p.square().max()) for p in projected)
    if largest * torch.finfo(torch.float64).eps > 1e-10 * float(level.min()):
        # E p² - (E p)² would cancel to noise; about the mean of each query it does not.
        rows = [sum(w[b] @ (p - m).square() for w, p in parts) for b, m in enumerate(mean)]
        return torch.stack([torch.as_tensor(row) for row in rows]) / level
    second = torch.stack([w @ p.square() for w, p in parts]).sum(0)
    variance: Tensor = (second - mean.square()).clamp(min=0)
    return variance / level
