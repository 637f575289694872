r"""Computes the numbers and draws the figure of the page on the sphere.

    python docs/figures/sphere.py OUT             all of it, in some minutes
    python docs/figures/sphere.py OUT --redraw    the figures alone, from sphere.json

OUT receives ``sphere.png``, ``sphere-networks.png`` and all numbers as ``sphere.json``. With
OUT = docs/figures, ``python docs/figures/quotes.py`` then writes the numbers into the page.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import common
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import WIDTH, array, rounded
from matplotlib.axes import Axes
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.exact import EmpiricalDenoiser
from geomem.manifolds import LinearManifold, Manifold
from geomem.manifolds.curved import Sphere
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState, train
from geomem.operators import jacobian_diagonal
from geomem.stats import Estimate, torch_rng

SEED = 6
D, M = 30, 5  # ambient dimension, dimension of the sphere
SIZES = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
SETS = 6  # training sets of each size: their spread is the error
POINTS = 64  # noised training points of each set
SIGMAS = np.geomspace(0.03, 3, 21)
TRAINED = (30, 300, 3000)
STEPS = 8000
COLOURS = {"plane": "C1", "sphere": "C0"}
AT = ("training", "fresh")


Curves = dict[str, dict[str, np.ndarray]]


def manifolds() -> dict[str, Manifold]:
    r"""The sphere S^5 of variance 1 a coordinate, and a plane of the same covariance.

    Both fill six of thirty directions with covariance I: a linear analysis, and the linear
    denoiser, cannot tell them apart. The plane has dimension 6, the sphere 5.
    """
    sphere = Sphere(M, D, radius=math.sqrt(M + 1), seed=SEED)
    plane = LinearManifold(torch.ones(M + 1), D, sphere.embedding.frame)
    return {"plane": plane, "sphere": sphere}


FRAME = Sphere(M, D, seed=SEED).embedding.frame


def trace(denoiser: Denoiser, x: Tensor, sigma: float, directions: Tensor = FRAME) -> Tensor:
    r"""Trace of the Jacobian over directions, with shape (B)."""
    level = torch.tensor(sigma, dtype=x.dtype)
    return jacobian_diagonal(denoiser, x, level, directions).sum(1)


def noised(manifold: Manifold, size: int, unit: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""A training set, points of it in turn, and noise: the same noise at every level."""
    data = manifold.sample(size, torch_rng(SEED, "data", unit))
    rows = torch.arange(POINTS) % size
    z = torch.randn(POINTS, D, generator=torch_rng(SEED, "noise", unit), dtype=torch.float64)
    return data, data[rows], z


def exact_sweep(manifold: Manifold) -> dict[str, np.ndarray]:
    r"""Soft counts of the exact and population denoisers, shapes (N, sigma, set)."""
    population = manifold.population_denoiser()
    shape = (len(SIZES), len(SIGMAS), SETS)
    found = {name: np.zeros(shape) for name in ("empirical", "population", "radial", "points")}
    for i, size in enumerate(SIZES):
        for s in range(SETS):
            data, x_0, z = noised(manifold, size, 100 * i + s)
            exact = EmpiricalDenoiser(data)
            for k, sigma in enumerate(SIGMAS):
                x = x_0 + sigma * z
                found["empirical"][i, k, s] = trace(exact, x, sigma).mean()
                found["population"][i, k, s] = trace(population, x, sigma).mean()
                found["radial"][i, k, s] = trace(population, x, sigma, _radii(x_0)).mean()
                posterior = exact.posterior(x, torch.tensor([sigma]))
                found["points"][i, k, s] = posterior.effective_points.log().mean().exp()
    return found


def _radii(x_0: Tensor) -> Tensor:
    # Unit vectors from the centre, as one direction a point, with shape (B, d, 1).
    return (x_0 / x_0.norm(dim=1, keepdim=True))[..., None]


def half_levels(found: dict[str, np.ndarray]) -> list[Estimate | None]:
    r"""Level at which half of the population's dimension is gone, for each N."""
    kept = found["empirical"] / found["population"]
    out: list[Estimate | None] = []
    for rows in kept:
        logs = np.array([_crossing(rows[:, s]) for s in range(SETS)])
        mean = Estimate.of_mean(logs)
        known = math.isfinite(mean.value)
        level = math.exp(mean.value) if known else 0.0
        out.append(Estimate(level, level * mean.stderr) if known else None)
    return out


