r"""The examples run, and the pages that quote them quote what runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHORT = {"train_strangers.py": ("strangers", "--steps", "2", "--size", "28", "--only", "few")}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_run(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    env = dict(os.environ)
    if path.name in SHORT:  # skipped where the data sets are not there
        env["GEOMEM_DATA"] = str(request.getfixturevalue("shared_data"))
    command = [sys.executable, str(path), *SHORT.get(path.name, ())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_tutorial_quotes_the_example() -> None:
    page, code = ((ROOT / p).read_text() for p in ("docs/extend.md", "examples/own_method.py"))
    for name in ("TwoNodes", "Participation"):
        start = code.index(f"class {name}")
        quoted = code[start : code.index("\n\n\n", start)]
        assert quoted in page
    assert len(code[code.index("class TwoNodes") : code.index("class Part")].splitlines()) < 40
