r"""The trace to a stated standard error, with as few products as that takes.

Random signs s give :math:`E\, s^\top A s = \mathrm{tr} A` at one product each, with a variance
of twice the squared eigenvalues of the symmetric part, less the squared diagonal. A direction
that is taken out first costs two products, one to find it and one to measure it, and
saves :math:`2 \lambda^2 / \epsilon^2` probes at a standard error of :math:`\epsilon`: it pays
where :math:`\lambda > \epsilon`. So a dimension to ± 1 is asked of signs alone, and one to
± 0.1 only after the leading directions are gone.

Only :math:`A^\top` is multiplied: one reverse pass a product.

References:
    | Hutchinson, A stochastic estimator of the trace (1990)
    | Meyer et al., Hutch++: optimal stochastic trace estimation, arXiv 2010.09649
    | Persson, Cortinovis & Kressner, Improved variants of Hutch++, arXiv 2109.10659: adaptive
    | Stein, A two-sample test for a linear hypothesis (1945): sampling until an error
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from geomem.arguments import Number, Whole, checked
from geomem.errors import InputError
from geomem.operators.linear import LinearOperator, Need, random_signs
from geomem.spectra.krylov import orthonormal
from geomem.stats import Estimate, torch_rng


@dataclass(frozen=True, repr=False)
class Trace(Estimate):
    r"""A trace, its standard error, and what it took.

    Attributes:
        products: How many columns were multiplied, from one side.
        deflated: How many directions were measured one by one.
    """

    products: int = 0
    deflated: int = 0


@checked
@dataclass(frozen=True, kw_only=True)
class AdaptiveTrace:
    r"""The trace of any square operator to a stated standard error.

    A block of signs is multiplied. Their spread tells how many more there must be, and their
    images whether taking directions out first is cheaper (Hutch++): the squared eigenvalue
    that a typical image points to is :math:`\sum \lambda^4 / \sum \lambda^2`, estimated from
    products of different images. Where n products would be needed, the diagonal is
    measured itself, and the error is 0: with what was spent before, up to about 2 n.

    Arguments:
        accuracy: The standard error to reach.
        relative: The standard error to reach as a share of the trace; the larger one counts.
        block: Signs of the first block, from which the spread is judged.
        max_products: The most products; the standard error says what they reached.
        seed: The seed of the signs.

    Example:
        Three directions of 500, to ± 0.1: fewer products than signs would need probes.

        >>> from geomem.operators.linear import Matrix
        >>> A = Matrix(torch.diag(torch.tensor([1.0] * 3 + [0.0] * 497)))
        >>> AdaptiveTrace(accuracy=0.1)(A)
        3 ± 0
    """

    accuracy: Annotated[float, Number(least=0.0)] = 1.0
    relative: Annotated[float, Number(least=0.0)] = 0.0
    block: Annotated[int, Whole(least=8)] = 32
    max_products: Annotated[int | None, Whole(least=8)] = None
    seed: Annotated[int, Whole(least=0)] = 0

    def __post_init__(self) -> None:
        if self.max_products is not None and self.max_products < self.block:
            raise InputError(
                f"`max_products` is {self.max_products}; pass at least one `block` of {self.block}"
            )

    def need(self, n: int) -> Need:
        products = min(n + 8 * self.block, self.max_products or n + 8 * self.block)
        return Need(products=products, columns=self.block, one_sided=True, numbers=4.0 * n * 256)

    def products(self, n: int) -> int:
        r"""What is enough for nearly all spectra; the fewest depend on the spectrum.

        Not the most: where almost n probes are spent before the diagonal turns out to be
        cheaper, both together are about 2 n. ``max_products`` is a limit that holds.
        """
        return self.need(n).products

    @checked
    def __call__(self, operator: LinearOperator) -> Trace:
        if operator.size <= 2 * self.block:
            return measured_diagonal(operator)
        state = _State(operator, torch_rng(self.seed, "trace"))
        state.probe(self.block)
        while True:
            found = state.estimate()
            goal = max(self.accuracy, self.relative * abs(found.value))
            missing = state.probes_for(goal)
            room = math.inf if self.max_products is None else self.max_products - found.products
            if found.stderr <= goal or room < 1:
                return found
            whole = goal == 0 or found.products >= operator.size  # and deflating has not helped
            pays = state.squared_eigenvalue() > goal**2 and missing > 2 * state.count
            if pays and not whole and room >= 2 * state.count:
                state.deflate()
                state.probe(max(self.block, state.basis.shape[1] // 2))
            elif found.products + missing >= operator.size and room >= operator.size:
                return measured_diagonal(operator, spent=found.products)
            else:
                state.probe(int(min(missing, room)))


class _State:
    # tr A = tr QᵀAQ + tr PAP with P = I - QQᵀ: the first part is measured, the second probed.

    def __init__(self, operator: LinearOperator, rng: torch.Generator) -> None:
        self.operator, self.rng, self.spent, self.measured = operator, rng, 0, 0.0
        device = operator.like.device
        self.basis = torch.zeros(operator.size, 0, dtype=torch.float64, device=device)
        self.samples, self.images = self.basis.new_zeros(0), self.basis

    @property
    def count(self) -> int:
        return len(self.samples)

    def _product(self, V: Tensor) -> Tensor:
        self.spent += V.shape[1]
        return self.operator.rmatmat(V.to(self.operator.like)).double()

    def _project(self, V: Tensor) -> Tensor:
        return V - self.basis @ (self.basis.T @ V)

    def probe(self, columns: int) -> None:
        for start in range(0, columns, 256):
            size = min(256, columns - start)
            signs = random_signs(self.operator.size, size, self.rng).to(self.basis)
            outside = self._project(signs)
            images = self._product(outside)
            self.samples = torch.cat([self.samples, (outside * images).sum(0)])
            if self.images.shape[1] < 256:  # enough to deflate by
                self.images = torch.cat([self.images, self._project(images)], 1)

    def estimate(self) -> Trace:
        rest = Estimate.of_mean(self.samples.numpy(force=True))
        return Trace(self.measured + rest.value, rest.stderr, self.spent, self.basis.shape[1])

    def probes_for(self, goal: float) -> float:
        if goal == 0:
            return math.inf
        return max(1.0, math.ceil(float(self.samples.var()) / goal**2) - self.count)

    def squared_eigenvalue(self) -> float:
        # E (y·y')² = Σλ⁴ for images of different signs, and E |y|² = Σλ².
        gram = self.images.T @ self.images
        b, squares = len(gram), gram.diagonal()
        fourth = (gram.square().sum() - squares.square().sum()) / (b * (b - 1))
        return float(fourth / squares.mean().clamp(min=1e-300))

    def deflate(self) -> None:
        new = orthonormal(self.images, self.basis)
        self.measured += float((new * self._product(new)).sum())
        self.basis = torch.cat([self.basis, new], 1)
        self.samples, self.images = self.basis.new_zeros(0), self.basis[:, :0]


def measured_diagonal(operator: LinearOperator, spent: int = 0) -> Trace:
    r"""The trace as the sum of the diagonal itself, at n products and without error."""
    total = 0.0
    for index, rows in operator.rows():
        total += float(rows[torch.arange(len(index)), index].double().sum())
    return Trace(total, 0.0, spent + operator.size, operator.size)


@checked
def trace(
    operator: LinearOperator, accuracy: float = 1.0, *, relative: float = 0.0, seed: int = 0
) -> Trace:
    r"""The trace to a standard error: :class:`AdaptiveTrace` with its defaults.

    A dimension to ± max(1, 2 %) is ``trace(J, 1.0, relative=0.02)``.

    Arguments:
        operator: Any square operator; only products with its transpose are taken.
        accuracy: The standard error to reach.
        relative: The same as a share of the trace; the larger one counts.
        seed: The seed of the signs.

    Returns:
        The trace, with its error, ``products`` and ``deflated``.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> trace(Matrix(torch.diag(torch.tensor([1.0] * 30 + [0.0] * 970))))  # signs see it
        30 ± 0
    """
    return AdaptiveTrace(accuracy=accuracy, relative=relative, seed=seed)(operator)
