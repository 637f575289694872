r"""How often a verdict is right: false alarms of nulls, power against what was planted.

Run:  python benchmarks/audit_power.py [--quick] [--seeds K] [--out PATH]

Each audit draws its data anew, in 30 dimensions rotated at random: training, held-out and
reserved points. The model is the population's denoiser (nulls), the training set's own along a
block of directions and the population's elsewhere (planted), the training set's own (empirical),
or a weighted mean of the population's and the training set's answers (blends). It is measured and
judged by the code of `geomem audit`, beside the linear control, with 999 permutations. The same
measurements give three rivals: a permutation test of the plain loss, one of the norm of the
predicted noise, and copies among 64 samples. About 15 minutes on one core; `--resume` keeps the
cases that the file of results has of the same settings and rule.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from side_by_side import versions
from torch import Tensor

from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Progress
from geomem.compute.threads import one_thread
from geomem.data.images import ImageData
from geomem.data.source import Source
from geomem.data.splits import Split
from geomem.denoiser import Denoiser, ProductDenoiser
from geomem.exact import EmpiricalDenoiser, MixtureDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.findings.numbers import numbers
from geomem.findings.sentences import UNALIKE
from geomem.findings.verdict import ALPHA, FULL, SHARE, verdict
from geomem.measure.alike import Alike
from geomem.measure.copies import LEVEL, Copies
from geomem.measure.errors import Errors
from geomem.measure.probes import measure
from geomem.measure.study import Study
from geomem.measure.subject import Description, Subject
from geomem.runs.design import study_of
from geomem.runs.load import dataset_of
from geomem.stats import Proportion, numpy_rng, permutation_test
from geomem.subspaces import principal_angles

HERE = Path(__file__).parent
SIDES = ("training", "held_out")
DIM = 30
VARIANCES = torch.logspace(0, -1.3, DIM, dtype=torch.float64)
POINTS, HELD_OUT, RESERVED = 64, 264, 200
LEVELS, DRAWS, SAMPLES = 12, 4, 64
BLOCK = DIM // 5


@dataclass(frozen=True, eq=False)
class Case:
    r"""What one audit looks at: training, held-out and reserved points, and a model of them."""

    training: Tensor
    held_out: Tensor
    reserved: Tensor
    model: Denoiser
    planted: Tensor | None = None
    groups: list[int] | None = None


class Blend:
    r"""A weighted mean of two denoisers' answers."""

    def __init__(self, first: Denoiser, second: Denoiser, weight: float) -> None:
        self.first, self.second, self.weight = first, second, weight

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return (1 - self.weight) * self.first(x, sigma) + self.weight * self.second(x, sigma)


def rotation(rng: torch.Generator) -> Tensor:
    found: Tensor = torch.linalg.qr(torch.randn(DIM, DIM, generator=rng, dtype=torch.float64)).Q
    return found


