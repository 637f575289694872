r"""The examples run, and the pages that quote them quote what runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_tutorial_quotes_the_example() -> None:
    page, code = ((ROOT / p).read_text() for p in ("docs/extend.md", "examples/own_method.py"))
    for name in ("TwoNodes", "Participation"):
        start = code.index(f"class {name}")
        quoted = code[start : code.index("\n\n\n", start)]
        assert quoted in page
    assert len(code[code.index("class TwoNodes") : code.index("class Part")].splitlines()) < 40
