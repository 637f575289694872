r"""``geomem plan``: how many images would it take, predicted before any training."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from geomem.cli.options import ComputeOptions
from geomem.cli.output import print_table
from geomem.compute.files import check_writable
from geomem.compute.progress import format_seconds, say
from geomem.errors import InputError
from geomem.findings.pilot_sentences import tables
from geomem.findings.plan_sentences import cell, size_text
from geomem.runs.pilot import PilotOptions
from geomem.runs.plan import Plan
from geomem.runs.planned import PILOT, said, write_plan
from geomem.runs.records import RunFolder
from geomem.show.page.report import report
from geomem.theory.planning import KEPT


@dataclass(frozen=True)
class PlanCommand:
    r"""How many images? Predicted from the images alone, before any training.

    For each principal direction and noise level: the number of images N at which a model that
    memorizes exactly, the worst case, would still keep 50 % and 90 % of it. Also the noise level
    at which a set of N images collapses, and near-duplicates. With --pilot, short trainings
    of your own kind of network on few images predict what a long one on many memorizes, when
    to stop and how many images are enough. Writes plan.html and plan.json.

    Examples:

      geomem plan --data digits

      geomem plan --data photos/ --sizes 500 5000 50000 --out runs/photos-plan

      geomem plan --data fashion-mnist --pilot --network unet --steps 6000

    Interrupted, the same command goes on where it stopped.
    """

    planning: Annotated[Plan, tyro.conf.OmitArgPrefixes]
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    training: Annotated[PilotOptions, tyro.conf.OmitArgPrefixes]
    pilot: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train a pilot, too, in the folder pilot of the run; its time is forecast before."""
    out: Path = Path("runs/plan")
    """The run folder, with plan.html and plan.json; an unfinished plan is gone on with."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the JSON document instead of tables."""

    def run(self) -> int:
        r"""Plans, draws the page, prints what was found; returns the exit status."""
        started = time.monotonic()
        check_writable(self.out, folder=True)
        executor, device = self.computing.build(), self.computing.device
        if self.pilot:
            pilot = self.training.pilot(self.planning, self.planning.seed)
            pilot.study()  # refuses what cannot be trained, before anything is begun
        elif self.training != PilotOptions():
            raise InputError("a training is described, and no pilot asked for; pass `pilot`, too")
        self.planning.run(self.out, executor=executor, device=device)
        if self.pilot:
            pilot.run(self.out / PILOT, executor=executor, device=device)
            write_plan(RunFolder.open(self.out))
        page = report(self.out)
        text = (self.out / "plan.json").read_text(encoding="utf-8")
        if self.json:
            print(text, end="")
        else:
            _print(json.loads(text))
        took = format_seconds(time.monotonic() - started)
        say(f"{page} and plan.json (after {took})")
        return 0


def _print(document: dict[str, Any]) -> None:
    first, more = said(document)
    print(first)
    for line in more:
        print(f"- {line}")
    if "pilot" in document:
        for title, head, rows in tables(document["pilot"]):
            print_table(head, rows, title)
    levels = document["sigmas_relative"]
    for kept in KEPT:
        rows = [
            [str(k + 1), *(cell(document, kept, i, k) for i in range(len(levels)))]
            for k in range(len(document["direction_variances"]))
        ]
        head = ["", *(f"{s:.2g}" for s in levels)]
        print_table(head, rows, f"N that keeps {100 * kept:.0f} %, by direction and level in rms")
    print(size_text(document))
