r"""Which directions: principal directions, tangent bases, angles, retention along them.

The order in which dimensions are lost is a statement about directions, so each measured
field is resolved along a fixed orthonormal basis: the principal directions of *reserved*
images. From training images they would hold the answer already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from geomem.arguments import checked
from geomem.checks import admit
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact.gaussian import GaussianDenoiser
from geomem.operators import jacobian_diagonal
from geomem.stats import Estimate


@dataclass(frozen=True, eq=False)
class PrincipalDirections:
    r"""Principal directions, the first ones one by one and the rest in bands.

    A *band* is a set of directions whose squares are added up: the last one holds all that
    the reserved images do not span. Together they are an orthonormal basis, so that sums
    over directions are sums over the whole space.

    Attributes:
        vectors: Orthonormal columns by falling variance, with shape :math:`(d, r)`.
        variances: Their variances, with shape :math:`(r)`.
        rest: The variance of each direction that is not among them.
        singles: How many are kept one by one.
        edges: Band ``k`` holds the columns from ``edges[k]`` to ``edges[k + 1]``.
    """

    vectors: Tensor
    variances: Tensor
    rest: float
    singles: int
    edges: tuple[int, ...]

    @classmethod
    def of(
        cls, control: GaussianDenoiser, singles: int = 64, max_bands: int = 16
    ) -> PrincipalDirections:
        r"""Directions of a fitted Gaussian, see :meth:`GaussianDenoiser.fit`."""
        rank = control.basis.shape[1]
        singles = min(singles, rank)
        bands = max_bands - (control.complement > 0)
        edges = _band_edges(singles, rank, bands)
        return cls(control.basis, control.variances, control.rest, singles, edges)

    @property
    def ambient_dim(self) -> int:
        return self.vectors.shape[0]

    @property
    def counts(self) -> list[int]:
        r"""How many directions each entry stands for; they add up to d."""
        bands = [b - a for a, b in pairwise(self.edges)]
        complement = self.ambient_dim - self.vectors.shape[1]
        return [1] * self.singles + bands + ([complement] if complement else [])

    @property
    def mean_variances(self) -> list[float]:
        r"""The mean variance of each entry."""
        singles = self.variances[: self.singles].tolist()
        pairs = pairwise(self.edges)
        bands = [float(self.variances[a:b].mean()) for a, b in pairs]
        complement = self.ambient_dim > self.vectors.shape[1]
        return [*singles, *bands, *([self.rest] if complement else [])]

    def inner(self, a: Tensor, b: Tensor) -> Tensor:
        r"""Inner products split by direction: they add up to :math:`a \cdot b`.

        Arguments:
            a: Vectors, with shape :math:`(B, *)`.
            b: Vectors, with shape :math:`(B, *)`.

        Returns:
            The split products, with shape :math:`(B, n)`, in float64.
        """
        a, b = a.flatten(1).double(), b.flatten(1).double()
        Q = self.vectors.to(a.device)
        products = (a @ Q) * (b @ Q)
        return self._fold(products, (a * b).sum(1) - products.sum(1))

    def signed(self, a: Tensor) -> Tensor:
        r"""Coordinates along single directions; norms along bands. Their squares add up.

        Arguments:
            a: Vectors, with shape :math:`(B, *)`.

        Returns:
            The coordinates, with shape :math:`(B, n)`, in float64.
        """
        flat = a.flatten(1).double()
        single = flat @ self.vectors[:, : self.singles].to(flat.device)
        inside = (flat @ self.vectors.to(flat.device)).square()
        whole = self._fold(inside, flat.square().sum(1) - inside.sum(1))
        bands = whole[:, self.singles :]
        return torch.cat([single, bands.clamp(min=0).sqrt()], dim=1)

    def jacobian(
        self, denoiser: Denoiser, x: Tensor, sigma: Tensor, rng: torch.Generator
    ) -> Tensor:
        r"""Diagonal of a denoiser's Jacobian, summed over each band.

        Exact denoisers answer along every direction. Networks are asked for one product a
        single direction, and one product a band with random signs, which is unbiased.

        Returns:
            The diagonal, with shape :math:`(B, n)`, in float64.
        """
        single = self.vectors[:, : self.singles]
        if len(self.counts) == self.singles:
            return jacobian_diagonal(denoiser, x, sigma, single)
        if hasattr(denoiser, "jacobian_diagonal"):
            return self._exact_jacobian(denoiser, x, sigma)
        probes = self._band_probes(len(x), rng)
        columns = torch.cat([single.expand(len(x), -1, -1), probes], dim=2)
        return jacobian_diagonal(denoiser, x, sigma, columns)

    def _exact_jacobian(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
        inside = jacobian_diagonal(denoiser, x, sigma, self.vectors)
        if self.vectors.shape[1] == self.ambient_dim:
            return self._fold(inside, inside.new_zeros(len(x)))
        whole = torch.eye(self.ambient_dim, dtype=torch.float64)
        trace = jacobian_diagonal(denoiser, x, sigma, whole).sum(1)
        return self._fold(inside, trace - inside.sum(1))

    def sketches(self, count: int, rng: torch.Generator) -> Tensor:
        r"""Random vectors of each band, whose squared products are unbiased for squared norms.

        Arguments:
            count: How many of each band.
            rng: Where their signs come from.

        Returns:
            The vectors, with shape :math:`(count, d, bands)`, in float64.
        """
        if len(self.counts) == self.singles:
            return torch.zeros(count, self.ambient_dim, 0, dtype=torch.float64)
        return self._band_probes(count, rng)

    def _band_probes(self, batch: int, rng: torch.Generator) -> Tensor:
        d, rank = self.vectors.shape
        signs = (torch.randint(2, (batch, d), generator=rng) * 2 - 1).double()
        pairs = pairwise(self.edges)
        bands = [signs[:, a:b] @ self.vectors[:, a:b].T for a, b in pairs]
        if rank < d:  # signs in the standard basis, projected off the directions
            whole = (torch.randint(2, (batch, d), generator=rng) * 2 - 1).double()
            bands.append(whole - whole @ self.vectors @ self.vectors.T)
        return torch.stack(bands, dim=2)

    def _fold(self, inside: Tensor, complement: Tensor) -> Tensor:
        pairs = pairwise(self.edges)
        bands = [inside[:, a:b].sum(1) for a, b in pairs]
        if self.vectors.shape[1] < self.ambient_dim:
            bands.append(complement)
        return torch.cat([inside[:, : self.singles], *(b[:, None] for b in bands)], dim=1)


def _band_edges(start: int, stop: int, bands: int) -> tuple[int, ...]:
    # Bands of geometrically growing width: variances fall like a power, too.
    if start == stop:
        return (start,)
    points = {
        round(math.exp(math.log(start) + k / bands * math.log(stop / start)))
        for k in range(bands + 1)
    }
    return tuple(sorted(points | {start, stop}))


@checked
def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    r"""Angles between two subspaces, smallest first, in radians.

    Singular values alone hide turning subspaces: a model may keep as many directions as its
    population and still keep other ones.

    Arguments:
        first: Orthonormal columns, with shape :math:`(d, m)`.
        second: Orthonormal columns, with shape :math:`(d, k)`.

    Returns:
        The angles, with shape :math:`(\min(m, k))`, in the wider dtype of the two.

    Raises:
        InputError: If the columns are not orthonormal, to 1e-4, or live in different spaces.

    Example:
        >>> principal_angles(torch.eye(3, 2), torch.eye(3)[:, 1:]).rad2deg()
        tensor([ 0., 90.])
    """
    if first.ndim != 2 or second.ndim != 2:
        raise InputError("`first` and `second` are bases; pass columns, of shape (d, m)")
    if len(first) != len(second):
        raise InputError(
            f"subspaces of {len(first)} and of {len(second)} coordinates have no angles; "
            "pass bases of one space, one row a coordinate"
        )
    dtype = torch.promote_types(first.dtype, second.dtype)
    first, second = _orthonormal(first.to(dtype)), _orthonormal(second.to(dtype))
    cosines = torch.linalg.svdvals(first.T @ second).clamp(max=1)
    # acos loses half of the digits near 0; the sines are accurate there.
    small, large = (first, second) if first.shape[1] <= second.shape[1] else (second, first)
    residual = small - large @ (large.T @ small)
    sines = torch.linalg.svdvals(residual).clamp(max=1).flip(0)
    return torch.where(cosines > 0.7, sines.asin(), cosines.acos())


def _orthonormal(basis: Tensor) -> Tensor:
    # Clamped cosines would make angles of any columns; float32 leaves 1e-6 of orthonormal ones.
    gram = basis.T @ basis
    if not bool(((gram - torch.eye(len(gram)).to(gram)).abs() <= 1e-4).all()):
        raise InputError("a basis must have orthonormal columns; pass torch.linalg.qr(basis).Q")
    return basis


@checked
def retention(
    denoiser: Denoiser, control: Denoiser, x: Tensor, sigma: Tensor, directions: Tensor
) -> list[Estimate | None]:
    r"""Kept share of the control's posterior variance along directions, mean over points.

    .. math:: r_u = \frac{E[u^\top \nabla D\, u]}{E[u^\top \nabla D_{control}\, u]}

    Both are means over the same points, so this is a ratio of means, with its error by the
    delta method. It is undefined (None) where the control itself keeps less than .05.

    Arguments:
        denoiser: The denoiser in question.
        control: The named control: population, held-out or linear.
        x: The noisy points, with shape :math:`(B, *)`.
        sigma: The noise level, with shape :math:`()`.
        directions: Unit vectors as columns, with shape :math:`(d, n)`; shared by the points,
            or one set a point with shape :math:`(B, d, n)`, as tangents are.

    Raises:
        InputError: If a direction is not of length 1, or one of the two denoisers cannot be
            measured, see :func:`geomem.checks.admit`.
    """
    if directions.ndim not in (2, 3):
        raise InputError(
            f"`directions` has shape {tuple(directions.shape)}; pass (d, n), or (B, d, n)"
        )
    lengths = directions.double().norm(dim=-2)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-6):
        raise InputError("directions must be unit vectors; divide each column by its norm")
    for either in (denoiser, control):  # also those that answer without derivatives
        admit(either, x[0], sigma)
    measured = jacobian_diagonal(denoiser, x, sigma, directions)
    reference = jacobian_diagonal(control, x, sigma, directions)
    return [_ratio(m, r) for m, r in zip(measured.T, reference.T, strict=True)]


def _ratio(measured: Tensor, reference: Tensor) -> Estimate | None:
    kept = float(reference.mean())
    if kept < 0.05:
        return None
    ratio = float(measured.mean()) / kept
    deviation = Estimate.of_mean((measured - ratio * reference).numpy(force=True))
    return Estimate(ratio, deviation.stderr / kept)
