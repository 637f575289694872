r"""The one bottleneck: (denoiser, points, levels) -> record.

Sweeps, audits and monitors all measure here, so that their numbers mean the same. Noise is
drawn for each image on its own and is the same for every denoiser, every training-set size
and every level: differences between denoisers are then paired, and images stay independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from geomem.checks import admit
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.information import noise_unit_errors
from geomem.noise import check_levels
from geomem.stats import torch_rng
from geomem.subspaces import PrincipalDirections

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Measurement:
    r"""What is measured of each denoiser.

    Attributes:
        sigmas: The noise levels, increasing, with shape :math:`(T)`.
        directions: The principal directions of the reserved images.
        draws: Noise draws for each image.
        jacobian_points: At how many images the Jacobian's diagonal is measured, at their
            first draw; 0 leaves it out.
        seed: The seed of the noise.
        device: Where the denoiser lives.
        batch_size: How many noised points are denoised at a time. It changes the result by
            rounding only.
    """

    sigmas: Tensor
    directions: PrincipalDirections
    draws: int
    jacobian_points: int
    seed: int
    device: str = "cpu"
    batch_size: int = 512

    def noise(self, at: str, count: int, shape: tuple[int, ...]) -> Tensor:
        r"""Noise of the first images of a kind, with shape (count, draws, \*)."""
        size = (self.draws, *shape)
        rngs = (torch_rng(self.seed, f"noise/{at}", i) for i in range(count))
        return torch.stack([torch.randn(size, generator=rng) for rng in rngs])


def measure(
    denoiser: Denoiser,
    points: Mapping[str, Tensor],
    how: Measurement,
    *,
    dtype: torch.dtype = torch.float32,
    report: Callable[[float], None] = lambda share: None,
) -> xr.Dataset:
    r"""Errors of a denoiser by direction and level, and the diagonal of its Jacobian.

    Arguments:
        denoiser: The denoiser.
        points: Clean points by kind (training, held_out), each with shape :math:`(P, *)`;
            kinds of fewer points are padded with NaN.
        how: What is measured.
        dtype: The dtype of the points: a network's own, float64 for exact denoisers.
        report: Called with the share that is done.

    Returns:
        ``error`` (at, sigma, point, draw, direction), ``forward_diagonal`` and, where asked,
        ``diagonal`` (at, sigma, point, direction), all in float32.

    Raises:
        InputError: If the denoiser returns NaN or another shape, or see
            :func:`geomem.checks.admit`.
    """
    check_levels(how.sigmas)
    width = max(len(p) for p in points.values())
    shape = (len(points), len(how.sigmas), width)
    directions = len(how.directions.counts)
    error = np.full((*shape, how.draws, directions), np.nan, np.float32)
    forward = np.full((*shape, directions), np.nan, np.float32)
    diagonal = np.full((*shape, directions), np.nan, np.float32)
    total, done = len(points) * len(how.sigmas), 0
    for a, (at, x_0) in enumerate(points.items()):
        z = how.noise(at, len(x_0), tuple(x_0.shape[1:])).to(how.device, dtype)
        clean = x_0.to(how.device, dtype)
        for k, sigma in enumerate(how.sigmas):
            here = (a, k, slice(len(x_0)))
            admit(denoiser, clean[0] + sigma.to(clean) * z[0, 0], sigma.to(clean))
            error[here], forward[here] = _errors(denoiser, clean, z, sigma, how)
            jacobians = _diagonals(denoiser, clean, z, sigma, how, at)
            diagonal[a, k, : len(jacobians)] = jacobians
            done += 1
            report(done / total)
    return _record(list(points), error, forward, diagonal if how.jacobian_points else None)


def _errors(
    denoiser: Denoiser, x_0: Tensor, z: Tensor, sigma: Tensor, how: Measurement
) -> tuple[Floats, Floats]:
    clean = x_0[:, None].expand_as(z).flatten(0, 1)
    parts = []
    with torch.no_grad():
        for x, n in zip(
            torch.split(clean, how.batch_size),
            torch.split(z.flatten(0, 1), how.batch_size),
            strict=True,
        ):
            parts.append(noise_unit_errors(denoiser, x, n, sigma, how.directions))
    signed, forward = (torch.cat(p).reshape(*z.shape[:2], -1) for p in zip(*parts, strict=True))
    if not bool(torch.isfinite(signed).all()):
        raise InputError(
            f"the denoiser returned NaN or infinity at sigma = {float(sigma):.4g}; "
            "check its weights and the levels that it was trained on"
        )
    return signed.float().numpy(force=True), forward.mean(1).float().numpy(force=True)


def _diagonals(
    denoiser: Denoiser, x_0: Tensor, z: Tensor, sigma: Tensor, how: Measurement, at: str
) -> Floats:
    count = min(how.jacobian_points, len(x_0))
    if not count:
        return np.empty((0, len(how.directions.counts)), np.float32)
    rng = torch_rng(how.seed, f"bands/{at}")
    x = x_0[:count] + sigma.to(x_0) * z[:count, 0]
    diagonal = how.directions.jacobian(denoiser, x, sigma.to(x_0), rng)
    return diagonal.float().numpy(force=True)


def _record(
    kinds: list[str], error: Floats, forward: Floats, diagonal: Floats | None
) -> xr.Dataset:
    dims = ("at", "sigma", "point", "direction")
    units = {"units": "1", "long_name": "u.(D - x_0)/sigma, signed; a norm for bands"}
    arrays = {
        "error": (("at", "sigma", "point", "draw", "direction"), error, units),
        "forward_diagonal": (dims, forward, {"long_name": "z_u u.(D - x_0)/sigma, mean of draws"}),
    }
    if diagonal is not None:
        arrays["diagonal"] = (dims, diagonal, {"long_name": "u.(dD/dx)u at the first draw"})
    return xr.Dataset(arrays, coords={"at": kinds})
