r"""Data of known geometry, so that each prediction has something to be checked against.

A manifold samples points, knows its tangent space and dimension, and, where it is known,
its population denoiser: what infinite data would teach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geomem.arguments import checked
from geomem.compute.progress import Forecast
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact.gaussian import GaussianDenoiser

# Section 9 of the theory notes: the paper's linear manifold, standard deviations 1 (2
# directions), 0.3 (5) and 0.01 (the rest of 30).
PAPER_VARIANCES = (1.0,) * 2 + (0.09,) * 5 + (1e-4,) * 23


class Manifold(Protocol):
    r"""Data whose geometry is known."""

    @property
    def dim(self) -> int:
        r"""The intrinsic dimension m."""

    @property
    def ambient_dim(self) -> int:
        r"""The dimension d of the space around."""

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points, with shape :math:`(N, d)`, in float64."""

    def tangent(self, x_0: Tensor) -> Tensor:
        r"""Orthonormal tangent bases at points ``(B, d)``, with shape :math:`(B, d, m)`."""

    def population_denoiser(self) -> Denoiser:
        r"""The denoiser that infinite data would teach."""


@checked
class LinearManifold:
    r"""Gaussian data on a linear subspace, with one variance per tangent direction.

    The one model of data for which every quantity of the theory is known in closed form.

    Arguments:
        variances: The variance :math:`v_k` along each tangent direction, with shape
            :math:`(m)`; not negative, finite.
        ambient_dim: The dimension :math:`d \geq m` of the space around.
        basis: Orthonormal columns along which they lie, with shape :math:`(d, m)`; the
            first m coordinates if not given.

    Raises:
        InputError: If a variance is negative or not finite, m > d, or the basis is not
            orthonormal.

    Example:
        >>> plane = LinearManifold(torch.tensor([1.0, 0.25]), ambient_dim=5)
        >>> plane.dim, plane.sample(3, torch.Generator()).shape
        (2, torch.Size([3, 5]))
    """

    def __init__(self, variances: Tensor, ambient_dim: int, basis: Tensor | None = None) -> None:
        variances = variances.double()
        if variances.ndim != 1 or not 1 <= len(variances) <= ambient_dim:
            raise InputError(
                f"{tuple(variances.shape)} variances do not fit into {ambient_dim} dimensions; "
                "pass 1 to ambient_dim of them"
            )
        if not bool((torch.isfinite(variances) & (variances >= 0)).all()):
            raise InputError("variances must be finite and not negative")
        num_bytes = 16.0 * ambient_dim * len(variances)
        Forecast(0, num_bytes).check_memory("pass a smaller `ambient_dim`")
        self.variances = variances
        self._ambient_dim = ambient_dim
        self.basis = orthonormal(basis, ambient_dim, len(variances))

    @property
    def dim(self) -> int:
        return int((self.variances > 0).sum())

    @property
    def ambient_dim(self) -> int:
        return self._ambient_dim

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points, with shape :math:`(N, d)`, in float64."""
        z = torch.randn(num_samples, len(self.variances), generator=rng, dtype=torch.float64)
        return z * self.variances.sqrt() @ self.basis.T

    def tangent(self, x_0: Tensor) -> Tensor:
        r"""The same basis at each point of ``(B, d)``, with shape :math:`(B, d, m)`."""
        return self.basis[:, self.variances > 0].expand(len(x_0), -1, -1)

    def population_denoiser(self) -> GaussianDenoiser:
        r"""The exact linear denoiser, with eigenvalues :math:`v_k / (v_k + \sigma^2)`."""
        mean = torch.zeros(self.ambient_dim, dtype=torch.float64)
        return GaussianDenoiser.from_factor(mean, self.basis * self.variances.sqrt())

    def dimension(self, sigma: Tensor) -> Tensor:
        r"""Soft count of kept directions, :math:`\sum_k v_k / (v_k + \sigma^2)`.

        Arguments:
            sigma: The noise level, with shape :math:`(*)`.

        Returns:
            The dimension, with shape :math:`(*)`.
        """
        t = sigma.double()[..., None] ** 2
        return (self.variances / (self.variances + t)).sum(-1)

    def mutual_information(self, sigma: Tensor) -> Tensor:
        r"""What a noisy point tells about the clean one, in nats.

        .. math:: I(x_0; x_\sigma) = \frac{1}{2} \sum_k \log (1 + v_k / \sigma^2)

        Arguments:
            sigma: The noise level, with shape :math:`(*)`.

        Returns:
            The mutual information, with shape :math:`(*)`.
        """
        return torch.log1p(self.variances / sigma.double()[..., None] ** 2).sum(-1) / 2


def orthonormal(basis: Tensor | None, d: int, m: int) -> Tensor:
    r"""Columns ``(d, m)`` in float64 if they are orthonormal; the first m coordinates for none.

    Raises:
        InputError: If they are not.
    """
    if basis is None:
        return torch.eye(d, m, dtype=torch.float64)
    basis = basis.double()
    identity = torch.eye(m, dtype=torch.float64)
    if basis.shape != (d, m) or not torch.allclose(basis.T @ basis, identity, atol=1e-8):
        raise InputError(f"the basis must be {m} orthonormal columns of length {d}")
    return basis


@checked
@dataclass(frozen=True)
class NormalizedLinear:
    r"""A linear manifold whose points are normalised to length 1, as in the paper's figure.

    It breaks its own symmetry at a noise level of its own, whatever the number of points:
    no population denoiser in closed form, and its drop in rank is not memorization.

    Arguments:
        linear: The manifold before normalisation.
    """

    linear: LinearManifold

    @property
    def dim(self) -> int:
        return self.linear.dim - 1

    @property
    def ambient_dim(self) -> int:
        return self.linear.ambient_dim

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points of length 1, with shape :math:`(N, d)`, in float64."""
        x = self.linear.sample(num_samples, rng)
        lengths: Tensor = x.norm(dim=1, keepdim=True)
        return x / lengths
