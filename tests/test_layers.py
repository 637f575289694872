r"""The house has five floors: a module imports only from floors, or modules, above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "geomem"
FIRST = (
    "errors stats work noise denoiser operators spectra gaussian exact manifolds dimension "
    "subspaces information loaders sets data splits cite"
).split()
FLOORS = ["theory", "models", "runs", "show"]
TOP = ["testing", "cli_theory", "commands", "cli"]
ORDER = [*FIRST, *FLOORS, *TOP]


def module_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geomem."):
            names.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("geomem.")}
    return names


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_a_module_imports_only_what_stands_above_it(path: Path) -> None:
    here = module_of(path)
    if here == "__init__":
        return  # the lazy front door names everything
    assert here in ORDER, f"{here} has no place in the house: add it to this list"
    for name in imports(path) - {here}:
        assert ORDER.index(name) < ORDER.index(here), f"{here} must not import {name}"


@pytest.mark.parametrize("heavy", ["torch", "geomem.runs", "geomem.models", "matplotlib"])
def test_theory_and_show_stay_what_they_are(heavy: str) -> None:
    # Theory is NumPy alone; a picture is a function of records and never of a model.
    floors = {
        "theory": ("torch", "geomem.runs", "geomem.models"),
        "show": ("torch", "geomem.models"),
    }
    for floor, forbidden in floors.items():
        for path in (SOURCE / floor).rglob("*.py"):
            text = path.read_text()
            if heavy in forbidden:
                assert f"import {heavy}\n" not in text, path
                assert f"from {heavy}" not in text, path
