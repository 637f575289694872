r"""The leading directions of a Jacobian, at about two products a direction.

A near-projector has its spectrum at 1 and at 0. Krylov spaces of one vector see the measure
and not how often 1 occurs; blocks do. Random directions are multiplied, their images are
appended and the operator is diagonalised within what has been seen (Rayleigh and Ritz). Ritz
values lie between eigenvalues, so those above a threshold are never more than there are. A
block of b random directions meets every kept direction as long as there are fewer than b:
if b images hold fewer new ones, all have been found.

References:
    | Halko, Martinsson & Tropp, Finding structure with randomness (2011), arXiv 0909.4061
    | Parlett, The Symmetric Eigenvalue Problem (1980): Ritz values interlace
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.operators import LinearOperator


@dataclass(frozen=True)
class RitzPairs:
    r"""What has been seen of a symmetric operator.

    Attributes:
        values: The Ritz values, largest first, with shape :math:`(r)`, in float64.
        vectors: The Ritz vectors, with shape :math:`(d, r)`.
        residuals: :math:`|A^\top u - \theta u|`, with shape :math:`(r)`: an eigenvalue of a
            symmetric operator lies as near.
        complete: Whether all eigenvalues above the threshold have been seen. If the products
            ran out before, there are at least as many as Ritz values: they interlace.
        products: How many products with the transpose it took.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    complete: bool
    products: int


class _Seen:
    # An orthonormal basis V, its products W = AᵀV, and the operator within it.

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.V = operator.like.new_zeros(operator.size, 0)
        self.W = self.V
        self.values = torch.zeros(0, dtype=torch.float64)
        self.vectors = self.residual = self.V

    @property
    def room(self) -> int:
        return self.operator.size - self.V.shape[1]

    def grow(self, directions: Tensor) -> Tensor:
        for _ in range(2):  # once leaves rounding errors behind, twice is enough
            directions = directions - self.V @ (self.V.T @ directions)
            directions = torch.linalg.qr(directions).Q
        self.V = torch.cat([self.V, directions], 1)
        self.W = torch.cat([self.W, self.operator.rmatmat(directions)], 1)
        self._diagonalise()
        return directions

    def _diagonalise(self) -> None:
        T = self.V.T @ self.W
        # uᵀAu = uᵀ(A + Aᵀ)u/2: the transpose alone knows the symmetric part within V.
        values, U = torch.linalg.eigh((T + T.T) / 2)
        values, U = values.flip(0), U.flip(1)
        self.values, self.vectors = values.double(), self.V @ U
        self.residual = self.W @ U - self.vectors * values

    @property
    def tolerance(self) -> float:
        # A kept direction has a share of about 1/d in a random one, and leaves d^-1/2 behind.
        return 0.25 / math.sqrt(self.operator.size)

    @property
    def fine(self) -> float:
        return 4e-4 * self.tolerance

    def images(self, start: int, tolerance: float) -> Tensor:
        # Where the operator takes the directions from `start` on, as far as it is not seen.
        W = self.W[:, start:]
        return _span(W - self.V @ (self.V.T @ W), tolerance)

    def unsettled(self, above: float, limit: int) -> Tensor:
        # Where pairs point that are not surely kept and might come near the threshold.
        size = self.residual.norm(dim=0).double()
        wanted = (self.values + 2 * size > above) & (self.values - size <= above)
        return self._largest(wanted, size, limit)

    def unresolved(self, above: float, level: float, limit: int) -> Tensor:
        # Where lost pairs point that might be the largest lost one.
        size = self.residual.norm(dim=0).double()
        lost = self.values <= above
        top = float(torch.where(lost, self.values, 0.0).max())
        wanted = lost & (self.values + size > max(level, top)) & (size > 0.2 * max(level, top))
        return self._largest(wanted, size, limit)

    def _largest(self, wanted: Tensor, size: Tensor, limit: int) -> Tensor:
        reach = torch.where(wanted, self.values + size, -math.inf)
        chosen = reach.argsort(descending=True)[:limit]
        return _span(self.residual[:, chosen[wanted[chosen]]], self.tolerance)


def _span(R: Tensor, tolerance: float) -> Tensor:
    if R.shape[1] == 0:
        return R
    left, sizes, _ = torch.linalg.svd(R, full_matrices=False)
    directions: Tensor = left[:, sizes > max(tolerance, _rounding(R.dtype))]
    return directions


def _rounding(dtype: torch.dtype) -> float:
    return 1e2 * torch.finfo(dtype).eps  # of products near 1


