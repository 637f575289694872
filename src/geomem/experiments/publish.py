r"""Pages and figures, written from documents: today's, or those that a folder keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geomem.compute.files import atomic_write, atomic_write_text
from geomem.errors import InputError
from geomem.experiments.names import EXPERIMENTS, experiment
from geomem.experiments.page import list_of, page_of
from geomem.experiments.questions import questions_page

INCHES_TO_DOTS = 110


def publish(document: Mapping[str, Any], out: Path) -> Path:
    r"""Writes ``NAME.md`` and ``NAME.png`` of a document into a folder; returns the page."""
    name = document["name"]
    figure = experiment(name).draw(document)
    # Without the version of matplotlib in it the same document gives the same bytes.
    atomic_write(
        out / f"{name}.png",
        lambda path: figure.savefig(
            path, format="png", dpi=INCHES_TO_DOTS, metadata={"Software": None}
        ),
    )
    atomic_write_text(out / f"{name}.md", page_of(document))
    return out / f"{name}.md"


def made_in(folder: Path) -> dict[str, Any]:
    r"""By name of an experiment how its runs were made, from what stands beside its document."""
    return {
        path.stem.removesuffix("-made"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*-made.json"))
    }


def publish_all(folder: Path) -> list[Path]:
    r"""Writes the pages of all documents in a folder, ``index.md`` that lists them, and
    ``questions.md`` that asks them.

    Raises:
        InputError: If the folder holds none.
    """
    documents = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
        if path.stem in EXPERIMENTS
    ]
    if not documents:
        raise InputError(f"{folder} holds no document of an experiment; copy NAME.json into it")
    atomic_write_text(folder / "index.md", list_of(documents, made_in(folder)))
    atomic_write_text(folder / "questions.md", questions_page(documents))
    return [publish(document, folder) for document in documents]
