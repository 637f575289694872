r"""Functions that audits name: denoisers of known memory, and some that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geomem.denoiser import expand
from geomem.exact import EmpiricalDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.runs.audit import Audit
from tests.models.doors.strangers import images

TRAINING, HELD_OUT = 48, 96


@cache
def law() -> GaussianDenoiser:
    return GaussianDenoiser.fit(images(4096, seed=7))


@cache
def memory() -> EmpiricalDenoiser:
    return EmpiricalDenoiser(images(TRAINING, seed=1))


def population(x: Tensor, sigma: Tensor) -> Tensor:
    r"""Knows the law, and no image."""
    return law()(x, sigma)


def empirical(x: Tensor, sigma: Tensor) -> Tensor:
    r"""Knows its training images by heart, and nothing else."""
    return memory()(x, sigma)


def broken_below(x: Tensor, sigma: Tensor) -> Tensor:
    r"""NaN at low levels, where only the measurement comes."""
    nan = expand(sigma, x) < 0.01
    return torch.where(nan, torch.nan, law()(x, sigma))


def raising_below(x: Tensor, sigma: Tensor) -> Tensor:
    r"""Fails at low levels, in the middle of a run."""
    if float(sigma.min()) < 0.01:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return law()(x, sigma)


def save_images(folder: Path) -> dict[str, str]:
    r"""Training, held-out and further images as arrays, by option."""
    found = {}
    for name, count, seed in (("data", TRAINING, 1), ("held_out", HELD_OUT, 2)):
        np.save(folder / f"{name}.npy", images(count, seed=seed).numpy())
        found[name] = str(folder / f"{name}.npy")
    return found


def small(places: dict[str, str], function: str, **more: object) -> Audit:
    r"""An audit of a function of this file, as small as a test can stand."""
    options: dict[str, object] = {
        "model": f"tests.runs.audited:{function}",
        "controls": ("linear",),
        "points": 32,
        "draws": 2,
        "levels": 6,
        "samples": 0,
        "jacobian_points": 0,
        **places,
        **more,
    }
    return Audit(**options)  # type: ignore[arg-type]


class Labelled:
    r"""Two classes, images of one brighter by as much as the other's are darker."""

    shift = 0.5

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return law()(x, sigma)  # without a label: of neither class

    def bind(self, labels: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        r"""The denoiser of points of these classes, which knows no others."""
        signs = 2.0 * torch.tensor([float(label) for label in labels]) - 1

        def bound(x: Tensor, sigma: Tensor) -> Tensor:
            assert len(signs) in (1, len(x)), "bound to other points than those that are asked"
            moved = self.shift * signs.to(x).reshape(-1, 1, 1, 1)
            return law()(x - moved, sigma) + moved

        return bound


labelled = Labelled()
