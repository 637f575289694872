r"""What every benchmark shares: rounds of all competitors in turn, ratios with spread, the machine.

Absolute times do not carry over to another machine; ratios taken in one process do. Each round
times every competitor once, in turn, so that a slow minute hits all of them, and a ratio is
taken inside its round.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from geomem.compute.files import atomic_write_text
from geomem.compute.threads import num_cores

RESULTS = Path(__file__).parent / "results"


@dataclass
class Competitor:
    r"""Something that is timed.

    Attributes:
        run: What is timed; its answer is kept.
        times: How many times of this it takes to do the whole job: a peer that works level
            by level is timed at some of the levels.
        skipped: Why it does not take part.
    """

    run: Callable[[], Any] | None
    times: float = 1.0
    skipped: str = ""
    seconds: list[float] = field(default_factory=list)
    answer: Any = None


def in_turn(competitors: dict[str, Competitor], rounds: int, quiet: bool = False) -> None:
    r"""Times all competitors, ``rounds`` times in turn, after one round that does not count."""
    for k in range(rounds + 1):
        for name, c in competitors.items():
            if c.run is None:
                continue
            start = time.perf_counter()
            c.answer = c.run()
            taken = (time.perf_counter() - start) * c.times
            if k:
                c.seconds.append(taken)
            elif not quiet:
                print(f"  {name}: {taken:.3f} s", file=sys.stderr, flush=True)


def summary(values: list[float]) -> dict[str, float]:
    r"""Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(competitors: dict[str, Competitor], base: str) -> dict[str, Any]:
    r"""How many times as long as ``base`` each competitor takes: median and range over rounds."""
    ours = competitors[base].seconds
    table: dict[str, Any] = {}
    for name, c in competitors.items():
        if c.run is None:
            table[name] = {"skipped": c.skipped}
            continue
        each = [a / b for a, b in zip(c.seconds, ours, strict=True)]
        table[name] = {"seconds": summary(c.seconds), "ratio": summary(each)}
    return table


# Three products of 2048 x 2048 matrices, as a competitor of its own.
SOME_FLOPS = 3 * 2 * 2048**3


def some_products(square: torch.Tensor) -> None:
    r"""What the machine's rate of products is taken from, in the same rounds as all others."""
    for _ in range(3):
        square @ square


def product_rate(size: int = 2048, rounds: int = 7) -> float:
    r"""The machine's own rate of float32 matrix products, in flop/s: the best of some rounds."""
    a = torch.randn(size, size)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def bandwidth(rounds: int = 5) -> float:
    r"""Bytes a second of a copy that does not fit into any cache, read and written."""
    a = torch.zeros(2**26)
    b = torch.empty_like(a)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        b.copy_(a)
        times.append(time.perf_counter() - start)
    return 2 * a.numel() * 4 / min(times)


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    r"""Yields a list that ends up with the MiB of anonymous memory taken at most inside."""
    found, stop = [0.0], threading.Event()
    if sys.platform == "linux":  # what was freed before is given back, and counted if taken
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _anonymous()

    def watch() -> None:
        while not stop.is_set():
            found[0] = max(found[0], _anonymous() - before)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()


def _anonymous() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(s for s in lines if s.startswith("RssAnon")).split()[1]) / 1024


def versions(*packages: str) -> dict[str, str | None]:
    r"""What is installed of geomem, torch, NumPy and some more; None where it is not."""
    found: dict[str, str | None] = {}
    for name in ("geomem", "torch", "numpy", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def environment(*packages: str) -> dict[str, Any]:
    r"""Versions and the machine, as far as others can compare it with theirs."""
    return {
        "versions": {"python": platform.python_version(), **versions(*packages)},
        "machine": {
            "cpu": _cpu(),
            "cores": num_cores(),
            "threads": torch.get_num_threads(),
            "load_before": os.getloadavg()[0],
            "float32_product_gflops": product_rate() / 1e9,
            "bandwidth_gbytes": bandwidth() / 1e9,
        },
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")]
    return names[0] if names else platform.machine()


def write(path: Path, result: dict[str, Any]) -> None:
    r"""Writes a result as JSON, whole or not at all."""
    atomic_write_text(path, json.dumps(result, indent=1) + "\n")
    print(path)
