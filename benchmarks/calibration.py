r"""Are p-values and errors what they say? Runs in which nothing, or a known part, is memorized.

Run:  python benchmarks/calibration.py [--runs 500] [--planted 200] [--out PATH]

*Nulls*: denoisers that know nothing of the measured images more than of others, at 64 training
and 64 held-out images. Population denoisers beside the linear control; images in four copies
that are declared groups; a network beside a reference network, at images that neither saw; and
classes mixed otherwise at training than at held-out images, which must be refused as evidence.
*Planted*: three of ten directions are the exact denoiser's of 1,024 training points, 64 of which
are measured, the others the population's. The truth is the mean over all 1,024 at the same
levels with 32 draws of other noise. About 40 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from side_by_side import versions
from torch import Tensor

from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Progress
from geomem.data import ImageData, Split
from geomem.data.images import load_data
from geomem.data.source import Source
from geomem.denoiser import Denoiser, ProductDenoiser
from geomem.exact import EmpiricalDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.exact.mixture import MixtureDenoiser
from geomem.findings.evidence import alike_numbers, test_numbers
from geomem.findings.measured import Measured
from geomem.findings.numbers import numbers
from geomem.findings.rows import rows_of
from geomem.findings.sentences import ALPHA, UNALIKE
from geomem.information import integrate_log
from geomem.measure.alike import Alike
from geomem.measure.errors import Errors
from geomem.measure.probes import measure
from geomem.measure.study import Study, make_study
from geomem.measure.subject import NETWORKS, Description, Subject
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState, train
from geomem.noise import log_levels
from geomem.runs.design import study_of
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.stats import Proportion, numpy_rng, torch_rng
from geomem.subspaces import PrincipalDirections

POINTS, OTHERS, LEVELS, DRAWS = 64, 256, 8, 2
VARIANCES = torch.tensor([1.0] * 3 + [0.5] * 3 + [0.25] * 4, dtype=torch.float64)
BLOCK = [0, 1, 2]
WINDOW = (0.05, 8.0)


@dataclass(frozen=True, eq=False)
class Case:
    r"""One run whose answer is known.

    Attributes:
        parts: Training, held-out and other images (pool and reserved), each (n, d).
        subjects: Denoisers by kind, ``learned`` among them.
        groups: The group of each image, where images belong together, by part.
        dtype: Of the points that denoisers are asked at.
    """

    parts: Mapping[str, Tensor]
    subjects: Mapping[str, Denoiser]
    groups: Mapping[str, np.ndarray] | None = None
    dtype: torch.dtype = torch.float64


def measured(case: Case, seed: int) -> xr.Dataset:
    r"""The records of a case, made by the code that makes a sweep's."""
    names = ["training", "other", "held_out", "reserved"]
    parts = {**case.parts}
    parts["other"], parts["reserved"] = parts["other"].tensor_split(2)
    edges = np.cumsum([0, *(len(parts[name]) for name in names)])
    index = {n: np.arange(a, b) for n, a, b in zip(names, edges, edges[1:], strict=False)}
    groups = None
    if case.groups is not None:
        groups = np.arange(edges[-1]) + 10**6
        for name, mine in case.groups.items():
            groups[index[name]] = mine
    pixels = torch.cat([parts[name] for name in names]).float().numpy()
    data = ImageData.of("drawn", pixels, groups=groups)
    pool = np.concatenate([index["training"], index["other"]])
    source = Source(data, Split(pool, index["held_out"], index["reserved"], seed))
    study = study_of(
        source,
        {"training": index["training"][:POINTS].tolist(), "held_out": index["held_out"].tolist()},
        sigmas=log_levels(WINDOW[0] * source.rms, WINDOW[1] * source.rms, LEVELS).numpy(),
        probes=[Errors(), Alike()],
        draws=DRAWS,
        seed=seed,
        more={},
        control="reference" if "reference" in case.subjects else "linear",
    )
    return recorded(study, {"linear": source.linear_control, **case.subjects}, case.dtype)


def recorded(study: Study, known: Mapping[str, Denoiser], dtype: torch.dtype) -> xr.Dataset:
    r"""Measures denoisers by kind, networks in their own dtype, and reads the records."""
    subjects = [Description(k, num_samples=POINTS if k == "learned" else None) for k in known]
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "run", {"kind": "known"}, study.content, subjects)
        for number, (what, denoiser) in enumerate(zip(subjects, known.values(), strict=True)):
            own = dtype if what.kind in NETWORKS else torch.float64
            folder.write_record(number, measure(Subject(what, denoiser, own), study))
        return load(folder.path)


# ------------------------------------------------------------------------------------- nulls


def gaussian(seed: int) -> Case:
    parts = _parts(lambda n, rng: _normal(n, rng) * VARIANCES.sqrt(), seed)
    return Case(
        parts, {"learned": GaussianDenoiser(torch.zeros(len(VARIANCES)).double(), VARIANCES)}
    )


def _normal(count: int, rng: torch.Generator) -> Tensor:
    return torch.randn(count, len(VARIANCES), generator=rng, dtype=torch.float64)


