r"""Computes every number and draws every figure of the theory pages.

    python docs/figures/theory.py OUT                    all of it, in a few minutes
    python docs/figures/theory.py OUT --only origin      one page: higher, origin, information,
                                                         phases or predictions

OUT receives PNGs, the tables of the pages as ``*.md`` and numbers as ``theory-*.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

import geomem
from geomem.manifolds import PAPER_VARIANCES
from geomem.show.figures.theory import plot_phase_diagram
from geomem.stats import Estimate
from geomem.theory.averages import Effort, planted_average
from geomem.theory.collapse import collapse_sigma
from geomem.theory.condensation import smoothed_spectrum, t_star
from geomem.theory.critical import critical_sigma
from geomem.theory.maps import Kind, information_budget, retention_map
from geomem.theory.phase import phase_diagram
from geomem.theory.population import information
from geomem.theory.priors import Gaussian

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

SEED = 4
SEEDS = 6  # repetitions with other draws: their spread is the error of a difference
PAPER = (1.0,) * 2 + (0.09,) * 5
SPECTRA = {
    "1 × 1, .09 × 2": (1.0,) + (0.09,) * 2,
    "1 × 2, .09 × 5 (the paper's)": PAPER,
    "1 × 20, .09 × 50": (1.0,) * 20 + (0.09,) * 50,
    "k^-2, 4 directions": tuple(k**-2.0 for k in range(1, 5)),
    "1/k, 20 directions": tuple(1 / k for k in range(1, 21)),
}
FRESH = [n for n in SPECTRA if "50" not in n and "4" not in n]  # the dear ones, not all
KINDS: tuple[Kind, ...] = ("planted", "fresh", "centre")
BEYOND = 5  # standard errors; with 5 degrees of freedom chance exceeds them in 0.4 %


# --- When are directions of higher variance lost first? ---------------------------------


def differences(variances: tuple[float, ...], kind: Kind) -> xr.Dataset:
    r"""High minus low over (N, sigma): of retention and of missing dimension, with errors.

    Planted points take the mean retention, fresh and central ones the bounded retention.
    """
    sizes = np.geomspace(3, 1e6, 17)
    low, high = 0.4 * collapse_sigma(variances, 1e6), 4 * collapse_sigma(variances, 3)
    sigmas = np.geomspace(low, high, 16)
    ends = np.eye(len(variances))[[0, -1]] if len(variances) > 10 else None
    bounded = kind != "planted"
    seeds = 1 if kind == "centre" else SEEDS
    maps = [
        retention_map(
            Gaussian(variances),
            sigmas,
            sizes,
            kind=kind,
            directions=ends,
            bounded=bounded,
            effort=Effort(points=2, seed=SEED + 10**6 * s),
        )
        for s in range(seeds)
    ]
    runs = xr.concat([_high_low(m, "bounded" if bounded else "retention") for m in maps], "seed")
    out = runs.mean("seed")
    for name in list(runs.data_vars):
        spread = runs[name].std("seed", ddof=1) if seeds > 1 else 0 * out[name]
        out[f"{name}_stderr"] = spread / math.sqrt(seeds) + 1e-6
    return out


def _high_low(m: xr.Dataset, name: str) -> xr.Dataset:
    # One number a group: the mean over its equal directions.
    control = m.control.isel(num_samples=0) if "num_samples" in m.control.dims else m.control
    top, bottom = (
        np.isclose(control.isel(sigma=0), control.isel(sigma=0).max()),
        np.isclose(control.isel(sigma=0), control.isel(sigma=0).min()),
    )
    kept = {"high": m[name].isel(direction=top).mean("direction")}
    kept["low"] = m[name].isel(direction=bottom).mean("direction")
    share = {"high": control.isel(direction=top).mean("direction")}
    share["low"] = control.isel(direction=bottom).mean("direction")
    missing = {g: share[g] * (1 - kept[g]) for g in kept}
    return xr.Dataset(
        {
            "high": kept["high"],
            "low": kept["low"],
            "mean_high": m.retention.isel(direction=top).mean("direction"),
            "missing_high": missing["high"],
            "missing_low": missing["low"],
            "retention": kept["high"] - kept["low"],
            "missing": missing["high"] - missing["low"],
            "participation": m.participation,
        }
    )


def higher(out: Path) -> dict[str, Any]:
    jobs = [(SPECTRA[name], kind) for name, kind in _pairs()]
    with ProcessPoolExecutor(2) as pool:
        maps = list(pool.map(differences, *zip(*jobs, strict=True)))
    found = {(name, kind): m for (name, kind), m in zip(_pairs(), maps, strict=True)}
    _draw_kinds(found, out / "theory-higher-kinds.png")
    _draw_spectra(found, out / "theory-higher-spectra.png")
    rows = [_summary(name, kind, m) for (name, kind), m in found.items()]
    head = [
        "spectrum", "points", "cells", "r: high first", "r: low first", "lowest r_high - r_low",
        "highest", "δ: high first", "δ: low first", "largest δ_high - δ_low",
        "largest δ_low - δ_high",
    ]  # fmt: skip
    _table(out / "higher-variance.md", head, [list(r.values()) for r in rows])
    return {"summary": rows, "example": _example(), "crossing": _order_of_loss(found)}


def _pairs() -> list[tuple[str, Kind]]:
    return [(n, kind) for n in SPECTRA for kind in KINDS if kind != "fresh" or n in FRESH]


def _summary(name: str, kind: Kind, m: xr.Dataset) -> dict[str, str]:
    # Only where something is being lost: a group between 5 % and 95 %.
    undecided = ((m.high > 0.05) & (m.high < 0.95)) | ((m.low > 0.05) & (m.low < 0.95))
    r, e = m.retention.where(undecided), m.retention_stderr
    d, f = m.missing.where(undecided), m.missing_stderr

    def share(values: xr.DataArray) -> str:
        return f"{100 * int(values.sum()) / int(undecided.sum()):.0f} %"

    return {
        "spectrum": name,
        "points": kind,
        "cells": str(int(undecided.sum())),
        "r_high_first": share(r < -BEYOND * e),
        "r_low_first": share(r > BEYOND * e),
        "r_lowest": _extreme(m, r, e, lowest=True),
        "r_highest": _extreme(m, r, e, lowest=False),
        "d_high_first": share(d > BEYOND * f),
        "d_low_first": share(d < -BEYOND * f),
        "d_largest": _extreme(m, d, f, lowest=False),
        "d_smallest": _extreme(m, -d, f, lowest=False),
    }


def _extreme(m: xr.Dataset, values: xr.DataArray, stderr: xr.DataArray, *, lowest: bool) -> str:
    flat = values.stack(cell=("sigma", "num_samples"))
    where = int((flat if lowest else -flat).fillna(np.inf).argmin("cell"))
    cell = flat.isel(cell=where)
    error = stderr.stack(cell=("sigma", "num_samples")).isel(cell=where)
    size, sigma = float(cell.num_samples), float(cell.sigma)
    # The centre is exact: its error is the floor of 1e-6.
    value = f"{float(cell):.4f} ± 0" if error < 2e-6 else _pm(float(cell), float(error))
    return f"{value} (N={size:,.0f}, σ={sigma:.2g})"


def _example() -> dict[str, str]:
    p = planted_average(Gaussian(PAPER), 0.1**0.5, [50], effort=Effort(points=64, seed=SEED))
    columns = {"retention": (p.retention, p.retention_stderr)}
    columns["missing_dimension"] = (p.missing_dimension, p.missing_dimension_stderr)
    return {
        f"{name}_{group}": _pm(float(value[0, k]), float(error[0, k]))
        for name, (value, error) in columns.items()
        for group, k in (("high", 0), ("low", 2))
    }


def _order_of_loss(found: dict[tuple[str, Kind], xr.Dataset]) -> dict[str, dict[str, str]]:
    # As sigma falls at fixed N: at which level is half of each group's retention gone?
    out: dict[str, dict[str, str]] = {}
    for (name, kind), m in found.items():
        if kind != "planted":
            continue
        one = m.sel(num_samples=1000, method="nearest")
        levels = {g: critical_sigma(one.sigma, one[g], one[f"{g}_stderr"]) for g in ("high", "low")}
        out[name] = {
            g: "none" if e is None else _pm(math.exp(e.value), math.exp(e.value) * e.stderr)
            for g, e in levels.items()
        } | {"N": f"{float(one.num_samples):.4g}"}
    return out


def _draw_kinds(found: dict[tuple[str, Kind], xr.Dataset], path: Path) -> None:
    name = next(n for n in SPECTRA if "paper" in n)
    maps = [found[name, kind] for kind in KINDS]
    titles = ["planted points (mean)", "fresh points (bounded)", "at the centre (bounded)"]
    _draw_maps(maps, [SPECTRA[name]] * 3, titles, path)


def _draw_spectra(found: dict[tuple[str, Kind], xr.Dataset], path: Path) -> None:
    names = [n for n in SPECTRA if "paper" not in n]
    maps = [found[n, "planted"] for n in names]
    _draw_maps(maps, [SPECTRA[n] for n in names], names, path)


def _draw_maps(
    maps: list[xr.Dataset], spectra: list[tuple[float, ...]], titles: list[str], path: Path
) -> None:
    count = len(maps)
    figure, axes = plt.subplots(2, count, figsize=(2.7 * count + 1.4, 5.6), layout="constrained")
    for column, (m, v, title) in enumerate(zip(maps, spectra, titles, strict=True)):
        top, bottom = axes[0, column], axes[1, column]
        upper = _one_map(m, m.retention, v, top, 0.12)
        lower = _one_map(m, -m.missing, v, bottom, 0.6)
        top.set_title(title, fontsize="medium")
        top.set_xticklabels([])
        bottom.set_xlabel("training points N")
    for row in axes:
        row[0].set_ylabel("noise level σ")
    figure.colorbar(upper, ax=axes[0], label="retention: high - low")
    figure.colorbar(lower, ax=axes[1], label="missing dimension: low - high")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


def _one_map(
    m: xr.Dataset, values: xr.DataArray, v: tuple[float, ...], ax: Axes, limit: float
) -> Any:
    x, y = m.num_samples.values, m.sigma.values
    mesh = ax.pcolormesh(
        x, y, values.transpose("sigma", "num_samples"), cmap="RdBu", vmin=-limit, vmax=limit,
        shading="nearest", rasterized=True,
    )  # fmt: skip
    pair, log_size = np.array([max(v), min(v)]), np.log(x)[:, None]
    A = sum(one**2 for one in v) / 2
    gaussian = np.sqrt((pair + np.sqrt(pair**2 + 8 * A * log_size)) / (4 * log_size))
    for k, (style, group) in enumerate((("-", "high"), ("--", "low"))):
        label = f"the paper's t*, {group} group"
        ax.plot(x, gaussian[:, k], style, color="k", lw=1.1, label=label)
    two = [critical_sigma(y, 1 - m.participation.isel(num_samples=i), 0 * y) for i in range(len(x))]
    levels = [np.nan if e is None else math.exp(e.value) for e in two]
    ax.plot(x, levels, ":", color="k", lw=1.8, label="two effective points")
    ax.set(xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.minorticks_off()
    return mesh


# --- What the origin figure really shows ------------------------------------------------

Denoise = Callable[[np.ndarray, float], np.ndarray]


def origin_jacobian(denoiser: Denoise, t: float, step: float) -> np.ndarray:
    r"""t times the score Jacobian at 0, by finite steps along each axis, with shape (d, d).

    Rows are t [s(step e_j) - s(0)] / step with s = (D - x) / t; the paper's step is sqrt(t).
    """
    d = len(PAPER_VARIANCES)
    moved = denoiser(np.concatenate([np.zeros((1, d)), step * np.eye(d)]), math.sqrt(t))
    return np.asarray((moved[1:] - moved[0]) / step - np.eye(d))


def _normalised(size: int, seed: int) -> torch.Tensor:
    linear = geomem.LinearManifold(torch.tensor(PAPER_VARIANCES), len(PAPER_VARIANCES))
    rng = torch.Generator().manual_seed(seed)
    return geomem.NormalizedLinear(linear).sample(size, rng)


def _empirical(points: torch.Tensor) -> Denoise:
    exact = geomem.EmpiricalDenoiser(points)
    return lambda x, sigma: exact(torch.tensor(x), torch.tensor(sigma)).numpy()


def _population(points: np.ndarray) -> Denoise:
    # |y| = 1, so the weights at x are exp(x·y / t): the same at any level for x = 0.
    def denoise(x: np.ndarray, sigma: float) -> np.ndarray:
        log_w = points @ (x.T / sigma**2)
        w = np.exp(log_w - log_w.max(0))
        return np.asarray((w.T @ points) / w.sum(0)[:, None])

    return denoise


def drop(jacobian: np.ndarray, window: tuple[int, int] = (20, 29)) -> int:
    r"""Rank of the largest drop among the paper's ranks 20 to 29."""
    values = np.linalg.svd(jacobian, compute_uv=False)
    falls = values[:-1] - values[1:]
    return window[0] + int(falls[window[0] - 1 : window[1]].argmax())


