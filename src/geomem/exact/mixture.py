r"""The exact denoiser of a mixture, from the exact denoisers of its components."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact.empirical import EmpiricalDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.exact.posterior import scale


class MixtureDenoiser:
    r"""Exact denoiser of a mixture, from the exact denoisers of its components.

    With the components' noisy densities :math:`p_k` and weights :math:`\pi_k`,

    .. math:: D(x, \sigma) = \sum_k r_k D_k(x, \sigma) \, , \qquad r_k \propto \pi_k p_k(x) \, .

    Arguments:
        weights: The weights, with shape :math:`(K)`, above 0; they are normalised.
        components: Exact denoisers that answer ``log_density(x, sigma)``.

    Example:
        >>> left, right = (GaussianDenoiser(torch.tensor([m]), torch.zeros(1)) for m in (-1.0, 1.0))
        >>> mixture = MixtureDenoiser(torch.ones(2), [left, right])
        >>> mixture(torch.tensor([[0.5]]), torch.tensor(1.0))  # tanh(x / sigma²)
        tensor([[0.4621]])
    """

    def __init__(
        self, weights: Tensor, components: Sequence[GaussianDenoiser | EmpiricalDenoiser]
    ) -> None:
        if len(weights) != len(components) or not bool((weights > 0).all()) or not len(weights):
            raise InputError("a mixture needs one weight above 0 for each component")
        self.log_prior = (weights.double() / weights.double().sum()).log()
        self.components = list(components)

    def responsibilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Posterior weights of the components, with shape :math:`(K, B)`, in float64."""
        logs = torch.stack([c.log_density(x, sigma) for c in self.components])
        return (logs + self.log_prior.to(x.device)[:, None]).softmax(0)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        means = torch.stack([c(x, sigma) for c in self.components]).double()
        return scale(self.responsibilities(x, sigma), means).sum(0).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        logs = torch.stack([c.log_density(x, sigma) for c in self.components])
        return (logs + self.log_prior.to(x.device)[:, None]).logsumexp(0)

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``: within components, and between them."""
        U, r = directions.double(), self.responsibilities(x, sigma)[..., None]
        within = torch.stack([c.jacobian_diagonal(x, sigma, U) for c in self.components])
        means = torch.stack([c(x, sigma).flatten(1).double() @ U for c in self.components])
        between = (r * (means - (r * means).sum(0)).square()).sum(0)
        return (r * within).sum(0) + between / scale(
            sigma.double() ** 2, between.new_ones(len(x), 1)
        )
