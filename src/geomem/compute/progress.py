r"""What work will cost, said before it starts, and how far it is.

All of it goes to standard error, and none of it is worth a run: where that is closed, full or
cannot write a letter, the work goes on.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from geomem.compute.memory import check_memory, format_bytes


@dataclass(frozen=True)
class Forecast:
    r"""What a piece of work will cost, said before it starts.

    Attributes:
        seconds: How long it takes.
        num_bytes: The memory that it takes at its peak.

    Example:
        >>> Forecast(seconds=200, num_bytes=3 * 2**30)
        about 3 min 20 s, 3.0 GiB of memory
    """

    seconds: float
    num_bytes: float

    def __repr__(self) -> str:
        return f"about {format_seconds(self.seconds)}, {format_bytes(self.num_bytes)} of memory"

    def check_memory(self, advice: str) -> None:
        r"""Refuses, with advice, what would not fit into the memory that is free.

        Raises:
            InputError: If it does not fit: see :func:`geomem.compute.memory.check_memory`.
        """
        check_memory(self.num_bytes, "this", advice)


def format_seconds(seconds: float) -> str:
    r"""Time for people.

    Example:
        >>> [format_seconds(s) for s in (0.2, 12, 200, 7300, 300_000, math.inf)]
        ['< 1 s', '12 s', '3 min 20 s', '2 h 1 min', '3 d 11 h', 'unknown time']
    """
    if not math.isfinite(seconds):
        return "unknown time"
    if seconds < 1:
        return "< 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class Progress:
    r"""Progress of long work on standard error, with the time that is left.

    One line that is rewritten on a terminal; elsewhere a line every ``interval`` seconds,
    so that a log says where the work stands and does not drown in it. No colours, and no
    escape sequences.

    Arguments:
        total: The amount of work, in any unit.
        label: What is being done.
        quiet: Whether to say nothing.
        interval: Seconds between lines.
    """

    def __init__(
        self, total: float, label: str, *, quiet: bool = False, interval: float = 10.0
    ) -> None:
        self.total, self.label, self.quiet = max(total, 1e-12), label, quiet
        self.terminal = is_terminal()
        self.interval = 0.2 if self.terminal else interval
        self.start, self.shown, self.width = time.monotonic(), -math.inf, 0
        self.done, self.first = 0.0, (math.nan, self.start)

    def update(self, done: float, note: str = "") -> None:
        r"""Says that so much of the total is done by now.

        What is done at the first call was done before: it says nothing about the rest.
        """
        now, self.done = time.monotonic(), min(done, self.total)
        if math.isnan(self.first[0]):
            self.first = self.done, now
        if self.quiet or now - self.shown < self.interval:
            return
        self.shown = now
        self._show(f"{self.label}: {100 * self.done / self.total:3.0f} %{self._left(now)} {note}")

    def finish(self, note: str = "") -> None:
        r"""Ends the line with the time that it took."""
        if not self.quiet:
            took = format_seconds(time.monotonic() - self.start)
            self._show(f"{self.label}: done in {took} {note}")
            if self.terminal:
                write("\n")

    def _left(self, now: float) -> str:
        before, start = self.first
        done, elapsed = self.done - before, now - start
        if done < 0.02 * (self.total - before) or elapsed < 1:
            return ""  # the first percent says little about the rest
        return f", {format_seconds(elapsed * (self.total - self.done) / done)} left"

    def _show(self, line: str) -> None:
        line = line.rstrip()
        if not self.terminal:
            say(line)
            return
        line = line[: shutil.get_terminal_size().columns - 1]  # one that wraps cannot be rewritten
        write("\r" + line.ljust(self.width))
        self.width = len(line)


def is_terminal() -> bool:
    r"""Whether somebody watches standard error."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


@contextmanager
def warnings_said() -> Iterator[None]:
    r"""Warnings as one line each for people, without a file name and a line of code."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = lambda message, *rest, **more: say(f"note: {message}")
        yield


def say(text: str) -> None:
    r"""One line for people, on standard error: standard output is for results."""
    write(f"{text}\n")


def write(text: str) -> None:
    r"""Text for people on standard error, as far as that takes it."""
    stream = sys.stderr
    if stream is None:  # closed before Python began; print would take standard output
        return
    try:
        coding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(coding, "backslashreplace").decode(coding))
        stream.flush()
    except (ValueError, BlockingIOError):  # it is closed, or its reader is slow
        return
    except OSError:
        # Full, or nobody reads it. What it still holds would fail again when Python exits,
        # and make another exit status of it.
        with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