def _crossing(kept: np.ndarray) -> float:
    # From large sigma down: the first time that the share falls through one half.
    below = np.flatnonzero(kept < 0.5)
    if not len(below) or below[-1] + 1 >= len(kept):
        return math.nan
    k = below[-1]
    share = (0.5 - kept[k]) / (kept[k + 1] - kept[k])
    return float(np.log(SIGMAS[k]) + share * np.log(SIGMAS[k + 1] / SIGMAS[k]))


def trained_sweep(manifold: Manifold, offset: int) -> dict[str, np.ndarray]:
    r"""Soft counts of networks at training and at fresh points, shapes (N, sigma, point)."""
    shape = (len(TRAINED), len(SIGMAS), POINTS)
    names = ("training", "fresh", "radial_training", "radial_fresh")
    found = {name: np.zeros(shape) for name in names}
    whole = torch.eye(D)
    for i, size in enumerate(TRAINED):
        data, x_0, z = noised(manifold, size, offset + i)
        fresh = manifold.sample(POINTS, torch_rng(SEED, "fresh", i))
        config = NetworkConfig("mlp", (D,), sigma_data=math.sqrt((M + 1) / D), width=128)
        recipe = Training(steps=STEPS)
        state = TrainState(config, recipe, data.float(), seed=SEED, unit=offset + i)
        for _ in train(state, every=STEPS):
            pass
        for name, clean in (("training", x_0), ("fresh", fresh)):
            for k, sigma in enumerate(SIGMAS):
                x = (clean + sigma * z).float()
                found[name][i, k] = trace(state.average, x, sigma, whole)
                radial = trace(state.average, x, sigma, _radii(clean).float())
                found[f"radial_{name}"][i, k] = radial
    return found


