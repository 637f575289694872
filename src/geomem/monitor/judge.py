r"""What the looks of a training say, one after the other: its history, and its first warning.

Each look is compared with the linear control and with the best earlier one, at the same images
(:mod:`geomem.findings.looks`). Whether these images are drawn alike on both sides is known before
any look, from the control's record; where they are not, no difference between them is memory.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from geomem.findings.evidence import alike_numbers
from geomem.findings.looks import Look, Moment, judge, moment
from geomem.findings.measured import Measured
from geomem.findings.rows import rows_of
from geomem.findings.sentences import drawn_alike
from geomem.measure.study import Study
from geomem.measure.subject import Subject
from geomem.runs.load import dataset_of


class Judge:
    r"""The looks of a training, judged in their order.

    Arguments:
        study: What each look asks.
        control: The linear control.
        record: Its record.

    Attributes:
        alike_p: The p-value of training and held-out images being drawn alike.
        alike: Whether they are, so that there may be warnings.
        history: The looks so far.
        warning: The first that was significant; None so far.
    """

    def __init__(self, study: Study, control: Subject, record: xr.Dataset) -> None:
        self._study, self._moments = study, list[Moment]()
        self._linear = self._moment(record)
        alone = dataset_of(study.content, [control.description], {0: record})
        alike = alike_numbers(Measured(alone, rows_of(alone), 0, 0))
        self.alike_p, self.alike = float(alike.alike_p_value), drawn_alike(alike)
        self.history: list[Look] = []
        self.warning: Look | None = None

    def add(self, record: xr.Dataset, step: int) -> Look:
        r"""Judges the look at a step by its record, and adds it to the history."""
        self._moments.append(self._moment(record, step))
        found = judge(self._moments, self._linear, self._study.sigmas.numpy())
        self.history.append(found)
        if self.warning is None and found.significant and self.alike:
            self.warning = found
        return found

    def _moment(self, record: xr.Dataset, step: int | None = None) -> Moment:
        error = record["error"].transpose("at", "sigma", "point", "draw", "direction")
        squares = {}
        for at, values in zip(record["at"].values.tolist(), error.values, strict=True):
            count = len(self._study.content["points"][at])
            squares[at] = np.square(values[:, :count].astype(float)).mean(2).sum(-1)
        return moment(squares, self._study.content["point_groups"], step)
