r"""``geomem.X`` is, for mypy as for Python, what stands in its module."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import geomem

ROOT = Path(__file__).parent.parent
# What geomem's own types do not hang on is not read: the check is then a matter of seconds.
SKIPPED = "torch numpy scipy xarray matplotlib sklearn diffusers safetensors plotly jinja2 ray"


def block() -> str:
    r"""The imports that type checkers read, one line a name."""
    pairs = {(module, name) for name, module in geomem._MODULE_OF.items()}
    # ruff's order: modules by name, then CONSTANTS, Classes, functions.
    kind = {name: 0 if name.isupper() else 1 if name[0].isupper() else 2 for _, name in pairs}
    ordered = sorted(pairs, key=lambda p: (p[0], kind[p[1]], p[1]))
    return "".join(f"    from geomem.{m} import {n} as {n}\n" for m, n in ordered)


def write() -> None:
    r"""Writes the block: `python -m tests.test_front_door` after a change of names."""
    path = Path(geomem.__file__)
    mark = "if TYPE_CHECKING:\n"
    path.write_text(path.read_text().partition(f"\n{mark}")[0] + f"\n{mark}" + block())


def test_type_checkers_read_every_public_name_from_its_module() -> None:
    text = Path(geomem.__file__).read_text()
    there = text.partition("\nif TYPE_CHECKING:\n")[2]
    assert there == block(), "names have changed: python -m tests.test_front_door"


def test_what_mypy_sees_is_what_it_is(tmp_path: Path) -> None:
    names = sorted(geomem._MODULE_OF)
    lines = ["import geomem", *(f"reveal_type(geomem.{name})" for name in names)]
    (tmp_path / "uses.py").write_text("\n".join([*lines, "geomem.Typo", ""]))
    skipped = [f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in SKIPPED.split()]
    config = "\n".join(["[mypy]\nstrict = true\nignore_missing_imports = true\n", *skipped])
    (tmp_path / "mypy.ini").write_text(config)
    options = ["--config-file", "mypy.ini", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "uses.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r'^uses\.py:(\d+): note: Revealed type is "(.*)"$', done.stdout, re.M)
    seen = {names[int(line) - 2]: revealed for line, revealed in found}
    assert set(seen) == set(names), done.stdout + done.stderr
    for name, revealed in seen.items():
        value = getattr(geomem, name)
        if inspect.isclass(value):
            assert f"{value.__module__}.{value.__qualname__}" in revealed, (name, revealed)
        else:
            assert revealed.startswith(("def ", "Overload(")), (name, revealed)
    assert re.search(r"uses\.py:\d+: error: .*no attribute \"Typo\"", done.stdout)


if __name__ == "__main__":
    write()
