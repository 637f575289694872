r"""Randomized decompositions of low rank, with an error estimate that needs no knowledge.

References:
    | Halko, Martinsson & Tropp, Finding structure with randomness (2011), arXiv 0909.4061,
    |   eq. 4.3: random vectors bound the norm of what is left
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.operators.linear import LinearOperator, Need
from geomem.spectra.krylov import deflation_products, leading, orthonormal
from geomem.spectra.lanczos import as_spectrum, quadrature, random_directions
from geomem.spectra.measures import Spectrum
from geomem.stats import torch_rng


@checked
@dataclass(frozen=True, kw_only=True)
class RandomizedSVD:
    r"""Leading eigenvalues one by one, and the rest as its mass and mean.

    For a symmetric operator the singular value decomposition is the eigendecomposition. The
    leading part is found in blocks with power iterations; a few probes outside of it then
    measure what is left: the trace is unbiased, with its standard error, and
    :meth:`Spectrum.count_bounds` says what the rest could still hold.

    Arguments:
        rank: How many eigenvalues of largest modulus.
        oversample: Further random directions.
        power: How often they are multiplied again.
        probes: Random directions that measure the rest; at least two for an error.
        seed: The seed of all of them.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> plane = Matrix(torch.diag(torch.tensor([1.0, 1.0] + [0.0] * 30)))
        >>> RandomizedSVD(rank=3)(plane).count(above=0.5)
        2 ± 0
    """

    rank: Annotated[int, Whole(least=1)]
    oversample: Annotated[int, Whole(least=0)] = 10
    power: Annotated[int, Whole(least=0)] = 2
    probes: Annotated[int, Whole(least=1)] = 4
    seed: Annotated[int, Whole(least=0)] = 0

    def need(self, n: int) -> Need:
        block = min(n, self.rank + self.oversample)
        found = deflation_products(self.rank, n, self.oversample, self.power)
        return Need(
            products=found + self.probes, columns=block, numbers=float(n) * (4 * found + block)
        )

    def products(self, n: int) -> int:
        return self.need(n).products

    @checked
    def __call__(self, operator: LinearOperator) -> Spectrum:
        found = leading(
            operator, self.rank, oversample=self.oversample, power=self.power, seed=self.seed
        )
        starts = random_directions(operator.size, self.probes, torch_rng(self.seed, "rest"))
        measured = quadrature(operator, starts, 1, found)
        how = (
            f"randomized: {len(found.values)} leading eigenvalues to {found.blur:.1g}, the rest "
            f"by {self.probes} probes, {found.products + self.probes} products"
        )
        return as_spectrum(measured, how)


@dataclass(frozen=True)
class LeadingSingular:
    r"""Leading singular triples of any square operator.

    Attributes:
        values: The singular values, largest first, with shape :math:`(k)`, in float64. None
            is larger than the true one.
        left: The left singular vectors, with shape :math:`(n, k)`.
        right: The right singular vectors, with shape :math:`(n, k)`.
        error: The true values are larger by no more than this, but for one case in 10^10.
        products: How many products it took, of both sides together.
    """

    values: Tensor
    left: Tensor
    right: Tensor
    error: float
    products: int


@checked
def leading_singular(
    operator: LinearOperator,
    rank: Annotated[int, Whole(least=1)],
    *,
    oversample: Annotated[int, Whole(least=0)] = 10,
    power: Annotated[int, Whole(least=0)] = 1,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> LeadingSingular:
    r"""Leading singular triples, by random directions and power iterations.

    With Q spanning :math:`(A A^\top)^p A \Omega`, those of :math:`Q^\top A`. For ten random
    vectors g, :math:`\|A - Q Q^\top A\| \leq 10 \sqrt{2/\pi} \max |(A - Q Q^\top A) g|` fails
    with probability 10^-10.

    Arguments:
        operator: The operator :math:`A`, symmetric or not.
        rank: How many triples.
        oversample: Further random directions.
        power: The number p of power iterations.
        seed: The seed of the random directions.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> A = Matrix(torch.diag(torch.tensor([3.0, -4.0, 0.0])))
        >>> leading_singular(A, 2).values.round().tolist()
        [4.0, 3.0]
    """
    n, tests = operator.size, 10
    block = min(n, rank + oversample)
    rng = torch_rng(seed, "singular")
    random = torch.randn(block + tests, n, generator=rng).T.to(operator.like)
    images = operator.matmat(random).double()  # the tests' images cost no further call
    Q = orthonormal(images[:, :block])
    for _ in range(power):
        for product in (operator.rmatmat, operator.matmat):
            Q = orthonormal(product(Q.to(operator.like)).double())
    B = operator.rmatmat(Q.to(operator.like)).double()  # B = Aᵀ Q, so Qᵀ A = Bᵀ
    right, values, inner = torch.linalg.svd(B, full_matrices=False)
    rest = images[:, block:] - Q @ (Q.T @ images[:, block:])
    error = 10 * math.sqrt(2 / math.pi) * float(rest.norm(dim=0).max())
    k = min(rank, len(values))
    return LeadingSingular(
        values[:k],
        Q @ inner.T[:, :k],
        right[:, :k],
        error,
        block + tests + 2 * power * Q.shape[1] + Q.shape[1],
    )
