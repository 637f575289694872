r"""The house: a module imports only from floors above it, and nowhere is a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from pathlib import Path

import pytest

import geomem

SOURCE = Path(__file__).parent.parent / "src" / "geomem"
FIRST = (
    "errors arguments compute stats noise denoiser modules checks operators spectra exact "
    "manifolds dimension subspaces tangents information likelihood data"
).split()
FLOORS = ["theory", "models", "measure", "findings", "runs", "monitor", "show", "experiments"]
TOP = ["testing", "cli", "__main__"]
ORDER = [*FIRST, *FLOORS, *TOP]


# Modules named in texts are links, too, but for those that are looked up late, for a reason.
LATE = {
    "geomem.runs.kinds": "the table of kinds of run is read when a folder is opened",
    "geomem.dimension.names": "methods by name are imported when they are named",
}
NAMED = re.compile(r"^geomem(\.\w+)+(?=:\w+$)")


def name_of(path: Path) -> str:
    return ".".join([*path.relative_to(SOURCE.parent).parts[:-1], path.stem]).removesuffix(
        ".__init__"
    )


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def graph(late: Collection[str] = tuple(LATE)) -> dict[str, set[str]]:
    r"""The modules that each module names."""
    return {k: links(path.read_text(), late=k in late) for k, path in MODULES.items()}


def links(text: str, *, late: bool = False) -> set[str]:
    r"""The modules of geomem that a text names: at its top or in a function, for types or not."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"write out the module's name in line {node.lineno}"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if node.module == "geomem" and alias.name in geomem._MODULE_OF:
                    inner = f"geomem.{geomem._MODULE_OF[alias.name]}"
                found.add(inner if inner in MODULES else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = NAMED.match(node.value)
            found |= {named.group()} if named and not late else set()
    return {name for name in found if name in MODULES and name != "geomem"}  # its version alone


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_stands_above_it(name: str) -> None:
    here = name.partition(".")[2].partition(".")[0]
    if not here:
        return  # the lazy front door names everything
    assert here in ORDER, f"{here} has no place in the house: add it to this list"
    for other in {
        link.split(".")[1] for link in links(MODULES[name].read_text(), late=name in LATE)
    } - {here}:
        assert ORDER.index(other) < ORDER.index(here), f"{name} must not import {other}"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    r"""Sets of modules each of which leads to all others of its set."""
    reach = {name: set(others) for name, others in graph.items()}
    grown = True
    while grown:
        grown = False
        for others in reach.values():
            more = set().union(*(reach.get(o, set()) for o in others)) - others
            others |= more
            grown |= bool(more)
    found = {
        tuple(sorted(o for o in others if name in reach.get(o, ())))
        for name, others in reach.items()
        if name in others
    }
    return sorted(map(list, found))


def test_no_circle_anywhere() -> None:
    assert circles(graph()) == []


def test_a_circle_is_found_however_it_is_hidden() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    hidden = {
        "if TYPE_CHECKING:\n    from geomem.runs.jobs import Task": "geomem.runs.jobs",
        "def later():\n    import geomem.runs.jobs": "geomem.runs.jobs",
        "from geomem.runs import jobs": "geomem.runs.jobs",
        "from geomem import Sweep": "geomem.runs.sweep",
        "where = 'geomem.runs.sweep:Sweep'": "geomem.runs.sweep",
    }
    for text, name in hidden.items():
        assert links(text) == {name}, text


@pytest.mark.parametrize("name", LATE)
def test_what_is_looked_up_late_would_be_a_circle(name: str) -> None:
    assert any(name in circle for circle in circles(graph(set(LATE) - {name})))


# Inside a package of the first floor the same holds.
INSIDE = {
    "compute": (
        "threads products owner files claims memory progress signals executor local ray devices "
        "ranks"
    ),
    "operators": "linear jacobian",
    "spectra": "measures krylov lanczos randomized traces choice",
    "exact": (
        "gaussian twofold blocks posterior one_pass cost passes neighbours paths covariance "
        "queries empirical mixture patches local"
    ),
    "manifolds": "linear quadrature curved charts squiggles balls shapes",
    "dimension": (
        "gaps ritz answers seeds differences counts scores local plateau from_points names"
    ),
    "data": (
        "reading arrays framing captions pictures folders shards tables sets images splits "
        "joined source"
    ),
}


@pytest.mark.parametrize("package", INSIDE)
def test_a_package_is_read_from_its_first_module_on(package: str) -> None:
    order = INSIDE[package].split()
    assert {p.stem for p in (SOURCE / package).glob("*.py")} == {*order, "__init__"}
    for k, module in enumerate(order):
        text = (SOURCE / package / f"{module}.py").read_text()
        later = [m for m in order[k:] if f"from geomem.{package}.{m} import" in text]
        assert not later, f"{module} must not import {later}"


FORBIDDEN = [
    ("theory", "torch"),  # predictions are NumPy alone
    ("show", "torch"),  # a picture is a function of records, redrawn without any model
    ("show", "geomem.models"),
]


@pytest.mark.parametrize(("floor", "name"), FORBIDDEN)
def test_what_a_floor_does_without(floor: str, name: str) -> None:
    for path in (SOURCE / floor).rglob("*.py"):
        text = path.read_text()
        assert f"import {name}\n" not in text, path
        assert f"from {name}" not in text, path


# ------------------------------------------------------------------------- as the page says it

PAGE = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()


def test_the_page_lists_the_floors_and_files_that_there_are() -> None:
    table = re.findall(r"^\| `(\w+)` \|.*\|.*\|$", PAGE, re.MULTILINE)
    assert table == ORDER
    for name in re.findall(r"`((?:\w+/)*\w+\.(?:py|js|html))`", PAGE):
        assert (SOURCE / name).exists() or (SOURCE.parents[1] / name).exists(), name
    for name in re.findall(r"`([\w.]+)`(?:, `[\w.]+`)* (?:in|of) `[\w/]+\.py`", PAGE):
        assert name.rpartition(".")[2] in "".join(
            path.read_text() for path in SOURCE.rglob("*.py")
        ), name


def test_names_are_no_more_than_the_page_says() -> None:
    recipes = (SOURCE.parents[1] / "docs" / "extend.md").read_text()
    imported = {
        alias.name
        for block in re.findall(r"^```python\n(.*?)^```", recipes, re.MULTILINE | re.DOTALL)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geomem.")
        for alias in node.names
    }
    theory = [
        node.name
        for path in (SOURCE / "theory").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    public = set(geomem.__all__) - {"__version__"}
    counts = [len(public), len(imported - public), len(theory)]
    said = PAGE[PAGE.index("## How many names") :]
    stated = [int(n) for n in re.findall(r"\d+", said.partition("-->")[2])]
    assert all(n <= most for n, most in zip(counts, stated, strict=True)), (counts, stated)
