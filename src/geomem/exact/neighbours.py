r"""Exact nearest neighbours: found by products of matrices, confirmed by differences.

A product finds candidates about as fast as the machine multiplies; its rounding may exchange
near ones. So a few more are taken than asked for, their distances are computed again in
float64, and the answer stands if no point outside could have been nearer. If one could, more
are taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact.blocks import NOT_FINITE, Block
from geomem.exact.one_pass import smallest

_BYTES, _EXTRA = 2**24, 16


def nearest(
    x: Tensor, blocks: Iterable[Block], k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    r"""The ``k`` nearest points of all blocks, exactly.

    Arguments:
        x: The queries, with shape :math:`(B, d)`, in float64.
        blocks: The training points, in order; together at least ``k``.
        k: How many.
        dtype: The dtype of the products that find candidates.

    Returns:
        Indices and distances (float64), each with shape :math:`(B, k)`, nearest first.
    """
    index = torch.empty(len(x), 0, dtype=torch.long, device=x.device)
    distance = x.new_empty(len(x), 0)
    start = 0
    for block in blocks:
        found, far = _nearest_of_block(x, block, min(k, len(block)), dtype)
        index = torch.cat([index, found + start], dim=1)
        distance = torch.cat([distance, far], dim=1)
        # Stable: of equal distances, the point that comes first in the data comes first.
        order = distance.sort(dim=1, stable=True).indices[:, :k]
        index, distance = index.gather(1, order), distance.gather(1, order)
        start += len(block)
    return index, distance


def _nearest_of_block(x: Tensor, block: Block, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    approximate, error = scores(x, block, dtype)
    index = x.new_zeros(len(x), k, dtype=torch.long)
    distance = x.new_zeros(len(x), k)
    rows, count = torch.arange(len(x), device=x.device), min(k + _EXTRA, len(block))
    while len(rows):
        all_rows = len(rows) == len(x)
        some = approximate if all_rows else approximate[rows]
        found, far, certain = _candidates(x[rows], block, some, error[rows], k, count)
        index[rows[certain]], distance[rows[certain]] = found[certain], far[certain]
        rows, count = rows[~certain], min(4 * count, len(block))
    return index, distance


def scores(x: Tensor, block: Block, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r""":math:`|x_i|^2 - 2 x \cdot x_i` about the centre, with shape :math:`(B, n)`, and a bound on
    its rounding, with shape :math:`(B)`.

    The squared distance lacks :math:`|x|^2`, which is the same for all points.
    """
    B, d = x.shape
    queries = x - block.centre
    q = queries.to(dtype)
    found = torch.empty(B, len(block), dtype=dtype, device=x.device)
    largest = x.new_zeros(())
    size = max(1, _BYTES // (dtype.itemsize * max(d, B)))
    points = block.buffer(size, dtype)
    for chunk in block.chunks(size):
        y = block.centred(chunk, dtype, points)
        squares = torch.linalg.vector_norm(y, dim=1).square()
        largest = torch.maximum(largest, squares.max().double())
        torch.addmm(squares[None], q, y.T, alpha=-2, out=found[:, chunk])
    if not math.isfinite(float(largest)):
        raise InputError(NOT_FINITE)
    # Rounding of the terms, of their sums, and of queries and points to this dtype.
    eps = torch.finfo(dtype).eps
    if dtype == torch.float32 and x.is_cuda and torch.backends.cuda.matmul.allow_tf32:
        eps = 2.0**-10  # tf32 products keep 10 bits: good enough to select
    return found, (8 + d**0.5) * eps * (queries.square().sum(1) + largest)


def _candidates(
    x: Tensor, block: Block, approximate: Tensor, error: Tensor, k: int, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    values, indices = smallest(approximate, count)
    distance = _explicit(x, block, indices)
    # In the order of the data first, so that equal distances keep it.
    by_index = indices.sort(dim=1)
    order = distance.gather(1, by_index.indices).sort(dim=1, stable=True)
    index = by_index.values.gather(1, order.indices)[:, :k]
    distance = order.values[:, :k]
    if count == len(block):
        return index, distance, torch.ones(len(x), dtype=torch.bool, device=x.device)
    # Whoever was not taken has a score of at least the last one's.
    outside = values[:, -1].double() + (x - block.centre).square().sum(1) - error
    return index, distance, distance[:, -1].square() <= outside


def _explicit(x: Tensor, block: Block, index: Tensor) -> Tensor:
    distance = x.new_empty(index.shape)
    columns = max(1, _BYTES // (8 * x.shape[1]))
    size = max(1, columns // index.shape[1])
    for b in range(0, len(x), size):
        for k in range(0, index.shape[1], columns):
            i = index[b : b + size, k : k + columns]
            y = block.points(i.flatten()).reshape(*i.shape, -1)
            squares = (y - x[b : b + size, None]).square_().sum(2)
            distance[b : b + size, k : k + columns] = squares.sqrt()
    return distance
