r"""Writes the numbers of the results pages from the files that they were computed into.

    python docs/figures/quotes.py          writes them
    python docs/figures/quotes.py --check  lists those that differ from their file; exit status 1

A page names its source in marks that no reader sees:

- a number in the text is followed by its key: ``.578 ± .003<!--largest-->``;
- a table stands between ``<!-- table: levels -->`` and ``<!-- end of table -->``;
- ``<!-- given: .09 .0505 -->`` lists numbers that nothing measured: settings and definitions.

What a key means is the page's function in :mod:`sources`. Every other number with a decimal
point or an error is reported, except in code, formulas and settings such as "N = 50".
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import sources

DOCS = Path(__file__).parent.parent
MARKED = re.compile(r"([+\-−]?[\d.,]*\d(?:\n| )?(?:±(?:\n| )[\d.]+)?)<!--(\w+)-->")
TABLE = re.compile(r"(<!-- table: (\w+) -->\n+).*?(\n*<!-- end of table -->)", re.DOTALL)
GIVEN = re.compile(r"<!-- given: (.*?) -->", re.DOTALL)
# What is not prose: code, formulas, tables, links, comments; settings, "N = 50" or "k > 3".
APART = re.compile(
    r"^```.*?^```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|<!--.*?-->|\]\([^)]*\)"
    r"|[=<>]\s[\d.,]*\d(?![\d.]*\s±)|arXiv\s+[\d.]+",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.])\d*\.\d+(?:\s±\s[\d.]+)?")


def written(page: str, text: str) -> str:
    r"""The text of a page with every marked number and table as its file has it."""
    found = sources.of(page)

    def number(match: re.Match[str]) -> str:
        return f"{found.numbers[match[2]]}<!--{match[2]}-->"

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match[2]} -->\n\n{found.tables[match[2]]}\n<!-- end of table -->"

    return TABLE.sub(table, MARKED.sub(number, text))


def unmarked(text: str) -> list[str]:
    r"""Numbers of a page that name no source."""
    given = set(" ".join(GIVEN.findall(text)).split())
    text = MARKED.sub("", TABLE.sub("", text))
    return [n for n in NUMBER.findall(APART.sub(" ", text)) if n not in given]


def faults(page: str, text: str) -> list[str]:
    r"""What is wrong with the numbers of a page, in words."""
    found, wrong = sources.of(page), []
    for shown, key in MARKED.findall(text):
        known = found.numbers.get(key, "not in its file")
        if shown.replace("\n", " ") != known:
            wrong.append(f"{page}: {shown} ({key}) is {known}")
    for _, key, _ in TABLE.findall(text):
        if key not in found.tables:
            wrong.append(f"{page}: there is no table {key}")
    wrong += [f"{page}: no file is named for {n}" for n in unmarked(text)]
    keys = {key for _, key in MARKED.findall(text)} | {m[1] for m in TABLE.findall(text)}
    unused = sorted((found.numbers.keys() | found.tables.keys()) - keys)
    wrong += [f"{page}: {key} is computed and not quoted" for key in unused]
    if not wrong and written(page, text) != text:
        wrong.append(f"{page}: a table differs from its file")
    return wrong


def main() -> None:
    check = "--check" in sys.argv[1:]
    wrong = []
    for page in sources.PAGES:
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        if not check:
            path.write_text(text := written(page, text), encoding="utf-8")
        wrong += faults(page, text)
    print("\n".join(wrong) or json.dumps({"pages": list(sources.PAGES)}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
