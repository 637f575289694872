r"""Forecasts: timed where it will be computed, on workers that share it, less what is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geomem.compute import devices
from geomem.compute.devices import pace, seconds_once
from geomem.compute.local import LocalExecutor
from geomem.compute.progress import Progress
from geomem.compute.ray import RayExecutor
from geomem.experiments.experiment import forecast
from geomem.measure.dimension import LocalDimensions
from geomem.measure.study import Study
from geomem.measure.subject import Subject
from geomem.models.train import TrainState
from geomem.runs import audit_time, calls, sweep
from geomem.runs.jobs import jobs_to_do
from geomem.runs.sweep import Sweep
from tests.runs.test_recipe import PASSES

PACES = {"cpu": 1.0, "card": 0.01}  # seconds a step, in place of a clock


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    r"""The devices on which steps of training were timed; there is no card here."""
    found: list[str] = []

    class Elsewhere(TrainState):
        def __init__(self, *args: Any, device: str, **more: Any) -> None:
            super().__init__(*args, **more)
            self.device = device

    def timed(action: Callable[[], Any], device: str) -> float:
        state = getattr(action, "__self__", None)
        assert isinstance(state, Elsewhere)
        assert state.device == device
        found.append(device)
        return PACES[device]

    for module in (sweep, audit_time):
        monkeypatch.setattr(module, "TrainState", Elsewhere)
        monkeypatch.setattr(module, "timed", timed)
    return found


def test_steps_are_timed_once_and_where_they_will_be_done(asked: list[str]) -> None:
    run = replace(PASSES, widths=())  # that was not timed yet
    study = run.study()
    learned = [s for s in run.subjects(study) if s.kind == "learned"]
    costs = {d: sum(run.seconds(s, study, d) for s in learned) for d in PACES}
    assert costs["cpu"] == pytest.approx(100 * costs["card"])
    budget = replace(run, epochs=None, measured_epochs=())
    assert asked == ["cpu", "card"]
    steps = {d: budget.within(1e4, 1, d).training.steps for d in PACES}
    assert steps["card"] == pytest.approx(100 * steps["cpu"], rel=0.01)


def test_processes_share_a_card_and_workers_of_a_cluster_have_one_each() -> None:
    assert [pace(LocalExecutor(k), "cuda:0") for k in (1, 2, 12)] == [1, 2, 2]
    assert pace(LocalExecutor(12), "cpu") == 12

    class Cluster(RayExecutor):
        def workers(self) -> int:
            return 8

    assert pace(Cluster(), "cuda") == 8


def test_an_experiment_is_forecast_where_it_will_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sweep, "_step_seconds", lambda self, width, device: PACES[device])
    seconds = {d: forecast({"run": PASSES}, tmp_path, 1, d) for d in PACES}
    assert 50 < seconds["cpu"] < 60  # 10 steps and 40, of a second each
    assert 0.5 < seconds["card"] < 5  # the rest are exact denoisers, which stay on the CPU
    both = forecast({"run": PASSES}, tmp_path, 2, "cpu")
    assert 40 < both < seconds["cpu"]  # no shorter than the longest training


def test_a_launch_is_not_taken_for_work(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: said.append(str(device)))
    seconds_once(lambda: said.append("asked"), "cpu")
    assert said == ["asked"]
    seconds_once(lambda: said.append("asked"), "cuda:1")
    assert said[1:] == ["asked", "cuda:1"] * 2  # the first time it loads what it uses
    said.clear()
    ticks = iter(float(k) for k in range(99))
    monkeypatch.setattr("geomem.runs.calls.time.perf_counter", lambda: next(ticks))
    calls.timed(lambda: said.append("asked"), "cuda:1")
    assert said == ["asked", "cuda:1"] * (len(said) // 2)
    assert devices.is_accelerator("cuda:1")


def test_questions_are_asked_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Subject] = []

    def question_seconds(self: LocalDimensions, subject: Subject, study: Study) -> float:
        found.append(subject)
        return 0.0

    monkeypatch.setattr(LocalDimensions, "question_seconds", question_seconds)
    run = replace(PASSES, dimension=("soft-count",))
    study = run.study()
    monkeypatch.setattr(Sweep, "_step_seconds", lambda self, width, device: 0.0)
    for subject in run.subjects(study):
        run.seconds(subject, study, "meta")
    # Networks there; exact denoisers are measured on the CPU.
    assert {(s.description.kind, s.device) for s in found} == {
        *((kind, "cpu") for kind in ("linear", "population", "empirical")),
        ("learned", "meta"),
    }


def test_a_training_is_forecast_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sweep, "_step_seconds", lambda self, width, device: 1.0)
    run = replace(PASSES, measured_epochs=())
    folder, study = run.prepare(tmp_path / "run"), run.study()
    job = jobs_to_do(folder)[0]  # N = 64: 40 steps
    whole = run.seconds_left(folder, study, job, "cpu")
    assert whole == pytest.approx(run.seconds(folder.subjects[job[0]], study))
    monkeypatch.setattr("geomem.models.train.SECONDS", 0.0)  # between two checkpoints
    advance = TrainState.advance

    def interrupted(self: TrainState) -> None:
        if self.step == 30:
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr(TrainState, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run_units(tmp_path / "run", job, quiet=True)
    assert run.seconds_left(folder, study, job, "cpu") == pytest.approx(whole - 30)
    # Its progress begins where it goes on: the rest was done before.
    monkeypatch.setattr(TrainState, "advance", advance)
    done: list[float] = []
    monkeypatch.setattr(Progress, "update", lambda self, share, note: done.append(share))
    run.run_units(tmp_path / "run", job, quiet=True)
    assert done[0] == 0
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1)


def test_steps_behind_a_checkpoint_that_is_of_no_use_are_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sweep, "_step_seconds", lambda self, width, device: 1.0)
    folder, study = PASSES.prepare(tmp_path / "run"), PASSES.study()
    job = jobs_to_do(folder)[0]  # N = 64, at 10 and 40 steps
    measuring = PASSES.seconds_left(folder, study, job, "cpu") - 40
    # Its first network was measured and its checkpoint is gone: all 40 steps for the second.
    assert PASSES.seconds_left(folder, study, job[1:], "cpu") == pytest.approx(40 + measuring / 2)
    state = TrainState(PASSES.network_config, PASSES.training, torch.zeros(2, 4), seed=0)
    state.step = 20
    (folder.path / "checkpoints").mkdir()
    state.save(PASSES._checkpoint(folder, PASSES._name(folder.subjects[job[0]])))
    assert PASSES.seconds_left(folder, study, job[1:], "cpu") == pytest.approx(20 + measuring / 2)
    # The first network is wanted, and the checkpoint lies behind it.
    assert PASSES.seconds_left(folder, study, job, "cpu") == pytest.approx(40 + measuring)
