r"""Spectra as measures: each question is an integral, and comes with its standard error.

A method is a frozen value with its settings inside, called with a symmetric operator. An
exact spectrum has error 0; a sampled one has the spread over its probes.

References:
    | Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru et al., 2017)
    | https://doi.org/10.1137/16M1104974
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.operators import Factored, LinearOperator
from geomem.stats import Estimate, torch_rng


@dataclass(frozen=True)
class Spectrum:
    r"""Spectral measure of a symmetric operator, exact or sampled.

    .. math:: \mu = \sum_{i=1}^n \delta_{\lambda_i}
        \approx \frac{1}{P} \sum_{p=1}^P \sum_{k=1}^K w_{pk} \, \delta_{\theta_{pk}}

    Attributes:
        nodes: The eigenvalues or their Ritz estimates, with shape :math:`(P, K)`.
        weights: How many eigenvalues each node stands for, with shape :math:`(P, K)`.
        exact: Whether the nodes are the eigenvalues themselves.
    """

    nodes: Tensor
    weights: Tensor
    exact: bool = False

    def integrate(self, fn: Callable[[Tensor], Tensor]) -> Estimate:
        r"""Estimates :math:`\sum_i f(\lambda_i)`.

        Example:
            >>> known = Spectrum(torch.tensor([[3.0, 1.0]]), torch.ones(1, 2), exact=True)
            >>> known.integrate(torch.log)
            1.09861 ± 0
        """
        sums = (self.weights * fn(self.nodes)).double().sum(dim=1)
        if self.exact:
            return Estimate(sums.mean().item(), 0.0)
        return Estimate.of_mean(sums.numpy(force=True))

    def count(self, above: float) -> Estimate:
        r"""Estimates how many eigenvalues exceed a threshold.

        Quadrature is unbiased for polynomials only: a step is smeared over the distance
        between neighbouring nodes, a bias that the standard error does not contain.
        """
        return self.integrate(lambda nodes: (nodes > above).to(nodes))

    def trace(self) -> Estimate:
        r"""Estimates the sum of the eigenvalues: the soft count of kept dimensions."""
        return self.integrate(lambda nodes: nodes)


class SpectrumMethod(Protocol):
    r"""A way to obtain the spectrum of a symmetric operator, with its settings inside."""

    def __call__(self, operator: LinearOperator) -> Spectrum: ...


@dataclass(frozen=True)
class Dense:
    r"""Full eigendecomposition. Takes :math:`n` products and :math:`O(n^3)` time.

    Example:
        >>> from geomem.operators import Matrix
        >>> Dense()(Matrix(torch.diag(torch.tensor([1.0, 3.0])))).nodes
        tensor([[3., 1.]])
    """

    def __call__(self, operator: LinearOperator) -> Spectrum:
        nodes = torch.linalg.eigvalsh(operator.dense()).flip(0)[None]
        return Spectrum(nodes, torch.ones_like(nodes), exact=True)


@dataclass(frozen=True)
class Gram:
    r"""Exact spectrum of :math:`F F^\top` from the small matrix :math:`F^\top F`.

    Both have the same eigenvalues above 0, and the other :math:`n - k` are zeros. Takes no
    products and :math:`O(n k \min(n, k))` time; sums are in float64 whatever the factor.

    Raises:
        InputError: When called with an operator that has no factor.

    Example:
        >>> from geomem.operators import Factored
        >>> Gram()(Factored(torch.tensor([[3.0], [4.0], [0.0]]))).nodes
        tensor([[25.,  0.,  0.]], dtype=torch.float64)
    """

    def __call__(self, operator: LinearOperator) -> Spectrum:
        if not isinstance(operator, Factored):
            raise InputError(
                "Gram needs an operator that is known by a factor, and this one is not; "
                "pass Factored(F), or use Dense() or LanczosQuadrature(...)"
            )
        F = operator.factor.double()
        n, k = F.shape
        gram = F.T @ F if k < n else F @ F.T
        nodes = F.new_zeros(n)
        nodes[: min(n, k)] = torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)
        return Spectrum(nodes[None], torch.ones_like(nodes)[None], exact=True)


@dataclass(frozen=True, kw_only=True)
class LanczosQuadrature:
    r"""Stochastic Lanczos quadrature, with full reorthogonalization.

    Takes ``depth * probes`` products, whatever the size of the operator. Probes are signs:
    they see the diagonal of the operator without any variance.

    Arguments:
        depth: The dimension :math:`K` of each Krylov space.
        probes: The number :math:`P` of random starting vectors; at least two for an error.
        seed: The seed of the starting vectors.

    Example:
        >>> from geomem.operators import Matrix
        >>> method = LanczosQuadrature(depth=3, probes=4)
        >>> method(Matrix(torch.diag(torch.tensor([1.0, 2.0, 3.0])))).trace()
        6 ± 0
    """

    depth: int
    probes: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.depth < 1 or self.probes < 1:
            raise InputError("quadrature needs depth >= 1 and probes >= 1")

    def __call__(self, operator: LinearOperator) -> Spectrum:
        rng = torch_rng(self.seed, "lanczos")
        signs = torch.randint(2, (self.probes, operator.size), generator=rng)
        starts = (2 * signs - 1).to(operator.like)
        nodes, weights = zip(*(self._one_probe(operator, q) for q in starts), strict=True)
        return Spectrum(torch.stack(nodes), operator.size * torch.stack(weights))

    def _one_probe(self, operator: LinearOperator, q: Tensor) -> tuple[Tensor, Tensor]:
        depth = min(self.depth, operator.size)
        Q = q.new_zeros(operator.size, depth)
        T = q.new_zeros(depth, depth)
        q = q / q.norm()
        for k in range(depth):
            Q[:, k] = q
            r = operator.matmat(q[:, None])[:, 0]
            T[k, k] = q @ r
            for _ in range(2):  # once leaves rounding errors behind, twice is enough
                r = r - Q @ (Q.T @ r)
            beta = r.norm()
            if k + 1 == depth or beta <= torch.finfo(q.dtype).eps * T.abs().max():
                break  # the remaining nodes keep zero weight: e₁ never reaches them
            T[k, k + 1] = T[k + 1, k] = beta
            q = r / beta
        nodes, vectors = torch.linalg.eigh(T)
        return nodes, vectors[0] ** 2


def spectrum(operator: LinearOperator, method: SpectrumMethod | None = None) -> Spectrum:
    r"""Spectrum of the symmetric part of an operator.

    Arguments:
        operator: The operator; its asymmetry is not looked at, see :func:`asymmetry`.
        method: How; :class:`Dense` if not given.

    Example:
        The exact denoiser of points on a plane varies along two directions of five.

        >>> from geomem.exact import EmpiricalDenoiser
        >>> from geomem.operators import DenoiserJacobian
        >>> rng = torch.Generator().manual_seed(0)
        >>> data = torch.randn(4000, 2, generator=rng) @ torch.eye(2, 5)
        >>> J = DenoiserJacobian(EmpiricalDenoiser(data), torch.zeros(5), torch.tensor(0.3))
        >>> spectrum(J, Dense()).count(above=0.5)
        2 ± 0
    """
    return (method or Dense())(operator.symmetric_part)


def singular_values(operator: LinearOperator) -> Tensor:
    r"""All singular values, largest first, with shape :math:`(n)`, at n products."""
    values: Tensor = torch.linalg.svdvals(operator.dense())
    return values


def asymmetry(operator: LinearOperator) -> float:
    r"""How far an operator is from symmetric: :math:`\|A - A^\top\|_F / \|A + A^\top\|_F`.

    0 for an exact denoiser; 1 to 17 % were seen for trained networks. Infinite for an operator
    without a symmetric part, NaN for zero.
    """
    A = operator.dense()
    difference, total = float((A - A.T).norm()), float((A + A.T).norm())
    if total == 0:
        return math.inf if difference > 0 else math.nan
    return difference / total
