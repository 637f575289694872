r"""Computes the numbers and draws the figure of the page on the sphere.

    python docs/figures/sphere.py OUT             all of it, in some minutes
    python docs/figures/sphere.py OUT --redraw    the figure alone, from sphere.json

OUT receives ``sphere.png``, the tables of the page as ``*.md`` and all numbers as
``sphere.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

import geomem
from geomem.denoiser import Denoiser
from geomem.exact import EmpiricalDenoiser
from geomem.manifolds import LinearManifold, Manifold
from geomem.manifolds.curved import Sphere
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState, train
from geomem.operators import jacobian_diagonal
from geomem.stats import Estimate, torch_rng

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

SEED = 6
D, M = 30, 5  # ambient dimension, dimension of the sphere
SIZES = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
SETS = 6  # training sets of each size: their spread is the error
POINTS = 64  # noised training points of each set
SIGMAS = np.geomspace(0.03, 3, 21)
TRAINED = (30, 300, 3000)
STEPS = 8000
COLOURS = {"plane": "C1", "sphere": "C0"}


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


def draw(document: dict[str, Any], path: Path) -> None:
    r"""The picture, from what ``sphere.json`` holds: means; their errors are in the tables."""
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 6.2), layout="constrained")
    for k, name in enumerate(COLOURS):
        found = {n: np.array(v) for n, v in document["exact"][name].items()}
        _draw_exact(axes[0, k], found)
        _draw_learned(axes[1, k], found["population"].mean(0), document["learned"][name], "")
        axes[0, k].set_title(f"exact denoiser, {_label(name)}", fontsize="medium")
        axes[1, k].set_title(f"networks, {_label(name)}", fontsize="medium")
        axes[0, k].set(ylim=(0, 6.6))
        axes[1, k].set(ylim=(0, 8))
    radial = np.array(document["exact"]["sphere"]["radial"]).mean(0)
    _draw_learned(axes[1, 2], radial, document["learned"]["sphere"], "radial_")
    axes[1, 2].set(ylim=(-0.2, 1.5))
    axes[1, 2].set_title("sphere: kept along the radius, a normal direction", fontsize="medium")
    axes[1, 2].legend(frameon=False, fontsize=7, loc="upper right")
    _split_legend(axes[0, 0], axes[0, 1])
    _draw_halves(axes[0, 2], document["half"])
    for ax in (*axes[0, :2], *axes[1]):
        ax.set(xscale="log", xlabel="noise level σ", xlim=(SIGMAS[0], SIGMAS[-1]))
        ax.set_xticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3"])
        ax.minorticks_off()
    for row in axes:
        row[0].set_ylabel("dimension (trace of the Jacobian)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _split_legend(left: Axes, right: Axes) -> None:
    handles, labels = left.get_legend_handles_labels()
    for ax, part in ((left, slice(0, 5)), (right, slice(5, None))):
        ax.legend(handles[part], labels[part], frameon=False, fontsize=7, loc="upper right")


def _label(name: str) -> str:
    return "sphere (m = 5)" if name == "sphere" else "plane (m = 6)"


def _shades(count: int) -> np.ndarray:
    return np.asarray(plt.get_cmap("viridis")(np.linspace(0.05, 0.85, count)))


def _draw_exact(ax: Axes, found: dict[str, np.ndarray]) -> None:
    ax.plot(SIGMAS, found["population"].mean(0), color="k", lw=1.6, label="population")
    for mean, size, shade in zip(found["empirical"], SIZES, _shades(len(SIZES)), strict=True):
        ax.plot(SIGMAS, mean, color=shade, lw=1.2, label=f"N = {size:,}")


def _draw_halves(ax: Axes, half: dict[str, list[list[float] | None]]) -> None:
    for name, levels in half.items():
        known = [(n, *e) for n, e in zip(SIZES, levels, strict=True) if e is not None]
        n, value, error = np.array(known).T
        ax.errorbar(n, value, 2 * error, fmt="o-", ms=4, color=COLOURS[name],
                    label=_label(name))  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="training points N")
    ax.set_title("exact: σ at which half of it is lost", fontsize="medium")
    ticks = [0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
    ax.set_yticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.legend(frameon=False)


def _draw_learned(
    ax: Axes, population: np.ndarray, found: dict[str, list[list[float]]], which: str
) -> None:
    ax.plot(SIGMAS, population, color="k", lw=1.6, label="population")
    for i, (size, shade) in enumerate(zip(TRAINED, _shades(len(TRAINED)), strict=True)):
        for at, style in (("training", "-"), ("fresh", "--")):
            ax.plot(SIGMAS, found[f"{which}{at}"][i], style, color=shade, lw=1.2,
                    label=f"N = {size:,}, {at}")  # fmt: skip


def exact_table(exact: Curves) -> list[list[str]]:
    levels = {name: half_levels(found) for name, found in exact.items()}
    near = int(np.abs(SIGMAS - 0.3).argmin())
    rows = []
    for i, size in enumerate(SIZES):
        plane, sphere = levels["plane"][i], levels["sphere"][i]
        row = [f"{size:,}", *(str(e) if e else "below the levels" for e in (plane, sphere))]
        both = plane is not None and sphere is not None
        row.append(_ratio(plane, sphere) if both else "-")
        row += [
            str(Estimate.of_mean(exact[name]["empirical"][i, near])) for name in ("plane", "sphere")
        ]
        rows.append(row)
    return rows


def _ratio(plane: Estimate | None, sphere: Estimate | None) -> str:
    assert plane is not None
    assert sphere is not None
    ratio = sphere.value / plane.value
    error = math.hypot(sphere.stderr / sphere.value, plane.stderr / plane.value)
    return str(Estimate(ratio, ratio * error))


def _population(values: np.ndarray) -> str:
    # Over all training sets; a plane's is the same at each point.
    mean = Estimate.of_mean(values.ravel())
    return str(mean) if mean.stderr > 1e-9 else f"{mean.value:.4f} ± 0"


AT = ("training", "fresh")


def learned_table(exact: Curves, learned: Curves) -> list[list[str]]:
    rows = []
    for sigma in (0.1, 0.3, 1.0):
        k = int(np.abs(SIGMAS - sigma).argmin())
        for name in ("plane", "sphere"):
            row = [f"{SIGMAS[k]:.2f}", name, _population(exact[name]["population"][:, k])]
            for i in range(len(TRAINED)):
                row += [str(Estimate.of_mean(learned[name][at][i, k])) for at in AT]
            rows.append(row)
    return rows


def _table(path: Path, head: list[str], rows: list[list[str]]) -> None:
    lines = [head, ["---"] * len(head), *rows]
    path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def compute(out: Path) -> None:
    r"""Writes the tables and ``sphere.json``."""
    began, both = time.time(), manifolds()
    exact = {name: exact_sweep(manifold) for name, manifold in both.items()}
    learned = {name: trained_sweep(m, 1000 * (1 + k)) for k, (name, m) in enumerate(both.items())}
    near = f"{SIGMAS[int(np.abs(SIGMAS - 0.3).argmin())]:.2f}"
    head = ["N", "σ½ plane", "σ½ sphere", "sphere / plane", f"dimension at σ = {near}, plane",
            "sphere"]  # fmt: skip
    _table(out / "sphere-exact.md", head, exact_table(exact))
    columns = [f"N = {n:,}, {at}" for n in TRAINED for at in AT]
    _table(
        out / "sphere-learned.md",
        ["σ", "data", "population", *columns],
        learned_table(exact, learned),
    )
    document: dict[str, Any] = {
        "seed": SEED,
        "versions": {m.__name__: m.__version__ for m in (geomem, np, torch, matplotlib)}
        | {"python": platform.python_version()},
        "seconds": round(time.time() - began, 1),
        "sigmas": SIGMAS.round(6).tolist(),
        "sizes": SIZES,
        "half": {
            name: [e and [e.value, e.stderr] for e in half_levels(f)] for name, f in exact.items()
        },
        "exact": {n: {k: v.mean(2).round(5).tolist() for k, v in f.items()}
                  for n, f in exact.items()},
        "learned": {n: {k: v.mean(2).round(4).tolist() for k, v in f.items()}
                    for n, f in learned.items()},
    }  # fmt: skip
    (out / "sphere.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{document['seconds']} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Numbers and figure of the page on the sphere.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--redraw", action="store_true", help="the picture alone")
    chosen = parser.parse_args()
    out = chosen.out
    out.mkdir(parents=True, exist_ok=True)
    if not chosen.redraw:
        compute(out)
    draw(json.loads((out / "sphere.json").read_text()), out / "sphere.png")


if __name__ == "__main__":
    main()