FINE = np.geomspace(0.1, 0.22, 40)


def _events(denoiser: Denoise, small: bool) -> tuple[float, float]:
    # The levels at which, as t falls, the drop settles at rank 25 and at which the two high
    # directions pass the normal ones, 1/t, as the mean of their two diagonal elements.
    steps = [1e-4 if small else math.sqrt(t) for t in FINE]
    jacobians = [origin_jacobian(denoiser, t, s) for t, s in zip(FINE, steps, strict=True)]
    other = np.flatnonzero([drop(j) != 25 for j in jacobians])
    settles = FINE[other[0]] if len(other) and other[0] else math.nan
    high = np.array([j[0, 0] + j[1, 1] for j in jacobians]) / 2
    passes = np.interp(-1.0, -high, FINE) if high.min() < 1 < high.max() else math.nan
    return float(settles), float(passes)


def origin(out: Path) -> dict[str, Any]:
    levels = np.geomspace(0.5, 0.05, 47)
    many = _normalised(400_000, SEED).numpy()
    second = (many**2).mean(0)
    square = (many[:, :2] ** 2).mean(1)
    half = Estimate(square.mean() / 2, square.std(ddof=1) / math.sqrt(len(many)) / 2)
    samples: dict[str, list[Denoise]] = {
        "population": [_population(p) for p in np.array_split(many, 4)]
    }
    shares, papers = ["-"], ["-"]
    for size, sets in ((50, 24), (1000, 12), (20_000, 3)):
        drawn = [_normalised(size, SEED + 1 + s) for s in range(sets)]
        samples[f"N = {size:,}"] = [_empirical(p) for p in drawn]
        shares.append(_pm(*_mean([_shared_by(p, 0.134) / size for p in drawn])))
        papers.append(f"{float(t_star([1.0], size, gaussian=False)[0]):.4f}")
    rows = []
    for (name, denoisers), share, paper in zip(samples.items(), shares, papers, strict=True):
        small, paper_step = (
            np.array([_events(one, small) for one in denoisers]) for small in (True, False)
        )
        columns = [small[:, 1], paper_step[:, 1], small[:, 0], paper_step[:, 0]]
        rows.append([name, *map(_settled, columns), share, paper])
    curves = {
        name: [origin_jacobian(denoisers[0], t, math.sqrt(t)) for t in levels]
        for name, denoisers in samples.items()
    }
    _draw_origin(levels, curves, half.value, out / "theory-origin.png")
    head = [
        "samples", "high pass 1/t, small step", "high pass 1/t, step √t", "drop at 25, small step",
        "drop at 25, step √t", "effective points / N", "the paper's t*",
    ]  # fmt: skip
    _table(out / "origin-figure.md", head, rows)
    moments = {g: float(second[k].mean()) for g, k in _groups().items()}
    theory = {
        f"{n:g}": [
            smoothed_spectrum(PAPER, 30, t, n, form="as plotted").drop() for t in (0.2, 0.13, 0.05)
        ]
        for n in (50, 1000, 20_000)
    }
    found = {"rows": rows, "half_second_moment": _pm(half.value, half.stderr)}
    return found | {"second_moments": moments, "paper_drop_at_.2_.13_.05": theory}


