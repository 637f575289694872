r"""Krylov spaces: quadrature of a spectral measure, and the leading directions, blocked.

Quadrature starts from signs, all probes side by side, so that one call of the operator serves
every probe. A near-projector is better served by deflation: its leading eigenvectors are
found first, counted one by one, and probes see the rest only.

References:
    | Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru et al., 2017)
    | https://doi.org/10.1137/16M1104974
    | Musco & Musco, Randomized block Krylov methods (2015), arXiv 1504.05477
    | Parlett, The Symmetric Eigenvalue Problem (1980): reorthogonalisation, residual bounds
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.operators.linear import LinearOperator, Need, random_signs
from geomem.spectra.measures import Quadrature, Spectrum
from geomem.stats import torch_rng


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
    operator, n = operator.symmetric_part, operator.size
    rng = torch_rng(seed, "leading")
    block = torch.randn(min(n, rank + oversample), n, generator=rng).T.double()
    V = W = torch.zeros(n, 0, dtype=torch.float64, device=operator.like.device)
    block = block.to(V.device)
    for _ in range(power + 1):
        block = orthonormal(block[:, : n - V.shape[1]], V)
        if block.shape[1] == 0:
            break  # the space is all there is
        V = torch.cat([V, block], 1)
        block = _product(operator, block)
        W = torch.cat([W, block], 1)
    return _ritz(V, W, min(rank, n))


def _ritz(V: Tensor, W: Tensor, rank: int) -> Leading:
    T = V.T @ W
    values, U = torch.linalg.eigh((T + T.T) / 2)
    order = values.abs().argsort(descending=True)[:rank]
    values, U = values[order], U[:, order]
    vectors = V @ U
    R = W @ U - vectors * values
    return Leading(
        values, vectors, R.norm(dim=0), float(torch.linalg.matrix_norm(R, 2)), V.shape[1]
    )


def orthonormal(block: Tensor, basis: Tensor) -> Tensor:
    r"""Orthonormal columns that span a block's part outside a basis; dependent ones drop."""
    # What is left of a column that was in the basis is rounding, of no direction; and the
    # second pass, which takes out what rounding left, must find the columns nearly whole.
    for floor in (1e-10 * float(block.norm(dim=0).amax()) if block.numel() else 0.0, 0.5):
        block = block - basis @ (basis.T @ block)
        left, values, _ = torch.linalg.svd(block, full_matrices=False)
        block = left[:, values > floor]
    return block


def _product(operator: LinearOperator, V: Tensor) -> Tensor:
    return operator.matmat(V.to(operator.like)).double()


