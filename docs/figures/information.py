r"""Dimension is information per e-fold of noise: who spends the budget ln N, and where."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common import SEED, WIDTH, array, rounded

from geomem.stats import Estimate
from geomem.theory.averages import Effort
from geomem.theory.maps import information_budget, retention_map
from geomem.theory.population import information
from geomem.theory.priors import Gaussian

BUDGET = tuple(1 / k for k in range(1, 13))
BUDGET_SEEDS = 12
BUDGET_SIZES = (10, 100, 10_000, 1_000_000)
SHOWN = 100  # the size of the figure


def _budget_map(seed: int) -> xr.Dataset:
    sigmas = np.geomspace(0.01, 100, 56)
    effort = Effort(points=2, seed=SEED + 10**6 * seed)
    return retention_map(Gaussian(BUDGET), sigmas, BUDGET_SIZES, effort=effort)


def compute() -> dict[str, Any]:
    r"""The budget's rows, its check from the other side, and the map of the figure."""
    with ProcessPoolExecutor(2) as pool:
        maps = list(pool.map(_budget_map, range(BUDGET_SEEDS)))
    kept = xr.concat([information_budget(m).kept for m in maps], "seed")
    population = float(information(BUDGET, 0.01) - information(BUDGET, 100.0))
    rows = []
    for size in BUDGET_SIZES:
        one = kept.sel(num_samples=size)
        parts = [one.isel(direction=k).values for k in (0, 1, 3, 11)]
        found = [str(Estimate.of_mean(p)) for p in (*parts, one.sum("direction").values)]
        rows.append([f"{size:,}", *found, f"{math.log(size):.4f}", f"{population:.2f}"])
    control = maps[0].control
    control = control.isel(num_samples=0) if "num_samples" in control.dims else control
    missing = xr.concat([m.missing_dimension for m in maps], "seed").mean("seed")
    missing = missing.sel(num_samples=SHOWN)
    inside = (missing.sigma > 0.02) & (missing.sigma < 20)
    return {
        "budget": rows,
        "entropy": _entropy_rows(maps, SHOWN),
        "map": {
            "sigma": rounded(missing.sigma[inside]),
            "missing": rounded(missing.transpose("direction", "sigma")[:, inside], 4),
            "population": rounded(control.transpose("direction", "sigma")[:, inside], 4),
        },
    }


def _entropy_rows(maps: list[xr.Dataset], size: int) -> list[list[str]]:
    rng = np.random.default_rng([SEED, size])
    rows = []
    for index in (18, 24, 28, 32):
        sigma = float(maps[0].sigma[index])
        told = np.concatenate([_told(rng, sigma, size, 4000) for _ in range(10)])
        brute = Estimate(float(told.mean()), float(told.std(ddof=1) / math.sqrt(len(told))))
        window = [information_budget(m.isel(sigma=slice(index, None))) for m in maps]
        kept = [float(b.kept.sel(num_samples=size).sum()) for b in window]
        theory = Estimate.of_mean(kept)
        z = (brute.value - theory.value) / math.hypot(brute.stderr, theory.stderr)
        rows.append([f"{sigma:.3f}", str(brute), str(theory), f"{z:+.1f}"])
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


def draw(document: dict[str, Any], out: Path) -> None:
    r"""Missing dimension by direction and level, with its margins."""
    sigma, missing, population = (
        array(document["map"][n]) for n in ("sigma", "missing", "population")
    )
    kept, k = population - missing, np.arange(1, len(BUDGET) + 1)
    figure, axes = plt.subplots(
        2, 2, figsize=(WIDTH, 5), layout="constrained", width_ratios=[3, 1], height_ratios=[1, 1.8]
    )
    top, corner, main, side = axes.ravel()
    top.plot(sigma, population.sum(0), "0.5", label="population")
    top.plot(sigma, kept.sum(0), "C0", label=f"exact denoiser, N = {SHOWN}")
    top.fill_between(sigma, kept.sum(0), color="C0", alpha=0.2)
    top.set(xscale="log", ylabel="dimension\n= nats per e-fold", xlim=(sigma[0], sigma[-1]))
    area = f"area: ln {SHOWN} = {math.log(SHOWN):.2f} nats"
    top.annotate(area, (0.024, 2.2), color="C0")
    top.legend()
    mesh = main.pcolormesh(
        sigma, k, missing, vmin=0, vmax=1, cmap="magma", shading="nearest", rasterized=True
    )
    main.plot(np.sqrt(BUDGET), k, "--", color="0.8", lw=1.5)
    main.annotate("opens", (BUDGET[0] ** 0.5, 1), xytext=(4, -2), textcoords="offset points",
                  color="0.8", va="center")  # fmt: skip
    main.set(xscale="log", xlabel="noise level σ", ylabel="direction k, of variance 1/k")
    main.set(xlim=(sigma[0], sigma[-1]), yticks=[1, 2, 4, 6, 8, 10, 12])
    main.invert_yaxis()
    spent = np.trapezoid(kept, np.log(sigma), axis=1)
    side.barh(k, spent, color="C0", alpha=0.7)
    side.set(xlabel="nats kept", ylim=main.get_ylim(), yticks=[1, 2, 4, 6, 8, 10, 12])
    corner.axis("off")
    figure.colorbar(mesh, ax=corner, label="missing dimension", orientation="horizontal")
    for ax in (top, main):
        ax.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        ax.minorticks_off()
    top.set_xticklabels([])
    figure.savefig(out / "theory-information.png")
    plt.close(figure)
