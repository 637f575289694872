r"""A small training that memorizes, for tests: deterministic, resumable, a few seconds at most."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState
from geomem.monitor import MemorizationMonitor


def points(count: int, seed: int = 0, size: int = 6) -> Tensor:
    r"""Points of a law that is not Gaussian, with shape (count, size)."""
    rng = torch.Generator().manual_seed(seed)
    signs = 2.0 * torch.randint(2, (count, size), generator=rng) - 1
    return signs + 0.3 * torch.randn(count, size, generator=rng)


def training_of(train: Tensor, steps: int = 600) -> TrainState:
    r"""A network that is small for its task and large for its 16 images."""
    config = NetworkConfig("mlp", tuple(train.shape[1:]), float(train.std()), width=64, blocks=1)
    return TrainState(config, Training(2 * steps, 32, ema_half_life=0.005), train, seed=0)


def monitor_of(train: Any, held_out: Any, **more: Any) -> MemorizationMonitor:
    r"""A monitor that looks whatever it costs."""
    settings = {"every": 50, "share": float("inf"), "levels": 5, **more}
    return MemorizationMonitor(train, held_out, **settings)


class Noisy(nn.Module):
    r"""A denoiser with a dropout and a batch norm, which both know their mode."""

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(size, size), nn.BatchNorm1d(size), nn.Dropout(0.5))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self.inside(x)
        return x / (1 + sigma**2) + 0.01 * out
