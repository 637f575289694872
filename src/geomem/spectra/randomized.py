r"""Randomized decompositions of low rank, with an error estimate that needs no knowledge.

References:
    | Halko, Martinsson & Tropp, Finding structure with randomness (2011), arXiv 0909.4061,
    |   eq. 4.3: random vectors bound the norm of what is left
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.operators.linear import LinearOperator, Need
from geomem.spectra.krylov import deflation_products, leading, orthonormal
from geomem.spectra.lanczos import as_spectrum, quadrature, random_directions
from geomem.spectra.measures import Spectrum
from geomem.stats import torch_rng


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

    rank: int
    oversample: int = 10
    power: int = 2
    probes: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.oversample < 0 or self.power < 0 or self.probes < 1:
            raise InputError("RandomizedSVD needs rank >= 1, probes >= 1, the others >= 0")

    def need(self, n: int) -> Need:
        block = min(n, self.rank + self.oversample)
        found = deflation_products(self.rank, n, self.oversample, self.power)
        return Need(
            products=found + self.probes, columns=block, numbers=float(n) * (4 * found + block)
        )

    def products(self, n: int) -> int:
        return self.need(n).products

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


def leading_singular(
    operator: LinearOperator, rank: int, *, oversample: int = 10, power: int = 1, seed: int = 0
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
    if rank < 1 or oversample < 0 or power < 0:
        raise InputError("singular triples need rank >= 1, oversample >= 0 and power >= 0")
    n, tests = operator.size, 10
    block = min(n, rank + oversample)
    rng = torch_rng(seed, "singular")
    random = torch.randn(block + tests, n, generator=rng).T.to(operator.like)
    images = operator.matmat(random).double()  # the tests' images cost no further call
    Q = _span(images[:, :block])
    for _ in range(power):
        Q = _span(operator.rmatmat(Q.to(operator.like)).double())
        Q = _span(operator.matmat(Q.to(operator.like)).double())
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


def _span(block: Tensor) -> Tensor:
    return orthonormal(block, block.new_zeros(len(block), 0))
