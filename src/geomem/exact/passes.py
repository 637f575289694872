r"""One pass of queries over a training set: in this process, or by shards elsewhere.

The posterior over a set is the merge of the posteriors over its parts, so a pass over blocks
of memory, over a file on a disk and over shards on the machines of a cluster is one function.
A shard is addressed by its number and its answer depends on nothing else, so whoever was lost
is replaced, and the answer stays the same to the bit: parts are merged in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise

import torch
from torch import Tensor

from geomem.compute.executor import Executor
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.exact.blocks import Block, Blocks
from geomem.exact.cost import Announced, forecast
from geomem.exact.one_pass import PAIRS, QUERIES, block_posterior, concatenate
from geomem.exact.posterior import Posterior


@dataclass(frozen=True, eq=False)
class Pass:
    r"""Queries and how they are answered, whatever the training points.

    Attributes:
        x: The queries, with shape :math:`(B, d)`, in float64.
        levels: The noise levels, with shape :math:`(T, B)`, in float64.
        centre: The centre of the training set, with shape :math:`(d)`, in float64.
        dtype: The dtype of products over many points.
        log_tolerance: Logarithm of the weight, relative to the heaviest point's, below which
            a single point may be left out.
        with_mean: Whether to compute means.
        chunk_size: How many training points meet the queries at a time.
    """

    x: Tensor
    levels: Tensor
    centre: Tensor
    dtype: torch.dtype
    log_tolerance: float
    with_mean: bool
    chunk_size: int | None = None

    def over(self, source: Blocks, on_pairs: Callable[[int], None] = lambda n: None) -> Posterior:
        r"""The posterior over a set; ``on_pairs`` is told how many pairs have met.

        Means are about the centre, with shape :math:`(T, B, d)`, in float64.
        """
        found = []
        groups = torch.split(self.x, QUERIES), torch.split(self.levels, QUERIES, dim=1)
        for x, levels in zip(*groups, strict=True):
            parts = []
            for block in blocks_of(source, self.centre, self.chunk_size or block_size(len(x))):
                parts.append(self.over_block(x, levels, block))
                on_pairs(len(x) * len(block))
                parts = [reduce(Posterior.merge, parts)]
            found += parts
        return concatenate(found)

    def over_block(self, x: Tensor, levels: Tensor, block: Block) -> Posterior:
        r"""The posterior of some of the queries over one block."""
        return block_posterior(
            x,
            levels,
            block,
            dtype=self.dtype,
            log_tolerance=self.log_tolerance,
            with_mean=self.with_mean,
        )

    def num_bytes(self, num_samples: int) -> float:
        r"""Memory that the pass takes beside the data."""
        B, d = min(len(self.x), QUERIES), self.x.shape[1] if self.with_mean else 0
        pairs = min(B * num_samples, PAIRS)
        answers = self.levels.numel() * 8 * (5 + 3 * d)  # what is merged, merged, and returned
        return float(self.dtype.itemsize * pairs + 2**26 + answers)

    def forecast(self, source: Blocks, ask: Callable[[Block], object] | None = None) -> Forecast:
        r"""What the pass will cost, from one small block that is asked."""
        first = partial(self.over_block, self.x[:QUERIES], self.levels[:, :QUERIES])
        bound = self.num_bytes(source.num_samples)
        return forecast(ask or first, source, self.centre, len(self.x), bound)

    def told(
        self,
        what: str,
        source: Blocks,
        ask: Callable[[Block], object] | None = None,
        who: str = "",
    ) -> Announced:
        r"""Says what the pass will cost, if that is much, and then how far it is."""
        (B, d), T = self.x.shape, len(self.levels)
        return Announced(
            what,
            partial(self.forecast, source, ask),
            pairs=B * source.num_samples,
            # As on a fast machine, so that the trial itself costs short work nothing.
            nanoseconds=(d + T * (d * self.with_mean + 20)) / 50,
            num_bytes=self.num_bytes(source.num_samples),
            who=who,
        )

    def answer(self, source: Blocks, executor: Executor | None, shards: int | None) -> Posterior:
        r"""The posterior over a set, announced where it is long.

        Arguments:
            source: The training set.
            executor: Whose workers answer the shards; this process alone if not given.
            shards: How many; two a worker if not given.
        """
        who = "" if executor is None else f" of work for {executor.workers()} workers"
        told = self.told("exact posterior", source, who=who)
        if executor is None:
            merged = self.over(source, told)
        else:
            merged = self.over_shards(source, executor, shards or 2 * executor.workers(), told)
        told.finish()
        return merged

    def over_shards(
        self, source: Blocks, executor: Executor, shards: int, on_pairs: Callable[[int], None]
    ) -> Posterior:
        r"""The posterior over a set whose shards are answered by an executor's workers."""
        if executor.here:  # its workers share this memory
            Forecast(0, executor.workers() * self.num_bytes(source.num_samples)).check_memory(
                "use fewer processes, or pass fewer queries at a time"
            )
        edges = [k * source.num_samples // shards for k in range(shards + 1)]
        ranges = [(a, b) for a, b in pairwise(edges) if b > a]
        units = [Shard(k, source.part(a, b), self) for k, (a, b) in enumerate(ranges)]
        parts: dict[int, Posterior] = {}
        for unit, part in executor.run(answer, units):
            parts[unit.number] = part
            on_pairs(len(self.x) * unit.source.num_samples)
        return reduce(Posterior.merge, (parts[k] for k in range(len(units))))


@dataclass(frozen=True, eq=False)
class Shard:
    r"""A unit of work: one part of the training set, and the queries that it is asked."""

    number: int
    source: Blocks
    questions: Pass


def answer(shard: Shard, report: Callable[[object], None]) -> Posterior:
    r"""The posterior over one shard, wherever it is run."""
    return shard.questions.over(shard.source)


def block_size(num_queries: int, pairs: int = PAIRS) -> int:
    r"""As many points as keep the memory of their pairs with the queries small."""
    return max(1, pairs // min(max(num_queries, 1), QUERIES))


def blocks_of(source: Blocks, centre: Tensor, size: int) -> Iterator[Block]:
    r"""A set in blocks of at most ``size`` points."""
    for rows in source.blocks(size):
        if rows.shape[1] != len(centre):
            raise InputError(
                f"a block holds points of {rows.shape[1]} coordinates and the set has "
                f"{len(centre)}; the parts of a set must be alike"
            )
        yield Block(rows, centre)
