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
    ]
    return "\n\n".join(parts) + "\n"


def list_of(documents: Iterable[Document], made: Mapping[str, Sequence[str]]) -> str:
    r"""The page that lists experiments with their verdicts, and links to each.

    Arguments:
        documents: The experiments.
        made: By name of an experiment how its runs were made, as far as that is known.
    """
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
        *_made({run for d in known for run in made.get(d["name"], ())}),
    ]
    return "\n\n".join(parts) + "\n"


def _made(runs: Iterable[str]) -> list[str]:
    lines = [f"- {run}" for run in sorted(runs)]
    if not lines:
        return []
    said = "Folders of runs, and the sessions in them that came to their end:"
    return ["## With what, where and for how long", said, "\n".join(lines)]


def _table(table: Mapping[str, Any]) -> tuple[str, str]:
    return f"**{table['title']}**", _grid(table["head"], table["rows"])


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
