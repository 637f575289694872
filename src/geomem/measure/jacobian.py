r"""The Jacobian's diagonal along the principal directions, at the first draw of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import xarray as xr

from geomem.arguments import Whole, checked
from geomem.denoiser import is_exact
from geomem.measure.errors import DIMS
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject
from geomem.stats import torch_rng


@checked
@dataclass(frozen=True)
class Jacobian:
    r"""Gives ``diagonal`` = ``u·(dD/dx)u`` (at, sigma, point, direction), in float32.

    Attributes:
        points: At how many images of each kind networks are asked; nothing of them if 0. Exact
            denoisers know their Jacobian everywhere, without derivatives.
    """

    points: Annotated[int, Whole(least=0)] = 64

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        wanted = study.width if is_exact(subject.denoiser) else self.points
        if not wanted:
            return xr.Dataset()
        points = study.points(subject)
        shape = (len(points), len(study.sigmas), study.width, len(study.directions.counts))
        values = np.full(shape, np.nan, np.float32)
        for a, (at, x_0) in enumerate(points.items()):
            count = min(wanted, len(x_0))
            z = study.noise(at, count).to(x_0)[:, 0]
            for k, sigma in enumerate(study.sigmas):
                x = x_0[:count] + sigma.to(x_0) * z
                rng = torch_rng(study.seed, f"bands/{at}")
                if subject.bind is None:
                    found = study.directions.jacobian(subject.denoiser, x, sigma.to(x_0), rng)
                else:  # each point under its own condition
                    numbers = study.content["points"][at]
                    found = torch.cat(
                        [
                            study.directions.jacobian(
                                subject.at(numbers[i : i + 1]), x[i : i + 1], sigma.to(x_0), rng
                            )
                            for i in range(count)
                        ]
                    )
                values[a, k, :count] = found.float().numpy(force=True)
                report((a * len(study.sigmas) + k + 1) / (len(points) * len(study.sigmas)))
        named = {"units": "1", "long_name": "u.(dD/dx)u at the first draw"}
        return xr.Dataset({"diagonal": (DIMS, values, named)}, coords={"at": list(points)})