def gaussian_case(
    seed: int,
    *,
    block: int = 0,
    strong: bool = False,
    blend: float = 0.0,
    points: int = POINTS,
    reserved: int = RESERVED,
    copies: int = 1,
) -> Case:
    r"""A Gaussian population, and what is memorized of it.

    Arguments:
        seed: The seed of everything.
        block: Along how many directions the training set is memorized.
        strong: Whether these are the directions of highest variance, else any.
        blend: The weight of the training set's own denoiser everywhere.
        points: Training images that are measured.
        reserved: Images that the linear control is fitted to.
        copies: How often each training image stands in the training set.
    """
    rng = torch.Generator().manual_seed(seed)
    basis = rotation(rng)

    def draw(count: int) -> Tensor:
        z = torch.randn(count, DIM, generator=rng, dtype=torch.float64)
        return (z * VARIANCES.sqrt()) @ basis.T

    distinct = draw(points // copies)
    training = distinct.repeat_interleave(copies, 0)
    chosen = list(range(block))
    if block and not strong:
        chosen = torch.randperm(DIM, generator=rng)[:block].tolist()
    rest = [k for k in range(DIM) if k not in chosen]
    zero = torch.zeros(DIM, dtype=torch.float64)
    parts: list[tuple[list[int], Denoiser]] = [
        (rest, GaussianDenoiser(zero[: len(rest)], VARIANCES[rest]))
    ]
    if block:
        parts.append((chosen, EmpiricalDenoiser((distinct @ basis)[:, chosen])))
    model: Denoiser = ProductDenoiser(parts, basis)
    if blend:
        model = Blend(model, EmpiricalDenoiser(distinct), blend)
    if blend == 1.0:
        model = EmpiricalDenoiser(distinct)
    groups = [k // copies for k in range(len(training))] if copies > 1 else None
    held = max(HELD_OUT, points)
    return Case(training, draw(held), draw(reserved), model, basis[:, chosen], groups)


def mixture_case(seed: int, *, shift: float = 0.0) -> Case:
    r"""Two modes far apart, which no linear denoiser knows; shift changes one set's weights."""
    rng = torch.Generator().manual_seed(seed)
    basis = rotation(rng)
    centre = 3.0 * basis[:, 0]
    covariance = basis @ torch.diag(VARIANCES) @ basis.T

    def draw(count: int, weight: float) -> Tensor:
        side = torch.rand(count, 1, generator=rng, dtype=torch.float64) < weight
        z = torch.randn(count, DIM, generator=rng, dtype=torch.float64) * VARIANCES.sqrt()
        return z @ basis.T + torch.where(side, centre, -centre)

    weights = torch.tensor([0.5 + shift, 0.5 - shift], dtype=torch.float64)
    model = MixtureDenoiser(
        weights, [GaussianDenoiser(centre, covariance), GaussianDenoiser(-centre, covariance)]
    )
    return Case(draw(POINTS, 0.5 + shift), draw(HELD_OUT, 0.5), draw(RESERVED, 0.5), model)


@dataclass(frozen=True)
class Outcome:
    r"""What one audit said, and what its rivals would have."""

    word: str
    p_value: float
    loss: bool
    noise: bool
    copies: bool | None
    angle: float | None
    alike: bool


def audited(case: Case, seed: int, copies: bool = False) -> Outcome:
    r"""One audit, by the code of a run, in memory."""
    study = study_of_case(case, seed, copies)
    denoisers = {"model": case.model, "linear": study.source.linear_control}
    subjects = [Description("model", label="model"), Description("linear")]
    records = {}
    for k, (kind, denoiser) in enumerate(denoisers.items()):
        own = study.content["points"]["training"] if kind == "model" else None
        records[k] = measure(Subject(subjects[k], denoiser, training=own), study)
    dataset = dataset_of(study.content, subjects, records)
    dataset = dataset.assign_attrs(kind="audit", run="planted")
    known = numbers(dataset, replicates=200, permutations=999, seed=seed)
    found = verdict(known)
    row = known.isel(subject=found.subject)
    mine = dataset.isel(subject=0)
    loss = np.square(mine.error.astype(float)).sum("direction").mean("draw")
    axes = row.lost_direction.values
    vectors = study.directions.vectors.numpy() @ axes[np.isfinite(axes).any(1)].T
    return Outcome(
        str(found),
        found.p_value,
        told_apart(-loss, seed),
        told_apart(mine.predicted_noise.astype(float), seed),
        float(row.copies_low) > LEVEL if copies else None,
        angle(case.planted, torch.from_numpy(vectors)),
        float(known.get("alike_p_value", xr.DataArray(1.0))) > UNALIKE,
    )


def study_of_case(case: Case, seed: int, copies: bool) -> Study:
    sizes = [len(case.training), len(case.held_out), len(case.reserved)]
    edges = np.cumsum([0, *sizes]).tolist()
    training, held_out, reserved = (np.arange(a, b) for a, b in pairwise(edges))
    points = torch.cat([case.training, case.held_out, case.reserved]).float().numpy()
    names = None if case.groups is None else [*case.groups, *range(10**6, 10**6 + sum(sizes[1:]))]
    source = Source(
        ImageData.of("planted", points, groups=names), Split(training, held_out, reserved, seed)
    )
    return study_of(
        source,
        {"training": training.tolist(), "held_out": held_out[: sizes[0]].tolist()},
        sigmas=np.geomspace(0.05, 5, LEVELS) * source.rms,
        probes=[Errors(), Alike(), *([Copies(SAMPLES)] if copies else [])],
        draws=DRAWS,
        seed=seed,
        control="auto",
        more={},
    )


def told_apart(score: xr.DataArray, seed: int) -> bool:
    r"""Whether a score by level and point, larger for members, tells them from others."""
    sides = [score.sel(at=at).transpose("point", "sigma").values for at in SIDES]
    sides = [side[~np.isnan(side).any(1)] for side in sides]
    rng = numpy_rng(seed, "rival")
    return permutation_test(*sides, rng=rng, permutations=999).p_value <= 0.05


def angle(planted: Tensor | None, lost: Tensor) -> float | None:
    r"""The largest angle between the planted subspace and what was found lost, in degrees."""
    if planted is None or not planted.shape[1]:
        return None
    if lost.shape[1] < planted.shape[1]:
        return 90.0
    found = torch.linalg.qr(lost[:, : planted.shape[1]]).Q
    return float(principal_angles(found, planted).max().rad2deg())


# ------------------------------------------------------------------------------ the questions


def cases(seeds: int) -> dict[str, tuple[int, Callable[[int], Case], bool]]:
    r"""By name: how many audits, the case of a seed, and whether copies are looked for."""
    fewer = max(seeds // 8, 2)
    found: dict[str, tuple[int, Callable[[int], Case], bool]] = {
        "null": (5 * seeds // 2, gaussian_case, False),
        "null, two modes": (seeds, mixture_case, False),
        "null, four copies of each": (seeds, partial(gaussian_case, copies=4, points=256), False),
        "null, poor control": (seeds, partial(gaussian_case, reserved=40), False),
        "null, unequal class mix": (seeds, partial(mixture_case, shift=0.3), False),
        "block of 20 %": (seeds, partial(gaussian_case, block=BLOCK), True),
        "three strong directions": (seeds, partial(gaussian_case, block=3, strong=True), False),
        "empirical": (seeds, partial(gaussian_case, blend=1.0), True),
    }
    for weight in (0.1, 0.25, 0.5, 0.75):
        found[f"blend of {weight:g}"] = (fewer, partial(gaussian_case, blend=weight), False)
    for points in (16, 32, 64, 128):
        found[f"null, {points} points"] = (fewer, partial(gaussian_case, points=points), False)
        for block in (1, 3, 6, 12):
            name = f"block of {100 * block // DIM} %, {points} points"
            found[name] = (fewer, partial(gaussian_case, block=block, points=points), False)
    return found


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    r"""Counts of verdicts, of rivals' alarms, and the angles."""
    count = len(outcomes)
    words = Counter(o.word.partition(" of some")[0] for o in outcomes)
    some = sum(" of some images" in o.word for o in outcomes)
    angles = [o.angle for o in outcomes if o.angle is not None]
    copied = [o.copies for o in outcomes if o.copies is not None]
    memorization = sum(v for k, v in words.items() if k.endswith("memorization"))
    return {
        "audits": count,
        "verdicts": dict(sorted(words.items())),
        "of some images": some,
        "memorization": memorization,
        "memorization_interval": list(Proportion(memorization, count).interval),
        "p at most .05": sum(o.p_value <= 0.05 for o in outcomes),
        "not drawn alike": sum(not o.alike for o in outcomes),
        "plain loss": sum(o.loss for o in outcomes),
        "predicted noise": sum(o.noise for o in outcomes),
        "copies": sum(copied) if copied else None,
        "angle_median": float(np.median(angles)) if angles else None,
        "within 15 degrees": sum(a < 15 for a in angles) if angles else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 seeds, as a smoke test")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", help="the cases whose name holds this text")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "audit_power.json")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    asked = parser.parse_args()
    chosen = cases(4 if asked.quick else asked.seeds)
    chosen = {k: v for k, v in chosen.items() if asked.only is None or asked.only in k}
    progress = Progress(float(sum(count for count, *_ in chosen.values())), "audit_power")
    results: dict[str, Any] = {}
    done, start = 0, time.process_time()
    settings = {"dim": DIM, "points": POINTS, "levels": LEVELS, "draws": DRAWS}
    rule = {"alpha": ALPHA, "share": SHARE, "full": FULL}
    about = {
        "versions": versions(),
        "settings": settings | {"reserved": RESERVED, "seeds": asked.seeds},
        "rule": rule,
    }
    before = 0
    if asked.resume and asked.out.exists():
        old = json.loads(asked.out.read_text())
        if all(old[key] == about[key] for key in ("settings", "rule")):
            results = {k: v for k, v in old["cases"].items() if "before" not in v}
            before = old["seconds"]
    with one_thread():
        for name, (count, case, copies) in chosen.items():
            if name in results:
                done += count
                continue
            outcomes = []
            for seed in range(count):
                outcomes.append(audited(case(seed), seed, copies))
                done += 1
                progress.update(float(done), name)
            results[name] = summary(outcomes)
            taken = before + round(time.process_time() - start)
            content = about | {"seconds": taken, "cases": results}
            if not asked.quick:  # after each case: what is interrupted is shorter
                atomic_write_text(asked.out, json.dumps(content, indent=1) + "\n")
    progress.finish()


if __name__ == "__main__":
    main()
