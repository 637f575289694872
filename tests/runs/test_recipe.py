r"""Budgets of trainings: equal steps or equal epochs, and in which precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import geomem
from geomem.cli.main import run
from geomem.errors import InputError
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState, train
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep
from tests.references import normal

PASSES = Sweep(
    data="linear",
    variances=(1.0, 0.25),
    ambient_dim=4,
    sizes=(16, 64),
    epochs=10,
    measured_epochs=(2.5,),
    batch_size=16,
    widths=(8,),
    blocks=1,
    levels=3,
    points=16,
    draws=1,
    jacobian_points=0,
    samples=0,
    trajectories=0,
)


def test_equal_epochs_are_steps_in_proportion_to_the_images(tmp_path: Path) -> None:
    PASSES.run(tmp_path / "run", processes=1, quiet=True)
    dataset = geomem.load(tmp_path / "run")
    learned = dataset.isel(subject=np.flatnonzero(dataset.kind == "learned"))
    found = list(zip(learned.num_samples.values, learned.step.values, strict=True))
    assert found == [(16, 3), (16, 10), (64, 10), (64, 40)]
    study = RunFolder.open(tmp_path / "run").study
    assert study["epochs"] == 10
    assert "mixed_precision" not in study
    # The same trainings as sweeps of so many steps, bit for bit.
    steps = replace(PASSES, epochs=None, measured_epochs=(), steps=10)
    steps.run(tmp_path / "steps", processes=1, quiet=True)
    weights = [
        (tmp_path / name / "networks" / "N000016-width0008-seed0-step10.safetensors").read_bytes()
        for name in ("run", "steps")
    ]
    assert weights[0] == weights[1]


def test_a_forecast_counts_a_training_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sweep, "_step_seconds", lambda self, width, device: 0.01 if width else 1)
    sweep = replace(PASSES)  # that was not timed yet
    study = sweep.study()
    learned = [s for s in sweep.subjects(study) if s.kind == "learned"]
    seconds = [sweep.seconds(subject, study) for subject in learned]
    measuring = seconds[0] - 0.03  # 3 steps of a hundredth of a second, and what measuring takes
    assert 0 < measuring < 0.5
    assert seconds == pytest.approx([v + measuring for v in (0.03, 0.07, 0.1, 0.3)])


def test_a_length_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ["sweep", "--data", "linear", "--sizes", "16", "--out", str(tmp_path / "run")]
    assert run([*sweep, "--epochs", "3", "--steps", "5"]) == 2
    assert "pass --steps or --epochs, not both" in capsys.readouterr().err
    assert run([*sweep, "--epochs", "3", "--budget", "1m"]) == 2
    assert "pass --budget or --epochs, not both" in capsys.readouterr().err
    for more, said in (
        ({"measured_epochs": (1.0,)}, "needs `epochs`"),
        ({"epochs": 2.0, "measured_steps": (1,)}, "pass `measured_epochs`"),
        ({"epochs": 2.0, "measured_epochs": (2.0,)}, "below 2"),
    ):
        with pytest.raises(InputError, match=said):
            Sweep("linear", sizes=(16,), **more)
    assert not (tmp_path / "run").exists()


def test_bfloat16_trains_nearly_the_same_network_with_weights_in_float32() -> None:
    data = (normal(0, 200, 4) * torch.tensor([2.0, 0.5, 0.05, 0.0]).sqrt()).float()
    config = NetworkConfig("mlp", (4,), sigma_data=float(data.std()), width=32, blocks=1)
    answers = []
    x = torch.linspace(-2, 2, 32).reshape(8, 4)
    for precision in (None, "bf16"):
        recipe = Training(steps=60, batch_size=32, mixed_precision=precision)
        state = TrainState(config, recipe, data, seed=0)
        for _ in train(state, 60):
            pass
        assert {p.dtype for p in state.average.parameters()} == {torch.float32}
        with torch.no_grad():
            answers.append(state.average(x, torch.tensor(0.5)))
    assert not torch.equal(*answers)
    assert (answers[0] - answers[1]).abs().max() < 0.02


def test_precision_is_part_of_the_study_and_off_by_default() -> None:
    plain, half = (replace(PASSES, mixed_precision=p) for p in (None, "bf16"))
    assert half.study().content["mixed_precision"] == "bf16"
    assert "mixed_precision" not in plain.config()
    assert half.study().digest != plain.study().digest


@pytest.mark.slow
def test_bfloat16_changes_nats_by_less_than_their_error(tmp_path: Path) -> None:
    found = []
    for precision in (None, "bf16"):
        sweep = Sweep(
            "digits",
            sizes=(128,),
            steps=1000,
            widths=(128,),
            levels=10,
            jacobian_points=0,
            samples=0,
            trajectories=0,
            mixed_precision=precision,
        )
        sweep.run(tmp_path / str(precision), processes=1, quiet=True)
        numbers = geomem.numbers(geomem.load(tmp_path / str(precision)), replicates=200)
        row = numbers.isel(subject=int(np.flatnonzero(numbers.kind == "learned")[0]))
        found.append((float(row.information), float(row.information_stderr)))
    (plain, error), (half, _) = found
    assert abs(plain - half) < error
