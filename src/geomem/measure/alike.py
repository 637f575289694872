r"""Are training and held-out images drawn alike? What is looked at before anything is compared.

A difference between training and held-out images is memory only if the two sets are otherwise
alike: a class that is rarer among the held-out images is "told apart" by every denoiser. So
what can be said of an image without any network is recorded beside its errors: the distance to
its nearest neighbour among images that are neither measured nor of its group, and where it lies
along the first principal directions. Both sets are compared with the same images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import xarray as xr

from geomem.arguments import Whole, checked
from geomem.exact import EmpiricalDenoiser
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject

NEAREST = 8  # neighbours among which one of another group is looked for


@checked
@dataclass(frozen=True)
class Alike:
    r"""Gives ``look`` (at, point, feature): what is known of measured images without a network.

    Asked of the linear control alone; the logarithm of the nearest distance first, then
    coordinates along principal directions and their squares, in standard deviations.

    Attributes:
        directions: How many principal directions are looked along.
    """

    directions: Annotated[int, Whole(least=0)] = 8

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        source = study.source
        if subject.description.kind != "linear" or source is None:
            return xr.Dataset()
        numbers = study.content["points"]
        measured = np.array(sorted({i for index in numbers.values() for i in index}))
        rest = np.setdiff1d(np.concatenate([source.split.pool, source.split.reserved]), measured)
        exact = EmpiricalDenoiser(source.data.tensor(rest))
        count = min(self.directions, study.directions.singles)
        axes = study.directions.vectors[:, :count].numpy()
        mean = source.reserved.flatten(1).double().mean(0).numpy()
        kinds = [at for at in ("training", "held_out") if at in numbers]
        looks = np.full((len(kinds), study.width, 1 + 2 * count), np.nan, np.float32)
        for a, at in enumerate(kinds):
            index = np.array(numbers[at])
            images = source.data.tensor(index)
            near, distance = (
                found.numpy() for found in exact.neighbours(images, min(NEAREST, len(rest)))
            )
            other = source.groups[rest[near]] != source.groups[index][:, None]
            first = other.argmax(1)
            found = distance[np.arange(len(index)), first].astype(float)
            found[~other.any(1)] = distance[~other.any(1), -1]
            looks[a, : len(index), 0] = np.log(np.maximum(found, 1e-6 * study.rms))
            along = (images.flatten(1).double().numpy() - mean) @ axes
            along /= np.sqrt(study.directions.variances[:count].numpy())
            looks[a, : len(index), 1 : 1 + count] = along
            looks[a, : len(index), 1 + count :] = along**2
        named = {"units": "1", "long_name": "what is known of an image without a network"}
        return xr.Dataset(
            {"look": (("at", "point", "feature"), looks, named)}, coords={"at": kinds}
        )
