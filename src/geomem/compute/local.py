r"""Processes of this machine that do units of work and may be lost.

Not a pool of :mod:`concurrent.futures`: there one lost process breaks the whole pool, and one
that is killed while its result is on the way (as processes that run out of memory are) blocks
it for ever, since the pool itself holds the other end of the pipe open: seen with Python 3.11,
3.12 and 3.13, even with a pool for each process. Here each process has a pipe whose only other
end is its own, so that its death is the end of the pipe, whatever it was doing. Its unit is run
again by another, and the rest goes on undisturbed.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from typing import Annotated, Any

from geomem.arguments import Whole, checked
from geomem.compute.executor import Function, OnMessage, UnitQueue, attempt, ignore
from geomem.compute.threads import num_cores, one_thread
from geomem.errors import GeomemError, InputError

# Imported once, in a process that does nothing else and of which the workers are forked: each
# then starts in a moment, and has what no other has used.
HEAVY = [
    *("torch", "torch._dynamo", "xarray", "h5netcdf", "scipy.stats", "scipy.linalg"),
    *("sklearn.covariance", "threadpoolctl"),  # torch.optim asks for torch._dynamo, a second long
]


@checked
@dataclass(frozen=True)
class LocalExecutor:
    r"""Processes of this machine, one thread each; if it is one, it is this very process.

    Two processes of one thread train as fast as one of two, and their sums are the same
    floats whatever their number. The first run of a program starts its processes, which takes
    some seconds.

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

    processes: Annotated[int | None, Whole(least=1)] = None
    tries: Annotated[int, Whole(least=1)] = 3

    @property
    def here(self) -> bool:
        return True

    def workers(self) -> int:
        r"""How many units are done at a time."""
        return self.processes or num_cores()

    def run(
        self, function: Function, units: Sequence[Any], *, on_message: OnMessage = ignore
    ) -> Iterator[tuple[Any, Any]]:
        r"""Runs the units: see :meth:`Executor.run`."""
        if self.workers() == 1:
            for unit in units:
                with one_thread():
                    result = function(unit, partial(on_message, unit))
                yield unit, result
            return
        workers: list[Worker] = []
        try:
            yield from self._share(function, UnitQueue(units, self.tries), on_message, workers)
        finally:
            for worker in workers:
                worker.close()
            patience = time.monotonic() + 2.0  # to remove half-written files
            for worker in workers:
                worker.process.join(timeout=max(0.0, patience - time.monotonic()))
                if worker.process.is_alive():
                    worker.process.kill()

    def _share(
        self, function: Function, queue: UnitQueue, on_message: OnMessage, workers: list[Worker]
    ) -> Iterator[tuple[Any, Any]]:
        failed_starts = 0
        while queue.open:
            while len(workers) < min(self.workers(), queue.open):
                workers.append(Worker(function))
            for worker in workers:
                worker.begin(queue)
            readable = wait([worker.connection for worker in workers])
            for worker in [w for w in workers if w.connection in readable]:
                index, (kind, value) = worker.index, worker.receive()
                if kind == "ready":
                    worker.ready = True
                elif kind == "message":
                    on_message(queue.units[index], value)
                elif kind != "lost":
                    worker.index = -1
                    result = queue.finish(kind == "done", value)
                    worker.begin(queue)  # first: it need not wait while the result is used
                    yield queue.units[index], result
                else:
                    workers.remove(worker)
                    worker.close()
                    if index >= 0:
                        queue.retry(index, value)
                        continue
                    failed_starts += 1
                    if failed_starts > 10 * self.tries:
                        raise GeomemError(
                            f"worker processes are killed before they begin ({value})"
                        )


@cache
def _context() -> Any:
    if "forkserver" not in mp.get_all_start_methods():
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


class Worker:
    r"""One process, and the only pipe to it.

    Arguments:
        function: What it does with each unit.

    Attributes:
        ready: Whether it has started.
        index: The unit that it does, by its index in the queue; -1 for none.
    """

    def __init__(self, function: Function) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, dict(os.environ)), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.ready, self.index = False, -1
        self.send(function)

    def begin(self, queue: UnitQueue) -> None:
        r"""Gives it the next unit, if it is idle and one waits."""
        if self.ready and self.index < 0 and queue.waiting:
            self.index = queue.take()
            self.send(queue.units[self.index])

    def send(self, content: Any) -> None:
        r"""Sends the function or a unit.

        Raises:
            InputError: If it cannot be pickled.
        """
        try:
            data = pickle.dumps(content)
        except Exception as error:
            raise InputError(
                f"`function` and `units` must be such as can be pickled ({error}); pass a function "
                "that can be imported, or use one process"
            ) from error
        with suppress(OSError):  # it has just died, and that is what is received next
            self.connection.send_bytes(data)

    def receive(self) -> tuple[str, Any]:
        r"""What comes next from it: ready, message, done, failed or lost, and the content.

        Raises:
            GeomemError: If it left before it was ready, by itself.
        """
        data = None
        with suppress(EOFError, OSError):
            data = self.connection.recv_bytes()
        if data is not None:
            kind, content = pickle.loads(data)
            return kind, content
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is not None and code < 0:
            return "lost", f"signal {-code}"
        if not self.ready:
            raise GeomemError(
                "a worker process could not start, and its own words stand above; a script that "
                'uses several processes must do so under `if __name__ == "__main__":`'
            )
        return "lost", f"exit status {code}"

    def close(self) -> None:
        r"""Ends it: at once if it is idle, else where it can be interrupted."""
        self.connection.close()
        if self.index >= 0:
            self.process.terminate()


# ------------------------------------------------------------------ inside a worker process


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    # Half-written files and claims go with the process that made them.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_follow, daemon=True).start()
    os.environ.clear()  # that of the process that it was forked of may be older
    os.environ.update(environment)
    # Libraries that are loaded later ask the environment how many threads they may have.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

    def send(kind: str, content: Any) -> None:
        # Plain pickles: torch's own way, through shared memory, needs a sender that lives on.
        try:
            data = pickle.dumps((kind, content))
        except Exception as error:
            refused = GeomemError(f"what a unit returned or reported cannot be pickled: {error}")
            data = pickle.dumps(("failed", refused))
        with suppress(BrokenPipeError, ConnectionResetError):  # the parent has closed it
            connection.send_bytes(data)

    with suppress(EOFError, ConnectionResetError), one_thread():
        function = pickle.loads(connection.recv_bytes())
        send("ready", None)
        while True:  # until the parent closes the pipe
            data = connection.recv_bytes()
            ok, value = attempt(
                lambda data, report: function(pickle.loads(data), report),
                data,
                partial(send, "message"),
            )
            send("done" if ok else "failed", value)


def _follow() -> None:
    # A parent that is killed cannot say goodbye; its workers must not work on alone.
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
