r"""Local dimensions of the zoo: error and cost of each method, where the truth is exact.

Run:  python benchmarks/dimension.py [--quick] [--dims D ...] [--trained-dims D ...]
                                       [--add FILE ...] [--out PATH]

All of it takes hours on one core, so it may be done in parts: ``--dims`` or ``--trained-dims``
alone leaves out the other, and the families of the files of ``--add`` are kept (with neither,
files are put together). Each row names how many points judged it.

``population``  the population denoisers of manifolds of known dimension, in d = 30 to 3072.
                Every method takes its own best noise level for each family, chosen on other
                points than those it is judged by. "equal" methods have as many network products
                (a score, or a product with the Jacobian's transpose) as LocalDimension takes
                there; "own" methods take what their authors ask for; "none" need no level.
``trained``     small networks trained on the same manifolds.

No answer (NoGap) is an error of m. The ratios at the end are over families: the geometric mean
of mean absolute errors, those below .25 counted as .25, each family once, ± by bootstrap of the
points; and the same with the errors of points below .25 counted as .25. Estimators from points
alone see 2,000 clean points, and 100 neighbours.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import versions
from torch import Tensor

from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Progress
from geomem.compute.threads import num_cores, one_thread
from geomem.denoiser import Denoiser
from geomem.dimension import DimensionMethod, ForwardSoftCount, SoftCount, Threshold, place_of
from geomem.dimension.from_points import ScikitDimension
from geomem.dimension.local import LocalDimension
from geomem.dimension.plateau import Plateau
from geomem.dimension.scores import FLIPD, FilteredTrace, NormalBundle, SpikeRule
from geomem.manifolds import LinearManifold
from geomem.manifolds.charts import HiddenManifold, SwissRoll
from geomem.manifolds.curved import Sphere, Torus
from geomem.manifolds.squiggles import Squiggle, Union
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState
from geomem.spectra import LanczosQuadrature
from geomem.stats import Estimate, bootstrap_weights, numpy_rng, seed_sequence, torch_rng

SEED = 0
SIGMAS = (0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005)
FLOOR = 0.25
DIMS = (30, 100, 784, 3072)
POINTS_ALONE = ("MLE", "TwoNN", "lPCA")
RIVALS = (
    "FLIPD, signs (equal)",
    "normal bundle (equal)",
    "FLIPD, exact (own)",
    "normal bundle, d + 1 orthogonal (own)",
)
Method = Callable[[int], DimensionMethod]  # seed -> method


@dataclass(frozen=True)
class Family:
    r"""A manifold, and the dimension at each of its points."""

    name: str
    manifold: Any
    denoiser: Denoiser
    dtype: torch.dtype = torch.float64

    @property
    def d(self) -> int:
        return int(self.manifold.ambient_dim)

    def points(self, purpose: str, count: int) -> tuple[Tensor, Tensor, list[float]]:
        r"""Clean points, their noise z, and the dimension at each."""
        rng = torch_rng(SEED, f"{purpose} {self.name}", self.d)
        x_0 = self.manifold.sample(count, rng)
        z = torch.randn(x_0.shape, generator=rng, dtype=torch.float64)
        return x_0.to(self.dtype), z.to(self.dtype), dimensions(self.manifold, x_0)


Tables = dict[str, dict[str, dict[str, "Answers"]]]  # kind, family, method


def dimensions(manifold: Any, x_0: Tensor) -> list[float]:
    if hasattr(manifold, "dimension_at"):
        return [float(m) for m in manifold.dimension_at(x_0)]
    return [float(manifold.dim)] * len(x_0)


def plane(m: int, d: int) -> LinearManifold:
    rng = torch_rng(SEED, "plane", d)
    basis = torch.linalg.qr(torch.randn(d, m, generator=rng, dtype=torch.float64)).Q
    return LinearManifold(torch.linspace(0.3, 1, m).square(), d, basis)


def zoo(d: int) -> Iterator[tuple[str, Any]]:
    r"""Manifolds in d dimensions, in random frames; the larger d, the larger some of them."""
    m = {30: 7, 100: 20, 784: 50, 3072: 100}[d]
    yield "plane", plane(m, d)
    yield "sphere", Sphere(m, d, seed=1)
    yield "torus", Torus(torch.linspace(0.5, 1, m // 2).tolist(), d, seed=2)
    yield "swiss roll", SwissRoll(d, seed=3)
    yield "hidden manifold", HiddenManifold(2, d, features=12, seed=4)
    yield "squiggle", Squiggle(2, d, seed=5)
    parts = [Squiggle(1, d, centre=-2.0, seed=6), Squiggle(2, d, centre=2.0, seed=7)]
    yield "union of 1 and 2", Union(parts)


# ----------------------------------------------------------------------------------- methods


def equal_methods(products: int) -> dict[str, Method]:
    r"""The rivals, with as many products as ours took."""
    pairs, probes = max(2, products // 2), max(2, products // 8)
    depth = max(2, products // probes)
    return {
        "FLIPD, signs": lambda s: FLIPD(probes=max(2, products - 1), seed=s),
        "normal bundle": lambda s: NormalBundle(draws=max(3, products - 1), seed=s),
        "forward soft count": lambda s: ForwardSoftCount(pairs=pairs, seed=s),
        "filtered trace": lambda s: FilteredTrace(
            spectrum=LanczosQuadrature(depth=depth, probes=probes, seed=s)
        ),
    }


def own_methods() -> dict[str, Method]:
    r"""What authors ask for: d products and more."""
    return {
        "FLIPD, exact": lambda s: FLIPD(),
        "normal bundle, d + 1 orthogonal": lambda s: NormalBundle(seed=s),
        "normal bundle, 2 d Gaussian": lambda s: NormalBundle(noise="gaussian", seed=s),
        "paper's spike rule": lambda s: SpikeRule(),
        "threshold": lambda s: Threshold(),
        "soft count": lambda s: SoftCount(),
    }


def cost(method: DimensionMethod, d: int, ours: float) -> float:
    r"""Network products of a method, at one point; `ours` where it takes as many as we."""
    if isinstance(method, NormalBundle):
        return (method.draws or (d if method.noise == "orthogonal" else 2 * d)) + 1
    if isinstance(method, FLIPD):
        return (method.probes or d) + 1
    if isinstance(method, ForwardSoftCount):
        return 2 * method.pairs
    if isinstance(method, FilteredTrace) and isinstance(method.spectrum, LanczosQuadrature):
        return method.spectrum.depth * method.spectrum.probes
    return d if isinstance(method, (SpikeRule, Threshold, SoftCount)) else ours


# --------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Answers:
    r"""Absolute errors at some points, how many were answered, seconds and products a point."""

    errors: np.ndarray
    answered: float
    seconds: float
    products: float
    sigma: float | None = None

    def row(self) -> dict[str, Any]:
        n, e = len(self.errors), self.errors
        return {
            "mean_absolute_error": float(e.mean()),
            "stderr": float(e.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
            "answered": self.answered,
            "products": None if math.isnan(self.products) else self.products,
            "seconds": self.seconds,
            "sigma": self.sigma,
            "points": n,
            "errors": [float(error) for error in e],
        }

    @staticmethod
    def of_row(row: dict[str, Any]) -> Answers:
        r"""What a row of the file was written from."""
        products = math.nan if row["products"] is None else row["products"]
        errors = np.array(row["errors"])
        return Answers(errors, row["answered"], row["seconds"], products, row["sigma"])


def ask(family: Family, method: Method, sigma: float, purpose: str, count: int) -> Answers:
    x_0, z, truth = family.points(purpose, count)
    level, errors, answered, products = torch.tensor(sigma, dtype=x_0.dtype), [], 0, []
    start = time.perf_counter()
    for i in range(count):
        called = method(int(seed_sequence(SEED, purpose, i).generate_state(1)[0]))
        x = x_0[i] + level * z[i] if place_of(called) == "noisy" else x_0[i]
        if isinstance(called, LocalDimension):
            pairs = called.pairs(family.denoiser, x, level)
            found, spent = called.of(pairs, family.d), pairs.products
        else:
            found, spent = called(family.denoiser, x, level), cost(called, family.d, math.nan)
        known = isinstance(found, Estimate)
        errors.append(abs(found.value - truth[i]) if isinstance(found, Estimate) else truth[i])
        answered += known
        products.append(spent)
    seconds = (time.perf_counter() - start) / count
    return Answers(np.array(errors), answered / count, seconds, float(np.mean(products)), sigma)


def best(
    family: Family, method: Method, job: argparse.Namespace, sigmas: Sequence[float]
) -> Answers:
    r"""The method at its best level, chosen on other points than it is judged by.

    Of levels that are equally good, the lowest: the dimension is the limit there.
    """
    tuned = {s: float(ask(family, method, s, "tune", job.tune).errors.mean()) for s in sigmas}
    chosen = min(s for s, error in tuned.items() if error <= min(tuned.values()) + 1e-9)
    return ask(family, method, chosen, "test", job.points)


def points_alone(family: Family, estimator: str, count: int) -> Answers:
    x_0, _, truth = family.points("test", count)
    data = family.manifold.sample(2000, torch_rng(SEED, "points alone", family.d))
    method, start = ScikitDimension(estimator=estimator), time.perf_counter()
    found = [method(data, x) for x in x_0.double()]
    seconds = (time.perf_counter() - start) / count
    errors = [
        abs(f.value - m) if isinstance(f, Estimate) else m
        for f, m in zip(found, truth, strict=True)
    ]
    known = sum(isinstance(f, Estimate) for f in found)
    return Answers(np.array(errors), known / count, seconds, 0.0)


def measure(family: Family, job: argparse.Namespace) -> dict[str, Answers]:
    r"""All methods on one family."""
    ours = best(family, lambda s: LocalDimension(seed=s), job, SIGMAS)
    found = {"LocalDimension": ours}
    for name, method in equal_methods(math.ceil(ours.products)).items():
        found[f"{name} (equal)"] = best(family, method, job, SIGMAS)
    for estimator in () if job.core else POINTS_ALONE:
        found[f"{estimator} (points alone)"] = points_alone(family, estimator, job.points)
    if family.d <= job.largest_own and not job.core:
        found["Plateau (none)"] = ask(family, lambda s: Plateau(seed=s), 1.0, "test", job.points)
        own = argparse.Namespace(tune=max(2, job.tune // 4), points=max(4, job.points // 4))
        for name, method in own_methods().items():
            found[f"{name} (own)"] = best(family, method, own, SIGMAS[2::2])
    return found


# -------------------------------------------------------------------------- trained networks


def trained(name: str, manifold: Any, job: argparse.Namespace) -> Family:
    r"""A small network trained on 20,000 points of a manifold."""
    d = int(manifold.ambient_dim)
    data = manifold.sample(20_000, torch_rng(SEED, "training", d)).float()
    config = NetworkConfig("mlp", (d,), float(data.std()), width=256 if d < 500 else 512, blocks=2)
    state = TrainState(config, Training(steps=job.steps), data, seed=SEED)
    for _ in range(job.steps):
        state.advance()
    return Family(name, manifold, state.average, torch.float32)


def networks(job: argparse.Namespace) -> Iterator[Family]:
    for d in job.trained_dims:
        chosen = ("plane", "sphere") if job.quick or d > 500 else ("plane", "sphere", "swiss roll")
        yield from (trained(n, M, job) for n, M in zoo(d) if n in chosen)


# --------------------------------------------------------------------------------- summaries


def ratios(table: dict[str, dict[str, Answers]], rival: str) -> dict[str, Any]:
    r"""Our errors over a rival's, over families; bootstrap over the points of each."""
    rows = [row for row in table.values() if rival in row]
    if not rows:
        return {"families": 0}
    rng, R = numpy_rng(SEED, "ratio"), 2000
    logs = {"family": np.zeros((len(rows), R + 1)), "point": np.zeros((len(rows), R + 1))}
    for k, row in enumerate(rows):
        for side, name in ((1, "LocalDimension"), (-1, rival)):
            e = row[name].errors
            W = np.vstack([np.full(len(e), 1 / len(e)), bootstrap_weights(len(e), R, rng)])
            logs["family"][k] += side * np.log(np.maximum(W @ e, FLOOR))
            logs["point"][k] += side * np.log(W @ np.maximum(e, FLOOR))
    answer: dict[str, Any] = {"families": len(rows)}
    for kind, values in logs.items():
        means = np.exp(values.mean(0))
        answer[f"floor_by_{kind}"] = {
            "ratio": float(means[0]),
            "stderr": float(means[1:].std()),
            "worst_family": float(np.exp(values[:, 0].max())),
        }
    return answer


