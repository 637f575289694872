r"""Samples of a denoiser: the probability-flow equation, by Heun's method.

References:
    | Karras et al., Elucidating the design space, arXiv 2206.00364 (algorithm 1)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.errors import InputError


def sigma_steps(sigma_min: float, sigma_max: float, steps: int, rho: float = 7.0) -> Tensor:
    r"""Falling noise levels with 0 at the end, with shape :math:`(steps + 1)`, in float64."""
    if not 0 < sigma_min < sigma_max or steps < 2:
        raise InputError("sampling needs 0 < sigma_min < sigma_max and at least two steps")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def heun(denoiser: Denoiser, noise: Tensor, sigmas: Tensor) -> Tensor:
    r"""Integrates :math:`dx/d\sigma = (x - D(x, \sigma))/\sigma` from noise to data.

    Arguments:
        denoiser: The denoiser.
        noise: Standard normal draws, with shape :math:`(B, *)`.
        sigmas: Falling levels with 0 at the end, see :func:`sigma_steps`.

    Returns:
        The samples, with shape :math:`(B, *)`.

    Example:
        All of a point mass is its point.

        >>> point = lambda x, sigma: torch.full_like(x, 3.0)
        >>> heun(point, torch.randn(2, 1), sigma_steps(0.01, 10.0, 8)).flatten()
        tensor([3., 3.])
    """
    steps = _heun_steps(denoiser, noise, sigmas)
    x = next(steps)
    for after in steps:
        x = after
    return x


@torch.no_grad()
def heun_path(denoiser: Denoiser, noise: Tensor, sigmas: Tensor) -> Tensor:
    r"""The noisy points that :func:`heun` visits, one for each level.

    Arguments:
        denoiser: The denoiser.
        noise: Standard normal draws, with shape :math:`(B, *)`.
        sigmas: Falling levels, with shape :math:`(T)`.

    Returns:
        The points, with shape :math:`(T, B, *)`; the first are the noise at the first level.

    Example:
        The way to a point mass is straight.

        >>> point = lambda x, sigma: torch.full_like(x, 3.0)
        >>> heun_path(point, torch.ones(1, 1), torch.tensor([4.0, 2.0, 1.0])).flatten()
        tensor([4.0000, 3.5000, 3.2500])
    """
    return torch.stack(list(_heun_steps(denoiser, noise, sigmas)))


def _heun_steps(denoiser: Denoiser, noise: Tensor, sigmas: Tensor) -> Iterator[Tensor]:
    levels = sigmas.to(noise)
    x = noise * levels[0]
    yield x
    for now, then in pairwise(levels):
        slope = (x - denoiser(x, now)) / now
        proposed = x + (then - now) * slope
        if then > 0:
            slope = (slope + (proposed - denoiser(proposed, then)) / then) / 2
            proposed = x + (then - now) * slope
        x = proposed
        yield x
