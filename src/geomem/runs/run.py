r"""A run of any kind: a study, a list of subjects, and the way from one to a summary.

What kinds of run have in common stands here: a folder is claimed once everything has been
checked, missing records are made by whoever works on it, findings follow from the records.
What a kind adds is which study, which subjects, and how a subject is made ready.
"""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr

from geomem.compute.devices import check_device, pace
from geomem.compute.executor import Executor
from geomem.compute.files import clean_temporary
from geomem.compute.local import LocalExecutor
from geomem.compute.progress import Forecast, Progress, say
from geomem.compute.threads import one_thread
from geomem.data.source import Source
from geomem.measure.study import Study
from geomem.measure.subject import Description, Subject
from geomem.runs.jobs import Numbers, Task, jobs_to_do, keep_open, run_job
from geomem.runs.load import load
from geomem.runs.provenance import write_session
from geomem.runs.records import RunFolder, check_free
from geomem.runs.results import write_results

LONG = 1800.0  # seconds from which cheaper settings are named


class Run(ABC):
    r"""A frozen config with ``run(out)``: the base of every kind of run."""

    kind: ClassVar[str]

    # ------------------------------------------------------------- what a kind of run says

    @property
    @abstractmethod
    def source(self) -> Source:
        r"""The data, and the parts that they play."""

    @abstractmethod
    def study(self) -> Study:
        r"""What is measured of every subject: see :mod:`geomem.measure.study`.

        Raises:
            InputError: If data or options cannot be used: everything is checked here.
        """

    @abstractmethod
    def subjects(self, study: Study) -> list[Description]:
        r"""The subjects that are known from the start."""

    @abstractmethod
    def ready(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int],
        device: str,
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Subject, float]]:
        r"""Makes the subjects of one job ready to be measured, one after the other.

        Yields:
            The number of a subject, the subject, and the share of the job done when it has
            been measured.
        """

    @abstractmethod
    def seconds(self, subject: Description, study: Study, device: str = "cpu") -> float:
        r"""Seconds that a subject takes on a device, roughly: for progress and forecast."""

    @abstractmethod
    def num_bytes(self, study: Study) -> float:
        r"""Bytes of memory that one worker takes, roughly."""

    def seconds_left(self, folder: RunFolder, study: Study, job: Numbers, device: str) -> float:
        r"""Seconds that a job still takes; less than its subjects where a part of it is done."""
        return sum(self.seconds(folder.subjects[number], study, device) for number in job)

    def cheaper(self, seconds: float) -> str:
        r"""Settings that take less time, said where a run will take long."""
        return "measure fewer points or levels"

    def conclude(self, folder: RunFolder, dataset: xr.Dataset) -> None:
        r"""Writes what follows from the records: findings and summary, if a kind has no others."""
        write_results(folder, dataset)

    def check_device(self, device: str) -> None:
        r"""Refuses a device that is not there, or that this kind of run cannot use.

        Raises:
            InputError: If torch cannot compute on it.
        """
        check_device(device)

    # --------------------------------------------------------------------------- as config

    def config(self) -> dict[str, Any]:
        r"""The config as plain JSON values; a field at its empty default is left out."""
        plain: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value == field.default and value in (None, (), False):
                continue
            if isinstance(value, tuple):
                plain[field.name] = [str(v) if isinstance(v, Path) else v for v in value]
            else:
                plain[field.name] = str(value) if isinstance(value, Path) else value
        return plain

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        r"""The run that a run folder's config describes."""
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        known = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in names}
        return cls(**known)

    # ----------------------------------------------------------------------------- running

    def run(
        self,
        out: str | Path,
        *,
        processes: int | None = None,
        executor: Executor | None = None,
        device: str = "cpu",
        quiet: bool = False,
    ) -> xr.Dataset:
        r"""Runs, or goes on with, the run in a folder.

        Arguments:
            out: The run folder.
            processes: How many processes of this machine work at a time, where no executor
                is given; one a core if neither is.
            executor: Who works: :class:`~geomem.compute.local.LocalExecutor` or
                :class:`~geomem.compute.ray.RayExecutor`.
            device: Where networks are trained and measured.
            quiet: Whether to show no progress.

        Returns:
            The dataset of :func:`geomem.runs.load.load`.

        Raises:
            InputError: If the data or the folder cannot be used.
        """
        started = time.time()
        executor = executor or LocalExecutor(processes)
        self.check_device(device)
        folder, study = self._begin(out)
        self._work(folder, study, None, executor, device, quiet)
        dataset = load(folder.path)
        self.conclude(folder, dataset)
        write_session(folder.path, started, device, folder.study["data"]["digest"])
        shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)
        return dataset

    def run_units(
        self,
        out: str | Path,
        numbers: Sequence[int],
        *,
        executor: Executor | None = None,
        device: str = "cpu",
        quiet: bool = False,
    ) -> list[int]:
        r"""Measures single subjects of the run, and no more: what a scheduler calls, anywhere.

        The jobs of these subjects are done: a network measured at several steps is trained
        once. One whose record is there is left alone. The last call is :meth:`run`, which
        finds nothing left to do and writes the summary.

        Arguments:
            out: The run folder; it is started if it is not there.
            numbers: The numbers of the subjects.
            executor: Who works; this very process if not given.
            device: Where networks are trained and measured.
            quiet: Whether to show no progress.

        Returns:
            The numbers of the subjects that were missing, and are there now.

        Raises:
            InputError: If the data or the folder cannot be used, or has no such subject.
        """
        started = time.time()
        self.check_device(device)
        folder, study = self._begin(out)
        done = self._work(folder, study, numbers, executor or LocalExecutor(1), device, quiet)
        if done:
            write_session(folder.path, started, device, folder.study["data"]["digest"])
        return sorted(done)

    def prepare(self, out: str | Path) -> RunFolder:
        r"""Starts or reopens the run folder: checks everything, then claims it and the study."""
        return self._begin(out)[0]

    def _begin(self, out: str | Path) -> tuple[RunFolder, Study]:
        out = Path(out)
        if not (out / "config.json").exists():
            check_free(out)
        with one_thread():
            study = self.study()
        folder = RunFolder.create(out, self.config(), study.content, self.subjects(study))
        clean_temporary(folder.path)
        return folder, study

    def _work(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int] | None,
        executor: Executor,
        device: str,
        quiet: bool,
    ) -> list[int]:
        jobs, subjects = jobs_to_do(folder, numbers), folder.subjects
        if not jobs:
            return []
        costs = dict.fromkeys(jobs, 1.0)  # of a quiet run nobody is told how long it takes
        if not quiet:
            costs = {job: self.seconds_left(folder, study, job, device) for job in jobs}
        workers = min(executor.workers(), len(jobs))
        if workers == 1:
            keep_open(folder.path, self, study)  # data and models need not be read again
        left = sum(costs.values()) / min(pace(executor, device), len(jobs))
        forecast = Forecast(max(left, max(costs.values())), workers * self.num_bytes(study))
        if not quiet:
            if account := self.source.data.account:
                say(f"{self.source.data.name}: {account}")
            todo = sum(map(len, jobs))
            say(f"{folder.path}: {todo} of {len(subjects)} subjects to measure, {forecast}")
            if forecast.seconds > LONG:
                say(f"that is long; cheaper: {self.cheaper(forecast.seconds)}")
        if executor.here:
            forecast.check_memory("measure fewer points, or pass smaller sizes")
        progress = Progress(sum(costs.values()), self.kind, quiet=quiet)
        shares: dict[Numbers, float] = {}
        begun: dict[Numbers, float] = {}

        def on_message(task: Task, share: float) -> None:
            # Costs are those of what is left: a first share is what others did before.
            before = begun.setdefault(task.numbers, min(share, 0.99))
            shares[task.numbers] = max(0.0, (share - before) / (1 - before))
            done = sum(costs[job] * s for job, s in shares.items())
            running = [str(subjects[job[-1]]) for job, s in shares.items() if s < 1]
            progress.update(done, "; ".join(running))

        tasks = [Task(folder.path, replace(self), job, device) for job in jobs]  # type: ignore[type-var]
        for task, _ in executor.run(run_job, tasks, on_message=on_message):
            on_message(task, 1.0)
        progress.finish()
        return [number for job in jobs for number in job]


def exact_seconds(study: Study, num_samples: int | None) -> float:
    r"""Seconds that an exact denoiser takes to be measured, roughly."""
    points = sum(map(len, study.images.values()))
    pairs = points * study.draws * len(study.sigmas) * (num_samples or 1)
    return 0.2 + pairs * float(np.prod(study.item_shape)) * 5e-10
