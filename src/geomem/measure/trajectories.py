r"""Trajectories: the noisy points that a network's own sampler visits, at the study's levels.

At a noised training image one asks what a network makes of a point that data lead to. What it
makes of the points that it leads itself to is another question: a network that pulls its
samples towards training images does so along its trajectories. So from pure noise down, by
Heun's method on a grid that holds all levels of the study, two things are recorded at each of
them: the trace of the Jacobian, which is the dimension kept, from products with random signs,
and how far the denoised point is from the nearest training image. The same distance is recorded
of the first noised training and held-out images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.denoiser import Denoiser
from geomem.exact import EmpiricalDenoiser
from geomem.measure.samples import STEPS, sampled_under
from geomem.measure.study import Report, Study
from geomem.measure.subject import NETWORKS, Subject
from geomem.models.sample import heun_path, sigma_steps
from geomem.operators import jacobian_diagonal
from geomem.stats import torch_rng

SIGNS = 8  # products a point for a trace, where Jacobians are measured
NEAR = 1.05  # a step of the sampler that is nearer to a level of the study gives way to it


def trajectory_levels(study: Study) -> Tensor:
    r"""Falling noise levels: steps of the sampler, and each level of the study, the last one."""
    steps = sigma_steps(0.01 * study.rms, 80 * study.rms, STEPS)[:-1]
    far = (steps[:, None] / study.sigmas).log().abs().min(1).values > np.log(NEAR)
    steps = steps[far & (steps > study.sigmas[0])]
    return torch.cat([steps, study.sigmas]).sort(descending=True).values


@checked
@dataclass(frozen=True)
class Trajectories:
    r"""Gives what a network is along its own trajectories, beside noised images.

    ``trajectory_trace`` and ``trajectory_distance`` (sigma, trajectory); ``denoised_distance``
    (at, sigma, point), of the first images of each kind at the first draw of noise. Distances
    are of the denoised point to the nearest training image, where the training set is known.
    Trajectories start where the first samples do, and are drawn under the same captions or labels
    where there are such. Nothing of subjects that are no networks.

    Attributes:
        count: How many trajectories, and how many images of each kind beside them.
        signs: Products with random signs a point for the trace; without any there is none.
    """

    count: Annotated[int, Whole(least=1)] = 16
    signs: Annotated[int, Whole(least=0)] = SIGNS

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        about = subject.description
        if about.kind not in NETWORKS or about.kind == "reference" or about.part:
            return xr.Dataset()
        noise = torch.randn(
            self.count, *study.item_shape, generator=torch_rng(study.seed, "samples")
        )
        levels = trajectory_levels(study)
        under = sampled_under(study, self.count)
        path = heun_path(subject.at(under), noise.to(subject.device, subject.dtype), levels)
        places = [int((levels == sigma).nonzero()) for sigma in study.sigmas]
        visited = path[places]  # (T, count, *)
        report(0.2)
        found = xr.Dataset()
        if self.signs:
            values = self._traces(subject, study, visited, under)
            named = {"units": "directions", "long_name": "trace of dD/dx along a trajectory"}
            found["trajectory_trace"] = (("sigma", "trajectory"), values, named)
        report(0.6)
        if subject.training is None or study.source is None:
            return found
        training = EmpiricalDenoiser(study.source.data.tensor(np.array(subject.training)))
        said = "distance of the denoised point to the nearest training image"
        named = {"units": "data units", "long_name": said}
        far = _distances(subject.at(under), training, visited, study.sigmas)
        found["trajectory_distance"] = (("sigma", "trajectory"), far, named)
        points = study.points(subject)
        beside = np.full((len(points), len(study.sigmas), study.width), np.nan)
        for a, (at, x_0) in enumerate(points.items()):
            clean = x_0[: self.count]
            z = study.noise(at, len(clean)).to(clean)[:, 0]
            noised = torch.stack([clean + s * z for s in study.sigmas.to(clean)])
            own = subject.at(study.content["points"][at][: len(clean)])
            beside[a, :, : len(clean)] = _distances(own, training, noised, study.sigmas)
        array = (("at", "sigma", "point"), beside, named)
        return found.merge(xr.Dataset({"denoised_distance": array}, coords={"at": list(points)}))

    def _traces(
        self, subject: Subject, study: Study, visited: Tensor, under: list[int]
    ) -> np.ndarray:
        d, rng = visited[0, 0].numel(), torch_rng(study.seed, "trajectory signs")
        draws = torch.randint(2, (self.count, d, self.signs), generator=rng) * 2 - 1
        signs = draws.to(visited)
        # Under conditions one by one: the door of every measurement asks one point alone.
        alone = subject.bind is not None
        parts = [slice(k, k + 1) for k in range(self.count)] if alone else [slice(None)]
        asked = [(part, subject.at(under[part])) for part in parts]
        found = [
            torch.cat([jacobian_diagonal(D, x[p], sigma.to(x), signs[p]).mean(1) for p, D in asked])
            for x, sigma in zip(visited, study.sigmas, strict=True)
        ]
        return torch.stack(found).numpy(force=True)


def _distances(
    denoiser: Denoiser, training: EmpiricalDenoiser, noised: Tensor, sigmas: Tensor
) -> np.ndarray:
    # Of the denoised points (T, n, *) to the nearest training image, with shape (T, n).
    with torch.no_grad():
        denoised = [denoiser(x, s.to(x)).float().cpu() for x, s in zip(noised, sigmas, strict=True)]
    _, far = training.neighbours(torch.cat(denoised), 1)
    return far.numpy(force=True).reshape(noised.shape[:2])
