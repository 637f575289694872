r"""Processes of this machine that do units of work and may be lost.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from geomem.compute.executor import Agenda, Function, Hear, attempt, check_counts, ignore
from geomem.compute.threads import num_cores, one_thread
from geomem.errors import GeomemError


@dataclass(frozen=True)
class LocalExecutor:
    r"""Processes of this machine, one thread each; if it is one, it is this very process.

    Two processes of one thread train as fast as one of two, and their sums are the same
    floats whatever their number. Each run starts its processes, which takes some seconds.

    Arguments:
        processes: How many work at a time; one a core if not given.
        tries: How often a unit is begun whose worker is lost.

    Raises:
        InputError: If there are no processes or no tries.

    Example:
        >>> def square(unit, report):
        ...     return unit**2
        >>> list(LocalExecutor(processes=1).run(square, [3, 1, 2]))
        [(3, 9), (1, 1), (2, 4)]
    """

    processes: int | None = None
    tries: int = 3

    def __post_init__(self) -> None:
        check_counts(self.processes, self.tries)

    @property
    def here(self) -> bool:
        return True

    def workers(self) -> int:
        r"""How many units are done at a time."""
        return self.processes or num_cores()

    def run(
        self, function: Function, units: Sequence[Any], *, on_message: Hear = ignore
    ) -> Iterator[tuple[Any, Any]]:
        r"""Runs the units: see :meth:`Executor.run`."""
        if self.workers() == 1:
            yield from _run_here(function, units, on_message)
            return
        pool = Pool(function, units, self.tries, on_message)
        try:
            yield from pool.results(self.workers())
        finally:
            pool.stop()


def _run_here(
    function: Function, units: Sequence[Any], on_message: Hear
) -> Iterator[tuple[Any, Any]]:
    for unit in units:
        with one_thread():
            result = function(unit, partial(on_message, unit))
        yield unit, result


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