def draw(document: dict[str, Any], out: Path) -> None:
    r"""The two figures, from what ``sphere.json`` holds."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.7), layout="constrained")
    shades = _shades(len(SIZES))
    for ax, name in zip(axes[:2], COLOURS, strict=True):
        exact = document["exact"][name]
        ax.plot(SIGMAS, array(exact["population"]).mean(0), color="k", lw=2, label="population")
        for kept, size, shade in zip(array(exact["empirical"]), SIZES, shades, strict=True):
            ax.plot(SIGMAS, kept, color=shade, lw=1.3, label=f"N = {size:,}")
        ax.set(title=_label(name), ylim=(0, 6.3))
        _levels(ax)
    axes[1].set_yticklabels([])
    axes[0].set_ylabel("dimension kept")
    _draw_halves(axes[2], document["half"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    figure.savefig(out / "sphere.png")
    plt.close(figure)
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.5), layout="constrained")
    for ax, name in zip(axes[:2], COLOURS, strict=True):
        population = array(document["exact"][name]["population"]).mean(0)
        _draw_learned(ax, population, document["learned"][name], "")
        ax.set(title=_label(name), ylim=(0, 8))
    axes[0].set_ylabel("dimension kept")
    axes[1].set_yticklabels([])
    radial = array(document["exact"]["sphere"]["radial"]).mean(0)
    _draw_learned(axes[2], radial, document["learned"]["sphere"], "radial_")
    axes[2].set(ylim=(-0.1, 1.3), title="sphere, along its radius")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.savefig(out / "sphere-networks.png")
    plt.close(figure)


def _levels(ax: Axes) -> None:
    ax.set(xscale="log", xlabel="noise level σ", xlim=(SIGMAS[0], SIGMAS[-1]))
    ax.set_xticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3"])
    ax.minorticks_off()


def _label(name: str) -> str:
    return "sphere, m = 5" if name == "sphere" else "plane, m = 6"


def _shades(count: int) -> np.ndarray:
    return np.asarray(plt.get_cmap("viridis")(np.linspace(0.05, 0.85, count)))


def _draw_halves(ax: Axes, half: dict[str, list[list[float] | None]]) -> None:
    for name, levels in half.items():
        known = [(n, *e) for n, e in zip(SIZES, levels, strict=True) if e is not None]
        n, value, error = np.array(known).T
        ax.errorbar(n, value, 2 * error, fmt="o-", ms=4, color=COLOURS[name],
                    label=_label(name))  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="training points N", title="σ at which half is lost")
    ticks = [0.15, 0.2, 0.3, 0.5, 0.7, 1.0]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xticks([10, 100, 1000, 10_000], ["10", "10²", "10³", "10⁴"])
    ax.minorticks_off()
    ax.legend()


def _draw_learned(
    ax: Axes, population: np.ndarray, found: dict[str, list[list[float]]], which: str
) -> None:
    ax.plot(SIGMAS, population, color="k", lw=2, label="population")
    ax.plot([], [], "", color="none", label=" ")
    for i, (size, colour) in enumerate(zip(TRAINED, ("C3", "C2", "C0"), strict=True)):
        for at, style, where in (("training", "-", "at its points"), ("fresh", "--", "fresh")):
            ax.plot(SIGMAS, found[f"{which}{at}"][i], style, color=colour, lw=1.5,
                    label=f"N = {size:,}, {where}")  # fmt: skip
    _levels(ax)


NEAR = 10  # the level of the exact table, .3
TABLED = (5, NEAR, 15)  # levels of the networks' table: .0949, .3, .949, on the grid


def exact_rows(exact: Curves) -> list[list[str]]:
    r"""Level of half loss on both, their ratio, and dimensions at one level, for each N."""
    halves = {name: half_levels(found) for name, found in exact.items()}
    rows = []
    for i, size in enumerate(SIZES):
        both = [halves[name][i] for name in COLOURS]
        row = [f"{size:,}", *(str(e) if e else "below the levels" for e in both), "-"]
        if both[0] and both[1]:
            ratio = both[1].value / both[0].value
            error = math.hypot(*(e.stderr / e.value for e in both if e))
            row[-1] = str(Estimate(ratio, ratio * error))
        dimensions = [exact[name]["empirical"][i, NEAR] for name in COLOURS]
        rows.append([*row, *(str(Estimate.of_mean(d)) for d in dimensions)])
    return rows


def learned_rows(exact: Curves, learned: Curves) -> list[list[str]]:
    r"""Dimensions of population and networks at three levels, on both."""
    rows = []
    for k in TABLED:
        for name in COLOURS:
            # Over all training sets; a plane's population is the same at each point.
            mean = Estimate.of_mean(exact[name]["population"][:, k].ravel())
            shown = str(mean) if mean.stderr > 1e-9 else f"{mean.value:.4f} ± 0"
            row = [f"{SIGMAS[k]:.3g}", name, shown]
            for i in range(len(TRAINED)):
                row += [str(Estimate.of_mean(learned[name][at][i, k])) for at in AT]
            rows.append(row)
    return rows


def compute() -> dict[str, Any]:
    r"""What ``sphere.json`` holds: means for the figures, rows with errors for the tables."""
    both = manifolds()
    exact = {name: exact_sweep(manifold) for name, manifold in both.items()}
    learned = {name: trained_sweep(m, 1000 * (1 + k)) for k, (name, m) in enumerate(both.items())}

    def means(curves: Curves) -> dict[str, dict[str, Any]]:
        return {n: {k: rounded(v.mean(2)) for k, v in f.items()} for n, f in curves.items()}

    return {
        "sigmas": rounded(SIGMAS),
        "sizes": list(SIZES),
        "trained": list(TRAINED),
        "half": {
            name: [e and [e.value, e.stderr] for e in half_levels(f)] for name, f in exact.items()
        },
        "rows_exact": exact_rows(exact),
        "rows_learned": learned_rows(exact, learned),
        "exact": means(exact),
        "learned": means(learned),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Numbers and figures of the page on the sphere.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--redraw", action="store_true", help="the figures alone")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "sphere.json"
    if not chosen.redraw:
        began, found = time.time(), compute()
        seconds = round(time.time() - began, 1)
        head = {"seed": SEED, "versions": common.versions(), "seconds": seconds}
        common.write(head | found, path)
        print(f"{seconds} s")
    plt.rcParams.update(common.STYLE)
    draw(json.loads(path.read_text(encoding="utf-8")), chosen.out)


if __name__ == "__main__":
    main()
