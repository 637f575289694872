r"""Square matrices known by their products, and what it costs to ask them.

A method of a spectrum says how many products it needs before it takes any of them, so that
an operator can say how long that will take: :meth:`LinearOperator.cost`.
"""

from __future__ import annotations

import abc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geomem.arguments import checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.stats import torch_rng


@dataclass(frozen=True, kw_only=True)
class Need:
    r"""What a method needs of an operator of a given size.

    Attributes:
        products: How many columns are multiplied in all, at most.
        columns: How many of them are asked for at a time.
        one_sided: Whether products with the transpose suffice. Otherwise each column is
            multiplied from both sides, which for a Jacobian takes two to four times as long.
        numbers: How many float64 numbers the method holds.
        flops: Operations of its linear algebra that grow faster than the products.
    """

    products: int
    columns: int
    one_sided: bool = False
    numbers: float = 0.0
    flops: float = 0.0


class Costed(Protocol):
    r"""A method that says how many products it takes for an operator of size n.

    One that also has ``need(n)``, a :class:`Need`, is forecast more closely.
    """

    def products(self, n: int) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Cost(Forecast):
    r"""What a method costs on an operator, said before it starts.

    Attributes:
        products: How many columns are multiplied, at most.

    Example:
        >>> Cost(products=3072, seconds=44, num_bytes=2**30)
        3072 products, about 44 s, 1.0 GiB of memory
    """

    products: int

    def __repr__(self) -> str:
        return f"{self.products} products, {super().__repr__()}"


def random_signs(n: int, columns: int, rng: torch.Generator) -> Tensor:
    r"""Columns of independent signs, with shape ``(n, columns)``, in float64.

    They see the diagonal of an operator without any variance. The first columns are the same
    however many are drawn.
    """
    return 2.0 * torch.randint(2, (columns, n), generator=rng).T.double() - 1


def median_seconds(call: Callable[[], object], repeats: int = 3, enough: float = 2.0) -> float:
    r"""Median time of a few calls."""
    # The first call allocates and is left out, unless it is so long that this is nothing.
    took: list[float] = []
    while len(took) <= repeats and sum(took) < enough:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:] or took)


def eigenvalue_flops(n: int) -> float:
    r"""Operations of the eigenvalues of a symmetric matrix: :math:`\frac{4}{3} n^3`."""
    return 4 / 3 * float(n) ** 3