def machine() -> dict[str, Any]:
    return {
        "cores": num_cores(),
        "processor": platform.processor() or platform.machine(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions("scipy", "scikit-dimension"),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="local dimensions of the zoo")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dimension.json"))
    parser.add_argument("--quick", action="store_true", help="a smoke test of a minute or two")
    parser.add_argument("--core", action="store_true", help="equal products only")
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="files to start from")
    parser.add_argument("--dims", type=int, nargs="+", choices=DIMS)
    parser.add_argument("--trained-dims", type=int, nargs="+", choices=DIMS)
    parser.add_argument("--tune", type=int, help="points by which a level is chosen")
    parser.add_argument("--points", type=int, help="points by which a method is judged")
    job = parser.parse_args()
    if not (job.dims or job.trained_dims or job.add):
        job.dims = job.trained_dims = (30,) if job.quick else DIMS
    job.dims, job.trained_dims = job.dims or (), job.trained_dims or ()
    tune, points = (3, 6) if job.quick else (16, 32)
    job.tune, job.points = job.tune or tune, job.points or points
    job.steps, job.largest_own = (300, 30) if job.quick else (8000, 100)
    return job


def print_row(where: str, found: dict[str, Answers]) -> None:
    print(f"\n{where}")
    for name, a in found.items():
        r = a.row()
        spread = math.nan if r["stderr"] is None else r["stderr"]
        level = "      " if a.sigma is None else f"{a.sigma:6g}"
        print(
            f"  {name:42} {r['mean_absolute_error']:8.3f} ± {spread:6.3f}"
            f"  sigma {level}  {a.products:7.1f} products  {1e3 * a.seconds:9.1f} ms"
            f"  answered {100 * a.answered:3.0f} %",
            flush=True,
        )


