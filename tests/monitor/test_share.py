r"""The time of a monitor stays within its share, at any moment, by a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.measure.probes import measure
from geomem.monitor import MemorizationMonitor, images, ready
from geomem.monitor import monitor as module
from geomem.monitor.spacing import Spacing
from tests.monitor.loops import points

TRAIN, HELD_OUT = points(16), points(80, seed=1)
SHARE, STEP, READ, SETUP = 0.05, 0.1, 0.02, 0.15  # seconds of a step, of an item, of a piece


class Clock:
    r"""A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def delayed(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def later(*args: Any, **more: Any) -> Any:
            self.now += seconds
            return function(*args, **more)

        return later


class Items:
    r"""A data set whose items take their time."""

    def __init__(self, rows: Tensor, clock: Clock) -> None:
        self.rows, self.clock = rows, clock

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        self.clock.now += READ
        return self.rows[index]


class Dear:
    r"""A denoiser that takes its time for each row, and keeps how many it was asked for."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds, self.rows = clock, seconds, list[int]()

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.clock.now += len(x) * self.seconds
        self.rows.append(len(x))
        return x / (1 + sigma**2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    r"""A clock that stands still, but for what is given a time."""
    clock = Clock()
    monkeypatch.setattr(module, "Spacing", partial(Spacing, clock=clock))
    monkeypatch.setattr(images, "_study", clock.delayed(images._study, SETUP))
    monkeypatch.setattr(ready, "measure", clock.delayed(measure, SETUP))
    return clock


def trained(
    monitor: MemorizationMonitor, denoiser: Dear, steps: int, first: int = 1
) -> tuple[list[float], int]:
    r"""What was spent beyond the share at each step, and how often something was done in debt."""
    beyond, wrong = [], 0
    for step in range(first, first + steps):
        denoiser.clock.now += STEP
        before = monitor.seconds
        monitor.step(denoiser, step)
        spent, training = monitor.seconds
        # The first step begins the training: there is nothing before that could pay.
        room = SHARE * max(before[1], training)
        wrong += spent > before[0] and before[0] > room
        beyond.append(spent - SHARE * training)
    return beyond, wrong


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 1e-2])
def test_what_can_be_foreseen_never_goes_beyond_the_share(clock: Clock, seconds: float) -> None:
    denoiser = Dear(clock, seconds)
    monitor = MemorizationMonitor(Items(TRAIN, clock), Items(HELD_OUT, clock), every=1, levels=5)
    start = monitor.seconds[0]
    assert start == READ  # of all images one is read before the training pays
    beyond, wrong = trained(monitor, denoiser, 20_000)
    assert wrong == 0
    # A few rows tell what a batch takes, and nothing tells what they do.
    assert max(beyond) <= start + 16 * seconds
    assert max(beyond[round(start / SHARE / STEP) + 1 :]) <= 16 * seconds
    assert len(monitor.history) >= 3
    assert not monitor.fault


def test_the_first_look_comes_when_there_is_room(clock: Clock) -> None:
    denoiser = Dear(clock, 1e-3)
    monitor = MemorizationMonitor(Items(TRAIN, clock), Items(HELD_OUT, clock), every=1, levels=5)
    while not monitor.history:
        clock.now += STEP
        monitor.step(denoiser)
    spent, training = monitor.seconds
    assert spent <= SHARE * training <= 1.5 * spent
    # The images, the directions, the control; a few rows, a batch and the look itself.
    asked = sum(denoiser.rows) * denoiser.seconds
    assert spent == pytest.approx((16 + 80) * READ + 2 * SETUP + asked)


def test_what_nobody_could_foresee_is_paid_back_before_anything_else(clock: Clock) -> None:
    denoiser = Dear(clock, 1e-3)
    monitor = MemorizationMonitor(TRAIN, HELD_OUT, every=1, levels=5)
    trained(monitor, denoiser, 2000)
    looks = len(monitor.history)
    assert looks > 0
    denoiser.seconds *= 50  # the machine is shared from now on
    beyond, wrong = trained(monitor, denoiser, 40_000, first=2001)
    assert wrong == 0
    assert max(beyond) > 0  # by one look,
    assert len(monitor.history) > looks + 1  # and it goes on when that is paid for
    assert beyond[-1] <= 0


def test_a_batch_that_is_too_dear_is_not_asked_again_and_again(clock: Clock) -> None:
    denoiser = Dear(clock, 1.0)
    monitor = MemorizationMonitor(TRAIN, HELD_OUT, every=1, levels=5)
    trained(monitor, denoiser, 5000)
    assert denoiser.rows == [8, 8]
    assert monitor.history == []


def test_a_training_too_short_for_a_look_pays_for_none(clock: Clock, tmp_path: Path) -> None:
    denoiser, out = Dear(clock, 1e-3), tmp_path / "run"
    out.mkdir()  # an empty folder is no training that was interrupted
    monitor = MemorizationMonitor(TRAIN, HELD_OUT, every=1, levels=5, out=out)
    assert monitor.seconds[0] == 0
    beyond, _ = trained(monitor, denoiser, 100)
    assert max(beyond) <= 0
    assert not monitor.history
    assert not denoiser.rows
    assert not list(out.iterdir())


def test_images_on_both_sides_are_said_as_early_as_they_are_read(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    # In memory they are compared at once, those that are not measured too.
    many = points(300)
    monitor = MemorizationMonitor(many, torch.cat([HELD_OUT, many[::60]]))
    assert "5 of 85 held-out images are among the training images" in monitor.fault
    # Another image of the same values where most of the variation is, is another image.
    wide = torch.cat([many, 0.01 * points(300, 2, size=60)], 1)
    other = wide[:80].clone()
    other[:, -1] += 1e-3
    assert not MemorizationMonitor(wide, other).fault
    caplog.clear()
    both = Items(torch.cat([HELD_OUT, TRAIN]), clock)
    monitor, denoiser = MemorizationMonitor(Items(TRAIN, clock), both), Dear(clock, 1e-3)
    assert not monitor.fault
    trained(monitor, denoiser, round(1.2 * 112 * READ / SHARE / STEP))
    assert "held-out images are among the training images" in monitor.fault
    assert len([r for r in caplog.records if r.name == "geomem.monitor"]) == 1
    assert denoiser.rows == []


def test_the_share_is_that_of_the_whole_training_where_checkpoints_tell(clock: Clock) -> None:
    denoiser = Dear(clock, 1e-3)
    first = MemorizationMonitor(TRAIN, HELD_OUT, every=1, levels=5)
    trained(first, denoiser, 3000)
    second = MemorizationMonitor(TRAIN, HELD_OUT, every=1, levels=5)
    second.load_state_dict(first.state_dict())
    assert second.seconds == pytest.approx(first.seconds)
    second.step(denoiser)
    assert second.steps == 3001
    assert second.seconds[0] > first.seconds[0]  # there is time for getting ready at once
    # Within one session a checkpoint only sets the step back.
    spent, training = first.seconds
    first.load_state_dict({"steps": 10, "seconds": [1.0, 2.0]})
    assert first.seconds == (spent, training)
    first.load_state_dict({"steps": 10})  # of a monitor that did not keep its seconds
    assert first.steps == 10


def test_levels_are_there_when_they_are_asked_for(clock: Clock) -> None:
    monitor = MemorizationMonitor(Items(TRAIN, clock), Items(HELD_OUT, clock), levels=5)
    assert monitor.sigmas.shape == (5,)
    assert monitor.seconds[0] > 0
    broken = MemorizationMonitor(TRAIN, TRAIN)
    with pytest.raises(InputError, match="no noise levels: 16 of 16 held-out"):
        _ = broken.sigmas
