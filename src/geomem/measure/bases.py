r"""The model's own tangent basis: along which directions its answers still move.

The leading eigenvectors of a denoiser's Jacobian at a noised image are the directions that it
takes for variation of the data there (:mod:`geomem.tangents`). A direction that a model has lost
at its training images stands across that space there and lies in it at new images. The bases are
kept as their coefficients along the single principal directions of the reserved images, so that
angles to those, and to any direction in their span, follow from the records alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import xarray as xr

from geomem.arguments import Whole, checked
from geomem.denoiser import is_exact
from geomem.measure.study import Report, Study
from geomem.measure.subject import NETWORKS, Subject
from geomem.tangents import tangent_basis

DIRECTIONS = 16
BLOCKS = 2  # of products: the bound that is recorded says how far they came
CLOSE = 0.05  # radians


@checked
@dataclass(frozen=True)
class TangentBases:
    r"""Gives ``basis_component`` (at, basis_level, basis_point, basis, single).

    That is, of each basis vector its coefficients along single principal directions, at the first
    draw of the first images; ``basis_value`` (..., basis), the eigenvalues, what is kept
    along each; ``basis_turned`` (..., basis_point), a bound in radians on how far the space
    may be turned; and ``basis_sigma`` (basis_level), the levels. Networks alone are asked.

    Attributes:
        points: At how many images of each kind.
        levels: At how many of the study's levels, spread inside them.
        directions: How many eigenvectors, the leading ones.
    """

    points: Annotated[int, Whole(least=0)] = 8
    levels: Annotated[int, Whole(least=1)] = 3
    directions: Annotated[int, Whole(least=1)] = DIRECTIONS

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        if (
            not self.points
            or subject.description.kind not in NETWORKS
            or is_exact(subject.denoiser)
        ):
            return xr.Dataset()
        points = study.points(subject)
        asked = np.linspace(0, len(study.sigmas) - 1, self.levels + 2)[1:-1]
        chosen = sorted({int(k) for k in asked.round()})
        singles = study.directions.vectors[:, : study.directions.singles]
        count = min(self.directions, len(singles))
        width = min(self.points, max(map(len, points.values())))
        shape = (len(points), len(chosen), width)
        inside = np.full((*shape, count, singles.shape[1]), np.nan, np.float32)
        kept, turned = np.full((*shape, count), np.nan), np.full(shape, np.nan)
        done, total = 0, sum(min(width, len(x)) for x in points.values()) * len(chosen)
        for a, (at, x_0) in enumerate(points.items()):
            images = x_0[:width]
            z = study.noise(at, len(images))[:, 0].to(x_0)
            numbers = study.content["points"][at]
            for k, level in enumerate(chosen):
                sigma = study.sigmas[level].to(x_0)
                for p, clean in enumerate(images):
                    denoiser = subject.at(numbers[p : p + 1])
                    basis = tangent_basis(
                        denoiser,
                        clean + sigma * z[p],
                        sigma,
                        count,
                        tolerance=CLOSE,
                        max_blocks=BLOCKS,
                    )
                    vectors = basis.vectors.cpu()
                    inside[a, k, p] = (vectors.T @ singles).float().numpy()
                    kept[a, k, p] = basis.values.numpy(force=True)
                    turned[a, k, p] = basis.turned
                    done += 1
                    report(done / total)
        dims = ("at", "basis_level", "basis_point")
        one, angle = {"units": "1"}, {"units": "radians"}
        along = {"long_name": "a direction of the model's tangent space, along a principal one"}
        value = {"long_name": "what the model keeps along a direction of its tangent space"}
        bound = {"long_name": "bound on how far the tangent space may be turned"}
        where = {"units": "data units", "long_name": "noise level of the tangent bases"}
        sigmas = study.sigmas[torch.tensor(chosen)].numpy()
        return xr.Dataset(
            {
                "basis_component": ((*dims, "basis", "single"), inside, one | along),
                "basis_value": ((*dims, "basis"), kept.astype(np.float32), one | value),
                "basis_turned": (dims, turned.astype(np.float32), angle | bound),
                "basis_sigma": ("basis_level", sigmas, where),
            },
            coords={"at": list(points)},
        )