class LinearOperator(abc.ABC):
    r"""Square matrix :math:`A` known through the products :math:`A V` and :math:`A^\top U`.

    Attributes:
        size: The number :math:`n` of rows, and of columns.
        like: An empty tensor that carries the dtype and device of the products.
    """

    size: int
    like: Tensor

    @abc.abstractmethod
    def matmat(self, V: Tensor) -> Tensor:
        r"""Returns :math:`A V`, for :math:`V` with shape :math:`(n, k)`."""

    @abc.abstractmethod
    def rmatmat(self, U: Tensor) -> Tensor:
        r"""Returns :math:`A^\top U`, for :math:`U` with shape :math:`(n, k)`."""

    def dense(self) -> Tensor:
        r"""Returns :math:`A` itself, with shape :math:`(n, n)`, at the price of n products."""
        return self.matmat(torch.eye(self.size).to(self.like))

    def rows(self, at_a_time: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
        r"""Indices of rows and the rows themselves, a block of products at a time."""
        for index in torch.split(torch.arange(self.size), at_a_time):
            unit = torch.zeros(self.size, len(index)).to(self.like)
            unit[index, torch.arange(len(index))] = 1
            yield index, self.rmatmat(unit).T  # Aᵀ e_i is row i of A

    def both(self, V: Tensor) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`A V` and :math:`A^\top V`, where one pass can serve both."""
        return self.matmat(V), self.rmatmat(V)

    @property
    def symmetric_part(self) -> LinearOperator:
        r"""The operator :math:`(A + A^\top) / 2`. One product with it costs one of each side."""
        return _SymmetricPart(self)

    def columns_at_a_time(self) -> float:
        r"""How many columns are computed at a time; infinite where nothing limits them."""
        return math.inf

    def column_bytes(self) -> float:
        r"""Memory that one more column at a time takes, beside the column itself."""
        return 0.0

    def cost(self, method: Costed) -> Cost:
        r"""What a method will cost on this operator, from a few timed products.

        Arguments:
            method: A method that says what it needs, as all of geomem's do.

        Example:
            >>> from geomem.spectra.measures import Dense
            >>> Matrix(torch.eye(3)).cost(Dense()).products
            3
        """
        known = getattr(method, "need", None)
        most = method.products(self.size) if known is None else 0
        need: Need = known(self.size) if known else Need(products=most, columns=most)
        columns = int(max(1, min(need.columns, need.products, self.columns_at_a_time())))
        seconds = 0.0
        if need.products:
            V = random_signs(self.size, columns, torch_rng(0, "timing")).to(self.like)
            product = self.rmatmat if need.one_sided else self.symmetric_part.matmat
            seconds += median_seconds(lambda: product(V)) * need.products / columns
        if need.flops >= 1e9:
            size = 384
            A = torch.randn(size, size, dtype=torch.float64, generator=torch_rng(0, "timing"))
            one = median_seconds(lambda: torch.linalg.eigvalsh(A))  # reads one triangle
            seconds += one * need.flops / eigenvalue_flops(size)
        num_bytes = 8.0 * need.numbers + columns * self.column_bytes()
        return Cost(products=need.products, seconds=seconds, num_bytes=num_bytes)


class Symmetric(LinearOperator):
    r"""An operator that is its own transpose: :meth:`matmat` is all that it needs."""

    def rmatmat(self, U: Tensor) -> Tensor:
        return self.matmat(U)

    def both(self, V: Tensor) -> tuple[Tensor, Tensor]:
        A_V = self.matmat(V)
        return A_V, A_V

    @property
    def symmetric_part(self) -> LinearOperator:
        return self


class _SymmetricPart(Symmetric):
    def __init__(self, operator: LinearOperator) -> None:
        self.operator, self.size, self.like = operator, operator.size, operator.like

    def matmat(self, V: Tensor) -> Tensor:
        A_V, At_V = self.operator.both(V)
        return (A_V + At_V) / 2

    def dense(self) -> Tensor:
        A = self.operator.dense()
        return (A + A.T) / 2

    def columns_at_a_time(self) -> float:
        return self.operator.columns_at_a_time()

    def column_bytes(self) -> float:
        return self.operator.column_bytes()

    def cost(self, method: Costed) -> Cost:
        return self.operator.cost(method)


@checked
class Matrix(LinearOperator):
    r"""A matrix that is at hand, as an operator.

    Arguments:
        matrix: The matrix, with shape :math:`(n, n)`.
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"an operator is square; got a matrix of shape {tuple(matrix.shape)}")
        self.matrix, self.size, self.like = matrix, len(matrix), matrix.new_empty(0)

    def matmat(self, V: Tensor) -> Tensor:
        return self.matrix @ V

    def rmatmat(self, U: Tensor) -> Tensor:
        return self.matrix.T @ U

    def dense(self) -> Tensor:
        return self.matrix


@checked
class Factored(Symmetric):
    r"""The symmetric operator :math:`A = F F^\top` of a factor with few columns.

    The Jacobian of an exact denoiser is one: its columns are the training points that carry
    weight, about their mean, times the roots of their weights, in units of the noise.

    Arguments:
        factor: The matrix :math:`F`, with shape :math:`(n, k)`.

    Raises:
        InputError: If the factor is no matrix, or not finite.

    Example:
        >>> Factored(torch.tensor([[1.0], [2.0]])).dense()
        tensor([[1., 2.],
                [2., 4.]])
    """

    def __init__(self, factor: Tensor) -> None:
        if factor.ndim != 2 or not bool(torch.isfinite(factor).all()):
            raise InputError(
                "a factor is a finite matrix, one row a coordinate; "
                f"got shape {tuple(factor.shape)}, or NaN in it: check where it comes from"
            )
        self.factor, self.size, self.like = factor, len(factor), factor.new_empty(0)

    def matmat(self, V: Tensor) -> Tensor:
        return self.factor @ (self.factor.T @ V)  # A V = F (Fᵀ V)

    def dense(self) -> Tensor:
        return self.factor @ self.factor.T
