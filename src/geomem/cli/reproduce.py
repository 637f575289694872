r"""``geomem reproduce``: the paper's experiments, run and judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from geomem.cli.options import ComputeOptions
from geomem.cli.output import print_table
from geomem.compute.progress import say
from geomem.experiments.experiment import Scale, judged, reproduce
from geomem.experiments.names import EXPERIMENTS, experiment
from geomem.experiments.publish import publish


@dataclass(frozen=True)
class ReproduceCommand:
    r"""Run one of the paper's experiments and judge it: claim, numbers with errors, verdict.

    Without a name the experiments are listed. Interrupted, the same command goes on where it
    stopped and ends with the same page; experiments of one folder share their trainings.
    Experiments on images take any set.

    Examples:

      geomem reproduce

      geomem reproduce linear-panel

      geomem reproduce images-dimension --data mnist FOLDER

      geomem reproduce linear-subspaces --scale gpu --device cuda
    """

    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")] = ""
    """The experiment."""
    scale: Scale = "cpu"
    """cpu: within 45 minutes on two cores; gpu: the paper's own sizes."""
    data: tuple[str, ...] = ()
    """Of an experiment on images: the sets, as `geomem sweep --data` takes them; the four sets
    that the page names if not given."""
    as_it_is: bool = False
    """Judge the records that are there, and run nothing: of a queue that others fill."""
    out: Path | None = None
    """The folder of all experiments of a scale; runs/reproduce-cpu if not given."""

    def run(self) -> int:
        r"""Runs and judges an experiment, or lists all; returns the exit status."""
        if not self.name:
            rows = [[name, experiment(name).title, experiment(name).claim] for name in EXPERIMENTS]
            return print_table(["experiment", "what", "what should be seen"], rows)
        chosen = experiment(self.name, self.data)
        out = Path("runs") / f"reproduce-{self.scale}" if self.out is None else self.out
        if self.as_it_is:
            document = judged(chosen, out, self.scale)
        else:
            executor, device = self.computing.build(), self.computing.device
            document = reproduce(chosen, out, self.scale, executor, device)
        for table in document["tables"]:
            print_table(table["head"], table["rows"], table["title"])
        print(f"- {document['verdict']}: {document['why']}")
        say(str(publish(document, out)))
        return 0
