r"""The commands that run something and then draw it: what the command line adds to the library.

A run writes records and a summary; only here is a page made of them, so that the library's
runs need no figures and figures need no models.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from geomem.errors import InputError
from geomem.runs.records import RunFolder, same_config
from geomem.runs.sweep import Sweep
from geomem.show.report import report
from geomem.work import format_seconds, say


@dataclass(frozen=True)
class SweepCommand:
    r"""Train on nested subsets of one data set and measure what each size has lost.

    Examples:

      geomem sweep --data digits --out runs/digits

      geomem sweep --data fashion-mnist --sizes 100 1000 10000 --steps 3000 --out runs/fashion

      geomem sweep --data linear --sizes 50 500 5000 --out runs/linear

    Interrupted, the same command goes on where it stopped.
    """

    sweep: Annotated[Sweep, tyro.conf.OmitArgPrefixes]
    out: Path = Path("runs/sweep")
    """The run folder; an unfinished run of the same config is gone on with."""
    processes: int | None = None
    """How many processes work at a time; one a core if not given."""
    device: str = "cpu"
    """Where networks are trained and measured, for example cuda."""
    csv: bool = False
    """Write the tables of the page as CSV files, too."""

    def run(self) -> int:
        return _run_and_draw(self.sweep, self.out, self.processes, self.device, self.csv)


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
        return _run_and_draw(sweep, self.out, self.processes, self.device, csv=False)


def _run_and_draw(sweep: Sweep, out: Path, processes: int | None, device: str, csv: bool) -> int:
    if processes is not None and processes < 1:
        raise InputError("--processes must be at least 1")
    started = time.monotonic()
    sweep.run(out, processes=processes, device=device)
    page = report(out, csv=csv)
    for line in findings_of(out):
        print(f"- {line}")
    print(f"{page} (after {format_seconds(time.monotonic() - started)})")
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
