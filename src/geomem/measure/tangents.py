r"""Tangent spaces: the directions in which a denoiser varies most, at the points of a study.

The leading eigenvectors of the symmetric part of the Jacobian, which for a posterior mean is its
covariance over :math:`\sigma^2`. The Jacobian is formed whole from central differences,

.. math:: J e_j \approx \frac{D(x + h e_j) - D(x - h e_j)}{2 h} \, , \qquad h = \sigma / 50 ,

2d calls without derivatives: of a U-Net's convolutions a product costs about ten calls. On a
trained U-Net in float32 they agree with products to 2e-3 in the norm of the matrix.
"""

from __future__ import annotations

import math
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
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject

STEP = 0.02  # of sigma
CHUNK = 128  # steps that are asked for at a time
WIDEST = 4096  # dimensions up to which a Jacobian is formed whole
DIMS = ("at", "sigma", "point", "tangent")


@checked
@dataclass(frozen=True)
class TangentSpaces:
    r"""Gives ``tangent_vector`` (at, sigma, point, tangent, coordinate) and ``tangent_value``.

    Unit vectors in float32, the largest eigenvalue first, at the first draw of noise; and
    ``tangent_value`` (at, sigma, point, tangent), one eigenvalue more than there are vectors, so
    that the gap behind the last one is known.

    Attributes:
        rank: How many vectors are kept.
    """

    rank: Annotated[int, Whole(least=1)] = 16

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`.

        Raises:
            InputError: If points have more than 4096 coordinates, or the denoiser cannot be
                measured, see :func:`geomem.checks.admit`.
        """
        points, d = study.points(subject), math.prod(study.item_shape)
        if d > WIDEST:
            raise InputError(f"a whole Jacobian of {d} x {d} is too large; pass points up to 4096")
        rank = min(self.rank, d - 1)
        shape = (len(points), len(study.sigmas), study.width)
        vectors = np.full((*shape, rank + 1, d), np.nan, np.float32)
        values = np.full((*shape, rank + 1), np.nan)
        total, done = sum(map(len, points.values())) * len(study.sigmas), 0
        for a, (at, x_0) in enumerate(points.items()):
            for k, sigma in enumerate(study.sigmas.tolist()):
                for i in range(len(x_0)):
                    x = x_0[i] + sigma * study.noise_of(at, i)[0].to(x_0)
                    J = jacobian_by_differences(subject.denoiser, x, sigma)
                    found, basis = np.linalg.eigh((J + J.T) / 2)
                    values[a, k, i] = found[::-1][: rank + 1]
                    vectors[a, k, i, :rank] = basis[:, ::-1].T[:rank]
                    done += 1
                    report(done / total)
        one = {"units": "1"}
        said = "leading eigenvectors of the Jacobian's symmetric part"
        return xr.Dataset(
            {
                "tangent_vector": ((*DIMS, "coordinate"), vectors, one | {"long_name": said}),
                "tangent_value": (DIMS, values, one | {"long_name": "their eigenvalues"}),
            },
            coords={"at": list(points)},
        )


def jacobian_by_differences(denoiser: Denoiser, x: Tensor, sigma: float) -> np.ndarray:
    r"""The Jacobian of a denoiser at a noisy point by central differences, in float64.

    Arguments:
        denoiser: The denoiser.
        x: The noisy point, with shape :math:`(*)`.
        sigma: The noise level.

    Returns:
        The matrix, with shape :math:`(d, d)`.

    Example:
        >>> keep = lambda x, sigma: x * torch.tensor([0.5, 0.25])
        >>> jacobian_by_differences(keep, torch.ones(2), 1.0).round(4).tolist()
        [[0.5, 0.0], [0.0, 0.25]]
    """
    level = torch.tensor(sigma, dtype=x.dtype, device=x.device)
    admit(denoiser, x, level)
    h, d = STEP * sigma, x.numel()
    columns = []
    with torch.no_grad():
        for part in torch.split(torch.eye(d, dtype=x.dtype, device=x.device), CHUNK):
            step = h * part.reshape(-1, *x.shape)
            apart = denoiser(x + step, level).double() - denoiser(x - step, level).double()
            columns.append(apart.flatten(1) / (2 * h))
    return np.asarray(torch.cat(columns).T.numpy(force=True))
