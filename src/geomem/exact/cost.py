r"""What a pass over a training set will cost, said before it starts, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from torch import Tensor

from geomem.compute.progress import Forecast, Progress, say
from geomem.exact.blocks import Block, Blocks
from geomem.exact.one_pass import QUERIES

# Longer work, in seconds, says before what it will cost, and shows its progress.
LONG = 20.0
_ROWS = 4096
_ADVICE = "pass fewer queries or levels at a time, or scalars_only=True"


def forecast(
    work: Callable[[Block], object], source: Blocks, centre: Tensor, queries: int, num_bytes: float
) -> Forecast:
    r"""Times the work on a small block; ``queries`` that are asked, at most ``QUERIES`` of them
    in ``work``.
    """
    rows = source.some(_ROWS)[:_ROWS]
    started = time.perf_counter()
    work(Block(rows, centre))
    taken = time.perf_counter() - started
    share = (
        min(len(rows), source.num_samples)
        / source.num_samples
        * min(queries, QUERIES)
        / max(queries, 1)
    )
    return Forecast(taken / share, num_bytes)


class Announced:
    r"""Progress in pairs of a query and a training point; silent where work is short.

    Arguments:
        what: What is done.
        expected: Called where the work may be long, for its forecast.
        pairs: How many pairs there are in all.
        nanoseconds: For each of them, at least.
        num_bytes: Memory that is taken; refused, with advice, where it would not fit.
        who: Who does the work, if it is not this process.
    """

    def __init__(
        self,
        what: str,
        expected: Callable[[], Forecast],
        *,
        pairs: int,
        nanoseconds: float,
        num_bytes: float,
        who: str = "",
    ) -> None:
        Forecast(0, num_bytes).check_memory(_ADVICE)
        self.done, self.progress = 0, None
        if pairs * nanoseconds < 1e9 * LONG / 4:
            return  # only what may be long is timed
        cost = expected()
        if cost.seconds >= LONG:
            say(f"{what}: {cost}{who}")
            self.progress = Progress(pairs, what)

    def __call__(self, pairs: int) -> None:
        self.done += pairs
        if self.progress is not None:
            self.progress.update(self.done)

    def follow(self, blocks: Iterator[Block], queries: int) -> Iterator[Block]:
        r"""The blocks; one is done when the next one is asked for."""
        for block in blocks:
            yield block
            self(queries * len(block))

    def finish(self) -> None:
        r"""Says that the work is done, where it was announced."""
        if self.progress is not None:
            self.progress.finish()