def _settled(values: np.ndarray) -> str:
    # In a small set directions split, and the drop may be at no rank for long.
    known = values[np.isfinite(values)]
    if len(known) < len(values):
        return f"seen in {len(known)} of {len(values)} sets"
    value, error = _mean(known)
    grid = float(np.log(FINE[1] / FINE[0]) * value / math.sqrt(12 * len(known)))
    return _pm(value, math.hypot(error, grid))


def _groups() -> dict[str, slice]:
    return {"high": slice(0, 2), "low": slice(2, 7), "rest": slice(7, 30)}


def _shared_by(points: torch.Tensor, t: float) -> float:
    # Effective points at the displaced points along the two high directions, their mean.
    x = math.sqrt(t) * torch.eye(len(PAPER_VARIANCES), dtype=torch.float64)[:2]
    posterior = geomem.EmpiricalDenoiser(points).posterior(x, torch.tensor([math.sqrt(t)]))
    return float(posterior.effective_points.mean())


def _draw_origin(
    t: np.ndarray, curves: dict[str, list[np.ndarray]], half: float, path: Path
) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    sizes = {"N = 50": 50, "N = 1,000": 1000, "N = 20,000": 20_000}
    for ax, level in ((left, 0.3), (middle, 0.1)):
        at = int(np.abs(t - level).argmin())
        for k, (name, jacobians) in enumerate(curves.items()):
            values = np.linalg.svd(jacobians[at], compute_uv=False)
            style = {"ls": "-", "color": "k"} if not k else {"ls": "", "marker": "o", "ms": 3}
            ax.plot(np.arange(1, 31), values, label=name, **style)
        ax.set(xlabel="rank", title=f"t = {t[at]:.2f}", ylabel="t × singular value")
    left.legend(frameon=False, loc="lower left")
    for k, (name, jacobians) in enumerate(curves.items()):
        ranks = np.array([drop(j) for j in jacobians]) + 0.13 * k
        style = {"ls": "-", "color": "k"} if not k else {"ls": "", "marker": "o", "ms": 3}
        line = right.plot(t, ranks, **style)[0]
        if name in sizes:
            paper = float(t_star([1.0], sizes[name], gaussian=False)[0])
            right.axvline(paper, color=line.get_color(), lw=1, ls="--")
    right.axvline(half, color="k", lw=1, ls=":")
    right.set(xscale="log", xlabel="t", ylabel="rank of the largest drop, 20 to 29")
    right.set(ylim=(20.5, 29.7))
    right.set_title("dotted: E[y²]/2; dashed: the paper's t*", fontsize="medium")
    right.set_xticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    right.minorticks_off()
    _save(figure, path)


