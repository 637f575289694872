r"""The leading directions of a Jacobian, at about two products a direction.

A near-projector has its spectrum at 1 and at 0. Krylov spaces of one vector see the measure
and not how often 1 occurs; blocks do. Random directions are multiplied, their images are
appended and the operator is diagonalised within what has been seen (Rayleigh and Ritz), in the
space of :mod:`geomem.spectra.krylov`. Ritz
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
from typing import Annotated

import torch
from torch import Tensor

from geomem.arguments import Number, Whole, checked
from geomem.operators.linear import LinearOperator, random_signs
from geomem.spectra.krylov import BlockKrylov, orthonormal
from geomem.stats import Estimate


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


class _Round:
    # What has been seen of an operator, and where to look next: all in one Krylov space.

    def __init__(self, operator: LinearOperator, above: float, limit: int) -> None:
        self.space, self.above, self.limit = BlockKrylov(operator, one_sided=True), above, limit
        self.rounding = 1e2 * torch.finfo(operator.like.dtype).eps  # of products near 1
        # A kept direction has a share of about 1/d in a random one, and leaves d^-1/2 behind.
        self.tolerance = 0.25 / math.sqrt(operator.size)

    @property
    def left(self) -> int:
        return self.limit - self.space.columns

    def look(self, directions: Tensor) -> int:
        found = self.space.grow(directions[:, : self.left])
        self.pairs = self.space.pairs()
        self.values, self.sizes = self.pairs.values, self.pairs.residuals.norm(dim=0)
        return found

    @property
    def kept(self) -> int:
        return int((self.values > self.above).sum())

    def images(self, start: int, tolerance: float) -> Tensor:
        # Where the operator takes the directions from `start` on, as far as it is not seen.
        return self.space.outside(self.space.images(start), max(tolerance, self.rounding))

    def residuals(self, wanted: Tensor, limit: int) -> Tensor:
        # Where the wanted pairs point, those first that may reach furthest.
        reach = torch.where(wanted, self.values + self.sizes, -math.inf)
        chosen = reach.argsort(descending=True)[:limit]
        R = self.pairs.residuals[:, chosen[wanted[chosen]]]
        return orthonormal(R, floor=max(self.tolerance, self.rounding))

    def begin(self, directions: Tensor, depth: int) -> bool:
        # Says whether there were fewer new images than directions: then there are no more.
        start, size = self.space.columns, directions.shape[1]
        self.look(directions)
        # Of b kept directions the last image is as short in .0002 of cases. All images that
        # tell of more are also looked at: one of them may be the shadow of a kept direction.
        new = self.images(start, 4e-4 * self.tolerance)
        exhausted = new.shape[1] < size
        for _ in range(depth):
            if min(self.left, new.shape[1]) == 0:
                break
            self.look(new)
            # Those that are not surely kept and might come near the threshold.
            near = (self.values + 2 * self.sizes > self.above) & (
                self.values - self.sizes <= self.above
            )
            new = self.residuals(near, min(size, self.left))
        return exhausted

    def outgrow(self, start: int, size: int, before: int) -> bool:
        # A kept direction has 1/d of a random one: where lost ones are not small, it is imaged,
        # together with them, until (above / top)^images = d^1/2 and it stands out. Says whether
        # it would: products may run out before.
        images = 1
        while self.kept - before < size - 1:
            lost = self.values[(self.values > 0) & (self.values <= self.above)]
            top = min(max(1e-3, *lost.tolist()), 0.9 * self.above) if len(lost) else 1e-3
            d = self.space.operator.size
            needed = math.ceil(math.log(d) / 2 / math.log(self.above / top))
            if images >= needed or self.left < 1:
                return images >= needed
            new = self.images(max(start, self.space.columns - size), 1e-6)
            if self.look(new[:, :size]) == 0:
                return True
            images += 1
        return True

    def resolve(self, start: int, level: float, depth: int) -> None:
        # Until the largest lost eigenvalue is known to a fifth, if it is above the level.
        size = self.space.columns - start
        new = self.images(start, level * self.tolerance)[:, :size]
        for _ in range(2 * depth):
            if min(self.left, new.shape[1]) == 0:
                return
            self.look(new)
            lost = self.values <= self.above
            top = max(level, float(torch.where(lost, self.values, 0.0).max()))
            open_ = lost & (self.values + self.sizes > top) & (self.sizes > 0.2 * top)
            new = self.residuals(open_, min(size, self.left))


@checked
def leading_pairs(
    operator: LinearOperator,
    rng: torch.Generator,
    *,
    above: Annotated[float, Number(above=0.0, below=1.0)] = 0.5,
    block: Annotated[int, Whole(least=3)] = 4,
    depth: Annotated[int, Whole(least=1)] = 3,
    products: Annotated[int | None, Whole(least=1)] = None,
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
    limit = min(operator.size, 1024 if products is None else products)
    seen, kept, complete = _Round(operator, above, limit), 0, False
    space = seen.space
    while not complete and seen.left > 0:
        start, left, before = space.columns, seen.left, kept
        # Where not all directions can be had, half of the rest is kept for the images.
        size = min(block, left if left == space.room else -(-left // 2))
        exhausted = seen.begin(torch.randn(operator.size, size, generator=rng), depth)
        settled = exhausted or seen.outgrow(start, size, before)
        kept = seen.kept
        # In float32 one more image may be shorter than rounding, in some full blocks of 1000.
        sure = exhausted and 4e-4 * seen.tolerance > seen.rounding
        few = kept - before <= size - (1 if sure else 2)
        complete = (settled and few) or space.room == 0
        if complete and level is not None and kept:
            seen.resolve(start, level(kept), depth)
        block = max(block, kept // 4)
    return RitzPairs(seen.values, seen.pairs.vectors, seen.sizes, complete, space.columns)


def trace_beside(
    operator: LinearOperator, pairs: RitzPairs, rng: torch.Generator, probes: int = 8
) -> Estimate:
    r"""The trace, from what has been seen and a few random signs that see the rest.

    .. math:: \mathrm{tr} A = \sum_k \theta_k + E\, s^\top P A P s \, , \quad P = 1 - U U^\top

    Example:
        >>> from geomem.operators import Matrix
        >>> A = Matrix(torch.diag(torch.tensor([1.0] * 3 + [0.1] * 97)))
        >>> rng = torch.Generator().manual_seed(0)
        >>> found = trace_beside(A, leading_pairs(A, rng), rng)
        >>> found.z_score(12.7) < 4, found.stderr < 0.3
        (True, True)
    """
    seen = float(pairs.values.sum())
    if len(pairs.values) == operator.size:
        return Estimate(seen)
    signs = random_signs(operator.size, probes, rng).to(pairs.vectors)
    outside = signs - pairs.vectors @ (pairs.vectors.T @ signs)
    images = operator.rmatmat(outside.to(operator.like)).double()
    rest = Estimate.of_mean((outside * images).sum(0).numpy(force=True))
    return Estimate(seen + rest.value, rest.stderr)
