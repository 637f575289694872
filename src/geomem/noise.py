r"""Noise schedules: everything becomes sigma here.

A diffusion model sees :math:`x_t = \alpha_t x_0 + \sigma_t z` and is told ``t``. geomem sees
:math:`x = x_0 + \sigma z` and is told ``sigma``: divide by :math:`\alpha_t`, and the level is
:math:`\sigma = \sigma_t / \alpha_t`. A schedule is the pair of maps ``t -> (alpha, level)``
and ``level -> t``; nothing below this module knows about ``t``.

References:
    | Song et al., Score-based generative modeling through SDEs, arXiv 2011.13456 (VE, VP)
    | Karras et al., Elucidating the design space, arXiv 2206.00364 (EDM)
    | Lipman et al., Flow matching, arXiv 2210.02747
    | Ho et al., Denoising diffusion probabilistic models, arXiv 2006.11239 (discrete betas)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from geomem.errors import InputError


class Schedule(Protocol):
    r"""A noise schedule, as two maps that are inverse to each other."""

    def alpha(self, t: Tensor) -> Tensor:
        r"""Scale of the clean point at time ``t``, both with shape :math:`(*)`."""

    def level(self, t: Tensor) -> Tensor:
        r"""Noise level :math:`\sigma_t / \alpha_t` at time ``t``, both with shape :math:`(*)`."""

    def time(self, level: Tensor) -> Tensor:
        r"""Time at which the noise has a level, both with shape :math:`(*)`."""


@dataclass(frozen=True)
class VarianceExploding:
    r"""Geometric levels, ``sigma_min (sigma_max / sigma_min)^t`` with ``t`` in [0, 1].

    Example:
        >>> VarianceExploding(0.01, 100.0).level(torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000e-02, 1.0000e+00, 1.0000e+02])
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def level(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, level: Tensor) -> Tensor:
        return (level / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM:
    r"""The level itself is the time."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def level(self, t: Tensor) -> Tensor:
        return t

    def time(self, level: Tensor) -> Tensor:
        return level


@dataclass(frozen=True)
class VariancePreserving:
    r"""Linear :math:`\beta(t)` in continuous time, ``t`` in [0, 1]; alpha² + sigma² = 1."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def alpha(self, t: Tensor) -> Tensor:
        return (-self._integral(t) / 2).exp()

    def level(self, t: Tensor) -> Tensor:
        return self._integral(t).expm1().sqrt()

    def time(self, level: Tensor) -> Tensor:
        integral = torch.log1p(level**2)  # solve b t + (c - b) t²/2 = integral
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())


@dataclass(frozen=True)
class FlowMatching:
    r"""Straight paths :math:`x_t = (1 - t) x_0 + t z`, ``t`` in [0, 1).

    Example:
        >>> FlowMatching().time(torch.tensor([1.0, 3.0]))
        tensor([0.5000, 0.7500])
    """

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def level(self, t: Tensor) -> Tensor:
        return t / (1 - t)

    def time(self, level: Tensor) -> Tensor:
        return level / (1 + level)


@dataclass(frozen=True, eq=False)
class DiscreteBetas:
    r"""A list of betas: ``t`` is an index, and only these levels were ever trained.

    Between two indices the logarithm of the level is interpolated, which is what fractional
    times mean to networks that accept them; pass :attr:`levels` to stay on the grid.

    Arguments:
        betas: The noise added at each step, with shape :math:`(K)`.
    """

    betas: Tensor
    levels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        betas = self.betas.double()
        if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
            raise InputError("betas must be at least two numbers in (0, 1); check the schedule")
        alpha_bar = torch.log1p(-betas).cumsum(0)  # logarithms: the product underflows
        object.__setattr__(self, "levels", torch.expm1(-alpha_bar).sqrt())

    @staticmethod
    def linear(start: float = 1e-4, end: float = 0.02, steps: int = 1000) -> DiscreteBetas:
        r"""Betas equally spaced, as in DDPM."""
        return DiscreteBetas(torch.linspace(start, end, steps, dtype=torch.float64))

    @staticmethod
    def scaled_linear(
        start: float = 0.00085, end: float = 0.012, steps: int = 1000
    ) -> DiscreteBetas:
        r"""Square roots of betas equally spaced, as in Stable Diffusion.

        Read as linear, with the same ends, they give levels that are too high by up to 72 %.
        """
        return DiscreteBetas(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2)

    def alpha(self, t: Tensor) -> Tensor:
        return (1 + self.level(t) ** 2).rsqrt()

    def level(self, t: Tensor) -> Tensor:
        index = torch.arange(len(self.levels), dtype=torch.float64)
        return _interpolate(t.double(), index, self.levels.log()).exp().to(_floating(t))

    def time(self, level: Tensor) -> Tensor:
        index = torch.arange(len(self.levels), dtype=torch.float64)
        return _interpolate(level.double().log(), self.levels.log(), index).to(_floating(level))


def _floating(x: Tensor) -> torch.dtype:
    return x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    knots, values = knots.to(x.device), values.to(x.device)
    right = torch.searchsorted(knots, x.contiguous()).clamp(1, len(knots) - 1)
    left = right - 1
    share = ((x - knots[left]) / (knots[right] - knots[left])).clamp(0, 1)
    return values[left] + share * (values[right] - values[left])


def log_levels(low: float, high: float, count: int) -> Tensor:
    r"""Noise levels at equal steps of ln sigma, in float64, with shape :math:`(T)`.

    Raises:
        InputError: Unless ``0 < low < high`` are finite and there are at least two.
    """
    if not (0 < low < high < math.inf) or count < 2:
        raise InputError(
            f"{count} noise levels from {low:g} to {high:g} are not a grid; "
            "pass 0 < low < high and at least two levels"
        )
    return torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64).exp()


def check_levels(sigmas: Tensor) -> Tensor:
    r"""The noise levels, if they are usable: finite and above 0.

    At ``sigma = 0`` there is nothing to denoise: every posterior is a point.
    """
    if sigmas.numel() == 0 or not bool((torch.isfinite(sigmas) & (sigmas > 0)).all()):
        raise InputError(
            f"noise levels must be finite and above 0, got {sigmas.flatten().tolist()[:4]}; "
            "pass the smallest level that you care about instead of 0"
        )
    return sigmas
