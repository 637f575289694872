r"""``geomem plan``: page and JSON, the same bytes again, one sentence for bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomem.cli.main import COMMANDS, run
from geomem.errors import InputError
from geomem.findings.plan_sentences import count, findings, headline
from geomem.show.page.plan import plan_page
from geomem.show.page.report import report

QUICK = ["--sources", "16", "--levels", "4", "--directions", "2", "--sizes", "20", "100", "5000"]
QUICK += ["--processes", "1"]


def images(folder: Path, count: int = 120) -> str:
    r"""Pictures of 4 x 4 pixels in 3 directions; two are equal, and two nearly so."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(16, 16)))[0][:3]
    values = 128 + (rng.normal(size=(count, 3)) * [120, 80, 50]) @ axes
    pixels = np.clip(values, 0, 255).round().astype(np.uint8).reshape(count, 4, 4)
    pixels[5], pixels[9] = pixels[2], pixels[3]
    pixels[9, 0, 0] ^= 1
    np.save(folder / "images.npy", pixels)
    return str(folder / "images.npy")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("plan")
    spec = images(folder)
    assert run(["plan", "--data", spec, "--out", str(folder / "a"), *QUICK]) == 0
    return folder / "a", spec


@pytest.fixture(scope="module")
def document(planned: tuple[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((planned[0] / "plan.json").read_text(), parse_constant=fail)
    return found


def fail(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_the_document_says_what_it_rests_on(document: dict[str, Any]) -> None:
    assert document["schema_version"] == 2
    assert document["seed"] == 0
    assert document["rms"] > 0
    assert document["window"][0] < document["window"][1]
    assert re.fullmatch("[0-9a-f]{64}", document["data"]["digest"])
    assert document["data"]["pool"] + document["data"]["reserved"] < document["data"]["images"]
    assert "exactly" in document["predicts"]


def test_each_cell_is_one_of_four_answers(document: dict[str, Any]) -> None:
    cells, M = document["needed"], document["data"]["pool"]
    assert len(cells) == 2 * 4 * 2
    points = dict(zip(document["sigmas"], document["reference_points"], strict=True))
    for cell in cells:
        found = cell["status"] == "found"
        assert (cell["num_samples"] is not None) == found
        assert found <= (points[cell["sigma"]] >= 20)
        if cell["status"] == "more than M":
            assert cell["low"] == M
        if found:
            assert 1 <= cell["low"] <= cell["num_samples"] <= (cell["high"] or M)
    assert {"found", "more than M"} <= {cell["status"] for cell in cells}


def test_retention_and_collapse_are_given_for_the_sizes_asked(document: dict[str, Any]) -> None:
    assert document["sizes"] == [20, 100] if document["data"]["pool"] >= 100 else [20]
    assert np.shape(document["retention"]) == (4, len(document["sizes"]), 2)
    assert [row["num_samples"] for row in document["collapse"]] == [20, 100, 5000]
    M = document["data"]["pool"]
    assert document["sizes_beyond"] == [n for n in (20, 100, 5000) if n > M]
    guided = np.array(document["guide_retention"], float)
    assert guided.shape == (4, len(document["sizes_beyond"]), 2)
    assert (np.diff(guided[:, -1, 0]) >= -0.01).all()  # more noise, more kept
    assert guided[0, -1, 0] < 0.5 < 0.9 < guided[-1, -1, 0]
    beyond = document["collapse"][-1]  # more than there are images: only the guide
    assert beyond["sigma"] is None
    assert beyond["guide"] > 0


def test_duplicates_are_listed(document: dict[str, Any]) -> None:
    assert document["duplicates"]["exact_groups"] == [[2, 5]]
    assert [3, 9] in [pair[:2] for pair in document["duplicates"]["near_pairs"]]


def test_the_page_loads_nothing_and_escapes_names(
    planned: tuple[Path, str], document: dict[str, Any]
) -> None:
    page = (planned[0] / "plan.html").read_text(encoding="utf-8")
    assert "http:" not in page
    assert "https:" not in page
    assert all(s.startswith(("data:", "#")) for s in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "image 2, image 5" in page
    assert "the worst case" in page
    assert "default-src 'none'" in page
    assert "N = 5,000: beyond the data, Gaussian guide" in page
    # The figure, light and dark, and two directions in five shades: no pixels unless asked for.
    assert page.count("<img") == 2 + 2 * 5
    named = {**document, "data": {**document["data"], "name": "<script>alert"}}
    assert "<script>alert" not in plan_page(named, {})


def test_same_seed_same_bytes_and_pixels_only_where_asked(
    planned: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["plan", "--data", planned[1], "--out", str(tmp_path), "--json", "--show-images"]
    assert run([*again, *QUICK]) == 0
    text = (planned[0] / "plan.json").read_text()
    assert (tmp_path / "plan.json").read_text() == text
    assert capsys.readouterr().out == text
    assert (tmp_path / "plan.html").read_text().count("<img") > 2 + 2 * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "1"], "--sizes"),
        (["--sizes", "nan"], "finite"),
        (["--sizes", "2.5"], "whole numbers"),
        (["--sigmas", "0"], "above 0"),
        (["--sigmas", "nan"], "finite"),
        (["--sigmas", "-1", "2"], "above 0"),
        (["--directions", "0"], "--directions"),
        (["--directions", "99"], "span"),
        (["--levels", "1"], "--levels"),
        (["--sources", "3"], "--sources"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_bad_options_are_one_sentence(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["plan", "--data", images(tmp_path), "--out", str(out), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("kind", ["few", "nan", "equal", "linear"])
def test_bad_images_are_one_sentence(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.default_rng(0).normal(size=(100, 5))
    few, nan, equal = values[:20], values.copy(), np.ones((100, 5))
    nan[3, 2] = np.nan
    spec = kind
    if kind != "linear":
        np.save(tmp_path / "x.npy", {"few": few, "nan": nan, "equal": equal}[kind])
        spec = str(tmp_path / "x.npy")
    assert run(["plan", "--data", spec, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_plan_begins_with_what_to_expect(document: dict[str, Any]) -> None:
    level = int(np.argmin(np.abs(np.log(document["sigmas_relative"]))))
    sigma = document["sigmas"][level]

    def with_cells(**changes: Any) -> dict[str, Any]:
        # Direction 2 at that level answers otherwise.
        cells = [
            {**c, **changes}
            if (c["sigma"], c["kept"], c["direction"]) == (sigma, 0.5, 2)
            else {**c, "status": "found", "num_samples": 9.0, "low": 8.0, "high": 12.0}
            for c in document["needed"]
        ]
        return {**document, "needed": cells}

    found = with_cells(status="found", num_samples=31.0, low=25.0, high=40.0)
    assert "expect memorization below N about 31 (" in headline(found)
    assert "direction 2" in findings(found)[0]
    assert "25 to 40" in findings(found)[0]
    few = with_cells(status="too few images", num_samples=None, low=20.0, high=None, guide=4e4)
    assert "below N about 20, and maybe still with all" in headline(few)
    more = with_cells(status="more than M", num_samples=None, low=80.0, high=None, guide=4e4)
    assert "expect memorization with all" in headline(more)
    assert "guide from above, would take N = 40,000" in findings(more)[0]
    closed = {**document, "needed": [{**c, "status": "not open"} for c in document["needed"]]}
    assert "no direction is open" in headline(closed)
    for one in (found, few, more, closed):
        assert "in the worst case" in headline(one)
        assert headline(one) in plan_page(one, {})


def test_directions_and_shares_have_colours_of_their_own() -> None:
    from matplotlib.colors import to_rgb

    from geomem.show.page.plan import CURVES, STEPS

    def light(colour: str) -> np.ndarray[Any, Any]:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                        [0.0193, 0.1192, 0.9505]]) @ linear / [0.9505, 1, 1.089]  # fmt: skip
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for colours in ([c for c, _ in CURVES], [c for _, c, *_ in STEPS]):
        places = [light(colour) for colour in colours]
        # CIE76: 2.3 is just noticed; 20 is told apart at a glance, with a legend aside.
        apart = [np.linalg.norm(a - b) for i, a in enumerate(places) for b in places[:i]]
        assert min(apart) > 20
    assert len({marker for _, marker in CURVES}) == len(CURVES)


def test_report_draws_the_page_again(planned: tuple[Path, str], tmp_path: Path) -> None:
    page = planned[0] / "plan.html"
    before = page.read_bytes()
    page.unlink()
    assert report(planned[0]) == page
    assert page.read_bytes() == before
    with pytest.raises(InputError, match="`show_images`"):
        report(planned[0], show_images=True)
    record = planned[0] / "records" / "000002.nc"
    content = record.read_bytes()
    record.unlink()
    try:
        with pytest.raises(InputError, match="not finished: 1 of"):
            report(planned[0])
    finally:
        record.write_bytes(content)


def test_an_output_that_cannot_be_written_is_found_out_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "plan"):
        assert run(["plan", "--data", "no-such-data", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert str(tmp_path / "file") in error  # and not the data, which it has not looked at
        assert error.count("\n") == 1


@pytest.mark.slow  # Python compiles all that it imports anew, without docstrings
def test_help_without_docstrings_shows_no_signature() -> None:
    command = "plan"
    environment = {**os.environ, "PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "geomem", command, "--help"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert COMMANDS[command][1] in done.stdout
    assert not re.search(r"Annotated\[|PosixPath|FlagCreate|\w\(\w+: ", done.stdout)


def test_numbers_of_images_are_written_for_people() -> None:
    assert [count(n) for n in (None, 7.2, 999.1, 131_864, 3.7e9)] == [
        "?",
        "8",
        "1,000",
        "132,000",
        "3.7·10⁹",
    ]
