r"""When looks are taken: doubling steps, twenty at most, a share of the time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from geomem.monitor.spacing import MOST_LOOKS, Spacing


class Clock:
    r"""A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(spacing: Spacing, steps: int) -> list[int]:
    found = []
    for step in range(1, steps + 1):
        if spacing.due(step):
            found.append(step)
            spacing.took(step)
    return found


def test_steps_double() -> None:
    assert taken(Spacing(100), 1000) == [100, 200, 400, 800]
    assert taken(Spacing(2, growth=1.5), 20) == [2, 3, 4, 6, 9, 14]


def test_there_are_at_most_twenty_looks() -> None:
    assert len(taken(Spacing(1, growth=1.01), 1000)) == MOST_LOOKS == 20


@pytest.mark.parametrize("cost", [0.5, 5.0, 200.0])
def test_looks_wait_until_they_can_be_paid_for(cost: float) -> None:
    clock = Clock()
    spacing = Spacing(10, share=0.05, clock=clock, paid=1.0)
    spacing.begin()
    found = []
    for step in range(1, 5001):
        clock.now += 1.0  # a step of training takes a second
        if spacing.due(step) and spacing.affords(cost):
            found.append(step)
            with spacing.paying():
                clock.now += cost
            spacing.took(step)
        if spacing.taken:
            assert spacing.spent <= 0.05 * spacing.training_seconds * (1 + 1e-9)
    assert found[0] >= max(10, (1.0 + cost) / 0.05)
    assert all(b >= 2 * a for a, b in pairwise(found))


def test_time_before_the_first_step_is_not_training() -> None:
    clock = Clock()
    spacing = Spacing(1, clock=clock, paid=3.0)
    clock.now = 1000.0
    assert spacing.training_seconds == 0
    spacing.begin()
    clock.now += 7.0
    assert spacing.training_seconds == 7.0
    assert not spacing.affords(0.0)


def test_no_limit() -> None:
    spacing = Spacing(1, share=math.inf)
    spacing.begin()
    assert spacing.affords(1e9)
