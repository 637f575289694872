r"""Generated samples: the same noise for every network, so that pictures can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.measure.study import Report, Study
from geomem.measure.subject import NETWORKS, Subject
from geomem.models.sample import heun, sigma_steps
from geomem.stats import torch_rng

STEPS = 18  # of Heun's method, two calls each


def sampled_under(study: Study, count: int) -> list[int]:
    r"""The images under whose conditions samples are drawn: the training points, in turn."""
    known = study.content["points"].get("training", [0])
    return [known[k % len(known)] for k in range(count)]


def samples_of(subject: Subject, study: Study, count: int) -> Tensor:
    r"""Samples of a subject, with shape (count, \*), made once and kept in its cache."""
    if "samples" not in subject.cache or len(subject.cache["samples"]) < count:
        rng = torch_rng(study.seed, "samples")
        noise = torch.randn(count, *study.item_shape, generator=rng)
        levels = sigma_steps(0.01 * study.rms, 80 * study.rms, STEPS)
        batches = torch.split(noise.to(subject.device, subject.dtype), 256)
        numbers = sampled_under(study, count)
        made = [
            heun(subject.at(numbers[256 * k : 256 * k + len(batch)]), batch, levels)
            for k, batch in enumerate(batches)
        ]
        subject.cache["samples"] = torch.cat(made).cpu()
    found: Tensor = subject.cache["samples"][:count]
    return found


@checked
@dataclass(frozen=True)
class Samples:
    r"""Gives ``sample_image`` (gallery, axis_0, ...): pixels that a network generated.

    Attributes:
        count: How many samples are drawn; of exact denoisers none.
        gallery: The pixels of how many are kept for the page.
    """

    count: Annotated[int, Whole(least=0)] = 256
    gallery: Annotated[int, Whole(least=0)] = 48

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        kind = subject.description.kind
        if not self.count or kind not in NETWORKS or kind == "reference":
            return xr.Dataset()
        pixels = samples_of(subject, study, self.count)[: self.gallery].float().numpy()
        dims = ("gallery", *(f"axis_{k}" for k in range(pixels.ndim - 1)))
        named = {"units": "data units", "long_name": "generated sample"}
        return xr.Dataset({"sample_image": (dims, pixels, named)})
