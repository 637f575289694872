r"""Leading eigenpairs of a symmetric operator, from a block Krylov space.

One space, grown a block at a time, serves all who want leading directions: a fixed number of
blocks where the price must be known before (:func:`leading`, for deflation and randomized
SVD), blocks until an angle is small where the directions are the answer
(:mod:`geomem.tangents`).

References:
    | Musco & Musco, Randomized block Krylov methods (2015), arXiv 1504.05477
    | Parlett, The Symmetric Eigenvalue Problem (1980): residual bounds
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from geomem.errors import InputError
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
    r"""The space :math:`\mathrm{span}(\Omega, A \Omega, A^2 \Omega, \dots)`, a block at a time.

    Arguments:
        operator: The operator A; its symmetric part is what counts.
        columns: Random directions in the first block.
        rng: Their source.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> diagonal = Matrix(torch.diag(torch.arange(9.0)))
        >>> space = BlockKrylov(diagonal, 4, torch.Generator().manual_seed(0))
        >>> space.grow(), space.grow(), space.grow(), space.grow()
        (True, True, True, False)
        >>> space.pairs(2).values.round().tolist()[:2]
        [8.0, 7.0]
    """

    def __init__(self, operator: LinearOperator, columns: int, rng: torch.Generator) -> None:
        self.operator, n = operator.symmetric_part, operator.size
        draws = torch.randn(min(n, columns), n, generator=rng).T.double()
        self._next = draws.to(operator.like.device)
        # Blocks of the basis and their products: not in one matrix, which growing would copy.
        self._V: list[Tensor] = []
        self._W: list[Tensor] = []
        self._T = draws.new_zeros(0, 0).to(self._next)  # the operator within the space

    @property
    def columns(self) -> int:
        return sum(block.shape[1] for block in self._V)

    def grow(self) -> bool:
        r"""One block more; says whether there was one: the space may be all there is."""
        room = self.operator.size - self.columns
        block = orthonormal(self._next[:, :room], *self._V)
        if block.shape[1] == 0:
            return False
        self._next = multiply(self.operator, block)
        none = block.new_zeros(block.shape[1], 0)
        below = torch.cat([none, *(block.T @ w for w in self._W)], 1)
        self._V.append(block)
        beside = torch.cat([v.T @ self._next for v in self._V])
        self._T = torch.cat([torch.cat([self._T, below]), beside], 1)
        self._W.append(self._next)
        return True

    def pairs(self, count: int, largest: Literal["value", "modulus"] = "value") -> EigenPairs:
        r"""Eigenpairs within the space, the first so many of largest value or modulus."""
        values, U = torch.linalg.eigh((self._T + self._T.T) / 2)
        size = values if largest == "value" else values.abs()
        order = size.argsort(descending=True)
        values, U = values[order], U[:, order[:count]]
        vectors, images = (self._combine(blocks, U) for blocks in (self._V, self._W))
        return EigenPairs(values, vectors, images - vectors * values[: U.shape[1]])

    def _combine(self, blocks: list[Tensor], U: Tensor) -> Tensor:
        sizes = [block.shape[1] for block in blocks]
        parts = zip(blocks, torch.split(U, sizes), strict=True)
        found = torch.zeros(self.operator.size, U.shape[1]).to(U)
        for block, u in parts:
            found.addmm_(block, u)
        return found


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


def leading(
    operator: LinearOperator, rank: int, *, oversample: int = 10, power: int = 2, seed: int = 0
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
    if rank < 1 or oversample < 0 or power < 0:
        raise InputError("leading pairs need rank >= 1, oversample >= 0 and power >= 0")
    space = BlockKrylov(operator, rank + oversample, torch_rng(seed, "leading"))
    for _ in range(power + 1):
        if not space.grow():
            break
    found = space.pairs(rank, "modulus")
    R, blur = found.residuals, float(torch.linalg.matrix_norm(found.residuals, 2))
    values = found.values[: R.shape[1]]
    return Leading(values, found.vectors, R.norm(dim=0), blur, space.columns)


def orthonormal(block: Tensor, *bases: Tensor) -> Tensor:
    r"""Orthonormal columns that span a block's part outside of bases; dependent ones drop."""
    # What is left of a column that was in a basis is rounding, of no direction; and the
    # second pass, which takes out what rounding left, must find the columns nearly whole.
    for floor in (1e-10 * float(block.norm(dim=0).amax()) if block.numel() else 0.0, 0.5):
        for basis in bases:
            block = block - basis @ (basis.T @ block)
        left, values, _ = torch.linalg.svd(block, full_matrices=False)
        block = left[:, values > floor]
    return block


def multiply(operator: LinearOperator, V: Tensor) -> Tensor:
    r"""Products in the operator's own dtype, in float64."""
    return operator.matmat(V.to(operator.like)).double()


def deflation_products(rank: int, n: int, oversample: int = 10, power: int = 2) -> int:
    r"""How many products :func:`leading` takes, at most."""
    return min(n, (power + 1) * min(n, rank + oversample)) if rank else 0
