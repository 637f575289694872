r"""``geomem report``: redraw the page of a run from its records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

from geomem.errors import InputError
from geomem.findings.verdict import said
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.show.page.report import report


@dataclass(frozen=True)
class ReportCommand:
    r"""Redraw the page of a run from its records.

    Example: geomem report runs/demo --csv
    """

    run_folder: Annotated[Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of the run."""
    csv: FlagCreatePairsOff[bool] = False
    """Write the page's tables to tables/*.csv in that folder, too."""
    show_images: FlagCreatePairsOff[bool] = False
    """Show pixels of the data; as the run was configured if neither is given."""
    no_show_images: FlagCreatePairsOff[bool] = False
    """Leave pixels of the data out."""

    def run(self) -> Path:
        r"""Draws the page and prints its path."""
        if self.show_images and self.no_show_images:
            raise InputError("pass --show-images or --no-show-images, not both")
        asked = True if self.show_images else False if self.no_show_images else None
        path = report(self.run_folder, show_images=asked, csv=self.csv)
        folder = RunFolder.open(self.run_folder)
        found = results(folder).verdict if folder.config["kind"] == "audit" else None
        if found is not None:  # recomputed from the records
            print("\n".join(f"- {line}" for line in said(found)))
        print(path)
        return path