def main() -> int:
    job, here = arguments(), machine()
    warnings.filterwarnings("ignore", message="sigma = .* is below")  # said in the table
    tables: Tables = {"population": {}, "trained": {}}
    for path in job.add:
        document = json.loads(path.read_text())
        if (document["training_steps"], document["quick"]) != (job.steps, job.quick):
            raise SystemExit(f"{path} was made with other settings; make it again")
        for kind, table in document["tables"].items():
            for where, row in table.items():
                tables[kind][where] = {name: Answers.of_row(r) for name, r in row.items()}
    with one_thread():
        kinds = [(name, M) for d in job.dims for name, M in zoo(d)][: 4 if job.quick else None]
        families = [Family(name, M, M.population_denoiser()) for name, M in kinds]
        progress = Progress(len(families), "families")
        for k, family in enumerate(families):
            where = f"{family.name}, d = {family.d}"
            tables["population"][where] = measure(family, job)
            print_row(where, tables["population"][where])
            progress.update(k + 1)
            write(job, here, tables)
        for family in networks(job):
            where = f"{family.name}, d = {family.d}"
            tables["trained"][where] = measure(family, job)
            print_row(f"trained on {where}", tables["trained"][where])
            write(job, here, tables)
    say_ratios(write(job, here, tables))
    print(f"{job.out} ({here['cores']} cores, load {here['load_before']:.1f} before)")
    return 0


