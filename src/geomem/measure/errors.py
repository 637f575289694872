r"""Denoising errors, by direction and level: what all information is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.checks import admit
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.information import noise_unit_errors
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject

DIMS = ("at", "sigma", "point", "direction")


class Kept:
    r"""A denoiser that keeps its last answer.

    Arguments:
        denoiser: The denoiser.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.answer = torch.empty(0)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.answer = self.denoiser(x, sigma)
        return self.answer


@checked
@dataclass(frozen=True)
class Errors:
    r"""Signed errors ``u·(D - x_0)/sigma`` at noised points, and what they say of the Jacobian.

    Gives ``error`` (at, sigma, point, draw, direction) and ``forward_diagonal`` (at, sigma,
    point, direction), the mean over draws of ``z_u u·(D - x_0)/sigma`` (Stein), in float32; and
    ``predicted_noise`` (at, sigma, point), the squared norm of the noise that is predicted.

    Attributes:
        batch_size: How many noised points are denoised at a time. It changes the result by
            rounding only.
    """

    batch_size: Annotated[int, Whole(least=1)] = 512

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`.

        Raises:
            InputError: If the denoiser returns NaN or another shape, or see
                :func:`geomem.checks.admit`.
        """
        points = study.points(subject)
        shape = (len(points), len(study.sigmas), study.width)
        entries = len(study.directions.counts)
        error = np.full((*shape, study.draws, entries), np.nan, np.float32)
        forward = np.full((*shape, entries), np.nan, np.float32)
        predicted = np.full(shape, np.nan, np.float32)
        pixels = torch.zeros((*shape[:2], *study.item_shape), dtype=torch.float64)
        for a, (at, x_0) in enumerate(points.items()):
            z = study.noise(at, len(x_0)).to(x_0)
            clean, noise = x_0[:, None].expand_as(z).flatten(0, 1), z.flatten(0, 1)
            numbers = [
                i for i in study.content["points"][at][: len(x_0)] for _ in range(z.shape[1])
            ]
            one = subject.at(numbers[:1])
            for k, sigma in enumerate(study.sigmas.to(x_0.device)):
                admit(one, x_0[0] + sigma.to(x_0) * z[0, 0], sigma.to(x_0))
                parts = []
                with torch.no_grad():
                    for start in range(0, len(clean), self.batch_size):
                        rows = slice(start, start + self.batch_size)
                        denoiser = Kept(subject.at(numbers[rows]))
                        parts.append(
                            noise_unit_errors(
                                denoiser, clean[rows], noise[rows], sigma, study.directions
                            )
                        )
                        wrong = (denoiser.answer - clean[rows]).double() / sigma
                        pixels[a, k] += wrong.square().sum(0).cpu() / len(clean)
                signed, product = (
                    torch.cat(p).reshape(*z.shape[:2], -1) for p in zip(*parts, strict=True)
                )
                if not bool(torch.isfinite(signed).all()):
                    raise InputError(
                        f"the denoiser returned NaN or infinity at sigma = {float(sigma):.4g}; "
                        "check its weights and the levels that it was trained on"
                    )
                error[a, k, : len(x_0)] = signed.float().numpy(force=True)
                forward[a, k, : len(x_0)] = product.mean(1).float().numpy(force=True)
                # |(x - D)/sigma|² = |z|² - 2 z·e + |e|², of the same calls.
                squares = z.double().square().flatten(2).sum(2) + signed.square().sum(2)
                norm = (squares - 2 * product.sum(2)).mean(1) / x_0[0].numel()
                predicted[a, k, : len(x_0)] = norm.float().numpy(force=True)
                report((a * len(study.sigmas) + k + 1) / (len(points) * len(study.sigmas)))
        # Where in the image, for whoever asks next: of the same calls, and small.
        subject.cache["pixel_errors"] = list(points), pixels
        named = "u.(D - x_0)/sigma, signed; a norm for bands"
        stein = "z_u u.(D - x_0)/sigma, mean over draws"
        return xr.Dataset(
            {
                "error": ((*DIMS[:3], "draw", DIMS[3]), error, {"units": "1", "long_name": named}),
                "forward_diagonal": (DIMS, forward, {"units": "1", "long_name": stein}),
                "predicted_noise": (
                    DIMS[:3],
                    predicted,
                    {"units": "1", "long_name": "|(x - D)/sigma|²/d, mean over draws"},
                ),
            },
            coords={"at": list(points)},
        )
