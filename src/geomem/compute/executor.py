r"""Executors: who does the units of work - one process, several, or the machines of a cluster.

An executor is a frozen value with one verb,

    ``executor.run(function, units)`` yields ``(unit, result)`` as units end, in any order,

used alike by a sweep and by the exact posterior over shards. Who works must not change the
answer, and does not where a result is a function of its unit alone and results are put
together by what is associative and commutative: files named by the number of their unit,
:meth:`geomem.exact.Posterior.merge`. On their side executors promise that

* every unit computes on one thread, wherever: the same floats, so the same bytes;
* a worker that is lost (killed, out of memory, its machine gone) costs its unit only, which
  is run again by another, a bounded number of times, while the other units go on;
* what a unit raises arrives here as itself, and stops the rest.
"""

from __future__ import annotations

import pickle
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from geomem.compute.progress import say
from geomem.errors import GeomemError

Function = Callable[[Any, Callable[[Any], None]], Any]
OnMessage = Callable[[Any, Any], None]


class UnitQueue:
    r"""Which units wait, how many are open, and how often each was begun.

    Arguments:
        units: The units, addressed by their index from here on.
        tries: How often each may be begun.

    Attributes:
        waiting: The indices of those that nobody does.
        open: How many are not finished.
    """

    def __init__(self, units: Sequence[Any], tries: int) -> None:
        self.units, self.tries = units, tries
        self.waiting = deque(range(len(units)))
        self.begun: Counter[int] = Counter()
        self.open = len(units)

    def take(self) -> int:
        r"""The index of the next unit."""
        index = self.waiting.popleft()
        self.begun[index] += 1
        return index

    def finish(self, ok: bool, value: Any) -> Any:
        r"""The result of a unit that has ended; raises what the unit raised."""
        if not ok:
            raise value
        self.open -= 1
        return value

    def retry(self, index: int, why: str) -> None:
        r"""Puts a unit whose worker was lost before all others.

        Raises:
            GeomemError: If it was begun as often as it may be.
        """
        if self.begun[index] >= self.tries:
            raise GeomemError(
                f"a unit of work has lost its worker {self.tries} times ({why}: out of memory, "
                "or killed); finished units are kept: run it again with fewer `processes`"
            )
        say(f"a worker was lost ({why}); its unit is run again, the others go on")
        self.waiting.appendleft(index)


def attempt(function: Function, unit: Any, report: Callable[[Any], None]) -> tuple[bool, Any]:
    r"""Does a unit in a worker: whether it went well, and its result or what it raised."""
    try:
        return True, function(unit, report)
    except Exception as error:
        error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # it would not survive the way back
            return False, GeomemError(f"{type(error).__name__}: {error}")
        return False, error


def ignore(unit: Any, message: Any) -> None:
    r"""Does nothing with what a unit reports."""


class Executor(Protocol):
    r"""Who does units of work.

    Attributes:
        here: Whether all workers share this machine, and its memory.
    """

    @property
    def here(self) -> bool: ...

    def workers(self) -> int:
        r"""How many units are done at a time."""

    def run(
        self, function: Function, units: Sequence[Any], *, on_message: OnMessage = ignore
    ) -> Iterator[tuple[Any, Any]]:
        r"""Runs ``function(unit, report)`` for each unit; yields ``(unit, result)``.

        Arguments:
            function: A function that can be imported; ``report(message)`` sends progress.
            units: The units; they and their results can be pickled.
            on_message: Called in this process with a unit and what it reported.

        Raises:
            GeomemError: Where a unit has lost its worker too often. What a unit raised is
                raised as it is. Finished units stay finished.
            KeyboardInterrupt: On Ctrl-C, after the workers have been stopped.
        """
