r"""What the exact denoiser knows for nothing: who shares a noised training image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from geomem.exact import EmpiricalDenoiser
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject


@dataclass(frozen=True)
class PosteriorWeights:
    r"""Gives ``entropy`` and ``participation`` of the weights (sigma, point, draw).

    At the training points, of empirical denoisers; of all others it gives nothing.
    """

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        x_0 = study.points(subject).get("training")
        if not isinstance(subject.denoiser, EmpiricalDenoiser) or x_0 is None:
            return xr.Dataset()
        z = study.noise("training", len(x_0)).double()
        # Noised images are paths in sigma: two products answer for all levels.
        starts = x_0.double().repeat_interleave(z.shape[1], dim=0)
        path = subject.denoiser.path(starts, z.flatten(0, 1), study.sigmas, scalars_only=True)
        rows = torch.stack([path.entropy, path.participation])  # (2, T, B)
        values = np.full((2, len(study.sigmas), study.width, study.draws), np.nan)
        values[:, :, : len(x_0)] = rows.reshape(2, len(study.sigmas), *z.shape[:2]).numpy()
        dims = ("sigma", "point", "draw")
        entropy = {"units": "nats", "long_name": "entropy of the posterior weights"}
        participation = {"units": "1", "long_name": "participation, sum of squared weights"}
        return xr.Dataset(
            {
                "entropy": (dims, values[0], entropy),
                "participation": (dims, values[1], participation),
            }
        )
