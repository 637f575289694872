r"""What the origin figure really shows: levels of two events at x = 0, found by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import PAPER, SEED, WIDTH, array, mean, rounded

import geomem
from geomem.manifolds import PAPER_VARIANCES
from geomem.theory.condensation import smoothed_spectrum, t_star

D = len(PAPER_VARIANCES)
WINDOW = (20, 29)  # the ranks among which the paper looks for the largest drop
COARSE = np.geomspace(0.1, 0.22, 40)  # brackets; a level is bisected within its bracket
HALVINGS = 12  # 2 % / 2^12: below 5e-6 of a level
SETS = {50: 24, 1000: 12, 20_000: 3}  # data sets of each size
AT = 0.134  # the level at which effective points are counted

Denoise = Callable[[np.ndarray, float], np.ndarray]


def origin_jacobian(denoiser: Denoise, t: float, step: float) -> np.ndarray:
    r"""t times the score Jacobian at 0, by finite steps along each axis, with shape (d, d).

    Rows are t [s(step e_j) - s(0)] / step with s = (D - x) / t; the paper's step is sqrt(t).
    """
    moved = denoiser(np.concatenate([np.zeros((1, D)), step * np.eye(D)]), math.sqrt(t))
    return np.asarray((moved[1:] - moved[0]) / step - np.eye(D))


def _normalised(size: int, seed: int) -> torch.Tensor:
    linear = geomem.LinearManifold(torch.tensor(PAPER_VARIANCES), D)
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


def drop(jacobian: np.ndarray) -> int:
    r"""Rank of the largest drop among the paper's ranks 20 to 29."""
    values = np.linalg.svd(jacobian, compute_uv=False)
    falls = values[:-1] - values[1:]
    return WINDOW[0] + int(falls[WINDOW[0] - 1 : WINDOW[1]].argmax())


def _settled(jacobian: np.ndarray) -> bool:
    return drop(jacobian) == 25


def _passed(jacobian: np.ndarray) -> bool:
    # The mean of the two high directions' diagonal elements exceeds the normal ones', 1/t.
    return bool(jacobian[0, 0] + jacobian[1, 1] > 2)


def event(denoiser: Denoise, happened: Callable[[np.ndarray], bool], *, small: bool) -> float:
    r"""The level from which something holds down to the lowest one; NaN if at none or at all."""

    def holds(t: float) -> bool:
        return happened(origin_jacobian(denoiser, t, 1e-4 if small else math.sqrt(t)))

    above = next((k for k, t in enumerate(COARSE) if not holds(float(t))), 0)
    if above == 0:
        return math.nan
    low, high = float(COARSE[above - 1]), float(COARSE[above])
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return math.sqrt(low * high)


def compute() -> dict[str, Any]:
    r"""Levels with their spread over data sets, and the curves of the figure."""
    many = _normalised(400_000, SEED).numpy()
    square = (many[:, :2] ** 2).mean(1)
    samples: dict[str, list[Denoise]] = {
        "population": [_population(p) for p in np.array_split(many, 4)]
    }
    found: dict[str, dict[str, Any]] = {"population": {}}
    for size, sets in SETS.items():
        drawn = [_normalised(size, SEED + 1 + s) for s in range(sets)]
        name = f"N = {size:,}"
        samples[name] = [_empirical(p) for p in drawn]
        found[name] = {
            "effective_share": mean([_shared_by(p, AT) / size for p in drawn]),
            "paper": float(t_star([1.0], size, gaussian=False)[0]),
        }
    for name, denoisers in samples.items():
        for what, happened in (("passes", _passed), ("settles", _settled)):
            for step in ("small", "paper"):
                small = step == "small"
                levels = array([event(one, happened, small=small) for one in denoisers])
                known = levels[np.isfinite(levels)]
                # In a small set directions split, and the drop may be at no rank for long.
                row: dict[str, Any] = {"seen": len(known), "of": len(levels)}
                row["level"] = mean(known) if len(known) == len(levels) else None
                found[name][f"{what}_{step}"] = row
    levels = np.geomspace(0.5, 0.05, 47)
    curves = {}
    for name, denoisers in samples.items():
        jacobians = [origin_jacobian(denoisers[0], t, math.sqrt(t)) for t in levels]
        curves[name] = {
            "drop": [drop(j) for j in jacobians],
            "spectra": {
                f"{t:g}": rounded(np.linalg.svd(jacobians[k], compute_uv=False))
                for t, k in ((t, int(np.abs(levels - t).argmin())) for t in (0.3, 0.1))
            },
        }
    second = mean(square)
    return {
        "found": found,
        "second_moment": second,
        "half_second_moment": (second[0] / 2, second[1] / 2),
        "paper_drop": {
            f"{n:,}": [
                smoothed_spectrum(PAPER, D, t, n, form="as plotted").drop()
                for t in (0.2, 0.13, 0.05)
            ]
            for n in SETS
        },
        "levels": rounded(levels),
        "curves": curves,
    }


