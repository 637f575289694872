r"""Exact denoiser of a Gaussian: the best linear denoiser, the control of every audit.

References:
    | Ledoit & Wolf, A well-conditioned estimator for large covariance matrices (2004)
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from geomem.arguments import Values, checked
from geomem.denoiser import as_columns
from geomem.errors import InputError
from geomem.noise import level_of_each

WIDE = 4096  # coordinates from which on products of points are cheaper by far than those of pixels


class GaussianDenoiser:
    r"""Exact denoiser of a Gaussian: the best linear denoiser, also of a singular one.

    .. math:: D(x, \sigma) = \mu + \Sigma (\Sigma + \sigma^2 I)^{-1} (x - \mu)

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*)`.
        covariance: The covariance, with shape :math:`(d, d)`, or its diagonal, with shape
            :math:`(d)`. It may be singular.

    Raises:
        InputError: If shapes do not match, numbers are not finite, or the covariance is not
            symmetric and positive semi-definite; when called, if a level is not above 0.

    Example:
        >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.tensor([1.0, 0.0]))
        >>> denoiser(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[0.5000, 0.0000]])
    """

    exact: Literal[True] = True

    @checked
    def __init__(
        self,
        mean: Annotated[Tensor, Values(shape="(*)")],
        covariance: Annotated[Tensor, Values()],
    ) -> None:
        d = mean.numel()
        if covariance.shape not in ((d,), (d, d)):
            raise InputError(
                f"the covariance of {d} coordinates has shape ({d}, {d}) or ({d},), "
                f"not {tuple(covariance.shape)}"
            )
        matrix = covariance.double()
        if matrix.ndim == 1:
            variances, basis = matrix, torch.eye(d, dtype=torch.float64, device=matrix.device)
        else:
            # Products made in float32 are symmetric to a few of its eps.
            off = float((matrix - matrix.T).abs().max())
            if off > 1e-5 * float(matrix.abs().max()):
                raise InputError(
                    f"`covariance` is not symmetric: entries differ by up to {off:.3g} from their "
                    "mirror images; pass (C + C.T) / 2 if that is meant"
                )
            variances, basis = torch.linalg.eigh((matrix + matrix.T) / 2)
        self._set(mean, variances.flip(0), basis.flip(1), rest=0.0)

    def _set(self, mean: Tensor, variances: Tensor, basis: Tensor, rest: float) -> None:
        # A matrix made in float32 has eigenvalues that are wrong by its eps.
        slack = 1e-6 * max(float(variances.abs().max()), 1e-300)
        if float(variances.min()) < -slack:
            raise InputError(
                "the covariance is not positive semi-definite; pass variances >= 0, "
                "or use GaussianDenoiser.fit(data)"
            )
        self.mean, self.rest = mean, rest
        self.variances, self.basis = variances.clamp(min=0), basis

    @classmethod
    def _of(cls, mean: Tensor, variances: Tensor, basis: Tensor, rest: float) -> GaussianDenoiser:
        denoiser = cls.__new__(cls)
        denoiser._set(mean, variances, basis, rest)
        return denoiser

    @classmethod
    @checked
    def from_factor(
        cls,
        mean: Annotated[Tensor, Values(shape="(*)")],
        factor: Annotated[Tensor, Values(shape="(d, m)")],
    ) -> GaussianDenoiser:
        r"""Denoiser of :math:`\mu + F z`, singular if F has fewer columns than rows.

        Arguments:
            mean: The mean, with shape :math:`(*)`.
            factor: The matrix :math:`F`, with shape :math:`(d, m)`.

        Raises:
            InputError: If the factor has not one row for each coordinate of the mean.
        """
        if len(factor) != mean.numel():
            raise InputError(
                f"`factor` has {len(factor)} rows for {mean.numel()} coordinates; pass one row "
                "for each"
            )
        basis, values, _ = torch.linalg.svd(factor.double(), full_matrices=False)
        return cls._of(mean, values.square(), basis, rest=0.0)

    @classmethod
    @checked
    def fit(cls, data: Annotated[Tensor, Values(shape="(n, *)")]) -> GaussianDenoiser:
        r"""The linear control: mean and Ledoit-Wolf covariance of data.

        The shrunk covariance of n points is of rank n - 1 plus a multiple of the identity,
        and is kept in that form: the d x d matrix is never made, so d may be large.

        Arguments:
            data: The points, with shape :math:`(n, *)`.

        Raises:
            InputError: If there are fewer than two points, or all of them are equal.
        """
        if len(data) < 2:
            raise InputError("a covariance needs at least two points; reserve more images")
        flat = data.flatten(1).double()
        mean = flat.mean(0)
        centred = flat - mean
        target = float(centred.square().mean())
        if not 0 < target < math.inf:
            raise InputError("all points are equal, so there is nothing to fit")
        shrinkage = _shrinkage(centred)
        _, values, rows = torch.linalg.svd(centred, full_matrices=False)
        variances = (1 - shrinkage) * values.square() / len(flat) + shrinkage * target
        return cls._of(
            mean.reshape(data.shape[1:]).to(data.dtype), variances, rows.T, shrinkage * target
        )

    @property
    def ambient_dim(self) -> int:
        return self.mean.numel()

    @property
    def complement(self) -> int:
        r"""How many directions share the variance ``rest``."""
        return self.ambient_dim - len(self.variances)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        centred, t = self._ask(x, sigma)
        basis = self.basis.to(x.device)
        kept, rest = self._kept(t)
        denoised = centred @ basis * (kept - rest) @ basis.T + rest * centred
        mean = self.mean.flatten().double().to(x.device)
        return (mean + denoised).reshape(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        centred, t = self._ask(x, sigma)
        inside = centred @ self.basis.to(x.device)
        variances, rest = self.variances.to(x.device) + t, self.rest + t[:, 0]
        outside = (centred.square().sum(1) - inside.square().sum(1)).clamp(min=0)
        squares = (inside.square() / variances).sum(1) + outside / rest
        logs = variances.log().sum(1) + self.complement * rest.log()
        return -(squares + logs + self.ambient_dim * math.log(math.tau)) / 2

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor | float, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``, the same at each point: ``(B, n)``."""
        _, t = self._ask(x, sigma)
        U = as_columns(directions, x)
        squares = (self.basis.to(x.device).T @ U).square()
        outside = (U.square().sum(0) - squares.sum(0)).clamp(min=0)
        kept, rest = self._kept(t)
        return kept @ squares + rest * outside

    def _ask(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        # Points about the mean, and squared levels as a column.
        t = level_of_each(sigma, x)[:, None] ** 2
        flat = (x if x.ndim > 1 else x[None]).flatten(1).double()
        if x.ndim < 2 or flat.shape[1] != self.ambient_dim or not x.is_floating_point():
            raise InputError(
                f"`x` is {x.dtype} of shape {tuple(x.shape)}; pass floats of shape (B, *) with "
                f"{self.ambient_dim} coordinates a point"
            )
        return flat - self.mean.flatten().double().to(x.device), t

    def _kept(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # Which share of x is kept along the basis, and along what is orthogonal to it.
        variances, rest = self.variances.to(t.device), t.new_tensor(self.rest)
        return variances / (variances + t), rest / (rest + t)


def _shrinkage(centred: Tensor) -> float:
    # Ledoit and Wolf's share of the identity: the error of the covariance over its distance from
    # a multiple of the identity. Its sums over all d² pairs of coordinates are sums over n² pairs
    # of points, which are the fewer by far in pictures of 64 pixels and more.
    n, d = centred.shape
    if d < WIDE:
        from sklearn.covariance import ledoit_wolf_shrinkage

        return float(ledoit_wolf_shrinkage(centred.numpy(force=True), assume_centered=True))
    products = centred @ centred.T
    squares = products.diagonal()
    of_covariance = float(products.square().sum()) / n**2
    error = (float(squares.square().sum()) / n - of_covariance) / n
    distance = of_covariance - float(squares.sum() / n) ** 2 / d
    return min(1.0, error / distance) if error > 0 else 0.0
