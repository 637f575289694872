r"""The recipes of docs/extend.md, as somebody would follow them: blocks run in their order.

A block that begins with ``# own_probe.py`` is written as that file where one works, one that
begins with ``# src/geomem/...`` becomes that module of geomem, ``geomem ...`` is typed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from geomem.cli.main import COMMANDS, run
from geomem.data.sets import NAMES
from geomem.runs.kinds import KINDS
from geomem.show.page import layout, payload, report

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extend.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", PAGE, flags=re.M)[1:]}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ((?:src/)?[\w/]+\.py)\n")


@dataclass
class Reader:
    r"""Somebody who follows the recipes, one after the other."""

    names: dict[str, object] = field(default_factory=dict)

    def follow(self, section: str) -> None:
        for language, text in BLOCK.findall(SECTIONS[section]):
            if language == "python":
                self.take(text)
            elif not language:
                for line in text.splitlines():
                    assert run(shlex.split(line)[1:]) == 0, line

    def take(self, text: str) -> None:
        file = FILE.match(text)
        if file is None:
            exec(compile(text, "docs/extend.md", "exec"), self.names)
        elif file.group(1).startswith("src/"):
            name = file.group(1).removeprefix("src/").removesuffix(".py").replace("/", ".")
            sys.modules[name] = ModuleType(name)
            exec(compile(text, name, "exec"), vars(sys.modules[name]))
        else:
            Path(file.group(1)).write_text(text)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    modules, path = dict(sys.modules), list(sys.path)
    tables = [(table, dict(table)) for table in (COMMANDS, NAMES, KINDS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        patch.syspath_prepend(".")
        example = ROOT / "examples" / "own_method.py"
        Path("own_method.py").write_text(example.read_text())
        yield Reader()
    for table, before in tables:
        table.clear()
        table.update(before)  # type: ignore[arg-type]
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if name.startswith(("own_", "geomem.cli.peaks", "geomem.show.figures.peaks")):
            del sys.modules[name]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_recipe_works(section: str, reader: Reader) -> None:
    reader.follow(section)


def test_the_figure_is_on_the_page(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The four edits of show/page/ that the recipe asks for, in a copy of it.
    blocks = BLOCK.findall(SECTIONS["A figure"])
    (function, entry), (section,) = (
        [text for language, text in blocks if language == wanted] for wanted in ("js", "jinja")
    )
    edits = {
        "charts.js": ("\nfunction mapFigure", f"\n{function}\nfunction mapFigure"),
        "page.js": ("const FIGURES = [", f"const FIGURES = [{entry.strip()} "),
        "page.html": ('<section aria-labelledby="t-numbers"', f"{section}\\g<0>"),
    }
    shutil.copytree(layout.HERE, tmp_path / "page")
    for name, (place, text) in edits.items():
        old = (layout.HERE / name).read_text()
        new = re.sub(re.escape(place), text, old, count=1)
        assert new != old, f"{name} has no {place!r}"
        (tmp_path / "page" / name).write_text(new)
    peaks = sys.modules["geomem.show.figures.peaks"].peaks
    before = payload.payload
    monkeypatch.setattr(layout, "HERE", tmp_path / "page")
    monkeypatch.setattr(
        report,
        "payload",
        lambda known: before(known) | {"peaks": payload.plain(peaks(known).level.values)},
    )
    html = report.report("runs/brightness").read_text()  # of the recipe of a probe
    assert '<div id="peaks" class="figure"' in html
    assert "function peaksFigure(page, state, width)" in html
    assert '<a href="#t-peaks">Peaks</a>' in html
    assert '"peaks": [[' in html or '"peaks":[[' in html


def test_each_recipe_is_in_the_table() -> None:
    listed = re.findall(r"^\| \[[^]]+\]\(#([^)]+)\)", PAGE, re.MULTILINE)
    assert listed == [name.lower().replace(" ", "-") for name in SECTIONS]


def test_files_of_the_page_are_the_examples() -> None:
    for language, text in BLOCK.findall(PAGE):
        file = FILE.match(text) if language == "python" else None
        example = ROOT / "examples" / (file.group(1) if file else "none")
        if file and example.is_file():
            code = text.partition("\n")[2]
            assert code[code.index("import") :].strip() in example.read_text(), example.name