# --- Dimension is information per e-fold of noise ---------------------------------------

BUDGET = tuple(1 / k for k in range(1, 13))
BUDGET_SEEDS = 12
BUDGET_SIZES = (10, 100, 10_000, 1_000_000)


def _budget_map(seed: int) -> xr.Dataset:
    sigmas = np.geomspace(0.01, 100, 56)
    effort = Effort(points=2, seed=SEED + 10**6 * seed)
    return retention_map(Gaussian(BUDGET), sigmas, BUDGET_SIZES, effort=effort)


def nats(out: Path) -> dict[str, Any]:
    with ProcessPoolExecutor(2) as pool:
        maps = list(pool.map(_budget_map, range(BUDGET_SEEDS)))
    kept = xr.concat([information_budget(m).kept for m in maps], "seed")
    rows = []
    for size in BUDGET_SIZES:
        one = kept.sel(num_samples=size)
        parts = [_pm(*_mean(one.isel(direction=k).values)) for k in (0, 1, 3, 11)]
        total = one.sum("direction").values
        population = float(information(BUDGET, 0.01) - information(BUDGET, 100.0))
        rows.append(
            [f"{size:,}", *parts, _pm(*_mean(total)), f"{math.log(size):.4f}", f"{population:.2f}"]
        )
    head = ["N", "k = 1", "k = 2", "k = 4", "k = 12", "all 12", "ln N", "population"]
    _table(out / "information-budget.md", head, rows)
    mean = xr.concat([m.missing_dimension for m in maps], "seed").mean("seed")
    control = maps[0].control
    control = control.isel(num_samples=0) if "num_samples" in control.dims else control
    _draw_budget(mean.sel(num_samples=100), control, 100, out / "theory-information.png")
    entropy = _entropy_rows(maps, 100)
    head = [
        "σ",
        "ln N - E[entropy of w]",
        "kept between σ and 100",
        "difference in standard errors",
    ]
    _table(out / "information-entropy.md", head, entropy)
    return {"budget": rows, "entropy": entropy}


