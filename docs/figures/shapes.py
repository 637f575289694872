r"""Computes the numbers and draws the figure of the page on rendered shapes.

    python docs/figures/shapes.py OUT             all of it, in some minutes
    python docs/figures/shapes.py OUT --redraw    the figure alone, from shapes.json

OUT receives ``shapes.png``, the table of the page as ``shapes.md`` and all numbers as
``shapes.json``.
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
from geomem.manifolds.shapes import FACTORS, RenderedShapes, Spreads
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState, train
from geomem.operators import jacobian_diagonal
from geomem.stats import Estimate, torch_rng
from geomem.subspaces import retention
from geomem.tangents import angle_to_space, tangent_basis

plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

SEED = 7
PIXELS = 12
SIZE = 3000  # images of each training set
REFERENCE = 6000  # images of the control, with full variation
POINTS = 256  # noised training images at which Jacobians are taken
LEADING = 2  # directions of the denoiser to which the tangent's angle is taken
SHARES = {"full": 1.0, "half": 0.5, "collapsed": 0.0}
SIGMAS = (1.0, 1.5, 2.2)
TABLE = 1.5
STEPS = 1500
NAMES = {"x": "position x", "y": "position y", "angle": "angle", "log_size": "size"}
WHOLE = RenderedShapes(PIXELS)
CONTROL = EmpiricalDenoiser(WHOLE.sample(REFERENCE, torch_rng(SEED, "control")))


def training_set(factor: str, share: float) -> tuple[Tensor, Tensor, int]:
    r"""Factors, images, and a number of their own for the draws."""
    unit = 10 * FACTORS.index(factor) + int(2 * share)
    shapes = RenderedShapes(PIXELS, Spreads().scaled(factor, share))
    factors = shapes.factors(shapes.sample_parameters(SIZE, torch_rng(SEED, "set", unit)))
    return factors, shapes.render(factors), unit


def network(data: Tensor, unit: int) -> Denoiser:
    rms = float((data - data.mean(0)).square().mean().sqrt())
    config = NetworkConfig("mlp", (PIXELS**2,), sigma_data=rms)
    state = TrainState(config, Training(steps=STEPS), data.float(), seed=SEED, unit=unit)
    for _ in train(state, every=STEPS):
        pass
    return state.average.double()


Row = dict[str, tuple[float, float]]


def measure(denoiser: Denoiser, factor: str, factors: Tensor, data: Tensor, unit: int) -> list[Row]:
    r"""Each metric at each level, along the factor's tangent, as (value, standard error)."""
    k = FACTORS.index(factor)
    # Of each set the images nearest to the factor's mean: there the factor's own width decides,
    # not how far out an image lies. The errors below are over all images.
    order = factors[:, k].abs().argsort(stable=True)
    factors, data = factors[order], data[order]
    u = WHOLE.directions(factors[:POINTS])[..., k : k + 1]
    z = torch.randn(data.shape, generator=torch_rng(SEED, "noise", unit), dtype=torch.float64)
    return [_at(denoiser, data, z, u, sigma) for sigma in SIGMAS]


def _at(denoiser: Denoiser, data: Tensor, z: Tensor, u: Tensor, sigma: float) -> Row:
    level = torch.tensor(sigma, dtype=torch.float64)
    x = data + sigma * z
    own, wide = (_errors(d, data, x, level) for d in (denoiser, CONTROL))
    x = x[:POINTS]
    found = {
        "retention": retention(denoiser, CONTROL, x, level, u)[0] or Estimate(math.nan),
        "memorized": Estimate.of_mean(wide - own),
    }
    if sigma == TABLE:
        diagonal = jacobian_diagonal(denoiser, x, level, u)[:, 0]
        found["diagonal"] = Estimate.of_mean(diagonal.numpy())
        bases = [tangent_basis(denoiser, p, level, LEADING).vectors for p in x]
        angles = [float(angle_to_space(v, b).rad2deg()) for v, b in zip(u, bases, strict=True)]
        found["angle"] = Estimate.of_mean(angles)
    return {name: (e.value, e.stderr) for name, e in found.items()}


def _errors(denoiser: Denoiser, x_0: Tensor, x: Tensor, sigma: Tensor) -> np.ndarray:
    with torch.no_grad():
        return ((denoiser(x, sigma) - x_0) / sigma).square().sum(1).numpy()


Found = dict[str, dict[str, dict[str, list[Row]]]]  # denoiser, factor, share, level


