r"""Posterior covariance of an exact denoiser, on the training points that carry weight.

With weights :math:`w_i` and mean :math:`m`, :math:`\mathrm{Cov} = F F^\top` for the factor with
columns :math:`\sqrt{w_i} (x_i - m)`. Where memorization lives few points weigh, the factor is
thin, and the whole spectrum costs an eigendecomposition of their number. Where more points
than coordinates weigh, they are added up to the matrix itself.

One pass finds both: products select the points (float32 is enough to select), explicit
differences from the query, in float64, are what is added up.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from geomem.exact.neighbours import scores
from geomem.exact.one_pass import Block
from geomem.exact.posterior import scale
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
        x: The query about the centre, with shape :math:`(d)`, in float64.
        sigma: The noise level.
        blocks: The training points.
        log_tolerance: Logarithm of the weight, relative to the heaviest point's, below which
            a point may be left out.
        dtype: The dtype of the products that select points.
        unit: What lengths are divided by.

    Returns:
        A :class:`Factored` of shape :math:`(d, k)` for k <= d kept points, else a matrix.
    """
    moments = _Moments(len(x))
    for logits, differences in _kept(x, sigma, blocks, log_tolerance, dtype):
        moments.add(logits, differences / unit)
    return moments.operator(log_tolerance)


def _kept(
    x: Tensor, sigma: float, blocks: Iterable[Block], log_tolerance: float, dtype: torch.dtype
) -> Iterable[tuple[Tensor, Tensor]]:
    # Exponents and differences x_i - x of all points that may weigh, a working array at a time.
    size = max(1, _BYTES // (8 * len(x)))
    nearest = torch.inf
    for block in blocks:
        found, error = scores(x[None], block, dtype)
        squares, margin = found[0].double() + x.square().sum(), float(error)
        nearest = min(nearest, float(squares.min()))
        limit = nearest + 2 * margin - 2 * sigma**2 * log_tolerance
        for some in torch.split((squares <= limit).nonzero()[:, 0], size):
            differences = block.centred(some) - x
            yield -differences.square().sum(1) / (2 * sigma**2), differences


class _Moments:
    # Points one by one while they are few; their weighted sums, about their mean, once they
    # outnumber the coordinates. All weights are relative to exp(largest).
    def __init__(self, d: int) -> None:
        self.d, self.largest = d, -torch.inf
        self.logits: list[Tensor] = []
        self.rows: list[Tensor] = []
        self.sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, logits: Tensor, rows: Tensor) -> None:
        self.logits.append(logits)
        self.rows.append(rows)
        if sum(len(r) for r in self.rows) > 2 * self.d:
            self.fold()

    def fold(self) -> None:
        logits, rows = torch.cat(self.logits), torch.cat(self.rows)
        self.logits, self.rows = [], []
        largest = max(self.largest, float(logits.max()))
        weights = (logits - largest).exp()
        total, old = weights.sum(), torch.tensor(self.largest - largest, dtype=logits.dtype).exp()
        self.largest = largest
        if total == 0:  # far lighter than what was there before
            return
        mean = weights @ rows / total
        centred = rows - mean
        second = centred.T @ (weights[:, None] * centred)
        if self.sums is not None:
            # Two sets about their own means (Chan et al. 1983): nothing cancels.
            before = old * self.sums[0]
            step, share = mean - self.sums[1], total / (before + total)
            second += old * self.sums[2] + before * share * torch.outer(step, step)
            mean, total = self.sums[1] + share * step, before + total
        self.sums = total, mean, second

    def operator(self, log_tolerance: float) -> LinearOperator:
        if self.sums is None:
            logits, rows = torch.cat(self.logits), torch.cat(self.rows)
            seen = logits >= logits.max() + log_tolerance
            if int(seen.sum()) <= self.d:
                weights = logits[seen].softmax(0)[:, None]
                centred = rows[seen] - (weights * rows[seen]).sum(0)
                return Factored((weights.sqrt() * centred).T)
        if self.logits:
            self.fold()
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
