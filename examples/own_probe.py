r"""A probe of one's own; docs/extend.md explains it.

Run as a script, this file checks it. On the command line, in the folder of this file:

    geomem sweep --data digits --probes own_probe:Brightness --out runs/brightness
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject


@dataclass(frozen=True)
class Brightness:
    r"""Gives ``brightness`` (at, sigma, point): by how much answers are too bright.

    Attributes:
        power: Of the mean over coordinates.
    """

    power: int = 1

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        points = study.points(subject)  # by kind: training, held_out, ...
        values = np.full((len(points), len(study.sigmas), study.width), np.nan)
        for a, (at, x_0) in enumerate(points.items()):
            z = study.noise(at, len(x_0))[:, 0].to(x_0)  # the same for every subject
            for k, sigma in enumerate(study.sigmas.to(x_0)):
                with torch.no_grad():
                    error = subject.denoiser(x_0 + sigma * z, sigma) - x_0
                mean = error.flatten(1).mean(1).pow(self.power)
                values[a, k, : len(x_0)] = mean.numpy(force=True)
            report((a + 1) / len(points))
        about = {"units": "data units", "long_name": "mean over coordinates of D - x_0"}
        dims = ("at", "sigma", "point")
        return xr.Dataset({"brightness": (dims, values, about)}, coords={"at": list(points)})


if __name__ == "__main__":
    from geomem.testing import check_probe

    check_probe(Brightness())
    print("it can be asked in every run")
