r"""What work will cost, said before it starts, and how far it is."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from geomem.errors import InputError


@dataclass(frozen=True)
class Forecast:
    r"""What a piece of work will cost, said before it starts.

    Example:
        >>> Forecast(seconds=200, num_bytes=3 * 2**30)
        about 3 min 20 s, 3.0 GiB of memory
    """

    seconds: float
    num_bytes: float

    def __repr__(self) -> str:
        return f"about {format_seconds(self.seconds)}, {format_bytes(self.num_bytes)} of memory"

    def check_memory(self, advice: str) -> None:
        r"""Refuses, with advice, what would not fit into the memory that is free."""
        free = available_memory()
        if self.num_bytes > free:
            raise InputError(
                f"this needs {format_bytes(self.num_bytes)} of memory and "
                f"{format_bytes(free)} are free; {advice}"
            )


def available_memory() -> float:
    r"""Bytes that can be taken without swapping; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    values = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024.0 * int(values[0]) if values else math.inf


def format_seconds(seconds: float) -> str:
    r"""Time for people.

    Example:
        >>> [format_seconds(s) for s in (0.2, 12, 200, 7300)]
        ['< 1 s', '12 s', '3 min 20 s', '2 h 1 min']
    """
    if seconds < 1:
        return "< 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_bytes(num_bytes: float) -> str:
    r"""Memory for people.

    Example:
        >>> [format_bytes(b) for b in (900, 5e6, 3e9)]
        ['900 B', '4.8 MiB', '2.8 GiB']
    """
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


class Progress:
    r"""Progress of long work on standard error, with the time that is left.

    One line that is rewritten on a terminal; elsewhere a line every ``interval`` seconds,
    so that a log says where the work stands and does not drown in it.

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
        self.terminal = sys.stderr.isatty()
        self.interval = 0.2 if self.terminal else interval
        self.done, self.start, self.shown = 0.0, time.monotonic(), -math.inf

    def update(self, done: float, note: str = "") -> None:
        r"""Says that so much of the total is done by now."""
        self.done = min(done, self.total)
        now = time.monotonic()
        if self.quiet or now - self.shown < self.interval:
            return
        self.shown = now
        self._write(f"{self.label}: {100 * self.done / self.total:3.0f} %{self._left()} {note}")

    def finish(self, note: str = "") -> None:
        r"""Ends the line with the time that it took."""
        if not self.quiet:
            took = format_seconds(time.monotonic() - self.start)
            self._write(f"{self.label}: done in {took} {note}")
            if self.terminal:
                print(file=sys.stderr, flush=True)

    def _left(self) -> str:
        elapsed = time.monotonic() - self.start
        if self.done < 0.02 * self.total or elapsed < 1:
            return ""  # the first percent says little about the rest
        return f", {format_seconds(elapsed * (self.total - self.done) / self.done)} left"

    def _write(self, line: str) -> None:
        end, start = ("", "\r\033[K") if self.terminal else ("\n", "")
        print(f"{start}{line.rstrip()}", end=end, file=sys.stderr, flush=True)


def say(text: str) -> None:
    r"""One line for people, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)
