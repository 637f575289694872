r"""Leading eigenpairs of a symmetric operator, from a block Krylov space.

One space, grown a block at a time, serves all who want leading directions: a fixed number of
blocks where the price must be known before (:func:`leading`, for deflation and randomized
SVD), blocks until an angle is small where the directions are the answer
(:mod:`geomem.tangents`), and blocks until none is left above a threshold where their number is
(:mod:`geomem.dimension.ritz`).

References:
    | Musco & Musco, Randomized block Krylov methods (2015), arXiv 1504.05477
    | Parlett, The Symmetric Eigenvalue Problem (1980): residual bounds
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.operators.linear import LinearOperator
from geomem.stats import torch_rng


@dataclass(frozen=True)
class EigenPairs:
    r"""Eigenpairs of an operator within a space.

    Attributes:
        values: All Ritz values, with shape :math:`(r)`, in float64.
        vectors: The first Ritz vectors, with shape :math:`(n, k)`, in float64.
        residuals: Their :math:`A u - \theta u` as columns, with shape :math:`(n, k)`.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


class BlockKrylov:
    r"""An orthonormal basis V, grown a block at a time, its images and the operator within it.

    With the images of its last block it is :math:`\mathrm{span}(\Omega, A \Omega, A^2 \Omega,
    \dots)`. The operator within it is that of the symmetric part even where only the transpose
    is multiplied, :math:`u^\top A u = u^\top (A + A^\top) u / 2`, at half the price; residuals
    are then those of the transpose.

    Arguments:
        operator: The operator A; its symmetric part is what counts.
        one_sided: Whether to take products with the transpose alone.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> diagonal = Matrix(torch.diag(torch.arange(9.0)))
        >>> space = BlockKrylov(diagonal)
        >>> space.grow(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)))
        4
        >>> [space.grow(space.images()) for _ in range(3)]
        [4, 1, 0]
        >>> space.pairs(2).values.round().tolist()[:2]
        [8.0, 7.0]
    """

    def __init__(self, operator: LinearOperator, *, one_sided: bool = False) -> None:
        self.operator = operator
        self._product = operator.rmatmat if one_sided else operator.symmetric_part.matmat
        # Blocks of the basis and their products: not in one matrix, which growing would copy.
        self._V: list[Tensor] = []
        self._W: list[Tensor] = []
        self._T = torch.zeros(0, 0, dtype=torch.float64, device=operator.like.device)

    @property
    def columns(self) -> int:
        return sum(block.shape[1] for block in self._V)

    @property
    def room(self) -> int:
        return self.operator.size - self.columns

    def grow(self, directions: Tensor) -> int:
        r"""Directions more, with shape :math:`(n, k)`; says how many of them were new."""
        block = self.outside(directions.to(self._T))[:, : self.room]
        if block.shape[1]:
            image = self._product(block.to(self.operator.like)).double()
            below = [block.T @ w for w in self._W]
            self._V.append(block)
            self._W.append(image)
            beside = torch.cat([v.T @ image for v in self._V])
            none = block.new_zeros(block.shape[1], 0)
            self._T = torch.cat([torch.cat([self._T, torch.cat([none, *below], 1)]), beside], 1)
        return block.shape[1]

    def images(self, start: int | None = None) -> Tensor:
        r"""Products of the columns from ``start`` on; those of the last block if not given."""
        blocks, first = [], self.columns
        start = first - self._V[-1].shape[1] if start is None else start
        for image in reversed(self._W):
            first -= image.shape[1]
            blocks.append(image[:, max(0, start - first) :])
            if first <= start:
                break
        return torch.cat(blocks[::-1], 1)

    def outside(self, directions: Tensor, floor: float = 0.0) -> Tensor:
        r"""What directions span outside of the space, if it is longer than ``floor``."""
        return orthonormal(directions, *self._V, floor=floor)

    def pairs(
        self, count: int | None = None, largest: Literal["value", "modulus"] = "value"
    ) -> EigenPairs:
        r"""Eigenpairs within the space, the first so many of largest value or modulus."""
        values, U = torch.linalg.eigh((self._T + self._T.T) / 2)
        size = values if largest == "value" else values.abs()
        order = size.argsort(descending=True)
        values, U = values[order], U[:, order[:count]]
        parts = torch.split(U, [block.shape[1] for block in self._V])
        vectors, images = (U.new_zeros(self.operator.size, U.shape[1]) for _ in range(2))
        for v, w, u in zip(self._V, self._W, parts, strict=True):
            vectors.addmm_(v, u)
            images.addmm_(w, u)
        return EigenPairs(values, vectors, images - vectors * values[: U.shape[1]])


@dataclass(frozen=True)
class Leading:
    r"""Leading eigenpairs of a symmetric operator, and how well they are known.

    Attributes:
        values: The eigenvalues of largest modulus, with shape :math:`(k)`, in float64.
        vectors: Their eigenvectors, with shape :math:`(n, k)`, in float64.
        residuals: :math:`|A u - \theta u|`, with shape :math:`(k)`: an eigenvalue is as near.
        blur: The norm of all residuals together: no eigenvalue of A is further from one of
            the values or of the rest of the operator.
        products: How many products it took.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    blur: float
    products: int


@checked
def leading(
    operator: LinearOperator,
    rank: Annotated[int, Whole(least=1)],
    *,
    oversample: Annotated[int, Whole(least=0)] = 10,
    power: Annotated[int, Whole(least=0)] = 2,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> Leading:
    r"""Eigenpairs of largest modulus, by a block Krylov space of random directions.

    The operator is diagonalised within :math:`\mathrm{span}(\Omega, A \Omega, \dots, A^p
    \Omega)`, for a random :math:`\Omega` with :math:`k` + ``oversample`` columns.

    Arguments:
        operator: The operator; its symmetric part is what counts.
        rank: How many pairs, :math:`k`.
        oversample: Further random directions.
        power: The number :math:`p` of times that they are multiplied again; one is enough
            where the spectrum has a gap after k.
        seed: The seed of the random directions.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> leading(Matrix(torch.diag(torch.arange(9.0))), 2).values.round().tolist()
        [8.0, 7.0]
    """
    space, n = BlockKrylov(operator), operator.size
    space.grow(torch.randn(min(n, rank + oversample), n, generator=torch_rng(seed, "leading")).T)
    for _ in range(power):
        if not space.grow(space.images()):
            break
    found = space.pairs(rank, "modulus")
    R, blur = found.residuals, float(torch.linalg.matrix_norm(found.residuals, 2))
    values = found.values[: R.shape[1]]
    return Leading(values, found.vectors, R.norm(dim=0), blur, space.columns)


def orthonormal(block: Tensor, *bases: Tensor, floor: float = 0.0) -> Tensor:
    r"""Orthonormal columns that span a block's part outside of bases, the longest first.

    Dependent ones drop, and those shorter than ``floor``.
    """
    # What is left of a column that was in a basis is rounding, of no direction; and the
    # second pass, which takes out what rounding left, must find the columns nearly whole.
    longest = float(block.norm(dim=0).amax()) if block.numel() else 0.0
    for least in (max(floor, 1e-10 * longest), 0.5):
        for basis in bases:
            block = block - basis @ (basis.T @ block)
        left, values, _ = torch.linalg.svd(block, full_matrices=False)
        block = left[:, values > least]
    return block


def deflation_products(rank: int, n: int, oversample: int = 10, power: int = 2) -> int:
    r"""How many products :func:`leading` takes, at most."""
    return min(n, (power + 1) * min(n, rank + oversample)) if rank else 0
