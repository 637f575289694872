r"""``geomem demo``: the main job on real data."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from geomem.arguments import Whole
from geomem.cli.options import ComputeOptions
from geomem.cli.sweep import run_and_draw, same_run
from geomem.compute.progress import say
from geomem.runs.sweep import Sweep


@dataclass(frozen=True)
class DemoCommand:
    r"""The main job on real data: a sweep over scikit-learn's digits, in about 3 minutes.

    Trains four small denoisers on 32, 128, 512 and 1,297 of the 1,797 bundled images, measures
    them, and ends with a page. An older demo of another config is moved aside.
    """

    out: Path = Path("runs/demo")
    """The run folder."""
    steps: Annotated[int, Whole(least=1)] = 6000
    """Training steps of each network."""
    processes: Annotated[int, Whole(least=1)] | None = None
    """How many processes work at a time; one a core if not given."""
    device: str = "cpu"
    """Where networks are trained and measured."""
    sizes: tuple[Annotated[int, Whole(least=2)], ...] = field(default=(32, 128, 512, 1297))
    """Training-set sizes N."""

    def run(self) -> int:
        r"""Runs the demo; returns the exit status."""
        sweep = Sweep("digits", sizes=self.sizes, steps=self.steps, show_images=True)
        computing = ComputeOptions(self.processes, device=self.device)
        if (self.out / "config.json").exists() and not same_run(self.out, sweep):
            beside = (self.out.with_name(f"{self.out.name}.{k}") for k in range(1, 10**6))
            aside = next(path for path in beside if not path.exists())
            shutil.move(self.out, aside)
            say(f"{self.out} held a run of another config; it is now {aside}")
        return run_and_draw(sweep, self.out, computing)
