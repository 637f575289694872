r"""Tangent bases as a denoiser sees them, and how they turn.

The leading eigenvectors of the Jacobian span the directions in which a denoiser still varies:
its own idea of the tangent space. Two models may keep as many directions and still keep other
ones, so the angles between these spaces are measured, too: from point to point, between
training-set sizes, between models.

A basis is found by products alone, and comes with a bound: if R holds the residuals of the
basis and the rest of the spectrum lies a gap :math:`\delta` below, the space found is turned
by no more than :math:`\arcsin(\|R\| / \delta)` from the true one (Davis & Kahan).

References:
    | Davis & Kahan, The rotation of eigenvectors by a perturbation III (1970)
    | Halko, Martinsson & Tropp, Finding structure with randomness (2011), arXiv 0909.4061
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from geomem.arguments import Number, Whole, checked
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.operators import DenoiserJacobian, one_point
from geomem.spectra.krylov import BlockKrylov
from geomem.stats import Estimate, torch_rng
from geomem.subspaces import principal_angles


@dataclass(frozen=True, eq=False)
class TangentBasis:
    r"""The leading eigenvectors of a Jacobian's symmetric part at one point.

    Attributes:
        vectors: Orthonormal columns, with shape :math:`(d, m)`, in float64.
        values: Their eigenvalues, largest first, with shape :math:`(m)`, in float64.
        gap: How far the next eigenvalue lies below the last of them: near 0 the space is
            not determined, whatever the method.
        turned: A bound on its largest angle to the true space, in radians; pi/2 if the gap
            is too small to tell.
    """

    vectors: Tensor
    values: Tensor
    gap: float
    turned: float


@checked
def tangent_basis(
    denoiser: Denoiser,
    x: Tensor,
    sigma: Tensor | float,
    m: Annotated[int, Whole(least=1)],
    *,
    tolerance: Annotated[float, Number(least=0.0)] = 1e-3,
    max_blocks: Annotated[int, Whole(least=1)] = 12,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> TangentBasis:
    r"""Leading tangent basis of a denoiser at a point, matrix-free.

    A block Krylov space (:class:`geomem.spectra.krylov.BlockKrylov`) grows until the residuals
    are small against the gap. A block takes m + 8 products with the Jacobian and as many with
    its transpose, and keeps 16 (m + 8) d bytes; near-projectors need two or three blocks.

    Arguments:
        denoiser: The denoiser :math:`D`.
        x: The noisy point, with shape :math:`(*)`.
        sigma: The noise level, with shape :math:`()`.
        m: How many directions, at most d.
        tolerance: The angle, in radians, to which the space is wanted.
        max_blocks: How many blocks at most; ``turned`` tells how far they came.
        seed: The seed of the random directions.

    Raises:
        InputError: If m is not between 1 and d, the point or a product is not finite, or the
            denoiser cannot be measured, see :func:`geomem.checks.admit`.

    Example:
        >>> keep = lambda x, sigma: x * torch.tensor([0.1, 0.9, 0.8, 0.0])
        >>> basis = tangent_basis(keep, torch.zeros(4), torch.tensor(1.0), 2)
        >>> basis.values.round(decimals=3).tolist(), round(basis.gap, 3)
        ([0.9, 0.8], 0.7)
    """
    x, sigma = one_point(x, sigma)
    d = x.numel()
    if m > d:
        raise InputError(f"a point of {d} coordinates has bases of 1 to {d} vectors; `m` is {m}")
    space = BlockKrylov(DenoiserJacobian(denoiser, x, sigma))
    space.grow(torch.randn(min(d, m + 8), d, generator=torch_rng(seed, "tangent")).T)
    for block in range(1, max_blocks + 1):
        pairs = space.pairs(m)
        size = float(torch.linalg.matrix_norm(pairs.residuals, 2))
        gap = float(pairs.values[m - 1] - pairs.values[m]) if m < space.columns else math.inf
        turned = math.asin(min(1.0, size / gap)) if gap > 0 else math.pi / 2
        # Below this, rounding of the denoiser's own dtype decides, not the number of blocks.
        settled = turned <= max(tolerance, 10 * torch.finfo(x.dtype).eps)
        if settled or block == max_blocks or not space.grow(space.images()):
            break
    return TangentBasis(pairs.vectors, pairs.values[:m], gap, turned)


def angles_between_points(denoiser: Denoiser, x: Tensor, sigma: Tensor, m: int) -> Tensor:
    r"""Principal angles between the tangent spaces at each two of several points.

    Arguments:
        denoiser: The denoiser :math:`D`.
        x: The noisy points, with shape :math:`(B, *)`.
        sigma: The noise level, with shape :math:`()`.
        m: How many directions at each.

    Returns:
        The angles, smallest first, with shape :math:`(B, B, m)`, in radians.
    """
    return _pairwise([tangent_basis(denoiser, point, sigma, m).vectors for point in x])


def angles_between_denoisers(
    denoisers: Mapping[str, Denoiser], x: Tensor, sigma: Tensor, m: int
) -> Tensor:
    r"""Principal angles between the tangent spaces of several denoisers at one point.

    Of networks trained on N = 100, 1,000, ... images: how the space turns with N. With the
    population among them: how far each is from the truth.

    Arguments:
        denoisers: K denoisers by name, or by N.
        x: The noisy point, with shape :math:`(*)`.
        sigma: The noise level, with shape :math:`()`.
        m: How many directions of each.

    Returns:
        The angles, smallest first, with shape :math:`(K, K, m)`, in the mapping's order.
    """
    return _pairwise([tangent_basis(d, x, sigma, m).vectors for d in denoisers.values()])


def _pairwise(bases: list[Tensor]) -> Tensor:
    rows = [torch.stack([principal_angles(a, b) for b in bases]) for a in bases]
    return torch.stack(rows)


@checked
def turning(
    denoiser: Denoiser, control: Denoiser, x: Tensor, sigma: Tensor, m: int
) -> tuple[Estimate, ...]:
    r"""Principal angles between a denoiser's tangent space and a control's, mean over points.

    Arguments:
        denoiser: The denoiser in question.
        control: The named control: population, held-out or linear, or another N.
        x: The noisy points, with shape :math:`(B, *)`.
        sigma: The noise level, with shape :math:`()`.
        m: How many directions of each.

    Returns:
        The m angles, smallest first, in radians.

    Raises:
        InputError: If there is no noisy point.
    """
    if x.ndim < 2 or not len(x):
        raise InputError(f"`x` has shape {tuple(x.shape)}; pass noisy points of shape (B, *)")
    pairs = [[tangent_basis(d, p, sigma, m).vectors for d in (denoiser, control)] for p in x]
    angles = torch.stack([principal_angles(a, b) for a, b in pairs]).numpy(force=True)
    return tuple(Estimate.of_mean(column) for column in angles.T)


def angle_to_space(directions: Tensor, basis: Tensor) -> Tensor:
    r"""Angles between single directions and a space, in radians.

    Arguments:
        directions: Unit vectors as columns, with shape :math:`(d, n)`.
        basis: Orthonormal columns, with shape :math:`(d, m)`.

    Returns:
        The angles, from 0 (inside) to pi/2 (orthogonal), with shape :math:`(n)`.

    Example:
        >>> angle_to_space(torch.eye(3), torch.eye(3, 2)).rad2deg()
        tensor([ 0.,  0., 90.])
    """
    inside = basis.T @ directions
    outside = directions - basis @ inside
    return torch.atan2(outside.norm(dim=0), inside.norm(dim=0))