def _shared_by(points: torch.Tensor, t: float) -> float:
    # Effective points at the displaced points along the two high directions, their mean.
    x = math.sqrt(t) * torch.eye(D, dtype=torch.float64)[:2]
    posterior = geomem.EmpiricalDenoiser(points).posterior(x, torch.tensor([math.sqrt(t)]))
    return float(posterior.effective_points.mean())


def draw(document: dict[str, Any], out: Path) -> None:
    r"""Spectra at two levels, and the rank of the largest drop over all levels."""
    figure = plt.figure(figsize=(WIDTH, 5.8), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.1])
    left, right = (figure.add_subplot(grid[0, k]) for k in (0, 1))
    below = figure.add_subplot(grid[1, :])
    levels = array(document["levels"])
    styles = {
        "population": {"ls": "-", "color": "k", "lw": 2.5},
        "N = 50": {"ls": "", "marker": "o", "ms": 4, "color": "C1"},
        "N = 1,000": {"ls": "", "marker": "s", "ms": 4, "color": "C0"},
        "N = 20,000": {"ls": "", "marker": "^", "ms": 4, "color": "C2"},
    }
    for ax, t in ((left, "0.3"), (right, "0.1")):
        for name, curve in document["curves"].items():
            ax.plot(np.arange(1, D + 1), curve["spectra"][t], label=name, **styles[name])
        at = float(levels[np.abs(levels - float(t)).argmin()])
        rank = document["curves"]["population"]["drop"][int(np.abs(levels - float(t)).argmin())]
        ax.axvline(rank + 0.5, color="0.6", lw=1, ls=":")
        ax.set(xlabel="rank", title=f"t = σ² = {at:.2g}: largest drop behind rank {rank}")
    left.set_ylabel("t × singular value at x = 0")
    left.legend(loc="lower left")
    for k, (name, curve) in enumerate(document["curves"].items()):
        below.plot(levels, array(curve["drop"]) + 0.12 * k, label=name, **styles[name])
        paper = document["found"][name].get("paper")
        if paper and paper < levels[0]:
            below.axvline(paper, color=styles[name]["color"], lw=1.2, ls="--")
            below.annotate(f"t*, {name}", (paper, 20.6), rotation=90, ha="right", va="bottom",
                           fontsize=8, color=styles[name]["color"])  # fmt: skip
    half = document["half_second_moment"][0]
    below.axvline(half, color="0.4", lw=1.2, ls=":")
    below.annotate("E[y₁²]/2", (half, 20.7), xytext=(4, 0), textcoords="offset points", color="0.4",
                   fontsize=9)  # fmt: skip
    below.set(
        xscale="log",
        xlabel="t = σ²",
        ylabel="rank of the largest drop",
        ylim=(20.4, 29.8),
        title="dashed: the paper's t*, at which ranks should move from 28 to 25",
    )
    below.set_xticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    below.minorticks_off()
    figure.savefig(out / "theory-origin.png")
    plt.close(figure)
