"""``geomem compare``: a page, a table, CSV files; and one sentence where nothing is compared."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from geomem.cli.main import run
from tests.show.synthetic_run import make_run
from tests.show.test_report import own


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    before = make_run(folder / "before" / "run", lost=6.0)
    after = make_run(folder / "after" / "run", lost=1.0, name="<script>alert(1)</script>")
    return str(before), str(after)


def test_page_table_and_csv(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "both.html"
    assert run(["compare", *runs, "--out", str(out), "--csv"]) == 0
    printed = capsys.readouterr().out
    assert "nats less are memorized" in printed
    assert runs[1] in printed  # both folders are called run, so their paths tell them apart
    page = own(out.read_text(encoding="utf-8"))
    assert re.search("<h1>Of 2 networks 2 have memorized less than in .*, beyond error</h1>", page)
    assert not re.search(r"""(src|href)=["']?(?!data:|#)[^"'>]""", page)
    assert "default-src 'none'" in page
    with (tmp_path / "both.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["N = 8", "N = 16"] * 2
    assert [row["partner"] for row in rows] == ["-1", "-1", "0", "1"]
    for row in rows[2:]:
        low, value, high = (float(row[f"information_change{end}"]) for end in ("_low", "", "_high"))
        assert low < value < high < 0
        partner = rows[int(row["partner"])]
        assert value == pytest.approx(float(row["information"]) - float(partner["information"]))
        assert f"{value:.1f}"[:-2] in page
    with (tmp_path / "both-levels.csv").open() as file:
        levels = list(csv.DictReader(file))
    assert len(levels) == 4 * 6
    assert out.stat().st_mode & 0o077 == 0
    assert run(["compare", *runs, "--out", str(out)]) == 0  # its own page may be drawn again


def test_what_cannot_be_done_is_said_in_a_sentence(
    runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "letter.html"
    other.write_text("<p>Dear reader")
    asked = {
        "at least two runs": [runs[0]],
        "holds no run": [runs[0], str(tmp_path)],
        f"{other} is no page of geomem; choose another --out": [*runs, "--out", str(other)],
        f"{tmp_path} is a folder": [*runs, "--out", str(tmp_path)],
    }
    for message, arguments in asked.items():
        assert run(["compare", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert other.read_text() == "<p>Dear reader"
