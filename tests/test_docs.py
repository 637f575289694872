r"""What the README and the docs show is run, quoted from files, and stands on its own."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [page for page in PAGES if page.name != "extend.md"]  # which tests/test_extend.py follows
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^geomem (\w+)", re.MULTILINE)


@pytest.mark.parametrize("page", RUN, ids=lambda p: p.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", RUN, ids=lambda p: p.name)
def test_commands_exist(page: Path) -> None:
    from geomem.cli.main import COMMANDS

    for name in COMMAND.findall(page.read_text()):
        assert name in COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


def test_every_public_name_is_there() -> None:
    import geomem

    for name in geomem.__all__:
        assert getattr(geomem, name) is not None, name
        assert name in dir(geomem)


# --- Numbers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quotes() -> Iterator[ModuleType]:
    folder = str(ROOT / "docs" / "figures")
    sys.path.insert(0, folder)
    try:
        import quotes  # type: ignore[import-not-found]

        yield quotes
    finally:
        sys.path.remove(folder)


def test_every_number_of_the_results_pages_is_what_its_file_says(quotes: ModuleType) -> None:
    wrong = [
        fault
        for page in quotes.sources.PAGES
        for fault in quotes.faults(page, (ROOT / "docs" / page).read_text())
    ]
    assert not wrong, "\n".join(wrong)


def test_a_number_that_differs_from_its_file_is_found_and_written_anew(quotes: ModuleType) -> None:
    page = "sphere.md"
    text = (ROOT / "docs" / page).read_text()
    for right, wrong in (
        (".828 ± .015<!--ratio-->", ".829 ± .015<!--ratio-->"),
        ("| 1.073 ± 0.015 |", "| 1.074 ± 0.015 |"),
        ("<!--ratio-->", ""),  # no file is named
        ("<!--ratio-->", "<!--ration-->"),  # no number is
    ):
        assert right in text
        assert quotes.faults(page, text.replace(right, wrong))
    changed = text.replace("| 1.073 ±", "| 1.074 ±").replace(".828 ±", ".829 ±")
    assert quotes.written(page, changed) == text


def test_a_number_without_a_file_is_found_unless_it_is_a_setting(quotes: ModuleType) -> None:
    assert quotes.unmarked("It kept .36 of it.") == [".36"]
    assert quotes.unmarked("It kept 3.2 ± .1 of 7.") == ["3.2 ± .1"]
    assert quotes.unmarked("At t = .1354 ± .0004 it fell.") != []
    assert quotes.unmarked("It kept .36<!--kept--> at σ = .1, `0.5`, $x^{.5}$, N = 50.") == []
    assert quotes.unmarked("Variances .09. <!-- given: .09 -->") == []


def test_the_page_of_results_is_what_its_file_says(quotes: ModuleType) -> None:
    import results  # type: ignore[import-not-found]

    sections = json.loads((ROOT / "docs/figures/results.json").read_text())
    assert results.page(sections) == (ROOT / "docs/results.md").read_text()


def test_numbers_of_the_origin_figure_have_no_grid() -> None:
    # Rounding to a grid is shared by all data sets, and no number of them averages it out.
    found = json.loads((ROOT / "docs/figures/theory-origin.json").read_text())["found"]
    level, stderr = found["population"]["settles_paper"]["level"]
    assert abs(level - 0.1337) < 4 * stderr < 0.0005


# --- Pages ----------------------------------------------------------------------------------

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=["'](?:https?:)?//[^"']*
    |<link\b[^>]*?\bhref=["'](?:https?:)?//[^"']*
    |url\(["']?(?:https?:)?//[^)]*
    |@import\s[^;]*//[^;]*""",
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def html() -> Path:
    # Built by ``make check``, without a warning: what takes half a minute is done once.
    built = ROOT / "docs" / "_build"
    if not (built / "index.html").exists():
        pytest.skip("the pages are not built: make docs")
    if (built / "index.html").stat().st_mtime < max(page.stat().st_mtime for page in PAGES):
        pytest.skip("the pages that are built are older than the docs: make docs")
    return built


def test_pages_load_nothing_from_another_host(html: Path) -> None:
    for path in html.rglob("*"):
        if path.suffix in (".html", ".css"):
            loaded = LOADED.findall(path.read_text(encoding="utf-8"))
            assert not loaded, (path.name, loaded)
    assert LOADED.search('<script async src="https://cdn.example/mathjax.js"></script>')
    assert LOADED.search('<link rel="stylesheet" href="//fonts.example/a.css">')


def test_formulas_are_there_without_a_script(html: Path) -> None:
    page = (html / "measure.html").read_text(encoding="utf-8")
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in page
    assert "mathjax.js" not in page.lower()
    assert "MathJax" not in page
    assert r"\langle" not in page


def test_a_formula_that_cannot_be_converted_stops_the_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import mathml  # type: ignore[import-not-found]
    from sphinx.errors import ExtensionError

    assert "<msup>" in mathml.formula(r"\sigma^2", "inline")
    with pytest.raises(ExtensionError, match="cannot say"):
        mathml.formula(r"\unheard x", "inline")


def glossary() -> dict[str, str]:
    text = (ROOT / "docs" / "glossary.md").read_text()
    return dict(re.findall(r"^([^\n:#]+)\n: ((?:.+\n?)(?:  .+\n?)*)", text, re.MULTILINE))


def test_the_glossary_has_each_word_of_the_page_in_one_sentence() -> None:
    words = glossary()
    assert len(words) > 40
    for word, meaning in words.items():
        sentence = re.sub(r"\[\]\([^)]*\)", "", meaning).strip()
        assert sentence.endswith("."), word
        assert len(sentence.split()) <= 45, word
    page = pytest.importorskip("geomem.show.page.glossary")
    assert not sorted(set(page.GLOSSARY) - set(words))


def test_the_page_of_records_names_all_that_a_run_holds(tmp_path: Path) -> None:
    import geomem

    sweep = geomem.Sweep(
        data="digits",  # which have classes, and spare images for a reference
        sizes=(16,),
        steps=10,
        levels=3,
        points=8,
        samples=8,
        dimension=("soft-count",),
        show_images=True,
    )
    dataset = sweep.run(tmp_path / "run", processes=1, quiet=True)
    geomem.report(tmp_path / "run")
    known = geomem.numbers(dataset, replicates=10)
    files = {p.name: json.loads(p.read_text()) for p in (tmp_path / "run").glob("*.json")}
    names = {str(name) for name in (*dataset.variables, *dataset.dims)}
    names |= {*files["study.json"], *files["study.json"]["data"]} - {"schema_version"}
    names |= {*files["summary.json"]}
    rows = {key for row in files["summary.json"]["subjects"] for key in row}
    rows |= {str(name) for name in (*known.data_vars, *known.dims)}
    assert {"look", "alike_p_value", "class_information", "auc"} <= {*names, *rows}
    names |= {re.sub(r"_(stderr|low|high)$", "", key) for key in rows}
    names |= {path.name + "/" * path.is_dir() for path in (tmp_path / "run").iterdir()}
    text = (ROOT / "docs" / "records.md").read_text()
    plain = {"name", "pool", "held_out", "reserved", "left_out", "unseen_copies_of"}
    plain |= {"axis_1", "axis_2"}  # as `axis_0`
    numbered = {"records/", "subjects/"}  # named with an example inside
    assert not [n for n in sorted(names - plain - numbered) if f"`{n}`" not in text]
    assert all(f"`{n}0000" in text for n in numbered)
