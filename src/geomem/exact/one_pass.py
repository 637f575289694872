r"""The posterior over a block of training points, for all noise levels in one pass.

1.  *Distances once.* One float64 product per pair of points, kept as the excess over the
    nearest one, where float32 is enough: an exponent is wrong by :math:`\epsilon` of itself,
    and points that weigh something have small ones.
2.  *Small levels: few points.* The nearest points of each query are found once; at a level at
    which all others together weigh less than the tolerance they are the whole posterior. Their
    differences are taken again explicitly, in float64.
3.  *Large levels: all points.* :math:`2^{-c_t e}` for a chunk that stays in the cache, its
    sums, and one product for the means of several levels. ``exp2`` is three times faster than
    ``exp`` and, unlike it, not slow for arguments that underflow.

Where many points are so close to the query that a product's rounding would reach their
weights (near-duplicates at a tiny level), all distances are taken explicitly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact.blocks import NOT_FINITE, Block
from geomem.exact.posterior import Energies, Posterior, decide, rounding_of_products
from geomem.exact.twofold import divide, two_sum

LOG2E = math.log2(math.e)
# Exponents that rounding could reach by more than this are taken from explicit differences.
BLURRED = 3e-8
# Distances of a block of queries to a block of points that are kept at a time.
PAIRS, QUERIES = 2**24, 256
# How many of the nearest points are found; beyond, a level is dense. Finding 1024 of them takes
# twice the time and saves nothing.
NEAREST = 256
# Elements of a chunk that should stay in the cache, and bytes of one working array.
_CACHED, _BYTES, _SLICE = 2**19, 2**22, 2**20
# So many chunks are added up in the dtype of the products, and then in float64.
_CHUNKS = 8
# Costs in nanoseconds, as measured on two cores; they choose between two right answers.
_GATHER, _WEIGH, _MULTIPLY = 6.0, 0.5, 0.012
# Below so many nanoseconds the exact way is taken, whatever the other one costs.
_CHEAP = 5e6


@dataclass(frozen=True)
class Distances:
    r"""Squared distances between queries and a block, by their excess over the nearest.

    Attributes:
        nearest: The smallest squared distance of each query, with shape :math:`(B)`, float64.
        rest: What float64 leaves out of it, with shape :math:`(B)`.
        excess: What each point has above it, with shape :math:`(B, n)`.
        error: Bound on the rounding of both, with shape :math:`(B)`.
        undecided: Where rounding still reaches the weights, with shape :math:`(T, B)`.
    """

    nearest: Tensor
    rest: Tensor
    excess: Tensor
    error: Tensor
    undecided: Tensor


def distances(
    x: Tensor, levels: Tensor, block: Block, dtype: torch.dtype, explicit: bool = False
) -> Distances:
    r"""Distances of queries ``(B, d)`` to all points of a block; the excess in ``dtype``."""
    B, d = x.shape
    size = max(1, _BYTES // (8 * max(d, B)))
    chunks, points = block.chunks(size), block.buffer(size, torch.float64)
    products = points.new_empty(B * len(points))
    excess = torch.empty(B, len(block), dtype=dtype, device=x.device)
    queries = x - block.centre
    x_squares, largest, nearest = queries.square().sum(1), x.new_zeros(()), []
    for chunk in chunks:
        y = block.points(chunk) if explicit else block.centred(chunk, torch.float64, points)
        y_squares = torch.linalg.vector_norm(y, dim=1).square()
        largest = torch.maximum(largest, y_squares.max())
        squares = products[: B * len(y)].view(B, len(y))
        if explicit:
            torch.stack([(y - q).square().sum(1) for q in x], out=squares)
        else:
            torch.addmm(y_squares[None], queries, y.T, alpha=-2, out=squares)
            squares.add_(x_squares[:, None])
        nearest.append(squares.clamp_(min=0).amin(1))
        excess[:, chunk] = squares.sub_(nearest[-1][:, None])
    if not math.isfinite(float(largest)):
        raise InputError(NOT_FINITE)
    of_all = torch.stack(nearest).amin(0)
    for chunk, own in zip(chunks, nearest, strict=True):
        excess[:, chunk] += (own - of_all)[:, None]
    rest, undecided = torch.zeros_like(of_all), torch.zeros_like(levels, dtype=torch.bool)
    if not explicit:
        error = rounding_of_products(x_squares, largest, d)
        return Distances(of_all, rest, excess, error, undecided)
    of_all, rest, undecided = decide(excess, of_all, x, levels, lambda b, i: block.points(i))
    return Distances(of_all, rest, excess, torch.zeros_like(of_all), undecided)


def block_posterior(
    x: Tensor,
    levels: Tensor,
    block: Block,
    *,
    dtype: torch.dtype,
    log_tolerance: float,
    with_mean: bool = True,
) -> Posterior:
    r"""Posterior over the points of a block, at all levels.

    Arguments:
        x: The queries, with shape :math:`(B, d)`, in float64.
        levels: The noise levels, with shape :math:`(T, B)`, in float64.
        block: The training points.
        dtype: The dtype of products over all points.
        log_tolerance: Logarithm of the weight, relative to the nearest point's, below which
            a single point may be left out.
        with_mean: Whether to compute means; without, they are empty.

    Returns:
        The posterior, with means ``(T, B, d)`` about the centre, in float64.
    """
    known = distances(x, levels, block, dtype)
    cut = 2 * levels.square() * -log_tolerance + 2 * known.error  # of the excess, (T, B)
    values, indices = smallest(known.excess, min(NEAREST, len(block)))
    counts = torch.searchsorted(values, cut.T.to(values).contiguous(), right=True).T
    blurred = known.error / (2 * levels.square()) > BLURRED
    few = (counts < NEAREST).all(1) | (len(block) <= NEAREST)
    if bool((blurred.any(1) & ~few).any()):
        dtype, few = torch.float64, torch.zeros_like(few)
        del known  # the explicit ones take twice as much
        known = distances(x, levels, block, dtype, explicit=True)
    else:
        few = _worth_it(few, blurred.any(1), counts, len(block), x.shape)
    parts: list[tuple[Tensor, Posterior]] = []
    if bool(few.any()):
        kept = int(counts[few].max().clamp(min=1))
        if x.numel() * indices.shape[1] * _GATHER < _CHEAP:
            kept = indices.shape[1]  # small sets lose nothing
        part = _few(x, levels[few], block, indices[:, :kept], with_mean)
        parts.append((few, _certify(part, levels[few], values, known, kept)))
    if not bool(few.all()):
        parts.append(
            (~few, _all(levels[~few], block, known, known.undecided[~few], dtype, with_mean))
        )
    if len(parts) == 1:
        return parts[0][1]
    first = [getattr(parts[0][1], name) for name in NAMES]
    whole = Posterior(*(t.new_empty(len(levels), *t.shape[1:]) for t in first))
    for mask, part in parts:
        for name in NAMES:
            getattr(whole, name)[mask] = getattr(part, name)
    return whole


def smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""The ``k`` smallest of each row, in order, and where they are."""
    found, indices = values[:, :_SLICE].topk(min(k, _SLICE, values.shape[1]), largest=False)
    # In slices: a selection takes 16 bytes for each number that it looks at.
    for start in range(_SLICE, values.shape[1], _SLICE):
        part = values[:, start : start + _SLICE]
        more = part.topk(min(k, part.shape[1]), largest=False)
        found = torch.cat([found, more.values], dim=1)
        indices = torch.cat([indices, more.indices + start], dim=1)
        found, order = found.sort(dim=1, stable=True)
        found, indices = found[:, :k], indices.gather(1, order[:, :k])
    return found, indices


