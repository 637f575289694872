r"""Jobs: the subjects of a run that one worker measures in one go, wherever it stands.

A subject is addressed by its number in the run's list. Networks measured at several steps of
one training are several subjects and one job: whoever does one of them does them all, since
the training passes through them anyway. A claim beside the records keeps two workers from
doing one job; a job done twice all the same is the same bytes renamed over themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomem.compute.claims import claim
from geomem.compute.progress import warnings_said
from geomem.errors import InputError
from geomem.measure.probes import measure
from geomem.measure.study import Study
from geomem.measure.subject import Description
from geomem.runs.records import RunFolder

Numbers = tuple[int, ...]
ORDER = ("learned", "reference", "model", "base", "empirical")  # the largest ones come first
WAIT = 0.5  # seconds between two looks at what another worker does


def jobs_to_do(folder: RunFolder, numbers: Sequence[int] | None = None) -> list[Numbers]:
    r"""The jobs of subjects whose records are missing; the largest ones come first.

    Arguments:
        folder: The run.
        numbers: The subjects that are wanted, with the rest of their jobs; all if not given.

    Raises:
        InputError: If the run has no subject of such a number.
    """
    subjects = folder.subjects
    for number in numbers or ():
        if not 0 <= number < len(subjects):
            raise InputError(f"{folder.path} has no unit {number}; pass 0 to {len(subjects) - 1}")
    jobs: dict[Description, list[int]] = {}
    for number in folder.missing():
        jobs.setdefault(subjects[number].training, []).append(number)
    if numbers is not None:
        missing = {number for job in jobs.values() for number in job}
        wanted = {subjects[number].training for number in numbers if number in missing}
        jobs = {training: job for training, job in jobs.items() if training in wanted}

    def place(training: Description) -> tuple[int, int, int, int]:
        rank = ORDER.index(training.kind) if training.kind in ORDER else len(ORDER)
        return rank, -(training.width or 0), -(training.num_samples or 0), training.seed or 0

    return [tuple(jobs[training]) for training in sorted(jobs, key=place)]


def array_indices(jobs: Sequence[Numbers]) -> str:
    r"""One subject of each job, as schedulers write a list of numbers.

    Example:
        >>> array_indices([(7, 8), (0,), (1,), (2,), (5, 6)])
        '0-2,6,8'
        >>> array_indices([])
        ''
    """
    ranges: list[list[int]] = []
    for number in sorted(job[-1] for job in jobs):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ",".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in ranges)


# ------------------------------------------------------------------------ inside a worker


@dataclass(frozen=True)
class Task:
    r"""A job as it is sent to a worker: all that it takes, and nothing large.

    Arguments:
        path: The run folder.
        run: Its config, without the data that it has loaded here.
        numbers: The subjects.
        device: Where networks are trained and measured.
    """

    path: Path
    run: Any
    numbers: Numbers
    device: str


_opened: dict[tuple[Path, Any], Any] = {}


def keep_open(path: Path, run: Any, study: Study) -> None:
    r"""Lets jobs that are done in this very process take the run as it is, with all it has loaded.

    Arguments:
        path: The run folder.
        run: The run; jobs whose config equals its own take it.
        study: Its study.
    """
    _opened.clear()
    _opened[path, run] = (run, study)


def run_job(task: Task, report: Callable[[float], None]) -> None:
    r"""Measures the subjects of one job; importable, so that any worker can."""
    folder, place = RunFolder.open(task.path), task.path / "claims" / f"{task.numbers[0]:06d}"
    while folder.missing(task.numbers):
        mine = claim(place, inside=folder.path)
        if mine is None:
            time.sleep(WAIT)  # another worker is at it
            continue
        with mine, warnings_said():
            _measure(folder, task, report)
            return


def _measure(folder: RunFolder, task: Task, report: Callable[[float], None]) -> None:
    key = (task.path, task.run)
    if key not in _opened:  # data and directions are loaded once a process
        keep_open(task.path, task.run, task.run.study())
    run, study = _opened[key]
    if study.digest != folder.config["study"]:
        raise InputError(
            f"the data, or a file beside them, have changed since {folder.path} was started; "
            "bring the old ones back, or start the run anew in another folder"
        )
    # A worker that was lost, or another machine, may have written some of them meanwhile.
    numbers, share = folder.missing(task.numbers), 0.0

    def training(part: float) -> None:
        nonlocal share
        share = part
        report(part)

    for number, subject, end in run.ready(folder, study, numbers, task.device, training):
        record = measure(subject, study, _between(report, share, end))
        folder.write_record(number, record)
        share = end


def _between(report: Callable[[float], None], low: float, high: float) -> Callable[[float], None]:
    return lambda part: report(low + (high - low) * part)
