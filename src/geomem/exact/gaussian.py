r"""Exact denoiser of a Gaussian: the best linear denoiser, the control of every audit.

References:
    | Ledoit & Wolf, A well-conditioned estimator for large covariance matrices (2004)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geomem.errors import InputError


class GaussianDenoiser:
    r"""Exact denoiser of a Gaussian: the best linear denoiser, also of a singular one.

    .. math:: D(x, \sigma) = \mu + \Sigma (\Sigma + \sigma^2 I)^{-1} (x - \mu)

    Arguments:
        mean: The mean :math:`\mu`, with shape :math:`(*)`.
        covariance: The covariance, with shape :math:`(d, d)`, or its diagonal, with shape
            :math:`(d)`. It may be singular.

    Raises:
        InputError: If shapes do not match, or the covariance is not positive semi-definite.

    Example:
        >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.tensor([1.0, 0.0]))
        >>> denoiser(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[0.5000, 0.0000]])
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        d = mean.numel()
        if covariance.shape not in ((d,), (d, d)):
            raise InputError(
                f"the covariance of {d} coordinates has shape ({d}, {d}) or ({d},), "
                f"not {tuple(covariance.shape)}"
            )
        if covariance.ndim == 1:
            variances, basis = covariance.double(), torch.eye(d, dtype=torch.float64)
        else:
            variances, basis = torch.linalg.eigh(covariance.double())
        self._set(mean, variances.flip(0), basis.flip(1), rest=0.0)

    def _set(self, mean: Tensor, variances: Tensor, basis: Tensor, rest: float) -> None:
        slack = 1e-9 * max(float(variances.abs().max()), 1e-300)
        if not torch.isfinite(variances).all() or float(variances.min()) < -slack or rest < 0:
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
    def from_factor(cls, mean: Tensor, factor: Tensor) -> GaussianDenoiser:
        r"""Denoiser of :math:`\mu + F z`, singular if F has fewer columns than rows.

        Arguments:
            mean: The mean, with shape :math:`(*)`.
            factor: The matrix :math:`F`, with shape :math:`(d, m)`.
        """
        basis, values, _ = torch.linalg.svd(factor.double(), full_matrices=False)
        return cls._of(mean, values.square(), basis, rest=0.0)

    @classmethod
    def fit(cls, data: Tensor) -> GaussianDenoiser:
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
        from sklearn.covariance import ledoit_wolf_shrinkage

        flat = data.flatten(1).double()
        mean = flat.mean(0)
        centred = flat - mean
        target = float(centred.square().mean())
        if not 0 < target < math.inf:
            raise InputError("all points are equal or not finite, so there is nothing to fit")
        shrinkage = float(ledoit_wolf_shrinkage(centred.numpy(force=True), assume_centered=True))
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

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        t = sigma.double().to(x.device).expand(len(x))[:, None] ** 2
        basis = self.basis.to(x.device)
        centred = x.flatten(1).double() - self.mean.flatten().double().to(x.device)
        kept, rest = _kept(self.variances.to(x.device), t), _kept(t.new_tensor(self.rest), t)
        denoised = centred @ basis * (kept - rest) @ basis.T + rest * centred
        mean = self.mean.double().to(x.device)
        return (mean + denoised.reshape(x.shape)).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        t = sigma.double().to(x.device).expand(len(x))[:, None] ** 2
        centred = x.flatten(1).double() - self.mean.flatten().double().to(x.device)
        inside = centred @ self.basis.to(x.device)
        variances = self.variances.to(x.device) + t
        outside = (centred.square().sum(1) - inside.square().sum(1)).clamp(min=0)
        squares = (inside.square() / variances).sum(1) + outside / (self.rest + t[:, 0])
        logs = variances.log().sum(1) + self.complement * (self.rest + t[:, 0]).log()
        return -(squares + logs + self.ambient_dim * math.log(math.tau)) / 2

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``, the same at each point: ``(B, n)``."""
        t = sigma.double().to(x.device).expand(len(x))[:, None] ** 2
        U = directions.double().to(x.device)
        squares = (self.basis.to(x.device).T @ U).square()
        outside = (U.square().sum(0) - squares.sum(0)).clamp(min=0)
        kept = _kept(self.variances.to(x.device), t)
        return kept @ squares + _kept(t.new_tensor(self.rest), t) * outside


def _kept(variances: Tensor, t: Tensor) -> Tensor:
    return variances / (variances + t)
