r"""``geomem audit``: a trained model, its images, and images it has not seen: a verdict."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from geomem.arguments import Whole
from geomem.cli.options import ComputeOptions, values_of
from geomem.cli.sweep import seconds_of
from geomem.compute.progress import format_seconds, say
from geomem.data.joined import PartsOptions
from geomem.errors import InputError
from geomem.findings.verdict import Verdict, said
from geomem.measure.probes import MeasureOptions
from geomem.models.doors.options import DoorOptions
from geomem.runs.audit import Audit
from geomem.runs.audited import AuditOptions
from geomem.runs.kinds import open_run
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.runs.run import Run
from geomem.show.page.report import report

Gate = Literal["geometric", "full"]
SEVERITY = {"geometric": 1, "full": 2}
EXIT_INCONCLUSIVE, EXIT_GATE = 3, 4


@dataclass(frozen=True)
class AuditCommand:
    r"""Say what a trained model has memorized of its images, and how sure that is.

    Examples:

      geomem audit --model runs/unet --data images/train --held-out images/test

      geomem audit --model lora --base base --data photos --held-out others
      --captions photos.csv others.csv --budget 30m

      geomem audit --model mine:denoiser --data train.npy --held-out test.npy
      --fail-on geometric

    Interrupted, the same command goes on where it stopped; so does
    `geomem audit RUN`, which also prints the verdict of a finished one again.

    Exit status with --fail-on: 0 below the gate, 4 at it, 3 inconclusive.
    """

    model: Annotated[AuditOptions, tyro.conf.OmitArgPrefixes]
    images: Annotated[PartsOptions, tyro.conf.OmitArgPrefixes]
    opening: Annotated[DoorOptions, tyro.conf.OmitArgPrefixes]
    measuring: Annotated[MeasureOptions, tyro.conf.OmitArgPrefixes]
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    seed: Annotated[int, Whole(least=0)] = 0
    """The seed of the choice of images, of the reference, of noise and samples."""
    out: Path = Path("runs/audit")
    """The run folder; an unfinished run of the same config is gone on with."""
    budget: str | None = None
    """Time for all of it on this machine, such as 10m: decides points, levels and training."""
    study: Path | None = None
    """A study.json of another audit, to measure the same images, levels and noise again."""
    fail_on: Gate | None = None
    """Leave with status 4 where the verdict is at least this bad, with 3 if inconclusive."""
    csv: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the tables of the page as CSV files, too."""

    def run(self) -> int:
        r"""Audits, draws, prints the verdict; returns the exit status."""
        options = values_of(self.model, self.images, self.opening, self.measuring)
        if self.study is not None:
            options["repeat"] = self.study
        audit = Audit(**options, seed=self.seed)
        if self.budget is not None:
            audit = self._planned(audit)
        return audit_and_draw(audit, self.out, self.computing, self.fail_on, self.csv)

    def _planned(self, audit: Audit) -> Audit:
        seconds = seconds_of(self.budget or "")
        if self.study is not None:
            raise InputError("pass `budget` or `study`, not both: a study is a plan already")
        if (self.out / "config.json").exists():  # begun before: with the plan of then
            there = open_run(self.out)
            if isinstance(there, Audit) and _same_but_planned(there, audit):
                return there
        planned = audit.within(seconds, self.computing.pace, self.computing.device)
        plan = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in planned.plan.items() if v)
        say(f"{self.budget} allow on this machine: {plan}".replace("[", "").replace("]", ""))
        return planned

    @classmethod
    def form_of(cls, rest: list[str]) -> type[AuditCommand] | type[ResumeAudit]:
        r"""The form that is meant: an audit described, or the folder of one named."""
        return ResumeAudit if rest and not rest[0].startswith("-") else cls


PLANNED = (
    *("points", "levels", "samples", "trajectories", "jacobian_points"),
    *("reference_steps", "controls"),
    *("data", "held_out", "reserved", "model", "base", "reference"),
)


def _same_but_planned(there: Audit, asked: Audit) -> bool:
    plain = {name: getattr(asked, name) for name in PLANNED}
    return replace(there, **plain) == asked


@dataclass(frozen=True)
class ResumeAudit:
    r"""Go on with the audit in a folder; of a finished one, print the verdict again.

    Example: geomem audit runs/audit --fail-on full
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of an audit."""
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    fail_on: Gate | None = None
    """Leave with status 4 where the verdict is at least this bad, with 3 if inconclusive."""
    csv: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the tables of the page as CSV files, too."""

    def run(self) -> int:
        r"""Goes on; returns the exit status."""
        run = open_run(self.run_folder)
        if run.kind != "audit":
            raise InputError(f"{self.run_folder} holds a {run.kind}; pass the folder of an audit")
        folder = RunFolder.open(self.run_folder)
        if folder.missing():
            return audit_and_draw(run, self.run_folder, self.computing, self.fail_on, self.csv)
        found = results(folder).verdict  # from the records alone: model and images may be gone
        page = report(self.run_folder, csv=self.csv)
        return _print(found, page, self.fail_on, "")


def audit_and_draw(
    run: Run, out: Path, computing: ComputeOptions, gate: Gate | None, csv: bool
) -> int:
    r"""Does an audit, draws its page, prints the verdict; returns the exit status."""
    started = time.monotonic()
    dataset = run.run(out, executor=computing.build(), device=computing.device)
    page = report(out, csv=csv)
    found = results(RunFolder.open(out), dataset).verdict
    return _print(found, page, gate, f" (after {format_seconds(time.monotonic() - started)})")


def _print(found: Verdict | None, page: Path, gate: Gate | None, took: str) -> int:
    if found is None:
        raise InputError(f"the audit {page.parent} has no record of its model; run it again")
    for line in said(found):
        print(f"- {line}")
    for line in found.limits:
        print(f"  {line}")
    print(f"{page}{took}")
    if gate is None:
        return 0
    if found.word == "inconclusive":
        return EXIT_INCONCLUSIVE
    return EXIT_GATE if found.severity >= SEVERITY[gate] else 0
