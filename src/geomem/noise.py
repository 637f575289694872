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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from geomem.arguments import Number, Values, Whole, checked, shown
from geomem.errors import InputError

Levels = Tensor | float | Sequence[float]
_Above = Annotated[float, Number(above=0)]


class Schedule(Protocol):
    r"""A noise schedule, as two maps that are inverse to each other.

    Those of this module take numbers and lists for tensors, too, and end in an
    :class:`~geomem.errors.InputError` for times outside their range and for levels below 0.
    """

    def alpha(self, t: Tensor) -> Tensor:
        r"""Scale of the clean point at time ``t``, both with shape :math:`(*)`."""

    def level(self, t: Tensor) -> Tensor:
        r"""Noise level :math:`\sigma_t / \alpha_t` at time ``t``, both with shape :math:`(*)`."""

    def time(self, level: Tensor) -> Tensor:
        r"""Time at which the noise has a level, both with shape :math:`(*)`."""


@checked
@dataclass(frozen=True)
class VarianceExploding:
    r"""Geometric levels, ``sigma_min (sigma_max / sigma_min)^t`` with ``t`` in [0, 1].

    Raises:
        InputError: If the lower end is not below the upper one.

    Example:
        >>> VarianceExploding(0.01, 100.0).level(torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000e-02, 1.0000e+00, 1.0000e+02])
    """

    sigma_min: _Above = 0.01
    sigma_max: _Above = 50.0

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise InputError(
                f"`sigma_min` is {self.sigma_min:g} and `sigma_max` {self.sigma_max:g}; pass "
                "sigma_min < sigma_max"
            )

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(_times(t, 1))

    def level(self, t: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** _times(t, 1)

    def time(self, level: Tensor) -> Tensor:
        level = _above_zero(level)
        return (level / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM:
    r"""The level itself is the time."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(_times(t))

    def level(self, t: Tensor) -> Tensor:
        return _times(t)

    def time(self, level: Tensor) -> Tensor:
        return _above_zero(level)


@checked
@dataclass(frozen=True)
class VariancePreserving:
    r"""Linear :math:`\beta(t)` in continuous time, ``t`` in [0, 1]; alpha² + sigma² = 1.

    Raises:
        InputError: If the lower end is above the upper one.
    """

    beta_min: _Above = 0.1
    beta_max: _Above = 20.0

    def __post_init__(self) -> None:
        if self.beta_min > self.beta_max:
            raise InputError(
                f"`beta_min` is {self.beta_min:g} and `beta_max` {self.beta_max:g}; pass "
                "beta_min <= beta_max"
            )

    def _integral(self, t: Tensor) -> Tensor:
        t = _times(t, 1)
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def alpha(self, t: Tensor) -> Tensor:
        return (-self._integral(t) / 2).exp()

    def level(self, t: Tensor) -> Tensor:
        return self._integral(t).expm1().sqrt()

    def time(self, level: Tensor) -> Tensor:
        integral = torch.log1p(_above_zero(level) ** 2)  # solve b t + (c - b) t²/2 = integral
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
        return 1 - _inside("t", t, 0.0, 1.0)

    def level(self, t: Tensor) -> Tensor:
        t = _inside("t", t, 0.0, 1.0)
        return t / (1 - t)

    def time(self, level: Tensor) -> Tensor:
        level = _above_zero(level)
        return level / (1 + level)


@checked
@dataclass(frozen=True, eq=False)
class DiscreteBetas:
    r"""A list of betas: ``t`` is an index, and only these levels were ever trained.

    Between two indices the logarithm of the level is interpolated, which is what fractional
    times mean to networks that accept them; pass :attr:`levels` to stay on the grid.

    Arguments:
        betas: The noise added at each step, with shape :math:`(K)`.

    Raises:
        InputError: Unless they are at least two numbers between 0 and 1.
    """

    betas: Annotated[Tensor, Values(above=0, below=1, shape="(K)")]
    levels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        betas = self.betas.double()
        if len(betas) < 2:
            raise InputError("`betas` is one number; pass at least two, one a step")
        alpha_bar = torch.log1p(-betas).cumsum(0)  # logarithms: the product underflows
        object.__setattr__(self, "levels", torch.expm1(-alpha_bar).sqrt())

    @staticmethod
    @checked
    def linear(
        start: _Above = 1e-4, end: _Above = 0.02, steps: Annotated[int, Whole(least=2)] = 1000
    ) -> DiscreteBetas:
        r"""Betas equally spaced, as in DDPM."""
        return DiscreteBetas(torch.linspace(start, end, steps, dtype=torch.float64))

    @staticmethod
    @checked
    def scaled_linear(
        start: _Above = 0.00085, end: _Above = 0.012, steps: Annotated[int, Whole(least=2)] = 1000
    ) -> DiscreteBetas:
        r"""Square roots of betas equally spaced, as in Stable Diffusion.

        Read as linear, with the same ends, they give levels that are too high by up to 72 %.
        """
        return DiscreteBetas(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2)

    def alpha(self, t: Tensor) -> Tensor:
        return (1 + self.level(t) ** 2).rsqrt()

    def level(self, t: Tensor) -> Tensor:
        t = _times(t, len(self.levels) - 1)
        index = torch.arange(len(self.levels), dtype=torch.float64)
        return _interpolate(t.double(), index, self.levels.log()).exp().to(_floating(t))

    def time(self, level: Tensor) -> Tensor:
        level = _above_zero(level)
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


def _times(t: Levels, last: float = math.inf) -> Tensor:
    # Rounding may leave a time an ulp of float32 beyond the last one.
    return _inside("t", t, 0.0, last * (1 + 1e-6))


def _above_zero(level: Levels) -> Tensor:
    return _inside("level", level, 0.0, math.inf)


def _inside(name: str, value: Levels, least: float, most: float) -> Tensor:
    # Asked at each call of a network: one reduction, and no more.
    value = _as_tensor(name, value)
    low, high = _ends(value) if value.numel() else (least, most)
    if not (least <= low and high <= most):  # NaN, too
        last = "" if most == math.inf else f" to {most:.6g}"
        raise InputError(f"`{name}` holds {low:g} to {high:g}; pass numbers from {least:g}{last}")
    return value


def _ends(x: Tensor) -> tuple[float, float]:
    if x.numel() == 1:
        return float(x.detach()), float(x.detach())
    low, high = x.detach().aminmax()
    return float(low), float(high)


def _as_tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        found = value
    else:
        try:
            array = np.asarray(value)
            found = torch.from_numpy(array.astype(float) if array.dtype.kind in "fiu" else array)
        except (TypeError, ValueError) as error:
            raise InputError(f"`{name}` is {shown(value)}; pass a number or a tensor") from error
    if found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"`{name}` is {shown(value)}; pass real numbers")
    return found


@checked
def log_levels(low: _Above, high: _Above, count: Annotated[int, Whole(least=2)]) -> Tensor:
    r"""Noise levels at equal steps of ln sigma, in float64, with shape :math:`(T)`.

    Raises:
        InputError: Unless ``0 < low < high`` are finite and there are at least two.
    """
    if low >= high:
        raise InputError(
            f"`low` is {low:g} and `high` {high:g}, which is not a grid; pass low < high"
        )
    return torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64).exp()


def as_levels(sigmas: Levels) -> Tensor:
    r"""Noise levels as a tensor of floats: a number, a list and an array are taken, too.

    Raises:
        InputError: If they are no real numbers.

    Example:
        >>> as_levels([1, 2.5])
        tensor([1.0000, 2.5000], dtype=torch.float64)
    """
    sigmas = _as_tensor("sigma", sigmas)
    return sigmas if sigmas.is_floating_point() else sigmas.double()


def check_levels(sigmas: Levels) -> Tensor:
    r"""The noise levels, if they are usable: finite and above 0.

    At ``sigma = 0`` there is nothing to denoise: every posterior is a point.
    """
    sigmas = as_levels(sigmas)
    low, high = _ends(sigmas) if sigmas.numel() else (0.0, 0.0)
    if not (low > 0 and high < math.inf):  # NaN, too
        raise InputError(
            f"noise levels must be finite and above 0, got {sigmas.flatten().tolist()[:4]}; "
            "pass the smallest level that you care about instead of 0"
        )
    return sigmas


def level_of_each(sigma: Levels, x: Tensor) -> Tensor:
    r"""The noise level of each point of a batch, in float64 and on its device.

    Arguments:
        sigma: The level, with shape :math:`()` or :math:`(B)`.
        x: The points, with shape :math:`(B, *)`.

    Returns:
        The levels, with shape :math:`(B)`.

    Raises:
        InputError: If a level is not above 0, or there is not one, or one for each point.

    Example:
        >>> level_of_each(0.5, torch.zeros(2, 3))
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    if not isinstance(x, Tensor) or x.ndim == 0:
        raise InputError(f"`x` is {shown(x)}; pass a tensor of noisy points, with shape (B, *)")
    level = as_levels(sigma)
    if level.shape not in ((), (1,), (len(x),)):
        raise InputError(
            f"`sigma` has shape {tuple(level.shape)} for {len(x)} points; pass one level, or one "
            "for each point"
        )
    level = check_levels(level) if len(x) else level
    return level.to(x.device, torch.float64).expand(len(x))
