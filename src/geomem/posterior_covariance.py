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
from geomem.posterior import Posterior

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
