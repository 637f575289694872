r"""Processes that do units of work and may be lost: what :mod:`geomem.executors` is built on.

As in a pool of :mod:`concurrent.futures`, except that there one lost process breaks all of
it. Here each process has a pipe of its own, so that it is known what a lost one was doing:
that unit is run again by another, and the rest goes on undisturbed.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from geomem.errors import GeomemError
from geomem.work import one_thread, say

Function = Callable[[Any, Callable[[Any], None]], Any]
Hear = Callable[[Any, Any], None]


class Agenda:
    r"""Which units wait, how many are open, and how often each was begun.

    Arguments:
        units: The units, addressed by their index from here on.
        tries: How often each may be begun.
    """

    def __init__(self, units: Sequence[Any], tries: int) -> None:
        self.units, self.tries = units, tries
        self.waiting = deque(range(len(units)))
        self.begun: Counter[int] = Counter()
        self.open = len(units)

    def begin(self) -> int:
        r"""The index of the next unit."""
        index = self.waiting.popleft()
        self.begun[index] += 1
        return index

    def end(self, ok: bool, value: Any) -> Any:
        r"""The result of a unit that has ended; raises what the unit raised."""
        if not ok:
            raise value
        self.open -= 1
        return value

    def lost(self, index: int, why: str) -> None:
        r"""Puts a unit whose worker was lost before all others.

        Raises:
            GeomemError: If it was begun as often as it may be.
        """
        if self.begun[index] >= self.tries:
            raise GeomemError(
                f"a unit of work has lost its worker {self.tries} times ({why}: out of memory, "
                "or killed); finished units are kept: run the same command again, with fewer "
                "--processes"
            )
        say(f"a worker was lost ({why}); its unit is run again, the others go on")
        self.waiting.appendleft(index)


def attempt(function: Function, unit: Any, report: Callable[[Any], None]) -> tuple[bool, Any]:
    r"""Does a unit in a worker: whether it went well, and its result or what it raised."""
    try:
        return True, function(unit, report)
    except Exception as error:
        return False, _portable(error)


def _portable(error: Exception) -> Exception:
    # It must survive the way back, and says where it was raised.
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return GeomemError(f"{type(error).__name__}: {error}")
    return error


class Pool:
    r"""Several processes of this machine, one thread each.

    Arguments:
        function: A function that can be imported, called with a unit and ``report``.
        units: The units.
        tries: How often a unit whose worker is lost is begun.
        on_message: Called with a unit and what it reported.
    """

    def __init__(
        self, function: Function, units: Sequence[Any], tries: int, on_message: Hear
    ) -> None:
        self.function, self.agenda, self.on_message = function, Agenda(units, tries), on_message
        self.workers: list[_Worker] = []
        self.false_starts = 0

    def results(self, count: int) -> Iterator[tuple[Any, Any]]:
        r"""Yields ``(unit, result)`` as units end, with so many processes at work."""
        agenda = self.agenda
        while agenda.open:
            while len(self.workers) < min(count, agenda.open):
                self.workers.append(_Worker(self.function))
            self._hand_out()
            for worker in self._speaking():
                index, (said, value) = worker.index, worker.hear()
                if said == "lost":
                    self._replace(worker, value)
                elif said == "message":
                    self.on_message(agenda.units[index], value)
                elif said == "ready":
                    worker.ready = True
                else:
                    worker.index = -1
                    result = agenda.end(said == "done", value)
                    self._hand_out()  # first: nobody waits while the result is used
                    yield agenda.units[index], result

    def _speaking(self) -> list[_Worker]:
        spoke = wait([worker.connection for worker in self.workers])
        return [worker for worker in self.workers if worker.connection in spoke]

    def _hand_out(self) -> None:
        for worker in self.workers:
            if worker.ready and worker.index < 0 and self.agenda.waiting:
                worker.index = self.agenda.begin()
                worker.send(self.agenda.units[worker.index])

    def _replace(self, worker: _Worker, why: str) -> None:
        self.workers.remove(worker)
        worker.hang_up()
        if worker.index >= 0:
            self.agenda.lost(worker.index, why)
            return
        self.false_starts += 1
        if self.false_starts > 10 * self.agenda.tries:
            raise GeomemError(f"worker processes are killed before they begin ({why})")

    def stop(self) -> None:
        r"""Stops all processes: idle ones leave by themselves, the others are made to."""
        for worker in self.workers:
            worker.hang_up()
        patience = time.monotonic() + 0.5
        for worker in self.workers:
            worker.process.join(timeout=max(0.0, patience - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()


class _Worker:
    # One process, and the only pipe to it.

    def __init__(self, function: Function) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that the line is dead when the process is
        self.ready, self.index = False, -1
        self.send(function)

    def send(self, content: Any) -> None:
        data = pickle.dumps(content)
        with suppress(OSError):  # it has just died, and that is what is heard next
            self.connection.send_bytes(data)

    def hear(self) -> tuple[str, Any]:
        data = None
        with suppress(EOFError, OSError):
            data = self.connection.recv_bytes()
        if data is None:
            return "lost", self._how_it_ended()
        said: tuple[str, Any] = pickle.loads(data)
        return said

    def _how_it_ended(self) -> str:
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"signal {-code}"
        if not self.ready:
            raise GeomemError(
                "a worker process could not start, and its own words stand above; a script that "
                "starts workers needs `if __name__ == '__main__':` around what it does"
            )
        return f"exit status {code}"

    def hang_up(self) -> None:
        self.connection.close()  # who waits for a unit leaves
        if self.index >= 0:
            self.process.terminate()


# ------------------------------------------------------------------ inside a worker process


def _serve(connection: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    # Libraries that are loaded later ask the environment how many threads they may have.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    with suppress(EOFError), one_thread():
        function = pickle.loads(connection.recv_bytes())
        _send(connection, "ready", None)
        while True:  # until the parent hangs up
            data = connection.recv_bytes()
            ok, value = attempt(partial(_unpacked, function), data, _reporter(connection))
            _send(connection, "done" if ok else "failed", value)


def _unpacked(function: Function, data: bytes, report: Callable[[Any], None]) -> Any:
    return function(pickle.loads(data), report)


def _reporter(connection: Connection) -> Callable[[Any], None]:
    return lambda message: _send(connection, "message", message)


def _send(connection: Connection, said: str, value: Any) -> None:
    # Plain pickles: torch's own way, through shared memory, needs a sender that lives on.
    try:
        data = pickle.dumps((said, value))
    except Exception as error:
        refused = GeomemError(f"what a unit returned or reported cannot be pickled: {error}")
        data = pickle.dumps(("failed", refused))
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent has hung up
        connection.send_bytes(data)


def _follow(parent: int) -> None:
    # A parent that is killed cannot say goodbye; its workers must not work on alone.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
