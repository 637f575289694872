r"""The exact denoiser of a mixture, from the exact denoisers of its components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from geomem.arguments import Values, checked
from geomem.denoiser import ExactDenoiser, as_columns, is_exact
from geomem.errors import InputError
from geomem.exact.posterior import scale
from geomem.noise import level_of_each


@checked
class MixtureDenoiser:
    r"""Exact denoiser of a mixture, from the exact denoisers of its components.

    With the components' noisy densities :math:`p_k` and weights :math:`\pi_k`,

    .. math:: D(x, \sigma) = \sum_k r_k D_k(x, \sigma) \, , \qquad r_k \propto \pi_k p_k(x) \, .

    Arguments:
        weights: The weights, with shape :math:`(K)`, above 0; they are normalised.
        components: Exact denoisers that answer ``log_density(x, sigma)``.

    Raises:
        InputError: If there is not one weight above 0 for each component, or one is not exact.

    Example:
        >>> from geomem.exact import GaussianDenoiser
        >>> left, right = (GaussianDenoiser(torch.tensor([m]), torch.zeros(1)) for m in (-1.0, 1.0))
        >>> mixture = MixtureDenoiser(torch.ones(2), [left, right])
        >>> mixture(torch.tensor([[0.5]]), torch.tensor(1.0))  # tanh(x / sigma²)
        tensor([[0.4621]])
    """

    exact: Literal[True] = True

    @checked
    def __init__(
        self,
        weights: Annotated[Tensor, Values(above=0, shape="(K)")],
        components: Sequence[ExactDenoiser],
    ) -> None:
        if len(weights) != len(components):
            raise InputError(
                f"a mixture of {len(components)} components has {len(weights)} weights; pass one "
                "weight above 0 for each"
            )
        for k, component in enumerate(components):
            if not is_exact(component):
                raise InputError(
                    f"component {k} is a {type(component).__name__} and no exact denoiser; see "
                    "geomem.ExactDenoiser for what one must answer"
                )
        self.log_prior = (weights.double() / weights.double().sum()).log()
        self.components = list(components)

    def responsibilities(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Posterior weights of the components, with shape :math:`(K, B)`, in float64."""
        return self._logs(x, level_of_each(sigma, x)).softmax(0)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        level = level_of_each(sigma, x)
        means = torch.stack([c(x, level) for c in self.components]).double()
        return scale(self.responsibilities(x, level), means).sum(0).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        return self._logs(x, level_of_each(sigma, x)).logsumexp(0)

    def _logs(self, x: Tensor, level: Tensor) -> Tensor:
        logs = torch.stack([c.log_density(x, level) for c in self.components])
        return logs + self.log_prior.to(x.device)[:, None]

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor | float, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``: within components, and between them."""
        level, U = level_of_each(sigma, x), as_columns(directions, x)
        r = self.responsibilities(x, level)[..., None]
        within = torch.stack([c.jacobian_diagonal(x, level, U) for c in self.components])
        means = torch.stack([c(x, level).flatten(1).double() @ U for c in self.components])
        between = (r * (means - (r * means).sum(0)).square()).sum(0)
        return (r * within).sum(0) + between / level[:, None] ** 2
