r"""Sketches of errors along bands: what tells by how much two networks differ there.

Along single directions errors are recorded with their sign, so the difference of two networks
is the difference of two records. Along a band of directions only the norm is, and two norms
do not tell how far apart two vectors are. So each error is also multiplied with random vectors s
of the band, the same for every network: as ``E s s' = P``, the projector on the band,

    E (s·(e_A - e_B))² = |P (e_A - e_B)|²

and the difference of two sketches, squared, has the right mean. Each image and draw of noise
has vectors of its own, so that means over images get rid of their chance, and errors over
images hold it.

References:
    | Johnson & Lindenstrauss, Extensions of Lipschitz mappings into a Hilbert space (1984)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.measure.study import Report, Study
from geomem.measure.subject import NETWORKS, Subject
from geomem.stats import torch_rng

AT = "held_out"


@checked
@dataclass(frozen=True)
class Sketches:
    r"""Gives ``band_sketch`` (sigma, held_out_point, draw, sketch, band) of networks.

    Products ``s·(D - x_0)/sigma`` at held-out images, with the noise of the errors; nothing
    where all directions are recorded one by one.

    Attributes:
        count: Vectors of each band for each image and draw.
        batch_size: How many noised points are denoised at a time.
    """

    count: Annotated[int, Whole(least=1)] = 4
    batch_size: Annotated[int, Whole(least=1)] = 512

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        x_0 = study.points(subject).get(AT)
        bands = len(study.directions.counts) - study.directions.singles
        if subject.description.kind not in NETWORKS or x_0 is None or not bands:
            return xr.Dataset()
        z = study.noise(AT, len(x_0)).to(x_0)
        levels = study.sigmas.to(x_0.device)
        shape = (len(levels), len(x_0), study.draws, self.count, bands)
        found = np.empty(shape, np.float32)
        errors = torch.stack([self._errors(subject, x_0, z, sigma) for sigma in levels])
        for i in range(len(x_0)):  # vectors of all images at once would take much memory
            rng = torch_rng(study.seed, "band sketches", i)
            vectors = study.directions.sketches(study.draws * self.count, rng)
            vectors = vectors.reshape(study.draws, self.count, -1, bands)
            found[:, i] = torch.einsum("tnd,nkdb->tnkb", errors[:, i].double(), vectors).numpy()
            report((i + 1) / len(x_0))
        dims = ("sigma", "held_out_point", "draw", "sketch", "band")
        named = {"units": "1", "long_name": "s.(D - x_0)/sigma, s a random vector of a band"}
        return xr.Dataset({"band_sketch": (dims, found, named)})

    def _errors(self, subject: Subject, x_0: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
        # In noise units, with shape (P, draws, d), in float32 on the CPU.
        clean, noise = x_0[:, None].expand_as(z).flatten(0, 1), z.flatten(0, 1)
        level = sigma.to(x_0)
        with torch.no_grad():
            parts = [
                (subject.denoiser(x + level * n, level) - x) / level
                for x, n in zip(
                    torch.split(clean, self.batch_size),
                    torch.split(noise, self.batch_size),
                    strict=True,
                )
            ]
        return torch.cat(parts).flatten(1).float().cpu().reshape(*z.shape[:2], -1)
