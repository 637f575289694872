r"""Plans as runs: parts with records of their own, gone on with, the same bytes at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import geomem
from geomem.errors import InputError
from geomem.measure.plan import variances_of
from geomem.runs.kinds import open_run
from geomem.runs.plan import Plan
from geomem.runs.records import RunFolder
from geomem.theory.duplicates import without_copies
from geomem.theory.planning import gaussian_guide, needed_sizes, retention_of_subsets


def points(folder: Path, count: int = 150, copies: int = 6) -> str:
    r"""Points of three variances in 6 dimensions; some are there once more, nearly."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 6)) * [1.0, 0.6, 0.4, 0.05, 0.05, 0.05]
    again = x[:copies] + 1e-4 * rng.normal(size=(copies, 6))
    np.save(folder / "points.npy", np.concatenate([x, again]).astype(np.float32))
    return str(folder / "points.npy")


QUICK: dict[str, Any] = {"directions": 2, "levels": 3, "sources": 40, "sizes": (20, 60, 900)}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    folder = tmp_path_factory.mktemp("plan")
    plan = Plan(data=points(folder), **QUICK)
    plan.run(folder / "run", processes=1, quiet=True)
    return plan, folder / "run"


def test_parts_are_near_duplicates_levels_and_sources(planned: tuple[Plan, Path]) -> None:
    subjects = RunFolder.open(planned[1]).subjects
    assert [s.label for s in subjects] == [
        "near-duplicates",
        *(f"Gaussian guide {i} of 3" for i in (1, 2, 3)),
        *(f"sources {a} to {b} of 40" for a, b in ((1, 16), (17, 32), (33, 40))),
    ]


def test_the_document_is_what_the_theory_says_of_the_images_without_copies(
    planned: tuple[Plan, Path],
) -> None:
    plan, out = planned
    document = json.loads((out / "plan.json").read_text())
    folder, source = RunFolder.open(out), plan.source
    pool = np.asarray(source.split.pool)
    place = {int(i): k for k, i in enumerate(pool)}
    found = document["duplicates"]["near_pairs"]
    assert {tuple(p[:2]) for p in found} == {(i, 150 + i) for i in range(6)}
    inside = [(place[i], place[j]) for i, j, _ in found if i in place and j in place]
    assert inside  # some copies are in the pool
    different = pool[without_copies(len(pool), inside)]
    assert document["data"]["pool"] == len(different) == len(pool) - len(inside)
    x = source.data.tensor(different).double().numpy()
    M, axes = len(x), source.directions.vectors[:, :2].double().numpy().T
    asked = np.unique([*np.geomspace(2, M, 16).round(), 20, 60])
    map_ = retention_of_subsets(x, document["sigmas"], asked, axes, sources=40, seed=0)
    at = map_.sel(num_samples=[20, 60])
    np.testing.assert_allclose(document["retention"], at.retention, rtol=1e-4)  # of 6 digits
    np.testing.assert_allclose(document["retention_stderr"], at.retention_stderr, rtol=1e-3)
    cells = [c for row in needed_sizes(map_, 0.9) for c in row]
    there = [c for c in document["needed"] if c["kept"] == 0.9]
    assert [c["status"] for c in there] == [c.status for c in cells]
    for a, b in zip(there, cells, strict=True):
        assert (a["low"] or 0) == pytest.approx(b.low or 0, rel=1e-3)
    # The guide, level by level, is the guide of all levels at once.
    v = variances_of(folder.study)
    guide = gaussian_guide(v, np.array(folder.study["sigmas"])[::-1], 2, num_samples=[900])
    sizes = np.array([c["guide"] for c in document["needed"]], float).reshape(2, 3, 2)
    np.testing.assert_allclose(sizes, guide.num_samples.values[:, ::-1], rtol=1e-4)
    np.testing.assert_allclose(document["guide_retention"], guide.retention[::-1], atol=1e-4)