def leading_pairs(
    operator: LinearOperator,
    rng: torch.Generator,
    *,
    above: float = 0.5,
    block: int = 4,
    depth: int = 3,
    products: int | None = None,
    level: Callable[[int], float] | None = None,
) -> RitzPairs:
    r"""Ritz pairs of the symmetric part that hold every eigenvalue above a threshold.

    Arguments:
        operator: The operator :math:`A`; only products with its transpose are taken.
        rng: The source of the random directions.
        above: The threshold.
        block: Random directions of a round, at least 3; more where many have been found.
        depth: How often a round multiplies its images again, where they are not settled.
            One is enough for a projector; networks keep a few percent in lost directions. A
            round that found fewer than its block goes on until kept directions outgrow the
            largest lost one, however often that takes.
        products: The most products that are taken; all d if not given, at most 1024.
            Where they run out, what was seen is not ``complete``.
        level: Given the number of kept directions, the size above which the largest lost
            eigenvalue is to be known, to a fifth; it is not asked for if not given.

    Returns:
        The pairs. It costs about ``2 m + block`` products where m are above.

    Example:
        >>> from geomem.operators import Matrix
        >>> A = Matrix(torch.diag(torch.tensor([1.0] * 3 + [0.0] * 97)))
        >>> found = leading_pairs(A, torch.Generator().manual_seed(0))
        >>> int((found.values > 0.5).sum()), found.products < 20
        (3, True)
    """
    if block < 3 or depth < 1 or (products is not None and products < 1):
        raise InputError("leading pairs need block >= 3, depth >= 1 and products >= 1")
    limit = min(operator.size, 1024 if products is None else products)
    seen, kept, complete = _Seen(operator), 0, False
    while not complete and seen.V.shape[1] < limit:
        left, before = limit - seen.V.shape[1], kept
        # Where not all directions can be had, half of the rest is kept for the images.
        size = min(block, left if left == seen.room else -(-left // 2))
        start = seen.V.shape[1]
        seen.grow(torch.randn(operator.size, size, generator=rng).to(operator.like))
        exhausted = _refine(seen, start, above, depth, limit)
        settled = exhausted or _outgrow(seen, start, size, above, before, limit)
        kept = int((seen.values > above).sum())
        # In float32 one more image may be shorter than rounding, in some full blocks of 1000.
        sure = exhausted and seen.fine > _rounding(operator.like.dtype)
        few = kept - before <= size - (1 if sure else 2)
        complete = (settled and few) or seen.room == 0
        if complete and level is not None and kept:
            _resolve(seen, start, above, level(kept), depth, limit)
        block = max(block, kept // 4)
    sizes = seen.residual.norm(dim=0).double()
    return RitzPairs(seen.values, seen.vectors, sizes, complete, seen.V.shape[1])


def _refine(seen: _Seen, start: int, above: float, depth: int, limit: int) -> bool:
    # Says whether there were fewer new images than directions: then there are no more.
    exhausted = False
    size = seen.V.shape[1] - start
    for step in range(depth):
        left = min(size, limit - seen.V.shape[1])
        images = step == 0
        # Of b kept directions the last image is as short in .0002 of cases. All images that
        # tell of more are also looked at: one of them may be the shadow of a kept direction.
        new = seen.images(start, seen.fine) if images else seen.unsettled(above, left)
        if images:
            exhausted = new.shape[1] < size
        if min(left, new.shape[1]) == 0:
            break
        seen.grow(new[:, :left])
    return exhausted


def _outgrow(seen: _Seen, start: int, size: int, above: float, before: int, limit: int) -> bool:
    # A kept direction has 1/d of a random one: where lost ones are not small, it is imaged,
    # together with them, until (above / top)^images = d^1/2 and it stands out. Says whether
    # it would: products may run out before.
    images = 1
    while int((seen.values > above).sum()) - before < size - 1:
        lost = seen.values[(seen.values > 0) & (seen.values <= above)]
        top = min(max(1e-3, *lost.tolist()), 0.9 * above) if len(lost) else 1e-3
        needed = math.ceil(math.log(seen.operator.size) / 2 / math.log(above / top))
        left = min(size, limit - seen.V.shape[1])
        if images >= needed or left < 1:
            return images >= needed
        new = seen.images(max(start, seen.V.shape[1] - size), 1e-6)[:, :left]
        if new.shape[1] == 0:
            return True
        seen.grow(new)
        images += 1
    return True


def _resolve(seen: _Seen, start: int, above: float, level: float, depth: int, limit: int) -> None:
    size = seen.V.shape[1] - start
    for step in range(2 * depth):
        left = min(size, limit - seen.V.shape[1])
        images = step == 0
        fine = level * seen.tolerance
        new = seen.images(start, fine) if images else seen.unresolved(above, level, left)
        if min(left, new.shape[1]) == 0:
            return
        seen.grow(new[:, :left])
