r"""What a plan says, from its records and those of its pilot, where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geomem.compute.files import atomic_write_text
from geomem.errors import InputError
from geomem.findings.pilot import MOST, pilot_document, pilot_of
from geomem.findings.pilot_sentences import pilot_findings, pilot_headline
from geomem.findings.plan import plan_document, plan_text, rounded
from geomem.findings.plan_sentences import findings, headline
from geomem.runs.load import load
from geomem.runs.records import RunFolder, json_text

PILOT = "pilot"  # the folder of the pilot in that of its plan


def planned(folder: RunFolder) -> dict[str, Any]:
    r"""The document of ``plan.json``; with ``pilot`` where a finished one lies beside it.

    Arguments:
        folder: The run of the plan.
    """
    document = plan_document(folder.study, [record for _, record in folder.records()])
    path = folder.path / PILOT
    if not (path / "config.json").exists():
        return document
    pilot = RunFolder.open(path)
    if pilot.study["data"]["digest"] != folder.study["data"]["digest"]:
        raise InputError(f"{path} is a pilot of other data; plan in another folder")
    if pilot.missing():
        return document  # interrupted: the plan says what it knows
    sizes = [int(n) for n in (*document["sizes"], *document["sizes_beyond"])]
    most = float(pilot.config.get("most") or MOST)
    found = pilot_document(pilot_of(load(path), pilot.study), pilot.study["recipe"], sizes, most)
    return document | {"pilot": rounded(found)}


def said(document: Mapping[str, Any]) -> tuple[str, list[str]]:
    r"""The one sentence of a plan, and what else was found."""
    if "pilot" not in document:
        return headline(document), findings(document)
    return pilot_headline(document), [
        *pilot_findings(document["pilot"]),
        f"From the images alone, {headline(document)}.",
        *findings(document),
    ]


def write_plan(folder: RunFolder) -> dict[str, Any]:
    r"""Writes ``plan.json`` and ``summary.json`` of a plan, and returns the former.

    Arguments:
        folder: The run of the plan, with all its records.
    """
    document = planned(folder)
    first, more = said(document)
    summary = {
        "schema_version": 2,
        "kind": folder.config["kind"],
        "data": folder.study["data"]["name"],
        "headline": first,
        "findings": more,
    }
    if "pilot" in document:
        summary["pilot"] = document["pilot"]["answer"]
    texts = {"plan.json": plan_text(document), "summary.json": json_text(summary)}
    for name, text in texts.items():
        atomic_write_text(folder.path / name, text, inside=folder.path, private=True)
    return document
