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
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch

from geomem.arguments import Number, Text, Whole, checked
from geomem.denoiser import Denoiser
from geomem.errors import GeomemError, InputError
from geomem.findings.looks import Look, significant_text
from geomem.measure.probes import measure
from geomem.measure.subject import Description, Subject
from geomem.monitor.images import study_in_pieces
from geomem.monitor.loggers import numbers_of, writer_of
from geomem.monitor.ready import Pieces, Ready, get_ready
from geomem.monitor.rest import AtRest, at_rest, is_main
from geomem.monitor.spacing import Spacing

_log = logging.getLogger("geomem.monitor")


class MemorizationMonitor:
    r"""Looks at a denoiser while it is trained, and warns when it memorizes beyond chance.

    Two lines of any loop::

        monitor = MemorizationMonitor(train, held_out, every=100, out="runs/monitor")
        ...
            monitor.step(denoiser)  # after each training step

    Looks are taken at step ``every`` and at doubling steps from there, at most 20, later where
    they would take more than ``share`` of the training's time so far. Getting ready for them is a
    part of that time, and is done in pieces while the training goes on. Each look measures
    denoising errors at the same training and held-out images, levels and noise, and tests whether
    training images gained more than held-out ones: see :mod:`geomem.findings.looks`. All looks of
    a training that never memorizes give a warning with a probability of at most 5 %.

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
        self.fault = ""
        self.steps = 0
        self.seed = seed
        self._said: set[str] = set()
        self._spacing = Spacing(every, growth, share)
        self._pieces: Pieces | None = None
        self._known: Ready | None = None  # None until it is ready for looks
        if not is_main():
            return
        study = study_in_pieces(
            train,
            held_out,
            points=points,
            levels=levels,
            draws=draws,
            seed=seed,
            batch_size=batch_size,
            name=name,
            clock=self._spacing.clock,
        )
        try:
            targets = log if isinstance(log, list | tuple) else [log]
            self._writers = [writer_of(target) for target in targets]
            work = get_ready(study, out, seed, time.time(), self._spacing)
            self._pieces = Pieces(work, self._spacing)
            interrupted = out is not None and out.is_dir() and any(out.iterdir())
        except Exception as error:
            self._give_up(error)
            return
        # A training that was interrupted has its history at once; others may be too short for a
        # single look, and shall not pay for being ready for one.
        if share == math.inf or interrupted:
            self._ready(wait=False)

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
        ready = self._ready(wait=True)
        if ready is None or not self._spacing.due(self.steps):
            return None
        # A step between two looks shall cost nothing, so this comes before anything else.
        if not self._spacing.affords(ready.forecast.needs):
            return None
        return self._guarded(denoiser, ready, wait=True)

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
        over = not self._spacing.due(max(self.steps, self._spacing.next))
        ready = None if over or self.steps <= last else self._ready(wait=False)
        return None if ready is None else self._guarded(denoiser, ready, wait=False)

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
        return numbers_of(self.history[-1], self.warning is not None) if self.history else {}

    def close(self) -> None:
        r"""Writes what follows from the looks into the run folder, where there is one."""
        if self._known is None or self._known.folder is None:
            return
        try:
            self._known.folder.write_summary()
        except Exception as error:
            self._say(f"the summary of the run was not written: {_sentence(error)}")

    @property
    def history(self) -> list[Look]:
        r"""The looks so far, those of an interrupted training included."""
        return [] if self._known is None else self._known.judge.history

    @property
    def warning(self) -> Look | None:
        r"""The first look that was significant; None so far."""
        return None if self._known is None else self._known.judge.warning

    @property
    def sigmas(self) -> torch.Tensor:
        r"""The noise levels of the looks in the data's units, with shape (T).

        Gets ready for looks at once, whatever it costs.

        Raises:
            InputError: If there are none, since no look will be taken.
        """
        ready = self._ready(wait=False)
        if ready is None:
            raise InputError(f"there are no noise levels: {self.fault or 'rank 0 alone looks'}")
        return ready.study.sigmas

    @property
    def seconds(self) -> tuple[float, float]:
        r"""Seconds spent in looks so far, getting ready included, and those of training."""
        return self._spacing.spent, self._spacing.training_seconds

    def state_dict(self) -> dict[str, Any]:
        r"""The step and :attr:`seconds`, for checkpoints: looks are in the run folder."""
        return {"steps": self.steps, "seconds": list(self.seconds)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Goes on counting from a checkpoint.

        Arguments:
            state: What :meth:`state_dict` returned.
        """
        self.steps = int(state["steps"])
        self._spacing.resume(*state.get("seconds", (0.0, 0.0)))

    # -------------------------------------------------------------------------- one look

    def _guarded(self, denoiser: Denoiser, ready: Ready, *, wait: bool) -> Look | None:
        spacing = self._spacing
        with spacing.paying():
            try:
                with at_rest(denoiser) as calm:
                    if wait and not ready.forecast.allows(calm):
                        return None
                    before = spacing.clock()
                    found = self._look(calm, ready)
                    ready.forecast.took(spacing.clock() - before)
                    spacing.took(self.steps)
                    return found
            except Exception as error:
                spacing.skip(self.steps)
                self._say(
                    f"the look at step {self.steps} failed, and the training goes on: "
                    f"{_sentence(error)}",
                    key=_sentence(error),
                )
                return None

    def _look(self, denoiser: AtRest, ready: Ready) -> Look:
        description = Description(
            "learned",
            num_samples=ready.study.content["num_samples"],
            seed=self.seed,
            step=self.steps,
        )
        subject = Subject(description, denoiser, torch.float32, str(denoiser.device))
        record = measure(subject, ready.study)
        if ready.folder is not None:
            ready.folder.append(description, record)
        found = ready.judge.add(record, self.steps)
        if found is self.warning:
            earlier = found.earlier
            text = significant_text(found.step, found.p_value, found.level, found.gains, earlier)
            self._say(f"{text}; what to do: docs/monitor.md")
        for write in self._writers:
            try:
                write(self.compute(), self.steps)
            except Exception as error:
                self._say(f"a logger failed, and the training goes on: {_sentence(error)}")
        return found

    # -------------------------------------------------------------------- getting ready

    def _ready(self, *, wait: bool) -> Ready | None:
        if self._known is not None or self._pieces is None or self.fault:
            return None if self.fault else self._known
        try:
            self._known = self._pieces.done(wait=wait)
        except Exception as error:
            self._give_up(error)
        if self._known is None:
            return None
        for look in self.history:
            self._spacing.took(look.step)
        if not self._known.judge.alike:
            self._say(
                "training and held-out images are not drawn alike (p = "
                f"{self._known.judge.alike_p:.1g}, without any network), so that no warning will "
                "be given; hold out images of the same kind"
            )
        return self._known

    def _give_up(self, error: Exception) -> None:
        self.fault = _sentence(error)
        self._say(f"no look will be taken, and the training goes on: {self.fault}")

    def _say(self, text: str, *, key: str = "") -> None:
        if (key or text) not in self._said:
            self._said.add(key or text)
            _log.warning("%s", text)


def _sentence(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return first if isinstance(error, GeomemError) else f"{type(error).__name__}: {first}"
