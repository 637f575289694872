r"""Sweeps: reproducible, resumable after anything, and never destructive."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import geomem
from geomem.data.splits import default_split, write_split
from geomem.errors import InputError
from geomem.models.networks import load_network
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep

TINY = Sweep(
    data="linear",
    sizes=(16, 64),
    levels=4,
    points=16,
    draws=2,
    steps=40,
    measured_steps=(10,),
    samples=8,
    variances=(1.0, 0.25),
    ambient_dim=4,
)


def record_bytes(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "records").glob("*.nc"))}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "tiny"
    TINY.run(path, processes=1, quiet=True)
    return path


def test_the_dataset_has_the_promised_dims(tiny: Path) -> None:
    dataset = geomem.load(tiny)
    assert dataset.error.dims == ("subject", "at", "sigma", "point", "draw", "direction")
    kinds = ["linear", "population", *["empirical"] * 2, *["learned"] * 4]
    assert list(dataset["kind"].values) == kinds
    assert list(dataset.num_samples.values[2:]) == [16, 64, 16, 16, 64, 64]
    assert list(dataset.step.values[4:]) == [10, 40, 10, 40]
    assert not np.isnan(dataset.error).any()
    assert dataset.error.dtype == np.float32
    assert dataset.entropy.dims == ("subject", "sigma", "point", "draw")
    assert list(dataset["at"].values) == ["training", "held_out"]
    assert dataset.attrs["control"] == "population"


def test_every_variable_says_what_it_is(tiny: Path) -> None:
    dataset = geomem.load(tiny)
    for data in (dataset, geomem.numbers(dataset, replicates=10)):
        for name, value in data.data_vars.items():
            assert value.attrs["units"], name
            assert value.attrs["long_name"], name


def test_subjects_are_picked_by_what_is_known_of_them(tiny: Path) -> None:
    dataset = geomem.load(tiny)
    assert dataset.sel(subject=4).num_samples == 16
    picked = dataset.where(dataset.num_samples == 64, drop=True)
    assert list(picked["kind"].values) == ["empirical", "learned", "learned"]
    grid = geomem.grid(dataset)
    assert grid.error.dims[:3] == ("num_samples", "seed", "step")
    place = {"num_samples": 64, "seed": 0, "step": 10}
    np.testing.assert_array_equal(grid.error.sel(place), dataset.error.sel(subject=6))
    assert geomem.grid(dataset, "empirical").entropy.dims[0] == "num_samples"
    known = geomem.grid(geomem.numbers(dataset, replicates=10))
    assert known.information.dims == ("num_samples", "step")
    with pytest.raises(InputError, match="`kind` is 'model'"):
        geomem.grid(dataset, "model")


def test_training_sets_and_measured_points_are_nested(tiny: Path) -> None:
    study = RunFolder.open(tiny).study
    assert study["points"]["training"] == study["order"][:16]
    assert len(set(study["order"])) == 64
    assert not set(study["points"]["held_out"]) & set(study["order"])


def test_a_second_run_is_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    TINY.run(tmp_path / "again", processes=2, quiet=True)
    assert record_bytes(tmp_path / "again") == record_bytes(tiny)
    names = ("summary.json", "study.json", "config.json")
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tiny / name).read_bytes()


def test_a_finished_run_does_no_work_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p: p.stat().st_mtime_ns for p in (tiny / "records").iterdir()}
    monkeypatch.setattr("geomem.runs.run.LocalExecutor.run", lambda *a, **k: pytest.fail("worked"))
    TINY.run(tiny, processes=1, quiet=True)
    assert before == {p: p.stat().st_mtime_ns for p in (tiny / "records").iterdir()}


def test_an_exception_in_training_keeps_what_is_done(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ctrl-C at the 27th step of a training that saves every 2 steps: resumed at step 26.
    from geomem.models.train import TrainState

    advance, calls = TrainState.advance, 0

    def interrupted(self: TrainState) -> None:
        nonlocal calls
        calls += self.training.steps == 40 and len(self.data) == 64
        if calls == 27:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr("geomem.models.train.SECONDS", 0.0)
    monkeypatch.setattr(TrainState, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        TINY.run(tmp_path / "run", processes=1, quiet=True)
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    TINY.run(tmp_path / "run", processes=1, quiet=True)
    assert calls == 27 + 14  # 26 steps were saved, the 27th was lost; none of the 26 again
    assert record_bytes(tmp_path / "run") == record_bytes(tiny)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_record_that_is_lost_is_made_again(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "run")
    for name in ("000002.nc", "000004.nc"):
        (tmp_path / "run" / "records" / name).unlink()
    TINY.run(tmp_path / "run", processes=1, quiet=True)
    assert record_bytes(tmp_path / "run") == record_bytes(tiny)


def command(out: Path, steps: int) -> list[str]:
    options = "--data linear --sizes 16 64 --levels 4 --points 16 --draws 2 --samples 8"
    options += f" --variances 1 0.25 --ambient-dim 4 --processes 2 --steps {steps}"
    return [sys.executable, "-m", "geomem", "sweep", *options.split(), "--out", str(out)]


@pytest.mark.slow  # a worker that is killed is in test_sweep_executors
def test_kill_9_in_the_middle_and_the_same_command_again(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    sweep = replace(TINY, measured_steps=(), steps=1500)
    sweep.run(whole, processes=2, quiet=True)
    process = subprocess.Popen(command(broken, 1500), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((broken / "checkpoints").glob("*.safetensors")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    missing = RunFolder.open(broken).missing()
    assert missing, "it was too late to interrupt anything"
    before = record_bytes(broken)
    done = subprocess.run(command(broken, 1500), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert record_bytes(broken) == record_bytes(whole)
    assert before.items() <= record_bytes(broken).items()
    assert (broken / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    assert geomem.load(broken).drop_attrs().identical(geomem.load(whole).drop_attrs())
    assert not list(broken.rglob(".tmp-*"))


def test_another_config_is_refused_and_nothing_lost(tiny: Path) -> None:
    before = record_bytes(tiny)
    with pytest.raises(InputError, match=r"another config \(steps: 40 there, 50 asked"):
        replace(TINY, steps=50).run(tiny, quiet=True)
    assert record_bytes(tiny) == before


def test_a_full_disk_is_one_sentence_and_earlier_records_stay(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def full(handle: int) -> None:
        if len(record_bytes(tmp_path / "run")) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="the disk is full") as error:
        TINY.run(tmp_path / "run", processes=1, quiet=True)
    assert "\n" not in str(error.value)
    assert len(record_bytes(tmp_path / "run")) == 2
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    monkeypatch.setattr(os, "fsync", fsync)
    TINY.run(tmp_path / "run", processes=1, quiet=True)
    assert record_bytes(tmp_path / "run") == record_bytes(tiny)


def test_networks_are_saved_and_are_what_was_measured(tiny: Path) -> None:
    folder = RunFolder.open(tiny)
    denoiser = load_network(tiny / "networks" / "N000016-seed0-step40")
    sigma = torch.tensor(folder.study["sigmas"][1])
    source = TINY.source
    x_0 = source.data.tensor(folder.study["points"]["held_out"])
    from geomem.stats import torch_rng

    rngs = (torch_rng(0, "noise/held_out", i) for i in range(len(x_0)))
    z = torch.stack([torch.randn(2, 4, generator=rng) for rng in rngs])[:, 0]
    with torch.no_grad():
        error = (denoiser(x_0 + sigma * z, sigma) - x_0) / sigma
    kept = source.directions.signed(error)
    here = {"num_samples": 16, "at": "held_out", "step": 40, "seed": 0}
    recorded = geomem.grid(geomem.load(tiny)).error.sel(here).isel(sigma=1, draw=0)
    recorded = recorded.transpose("point", "direction").values
    # Batches of other shapes are summed in another order: float32 to a few eps.
    np.testing.assert_allclose(recorded, kept.numpy(), atol=1e-4)


def test_several_seeds_give_the_error_over_trainings(tmp_path: Path) -> None:
    sweep = replace(TINY, seeds=(0, 1, 2), measured_steps=(), samples=0)
    dataset = sweep.run(tmp_path / "run", processes=1, quiet=True)
    known = geomem.numbers(dataset, replicates=50)
    assert known.attrs["error_over"] == "trainings"
    assert list(known.trainings.values[:2]) == [3, 3]
    others = np.isnan(dataset.seed.values)
    one_each = [
        geomem.grid(
            geomem.numbers(
                dataset.isel(subject=np.flatnonzero(others | (dataset.seed.values == s))),
                replicates=2,
            )
        )
        for s in (0, 1, 2)
    ]
    excesses = [float(one.excess.sel(num_samples=16).item()) for one in one_each]
    excess = geomem.grid(known).sel(num_samples=16)
    assert float(excess.excess.item()) == pytest.approx(np.mean(excesses))
    expected = np.std(excesses, ddof=1) / np.sqrt(3)
    assert float(excess.excess_stderr.item()) == pytest.approx(expected, rel=1e-6)


def test_a_split_file_is_obeyed(tmp_path: Path) -> None:
    data = geomem.load_data("digits")
    split = default_split(data, seed=7)
    write_split(split, data, tmp_path / "split.json")
    sweep = Sweep(data="digits", sizes=(16,), split=tmp_path / "split.json", points=16)
    study = sweep.study().content
    assert set(study["points"]["held_out"]) <= set(split.held_out.tolist())
    assert set(study["order"]) <= set(split.pool.tolist())


def test_declared_groups_are_one_unit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "faces.npy", rng.normal(size=(120, 3)))
    rows = "\n".join(f"{i},{i // 3}" for i in range(120))
    (tmp_path / "people.csv").write_text(f"file,value\n{rows}\n")
    sweep = Sweep(
        data=str(tmp_path / "faces.npy"),
        sizes=(24,),
        points=24,
        groups=tmp_path / "people.csv",
    )
    groups = sweep.study().content["point_groups"]
    assert len(set(groups["training"])) < 24  # some subjects are there more than once
    assert not set(groups["training"]) & set(groups["held_out"])
    assert Sweep.from_config(sweep.config()) == sweep


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (16, 10**6), "data": "digits"}, "larger than the pool"),
        ({"sigmas": (1.0,)}, "at least 2 different"),
        ({"sigmas": (1e-30, 1e30)}, "from 1e-6 to 1e6"),
        ({"network": "unet", "channels": (7, 9), "data": "digits"}, "channels"),
        ({"network": "unet"}, "U-Net needs images"),
    ],
)
def test_bad_input_leaves_no_folder(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **change).run(tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        *({"draws": 0}, {"steps": 0}, {"points": 2}, {"seeds": (0, 0)}, {"measured_steps": (40,)}),
        *({"sizes": (1, 16)}, {"sizes": (32.9,)}, {"sizes": ()}, {"seeds": (-1,)}),
        *({"sigmas": (0.0, 1.0)}, {"sigmas": (float("nan"), 1.0)}, {"learning_rate": -1.0}),
        *({"learning_rate": float("nan")}, {"jacobian_points": -1}, {"network": "resnet"}),
        *({"dimension": ("treshold",)}, {"dimension": ("soft-count", "soft-count")}),
        {"variances": (1.0, float("inf"))},
    ],
)
def test_a_config_that_makes_no_sense_is_refused_at_once(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replace(TINY, **change).study()


def test_images_are_in_the_records_only_if_asked(tmp_path: Path) -> None:
    sweep = Sweep(data="digits", sizes=(16,), points=16, levels=3, steps=10, samples=4, draws=1)
    hidden = sweep.run(tmp_path / "hidden", processes=1, quiet=True)
    shown = replace(sweep, show_images=True).run(tmp_path / "shown", processes=1, quiet=True)
    assert not {"training_image", "nearest_image"} & set(hidden)
    assert shown.nearest_image.shape[-3:] == (1, 8, 8)
    pixels = sweep.source.data.tensor(RunFolder.open(tmp_path / "shown").study["order"][:16])
    linear = shown.isel(subject=0).training_image
    np.testing.assert_array_equal(linear.values, pixels.numpy())
    assert isinstance(shown, xr.Dataset)


def test_a_training_measured_on_its_way_is_forecast_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweep, "_step_seconds", lambda self, width, device: 1.0)

    def training_seconds(**settings: Any) -> float:
        sweep = replace(TINY, samples=0, trajectories=0, jacobian_points=0, **settings)
        study = sweep.study()
        subjects = [s for s in sweep.subjects(study) if s.kind == "learned" and s.num_samples == 64]
        return sum(sweep.seconds(subject, study) for subject in subjects)

    once = training_seconds(steps=400, measured_steps=())
    twice = training_seconds(steps=400, measured_steps=(100, 200))
    assert once > 400
    assert twice - once == pytest.approx(2 * (once - 400))  # what measuring takes, and no step
