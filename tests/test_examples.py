r"""The examples run, and the pages that quote them quote what runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geomem.cli.main import run

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


def test_the_example_is_used_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_method.py").write_text((ROOT / "examples/own_method.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    nested = "own_method:Participation(spectrum=own_method.TwoNodes(probes=4))"
    arguments = "dimension --data linear --sizes 50 --sigmas 0.5 --points 1 --dimension".split()
    assert run([*arguments, "own_method:Participation", nested]) == 0
    out = capsys.readouterr().out
    assert nested in out
    assert "each exact" in out
