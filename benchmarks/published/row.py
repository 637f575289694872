r"""What every row beside this file shares: a function of a seed, measured and kept.

A row measures what others published, on data and settings of theirs as far as a few minutes of
one core reach, and returns numbers with their standard errors. It is kept as one small file in
``benchmarks/results/published``; ``benchmarks/published_page.py`` writes the page of them.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from geomem.compute.files import atomic_write_text
from geomem.compute.threads import one_thread
from geomem.denoiser import Denoiser
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState
from geomem.stats import Estimate

RESULTS = Path(__file__).parent.parent / "results" / "published"
Found = dict[str, Any]


class Measure(Protocol):
    r"""A row: what is measured of a seed, less of it where it must be quick."""

    def __call__(self, seed: int, *, quick: bool = False) -> Found: ...


def with_error(values: Sequence[float] | np.ndarray | Tensor) -> list[float]:
    r"""The mean of independent values and its standard error."""
    found = Estimate.of_mean(np.asarray(values, dtype=float))
    return [found.value, found.stderr]


def trained(config: NetworkConfig, training: Training, data: Tensor, seed: int) -> Denoiser:
    r"""The averaged network at the end of a training."""
    state = TrainState(config, training, data, seed=seed)
    for _ in range(training.steps):
        state.advance()
    return state.average


def publish(measure: Measure, about: str | None, name: str) -> int:
    r"""Measures a row as the command line says, and keeps it."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    job = parser.parse_args()
    start = time.process_time()
    with one_thread():
        found = measure(job.seed, quick=job.quick)
    seconds = {"seed": job.seed, "cpu_seconds": round(time.process_time() - start, 1)}
    command = f"python benchmarks/published/{name}.py" + (" --quick" if job.quick else "")
    return keep(seconds | found, job.out, command)


def publish_of_runs(measure: Callable[[list[Path]], Found], about: str | None, name: str) -> int:
    r"""Measures a row of the records of runs, and keeps it."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `geomem sweep`")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    job = parser.parse_args()
    return keep(measure(job.runs), job.out, f"python benchmarks/published/{name}.py RUN ...")


def keep(found: Found, out: Path, command: str) -> int:
    r"""Writes what was found, with the command and the versions it was computed with."""
    packages = ("geomem", "torch", "numpy")
    versions = {"python": platform.python_version()} | {p: version(p) for p in packages}
    out.parent.mkdir(parents=True, exist_ok=True)
    text = pretty({"versions": versions, "command": command, **found})
    atomic_write_text(out, text + "\n")
    print(out.name, file=sys.stderr)
    return 0


def pretty(value: Any, indent: str = "") -> str:
    r"""JSON with lists of numbers on one line, of six digits, so that changes can be read."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        items = (f'{inner}"{key}": {pretty(item, inner)}' for key, item in value.items())
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, dict) for item in value):
            lines = ",\n".join(inner + pretty(item, inner) for item in value)
            return f"[\n{lines}\n{indent}]"
        return "[" + ", ".join(pretty(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "null"
    if value is None or isinstance(value, (bool, str)):
        return {None: "null", True: "true", False: "false"}.get(value) or f'"{value}"'
    return str(value)
