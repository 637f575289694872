r"""What the experiments on linear manifolds share: trainings, levels, networks and spectra.

The paper's plane (standard deviations 1, .3 and .01 along 2, 5 and 23 directions) with samples
as they are and normalised to length 1; the paper's MLP in size (width 128, two residual
blocks), trained by geomem's recipe, which is not the authors'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from geomem.experiments.experiment import Runs, Scale, last_networks, networks_left
from geomem.findings.spectrum import Spectra
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.runs.run import Run
from geomem.runs.spectrum import ScoreSpectra
from geomem.runs.sweep import Sweep

KINDS = {"gaussian": "linear", "normalised": "linear-sphere"}
SIZES = (10, 50, 100, 250, 500, 1000, 5000, 20_000)
PAPER_SIGMAS = (1.66, 0.129, 0.023, 0.01)
SIGMAS = tuple(float(f"{s:.3g}") for s in np.geomspace(0.02, 2.0, 21))
SETS = 3  # disjoint data sets of each size, of which exact denoisers are asked
RECIPE = (
    "Networks: MLP of width 128 with two residual blocks, EDM's loss and preconditioning, Adam at "
    "1e-3 falling to 0 in the second half, batches of 128 (the paper: noise prediction, RAdam at "
    "1e-4, up to 2,000,000 steps)."
)
LIMITS = (
    "Trainings are of 10,000 steps by another recipe than the paper's, which ran up to "
    "2,000,000 steps at a tenth of the rate: an order of loss that appears only after "
    "far longer training would not be seen here. `--scale gpu` trains for 200,000 steps and "
    "looks at 6,000, 20,000 and 60,000 on the way."
)


def sweep_of(kind: str, scale: Scale) -> Sweep:
    r"""The trainings on one kind of samples, frozen."""
    # Normalised samples are not what the theory is about: fewer of them where time is short.
    long, few = scale == "gpu", kind == "normalised"
    short = (50, *SIZES[3:]) if few else SIZES
    return Sweep(
        KINDS[kind],
        sizes=(*SIZES[:6], 2500, *SIZES[6:]) if long else short,
        steps=200_000 if long else 10_000,
        measured_steps=(6000, 20_000, 60_000) if long else (3000,),
        seeds=(0, 1, 2) if long or not few else (0, 1),
        network="mlp",
        widths=(128,),
        blocks=2,
        levels=16,
        together=long,
    )


def trainings(scale: Scale) -> Runs:
    r"""The one set of trainings that all linear experiments share."""
    return {f"linear-{kind}": sweep_of(kind, scale) for kind in KINDS}


@cache
def _rms(kind: str) -> float:
    return Sweep(KINDS[kind], sizes=(8,)).source.rms


def spectra_of(out: Path, scale: Scale) -> Runs:
    r"""The spectra at x = 0: of the trained networks, and of exact denoisers of other sets."""
    runs: dict[str, Run] = {}
    read_spectra.cache_clear()  # what they are read from may change now
    for kind, data in KINDS.items():
        sweep, rms = sweep_of(kind, scale), _rms(kind)
        relative = tuple(float(s / rms) for s in sorted({*SIGMAS, *PAPER_SIGMAS}))
        last = last_networks(out / f"linear-{kind}", sweep.training.steps)
        runs[f"linear-{kind}-spectra"] = ScoreSpectra(network=last, sigmas=relative)
        runs[f"linear-{kind}-exact"] = ScoreSpectra(
            data, sizes=sweep.sizes, sigmas=relative, sets=SETS
        )
    return runs


@cache
def read_spectra(out: Path, kind: str, whose: str) -> Spectra:
    r"""The numbers of one of these runs: of ``spectra`` or of ``exact``."""
    path = out / f"linear-{kind}-{whose}"
    return Spectra.of(load(path), RunFolder.open(path).study)


def one_of(found: Spectra, kind: str, size: int) -> Any:
    r"""The row of a size among networks (``learned``) or exact denoisers (``empirical``)."""
    rows = found.measured
    chosen = (rows["kind"].values == kind) & (rows.num_samples.values == size)
    return rows.isel(subject=np.flatnonzero(chosen)[0], at=0)


def unfinished(out: Path, kinds: Iterable[str] = KINDS) -> list[str]:
    r"""A sentence for each kind of samples of which trainings are missing: a page says so."""
    said = []
    for kind in kinds:
        missing, learned = networks_left(out / f"linear-{kind}")
        if missing:
            said.append(
                f"On {kind} samples {missing} of {learned} planned networks are not there; "
                "the same command goes on."
            )
    return said


LEAST_FALL = 0.1  # of t times a singular value, below which nothing is called a drop
MOST_OF = 0.5  # the share of trainings or sets that must agree on it


def drop_at(row: Any, estimator: str) -> list[int | None]:
    r"""Where values fall most, level by level; None where they fall by less than a tenth."""
    one = row.sel(estimator=estimator)
    sure = (one.fall.values >= LEAST_FALL) & (one.drop_share.values > MOST_OF)
    return [int(r) if ok else None for r, ok in zip(one.drop_rank.values, sure, strict=True)]


def stages(drops: list[int | None], sigmas: np.ndarray) -> dict[int, tuple[float, float]]:
    r"""From which level down to which one each rank is where values fall most, without a break.

    Where a rank comes back, its longest stretch of levels counts.

    Example:
        >>> stages([25, None, 25, 25, 28], np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
        {25: (0.4, 0.3), 28: (0.5, 0.5)}
    """
    found: dict[int, list[float]] = {}
    levels = (float(s) for s in sigmas)
    for rank, stretch in groupby(zip(drops, levels, strict=True), key=lambda pair: pair[0]):
        part = [sigma for _, sigma in stretch]
        if rank is not None and len(part) > len(found.get(rank, [])):
            found[rank] = part
    return {rank: (max(part), min(part)) for rank, part in sorted(found.items())}


def said(found: Mapping[int, tuple[float, float]], rank: int) -> str:
    r"""A stage as a cell of a table: σ from its highest to its lowest level."""
    if rank not in found:
        return "none"
    high, low = found[rank]
    return f"{high:.3g} to {low:.3g}" if high > low else f"{high:.3g}"
