r"""Near-duplicates among the training images: what explains copies better than a model does.

A model that has seen an image ten times copies it first. So before its samples are compared
with training images, training images are compared with each other, by the same ratio of
distances and the same calibration as samples (:mod:`geomem.measure.copies`): an image that lies
nearer to one other training image than held-out images ever do has a near-duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import xarray as xr

from geomem.arguments import Whole, checked
from geomem.exact import EmpiricalDenoiser
from geomem.measure.copies import nearest, p_values
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject


@checked
@dataclass(frozen=True)
class Twins:
    r"""Gives ``twin_p_value`` and ``twin_distance`` (trained): training images beside others.

    Asked of the linear control alone, since it is the same beside every subject.

    Attributes:
        count: How many training images are looked at, the measured ones first; each is compared
            with all others.
    """

    count: Annotated[int, Whole(least=1)] = 1024

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        source = study.source
        pool = None if source is None else source.split.pool
        if subject.description.kind != "linear" or source is None or pool is None or len(pool) < 3:
            return xr.Dataset()
        measured = np.array(study.content["points"]["training"])
        chosen = np.concatenate([measured, np.setdiff1d(pool, measured)])[: self.count]
        exact = EmpiricalDenoiser(source.data.tensor(pool))
        index, distance = (v.numpy() for v in exact.neighbours(source.data.tensor(chosen), 3))
        # Itself is among the three nearest, unless there are more than two exact copies of it.
        own = pool[index] == chosen[:, None]
        own[~own.any(1), 0] = True
        first, second = distance[~own].reshape(-1, 2).T
        ratio = np.where(second > 0, first / np.where(second > 0, second, 1.0), 0.0)
        everyone = np.arange(len(pool))
        held = nearest(
            source.data.tensor(source.split.held_out), source.data.tensor(pool), everyone
        )
        chance = {"units": "1", "long_name": "conformal p-value of a training image's ratio"}
        apart = {"units": "data units", "long_name": "distance to the nearest other training image"}
        return xr.Dataset(
            {
                "twin_p_value": ("trained", p_values(ratio, held.ratio), chance),
                "twin_distance": ("trained", first, apart),
            }
        )