def _entropy_rows(maps: list[xr.Dataset], size: int) -> list[list[str]]:
    rng = np.random.default_rng([SEED, size])
    rows = []
    for index in (18, 24, 28, 32):
        sigma = float(maps[0].sigma[index])
        told = np.concatenate([_told(rng, sigma, size, 4000) for _ in range(10)])
        brute = Estimate(float(told.mean()), float(told.std(ddof=1) / math.sqrt(len(told))))
        window = [information_budget(m.isel(sigma=slice(index, None))) for m in maps]
        kept = [float(b.kept.sel(num_samples=size).sum()) for b in window]
        mean, error = _mean(kept)
        z = (brute.value - mean) / math.hypot(brute.stderr, error)
        rows.append([f"{sigma:.3f}", _pm(brute.value, brute.stderr), _pm(mean, error), f"{z:+.1f}"])
    return rows


def _told(rng: np.random.Generator, sigma: float, size: int, sets: int) -> np.ndarray:
    # ln N minus the entropy of the weights, for training sets drawn one by one.
    y = rng.standard_normal((sets, size, len(BUDGET))) * np.sqrt(BUDGET)
    x = y[:, :1] + sigma * rng.standard_normal((sets, 1, len(BUDGET)))
    energy = ((y - x) ** 2).sum(-1) / (2 * sigma**2)
    w = np.exp(energy.min(1, keepdims=True) - energy)
    w /= w.sum(1, keepdims=True)
    entropy = -np.where(w > 0, w * np.log(np.where(w > 0, w, 1)), 0).sum(1)
    return np.asarray(math.log(size) - entropy)


