r"""Getting ready for looks, in pieces that a training pays for one at a time.

What is needed before the first look (images that are read from disk, their principal directions,
the linear control) may take longer than a short training has to spare, and some trainings end
before their first look. So it is not done when the monitor is made, but in pieces, each as soon as
the share of the training so far allows it, and none where it never does.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from geomem.measure.probes import measure
from geomem.measure.study import Study
from geomem.measure.subject import Description, Subject
from geomem.monitor.folder import LookFolder
from geomem.monitor.forecast import Forecast
from geomem.monitor.images import StudyPieces
from geomem.monitor.judge import Judge
from geomem.monitor.spacing import Spacing

OPENING, TIMES = 0.5, 2.0  # the linear control: seconds, or so many times the directions' before
OVERHEAD = 0.1  # seconds of a look that are not the denoiser's, at least: test, record


@dataclass(frozen=True, eq=False)
class Ready:
    r"""What a look needs.

    Attributes:
        study: What it asks.
        judge: What it is compared with; the looks before an interruption are in its history.
        folder: Where it is kept; None for in memory alone.
        forecast: What it takes.
    """

    study: Study
    judge: Judge
    folder: LookFolder | None
    forecast: Forecast


class Pieces:
    r"""Work that is done in pieces, each when it can be paid for.

    Arguments:
        work: Yields the seconds that its next piece will take. Its first one is done at once.
        spacing: What may be spent.

    Attributes:
        result: What the work returned; None until then.
    """

    def __init__(self, work: Generator[float, None, Ready], spacing: Spacing) -> None:
        self._work, self._spacing = work, spacing
        self._seconds = 0.0  # of the next piece
        self.result: Ready | None = None
        self._advance()

    def done(self, *, wait: bool) -> Ready | None:
        r"""Does what can be paid for by now, or all of it.

        Arguments:
            wait: Whether to leave what cannot be paid for.

        Returns:
            The result, once there is one.

        Raises:
            Exception: What the work raises, after which there is no more to be done.
        """
        while self.result is None:
            if wait and not self._spacing.affords(self._seconds):
                return None
            self._advance()
        return self.result

    def _advance(self) -> None:
        with self._spacing.paying():
            try:
                self._seconds = next(self._work)
            except StopIteration as end:
                self.result = end.value


def get_ready(
    pieces: StudyPieces, out: Path | None, seed: int, started: float, spacing: Spacing
) -> Generator[float, None, Ready]:
    r"""Gets ready for looks.

    Arguments:
        pieces: The study, in pieces.
        out: The run folder, if any.
        seed: The seed of the monitor.
        started: When the monitor was made, in seconds since the epoch.
        spacing: What may be spent.

    Yields:
        The seconds that the next piece will take.

    Returns:
        What a look needs.

    Raises:
        InputError: If the images or the folder cannot be used.
    """
    study, seconds = yield from pieces
    yield max(OPENING, TIMES * seconds)
    before, source, folder, record = spacing.clock(), study.source, None, None
    assert source is not None
    control = Subject(Description("linear"), source.linear_control)
    if out is not None:
        folder = LookFolder(out, study, control.description, seed, started)
        record = folder.control()
    if record is None:
        record = measure(control, study)
        if folder is not None:
            folder.write_control(record)
    judge = Judge(study, control, record)
    # The control is asked at the same points and levels as any network.
    forecast = Forecast(study, max(OVERHEAD, spacing.clock() - before), spacing)
    for step, look in [] if folder is None else folder.looks():
        judge.add(look, step)
    return Ready(study, judge, folder, forecast)
