r"""The page of an experiment and the list of all, written from documents alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]


def page_of(document: Document) -> str:
    r"""The page as Markdown; its figure is ``NAME.png`` beside it."""
    name = document["name"]
    parts = [
        f"# {document['title']}",
        f"Written by `geomem reproduce {name} --scale {document['scale']}` from its records; "
        "no number was typed.",
        f"**The claim.** “{document['quote']}” ({document['source']}.) {document['claim']}",
        f"**What was run.** {' '.join(document['ran'])}",
        f"**Verdict: {document['verdict']}.** {document['why']}",
        f"![{document['title']}]({name}.png)",
        *(part for table in document["tables"] for part in _table(table)),
        f"**What this scale cannot decide.** {document['limits']}",
        *_made(document),
    ]
    return "\n\n".join(parts) + "\n"


def _made(document: Document) -> list[str]:
    runs = document.get("made")
    if not runs:
        return []
    of = document.get("geomem", "")
    return [f"**Made**, counting sessions that came to their end, with geomem {of}: "
            f"{'; '.join(runs)}."]  # fmt: skip


def list_of(documents: Iterable[Document]) -> str:
    r"""The page that lists experiments with their verdicts, and links to each."""
    known = sorted(documents, key=lambda d: d["name"])
    rows = [[f"[{d['title']}]({d['name']}.md)", f"**{d['verdict']}**", d["why"]] for d in known]
    parts = [
        "# The paper's experiments",
        "What the authors report, run again with errors and controls, and judged by a rule that "
        "stands in the source of each experiment (`src/geomem/experiments`). Each page is made "
        "again by its command. What reviewers asked is answered in [](questions.md); numbers of "
        "other papers stand beside ours in [](../published.md).",
        _grid(["experiment", "verdict", "why"], rows),
        "```{toctree}\n:hidden:\n\n"
        + "\n".join(["questions", *(d["name"] for d in known)])
        + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: Mapping[str, Any]) -> tuple[str, str]:
    return f"**{table['title']}**", _grid(table["head"], table["rows"])


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
