r"""When to look: at doubling steps, at most 20 times, and only where time allows it.

A look costs what it costs, and a training is not to be slowed down: the time spent in looks, and
in getting ready for them, stays below a share of the time spent outside of them, at any moment.
So whatever is to be done comes with the seconds that it will take, and waits until the training so
far can pay for them. What a look takes is known from the last one; before the first, from a batch
(:mod:`geomem.monitor.forecast`). Only what takes longer than was foreseen goes beyond the share,
once, and is paid back before anything else is done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
        paid: Seconds spent in looks, and in getting ready for them, up to the last one.
        since: When what is going on now began; None if nothing is.
        began: When the training began.
        earlier: Seconds of the training before it was interrupted.
    """

    every: int
    growth: float = 2.0
    share: float = 0.05
    clock: Callable[[], float] = time.perf_counter
    taken: int = 0
    next: int = 0
    paid: float = 0.0
    since: float | None = None
    began: float | None = None
    earlier: float = 0.0

    def __post_init__(self) -> None:
        self.next = self.next or self.every

    def begin(self) -> None:
        r"""The training begins, if it has not yet: what was spent before is no part of it."""
        if self.began is None:
            self.began = self.clock() - self.spent

    @contextmanager
    def paying(self) -> Iterator[None]:
        r"""What is done inside is no training: it is paid for."""
        self.since = self.clock()
        try:
            yield
        finally:
            self.paid, self.since = self.spent, None

    @property
    def spent(self) -> float:
        r"""Seconds spent in looks, and in getting ready for them."""
        return self.paid + (0.0 if self.since is None else self.clock() - self.since)

    @property
    def training_seconds(self) -> float:
        r"""Seconds of training, without those of looks."""
        now = 0.0 if self.began is None else self.clock() - self.began - self.spent
        return self.earlier + now

    def resume(self, spent: float, training: float) -> None:
        r"""Goes on from what an interrupted training has spent, unless this one has begun."""
        if self.began is None:
            self.paid, self.earlier = self.paid + spent, training

    def due(self, step: int) -> bool:
        r"""Whether the next look is due at a step, whatever it costs."""
        return self.taken < MOST_LOOKS and step >= self.next

    def affords(self, seconds: float) -> bool:
        r"""Whether so many seconds more stay within the share."""
        if self.share == math.inf:
            return True
        return self.spent + seconds <= self.share * self.training_seconds

    def took(self, step: int) -> None:
        r"""A look was taken at a step."""
        self.taken += 1
        self.skip(step)

    def skip(self, step: int) -> None:
        r"""The look of a step is over, whether it was of use or not."""
        self.next = max(step + 1, round(step * self.growth))
