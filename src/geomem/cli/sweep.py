r"""``geomem sweep``: train on nested subsets, measure what each size has lost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from geomem.arguments import Whole
from geomem.cli.options import ComputeOptions, findings_of, values_of
from geomem.compute.progress import format_seconds, say
from geomem.data.source import DataOptions
from geomem.errors import InputError
from geomem.measure.probes import MeasureOptions
from geomem.runs.jobs import array_indices, jobs_to_do
from geomem.runs.kinds import open_run
from geomem.runs.recipe import TrainOptions
from geomem.runs.run import Run
from geomem.runs.sweep import Sweep
from geomem.show.page.report import report


@dataclass(frozen=True)
class SweepCommand:
    r"""Train on nested subsets of one data set and measure what each size has lost.

    Examples:

      geomem sweep --data digits --out runs/digits

      geomem sweep --data fashion-mnist --sizes 100 1000 10000 --steps 3000

      geomem sweep --data linear --sizes 50 500 5000 --out runs/linear

    Interrupted, the same command goes on where it stopped; so does
    `geomem sweep RUN`, and `geomem sweep RUN --unit 17` does one unit of it
    (`geomem sweep RUN --help`).
    """

    data: Annotated[DataOptions, tyro.conf.OmitArgPrefixes]
    training: Annotated[TrainOptions, tyro.conf.OmitArgPrefixes]
    measuring: Annotated[MeasureOptions, tyro.conf.OmitArgPrefixes]
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    seed: Annotated[int, Whole(least=0)] = 0
    """The seed of everything but the training: split, order, noise, samples."""
    out: Path = Path("runs/sweep")
    """The run folder; an unfinished run of the same config is gone on with."""
    budget: str | None = None
    """Time for all of it on this machine, such as 30m or 2h: decides --steps."""
    prepare: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only start the run folder, and print the numbers of its units for a scheduler."""
    csv: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the tables of the page as CSV files, too."""

    def run(self) -> int:
        r"""Sweeps, draws, prints the findings; returns the exit status."""
        options = values_of(self.data, self.training, self.measuring)
        sweep = Sweep(**options, seed=self.seed)
        if self.budget is not None:
            sweep = self._within_budget(sweep)
        if self.prepare:
            return print_units(sweep, self.out)
        return run_and_draw(sweep, self.out, self.computing, self.csv)

    def _within_budget(self, sweep: Sweep) -> Sweep:
        seconds = seconds_of(self.budget or "")
        if sweep.steps is not None:
            raise InputError("pass `budget` or `steps`, not both: a budget decides the steps")
        if sweep.epochs is not None:
            raise InputError("pass `budget` or `epochs`, not both: a budget decides the steps")
        if (self.out / "config.json").exists():  # begun before: with the steps of then
            there = open_run(self.out)
            if isinstance(there, Sweep) and replace(there, steps=None) == sweep:
                return there
        found = sweep.within(seconds, self.computing.pace, self.computing.device)
        say(f"{self.budget} allow --steps {found.steps} on this machine")
        return found

    @classmethod
    def form_of(cls, rest: list[str]) -> type[SweepCommand] | type[ResumeCommand]:
        r"""The form that is meant: a sweep described, or the folder of one named."""
        named = bool(rest) and not rest[0].startswith("-")
        return ResumeCommand if named or "--unit" in rest else cls


@dataclass(frozen=True)
class ResumeCommand:
    r"""Go on with the run in a folder, or do single units of it and no more.

    Examples:

      geomem sweep runs/digits

      geomem sweep runs/digits --unit 17

      geomem sweep runs/digits --prepare

    Units can be done on any machine that sees the folder and the data, in any
    order, several at a time; the first form, when none is left, writes the
    summary and the page.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of a run."""
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    unit: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """A unit of the run's list, counted from 0, to be done here; may be given several times."""
    data: str | None = None
    """Where the data lie on this machine, if elsewhere than before; checked by digest."""
    split: Path | None = None
    """Likewise its split file."""
    groups: Path | None = None
    """Likewise its file of groups."""
    labels: Path | None = None
    """Likewise its file of labels."""
    prepare: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only print the numbers of the units that are left, for a scheduler."""
    csv: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the tables of the page as CSV files, too."""

    def run(self) -> int:
        r"""Goes on, or does units; returns the exit status."""
        places = {"data": self.data, "split": self.split}
        places |= {"groups": self.groups, "labels": self.labels}
        run = open_run(self.run_folder, **places)
        if self.prepare:
            return print_units(run, self.run_folder)
        if self.unit:
            return self._run_units(run)
        return run_and_draw(run, self.run_folder, self.computing, self.csv)

    def _run_units(self, run: Run) -> int:
        # One process unless more are asked for: a scheduler gives out the cores.
        one = replace(self.computing, processes=self.computing.processes or 1)
        executor = self.computing.build() if self.computing.executor == "ray" else one.build()
        device = self.computing.device
        done = run.run_units(self.run_folder, self.unit, executor=executor, device=device)
        for number in done:
            print(f"unit {number}: {run.subjects(run.study())[number]}")
        for number in sorted({*self.unit} - {*done}):
            print(f"unit {number}: its record was there")
        return 0


def seconds_of(text: str) -> float:
    r"""Seconds of a time for people.

    Raises:
        InputError: If it is none.

    Example:
        >>> [seconds_of(text) for text in ("90s", "30m", "1.5h", "45")]
        [90.0, 1800.0, 5400.0, 2700.0]
    """
    number, unit = (text[:-1], text[-1]) if text[-1:].isalpha() else (text, "m")
    try:
        found = float(number) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[unit]
    except (ValueError, KeyError) as error:
        raise InputError(f"`budget` is {text!r}; pass a time such as 30m or 2h") from error
    if not 1 <= found < 1e9:
        raise InputError(f"`budget` is {text!r}; pass a time such as 30m or 2h")
    return found


def run_and_draw(run: Run, out: Path, computing: ComputeOptions, csv: bool = False) -> int:
    r"""Does a run, draws its page, prints what was found; returns the exit status."""
    started = time.monotonic()
    run.run(out, executor=computing.build(), device=computing.device)
    page = report(out, csv=csv)
    for line in findings_of(out):
        print(f"- {line}")
    print(f"{page} (after {format_seconds(time.monotonic() - started)})")
    return 0


def print_units(run: Run, out: Path) -> int:
    r"""Starts a run's folder and prints the numbers of what is to do, for a scheduler."""
    # On standard output the numbers alone: `sbatch --array=$(geomem sweep ... --prepare)`.
    folder = run.prepare(out)
    jobs = jobs_to_do(folder)
    todo, planned = sum(map(len, jobs)), len(folder.subjects)
    say(f"{out}: {todo} of {planned} units to do, in {len(jobs)} jobs, one for each number K below")
    say(f"anywhere, in any order: geomem sweep {out} --unit K; in the end: geomem sweep {out}")
    print(array_indices(jobs))
    return 0


def same_run(out: Path, run: Run) -> bool:
    r"""Whether a folder holds this very run."""
    try:
        return open_run(out) == run
    except InputError:
        return False  # damaged, or of another version