def _worth_it(few: Tensor, needed: Tensor, counts: Tensor, n: int, shape: torch.Size) -> Tensor:
    # Taking a level from the dense pass saves its weights and products; gathering the nearest
    # points costs as much as the level that needs most of them.
    B, d = shape
    saved = B * n * (_WEIGH + _MULTIPLY * d)
    most = counts.max(1).values.clamp(min=1)
    best, chosen = math.inf, needed & few
    for k in sorted({int(m) for m in most[few]}):
        candidate = few & ((most <= k) | needed)
        kept = int(most[candidate].max())
        gather = B * d * kept * _GATHER
        cost = (0 if gather < _CHEAP else gather) + saved * int((~candidate).sum())
        if cost < best:
            best, chosen = cost, candidate
    return chosen


# ------------------------------------------------------------------ few points, in float64


def _few(x: Tensor, levels: Tensor, block: Block, index: Tensor, with_mean: bool) -> Posterior:
    # Queries in groups whose points, one set each, fit into a working array.
    k, d = index.shape[1], x.shape[1]
    size = max(1, 2 * _BYTES // (8 * k * d))
    groups = zip(
        torch.split(x, size),
        torch.split(levels, size, dim=1),
        torch.split(index, size),
        strict=True,
    )
    return concatenate([_few_of_group(q, s, block, i, with_mean) for q, s, i in groups])


def _few_of_group(
    x: Tensor, levels: Tensor, block: Block, index: Tensor, with_mean: bool
) -> Posterior:
    # In parts of the points, where those of a single query are too many for a working array.
    some = torch.split(index, max(1, 2 * _BYTES // (8 * index.shape[0] * x.shape[1])), dim=1)
    if len(some) > 1:
        return reduce(
            Posterior.merge, (_few_of_group(x, levels, block, i, with_mean) for i in some)
        )
    y = block.points(index.flatten()).reshape(*index.shape, -1)  # (B, k, d)
    squares = (y - x[:, None]).square_().sum(2)
    nearest = squares.amin(1)
    excess = squares.sub_(nearest[:, None])
    high, low, undecided = decide(excess, nearest, x, levels, lambda b, i: y[b, i])
    variances = 2 * levels.square()
    known = Energies(
        excess / variances[..., None], *divide(high, low, variances), undecided
    ).posterior(y if with_mean else None)
    if with_mean:
        known.mean.sub_(block.centre)
    return known


def _certify(
    part: Posterior, levels: Tensor, values: Tensor, known: Distances, kept: int
) -> Posterior:
    # Each of the points that were left out is at least as far as the first of them.
    n = known.excess.shape[1]
    if kept == n:
        return part
    # Rounding in float32 is relative; it may not let a point look farther than it is.
    first = values[:, min(kept, values.shape[1] - 1)].double() * (1 - 1e-6)
    farther = (first - 2 * known.error).clamp(min=0)
    bound = (n - kept) * (-farther / (2 * levels.square())).exp()
    return replace(part, dropped=torch.maximum(bound, part.dropped))


# ----------------------------------------------------------------------- all points


def _all(
    levels: Tensor,
    block: Block,
    known: Distances,
    undecided: Tensor,
    dtype: torch.dtype,
    with_mean: bool,
) -> Posterior:
    T, B = levels.shape
    d = block.rows.shape[1] if with_mean else 0
    # Lighter than 2^-62 cannot be seen beside 1, and its square is still a normal number.
    lowest, largest = (-62.0, 1e30) if dtype == torch.float32 else (-500.0, 1e300)
    c = (LOG2E / (2 * levels.square())).clamp(max=largest).to(dtype)[..., None]
    sums, squares, moments = (levels.new_zeros(T, B) for _ in range(3))
    mean, partial = levels.new_zeros(T, B, d), torch.zeros(T, B, d, dtype=dtype, device=c.device)
    n = max(1, min(max(_CACHED // B, 64), 4 * _BYTES // (max(d, 1) * dtype.itemsize)))
    points = block.buffer(n, dtype) if with_mean else None
    together = max(1, 8 * _CACHED // (B * n))  # levels whose means share one product
    buffer = torch.empty(min(T, together), B, min(n, len(block)), dtype=dtype, device=c.device)
    for number, chunk in enumerate(block.chunks(n), start=1):
        excess = known.excess[:, chunk]
        y = None if points is None else block.centred(chunk, dtype, points)
        for k in range(0, T, together):
            at = slice(k, k + together)
            group = buffer[: len(c[at]), :, : excess.shape[1]]
            for t, w in enumerate(group, start=k):
                torch.mul(excess, -c[t], out=w).clamp_(min=lowest).exp2_()
                sums[t] += w.sum(1)
                squares[t] += torch.linalg.vector_norm(w, dim=1).double().square()
                moments[t] += torch.linalg.vecdot(w, excess)
            if y is not None:
                partial[at].view(-1, d).addmm_(group.reshape(-1, len(y)), y)
        if number % _CHUNKS == 0:
            mean += partial
            partial.zero_()
    mean += partial
    log_sum, variances = sums.log(), 2 * levels.square()
    least, rest = divide(known.nearest, known.rest, variances)
    log_partition, remainder = two_sum(-least, log_sum - rest)
    entropy = log_sum + moments / (variances * sums)
    lightest = len(block) * 2**lowest / sums  # what no weight may be below
    mean /= sums[..., None]
    lightest = lightest.masked_fill(undecided, torch.inf)
    return Posterior(log_partition, mean, squares / sums.square(), entropy, lightest, remainder)


# ------------------------------------------------------------------------------ parts


NAMES = ("log_partition", "mean", "participation", "entropy", "dropped", "remainder")


def concatenate(parts: list[Posterior], dim: int = 1) -> Posterior:
    r"""Posteriors of different queries (or, along dimension 0, levels) side by side."""
    if len(parts) == 1:
        return parts[0]
    return Posterior(*(torch.cat([getattr(p, name) for p in parts], dim) for name in NAMES))