def _draw_budget(missing: xr.DataArray, control: xr.DataArray, size: int, path: Path) -> None:
    shown = missing.where((missing.sigma > 0.02) & (missing.sigma < 20), drop=True)
    population = control.where((control.sigma > 0.02) & (control.sigma < 20), drop=True)
    figure, axes = plt.subplots(
        2, 2, figsize=(8, 5), layout="constrained", width_ratios=[3, 1.1], height_ratios=[1, 1.8]
    )
    top, corner, main, side = axes.ravel()
    sigma, k = shown.sigma.values, np.arange(1, len(BUDGET) + 1)
    kept = population - shown
    top.plot(sigma, population.sum("direction"), "0.6", label="population")
    top.plot(sigma, kept.sum("direction"), "C0", label=f"exact denoiser, N = {size}")
    top.fill_between(sigma, kept.sum("direction"), color="C0", alpha=0.2)
    top.set(xscale="log", ylabel="dimension\n= nats per e-fold", xlim=(sigma[0], sigma[-1]))
    top.annotate(f"area: ln {size} = {math.log(size):.2f} nats", (0.026, 2), color="C0")
    top.legend(frameon=False, fontsize="small")
    mesh = main.pcolormesh(
        sigma, k, shown.transpose("direction", "sigma"), vmin=0, vmax=1, cmap="magma",
        shading="nearest", rasterized=True,
    )  # fmt: skip
    main.plot(np.sqrt(BUDGET), k, "--", color="0.6", lw=1.2)
    main.set(xscale="log", xlabel="noise level σ (dashed: opens)", ylabel="direction k, v = 1/k")
    main.set(xlim=(sigma[0], sigma[-1]))
    main.invert_yaxis()
    levels = np.log(sigma)
    spent = np.trapezoid(kept.transpose("direction", "sigma"), levels, axis=1)
    side.barh(k, spent, color="C0", alpha=0.7)
    side.set(xlabel="nats kept", ylim=main.get_ylim())
    corner.axis("off")
    figure.colorbar(mesh, ax=corner, label="missing dimension", orientation="horizontal")
    for ax in (top, main):
        ax.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        ax.minorticks_off()
    top.set_xticklabels([])
    _save(figure, path)


# --- Lost without collapse --------------------------------------------------------------


