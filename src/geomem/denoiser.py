r"""The one map that geomem speaks, and how other parametrizations become it.

With :math:`x = x_0 + \sigma z` and :math:`z \sim \mathcal{N}(0, I)` a denoiser is the posterior
mean :math:`D(x, \sigma) = E[x_0 \mid x]`. Networks that predict the noise, the score, a
velocity or the clean image, in any schedule, enter through :class:`ScheduledDenoiser`: it
converts once, at the door, and nothing behind it knows about ``t``.

References:
    | Robbins (1956), Miyasawa (1961), Efron (2011): Tweedie's formula
    | Salimans & Ho, Progressive distillation, arXiv 2202.00512 (velocity)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.noise import Schedule


class Denoiser(Protocol):
    r"""Anything that maps a noisy point to the mean of the clean points behind it.

    .. math:: D(x, \sigma) = \mathbb{E}[x_0 \mid x] \, .

    Population, empirical and learned denoisers and a user's pipeline are called alike. An
    exact denoiser may also offer ``jacobian_diagonal(x, sigma, directions)``, which
    :func:`geomem.operators.jacobian_diagonal` prefers over derivatives.
    """

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""
        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.

        Returns:
            The denoised points, with shape :math:`(B, *)`.
        """


def score(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    r"""Score of the noisy density, by Tweedie's formula.

    .. math:: \nabla_x \log p_\sigma(x) = \frac{D(x, \sigma) - x}{\sigma^2}

    Arguments:
        denoiser: The denoiser :math:`D`.
        x: The noisy points, with shape :math:`(B, *)`.
        sigma: The noise level, with shape :math:`()` or :math:`(B)`.

    Returns:
        The score at each point, with shape :math:`(B, *)`.
    """
    return (denoiser(x, sigma) - x) / expand(sigma, x) ** 2


def expand(sigma: Tensor, x: Tensor) -> Tensor:
    r"""A level with shape :math:`()` or :math:`(B)` made to multiply :math:`(B, *)`."""
    return sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))


Prediction = Literal["clean", "noise", "score", "velocity", "flow"]


@dataclass(frozen=True)
class ScheduledDenoiser:
    r"""A network with its schedule and its parametrization, as a denoiser in sigma.

    Arguments:
        backbone: The network, called with :math:`x_t` and ``t`` of shape :math:`(B)`.
        schedule: The schedule that it was trained with.
        prediction: What it returns: the clean point; the noise :math:`z`; the score of
            :math:`x_t`; the velocity :math:`\alpha_t z - \sigma_t x_0` of a schedule with
            :math:`\alpha_t^2 + \sigma_t^2 = 1`; or the flow :math:`z - x_0` of a straight path.

    Example:
        A network that finds no noise anywhere returns its input.

        >>> from geomem.noise import FlowMatching
        >>> zero = lambda x, t: torch.zeros_like(x)
        >>> ScheduledDenoiser(zero, FlowMatching(), "noise")(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[1., 1.]])
    """

    backbone: Callable[[Tensor, Tensor], Tensor]
    schedule: Schedule
    prediction: Prediction

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.expand(len(x)).to(x)
        t = self.schedule.time(level)
        alpha = expand(self.schedule.alpha(t), x)
        output = self.backbone(alpha * x, t)
        return self._clean(output, x, expand(level, x), alpha)

    def _clean(self, output: Tensor, x: Tensor, sigma: Tensor, alpha: Tensor) -> Tensor:
        # x_t = alpha x and sigma_t = alpha sigma, so each line is one substitution.
        if self.prediction == "clean":
            return output
        if self.prediction == "noise":
            return x - sigma * output
        if self.prediction == "score":
            return x + alpha * sigma**2 * output
        if self.prediction == "velocity":
            return alpha**2 * x - alpha * sigma * output
        return alpha * x - alpha * sigma * output


class ProductDenoiser:
    r"""Independent blocks of coordinates, each with a denoiser of its own.

    If :math:`x_0` has independent blocks, its denoiser acts on each of them alone. Give one
    block the empirical denoiser of a training set and the others their population: a model
    that has memorized exactly this block, by a known number of nats.

    Arguments:
        blocks: For each block its coordinates and the denoiser of points of that size.
            Together the coordinates must be all of :math:`0, \dots, d - 1`, once each.
        basis: Orthonormal columns in which the coordinates are taken, with shape
            :math:`(d, d)`; the standard basis if not given.

    Raises:
        InputError: If the blocks overlap or leave coordinates out, or the basis is not
            orthonormal; when called, if points have another number of coordinates.

    Example:
        >>> keep, kill = lambda x, sigma: x, lambda x, sigma: 0 * x
        >>> denoiser = ProductDenoiser([([0, 2], keep), ([1], kill)])
        >>> denoiser(torch.ones(1, 3), torch.tensor(1.0))
        tensor([[1., 0., 1.]])
    """

    def __init__(
        self, blocks: Sequence[tuple[Sequence[int], Denoiser]], basis: Tensor | None = None
    ) -> None:
        self.blocks = [(torch.as_tensor(list(i), dtype=torch.long), d) for i, d in blocks]
        self.basis = basis
        together = torch.cat([index for index, _ in self.blocks]).sort().values
        if not torch.equal(together, torch.arange(len(together))):
            raise InputError(
                "the blocks must hold each coordinate 0, ..., d-1 exactly once; "
                f"got {together.tolist()}"
            )
        if basis is not None and not _is_orthonormal(basis, len(together)):
            raise InputError(f"the basis must be {len(together)} orthonormal columns")

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        flat = x.flatten(1)
        size = sum(len(index) for index, _ in self.blocks)
        if flat.shape[1] != size:
            raise InputError(f"points have {flat.shape[1]} coordinates and the blocks hold {size}")
        coordinates = flat if self.basis is None else flat @ self.basis.to(flat)
        order = torch.cat([index for index, _ in self.blocks]).argsort().to(x.device)
        parts = [denoiser(coordinates[:, index], sigma) for index, denoiser in self.blocks]
        denoised = torch.cat(parts, dim=1)[:, order]
        if self.basis is not None:
            denoised = denoised @ self.basis.to(flat).T
        return denoised.reshape(x.shape)


def _is_orthonormal(basis: Tensor, size: int) -> bool:
    if basis.shape != (size, size):
        return False
    product = basis.double().T @ basis.double()
    # A basis made in float32 is orthonormal to a few of its eps.
    return torch.allclose(product, torch.eye(size, dtype=torch.float64), atol=1e-5)