def run() -> Found:
    found: Found = {"exact": {}, "network": {}}
    for factor in FACTORS:
        for kind in found.values():
            kind[factor] = {}
        for name, share in SHARES.items():
            factors, data, unit = training_set(factor, share)
            for kind, denoiser in (
                ("exact", EmpiricalDenoiser(data)),
                ("network", network(data, unit)),
            ):
                found[kind][factor][name] = measure(denoiser, factor, factors, data, unit)
            print(factor, name, flush=True)
    return found


def draw(found: Found, path: Path) -> None:
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    grid = figure.add_gridspec(3, 4, height_ratios=[0.38, 1, 1])
    for k, factor in enumerate(FACTORS):
        _draw_images(figure.add_subplot(grid[0, k]), factor)
        for row, kind in enumerate(("exact", "network")):
            ax = figure.add_subplot(grid[1 + row, k])
            _draw_retention(ax, found[kind][factor])
            if row:
                ax.set_xlabel("noise level σ")
            else:
                ax.set_xticklabels([])
            if not k:
                label = "exact denoiser" if kind == "exact" else "network"
                ax.set_ylabel(f"{label}\nretention along the tangent")
                if not row:
                    ax.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.33))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_images(ax: Axes, factor: str) -> None:
    # The mean image between two standard deviations of one factor, and its tangent.
    k, steps = FACTORS.index(factor), torch.tensor([-2.0, 0.0, 2.0]).double()
    factors = torch.zeros(3, 4, dtype=torch.float64)
    factors[:, k] = steps * getattr(Spreads(), factor)
    images = WHOLE.render(factors).reshape(3, PIXELS, PIXELS)
    tangent = WHOLE.directions(factors[1:2])[0, :, k].reshape(PIXELS, PIXELS)
    gap = np.full((PIXELS, 1), np.nan)
    strip = np.hstack([a for image in images for a in (image.numpy(), gap)])
    width = strip.shape[1]
    ax.imshow(strip, cmap="gray", vmin=-1, vmax=1, extent=(0, width, PIXELS, 0))
    top = float(tangent.abs().max())
    ax.imshow(tangent.numpy(), cmap="RdBu", vmin=-top, vmax=top,
              extent=(width + 1, width + 1 + PIXELS, PIXELS, 0))  # fmt: skip
    ax.set(xlim=(0, width + 1 + PIXELS), ylim=(PIXELS, 0))
    ax.set_title(f"{NAMES[factor]}: -2, 0, +2 sd; tangent", fontsize="medium")
    ax.axis("off")


def _draw_retention(ax: Axes, shares: dict[str, list[Row]]) -> None:
    for (name, rows), colour in zip(shares.items(), ("C0", "C1", "C3"), strict=True):
        value, error = np.array([r["retention"] for r in rows]).T
        ax.errorbar(SIGMAS, value, 2 * error, fmt="o-", ms=3, lw=1.2, color=colour, label=name)
    ax.axhline(1, color="k", lw=0.6, ls=":")
    ax.set(xscale="log", ylim=(0, 1.35))
    ax.set_xticks(SIGMAS, [str(s) for s in SIGMAS])
    ax.minorticks_off()


def table(found: Found) -> list[list[str]]:
    rows, at = [], SIGMAS.index(TABLE)
    for kind, factors in found.items():
        for factor, shares in factors.items():
            for name, levels in shares.items():
                row = levels[at]
                columns = ("diagonal", "retention", "memorized", "angle")
                rows.append([kind, NAMES[factor], name, *(str(Estimate(*row[c])) for c in columns)])
    return rows


def compute(out: Path) -> None:
    r"""Writes the table and ``shapes.json``."""
    began = time.time()
    found = run()
    head = ["denoiser", "factor", "variation", "diagonal", "retention", "memorized, nats an e-fold",
            f"angle to the leading {LEADING}, degrees"]  # fmt: skip
    lines = [head, ["---"] * len(head), *table(found)]
    (out / "shapes.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))
    document: dict[str, Any] = {
        "seed": SEED,
        "versions": {m.__name__: m.__version__ for m in (geomem, np, torch, matplotlib)}
        | {"python": platform.python_version()},
        "seconds": round(time.time() - began, 1),
        "sigmas": SIGMAS,
        "found": found,
    }
    (out / "shapes.json").write_text(json.dumps(document) + "\n")
    print(f"{document['seconds']} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Numbers and figure of the page on shapes.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--redraw", action="store_true", help="the picture alone")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.redraw:
        compute(chosen.out)
    found = json.loads((chosen.out / "shapes.json").read_text())["found"]
    draw(found, chosen.out / "shapes.png")


if __name__ == "__main__":
    main()