@dataclass(frozen=True, kw_only=True)
class LanczosQuadrature:
    r"""Stochastic Lanczos quadrature, with full reorthogonalisation.

    Takes ``depth * probes`` products, whatever the size of the operator, one call of the
    operator a step. Probes are signs, which see the diagonal of the operator without any
    variance; outside of deflated directions they are isotropic. Counts come with rigorous
    bounds: :meth:`Spectrum.count_bounds`.

    Arguments:
        depth: The dimension :math:`K` of each Krylov space.
        probes: The number :math:`P` of random starting vectors; at least two for an error.
        seed: The seed of the starting vectors.
        deflate: How many leading eigenvectors are found first, at about three products
            each, and counted one by one; probes then see the rest only.

    Example:
        >>> from geomem.operators.linear import Matrix
        >>> method = LanczosQuadrature(depth=3, probes=4)
        >>> method(Matrix(torch.diag(torch.tensor([1.0, 2.0, 3.0])))).trace()
        6 ± 0
    """

    depth: int
    probes: int
    seed: int = 0
    deflate: int = 0

    def __post_init__(self) -> None:
        if self.depth < 1 or self.probes < 1 or self.deflate < 0:
            raise InputError("quadrature needs depth >= 1, probes >= 1 and deflate >= 0")

    def need(self, n: int) -> Need:
        depth, found = min(self.depth, n), deflation_products(self.deflate, n)
        return Need(
            products=depth * self.probes + found,
            columns=max(self.probes, found // 3),
            numbers=float(n) * (self.probes * (depth + 4) + 3 * found),
        )

    def products(self, n: int) -> int:
        return self.need(n).products

    def __call__(self, operator: LinearOperator) -> Spectrum:
        n = operator.size
        found = leading(operator, self.deflate, seed=self.seed) if self.deflate else None
        rng = torch_rng(self.seed, "lanczos")
        starts = (
            random_directions(n, self.probes, rng) if found else random_signs(n, self.probes, rng)
        )
        measured = quadrature(operator, starts, min(self.depth, n), found)
        taken = min(self.depth, n) * self.probes + (found.products if found else 0)
        how = f"Lanczos quadrature: depth {self.depth}, {self.probes} probes, {taken} products"
        if found:
            how += f"; {len(found.values)} leading eigenvalues found first"
        return as_spectrum(measured, how)


def random_directions(n: int, columns: int, rng: torch.Generator) -> Tensor:
    r"""Gaussian columns, with shape ``(n, columns)``: isotropic also once projected."""
    return torch.randn(columns, n, generator=rng).T.double()


def deflation_products(rank: int, n: int, oversample: int = 10, power: int = 2) -> int:
    r"""How many products :func:`leading` takes, at most."""
    return min(n, (power + 1) * min(n, rank + oversample)) if rank else 0


def quadrature(
    operator: LinearOperator, starts: Tensor, depth: int, found: Leading | None = None
) -> Quadrature:
    r"""Gauss quadrature of the measure that each starting vector sees.

    Arguments:
        operator: The operator; its symmetric part is what counts.
        starts: The starting vectors as columns, with shape :math:`(n, P)`: signs, or random
            directions where eigenpairs are left out.
        depth: The dimension :math:`K` of each Krylov space.
        found: Eigenpairs outside of which the starting vectors are projected.
    """
    device = operator.like.device
    q = starts.double().to(device)
    basis = q.new_zeros(operator.size, 0) if found is None else found.vectors
    values = q.new_zeros(0) if found is None else found.values
    q = q - basis @ (basis.T @ q)
    # Of a random direction in the rest each probe stands for all of it, whatever its length.
    masses = q.new_full((q.shape[1],), float(operator.size - len(values)))
    jacobi = _tridiagonal(operator.symmetric_part, q, depth, basis)
    return Quadrature(jacobi, masses, values, found.blur if found else 0.0)


def _tridiagonal(operator: LinearOperator, q: Tensor, depth: int, basis: Tensor) -> Tensor:
    # Probes are rows here: Q has shape (P, K, n), so that one probe's space is contiguous.
    n, P = q.shape
    Q, T = q.new_zeros(P, depth, n), q.new_zeros(P, depth + 1, depth + 1)
    eps = torch.finfo(operator.like.dtype).eps
    q = torch.nn.functional.normalize(q, dim=0, eps=1e-100).T
    for k in range(depth):
        Q[:, k] = q
        r = _product(operator, q.T)
        r = (r - basis @ (basis.T @ r)).T
        T[:, k, k] = (q * r).sum(1)
        r = _outside(r, Q[:, : k + 1])
        beta = r.norm(dim=1)
        # A space that is closed goes on with zeros: no weight reaches the nodes behind it.
        alive = beta > eps * T.abs().amax((1, 2))
        beta = torch.where(alive, beta, 0.0)
        T[:, k, k + 1] = T[:, k + 1, k] = beta
        q = torch.where(alive[:, None], r / beta.clamp(min=1e-300)[:, None], 0.0)
    return T


def _outside(r: Tensor, Q: Tensor) -> Tensor:
    for _ in range(2):  # once leaves rounding errors behind, twice is enough
        r = r - (Q.mT @ (Q @ r[..., None]))[..., 0]
    return r


def as_spectrum(measured: Quadrature, how: str) -> Spectrum:
    r"""The nodes and weights of a quadrature, and of what was counted one by one."""
    nodes, vectors = torch.linalg.eigh(measured.jacobi[:, :-1, :-1])
    weights = measured.masses[:, None] * vectors[:, 0].square()
    found = measured.found.expand(len(nodes), -1)
    return Spectrum(
        torch.cat([found, nodes], 1),
        torch.cat([torch.ones_like(found), weights], 1),
        quadrature=measured,
        how=how,
    )
