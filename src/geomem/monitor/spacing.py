r"""When to look: at doubling steps, at most 20 times, and only where time allows it.

A look costs what it costs, and a training is not to be slowed down: the time spent in looks stays
below a share of the time spent outside of them. What a look costs is known from the last one;
before the first, from one batch. A look that cannot be paid for waits until it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_LOOKS = 20


@dataclass
class Spacing:
    r"""When to look, and what it has cost.

    Attributes:
        every: The step of the first look.
        growth: By which factor the steps of looks grow.
        share: The time of looks over that of training, at most.
        clock: Seconds that pass.
        taken: How many looks there were.
        next: The step from which on the next look is due.
        spent: Seconds spent in looks, and in getting ready for them.
        cost: Seconds that the next look will take; None where nothing is known of it.
        began: When the training began.
    """

    every: int
    growth: float = 2.0
    share: float = 0.05
    clock: Callable[[], float] = time.perf_counter
    taken: int = 0
    next: int = 0
    spent: float = 0.0
    cost: float | None = None
    began: float | None = field(default=None)

    def __post_init__(self) -> None:
        self.next = self.next or self.every

    def begin(self) -> None:
        r"""The training begins, if it has not yet: what was spent before is no part of it."""
        if self.began is None:
            self.began = self.clock() - self.spent

    @property
    def training_seconds(self) -> float:
        r"""Seconds of training, without those of looks."""
        return 0.0 if self.began is None else self.clock() - self.began - self.spent

    def due(self, step: int) -> bool:
        r"""Whether the next look is due at a step, whatever it costs."""
        return self.taken < MOST_LOOKS and step >= self.next

    def affords(self, seconds: float) -> bool:
        r"""Whether so many seconds more stay within the share."""
        return self.spent + seconds <= self.share * self.training_seconds

    def took(self, step: int) -> None:
        r"""A look was taken at a step."""
        self.taken += 1
        self.skip(step)

    def skip(self, step: int) -> None:
        r"""The look of a step is over, whether it was of use or not."""
        self.next = max(step + 1, round(step * self.growth))
