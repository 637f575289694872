r"""Runs whose truth is known: exact denoisers, measured and recorded like networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.measure.errors import Measurement, measure
from geomem.noise import log_levels
from geomem.runs.records import RunFolder, load
from geomem.subspaces import PrincipalDirections


def axes(variances: Tensor) -> PrincipalDirections:
    r"""The coordinate axes as principal directions, in the order they come."""
    d = len(variances)
    return PrincipalDirections(torch.eye(d, dtype=torch.float64), variances, 0.0, d, (d,))


def planted_run(
    path: Path,
    *,
    model: Denoiser,
    control: Denoiser,
    control_name: str,
    training: Tensor,
    held_out: Tensor,
    window: tuple[float, float],
    levels: int = 24,
    draws: int = 4,
    seed: int = 0,
) -> xr.Dataset:
    r"""Measures two denoisers at given points through the very code of a sweep."""
    directions = axes(training.var(0))
    sigmas = log_levels(*window, levels)
    points = {"training": training, "held_out": held_out}
    how = Measurement(sigmas, directions, draws, len(training), seed)
    indices = {at: list(range(len(p))) for at, p in points.items()}
    folder = RunFolder.create(
        path,
        {"kind": "planted", "seed": seed},
        {
            "units": [
                {"denoiser": control_name},
                {"denoiser": "learned", "num_samples": len(training), "seed": 0, "step": 1},
            ],
            "sizes": [len(training)],
            "sigmas": sigmas.tolist(),
            "window": list(window),
            "rms": float(training.std()),
            "points": indices,
            "point_groups": indices,
            "direction_counts": directions.counts,
            "direction_variances": directions.mean_variances,
            "control": control_name,
            "data": {"name": "planted", "digest": "0", "item_shape": [training.shape[1]]},
        },
    )
    for number, denoiser in enumerate((control, model)):
        folder.write_record(number, measure(denoiser, points, how, dtype=torch.float64))
    return load(path)


def gaussian(variances: Tensor) -> GaussianDenoiser:
    return GaussianDenoiser(torch.zeros(len(variances), dtype=torch.float64), variances)


def draw(variances: Tensor, count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, len(variances), generator=rng, dtype=torch.float64)
    return z * variances.sqrt()


def zmax(value: xr.DataArray, stderr: xr.DataArray) -> float:
    return float(np.nanmax((value / stderr.where(stderr > 0)).values))