def write(job: argparse.Namespace, here: dict[str, Any], tables: Tables) -> dict[str, Any]:
    r"""Writes the file; returns the ratios in it."""
    for kind, table in tables.items():  # whatever was added when
        order = sorted(table, key=lambda where: int(where.rpartition("= ")[2]))
        tables[kind] = {where: table[where] for where in order}
    summary = {kind: {r: ratios(table, r) for r in RIVALS} for kind, table in tables.items()}
    document = {
        "schema_version": 1,
        "what": "mean absolute error of a local dimension, products and seconds a point",
        "seed": SEED,
        "quick": job.quick,
        "training_steps": job.steps,
        "machine": here,
        "sigmas": SIGMAS,
        "floor": FLOOR,
        "tables": {
            kind: {w: {name: a.row() for name, a in row.items()} for w, row in table.items()}
            for kind, table in tables.items()
        },
        "ratios": summary,
    }
    atomic_write_text(job.out, json.dumps(document, indent=1) + "\n")
    return summary


def say_ratios(summary: dict[str, Any]) -> None:
    print()
    for kind, rivals in summary.items():
        for rival, known in rivals.items():
            if not known["families"]:
                continue
            r = known["floor_by_family"]
            print(
                f"{kind}: our error / {rival}: {r['ratio']:.3f} ± {r['stderr']:.3f} over "
                f"{known['families']} families (worst {r['worst_family']:.2f})"
            )


if __name__ == "__main__":
    sys.exit(main())
