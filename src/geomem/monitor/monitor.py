r"""The monitor of a training: looks that are measured, recorded, judged and logged.

A monitor is a guest. Whatever goes wrong with a look (a denoiser that draws random numbers or
has moved elsewhere, no memory left, a full disk) is logged once, in one sentence, and the
training goes on; it never takes a network's mode or random numbers with it. Its numbers are
those of :mod:`geomem.findings.looks`; its folder is a run like any other, to which each look
appends a subject, so that ``geomem report`` draws what there is at any time.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr

from geomem.arguments import Number, Text, Whole, checked
from geomem.compute.files import clean_temporary
from geomem.denoiser import Denoiser
from geomem.errors import GeomemError
from geomem.findings.evidence import alike_numbers
from geomem.findings.looks import Look, Moment, judge, moment, significant_text
from geomem.findings.measured import Measured
from geomem.findings.rows import rows_of
from geomem.findings.sentences import drawn_alike
from geomem.measure.probes import measure
from geomem.measure.study import Study
from geomem.measure.subject import Description, Subject
from geomem.monitor.images import study_of_images
from geomem.monitor.loggers import writer_of
from geomem.monitor.rest import AtRest, at_rest, is_main
from geomem.monitor.spacing import Spacing
from geomem.runs.load import dataset_of, load
from geomem.runs.provenance import write_session
from geomem.runs.records import ChangedRecord, RunFolder
from geomem.runs.results import write_results

_log = logging.getLogger("geomem.monitor")
KIND = "monitor"
OVERHEAD = 0.1  # seconds of a look that are not the denoiser's: test, record
READY, CHECKS = 0.5, 10  # getting ready for looks: seconds, or so many checks of the images


class MemorizationMonitor:
    r"""Looks at a denoiser while it is trained, and warns when it memorizes beyond chance.

    Two lines of any loop::

        monitor = MemorizationMonitor(train, held_out, every=100, out="runs/monitor")
        ...
            monitor.step(denoiser)  # after each training step

    Looks are taken at step ``every`` and at doubling steps from there, at most 20, later where
    they would take more than ``share`` of the training's time. Each measures denoising errors at
    the same training and held-out images, levels and noise, and tests whether training images
    gained more than held-out ones: see :mod:`geomem.findings.looks`. All looks of a training that
    never memorizes give a warning with a probability of at most 5 %.

    The training is never stopped: images that cannot be used and looks that fail are logged once,
    by ``logging.getLogger("geomem.monitor")``. Of several processes rank 0 looks, and the others
    go on to their next collective call, where they wait for it.

    Arguments:
        train: The training images as the network takes them: floats with shape (N, \*), or a
            data set of N items (tensors, tuples that begin with one, or dictionaries with
            ``input``, ``pixel_values`` or ``images``).
        held_out: Likewise images of the same kind that are not trained on; half of them, up
            to ``points``, are measured.
        every: The step of the first look.
        out: A run folder; a resumed training goes on in it. In memory alone if not given.
        log: Where numbers go, each as of :func:`geomem.monitor.loggers.writer_of`.
        growth: By which factor the steps of looks grow.
        share: The time of looks over that of training, at most; infinite for no limit.
        points: How many images are measured on each side.
        levels: How many noise levels, over the default window.
        draws: Noise draws for each image.
        batch_size: How many noised points are denoised at a time.
        seed: The seed of the choice of images and of their noise.
        name: What to call the data.

    Attributes:
        history: The looks so far, those of an interrupted training included.
        warning: The first look that was significant; None so far.
        fault: Why there are no looks, in one sentence; empty if nothing is wrong.
        steps: The step of the training.

    Raises:
        InputError: If one of the settings, from ``every`` on, is out of its range: when the
            monitor is made, before any training.

    Example:
        >>> images = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
        >>> monitor = MemorizationMonitor(images[:32], images[32:], every=1, share=math.inf)
        >>> monitor.step(lambda x, sigma: x / (1 + sigma**2)).significant
        False
    """

    @checked
    def __init__(
        self,
        train: Any,
        held_out: Any,
        *,
        every: Annotated[int, Whole(least=1)] = 100,
        out: Path | None = None,
        log: Any = (),
        growth: Annotated[float, Number(above=1.0)] = 2.0,
        share: Annotated[float, Number(above=0.0, infinite=True)] = 0.05,
        points: Annotated[int, Whole(least=8)] = 64,
        levels: Annotated[int, Whole(least=2)] = 8,
        draws: Annotated[int, Whole(least=1)] = 2,
        batch_size: Annotated[int, Whole(least=1)] = 256,
        seed: Annotated[int, Whole(least=0)] = 0,
        name: Annotated[str, Text()] = "images of a training",
    ) -> None:
        started = time.time()
        self.history: list[Look] = []
        self.warning: Look | None = None
        self.fault = ""
        self.steps = 0
        self.seed = seed
        self._said: set[str] = set()
        self._moments: list[Moment] = []
        self._folder: RunFolder | None = None
        self._linear: Moment | None = None  # until it is ready for looks
        self._alike = True
        self._spacing = Spacing(every, growth, share)
        self._out, self._started = out, started
        self._overhead, self._checking = OVERHEAD, 0.0
        if not is_main():
            return
        before = time.perf_counter()
        try:
            targets = log if isinstance(log, list | tuple) else [log]
            self._writers = [writer_of(target) for target in targets]
            self._study = study_of_images(
                train,
                held_out,
                points=points,
                levels=levels,
                draws=draws,
                seed=seed,
                batch_size=batch_size,
                name=name,
            )
            self._checking = time.perf_counter() - before
            # A training that was interrupted has its history at once; others may be too short
            # for a single look, and shall not pay for being ready for one.
            if share == math.inf or (out is not None and Path(out).exists()):
                self._open()
        except Exception as error:
            self._give_up(error)
        self._spacing.spent += time.perf_counter() - before

    # -------------------------------------------------------------------------- the loop

    def step(self, denoiser: Denoiser, step: int | None = None) -> Look | None:
        r"""To be called after each training step; looks where a look is due.

        Arguments:
            denoiser: The denoiser as it is now: called with points (B, \*) and a level () on the
                device and in the dtype of its network, and asked in eval mode.
            step: The step of the training, for one that was resumed; calls are counted if not
                given.

        Returns:
            What the look said, if one was taken.
        """
        self.steps = self.steps + 1 if step is None else int(step)
        self._spacing.begin()
        if self.fault or not self._spacing.due(self.steps) or not is_main():
            return None
        return self._guarded(denoiser, wait=True)

    def look(self, denoiser: Denoiser) -> Look | None:
        r"""Looks now, whatever it costs: at the end of a training, say.

        Arguments:
            denoiser: The denoiser, as for :meth:`step`.

        Returns:
            What the look said; None if it failed, was taken at this step already, or is one
            too many.
        """
        self._spacing.begin()
        last = self.history[-1].step if self.history else 0
        over = self.fault or not self._spacing.due(max(self.steps, self._spacing.next))
        if over or self.steps <= last or not is_main():
            return None
        return self._guarded(denoiser, wait=False)

    def update(self, denoiser: Denoiser, step: int | None = None) -> None:
        r"""As :meth:`step`, by the name that it has in torchmetrics.

        Arguments:
            denoiser: The denoiser, as for :meth:`step`.
            step: The step of the training.
        """
        self.step(denoiser, step)

    def compute(self) -> dict[str, float]:
        r"""The numbers of the last look, as they are logged; empty before the first.

        Returns:
            ``geomem/p_value`` and ``geomem/p_level``, from which on it is significant;
            ``geomem/warning``, 1 from the first significant look on; in nats
            ``geomem/beside_linear`` and ``geomem/beside_earlier``, gained at training images
            beyond held-out ones, with their ``_stderr``, and ``geomem/training_error`` and
            ``geomem/held_out_error``. What is not known is left out.
        """
        if not self.history:
            return {}
        last = self.history[-1]
        found = {
            "p_value": last.p_value,
            "p_level": last.level,
            "warning": float(self.warning is not None),
            "training_error": last.training.value,
            "held_out_error": last.held_out.value,
        }
        for beside, gain in last.gains.items():
            found |= {f"beside_{beside}": gain.value, f"beside_{beside}_stderr": gain.stderr}
        return {f"geomem/{k}": v for k, v in found.items() if not math.isnan(v)}

    def close(self) -> None:
        r"""Writes what follows from the looks into the run folder, where there is one."""
        if self._folder is None:
            return
        try:
            write_results(self._folder, load(self._folder.path))
        except Exception as error:
            self._say(f"the summary of the run was not written: {_sentence(error)}")

    @property
    def sigmas(self) -> torch.Tensor:
        r"""The noise levels of the looks in the data's units, with shape (T)."""
        return self._study.sigmas

    @property
    def seconds(self) -> tuple[float, float]:
        r"""Seconds spent in looks so far, getting ready included, and those of training."""
        return self._spacing.spent, self._spacing.training_seconds

    def state_dict(self) -> dict[str, Any]:
        r"""The step, for checkpoints: looks themselves are in the run folder."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Goes on counting from a checkpoint.

        Arguments:
            state: What :meth:`state_dict` returned.
        """
        self.steps = int(state["steps"])

    # -------------------------------------------------------------------------- one look

    def _guarded(self, denoiser: Denoiser, *, wait: bool) -> Look | None:
        before = time.perf_counter()
        try:
            if self._linear is None and not self._ready(wait):
                return None
            with at_rest(denoiser) as calm:
                if wait and not self._affords(calm):
                    return None
                start = time.perf_counter()
                found = self._look(calm)
                self._spacing.cost = time.perf_counter() - start
                self._spacing.took(self.steps)
        except Exception as error:
            self._spacing.skip(self.steps)
            self._say(
                f"the look at step {self.steps} failed, and the training goes on: "
                f"{_sentence(error)}",
                key=_sentence(error),
            )
            return None
        finally:
            self._spacing.spent += time.perf_counter() - before
        return found

    def _ready(self, wait: bool) -> bool:
        # What else a busy machine does makes all of these longer together: the check of the images
        # tells how long getting ready takes, and that how long a look does.
        if wait and not self._spacing.affords(max(READY, CHECKS * self._checking)):
            return False
        before = time.perf_counter()
        try:
            self._open()
            self._overhead = max(OVERHEAD, time.perf_counter() - before)
        except Exception as error:
            self._give_up(error)
        return not self.fault

    def _give_up(self, error: Exception) -> None:
        self.fault = _sentence(error)
        self._say(f"no look will be taken, and the training goes on: {self.fault}")

    def _affords(self, denoiser: AtRest) -> bool:
        spacing = self._spacing
        if spacing.share == math.inf:
            return True
        if spacing.cost is None and spacing.affords(0.0):
            spacing.cost = self._overhead + _seconds_of(denoiser, self._study)
        return spacing.cost is not None and spacing.affords(spacing.cost)

    def _look(self, denoiser: AtRest) -> Look:
        description = Description(
            "learned",
            num_samples=self._study.content["num_samples"],
            seed=self.seed,
            step=self.steps,
        )
        subject = Subject(description, denoiser, torch.float32, str(denoiser.device))
        record = measure(subject, self._study)
        if self._folder is not None:
            self._folder.write_record(self._folder.append(description), record)
        return self._judge(self._moment(record, self.steps), new=True)

    def _judge(self, latest: Moment, *, new: bool) -> Look:
        assert self._linear is not None
        self._moments.append(latest)
        found = judge(self._moments, self._linear, self._study.sigmas.numpy())
        self.history.append(found)
        first = self.warning is None and found.significant and self._alike
        self.warning = found if first else self.warning
        if not new:
            return found
        if first:
            earlier = found.earlier
            text = significant_text(found.step, found.p_value, found.level, found.gains, earlier)
            self._say(f"{text}; what to do: docs/monitor.md")
        for write in self._writers:
            try:
                write(self.compute(), self.steps)
            except Exception as error:
                self._say(f"a logger failed, and the training goes on: {_sentence(error)}")
        return found

    def _moment(self, record: xr.Dataset, step: int | None = None) -> Moment:
        error = record["error"].transpose("at", "sigma", "point", "draw", "direction")
        squares = {}
        for at, values in zip(record["at"].values.tolist(), error.values, strict=True):
            count = len(self._study.content["points"][at])
            squares[at] = np.square(values[:, :count].astype(float)).mean(2).sum(-1)
        return moment(squares, self._study.content["point_groups"], step)

    # ------------------------------------------------------------------------ the folder

    def _open(self) -> None:
        study, out = self._study, self._out
        source = study.source
        assert source is not None
        control = Subject(Description("linear"), source.linear_control)
        record = None
        if out is not None:
            config = {"kind": KIND, "num_samples": study.content["num_samples"], "seed": self.seed}
            folder = RunFolder.create(out, config, study.content, [control.description])
            clean_temporary(folder.path)
            self._folder = folder
            with suppress(ChangedRecord):
                record = None if folder.missing([0]) else folder.read_record(0)
        if record is None:
            record = measure(control, study)
            if self._folder is not None:
                self._folder.write_record(0, record)
        self._linear = self._moment(record)
        alone = dataset_of(study.content, [control.description], {0: record})
        alike = alike_numbers(Measured(alone, rows_of(alone), 0, 0))
        self._alike = drawn_alike(alike)
        if not self._alike:
            self._say(
                "training and held-out images are not drawn alike (p = "
                f"{float(alike.alike_p_value):.1g}, without any network), so that no warning will "
                "be given; hold out images of the same kind"
            )
        if self._folder is not None:
            self._remember(self._folder)
            digest = str(study.content["data"]["digest"])
            weakref.finalize(self, _write_session, self._folder.path, self._started, digest)

    def _remember(self, folder: RunFolder) -> None:
        # The looks of the same training before it was interrupted.
        subjects = folder.subjects
        if folder.missing([len(subjects) - 1]):  # it ended between subject and record
            folder.subject_path(len(subjects) - 1).unlink()
        steps = {subject.step: number for number, subject in enumerate(subjects) if number}
        for step, number in sorted(steps.items(), key=lambda pair: pair[0] or 0):
            if folder.subject_path(number).exists() and not folder.missing([number]):
                self._judge(self._moment(folder.read_record(number), step), new=False)
                self._spacing.took(int(step or 0))

    def _say(self, text: str, *, key: str = "") -> None:
        if (key or text) not in self._said:
            self._said.add(key or text)
            _log.warning("%s", text)


def _seconds_of(denoiser: AtRest, study: Study) -> float:
    # What the denoiser's calls of one look will take, from two batches: the first warms up.
    size = next(p["batch_size"] for p in study.content["probes"] if "batch_size" in p)
    counts = [len(x) * study.draws for x in study.images.values()]
    x = next(iter(study.images.values()))
    x = x[torch.arange(min(size, max(counts))) % len(x)].to(denoiser.device)
    seconds = 0.0
    with torch.no_grad():
        for _ in range(2):
            start = time.perf_counter()
            denoiser(x, study.sigmas[0].to(x)).cpu()
            seconds = time.perf_counter() - start
    calls = sum(math.ceil(count / size) for count in counts)
    return float(seconds * (calls + 2) * len(study.sigmas))


def _sentence(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, GeomemError) else f"{type(error).__name__}: {first}"


def _write_session(run: Path, started: float, digest: str) -> None:
    with suppress(Exception):  # the folder may be gone by now
        write_session(run, started, "as in training", digest)
