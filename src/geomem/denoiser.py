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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from geomem.arguments import checked, shown
from geomem.errors import InputError
from geomem.noise import Schedule, as_levels, level_of_each


class Denoiser(Protocol):
    r"""Anything that maps a noisy point to the mean of the clean points behind it.

    .. math:: D(x, \sigma) = \mathbb{E}[x_0 \mid x] \, .

    Population, empirical and learned denoisers and a user's pipeline are called alike.
    """

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""
        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.

        Returns:
            The denoised points, with shape :math:`(B, *)`.
        """


@runtime_checkable
class ExactDenoiser(Protocol):
    r"""A denoiser that *is* the posterior mean of a known law, and answers for that law.

    It says so by ``exact = True``, as a class attribute: what it can answer does not make a
    denoiser exact. A normalizing flow has a log-density, too, and is a network all the same; a
    Jacobian that a network computes for itself is still that of a network.

    :func:`geomem.operators.jacobian_diagonal` asks an exact denoiser instead of taking
    derivatives, and a collapse that would be a fault of a network is rightly its answer.

    Attributes:
        exact: True.
    """

    exact: Literal[True]

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""The posterior mean, as for :class:`Denoiser`."""

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        r"""Diagonal :math:`u^\top \nabla_x D\, u` along the columns of ``directions``.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            directions: The vectors :math:`u` as columns, with shape :math:`(d, n)`.

        Returns:
            The diagonal, with shape :math:`(B, n)`, in float64.
        """


def is_exact(denoiser: object) -> bool:
    r"""Whether a denoiser is an :class:`ExactDenoiser`, which it must say.

    Example:
        >>> from geomem.exact import EmpiricalDenoiser
        >>> is_exact(EmpiricalDenoiser(torch.eye(2))), is_exact(lambda x, sigma: x)
        (True, False)
    """
    return getattr(denoiser, "exact", None) is True and isinstance(denoiser, ExactDenoiser)


def as_columns(directions: Tensor, x: Tensor) -> Tensor:
    r"""Directions as columns ``(d, n)`` in float64, on the device of the points ``(B, *)``.

    Raises:
        InputError: If they have not one row for each coordinate.
    """
    d = math.prod(x.shape[1:])
    if not isinstance(directions, Tensor) or directions.ndim != 2 or len(directions) != d:
        raise InputError(
            f"`directions` is {shown(directions)} for points of {d} coordinates; pass a tensor "
            f"of shape ({d}, n)"
        )
    return directions.to(x.device, torch.float64)


@checked
def score(denoiser: Denoiser, x: Tensor, sigma: Tensor | float) -> Tensor:
    r"""Score of the noisy density, by Tweedie's formula.

    .. math:: \nabla_x \log p_\sigma(x) = \frac{D(x, \sigma) - x}{\sigma^2}

    Arguments:
        denoiser: The denoiser :math:`D`.
        x: The noisy points, with shape :math:`(B, *)`.
        sigma: The noise level, with shape :math:`()` or :math:`(B)`.

    Returns:
        The score at each point, with shape :math:`(B, *)`.

    Raises:
        InputError: If a level is not above 0.
    """
    level_of_each(sigma, x)  # or why not
    level = as_levels(sigma).to(x)
    return (denoiser(x, level) - x) / expand(level, x) ** 2


def expand(sigma: Tensor, x: Tensor) -> Tensor:
    r"""A level with shape :math:`()` or :math:`(B)` made to multiply :math:`(B, *)`."""
    return sigma.reshape(sigma.shape + (1,) * (x.ndim - sigma.ndim))


Prediction = Literal["clean", "noise", "score", "velocity", "flow"]


@checked
@dataclass(frozen=True)
class ScheduledDenoiser:
    r"""A network with its schedule and its parametrization, as a denoiser in sigma.

    Arguments:
        backbone: The network, called with :math:`x_t` and ``t`` of shape :math:`(B)`. It may
            return a tensor, a tuple that begins with one, or an object or dictionary with a
            ``sample``, as the models of diffusers do.
        schedule: The schedule that it was trained with.
        prediction: What it returns: the clean point; the noise :math:`z`; the score of
            :math:`x_t`; the velocity :math:`\alpha_t z - \sigma_t x_0` of a schedule with
            :math:`\alpha_t^2 + \sigma_t^2 = 1`; or the flow :math:`z - x_0` of a straight path.

    Raises:
        InputError: When called, if a level is not above 0, or the network returns no tensor.

    Example:
        A network that finds no noise anywhere returns its input.

        >>> from geomem.noise import FlowMatching
        >>> zero = lambda x, t: torch.zeros_like(x)
        >>> ScheduledDenoiser(zero, FlowMatching(), "noise")(torch.ones(1, 2), torch.tensor(1.0))
        tensor([[1., 1.]])
    """

    backbone: Callable[[Tensor, Tensor], Any]
    schedule: Schedule
    prediction: Prediction

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        level = level_of_each(sigma, x).to(x)
        t = self.schedule.time(level)
        alpha = expand(self.schedule.alpha(t), x)
        output = _tensor_in(self.backbone(alpha * x, t))
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


def _tensor_in(output: Any) -> Tensor:
    # diffusers: an output object, which is a dictionary, too; a tuple with return_dict=False.
    found = output
    if isinstance(found, (tuple, list)) and len(found):
        found = found[0]
    elif not isinstance(found, Tensor):
        found = getattr(found, "sample", None)
    if isinstance(found, Tensor):
        return found
    raise InputError(
        f"the network returned a {type(output).__name__} without a tensor; return the tensor of "
        "its prediction, or an object with a `sample`"
    )


@checked
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
        if not all(isinstance(block, tuple) and len(block) == 2 for block in blocks):
            raise InputError("`blocks` wants pairs of coordinates and their denoiser")
        self.blocks = [(torch.as_tensor(list(i), dtype=torch.long), d) for i, d in blocks]
        self.basis = basis
        if not self.blocks:
            raise InputError("`blocks` is empty; pass coordinates and a denoiser at least once")
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
