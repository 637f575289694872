r"""Models as strangers save them: tiny, with diffusers' own classes, and exact ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.exact import GaussianDenoiser
from geomem.models.doors.schedules import Labels, labels_named


def tiny_unet(seed: int = 0, **more: Any) -> Any:
    r"""A U-Net of 8 channels for images of 1 x 8 x 8, not at zero anywhere."""
    import diffusers

    build: Any = diffusers.UNet2DModel
    options: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "add_attention": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(**{**options, **more}).eval()


def scheduler_of(name: str, **config: Any) -> Any:
    r"""A scheduler of diffusers by its class."""
    import diffusers

    return getattr(diffusers, f"{name}Scheduler")(**config)


def save_ddpm(folder: Path, unet: Any, scheduler: Any) -> Path:
    r"""A pipeline as ``train_unconditional.py`` leaves it."""
    import diffusers

    pipeline: Any = diffusers.DDPMPipeline
    pipeline(unet=unet, scheduler=scheduler).save_pretrained(folder)
    return folder


def images(count: int, seed: int = 0) -> Tensor:
    r"""Smooth images of 1 x 8 x 8 with a few strong directions, with shape (count, 1, 8, 8)."""
    rng = torch.Generator().manual_seed(seed)
    basis = torch.Generator().manual_seed(99)
    directions = torch.linalg.qr(torch.randn(64, 64, generator=basis)).Q
    spread = torch.linspace(0, 5, 64).neg().exp()
    x: Tensor = torch.randn(count, 64, generator=rng) * spread @ directions.T
    return 0.25 + x.reshape(count, 1, 8, 8)


def population() -> GaussianDenoiser:
    r"""The exact denoiser of the law of :func:`images`."""
    return GaussianDenoiser.fit(images(4096, seed=7))


def network_of(exact: Any, labels: Labels, prediction: str) -> Callable[[Tensor, Tensor], Tensor]:
    r"""A network that predicts what an exact denoiser knows, in any parametrization.

    It turns its label back into a level by its own means, and knows nothing of sigma.
    """

    def level_of(label: Tensor) -> Tensor:
        if labels.levels is not None:
            knots = np.arange(len(labels.levels))
            return torch.tensor(np.exp(np.interp(label, knots, np.log(labels.levels))))
        # Labels rise or fall with the level: the inverse on a fine grid in ln sigma.
        grid = torch.linspace(-9, 9, 40_001, dtype=torch.float64)
        told = labels.time(grid.exp())
        order = told.argsort()
        found = np.interp(label.double().numpy(), told[order].numpy(), grid[order].numpy())
        return torch.tensor(np.exp(found))

    def network(x_t: Tensor, label: Tensor) -> Tensor:
        sigma = level_of(label.detach())
        s = sigma.reshape(-1, *(1,) * (x_t.ndim - 1))
        data = labels.sigma_data
        alpha = labels.scale(s) if data is None else (s**2 + data**2).rsqrt()
        x = x_t.double() / alpha
        clean = exact(x, sigma)
        noise = (x - clean) / s
        if data is not None:
            sign = -1 if prediction == "v_prediction" else 1
            inner: Tensor = (clean - alpha**2 * data**2 * x) / (sign * alpha * data * s)
            return inner
        made = {
            "epsilon": noise,
            "sample": clean,
            "score": -noise / (alpha * s),
            "v_prediction": alpha * noise - alpha * s * clean,
            "flow_prediction": noise - clean,
        }
        found: Tensor = labels.sign * made[prediction].to(x_t.dtype)
        return found

    return network


class Shrinking(nn.Module):
    r"""A network of two numbers, called with ``(x, t)``."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = (nn.Parameter(torch.tensor(v)) for v in (0.5, 0.1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        y: Tensor = self.slope * x + self.offset * label.reshape(-1, *(1,) * (x.ndim - 1))
        return y


class TimeFirst(Shrinking):
    r"""The same, called with ``(t, x)``, as the networks of torchcfm are."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return super().forward(label, x)


def not_a_network() -> int:
    return 3


def halving(x: Tensor, sigma: Tensor) -> Tensor:
    return x / 2


class Halving:
    r"""A function of (x, sigma) that says what it knows."""

    sigma_min, sigma_max, item_shape = 0.1, 9.0, (1, 8, 8)

    def __call__(self, x: Tensor, sigma: Tensor) -> dict[str, Tensor] | Tensor:
        return x / 2

    def bind(self, conditions: Sequence[float]) -> Callable[[Tensor, Tensor], Tensor]:
        factors = torch.tensor(conditions).reshape(-1, 1, 1, 1)
        return lambda x, sigma: factors * x


knowing = Halving()


def network_of_noise(x: Tensor, label: Tensor) -> Tensor:
    return 0.1 * x


class AzulaSchedule:
    r"""A cosine, as azula writes one."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(math.acos(1e-3) * t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(1 - self.alpha(t) ** 2 + 1e-6)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha(t), self.sigma(t)


@dataclass
class Posterior:
    mean: Tensor


class AzulaLike:
    r"""A denoiser with azula's signature around an exact one."""

    schedule = AzulaSchedule()
    item_shape = (1, 8, 8)

    def __call__(self, x_t: Tensor, t: Tensor) -> Posterior:
        alpha, sigma = self.schedule(t.double())
        scale = alpha.reshape(-1, 1, 1, 1)
        return Posterior(population()(x_t.double() / scale, sigma / alpha))


azula_like = AzulaLike()


def noise_of_linear(x: Tensor, label: Tensor) -> Tensor:
    return network_of(population(), labels_named("linear"), "epsilon")(x, label)