def phases(out: Path) -> dict[str, Any]:
    sigmas, sizes = np.geomspace(0.02, 4, 48), np.geomspace(2, 1e6, 33)
    effort = Effort(points=8, seed=SEED)
    half, milder = (phase_diagram(PAPER, sigmas, sizes, kept=k, effort=effort) for k in (0.5, 0.75))
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    for ax, m in zip(axes, (half, milder), strict=True):
        plot_phase_diagram(m, ax)
        ax.set_title(f"lost: less than {m.attrs['kept']:g} kept", fontsize="medium")
        ax.set_xlim(2, 1e6)
    axes[1].set_ylabel("")
    axes[1].get_legend().remove()
    _save(figure, out / "theory-phases.png")
    undecided = half.participation < 0.5
    kept = half.retention.where(undecided).stack(cell=("sigma", "num_samples", "group"))
    cell = kept.isel(cell=int(kept.fillna(9).argmin("cell")))
    error = float(
        half.retention_stderr.sel(sigma=cell.sigma, num_samples=cell.num_samples, group=cell.group)
    )
    return {
        "cells": int(undecided.sum()),
        "shaded_at_half": int(half.lost_without_collapse.sum()),
        "shaded_at_three_quarters": {
            f"{v:g}": int(milder.lost_without_collapse.sel(group=v).sum())
            for v in milder.group.values
        },
        "least_kept_before_collapse": _pm(float(cell), error),
        "where": {n: float(cell[n]) for n in ("sigma", "num_samples", "group")},
        "zero_variance": _zero_variance(),
    }


def _zero_variance() -> str:
    # A direction of (almost) no variance keeps 1 - E sum w²: the largest deviation found,
    # over its standard error.
    worst = 0.0
    for sigma in (0.1, 0.3, 1.0):
        p = planted_average(
            Gaussian((*PAPER, 1e-10)), sigma, [3, 30, 1e3, 1e6], effort=Effort(seed=SEED)
        )
        error = np.hypot(p.retention_stderr[:, -1], p.participation_stderr)
        deviation = np.abs(p.retention[:, -1] - 1 + p.participation)
        worst = max(worst, float((deviation / error).max()))
    return f"{worst:.1f} standard errors at most"


# --- Predictions side by side -----------------------------------------------------------

GROUPS = {"high": (0, 2), "low": (2, 7)}
MEASURED = {10**3: (200, 250), 10**5: (40, 100), 10**7: (1, 4000)}  # data sets, points in each
MIDDLE = 1  # of the three levels
NEGLIGIBLE = 30.0  # energies above the source's: N exp(-30) = 1e-6 of its weight at N = 10^7


def predictions(out: Path) -> dict[str, Any]:
    with ProcessPoolExecutor(2) as pool:
        return _side_by_side(out, list(pool.map(_one_size, MEASURED)))


def _side_by_side(out: Path, answers: list[dict[str, Any]]) -> dict[str, Any]:
    levels = [row for a in answers for row in a["levels"]]
    head = [
        "N", "what", "paper, normalised", "paper, Gaussian", "collapse", "exact", "brute force",
        "exact / brute force",
    ]  # fmt: skip
    _table(out / "predictions-levels.md", head, levels)
    values = [row for a in answers for row in a["values"]]
    head = ["N", "σ", "what", "paper", "exact", "brute force", "exact / brute force", "z"]
    _table(out / "predictions-values.md", head, values)
    scores = [z for a in answers for z in a["z"]]
    return {
        "answers": answers,
        "rms_z": math.sqrt(float(np.mean(np.square(scores)))),
        "largest_z": float(np.abs(scores).max()),
        "count": len(scores),
    }


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


# --- Common -----------------------------------------------------------------------------


def _mean(values: Any) -> tuple[float, float]:
    sample = np.asarray(values, float)
    return float(sample.mean()), float(sample.std(ddof=1) / math.sqrt(len(sample)))


def _pm(value: float, error: float) -> str:
    return str(Estimate(value, error))


def _log_pm(found: Estimate) -> str:
    value = math.exp(found.value)
    return _pm(value, value * found.stderr)


def _table(path: Path, head: list[str], rows: list[list[str]]) -> None:
    lines = [head, ["---"] * len(head), *rows]
    path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)


PAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "higher": higher,
    "origin": origin,
    "information": nats,
    "phases": phases,
    "predictions": predictions,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Numbers and figures of the theory pages.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=list(PAGES))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    versions = {m.__name__: m.__version__ for m in (geomem, np, scipy, xr, torch, matplotlib)}
    versions["python"] = platform.python_version()
    print(" ".join(f"{k} {v}" for k, v in versions.items()), f"seed {SEED}")
    for name in [chosen.only] if chosen.only else PAGES:
        began = time.time()
        found = PAGES[name](chosen.out)
        seconds = round(time.time() - began, 1)
        print(f"{name}: {seconds} s")
        document = {"seed": SEED, "versions": versions, "seconds": seconds} | found
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (chosen.out / f"theory-{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
