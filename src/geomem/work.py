r"""Work: progress with time left, forecasts, threads, and writes that are whole.

A unit of work is addressed by its number, is idempotent, and ends in one file that is
renamed into place. An interrupted run is therefore just a shorter run. Who does the units is
an executor's business: see :mod:`geomem.executors`.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from geomem.errors import InputError

# --------------------------------------------------------------------------- writing


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    r"""Writes a file that is there whole or not at all, whatever happens meanwhile.

    Arguments:
        path: Where the file ends up.
        write: Called with a temporary path beside it.

    Raises:
        InputError: If the disk is full or the place cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except Exception as error:
        if isinstance(error, OSError) or _is_full(error):
            raise InputError(_explain(error, path)) from error
        raise
    finally:
        with suppress(OSError):  # not there: renamed, or never begun where nothing can be
            temporary.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    r"""Text as a whole file: see :func:`atomic_write`."""
    atomic_write(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_full(error: Exception) -> bool:
    # safetensors and HDF5 pass on what the system says in errors of their own.
    codes = (errno.ENOSPC, errno.EDQUOT)
    said = any(os.strerror(code) in str(error) for code in codes)
    return said or getattr(error, "errno", None) in codes


def _explain(error: Exception, path: Path) -> str:
    if _is_full(error):
        return (
            f"the disk is full: {path} was not written and what was there is intact; "
            "free some space and run the same command again"
        )
    reason = getattr(error, "strerror", None) or error
    return f"{path} cannot be written ({reason}); choose another --out"


# ------------------------------------------------------------------------- forecasts


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


# -------------------------------------------------------------------------- progress


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


# --------------------------------------------------------------------------- threads


def num_cores() -> int:
    r"""The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    r"""Computes on one thread: a sum over two is not the same float.

    That holds for torch and for the BLAS under NumPy and SciPy: a covariance of 3000 images
    differs in its last bits between one thread and two, and all that follows from it.
    """
    import scipy.linalg  # noqa: F401  (it has a BLAS of its own, limited only once it is here)
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    try:
        with threadpool_limits(limits=1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)
