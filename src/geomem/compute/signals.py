r"""Signals that end a process end it as Ctrl-C does: work is interrupted, and nothing is left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_interrupt() -> Iterator[None]:
    r"""Within, what a scheduler or a closed terminal sends raises ``KeyboardInterrupt``.

    So half-written files and claims are removed and workers stopped, as on Ctrl-C. That is for
    commands: a library leaves signals to the program that it is in. What is ignored already
    (``nohup``) stays ignored; in threads other than the main one nothing changes.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # not every system has all
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
