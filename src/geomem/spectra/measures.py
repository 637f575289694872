r"""Spectra as measures: each question is an integral, and comes with its standard error.

A method is a frozen value with its settings inside, called with an operator, of which it sees
the symmetric part. An
exact spectrum has error 0; a sampled one has the spread over its probes. Sums are float64
whatever the operator computes in.

How many eigenvalues exceed a threshold is the integral of a step, and no quadrature of
polynomials is unbiased for steps. It is bounded, though: by the inequalities of Chebyshev,
Markov and Stieltjes, among all measures that share their first moments, the one with a node
at the threshold itself has the least and, with this node, the most beyond it.

References:
    | Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru et al., 2017)
    | https://doi.org/10.1137/16M1104974
    | Golub & Meurant, Matrices, Moments and Quadrature (1994): rules with a given node
    | Karlin & Studden, Tchebycheff Systems (1966): Chebyshev-Markov-Stieltjes inequalities
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.operators.linear import (
    Factored,
    LinearOperator,
    Matrix,
    Need,
    eigenvalue_flops,
    random_signs,
)
from geomem.stats import Estimate, torch_rng


@dataclass(frozen=True)
class Quadrature:
    r"""What lies behind the nodes of a sampled spectrum, and bounds its counts.

    Attributes:
        jacobi: The tridiagonal matrix of each probe and one row more, whose diagonal entry
            is free, with shape :math:`(P, K+1, K+1)`.
        masses: How many eigenvalues each probe stands for, with shape :math:`(P)`.
        found: The eigenvalues that are counted one by one, with shape :math:`(k)`.
        blur: The norm of :math:`A U - U \Theta` for their vectors: by Weyl's inequality no
            eigenvalue is further from where it is counted.
    """

    jacobi: Tensor
    masses: Tensor
    found: Tensor
    blur: float = 0.0

    def beyond(self, above: float) -> tuple[Estimate, Estimate]:
        r"""Least and largest number of eigenvalues above a threshold, over the probes."""
        high_at, low_at = above - self.blur, above + self.blur
        low = self.masses * self._share(low_at)[0] + int((self.found > low_at).sum())
        high = self.masses * self._share(high_at)[1] + int((self.found > high_at).sum())
        return Estimate.of_mean(low.numpy(force=True)), Estimate.of_mean(high.numpy(force=True))

    def _share(self, at: float) -> tuple[Tensor, Tensor]:
        # The last diagonal entry α makes `at` an eigenvalue: α = at + β² [(T - at)⁻¹]_KK.
        T, beta = self.jacobi[:, :-1, :-1], self.jacobi[:, -1, -2]
        nodes, vectors = torch.linalg.eigh(T)
        tiny = torch.finfo(T.dtype).eps * (1 + T.abs().amax((1, 2)))[:, None]
        gaps = nodes - at
        gaps = torch.where(gaps.abs() < tiny, tiny, gaps)
        rule = self.jacobi.clone()
        rule[:, -1, -1] = at + beta**2 * (vectors[:, -1].square() / gaps).sum(1)
        nodes, vectors = torch.linalg.eigh(rule)
        weights = vectors[:, 0].square()
        given = torch.nn.functional.one_hot((nodes - at).abs().argmin(1), nodes.shape[1])
        low = (weights * ((nodes > at) & (given == 0))).sum(1)
        return low, low + (weights * given).sum(1)


@dataclass(frozen=True)
class Spectrum:
    r"""Spectral measure of a symmetric operator, exact or sampled.

    .. math:: \mu = \sum_{i=1}^n \delta_{\lambda_i}
        \approx \frac{1}{P} \sum_{p=1}^P \sum_{k=1}^K w_{pk} \, \delta_{\theta_{pk}}

    Attributes:
        nodes: The eigenvalues or their Ritz estimates, with shape :math:`(P, K)`.
        weights: How many eigenvalues each node stands for, with shape :math:`(P, K)`.
        exact: Whether the nodes are the eigenvalues themselves.
        quadrature: What bounds the counts of a sampled spectrum, if the method knows.
        how: How it was obtained, in words.
    """

    nodes: Tensor
    weights: Tensor
    exact: bool = False
    quadrature: Quadrature | None = None
    how: str = ""

    def integrate(self, fn: Callable[[Tensor], Tensor]) -> Estimate:
        r"""Estimates :math:`\sum_i f(\lambda_i)`.

        Example:
            >>> known = Spectrum(torch.tensor([[3.0, 1.0]]), torch.ones(1, 2), exact=True)
            >>> known.integrate(torch.log)
            1.09861 ± 0
        """
        sums = (self.weights.double() * fn(self.nodes.double())).sum(dim=1)
        if self.exact:
            return Estimate(sums.mean().item(), 0.0)
        return Estimate.of_mean(sums.numpy(force=True))

    def count(self, above: float) -> Estimate:
        r"""Estimates how many eigenvalues exceed a threshold.

        Quadrature is unbiased for polynomials only: a step is smeared over the distance
        between neighbouring nodes, a bias that the standard error does not contain and
        :meth:`count_bounds` does.
        """
        return self.integrate(lambda nodes: (nodes > above).to(nodes))

    def count_bounds(self, above: float) -> tuple[Estimate, Estimate]:
        r"""Least and largest number of eigenvalues above a threshold, each with its error.

        The number itself lies between the two means, whatever the spectrum looks like
        between the nodes; their errors are those of the probes. Where no eigenvalue is near
        the threshold both agree.

        Raises:
            InputError: If the method does not know what lies behind its nodes.

        Example:
            >>> known = Spectrum(torch.tensor([[3.0, 1.0]]), torch.ones(1, 2), exact=True)
            >>> known.count_bounds(above=2)
            (1 ± 0, 1 ± 0)
        """
        if self.exact:
            return self.count(above), self.count(above)
        if self.quadrature is None:
            raise InputError(
                "this spectrum does not bound its counts; use LanczosQuadrature, "
                "RandomizedSVD or Dense"
            )
        return self.quadrature.beyond(above)

    def trace(self) -> Estimate:
        r"""Estimates the sum of the eigenvalues: the soft count of kept dimensions."""
        return self.integrate(lambda nodes: nodes)


class SpectrumMethod(Protocol):
    r"""A way to obtain the spectrum of an operator's symmetric part, with its settings inside.

    One that also has ``products(n)``, or ``need(n)``, can be forecast by
    :meth:`geomem.operators.linear.LinearOperator.cost`.
    """

    def __call__(self, operator: LinearOperator) -> Spectrum: ...


@dataclass(frozen=True)
class Dense:
    r"""Full eigendecomposition. Takes :math:`n` products and :math:`O(n^3)` time.

    Raises:
        InputError: When called, if the matrix does not fit into the memory that is free.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> Dense()(Matrix(torch.diag(torch.tensor([1.0, 3.0])))).nodes
        tensor([[3., 1.]], dtype=torch.float64)
    """

    def need(self, n: int) -> Need:
        return Need(
            products=n,
            columns=n,
            one_sided=True,  # the symmetric part of a matrix that is at hand is free
            numbers=3.0 * n**2,
            flops=eigenvalue_flops(n),
        )

    def products(self, n: int) -> int:
        return self.need(n).products

    @checked
    def __call__(self, operator: LinearOperator) -> Spectrum:
        n = operator.size
        Forecast(seconds=0, num_bytes=8 * self.need(n).numbers).check_memory(
            "use LanczosQuadrature, RandomizedSVD or trace(), which never make the matrix"
        )
        nodes = torch.linalg.eigvalsh(operator.symmetric_part.dense().double()).flip(0)[None]
        how = f"dense: all {n} eigenvalues"
        return Spectrum(nodes, torch.ones_like(nodes), exact=True, how=how)


@dataclass(frozen=True)
class Gram:
    r"""Exact spectrum of :math:`F F^\top` from the small matrix :math:`F^\top F`.

    Both have the same eigenvalues above 0, and the other :math:`n - k` are zeros. Takes no
    products and :math:`O(n k \min(n, k))` time.

    Raises:
        InputError: When called with an operator that has no factor.

    Example:
        >>> from geomem.operators.linear import Factored
        >>> Gram()(Factored(torch.tensor([[3.0], [4.0], [0.0]]))).nodes
        tensor([[25.,  0.,  0.]], dtype=torch.float64)
    """

    def products(self, n: int) -> int:
        return 0

    @checked
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
        how = f"exact: the Gram matrix of {k} columns"
        return Spectrum(nodes[None], torch.ones_like(nodes)[None], exact=True, how=how)


@checked
def singular_values(operator: LinearOperator) -> Tensor:
    r"""All singular values, largest first, with shape :math:`(n)`, at n products."""
    values: Tensor = torch.linalg.svdvals(operator.dense().double())
    return values


@checked
def asymmetry(
    operator: LinearOperator,
    probes: Annotated[int | None, Whole(least=1)] = None,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> Estimate:
    r"""How far an operator is from symmetric: :math:`\|A - A^\top\|_F / \|A + A^\top\|_F`.

    0 for an exact denoiser; 1 to 17 % were seen for trained networks. Infinite for an operator
    without a symmetric part, NaN for zero.

    Arguments:
        operator: The operator :math:`A`.
        probes: How many random signs s estimate both norms, as :math:`E |A s|^2`, at one
            product from each side; the matrix itself, at n products, if not given.
        seed: The seed of the signs.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> asymmetry(Matrix(torch.tensor([[1.0, 0.5], [-0.5, 1.0]])))
        0.5 ± 0
    """
    if probes is None:
        A = operator.dense().double()
        return Estimate(_ratio(float((A - A.T).norm()), float((A + A.T).norm())), 0.0)
    V = random_signs(operator.size, probes, torch_rng(seed, "asymmetry")).to(operator.like)
    A_V, At_V = (product.double() for product in operator.both(V))
    difference, total = ((A_V + s * At_V).square().sum(0) for s in (-1, 1))
    a, b = float(difference.mean()), float(total.mean())
    ratio = _ratio(math.sqrt(a), math.sqrt(b))
    if not 0 < ratio < math.inf:
        return Estimate(ratio, 0.0 if ratio == 0 else math.nan)
    # r² = a/b, so that to first order δ(r²) is the mean of (a_p - r² b_p)/b, and δr = δ(r²)/2r.
    spread = Estimate.of_mean(((difference - ratio**2 * total) / b).numpy(force=True))
    return Estimate(ratio, spread.stderr / (2 * ratio))


def _ratio(difference: float, total: float) -> float:
    if total == 0:
        return math.inf if difference > 0 else math.nan
    return difference / total


@dataclass(frozen=True)
class Decomposition:
    r"""The three things that a matrix of derivatives tells.

    Attributes:
        spectrum: The eigenvalues of the symmetric part.
        singular_values: The singular values of the matrix itself, with shape :math:`(n)`.
        asymmetry: How far the two are from telling the same.
    """

    spectrum: Spectrum
    singular_values: Tensor
    asymmetry: Estimate


@checked
def decompose(operator: LinearOperator) -> Decomposition:
    r"""Eigenvalues of the symmetric part, singular values and asymmetry, at n products."""
    dense = Matrix(operator.dense().double())
    return Decomposition(Dense()(dense.symmetric_part), singular_values(dense), asymmetry(dense))
