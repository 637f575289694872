r"""Two linear models of disjoint white data, from the same noise: how much alike do they draw?

Run:  python benchmarks/published/two_denoisers.py [--quick] [--seed S] [--out PATH]

Maillard & Goldt (2026) train linear generative models on disjoint sets of N points in d
dimensions: each draws C^(1/2) z with the covariance C of its own set. Convergence q is the overlap
of what two of them draw from the same z. For white data C_A and C_B are free and have the law of
Marchenko and Pastur, so

    q = tr(C_A^(1/2) C_B^(1/2)) / d -> (∫ sqrt(x) dMP(x))²,

which is computed here by quadrature. Measured it is with Gaussian denoisers of both covariances
and geomem's own sampler, from the same noise.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
from row import Found, publish, with_error

from geomem.exact import GaussianDenoiser
from geomem.models.sample import heun, sigma_steps
from geomem.stats import torch_rng

LOADS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
LOWEST, HIGHEST = 1e-3, 80.0


def limit(load: float) -> float:
    r"""(∫ sqrt(x) dMP)² at N/d = load, with nodes that vanish at both edges like the density.

    The share 1 - N/d of eigenvalues that are 0 below N = d adds nothing.
    """
    ratio = 1 / load
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    theta = (np.arange(4000) + 0.5) * math.pi / 4000
    x = (low + high) / 2 + (high - low) / 2 * np.cos(theta)
    density = np.sqrt((high - x) * (x - low)) / (2 * math.pi * ratio * x)
    weights = (high - low) / 2 * np.sin(theta) * math.pi / 4000
    return float((np.sqrt(x) * density * weights).sum()) ** 2


def overlap(load: float, d: int, samples: int, steps: int, rng: torch.Generator) -> float:
    r"""Mean <a, b> of pairs of samples from the same noise z, over that of |z|²."""
    N, mean = round(load * d), torch.zeros(d, dtype=torch.float64)
    drawn = []
    z = torch.randn(samples, d, generator=rng, dtype=torch.float64)
    for _ in range(2):
        data = torch.randn(N, d, generator=rng, dtype=torch.float64)
        denoiser = GaussianDenoiser.from_factor(mean, data.T / math.sqrt(N))
        drawn.append(heun(denoiser, z, sigma_steps(LOWEST, HIGHEST, steps)))
    return float((drawn[0] * drawn[1]).sum() / z.square().sum())


def sampler(steps: int) -> float:
    r"""What the steps of the sampler add to q, as a share: that of infinitely many points."""
    white = GaussianDenoiser(torch.zeros(1).double(), torch.ones(1).double())
    drawn = heun(white, torch.ones(1, 1).double(), sigma_steps(LOWEST, HIGHEST, steps))
    return float(drawn) ** 2 - 1


def measure(seed: int, *, quick: bool = False) -> Found:
    d, units, samples, steps = (60, 4, 32, 24) if quick else (200, 10, 32, 150)
    rows = []
    for k, load in enumerate((0.5, 2.0) if quick else LOADS):
        found = [
            overlap(load, d, samples, steps, torch_rng(seed, f"pair {k}", unit))
            for unit in range(units)
        ]
        rows.append({"load": load, "q": with_error(found), "theirs": limit(load)})
    return {
        "dim": d,
        "pairs": units,
        "samples": samples,
        "steps": steps,
        "sampler": sampler(steps),
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(publish(measure, __doc__, "two_denoisers"))
