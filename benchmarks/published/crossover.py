r"""When does memorizing pay? Excess losses of a generalizing and a partly memorizing denoiser.

Run:  python benchmarks/published/crossover.py [--quick] [--seed S] [--out PATH]

Buchanan, Pai, Ma & De Bortoli (2025) compare the training loss of two denoisers of a Gaussian
mixture with that of the exact denoiser of the N training points: of the population, which
generalizes, and of one that memorizes in part, with M components. Their approximations, as their
code has them, are

    d v / (1 + SNR v)   and   d v (1 - M/N),   with SNR = 1/sigma² here,

so that the two are equal at M*/N = v / (v + sigma²). Here all are exact, so that the excesses are
measured without a training: K = 4 means of length sqrt(d), d = 30, N = 100, v = 1. Of the second
there are two readings: the components are M training points (with which their training starts),
or M - K of them and the K means of the mixture, to which unseen points then go. The crossover is
where measured excesses are equal, interpolated in M; errors are over training sets.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from row import Found, publish, with_error
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser
from geomem.stats import torch_rng

DIM, COMPONENTS, N, V = 30, 4, 100, 1.0
SIGMAS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
SIZES = tuple(range(10, N + 1, 10))


def excesses(denoisers: Sequence[Denoiser], data: Tensor, sigma: float, z: Tensor) -> list[float]:
    r"""Mean squared errors at noisy training points beyond the empirical denoiser's."""
    clean = data.expand(len(z), -1, -1).flatten(0, 1)
    x, level = clean + sigma * z.flatten(0, 1), torch.tensor(sigma, dtype=torch.float64)
    best = (EmpiricalDenoiser(data)(x, level) - clean).square()
    found = [(D(x, level) - clean).square() - best for D in denoisers]
    return [float(errors.sum(1).mean()) for errors in found]


def one_draw(seed: int, unit: int, sigmas: tuple[float, ...], draws: int) -> Found:
    r"""The excesses of one mixture and one training set at all levels."""
    rng = torch_rng(seed, "mixture", unit)
    means = torch.randn(COMPONENTS, DIM, generator=rng, dtype=torch.float64)
    means = DIM**0.5 * means / means.norm(dim=1, keepdim=True)
    which = torch.arange(N) % COMPONENTS
    data = means[which] + V**0.5 * torch.randn(N, DIM, generator=rng, dtype=torch.float64)
    data = data[torch.randperm(N, generator=rng)]
    parts = [GaussianDenoiser(m, V * torch.ones(DIM, dtype=torch.float64)) for m in means]
    population = MixtureDenoiser(torch.ones(COMPONENTS), parts)
    z = torch.randn(draws, N, DIM, generator=rng, dtype=torch.float64)
    asked: list[Denoiser] = [population, *(EmpiricalDenoiser(data[:M]) for M in SIZES)]
    asked += [EmpiricalDenoiser(torch.cat([data[: M - COMPONENTS], means])) for M in SIZES]
    at = [excesses(asked, data, s, z) for s in sigmas]
    n = len(SIZES)
    return {
        "generalizing": [found[0] for found in at],
        "points": [found[1 : n + 1] for found in at],
        "points and means": [found[n + 1 :] for found in at],
    }


def crossing(generalizing: float, memorizing: list[float]) -> float:
    r"""The share M/N at which both excesses are equal; NaN where they are not for any M."""
    gap = np.array(memorizing) - generalizing  # falls with M
    if gap[0] < 0 or gap[-1] > 0:
        return float("nan")
    return float(np.interp(0.0, -gap, np.array(SIZES) / N))


def measure(seed: int, *, quick: bool = False) -> Found:
    draws, units = (2, 3) if quick else (4, 12)
    sigmas = (0.5, 1.0) if quick else SIGMAS
    found = [one_draw(seed, unit, sigmas, draws) for unit in range(units)]
    rows = []
    for k, sigma in enumerate(sigmas):
        general = [one["generalizing"][k] for one in found]
        row: Found = {
            "sigma": sigma,
            "generalizing": with_error(general),
            "theirs, generalizing": DIM * V / (1 + V / sigma**2),
            "theirs, crossover": V / (V + sigma**2),
        }
        for name in ("points", "points and means"):
            memory = np.array([one[name][k] for one in found])  # (units, M)
            at = [crossing(g, list(m)) for g, m in zip(general, memory, strict=True)]
            known = [a for a in at if a == a]
            row[f"excess, {name}"] = [with_error(column) for column in memory.T]
            row[f"crossover, {name}"] = with_error(known) if known else None
            row[f"crossings, {name}"] = len(known)
        rows.append(row)
    theirs = [DIM * V * (1 - M / N) for M in SIZES]
    return {
        "sizes": list(SIZES),
        "theirs, excess": theirs,
        "training_sets": units,
        "draws": draws,
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(publish(measure, __doc__, "crossover"))
