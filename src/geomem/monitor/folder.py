r"""The looks of a monitor on disk: a run like any other, to which each look appends a subject.

A training may be killed at any moment and go on in the same folder. What is there whole is kept;
a subject whose record was not written yet was never measured, and is taken back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import xarray as xr

from geomem.compute.files import clean_temporary
from geomem.measure.study import Study
from geomem.measure.subject import Description
from geomem.runs.load import load
from geomem.runs.provenance import write_session
from geomem.runs.records import ChangedRecord, RunFolder
from geomem.runs.results import write_results

KIND = "monitor"


class LookFolder:
    r"""The run folder of a monitor.

    Arguments:
        path: The folder; new, or of the same training.
        study: What each look asks.
        control: The linear control, the first subject.
        seed: The seed of the monitor.
        started: When the monitor was made, in seconds since the epoch.

    Raises:
        InputError: If the folder holds anything else.
    """

    def __init__(
        self, path: Path, study: Study, control: Description, seed: int, started: float
    ) -> None:
        config = {"kind": KIND, "num_samples": study.content["num_samples"], "seed": seed}
        self._run = RunFolder.create(path, config, study.content, [control])
        clean_temporary(self._run.path)
        digest = str(study.content["data"]["digest"])
        self._end = weakref.finalize(self, _write_session, self._run.path, started, digest)

    def control(self) -> xr.Dataset | None:
        r"""The record of the linear control, if it is there."""
        with suppress(ChangedRecord):
            return None if self._run.missing([0]) else self._run.read_record(0)
        return None

    def write_control(self, record: xr.Dataset) -> None:
        r"""Keeps the record of the linear control."""
        self._run.write_record(0, record)

    def append(self, description: Description, record: xr.Dataset) -> None:
        r"""Keeps a look: its subject, and then its record."""
        self._run.write_record(self._run.append(description), record)

    def looks(self) -> Iterator[tuple[int, xr.Dataset]]:
        r"""Step and record of each look of the same training before it was interrupted."""
        run = self._run
        subjects = run.subjects
        if run.missing([len(subjects) - 1]):  # it ended between subject and record
            run.subject_path(len(subjects) - 1).unlink()
        steps = {
            int(subject.step or 0): number for number, subject in enumerate(subjects) if number
        }
        for step, number in sorted(steps.items()):
            if run.subject_path(number).exists() and not run.missing([number]):
                yield step, run.read_record(number)

    def write_summary(self) -> None:
        r"""Writes what follows from the looks."""
        write_results(self._run, load(self._run.path))


def _write_session(run: Path, started: float, digest: str) -> None:
    with suppress(Exception):  # the folder may be gone by now
        write_session(run, started, "as in training", digest)