def _parts(draw: Callable[[int, torch.Generator], Tensor], seed: int) -> dict[str, Tensor]:
    sizes = {"training": POINTS, "other": 2 * OTHERS, "held_out": POINTS}
    return {name: draw(n, torch_rng(seed, f"drawn/{name}")) for name, n in sizes.items()}


CENTRES = 2.0 * torch.eye(3, len(VARIANCES), dtype=torch.float64)
MIXED = GaussianDenoiser(torch.zeros(len(VARIANCES)).double(), 0.25 * VARIANCES)


def _mixture(shares: Sequence[float]) -> Callable[[int, torch.Generator], Tensor]:
    def draw(count: int, rng: torch.Generator) -> Tensor:
        # As many of each class as the mix says, as a stratified split has them.
        classes = torch.repeat_interleave(
            torch.arange(3), torch.tensor([round(s * count) for s in shares])
        )[:count]
        classes = torch.cat([classes, torch.zeros(count - len(classes), dtype=torch.long)])
        return CENTRES[classes] + 0.5 * _normal(count, rng) * VARIANCES.sqrt()

    return draw


def _mixture_denoiser(shares: Sequence[float]) -> MixtureDenoiser:
    return MixtureDenoiser(
        torch.tensor(shares, dtype=torch.float64),
        [GaussianDenoiser(centre, 0.25 * VARIANCES) for centre in CENTRES],
    )


def mixture(seed: int) -> Case:
    shares = (1 / 3, 1 / 3, 1 / 3)
    return Case(_parts(_mixture(shares), seed), {"learned": _mixture_denoiser(shares)})


