r"""Tables for people: no number is broken across lines, whatever the width."""

from __future__ import annotations

import re

import pytest

from geomem.cli.main import COMMANDS, load_command, run
from geomem.cli.output import print_table

HEAD = ["denoiser", "N", "at", "method", "0.1 rms", "0.3 rms", "1 rms"]
ROWS = [
    ["empirical", "12345", at, "forward-soft-count", "12.3456 ± 0.0012", "7 ± 0", "-1.23e-17 ± 4"]
    for at in ("training", "held-out")
]
NUMBERS = re.findall(r"[-+]?\d[\d.e+-]*", " ".join(" ".join(row) for row in [HEAD, *ROWS]))


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 200])
def test_no_number_of_a_table_is_broken(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert print_table(HEAD, ROWS, "a title") == 0
    out = capsys.readouterr().out
    words = re.findall(r"[-+]?\d[\d.e+-]*", out)
    assert set(words) == set(NUMBERS)
    assert "a title" in out
    if columns >= 40:
        assert max(map(len, out.splitlines())) <= columns


def test_a_table_that_fits_is_one_and_a_cell_is_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(["a", "b"], [["[red]1", "2"]])
    assert "│ [red]1 │ 2 │" in capsys.readouterr().out


THEORY = [["theory", name] for name in load_command(COMMANDS["theory"][0])]


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["sweep", "run"], *THEORY])
def test_help_fits_80_columns(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        run([*command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80
