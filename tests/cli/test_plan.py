r"""``geomem plan``: page and JSON, the same bytes again, one sentence for bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomem.cli.main import run
from geomem.show.page.plan import count, plan_page

QUICK = ["--sources", "16", "--levels", "4", "--directions", "2", "--sizes", "20", "100", "5000"]


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
    assert document["schema_version"] == 1
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
    assert all(s.startswith("data:") for s in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "image 2, image 5" in page
    assert "the worst case" in page
    assert "default-src 'none'" in page
    assert page.count("<img") == 1  # the figure: no pixels of the data unless asked for
    named = {**document, "data": {**document["data"], "name": "<script>"}}
    assert "<script>" not in plan_page(named, {})


def test_same_seed_same_bytes_and_pixels_only_where_asked(
    planned: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["plan", "--data", planned[1], "--out", str(tmp_path), "--json", "--show-images"]
    assert run([*again, *QUICK]) == 0
    text = (planned[0] / "plan.json").read_text()
    assert (tmp_path / "plan.json").read_text() == text
    assert capsys.readouterr().out == text
    assert (tmp_path / "plan.html").read_text().count("<img") > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "1"], "from 2"),
        (["--sizes", "nan"], "from 2"),
        (["--sizes", "2.5"], "whole numbers"),
        (["--sigmas", "0"], "above 0"),
        (["--sigmas", "nan"], "above 0"),
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


def test_numbers_of_images_are_written_for_people() -> None:
    assert [count(n) for n in (None, 7.2, 999.1, 131_864, 3.7e9)] == [
        "?",
        "8",
        "1,000",
        "132,000",
        "3.7·10⁹",
    ]
