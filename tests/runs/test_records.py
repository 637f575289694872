r"""Records: believed only if they are what was measured of their subject in their study."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import geomem
from geomem.errors import InputError
from geomem.measure.errors import Errors
from geomem.measure.jacobian import Jacobian
from geomem.measure.probes import measure
from geomem.measure.study import Study, make_study
from geomem.measure.subject import Description, Subject
from geomem.runs.netcdf import bytes_of
from geomem.runs.records import ChangedRecord, RunFolder
from geomem.runs.results import results
from tests.runs.planted import axes, draw, gaussian

VARIANCES = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
CONFIG = {"kind": "planted", "option": 3}


def small_study(kinds: tuple[str, ...] = ("training", "held_out"), seed: int = 0) -> Study:
    return make_study(
        {at: draw(VARIANCES, 10, k) for k, at in enumerate(kinds)},
        directions=axes(VARIANCES),
        sigmas=torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64),
        probes=[Errors(), Jacobian(10)],
        rms=0.7,
        draws=2,
        seed=seed,
        control="population",
    )


def small_run(path: Path, count: int = 2) -> RunFolder:
    study = small_study()
    subjects = [Description("model", label=f"model {k}") for k in range(count)]
    folder = RunFolder.create(path, CONFIG, study.content, subjects)
    for number, subject in enumerate(subjects):
        denoiser = gaussian(VARIANCES * (number + 1))
        folder.write_record(number, measure(Subject(subject, denoiser), study))
    return folder


def test_a_record_of_another_subject_study_or_program_is_refused_and_done_again(
    tmp_path: Path,
) -> None:
    folder = small_run(tmp_path / "run")
    good = folder.record_path(0).read_bytes()
    other = small_study(seed=1)
    there = RunFolder.create(tmp_path / "other", CONFIG, other.content, folder.subjects)
    subject = Subject(folder.subjects[0], gaussian(VARIANCES))
    there.write_record(0, measure(subject, other))
    foreign = bytes_of(xr.Dataset({"t": ("time", [1.0, 2.0])}))
    for content in (
        folder.record_path(1).read_bytes(),  # the other subject's
        there.record_path(0).read_bytes(),  # the same subject's in another study
        foreign,
        good[:500],
        good[:-1],
        b"",
        good.replace(b"record-sha256", b"record-sha255"),
    ):
        folder.record_path(0).write_bytes(content)
        with pytest.raises(ChangedRecord, match=r"000000\.nc is not what was measured of model 0"):
            folder.read_record(0)
        with pytest.raises(InputError):
            geomem.load(folder.path)
        assert folder.missing() == [0]
    folder.record_path(0).write_bytes(good)
    assert folder.missing() == []


def test_no_flipped_bit_passes(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", 1)
    good = folder.record_path(0).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(good), 200):
        flipped = bytearray(good)
        flipped[place] ^= 1 << int(rng.integers(8))
        folder.record_path(0).write_bytes(flipped)
        assert folder.missing() == [0], place
    folder.record_path(0).write_bytes(good)
    assert folder.missing() == []


def test_other_readers_of_netcdf_read_a_record(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", 1)
    with xr.open_dataset(folder.record_path(0)) as record:
        assert record.load().error.dims == ("at", "sigma", "point", "draw", "direction")


def test_a_record_without_permission_is_not_called_damaged(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", 1)
    path = folder.record_path(0)
    content = path.read_bytes()
    path.unlink()
    path.mkdir()  # what root cannot read either
    with pytest.raises(InputError, match="cannot be read") as error:
        folder.read_record(0)
    assert not isinstance(error.value, ChangedRecord)
    path.rmdir()
    path.write_bytes(content)
    folder.read_record(0)


def test_what_a_run_holds_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = small_run(tmp_path / "run", 1)
    finally:
        os.umask(before)
    assert not stat.S_IMODE(folder.record_path(0).stat().st_mode) & 0o077
    assert not stat.S_IMODE(folder.path.stat().st_mode) & 0o077


def test_another_config_or_study_is_refused(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", 1)
    study = small_study()
    with pytest.raises(InputError, match=r"another config \(option: 3 there, 4 asked"):
        RunFolder.create(folder.path, {**CONFIG, "option": 4}, study.content)
    with pytest.raises(InputError, match="was started with other data"):
        RunFolder.create(folder.path, CONFIG, small_study(seed=1).content)
    with pytest.raises(InputError, match="another subject"):
        RunFolder.create(folder.path, CONFIG, study.content, [Description("base")])
    content = json.loads((folder.path / "study.json").read_text())
    content["sigmas"][0] = 0.2
    (folder.path / "study.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not the study that this run was started with"):
        RunFolder.open(folder.path)


def test_of_two_configs_started_together_one_gets_the_folder(tmp_path: Path) -> None:
    studies = [small_study(seed=k) for k in range(2)]

    def start(k: int, out: Path) -> bool:
        try:
            RunFolder.create(out, {**CONFIG, "option": k}, studies[k].content)
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for k in range(50):
            out = tmp_path / f"run{k}"
            assert sorted(pool.map(start, (0, 1), (out, out))) == [False, True]
            folder = RunFolder.open(out)
            assert folder.study["seed"] == folder.config["option"]


def test_many_starts_of_one_config_all_succeed(tmp_path: Path) -> None:
    study, subjects = small_study(), [Description("model"), Description("base")]

    def start(k: int) -> list[Description]:
        return RunFolder.create(tmp_path / "run", CONFIG, study.content, subjects).subjects

    with ThreadPoolExecutor(5) as pool:
        assert all(found == subjects for found in pool.map(start, range(5)))


def test_subjects_are_appended_while_another_reads(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", 1)

    def append(k: int) -> int:
        return RunFolder.open(folder.path).append(Description("model", step=k))

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(append, range(20)))
        dataset = geomem.load(folder.path)  # in the middle of it
    assert sorted(numbers) == list(range(1, 21))
    assert 1 <= dataset.sizes["subject"] <= 21
    dataset = geomem.load(folder.path)
    assert dataset.attrs["subjects_planned"] == 21
    assert list(dataset.measured.values) == [True] + [False] * 20
    assert sorted(dataset.step.values[1:]) == list(range(20))
    assert np.isnan(dataset.error.isel(subject=slice(1, None))).all()


def test_a_folder_that_is_taken_away_stays_away(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", 1)
    record = folder.read_record(0)
    subject = folder.subjects
    folder.path.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError):
        folder.write_record(0, record) if subject else None
    assert not folder.path.exists()


def test_a_run_of_one_subject_with_held_out_points_only(tmp_path: Path) -> None:
    study = small_study(("held_out",))
    folder = RunFolder.create(tmp_path / "run", CONFIG, study.content, [Description("model")])
    folder.write_record(0, measure(Subject(folder.subjects[0], gaussian(VARIANCES)), study))
    dataset = geomem.load(folder.path)
    assert list(dataset["at"].values) == ["held_out"]
    assert np.isnan(dataset.num_samples.values).all()
    known = geomem.numbers(dataset, replicates=20)
    assert np.isfinite(known.dimension.sel(at="held_out")).all()
    assert "information" not in known
    assert "add training images" in geomem.sentences(known)[0] or "control" in str(
        geomem.sentences(known)[0]
    )


def test_more_kinds_of_points_are_padded_and_kept(tmp_path: Path) -> None:
    study = small_study(("training", "held_out", "generated", "trajectory"))
    subjects = [Description("population"), Description("model"), Description("base")]
    folder = RunFolder.create(tmp_path / "run", CONFIG, study.content, subjects)
    for number in (0, 1):
        folder.write_record(number, measure(Subject(subjects[number], gaussian(VARIANCES)), study))
    fewer = small_study(("held_out",))  # another record with one kind and fewer points
    record = measure(Subject(subjects[2], gaussian(VARIANCES)), fewer).isel(point=slice(7))
    folder.write_record(2, record)
    dataset = geomem.load(folder.path)
    assert list(dataset["at"].values) == ["training", "held_out", "generated", "trajectory"]
    assert np.isfinite(dataset.error.isel(subject=[0, 1])).all()
    lone = dataset.error.isel(subject=2)
    assert np.isnan(lone.sel(at=["training", "generated", "trajectory"])).all()
    assert np.isfinite(lone.sel(at="held_out").isel(point=slice(7))).all()
    assert np.isnan(lone.isel(point=slice(7, None))).all()
    known = geomem.numbers(dataset, replicates=20)
    assert np.isfinite(known.dimension.isel(subject=0).sel(at="trajectory")).all()


def test_findings_are_stored_and_made_anew_when_records_change(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    first = results(folder)
    assert first.numbers is not None
    stored = (folder.path / "findings.nc").read_bytes()
    again = results(folder)
    assert again.numbers is not None
    xr.testing.assert_allclose(again.numbers, first.numbers)
    assert again.numbers.attrs == first.numbers.attrs
    folder.record_path(1).unlink()
    fewer = results(folder)
    assert fewer.numbers is not None
    assert fewer.numbers.sizes["subject"] == 1
    assert (folder.path / "findings.nc").read_bytes() != stored
    (folder.path / "findings.nc").write_bytes(stored[:100])
    assert results(folder).numbers is not None


@pytest.mark.parametrize("content", ["[1]", "{", "", '{"schema_version": 1}', "\x00"])
def test_foreign_json_is_one_sentence(content: str, tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run", 1)
    for name in ("config.json", "study.json"):
        path = folder.path / name
        kept = path.read_bytes()
        path.write_text(content)
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            geomem.load(folder.path)
        path.write_bytes(kept)
