r"""Posteriors over shards: other processes, other machines, lost workers, and files of any size."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.compute.executor import Executor
from geomem.compute.local import LocalExecutor
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.exact.blocks import Blocks, InMemory, Streamed
from geomem.exact.posterior import Posterior
from tests.references import normal

N, D = 3000, 16
SIGMAS = torch.logspace(-2, 2, 6)


def same(one: Posterior, other: Posterior, tolerance: float) -> None:
    for name in ("log_partition", "mean", "participation", "entropy"):
        a, b = getattr(one, name), getattr(other, name)
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def training() -> tuple[Tensor, Tensor]:
    return normal(0, N, D).float(), normal(1, 5, D).float()


@dataclass(frozen=True)
class Deadly:
    r"""A set that kills the first worker that reads it, as the system does without memory."""

    source: Blocks
    marker: Path

    @property
    def num_samples(self) -> int:
        return self.source.num_samples

    @property
    def item_shape(self) -> tuple[int, ...]:
        return self.source.item_shape

    @property
    def dtype(self) -> torch.dtype:
        return self.source.dtype

    def blocks(self, size: int) -> Iterator[Tensor]:
        for k, block in enumerate(self.source.blocks(100)):
            if k == 1 and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield block

    def part(self, start: int, stop: int) -> Deadly:
        return Deadly(self.source.part(start, stop), self.marker)

    def some(self, count: int) -> Tensor:
        return self.source.some(count)


def test_two_workers_answer_as_memory_does(two: Executor, tmp_path: Path) -> None:
    data, x = training()
    np.save(tmp_path / "a.npy", data[:1000].numpy())
    np.save(tmp_path / "b.npy", data[1000:].numpy())
    whole = EmpiricalDenoiser(data).posterior(x, SIGMAS)
    for source in (data, [tmp_path / "a.npy", tmp_path / "b.npy"]):
        parts = EmpiricalDenoiser(source).posterior(x, SIGMAS, executor=two, shards=5)
        same(parts, whole, 1e-6)


def test_a_killed_worker_changes_nothing_but_time(two: Executor, tmp_path: Path) -> None:
    data, x = training()
    calm = EmpiricalDenoiser(data, 100).posterior(x, SIGMAS, executor=LocalExecutor(1), shards=4)
    marker = tmp_path / "killed"
    deadly = EmpiricalDenoiser(Deadly(InMemory(data), marker), 100)
    survived = deadly.posterior(x, SIGMAS, executor=two, shards=4)
    assert marker.exists()  # a worker did die
    same(survived, calm, 0.0)  # to the bit: parts are merged in their order


def test_shards_are_merged_in_their_order_whoever_ends_first() -> None:
    class Backwards(LocalExecutor):
        def run(self, function: Any, units: Any, **options: Any) -> Iterator[tuple[Any, Any]]:
            yield from super().run(function, list(reversed(units)), **options)

    data, x = training()
    denoiser = EmpiricalDenoiser(data)
    one = denoiser.posterior(x, SIGMAS, executor=LocalExecutor(1), shards=7)
    other = denoiser.posterior(x, SIGMAS, executor=Backwards(1), shards=7)
    same(one, other, 0.0)


def test_more_shards_than_points() -> None:
    data, x = training()
    denoiser = EmpiricalDenoiser(data[:3])
    parts = denoiser.posterior(x, SIGMAS, executor=LocalExecutor(1), shards=10)
    same(parts, denoiser.posterior(x, SIGMAS), 1e-6)


def test_a_stream_cannot_be_split() -> None:
    stream = EmpiricalDenoiser(Streamed(lambda: iter(torch.ones(4, 2).split(2)), 4))
    with pytest.raises(InputError, match="save it as"):
        stream.posterior(torch.zeros(1, 2), SIGMAS, executor=LocalExecutor(1))


# --------------------------------------------------------------------- a file of 3 GB

LARGE = r"""
import sys, threading, time, torch
from geomem.exact import EmpiricalDenoiser

def anonymous():
    line = next(l for l in open("/proc/self/status") if l.startswith("RssAnon"))
    return int(line.split()[1]) / 2**20

peak = [0.0]
def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
denoiser = EmpiricalDenoiser([sys.argv[1]])
x = torch.load(sys.argv[2], weights_only=True)
answer = denoiser.posterior(x, torch.logspace(-1, 1, 10))
torch.save({"peak": peak[0], "mean": answer.mean, "log": answer.log_partition}, sys.argv[3])
"""


@pytest.mark.slow
def test_a_million_images_on_a_disk_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    rows, d = 1_000_000, 784
    path = tmp_path / "million.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, d))
    for k in range(0, rows, 50_000):
        array[k : k + 50_000] = normal(k, 50_000, d).float().numpy()
    array.flush()
    x = torch.from_numpy(np.array(array[:32])) + 0.5 * normal(-1 % 2**31, 32, d).float()
    del array
    torch.save(x, tmp_path / "x.pt")
    out = tmp_path / "out.pt"
    subprocess.run(
        [sys.executable, "-c", LARGE, path, tmp_path / "x.pt", out], check=True, timeout=900
    )
    found = torch.load(out, weights_only=True)
    print(f"anonymous memory at most {found['peak']:.2f} GiB")
    assert found["peak"] < 1.0
    # The same set in memory, a half at a time: the merge is the answer.
    halves = [np.load(path, mmap_mode="r")[k : k + rows // 2] for k in (0, rows // 2)]
    parts = [
        EmpiricalDenoiser(torch.from_numpy(np.array(h))).posterior(x, torch.logspace(-1, 1, 10))
        for h in halves
    ]
    merged = parts[0].merge(parts[1])
    torch.testing.assert_close(found["log"], merged.log_partition, rtol=1e-6, atol=1e-6)
    radius = d**0.5  # float32 products leave 1e-6 of it, and blocks are cut elsewhere
    torch.testing.assert_close(found["mean"], merged.mean.float(), rtol=0, atol=1e-6 * radius)
