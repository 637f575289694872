r"""Posterior covariance of an exact denoiser, on the training points that carry weight.

With weights :math:`w_i` and mean :math:`m`, :math:`\mathrm{Cov} = F F^\top` for the factor with
columns :math:`\sqrt{w_i} (x_i - m)`. Where memorization lives few points weigh, the factor is
thin, and the whole spectrum costs an eigendecomposition of their number.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from geomem.one_pass import Block, distances
from geomem.operators import Factored, LinearOperator, Matrix
from geomem.posterior import Posterior, scale

_BYTES = 2**25


def covariance_operator(
    x: Tensor,
    sigma: float,
    blocks: Iterable[Block],
    known: Posterior,
    log_tolerance: float,
    unit: float,
) -> LinearOperator:
    r"""Covariance of the posterior at one point, in units of ``unit`` squared.

    Arguments:
        x: The query about the centre, with shape :math:`(d)`, in float64.
        sigma: The noise level.
        blocks: The training points.
        known: The posterior at the query, with its mean.
        log_tolerance: Logarithm of the weight below which a point may be left out.
        unit: What lengths are divided by.

    Returns:
        A :class:`Factored` of shape :math:`(d, k)` for k < d kept points, else a matrix.
    """
    floor = float(known.log_partition) + log_tolerance
    mean = known.mean[0, 0]
    rows = _kept(x, sigma, blocks, floor, mean, float(known.log_partition), unit)
    columns: list[Tensor] = []
    matrix: Tensor | None = None
    for part in rows:
        columns.append(part)
        if matrix is not None or sum(len(c) for c in columns) >= len(x):
            gram = sum((c.T @ c for c in columns), torch.zeros((), dtype=x.dtype))
            matrix = gram if matrix is None else matrix + gram
            columns = []
    if matrix is not None:
        rest = torch.cat([*columns, x.new_zeros(1, len(x))])
        return Matrix(matrix + rest.T @ rest)
    return Factored(torch.cat([*columns, x.new_zeros(0, len(x))]).T)


def _kept(
    x: Tensor,
    sigma: float,
    blocks: Iterable[Block],
    floor: float,
    mean: Tensor,
    log_partition: float,
    unit: float,
) -> Iterable[Tensor]:
    # Rows sqrt(w) (x_i - m) of the points above the floor, a working array at a time.
    size = max(1, _BYTES // (8 * len(x)))
    for block in blocks:
        near = distances(x[None], block, torch.float64)
        limit = -2 * sigma**2 * floor - float(near.nearest) + 2 * float(near.error)
        index = (near.excess[0] <= limit).nonzero()[:, 0]
        for some in torch.split(index, size):
            y = block.centred(some)
            log_weights = -(y - x).square().sum(1) / (2 * sigma**2) - log_partition
            yield (log_weights / 2).exp()[:, None] * (y - mean) / unit


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