def test_a_plan_goes_on_where_it_stopped_and_ends_with_the_same_bytes(
    planned: tuple[Plan, Path], tmp_path: Path
) -> None:
    plan, out = planned
    # A part of the sources alone: the near-duplicates that it rests on are found first.
    assert plan.run_units(tmp_path / "run", [5], quiet=True) == [5]
    assert RunFolder.open(tmp_path / "run").missing() == [1, 2, 3, 4, 6]
    assert not (tmp_path / "run" / "plan.json").exists()
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "records").glob("*.nc")}
    open_run(tmp_path / "run").run(tmp_path / "run", processes=2, quiet=True)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "records").glob("*.nc")}
    assert {name: after[name] for name in before} == before  # no finished part is done again
    for name in ("plan.json", "summary.json", "study.json"):
        assert (tmp_path / "run" / name).read_bytes() == (out / name).read_bytes()


def test_a_changed_record_is_made_anew(planned: tuple[Plan, Path]) -> None:
    plan, out = planned
    text = (out / "plan.json").read_bytes()
    record = out / "records" / "000004.nc"
    record.write_bytes(record.read_bytes()[:-200])
    plan.run(out, processes=1, quiet=True)
    assert (out / "plan.json").read_bytes() == text
    assert RunFolder.open(out).missing() == []


def test_records_load_as_one_dataset_with_units(planned: tuple[Plan, Path]) -> None:
    dataset = geomem.load(planned[1])
    assert dataset.attrs["kind"] == "plan"
    assert dataset.sizes["subject"] == 7
    assert dataset.sizes["sigma"] == 3
    for value in dataset.data_vars.values():
        assert {"units", "long_name"} <= set(value.attrs)
    sources = dataset.isel(subject=slice(4, 7))
    assert int(np.isfinite(sources.kept_variance.isel(sigma=0, size=0, direction=0)).sum()) == 40


def test_the_split_is_taken_and_checked(planned: tuple[Plan, Path], tmp_path: Path) -> None:
    plan, _ = planned
    data = plan.source.data
    half = geomem.make_split(data, held_out=0.1, reserved=0.4, seed=5)
    geomem.write_split(half, data, tmp_path / "split.json")
    other = Plan(data=plan.data, split=tmp_path / "split.json", **QUICK)
    content = other.study().content
    assert content["data"]["pool"] == len(half.pool)
    assert content["data"]["reserved"] == len(half.reserved)
    folder = other.prepare(tmp_path / "run")
    geomem.write_split(geomem.make_split(data, seed=6), data, tmp_path / "split.json")
    with pytest.raises(InputError, match="changed"):
        open_run(folder.path).run(folder.path, processes=1, quiet=True)


def test_a_summary_begins_with_what_to_expect(planned: tuple[Plan, Path]) -> None:
    summary = json.loads((planned[1] / "summary.json").read_text())
    assert summary["kind"] == "plan"
    assert "in the worst case" in summary["headline"]
    assert any("N = 900: beyond the M" in line for line in summary["findings"])


def test_images_that_are_nearly_all_copies_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(14, 8)), 10, axis=0) + 1e-5 * rng.normal(size=(140, 8))
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InputError, match="are no near-duplicates of others, too few"):
        Plan(data=str(tmp_path / "x.npy"), levels=2, directions=1, sources=16).run(
            tmp_path / "run", processes=1, quiet=True
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": (1,)}, "`sizes`"),
        ({"sizes": (2.5,)}, "whole numbers"),
        ({"sizes": (1e13,)}, "`sizes`"),
        ({"sigmas": (0.0,)}, "`sigmas`"),
        ({"levels": 1}, "`levels`"),
        ({"levels": 10**6}, "`levels`"),
        ({"sources": 3}, "`sources`"),
        ({"data": "linear"}, "law is known"),
    ],
)
def test_bad_options_name_the_parameter(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan(**{"data": "digits", **options})


def test_memory_is_forecast_before_it_is_taken(
    planned: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda *rest: 1e8)
    with pytest.raises(InputError, match="memory"):
        Plan(data=planned[0].data, **QUICK).run(tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_records_hold_pixels_only_where_asked_for(planned: tuple[Plan, Path]) -> None:
    record: xr.Dataset = RunFolder.open(planned[1]).read_record(0)
    assert "picture" not in record
    assert record["near_image"].shape == (6, 2)
