r"""Quadrature of a spectral measure, by a Krylov space of each probe.

It starts from signs, all probes side by side, so that one call of the operator serves every
probe. A near-projector is better served by deflation: its leading eigenvectors are
found first, counted one by one, and probes see the rest only.

References:
    | Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru et al., 2017)
    | https://doi.org/10.1137/16M1104974
    | Parlett, The Symmetric Eigenvalue Problem (1980): reorthogonalisation
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.operators.linear import LinearOperator, Need, random_signs
from geomem.spectra.krylov import Leading, deflation_products, leading
from geomem.spectra.measures import Quadrature, Spectrum
from geomem.stats import torch_rng


@checked
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

    depth: Annotated[int, Whole(least=1)]
    probes: Annotated[int, Whole(least=1)]
    seed: Annotated[int, Whole(least=0)] = 0
    deflate: Annotated[int, Whole(least=0)] = 0

    def need(self, n: int) -> Need:
        depth, found = min(self.depth, n), deflation_products(self.deflate, n)
        return Need(
            products=depth * self.probes + found,
            columns=max(self.probes, found // 3),
            numbers=float(n) * (self.probes * (depth + 4) + 4 * found),
        )

    def products(self, n: int) -> int:
        return self.need(n).products

    @checked
    def __call__(self, operator: LinearOperator) -> Spectrum:
        n = operator.size
        found = leading(operator, self.deflate, seed=self.seed) if self.deflate else None
        rng = torch_rng(self.seed, "lanczos")
        draw = random_directions if found else random_signs
        starts = draw(n, self.probes, rng)
        measured = quadrature(operator, starts, min(self.depth, n), found)
        taken = min(self.depth, n) * self.probes + (found.products if found else 0)
        how = f"Lanczos quadrature: depth {self.depth}, {self.probes} probes, {taken} products"
        if found:
            how += f"; {len(found.values)} leading eigenvalues found first"
        return as_spectrum(measured, how)


def random_directions(n: int, columns: int, rng: torch.Generator) -> Tensor:
    r"""Gaussian columns, with shape ``(n, columns)``: isotropic also once projected."""
    return torch.randn(columns, n, generator=rng).T.double()


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
    # Probes are rows here: Q has shape (P, K, n), so that one probe's space is contiguous.
    symmetric, (n, P) = operator.symmetric_part, q.shape
    Q, T = q.new_zeros(P, depth, n), q.new_zeros(P, depth + 1, depth + 1)
    eps = torch.finfo(operator.like.dtype).eps
    q = torch.nn.functional.normalize(q, dim=0, eps=1e-100).T
    for k in range(depth):
        Q[:, k] = q
        r = symmetric.matmat(q.T.to(operator.like)).double()
        r = (r - basis @ (basis.T @ r)).T
        T[:, k, k] = (q * r).sum(1)
        seen = Q[:, : k + 1]
        for _ in range(2):  # once leaves rounding errors behind, twice is enough
            r = r - (seen.mT @ (seen @ r[..., None]))[..., 0]
        beta = r.norm(dim=1)
        # A space that is closed goes on with zeros: no weight reaches the nodes behind it.
        alive = beta > eps * T.abs().amax((1, 2))
        beta = torch.where(alive, beta, 0.0)
        T[:, k, k + 1] = T[:, k + 1, k] = beta
        q = torch.where(alive[:, None], r / beta.clamp(min=1e-300)[:, None], 0.0)
    return Quadrature(T, masses, values, found.blur if found else 0.0)


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
