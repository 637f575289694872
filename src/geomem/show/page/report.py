r"""The page of a run: one file that opens from disk, drawn from records and findings alone.

``report(run)`` reads config, study, records, findings and provenance of a run folder and writes
``report.html`` beside them. Nothing is measured or loaded from anywhere; a run that is not
finished gives a page that says so and shows what there is.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import xarray as xr
from markupsafe import Markup

from geomem.arguments import checked
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import format_seconds
from geomem.errors import InputError
from geomem.findings.sentences import ALLOWED_Z, faults, largest_identity_z, sentences, window
from geomem.runs.load import load
from geomem.runs.provenance import sessions
from geomem.runs.records import RunFolder
from geomem.runs.results import Results, results
from geomem.show.figures.data import PLACES, has, words
from geomem.show.page.audit import audit_content, without_pictures
from geomem.show.page.csv_tables import write_csv
from geomem.show.page.explain import about, errors, explain, source_of_dimension
from geomem.show.page.gallery import galleries
from geomem.show.page.headlines import control_name, headlines, unbroken
from geomem.show.page.inside import inside_sections
from geomem.show.page.layout import render
from geomem.show.page.payload import payload
from geomem.show.page.plan import plan_report
from geomem.show.page.sections import sections
from geomem.show.page.spectrum import spectrum_report
from geomem.show.page.tables import table

PIXELS = ("training_image", "nearest_image")
# Of kinds of run that have a page of their own.
PAGES = {"plan": plan_report, "spectrum": spectrum_report}


@checked
def report(run: str | Path, *, show_images: bool | None = None, csv: bool = False) -> Path:
    r"""Draws the page of a run from its records.

    Arguments:
        run: The run folder.
        show_images: Whether pixels of the data are shown; what the run's config says if not
            given.
        csv: Whether to write the page's numbers to ``tables/*.csv``, too.

    Returns:
        The path of the page: ``report.html`` in the run folder, ``plan.html`` of a plan.

    Raises:
        InputError: If the folder holds no run, or pixels are asked for that no record holds.
    """
    folder = RunFolder.open(Path(run))
    if folder.config["kind"] in PAGES:
        return PAGES[folder.config["kind"]](folder, show_images)
    found = results(folder, load(folder.path))
    if show_images and not any(name in found.dataset for name in PIXELS):
        raise InputError(
            f"`show_images` is asked for, and the records of {folder.path} hold no pixels of the "
            "data; draw the page without them, or do the run again in a new folder with "
            "`show_images`"
        )
    images = bool(folder.config.get("show_images", False)) if show_images is None else show_images
    path = folder.path / "report.html"
    html = page_html(folder, found, show_images=images)
    atomic_write_text(path, html, inside=folder.path, private=True)
    if csv and found.numbers is not None:
        write_csv(folder.path / "tables", found.dataset, found.numbers)
    return path


def page_html(folder: RunFolder, found: Results, *, show_images: bool) -> str:
    r"""The page, before it is written.

    Arguments:
        folder: The run.
        found: Its results.
        show_images: Whether pixels of the data are shown.
    """
    dataset, known, name = found.dataset, found.numbers, folder.path.resolve().name
    if folder.config["kind"] == "audit" and not show_images:
        dataset = without_pictures(dataset)
    content: dict[str, Any] = {
        "file": f"geomem-{name}",
        "title": f"{folder.study['data']['name']}: nothing measured yet",
        "run": name,
        "data": folder.study["data"],
        "about": about(dataset, folder.study),
        "notice": _notice(found),
        "known": known is not None,
        "fault": "",
        "findings": [],
        "facts": facts(folder, known),
        "config": json.dumps(folder.config, indent=1, sort_keys=True),
    }
    if known is not None:
        from plotly.offline import get_plotlyjs

        titles, drawn = headlines(known), payload(known)
        content |= {
            "title": titles.page,
            "fault": " ".join(faults(known)),
            "findings": [unbroken(said) for said in sentences(known) if said not in faults(known)],
            "errors": errors(known),
            "headlines": titles,
            "explain": explain(dataset, known, folder.study, show_images=show_images),
            "density": words(known, "density").name if has(known, "density") else "",
            "gap": words(known, "gap").name if has(known, "gap") else "",
            "source": source_of_dimension(dataset),
            "galleries": galleries(dataset, known, folder.study, show_images=show_images),
            "sections": [*sections(known, folder.study), *inside_sections(known)],
            "control": control_name(known),
            "table": table(known),
            "numbers": drawn,
            "colours": drawn["colours"],
            "plotly": Markup(get_plotlyjs()),
        }
        if folder.config["kind"] == "audit":
            content |= audit_content(folder, found.dataset, known, show_images=show_images)
    return render("audit.html" if "verdict" in content else "page.html", content)


def _notice(found: Results) -> str:
    # What has to be said about an unfinished run.
    done, planned = (found.dataset.attrs[f"subjects_{k}"] for k in ("done", "planned"))
    state = "" if done == planned else f"This run is not finished: {done} of {planned} subjects "
    state += "are measured." if state else ""
    if found.numbers is None:
        return f"{state} There is nothing to draw yet: {found.reason}.".strip()
    if not state:
        return ""
    if found.dataset.attrs["control"] == "linear":
        state += " The numbers will change: the best network of the run sets the control's scale."
    return f"{state} Run the same command again to go on."


def facts(folder: RunFolder, known: xr.Dataset | None) -> list[tuple[str, str]]:
    r"""What was run, as pairs of name and value."""
    study, data = folder.study, folder.study["data"]
    digest = f", sha256 {data['digest']}" if data.get("digest") else ""
    counts = [f"{len(index)} {PLACES.get(at, at)}" for at, index in study["points"].items()]
    kinds = Counter(subject.kind for subject in folder.subjects)
    found = [
        ("Data", f"{data['name']}{digest}"),
        ("Subjects", ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none yet"),
        (
            "Measured",
            f"{len(study['sigmas'])} noise levels; up to {', '.join(counts)}; {study['draws']} "
            f"draws of noise each, seed {study['seed']}",
        ),
    ]
    if known is not None:
        z = largest_identity_z(known)
        state = "FAILED" if z > ALLOWED_Z else "passed"
        checked = f"{state}: largest |z| = {z:.1f}, at most {ALLOWED_Z:g} is allowed"
        found += [
            ("Window", window(known)),
            (
                "Identity check",
                checked if z == z else "not made: it needs the Jacobian of a network",
            ),
        ]
    return found + _sessions(folder.path)


def _sessions(run: Path) -> list[tuple[str, str]]:
    missing = [("Command, time, versions", "not recorded: the run has not ended yet")]
    try:
        done = sessions(run)
        if not done:
            return missing
        last = done[-1]
        versions = ", ".join(f"{k} {v}" for k, v in last["versions"].items())
        seconds = sum(float(s["seconds"]) for s in done)
        time = f"{format_seconds(seconds)}, started {done[0]['started']}"
        time += f", in {len(done)} sessions" if len(done) > 1 else ""
        ranks = int(last.get("ranks", 1))
        device = f"{last['device']} on {ranks} ranks" if ranks > 1 else str(last["device"])
        return [
            ("Command", str(last["command"])),
            ("Time", time),
            ("Versions", versions),
            ("Machine", f"{last['machine']}, {device}, Python {last['python']}"),
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return missing