def binary(seed: int) -> Case:
    def draw(count: int, rng: torch.Generator) -> Tensor:
        x = _normal(count, rng) * VARIANCES.sqrt()
        x[:, 0] = x[:, 0].sign()
        return x

    two = EmpiricalDenoiser(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    rest = GaussianDenoiser(torch.zeros(len(VARIANCES) - 1).double(), VARIANCES[1:])
    every = list(range(1, len(VARIANCES)))
    return Case(_parts(draw, seed), {"learned": ProductDenoiser([([0], two), (every, rest)])})


def copies(seed: int) -> Case:
    r"""Sixteen images a side, each four times with a little noise, declared as groups."""
    case = gaussian(seed)
    parts, groups = dict(case.parts), {}
    for k, name in enumerate(("training", "held_out")):
        mine = parts[name][: POINTS // 4].repeat_interleave(4, 0)
        rng = torch_rng(seed, f"copies/{name}")
        parts[name] = mine + 0.01 * _normal(POINTS, rng)
        groups[name] = np.repeat(np.arange(POINTS // 4), 4) + 1000 * k
    return Case(parts, case.subjects, groups)


def unequal(seed: int) -> Case:
    shares, others = (0.6, 0.2, 0.2), (0.2, 0.2, 0.6)
    parts = _parts(_mixture(shares), seed)
    parts["held_out"] = _parts(_mixture(others), seed)["held_out"]
    return Case(parts, {"learned": _mixture_denoiser(shares)})


class Unseen:
    r"""A network and a reference on MNIST of 7 x 7 pixels, and images that neither saw."""

    def __init__(self) -> None:
        images = load_data("mnist").tensor(np.arange(70000))
        small = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
        self.images = small[torch.from_numpy(numpy_rng(0, "unseen").permutation(len(small)))]
        config = NetworkConfig("mlp", (small.shape[1],), float(small.std()))
        self.networks = {}
        for kind, index in (("learned", slice(0, 300)), ("reference", slice(300, 1500))):
            recipe = Training(3000, 128, 1e-3)
            state = TrainState(config, recipe, self.images[index], seed=0, unit=0)
            self.networks[kind] = list(train(state, 3000, None))[-1].average

    def __call__(self, seed: int) -> Case:
        sizes, first = {"training": POINTS, "held_out": POINTS}, 1500 + 128 * (seed % 10000)
        parts = {"other": self.images[1500 - 2 * OTHERS : 1500].double()}
        for name, count in sizes.items():
            parts[name] = self.images[first : first + count].double()
            first += count
        return Case(parts, self.networks, dtype=torch.float32)


def null(
    make: Callable[[int], Case], seeds: Sequence[int], tick: Callable[[], None]
) -> dict[str, Any]:
    r"""How often a null is told apart, and how often its images are said not to be alike."""
    p, alike = [], []
    for seed in seeds:
        dataset = measured(make(seed), seed)
        run = Measured(dataset, rows_of(dataset), 0, seed)
        found, first = test_numbers(run), [row.kind for row in run.rows].index("learned")
        p.append(float(found.p_value[first]))
        alike.append(float(alike_numbers(run).alike_p_value))
        tick()
    told = [value <= ALPHA for value in p]
    refused = [value <= UNALIKE for value in alike]
    passed = [t for t, r in zip(told, refused, strict=True) if not r]
    return {
        "told_apart": _share(told),
        "not_alike": _share(refused),
        "told_apart_where_alike": _share(passed),
        "p_values": [round(value, 4) for value in p],
    }


def _share(cases: Sequence[bool]) -> dict[str, Any]:
    found = Proportion(int(sum(cases)), len(cases)) if cases else None
    if found is None:
        return {"count": 0, "of": 0}
    return {"count": found.successes, "of": found.trials, "interval": list(found.interval)}


# ----------------------------------------------------------------------------------- planted


def planted(runs: int, tick: Callable[[], None]) -> dict[str, Any]:
    r"""How often 95 % intervals hold a known memorized information, in all and by direction."""
    held: dict[str, list[bool]] = {"in all": [], "by direction": [], "by level": []}
    z, outside = [], 0.0
    d = len(VARIANCES)
    rest = [k for k in range(d) if k not in BLOCK]
    others = GaussianDenoiser(torch.zeros(len(rest)).double(), VARIANCES[rest])
    population = GaussianDenoiser(torch.zeros(d).double(), VARIANCES)
    axes = PrincipalDirections(torch.eye(d, dtype=torch.float64), VARIANCES, 0.0, d, (d,))
    for seed in range(runs):
        rng = torch_rng(seed, "planted")
        training = (_normal(1024, rng) * VARIANCES.sqrt()).float().double()
        memory = EmpiricalDenoiser(training[:, BLOCK])
        study = make_study(
            {"training": training[:POINTS], "held_out": _normal(POINTS, rng) * VARIANCES.sqrt()},
            directions=axes,
            sigmas=log_levels(*WINDOW, 12),
            probes=[Errors()],
            rms=float(VARIANCES.mean().sqrt()),
            seed=seed,
            control="population",
        )
        model = ProductDenoiser([(BLOCK, memory), (rest, others)])
        dataset = recorded(study, {"population": population, "learned": model}, torch.float64)
        known = numbers(dataset, replicates=400)
        row = known.isel(subject=[str(k) for k in known["kind"].values].index("learned"))
        truth = true_density(memory, training[:, BLOCK], study.sigmas, seed)  # (T, 3)
        nats = integrate_log(truth, study.sigmas.numpy())
        held["in all"].append(_holds(row, "information", nats.sum()).item())
        held["by direction"] += _holds(row.isel(direction=BLOCK), "by_direction", nats).tolist()
        held["by level"] += _holds(row, "by_level", truth.sum(1)).tolist()
        z.append((float(row.information) - nats.sum()) / float(row.information_stderr))
        outside = max(outside, float(np.abs(row.by_direction.values[rest]).max()))
        tick()
    return {
        "runs": runs,
        "held": {name: _share(cases) for name, cases in held.items()},
        "mean_z": float(np.mean(z)),
        "largest_z": float(np.abs(z).max()),
        "within_3_errors": _share([abs(value) <= 3 for value in z]),
        "largest_outside_the_block": outside,
    }


def _holds(row: xr.Dataset, name: str, truth: Any) -> np.ndarray:
    return np.asarray((row[f"{name}_low"].values <= truth) & (truth <= row[f"{name}_high"].values))


def true_density(
    memory: EmpiricalDenoiser, block: Tensor, sigmas: Tensor, seed: int, draws: int = 32
) -> np.ndarray:
    r"""Population's minus memory's error by level and direction, over all training points."""
    control = GaussianDenoiser(torch.zeros(len(BLOCK)).double(), VARIANCES[BLOCK])
    rng = torch_rng(seed, "truth")
    found = []
    for sigma in sigmas:
        x_0 = block.repeat(draws, 1)
        x = x_0 + sigma * torch.randn(x_0.shape, generator=rng, dtype=torch.float64)
        errors = [((D(x, sigma) - x_0) / sigma).square().mean(0) for D in (control, memory)]
        found.append((errors[0] - errors[1]).numpy())
    return np.array(found)


NULLS = {
    "Gaussian": gaussian,
    "mixture of three": mixture,
    "binary and Gaussian": binary,
    "images in four copies, grouped": copies,
    "classes mixed 60/20/20 and 20/20/60": unequal,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    progress = Progress(1.0 * options.runs * (len(NULLS) + 1) + options.planted, "runs")
    start, done = time.time(), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress.update(done)

    makers = {**NULLS, "network beside a reference, unseen images": Unseen()}
    rows = {}
    for k, (name, make) in enumerate(makers.items()):
        first = (k + 1) * 10000  # every run its own draws
        rows[name] = null(make, range(first, first + options.runs), tick)
    known = planted(options.planted, tick)
    progress.finish()
    asked = f"--runs {options.runs} --planted {options.planted}"
    document = {
        "command": f"python benchmarks/calibration.py {asked}",
        "versions": versions(),
        "minutes": round((time.time() - start) / 60, 1),
        "settings": {"points": POINTS, "levels": LEVELS, "draws": DRAWS, "alpha": ALPHA},
        "nulls": rows,
        "planted": known,
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    atomic_write_text(options.out / "calibration.json", text)
    for name, row in rows.items():
        told, refused = (
            f"{row[k]['count']} of {row[k]['of']}" for k in ("told_apart", "not_alike")
        )
        print(f"{name}: told apart {told}, not alike {refused}")
    print(f"planted: {known['held']}, |z| at most {known['largest_z']:.1f}")


if __name__ == "__main__":
    main()
