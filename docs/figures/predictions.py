r"""Three predictions, side by side: the paper's, collapse, exact; and brute force."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import PAPER, SEED
from scipy.spatial import cKDTree

from geomem.stats import Estimate
from geomem.theory.averages import Effort, planted_average
from geomem.theory.collapse import collapse_sigma
from geomem.theory.condensation import t_star
from geomem.theory.critical import critical_sigma
from geomem.theory.priors import Gaussian

GROUPS = {"high": (0, 2), "low": (2, 7)}
MEASURED = {10**3: (200, 250), 10**5: (40, 100), 10**7: (1, 4000)}  # data sets, points in each
MIDDLE = 1  # of the three levels
NEGLIGIBLE = 30.0  # energies above the source's: N exp(-30) = 1e-6 of its weight at N = 10^7


def compute() -> dict[str, Any]:
    r"""The rows of both tables, and how far theory and brute force are apart."""
    with ProcessPoolExecutor(2) as pool:
        answers = list(pool.map(_one_size, MEASURED))
    scores = [z for a in answers for z in a["z"]]
    return {
        "answers": answers,
        "rms_z": math.sqrt(float(np.mean(np.square(scores)))),
        "largest_z": float(np.abs(scores).max()),
        "count": len(scores),
    }


def draw(document: dict[str, Any], out: Path) -> None:
    r"""The page has tables alone."""


def _one_size(size: int) -> dict[str, Any]:
    began = time.time()
    prior, around = Gaussian(PAPER), collapse_sigma(PAPER, size)
    coarse = np.geomspace(0.5 * around, 2 * around, 12)
    first = _exact(prior, coarse, size, 2)
    crossings = [math.exp(critical_sigma(coarse, *first[n]).value) for n in first]
    levels = np.geomspace(0.95 * min(crossings), 1.05 * max(crossings), 3)
    theory, theory_seconds = _exact(prior, levels, size, 32), time.time() - began
    began = time.time()
    brute = _brute(levels, size, np.random.default_rng([SEED, size]))
    return {
        "N": size,
        "seconds_exact": round(theory_seconds),
        "seconds_brute": round(time.time() - began),
        "levels": _level_rows(levels, size, theory, brute),
        "values": _value_rows(levels, size, theory, brute),
        "z": [
            (theory[n][0][k] - brute[n][0][k]) / math.hypot(theory[n][1][k], brute[n][1][k])
            for n in theory
            for k in (MIDDLE,)
        ],
    }


Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # value and error over levels


def _exact(prior: Gaussian, levels: np.ndarray, size: int, points: int) -> Curves:
    rows = []
    for k, sigma in enumerate(levels):
        effort = Effort(points=points, seed=SEED + 1000 * k)
        p = planted_average(prior, float(sigma), [size], effort=effort)
        row = [(p.retention[0, a], p.retention_stderr[0, a]) for a, _ in GROUPS.values()]
        rows.append([*row, (1 - p.participation[0], p.participation_stderr[0])])
    return _curves(np.array(rows))


def _curves(rows: np.ndarray) -> Curves:
    names = (*GROUPS, "shared")  # shared: 1 - E sum w²
    return {n: (rows[:, k, 0], rows[:, k, 1]) for k, n in enumerate(names)}


def _brute(levels: np.ndarray, size: int, rng: np.random.Generator) -> Curves:
    # The same sources and noise at all levels; errors from batches of points.
    sets, points = MEASURED[size]
    batches = []
    for _ in range(sets):
        y = rng.standard_normal((size, len(PAPER))) * np.sqrt(PAPER)
        sources = rng.permutation(size)[:points]
        z = rng.standard_normal((points, len(PAPER)))
        # A tree over the large set, so that only points with weight are visited.
        tree = cKDTree(y, 64, compact_nodes=False, balanced_tree=False) if size > 10**6 else None
        rows = np.stack([_kept(_posteriors(y, tree, sources, z, s), s) for s in levels])
        parts = np.array_split(rows, 1 if sets > 20 else 40, axis=1)
        batches.extend(p.mean(1) for p in parts)
    found = np.stack(batches)
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    return _curves(np.stack([found.mean(0), error], axis=-1))


Posteriors = Iterator[tuple[np.ndarray, np.ndarray]]  # variances in units of the noise, sum w²


def _posteriors(
    y: np.ndarray, tree: cKDTree | None, sources: np.ndarray, z: np.ndarray, sigma: float
) -> Posteriors:
    return (
        _all_points(y, sources, z, sigma) if tree is None else _nearby(y, tree, sources, z, sigma)
    )


def _all_points(y: np.ndarray, sources: np.ndarray, z: np.ndarray, sigma: float) -> Posteriors:
    # Blocks of queries against all points, in float64. With energies of order 10 the
    # expanded square loses nothing that matters: 1e-16 * |y|²/sigma² = 1e-12.
    scaled = y / sigma
    norm, square = (scaled**2).sum(1) / 2, scaled**2
    for rows in np.array_split(np.arange(len(z)), max(1, len(z) * len(y) // 1_000_000)):
        x = scaled[sources[rows]] + z[rows]
        log_w = x @ scaled.T
        log_w -= norm
        log_w -= log_w.max(1, keepdims=True)
        w = np.exp(log_w, out=log_w)
        w /= w.sum(1, keepdims=True)
        mean = w @ scaled
        variance = w @ square - mean**2
        participation = np.einsum("qn,qn->q", w, w)
        yield from zip(variance, participation, strict=True)


def _nearby(
    y: np.ndarray, tree: cKDTree, sources: np.ndarray, z: np.ndarray, sigma: float
) -> Posteriors:
    # All points that weigh more than exp(-30) of the source, found by a tree.
    for source, noise in zip(sources, z, strict=True):
        x = y[source] + sigma * noise
        reach = sigma * math.sqrt((noise**2).sum() + 2 * NEGLIGIBLE)
        offset = (y[tree.query_ball_point(x, reach)] - x) / sigma
        energy = (offset**2).sum(1) / 2
        w = np.exp(energy.min() - energy)
        w /= w.sum()
        mean = w @ offset
        yield w @ (offset - mean) ** 2, np.asarray((w**2).sum())


def _kept(posterior: Posteriors, sigma: float) -> np.ndarray:
    v = np.array(PAPER)
    control = v / (v + sigma**2)
    rows = [(variance / control, participation) for variance, participation in posterior]
    return np.array([[*(r[a:b].mean() for a, b in GROUPS.values()), 1 - p] for r, p in rows])


def _level_rows(levels: np.ndarray, size: int, theory: Curves, brute: Curves) -> list[list[str]]:
    collapse = f"{collapse_sigma(PAPER, size):.4f}"
    rows = []
    for name, what in (
        ("high", "half of v = 1 kept"),
        ("low", "half of v = .09 kept"),
        ("shared", "two effective points"),
    ):
        exact, measured = (critical_sigma(levels, *c[name]) for c in (theory, brute))
        ratio = math.exp(exact.value - measured.value)
        error = math.hypot(exact.stderr, measured.stderr)
        found = [_log_pm(exact), _log_pm(measured), _pm(ratio, error)]
        power = f"10^{round(math.log10(size))}"
        rows.append([power, what, *_paper_levels(name, size), collapse, *found])
    return rows


def _paper_levels(name: str, size: int) -> tuple[str, str]:
    v = np.array(PAPER)
    if name == "shared":
        # t = t_c(x)/2 at a typical noisy point, x'Σx = sum v (v + t); g = 0 or 1
        log_size = math.log(size)
        found = []
        for g in (0, 1):
            c = (1 + g / 2) * (v**2).sum()
            t = (v.sum() + math.sqrt(v.sum() ** 2 + 32 * log_size * c)) / (16 * log_size)
            found.append(f"{math.sqrt(t):.4f}")
        return found[0], found[1]
    k = GROUPS[name][0]
    a, b = (math.sqrt(float(t_star(PAPER, size, gaussian=g)[k])) for g in (False, True))
    return f"{a:.4f}", f"{b:.4f}"


def _value_rows(levels: np.ndarray, size: int, theory: Curves, brute: Curves) -> list[list[str]]:
    rows, at = [], MIDDLE
    t = float(levels[at]) ** 2
    for name, what in (("high", "retention, v = 1"), ("low", "retention, v = .09")):
        paper = [
            "lost" if t < t_star(PAPER, size, gaussian=g)[GROUPS[name][0]] else "kept"
            for g in (False, True)
        ]
        rows.append(_value_row(levels, size, what, " / ".join(paper), theory[name], brute[name]))
    both = ((1 - c["shared"][0], c["shared"][1]) for c in (theory, brute))
    x_squared = (np.array(PAPER) * (np.array(PAPER) + t)).sum()
    spread = [g * np.square(PAPER).sum() / 2 + x_squared for g in (0, 1)]
    level = [math.sqrt(one / (2 * math.log(size))) for one in spread]
    paper = [f"{max(0.0, 1 - t / c):.3f}" for c in level]
    rows.append(_value_row(levels, size, "participation", " / ".join(paper), *both))
    return rows


def _value_row(
    levels: np.ndarray, size: int, what: str, paper: str, a: tuple, b: tuple
) -> list[str]:
    at = MIDDLE
    (x, dx), (y, dy) = ((c[0][at], c[1][at]) for c in (a, b))
    ratio = x / y
    error = ratio * math.hypot(dx / x, dy / y)
    z = (x - y) / math.hypot(dx, dy)
    power = f"10^{round(math.log10(size))}"
    found = [_pm(x, dx), _pm(y, dy), _pm(ratio, error), f"{z:+.1f}"]
    return [power, f"{levels[at]:.4f}", what, paper, *found]


def _pm(value: float, error: float) -> str:
    return str(Estimate(value, error))


def _log_pm(found: Estimate) -> str:
    value = math.exp(found.value)
    return _pm(value, value * found.stderr)
