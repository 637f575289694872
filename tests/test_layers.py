r"""The house has five floors: a module imports only from floors, or modules, above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "geomem"
FIRST = (
    "errors arguments compute stats noise denoiser modules checks operators spectra exact "
    "manifolds dimension subspaces tangents information likelihood data"
).split()
FLOORS = ["theory", "models", "measure", "findings", "runs", "show"]
TOP = ["testing", "cli", "__main__"]
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


# Inside a package of the first floor the same holds.
INSIDE = {
    "compute": "threads owner files claims memory progress signals executor local ray",
    "operators": "linear jacobian",
    "spectra": "measures krylov lanczos randomized traces choice",
    "exact": (
        "gaussian twofold blocks posterior one_pass cost passes neighbours paths covariance "
        "queries empirical mixture patches local"
    ),
    "manifolds": "linear quadrature curved charts squiggles shapes",
    "dimension": (
        "gaps ritz answers seeds differences counts scores local plateau from_points names"
    ),
    "data": "reading arrays pictures folders tables sets images splits source",
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
