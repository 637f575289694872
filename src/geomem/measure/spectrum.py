r"""The spectrum that the paper draws, by its estimator and by ours, at the same points.

Of the score :math:`s = (D - x) / \sigma^2`, with :math:`t = \sigma^2` and K unit rows
:math:`z_i`, the singular values of

.. math::
    \text{paper:} \quad & t \, s(x + \sigma z_i) / \sigma \\
    \text{steps:} \quad & t \, [s(x + \sigma z_i) - s(x)] / \sigma \\
    \text{jacobian:} \quad & t \, \nabla s = \nabla D - I

The first is what the authors measure, the second what their theory is about (the smoothed
Jacobian), the third has no step. All are numbers without units: 1 is a direction in which the
model does not vary, 0 one in which it varies as much as the noise. Rows of images have
another length and number, and are brought to the same scale.

References:
    | Losing dimensions (Achilli et al., 2024), arXiv 2410.08727
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import checked
from geomem.checks import admit
from geomem.dimension.differences import haar_rows, image_directions, scores_at
from geomem.errors import InputError
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject
from geomem.operators import DenoiserJacobian
from geomem.stats import torch_rng

DIMS = ("at", "sigma", "point", "rank")
ESTIMATORS = ("paper", "steps", "jacobian")
WIDEST = 4096  # dimensions up to which a Jacobian is formed whole
KEPT = 0.5  # a direction is kept where it varies more than half as it should
IMAGE_FACTOR = 4  # the paper's number of rows for images, in units of d


@checked
@dataclass(frozen=True)
class ScoreSpectrum:
    r"""Gives ``paper_value``, ``steps_value`` and ``jacobian_value`` (at, sigma, point, rank).

    And (at, sigma, point) ``jacobian_trace``, the soft count of directions that are kept, and
    ``jacobian_kept``, how many eigenvalues of its symmetric part are above 1/2: between separate
    points eigenvalues are above 2, and so are values, of directions that are anything but lost.
    The first two are asked around the clean point, as the authors do, the last at the first draw of
    noise; at ``fixed`` points all are asked around the point itself.
    """

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`.

        Raises:
            InputError: If points have more than 4096 coordinates.
        """
        points, d = study.points(subject), math.prod(study.item_shape)
        if d > WIDEST:
            raise InputError(f"a whole Jacobian of {d} x {d} is too large; pass points up to 4096")
        shape = (len(points), len(study.sigmas), study.width)
        values = np.full((3, *shape, d), np.nan)
        counts = np.full((2, *shape), np.nan)
        total, done = sum(map(len, points.values())) * len(study.sigmas), 0
        for a, (at, x_0) in enumerate(points.items()):
            for k, sigma in enumerate(study.sigmas.tolist()):
                for i in range(len(x_0)):
                    # Levels of one image share its rows, as they share its noise.
                    rows = _rows(study, at, i).to(x_0)
                    values[:2, a, k, i] = _stepped(subject, x_0[i], sigma, rows)
                    x = x_0[i]
                    if at != "fixed":
                        x = x + sigma * study.noise_of(at, i)[0].to(x)
                    values[2, a, k, i], counts[:, a, k, i] = _jacobian(subject, x, sigma)
                    done += 1
                    report(done / total)
        said = ("scores around a point", "differences of scores", "the Jacobian")
        found: dict[str, Any] = {
            f"{name}_value": (DIMS, v, {"units": "1", "long_name": f"singular values of {text}"})
            for name, text, v in zip(ESTIMATORS, said, values, strict=True)
        }
        names = {"jacobian_trace": "trace of the denoiser's Jacobian"}
        names["jacobian_kept"] = "eigenvalues of its symmetric part above 1/2"
        for (name, text), count in zip(names.items(), counts, strict=True):
            found[name] = (DIMS[:3], count, {"units": "directions", "long_name": text})
        return xr.Dataset(found, coords={"at": list(points)})


def _rows(study: Study, at: str, index: int) -> Tensor:
    rng, shape = torch_rng(study.seed, f"rows/{at}", index), study.item_shape
    if len(shape) == 3 and shape[1] == shape[2]:
        return image_directions(IMAGE_FACTOR * math.prod(shape), shape, rng)
    return haar_rows(math.prod(shape), math.prod(shape), rng).reshape(-1, *shape)


def _stepped(subject: Subject, x: Tensor, sigma: float, rows: Tensor) -> np.ndarray:
    # Both with shape (2, d): of the scores themselves, and of their differences.
    level = torch.tensor(sigma, dtype=x.dtype, device=x.device)
    admit(subject.denoiser, x, level)
    S = scores_at(subject.denoiser, torch.cat([x[None], x + sigma * rows]), level)
    # K rows of squared length |z|² see K |z|² / d of each direction.
    scale = sigma / math.sqrt(len(rows) * float(rows[0].square().sum()) / x.numel())
    found = [torch.linalg.svdvals(M) * scale for M in (S[1:], S[1:] - S[0])]
    return torch.stack(found).numpy(force=True)


def _jacobian(subject: Subject, x: Tensor, sigma: float) -> tuple[np.ndarray, tuple[float, float]]:
    level = torch.tensor(sigma, dtype=x.dtype, device=x.device)
    J = DenoiserJacobian(subject.denoiser, x, level).dense().double().cpu()
    identity = torch.eye(len(J), dtype=J.dtype)
    kept = (torch.linalg.eigvalsh((J + J.T) / 2) > KEPT).sum()
    return torch.linalg.svdvals(J - identity).numpy(), (float(J.trace()), float(kept))
