r"""The commands that run something and then draw it: what the command line adds to the library.

A run writes records and a summary; only here is a page made of them, so that the library's
runs need no figures and figures need no models.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from geomem.compute.executor import Executor
from geomem.compute.local import LocalExecutor
from geomem.compute.progress import format_seconds, say
from geomem.compute.ray import RayExecutor
from geomem.errors import InputError
from geomem.runs.jobs import array_indices, jobs_to_do
from geomem.runs.records import RunFolder, same_config
from geomem.runs.sweep import Sweep, open_sweep
from geomem.show.page.report import report


@dataclass(frozen=True)
class Workers:
    r"""Who works, and where."""

    processes: int | None = None
    """How many work at a time; one a core if not given."""
    executor: Literal["local", "ray"] = "local"
    """Processes of this machine, or workers of Ray (`pip install geomem[ray]`)."""
    address: str | None = None
    """The Ray cluster to join (host:6379, auto, ray://host:10001); a session here if not given."""
    device: str = "cpu"
    """Where networks are trained and measured, for example cuda."""

    def build(self) -> Executor:
        r"""The executor."""
        if self.address is not None and self.executor != "ray":
            raise InputError("--address is where a Ray cluster is; pass --executor ray, too")
        if self.executor == "local":
            return LocalExecutor(self.processes)
        gpus = float(self.device.startswith("cuda"))
        return RayExecutor(self.processes, self.address, gpus)


@dataclass(frozen=True)
class SweepCommand:
    r"""Train on nested subsets of one data set and measure what each size has lost.

    Examples:

      geomem sweep --data digits --out runs/digits

      geomem sweep --data fashion-mnist --sizes 100 1000 10000 --steps 3000 --out runs/fashion

      geomem sweep --data linear --sizes 50 500 5000 --out runs/linear

    Interrupted, the same command goes on where it stopped; so does `geomem sweep RUN`, and
    `geomem sweep RUN --unit 17` does one unit of it (`geomem sweep RUN --help`).
    """

    sweep: Annotated[Sweep, tyro.conf.OmitArgPrefixes]
    workers: Annotated[Workers, tyro.conf.OmitArgPrefixes]
    out: Path = Path("runs/sweep")
    """The run folder; an unfinished run of the same config is gone on with."""
    prepare: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only start the run folder, and print the numbers of its units for a scheduler."""
    csv: bool = False
    """Write the tables of the page as CSV files, too."""

    def run(self) -> int:
        if self.prepare:
            return _prepare(self.sweep, self.out)
        return _run_and_draw(self.sweep, self.out, self.workers, self.csv)

    @classmethod
    def form_of(cls, rest: list[str]) -> type[SweepCommand] | type[ResumeCommand]:
        r"""The form that is meant: a sweep described, or the folder of one named."""
        named = bool(rest) and not rest[0].startswith("-")
        return ResumeCommand if named or "--unit" in rest else cls


@dataclass(frozen=True)
class ResumeCommand:
    r"""Go on with the sweep in a run folder, or do single units of it and no more.

    Examples:

      geomem sweep runs/digits

      geomem sweep runs/digits --unit 17

      geomem sweep runs/digits --prepare

    Units can be done on any machine that sees the folder and the data, in any order, several
    at a time; the first form, when none is left, writes the summary and the page.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of a sweep."""
    workers: Annotated[Workers, tyro.conf.OmitArgPrefixes]
    unit: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """A unit of the run's list, counted from 0, to be done here; may be given several times."""
    prepare: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only print the numbers of the units that are left, for a scheduler."""
    csv: bool = False
    """Write the tables of the page as CSV files, too."""

    def run(self) -> int:
        sweep = open_sweep(self.run_folder)
        if self.prepare:
            return _prepare(sweep, self.run_folder)
        if self.unit:
            return _run_units(sweep, self.run_folder, self.unit, self.workers)
        return _run_and_draw(sweep, self.run_folder, self.workers, self.csv)


@dataclass(frozen=True)
class DemoCommand:
    r"""The main job on real data: a sweep over scikit-learn's digits, in about 3 minutes.

    Trains four small denoisers on 32, 128, 512 and 1,297 of the 1,797 bundled images, measures
    them, and ends with a page. An older demo of another config is moved aside.
    """

    out: Path = Path("runs/demo")
    """The run folder."""
    steps: int = 6000
    """Training steps of each network."""
    processes: int | None = None
    """How many processes work at a time; one a core if not given."""
    device: str = "cpu"
    """Where networks are trained and measured."""
    sizes: tuple[int, ...] = field(default=(32, 128, 512, 1297))
    """Training-set sizes N."""

    def run(self) -> int:
        sweep = Sweep(data="digits", sizes=self.sizes, steps=self.steps, show_images=True)
        move_aside(self.out, sweep)
        return _run_and_draw(sweep, self.out, Workers(self.processes, device=self.device), False)


def _run_and_draw(sweep: Sweep, out: Path, workers: Workers, csv: bool) -> int:
    started = time.monotonic()
    sweep.run(out, executor=workers.build(), device=workers.device)
    page = report(out, csv=csv)
    for line in findings_of(out):
        print(f"- {line}")
    print(f"{page} (after {format_seconds(time.monotonic() - started)})")
    return 0


def _prepare(sweep: Sweep, out: Path) -> int:
    # On standard output the numbers alone: `sbatch --array=$(geomem sweep ... --prepare)`.
    folder = sweep.prepare(out)
    jobs = jobs_to_do(folder)
    todo, planned = sum(map(len, jobs)), len(folder.units)
    say(f"{out}: {todo} of {planned} units to do, in {len(jobs)} jobs, one for each number K below")
    say(f"anywhere, in any order: geomem sweep {out} --unit K; in the end: geomem sweep {out}")
    print(array_indices(jobs))
    return 0


def _run_units(sweep: Sweep, out: Path, numbers: tuple[int, ...], workers: Workers) -> int:
    # One process unless more are asked for: a scheduler gives out the cores.
    one = replace(workers, processes=workers.processes or 1)
    executor = workers.build() if workers.executor == "ray" else one.build()
    done = sweep.run_units(out, numbers, executor=executor, device=workers.device)
    for unit in done:
        print(f"unit {unit.number}: {unit}")
    for number in sorted({*numbers} - {unit.number for unit in done}):
        print(f"unit {number}: its record was there")
    return 0


def findings_of(run: Path) -> list[str]:
    r"""The findings that a run's summary holds."""
    import json

    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return [str(line) for line in summary["findings"]]


def move_aside(out: Path, sweep: Sweep) -> None:
    r"""Moves a run of another config to a free name beside it, and says so."""
    if not (out / "config.json").exists():
        return
    try:
        RunFolder.open(out)
        if same_config(out, sweep.config()):
            return
    except InputError:
        pass  # damaged, or of another version: keep it all the same
    aside = next(p for k in range(1, 10**6) if not (p := out.with_name(f"{out.name}.{k}")).exists())
    shutil.move(out, aside)
    say(f"{out} held a run of another config; it is now {aside}")
