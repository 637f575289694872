r"""Scaling: the exact posterior over shards on 1 and 2 workers, and what that says of more.

Run on a quiet machine:  python benchmarks/scaling.py [--out benchmarks/results/scaling.json]

A fixed job, B queries against N points at T levels, is split into one shard a worker. With W
workers it should take

    t(W) = start + work / W + merge * W

seconds, where each term is measured by itself and not fitted:

    start   W workers that do nothing: processes or tasks that start (one local worker is this
            very process and needs no start: W = 1 has its own)
    work    seconds inside the only worker of W = 1, which reads its rows and computes, one thread
    merge   what one worker's result costs: it is pickled, unpickled and merged; between
            machines add ``result_bytes`` over their bandwidth

Measured times of W = 1 and 2 stand beside the model's. Two workers of one machine share its
memory and caches, which the model leaves out: ``contention`` is how much longer the same work
takes beside another worker. Machines of a cluster do not pay it.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import versions

from geomem.compute.executor import Executor
from geomem.compute.files import atomic_write_text
from geomem.compute.local import LocalExecutor
from geomem.compute.ray import RayExecutor
from geomem.compute.threads import num_cores, one_thread
from geomem.exact import EmpiricalDenoiser, Posterior
from geomem.stats import torch_rng

SEED = 0
EXTRAPOLATED = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Shard:
    r"""Rows of a file of training points, and the questions about them."""

    path: str
    start: int
    stop: int
    x: torch.Tensor
    sigmas: torch.Tensor


def answer(shard: Shard, report: Callable[[Any], None]) -> tuple[Posterior, float]:
    r"""The posterior over one shard, and the seconds that computing it took."""
    start = time.perf_counter()
    rows = np.load(shard.path, mmap_mode="r")[shard.start : shard.stop]
    data = torch.from_numpy(np.array(rows))
    posterior = EmpiricalDenoiser(data).posterior(shard.x, shard.sigmas)
    return posterior, time.perf_counter() - start


def nothing(unit: int, report: Callable[[Any], None]) -> None:
    r"""A worker that starts and has nothing to do, beside what every worker must load."""
    import geomem.exact  # noqa: F401


# ------------------------------------------------------------------------------- measuring


def seconds(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    r"""Median and range of the seconds that something takes."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def split(path: Path, n: int, workers: int, x: torch.Tensor, sigmas: torch.Tensor) -> list[Shard]:
    edges = np.linspace(0, n, workers + 1).astype(int).tolist()
    return [Shard(str(path), a, b, x, sigmas) for a, b in pairwise(edges)]


def measure(
    make: Callable[[int], Executor], path: Path, job: argparse.Namespace, whole: Posterior
) -> dict[str, Any]:
    x, sigmas = questions(job)
    known: dict[str, Any] = {"workers": {}}
    inside: dict[int, list[float]] = {}
    for workers in (1, 2):
        shards = split(path, job.num_samples, workers, x, sigmas)
        inside[workers], executor, found = [], make(workers), []

        def run(shards: Any = shards, executor: Any = executor, found: Any = found) -> None:
            results = [result for _, result in executor.run(answer, shards)]
            found[:] = [reduce(Posterior.merge, (posterior for posterior, _ in results))]
            inside[len(shards)].append(sum(spent for _, spent in results))

        total = seconds(run, job.repeats)
        start = seconds(
            lambda e=executor, w=workers: list(e.run(nothing, list(range(w)))), job.repeats
        )
        known["workers"][workers] = {
            "total": total,
            "start": start,
            "work": statistics.median(inside[workers]),
            "largest_difference": difference(found[0], whole),
        }
    known["merge"] = seconds(lambda: merge_once(whole), 3 * job.repeats)
    known["result_bytes"] = len(pickle.dumps(whole))
    return known | model(known)


def merge_once(result: Posterior) -> Posterior:
    return result.merge(pickle.loads(pickle.dumps(result)))


def model(known: dict[str, Any]) -> dict[str, Any]:
    one, two = known["workers"][1], known["workers"][2]
    work, merge = one["work"], known["merge"]["median"]

    def t(W: int) -> float:
        start = one["start"]["median"] if W == 1 else two["start"]["median"]
        return float(start + work / W + merge * W)

    return {
        "contention": two["work"] / work,
        "speedup": one["total"]["median"] / two["total"]["median"],
        "speedup_of_work": work / (two["work"] / 2),
        "model_to_measured": {W: t(W) / known["workers"][W]["total"]["median"] for W in (1, 2)},
        "extrapolated": {W: t(W) for W in EXTRAPOLATED},
        # dt/dW = 0: more workers than this only merge more.
        "fastest_workers": round((work / merge) ** 0.5),
    }


def difference(found: Posterior, whole: Posterior) -> dict[str, float]:
    names = ("log_partition", "mean", "participation", "entropy")
    return {n: float((getattr(found, n) - getattr(whole, n)).abs().max()) for n in names}


# ------------------------------------------------------------------------------ the fixed job


def questions(job: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(job.queries, job.dim, generator=torch_rng(SEED, "scaling/queries"))
    return x, torch.logspace(-1, 1, job.levels, dtype=torch.float64)


def write_points(path: Path, job: argparse.Namespace) -> torch.Tensor:
    data = torch.randn(job.num_samples, job.dim, generator=torch_rng(SEED, "scaling/data"))
    np.save(path, data.numpy())
    return data


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling.json"))
    parser.add_argument("--num-samples", type=int, default=400_000, help="N")
    parser.add_argument("--dim", type=int, default=784, help="d")
    parser.add_argument("--queries", type=int, default=128, help="B")
    parser.add_argument("--levels", type=int, default=20, help="T")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    return {
        "cores": num_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions("ray"),
    }


def executors() -> dict[str, Callable[[int], Executor]]:
    kinds: dict[str, Callable[[int], Executor]] = {"local": LocalExecutor}
    if versions("ray")["ray"]:
        kinds["ray"] = RayExecutor
    return kinds


def main() -> int:
    job, here = arguments(), machine()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.npy"
        data = write_points(path, job)
        with one_thread():
            start = time.perf_counter()
            whole = EmpiricalDenoiser(data).posterior(*questions(job))
            alone = time.perf_counter() - start
        del data
        for name, make in executors().items():
            if name == "ray":  # the session starts once, and is told apart from the runs
                begun = seconds(lambda make=make: list(make(2).run(nothing, [0])), 1)["median"]
            results[name] = measure(make, path, job, whole)
            if name == "ray":
                results[name]["session"] = begun
            print_table(name, results[name])
    document = {
        "schema_version": 1,
        "what": "t(W) = start + work / W + merge * W, in seconds",
        "seed": SEED,
        "machine": here,
        "job": {k: v for k, v in vars(job).items() if k != "out"},
        "in_memory_one_thread": alone,
        **results,
    }
    job.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(job.out, json.dumps(document, indent=1) + "\n")
    print(f"{job.out} ({here['cores']} cores, load {here['load_before']:.1f} before)")
    return 0


def print_table(name: str, known: dict[str, Any]) -> None:
    for workers, row in known["workers"].items():
        total = row["total"]
        print(
            f"{name:6} W = {workers}: {total['median']:7.2f} s "
            f"({total['min']:.2f} to {total['max']:.2f}), "
            f"model / measured {known['model_to_measured'][workers]:.2f}"
        )
    print(
        f"{name:6} speedup {known['speedup']:.2f} in all, {known['speedup_of_work']:.2f} of the "
        f"work alone; contention {known['contention']:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
