r"""Benchmarks are run by hand on a quiet machine; here: they start, and their page is theirs."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    p
    for p in (ROOT / "benchmarks").rglob("*.py")
    if "main()" in p.read_text() or "sys.exit(publish" in p.read_text()
)


@pytest.mark.parametrize("name", ["tables.py", "calibration_page.py", "published_page.py"])
def test_pages_are_what_the_results_say(name: str) -> None:
    script = ROOT / "benchmarks" / name
    result = subprocess.run([sys.executable, script, "--check"], check=False)
    assert result.returncode == 0, f"run python benchmarks/{name}"


def test_the_tables_of_audits_are_what_the_results_say() -> None:
    script = ROOT / "benchmarks" / "audit_tables.py"
    result = subprocess.run([sys.executable, script, "--check"], check=False)
    assert result.returncode == 0, "run python benchmarks/audit_tables.py"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").rglob("*.json")), ids=str)
def test_results_name_their_versions_and_no_path(path: Path) -> None:
    text = path.read_text()
    result = json.loads(text)
    versions = result.get("versions") or result["machine"]["versions"]
    assert versions["torch"]
    assert "/home/" not in text
    assert "/root/" not in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_benchmarks_say_how_they_are_run(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Here: a process each would take seconds to import what all of them import.
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    before = set(sys.modules)
    try:
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(script), run_name="__main__")
    finally:
        for name in set(sys.modules) - before:  # they import each other by their plain names
            if str(script.parent) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
    assert left.value.code in (None, 0)
    assert "--" in capsys.readouterr().out
