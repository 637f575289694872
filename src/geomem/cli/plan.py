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
from geomem.findings.plan_sentences import cell, findings, headline, size_text
from geomem.runs.plan import Plan
from geomem.show.page.report import report
from geomem.theory.planning import KEPT


@dataclass(frozen=True)
class PlanCommand:
    r"""How many images? Predicted from the images alone, before any training.

    For each principal direction and noise level: the number of images N at which a model that
    memorizes exactly, the worst case, would still keep 50 % and 90 % of it. Also the noise level
    at which a set of N images collapses, and near-duplicates. Writes plan.html and plan.json.

    Examples:

      geomem plan --data digits

      geomem plan --data photos/ --sizes 500 5000 50000 --out runs/photos-plan

    Interrupted, the same command goes on where it stopped.
    """

    planning: Annotated[Plan, tyro.conf.OmitArgPrefixes]
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    out: Path = Path("runs/plan")
    """The run folder, with plan.html and plan.json; an unfinished plan is gone on with."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the JSON document instead of tables."""

    def run(self) -> int:
        r"""Plans, draws the page, prints what was found; returns the exit status."""
        started = time.monotonic()
        check_writable(self.out, folder=True)
        executor, device = self.computing.build(), self.computing.device
        self.planning.run(self.out, executor=executor, device=device)
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
    print(headline(document))
    for line in findings(document):
        print(f"- {line}")
    levels = document["sigmas_relative"]
    for kept in KEPT:
        rows = [
            [str(k + 1), *(cell(document, kept, i, k) for i in range(len(levels)))]
            for k in range(len(document["direction_variances"]))
        ]
        head = ["", *(f"{s:.2g}" for s in levels)]
        print_table(head, rows, f"N that keeps {100 * kept:.0f} %, by direction and level in rms")
    print(size_text(document))
