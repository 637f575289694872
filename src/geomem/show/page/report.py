r"""The page of a run: one file that opens from disk, drawn from the records alone.

``report(run)`` reads config, design, records and provenance of a run folder and writes
``report.html`` beside them. Nothing is measured or loaded from anywhere; a run that is not
finished gives a page that says so and shows what there is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from markupsafe import Markup

from geomem import __version__
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import format_seconds
from geomem.errors import InputError
from geomem.findings.numbers import numbers
from geomem.findings.sentences import sentences
from geomem.runs.records import RunFolder, load
from geomem.show.figures.views import gap_margins, words
from geomem.show.page.explain import about, errors, explain, source_of_dimension, window
from geomem.show.page.gallery import galleries
from geomem.show.page.headlines import headlines, unbroken
from geomem.show.page.payload import payload
from geomem.show.page.tables import table, write_csv

HERE = Path(__file__).parent
PIXELS = ("training_image", "nearest_image")


def report(run: str | Path, *, show_images: bool | None = None, csv: bool = False) -> Path:
    r"""Draws the page of a run from its records.

    Arguments:
        run: The run folder.
        show_images: Whether pixels of the data are shown; what the run's config says if not
            given.
        csv: Whether to write the page's tables to ``tables/*.csv``, too.

    Returns:
        The path of the page, ``report.html`` in the run folder.

    Raises:
        InputError: If the folder holds no run, or pixels are asked for that no record holds.
    """
    folder, dataset = RunFolder.open(Path(run)), load(run)
    images = _show_images(folder, dataset, show_images)
    known, notice = _numbers(dataset)
    page = Page(folder, dataset, known, notice, images)
    path = folder.path / "report.html"
    atomic_write_text(path, page.html())
    if csv and known is not None:
        write_csv(folder.path / "tables", dataset, known)
    return path


def _show_images(folder: RunFolder, dataset: xr.Dataset, asked: bool | None) -> bool:
    if asked and not any(name in dataset for name in PIXELS):
        raise InputError(
            f"the records of {folder.path} hold no pixels of the data; run it again with "
            "--show-images into a new folder, or draw the page with --no-show-images"
        )
    return bool(folder.config.get("show_images", False)) if asked is None else asked


def _numbers(dataset: xr.Dataset) -> tuple[xr.Dataset | None, str]:
    # What there is, and what has to be said about it.
    done, planned = dataset.attrs["units_done"], dataset.attrs["units_planned"]
    state = f"This run is not finished: {done} of {planned} units of work are done."
    try:
        known = numbers(dataset)
    except InputError as error:
        return None, f"{state} There is nothing to draw yet: {error}."
    known = known.merge(gap_margins(dataset, known), combine_attrs="override")
    sizes = ", ".join(str(n) for n in known.num_samples.values)
    partly = f"{state} The page shows the networks that are: N = {sizes}."
    if dataset.attrs["control"] == "linear":
        partly += (
            " Their numbers will change: the best network of the run sets the control's scale."
        )
    partly += " Run the same command again."
    return known, "" if done == planned else partly


@dataclass(frozen=True, eq=False)
class Page:
    r"""A page, before it is written.

    Attributes:
        folder: The run.
        dataset: Its records.
        known: Their numbers; None if there are not enough of them.
        notice: What has to be said about an unfinished run.
        show_images: Whether pixels of the data are shown.
    """

    folder: RunFolder
    dataset: xr.Dataset
    known: xr.Dataset | None
    notice: str
    show_images: bool

    def html(self) -> str:
        r"""The page. All that comes from the run is escaped."""
        loader = jinja2.FileSystemLoader(HERE)
        environment = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
        )
        return environment.get_template("page.html").render(self._common() | self._figures())

    def _common(self) -> dict[str, Any]:
        design = self.folder.design
        return {
            "version": __version__,
            "title": f"{design['data']['name']}: nothing measured yet",
            "run": self.folder.path.resolve().name,
            "data": design["data"],
            "about": about(self.dataset, design),
            "notice": self.notice,
            "findings": [],
            "known": False,
            "facts": facts(self.folder, self.known),
            "config": json.dumps(self.folder.config, indent=1, sort_keys=True),
            "css": _own("page.css"),
        }

    def _figures(self) -> dict[str, Any]:
        if self.known is None:
            return {}
        drawn, titles = payload(self.known), headlines(self.known)
        quantum = float(self.folder.design["data"].get("quantum", 0))
        return {
            "title": titles.signature,
            "known": True,
            "findings": [unbroken(sentence) for sentence in sentences(self.known)],
            "errors": errors(self.known),
            "headlines": titles,
            "explain": explain(self.dataset, self.known, show_images=self.show_images),
            "words": self._words(self.known),
            "sizes": drawn["sizes"],
            "colours": drawn["colours"],
            "galleries": galleries(
                self.dataset, self.known, quantum=quantum, show_images=self.show_images
            ),
            "table": table(self.known),
            "numbers": drawn,
            "plotly": _plotly(),
            "charts_js": _own("charts.js"),
            "page_js": _own("page.js"),
        }

    def _words(self, known: xr.Dataset) -> dict[str, str]:
        return {
            "density": words(known, "density").name,
            "gap": words(known, "gap").name,
            "source": source_of_dimension(self.dataset),
        }


def facts(folder: RunFolder, known: xr.Dataset | None) -> list[tuple[str, str]]:
    r"""What was run, as pairs of name and value."""
    config, design = folder.config, folder.design
    seeds = ", ".join(map(str, config.get("seeds", [])))
    found = [
        ("Data", f"{design['data']['name']}, sha256 {design['data']['digest']}"),
        ("Seed", f"{config.get('seed', 'not recorded')}; of the training: {seeds}"),
        ("Measured", _measured(folder)),
    ]
    if known is not None:
        found += [("Window", window(known)), ("Identity check", _identity(known))]
    return found + _sessions(folder.path / "provenance.json")


def _measured(folder: RunFolder) -> str:
    design, draws = folder.design, folder.config.get("draws", "?")
    counts = {at: len(points) for at, points in design["points"].items()}
    return (
        f"{len(design['sigmas'])} noise levels; up to {counts.get('training', 0)} training and "
        f"{counts.get('held_out', 0)} held-out images, {draws} draws of noise each"
    )


def _identity(known: xr.Dataset) -> str:
    z = np.abs(known.identity_z.values)
    if not np.isfinite(z).any():
        return "not made: it needs the Jacobian"
    largest = float(np.nanmax(z))
    said = "passed" if largest <= 4 else "FAILED: schedule, code or model is at fault"
    return f"largest |z| = {largest:.1f}, at most 4 is allowed: {said}"


def _sessions(path: Path) -> list[tuple[str, str]]:
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        last = sessions[-1]
        versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
        seconds = sum(float(s["seconds"]) for s in sessions)
        time = f"{format_seconds(seconds)}, started {sessions[0]['started']}"
        time += f", in {len(sessions)} sessions" if len(sessions) > 1 else ""
        machine = f"{last['machine']}, {last['device']}, Python {last['python']}"
        return [
            ("Command", str(last["command"])),
            ("Time", time),
            ("Versions", versions),
            ("Machine", machine),
        ]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return [("Command, time, versions", "not recorded: the run has not ended yet")]


def _own(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
