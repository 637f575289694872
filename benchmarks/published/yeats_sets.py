r"""The sets of Yeats et al., as far as their denoisers are known, and what shared noise costs.

Run:  python benchmarks/published/yeats_sets.py [--quick] [--seed S] [--out PATH]

A sphere of 16 in 64 dimensions, a solid ball of 16 in 64 and a Clifford torus of 32 in 128,
centred and scaled to a largest standard deviation of 1, as their benchmark has them; the twin
peaks of 128 in 256 and the nonlinear manifold of 32 in 128 have no denoiser in closed form.
Their levels are times t = .01, .02, .05 of a flow: noise of t / (1 - t) on data of scale 1.
Theirs are networks trained on 2,000 points, FLIPD and the loss with 8 draws; here all denoisers
are exact.

In their code the draws of noise are the same for all points of a set, so that errors do not
average out over points. The spread of the set's mean over repetitions, with shared noise and with
noise of each point's own, says what that costs.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from dimensions import DRAWS, denoising_loss, judge, methods
from row import Found, publish, with_error
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.manifolds import Ball, Sphere, Torus
from geomem.stats import torch_rng

TIMES = (0.01, 0.02, 0.05)


def sets(quick: bool) -> dict[str, tuple[Sphere | Ball | Torus, int]]:
    r"""Manifolds of standard deviation 1 along their coordinates."""
    if quick:
        return {"sphere 4 in 8": (Sphere(4, 8, 5**0.5), 4)}
    return {
        "hypersphere 16 in R^64": (Sphere(16, 64, 17**0.5), 16),
        "hyperball 16 in R^64": (Ball(16, 64, 18**0.5), 16),
        "Clifford torus 32 in R^128": (Torus([2**0.5] * 32, 128), 32),
    }


def spread(denoiser: Denoiser, x_0: Tensor, sigma: float, repeats: int, seed: int) -> Found:
    r"""Standard deviation of the set's mean over repetitions, with shared and own noise.

    The standard error of a deviation of n normal numbers is its own share 1 / sqrt(2 (n - 1)).
    """
    found = {}
    for name, size in (("shared", 1), ("own", len(x_0))):
        rng, means = torch_rng(seed, name), []
        for _ in range(repeats):
            z = torch.randn(DRAWS, size, x_0.shape[1], generator=rng, dtype=x_0.dtype)
            means.append(float(denoising_loss(denoiser, x_0, sigma, z).mean()))
        deviation = float(np.std(means, ddof=1))
        found[name] = [deviation, deviation / (2 * (repeats - 1)) ** 0.5]
        found[f"{name}, mean"] = with_error(means)
    return found


def measure(seed: int, *, quick: bool = False) -> Found:
    points, repeats = (3, 3) if quick else (6, 12)
    sigmas = [t / (1 - t) for t in (TIMES[:1] if quick else TIMES)]
    found: Found = {"sigmas": sigmas, "repeats": repeats, "sets": {}}
    for k, (name, (manifold, m)) in enumerate(sets(quick).items()):
        denoiser = manifold.population_denoiser()
        x_0 = manifold.sample(points, torch_rng(seed, "points", k))
        dims = torch.full((points,), m)
        more = manifold.sample(4 * points, torch_rng(seed, "spread", k))
        found["sets"][name] = {
            "points": points,
            "methods": judge(denoiser, x_0, dims, sigmas, methods(DRAWS), seed),
            "points_of_spread": len(more),
            "spread": spread(denoiser, more, sigmas[-1], repeats, seed),
        }
    return found


if __name__ == "__main__":
    sys.exit(publish(measure, __doc__, "yeats_sets"))
