r"""Jobs: the units of a run that one worker does in one go, wherever it stands.

A unit is addressed by its number in the run's list. Networks measured at several steps of
one training are several units and one job: whoever does one of them does them all, since the
training passes through them anyway. A job done twice, even at the same time on two machines,
is the same bytes renamed over themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomem.errors import InputError
from geomem.runs.records import RunFolder, Unit
from geomem.runs.units import UnitRunner

if TYPE_CHECKING:
    from geomem.runs.sweep import Sweep

Numbers = tuple[int, ...]


def jobs_to_do(folder: RunFolder, numbers: Sequence[int] | None = None) -> list[Numbers]:
    r"""The jobs of units whose records are missing; the largest ones come first.

    Arguments:
        folder: The run.
        numbers: The units that are wanted, with the rest of their jobs; all if not given.

    Raises:
        InputError: If the run has no unit of such a number.
    """
    missing = folder.missing()
    if numbers is not None:
        _check_numbers(folder, numbers)
        wanted = {_training(unit) for unit in missing if unit.number in numbers}
        missing = [unit for unit in missing if _training(unit) in wanted]
    jobs: dict[tuple[Any, ...], list[int]] = {}
    for unit in missing:
        jobs.setdefault(_training(unit), []).append(unit.number)
    order = {"learned": 0, "empirical": 1, "linear": 2, "population": 2}
    keys = sorted(jobs, key=lambda k: (order[k[0]], -(k[1] or 0), k[2] or 0))
    return [tuple(jobs[k]) for k in keys]


def _training(unit: Unit) -> tuple[str, int | None, int | None]:
    return unit.denoiser, unit.num_samples, unit.seed


def _check_numbers(folder: RunFolder, numbers: Sequence[int]) -> None:
    last = len(folder.units) - 1
    for number in numbers:
        if not 0 <= number <= last:
            raise InputError(f"{folder.path} has no unit {number}; pass --unit 0 to {last}")


def array_indices(jobs: Sequence[Numbers]) -> str:
    r"""One unit of each job, as schedulers write a list of numbers.

    Example:
        >>> array_indices([(7, 8), (0,), (1,), (2,), (5, 6)])
        '0-2,6,8'
        >>> array_indices([])
        ''
    """
    ranges: list[list[int]] = []
    for number in sorted(job[-1] for job in jobs):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ",".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in ranges)


# ------------------------------------------------------------------------ inside a worker


@dataclass(frozen=True)
class Task:
    r"""A job as it is sent to a worker: all that it takes, and nothing large.

    Arguments:
        run: The run folder.
        sweep: Its config, without the data that it has loaded here.
        numbers: The units.
        device: Where networks are trained and measured.
    """

    run: Path
    sweep: Sweep
    numbers: Numbers
    device: str

    @classmethod
    def of(cls, run: Path, sweep: Sweep, numbers: Numbers, device: str) -> Task:
        r"""The task of a job; `replace` leaves behind what the sweep has loaded."""
        return cls(run, replace(sweep), numbers, device)


_runners: dict[tuple[str, Any, str], UnitRunner] = {}


def run_job(task: Task, report: Callable[[float], None]) -> None:
    r"""Does the units of one job; importable, so that any worker can."""
    key = (str(task.run), task.sweep, task.device)
    if key not in _runners:  # data and directions are loaded once a process
        _runners.clear()
        _runners[key] = UnitRunner(RunFolder.open(task.run), task.sweep, task.device)
    runner = _runners[key]
    # A worker that was lost, or another machine, may have written some of them meanwhile.
    missing = {unit.number for unit in runner.folder.missing()}
    numbers = tuple(number for number in task.numbers if number in missing)
    if numbers:
        runner.run(numbers, report)
