r"""The sets of Kamkari et al.: a lollipop, affine subspaces of three dimensions, squiggles.

Run:  python benchmarks/published/flipd_sets.py [--quick] [--seed S] [--out PATH]

As their configurations have them: the lollipop in R^2 (candy 4 : stick 2 : dot 1), and a mixture
of normal laws on random subspaces of 10, 25 and 50 of 100 dimensions with equal weights, at the
corners of a simplex of edge 10, standardised. Their squiggles of 200 in 2,000 dimensions have no
denoiser that is known: the library's largest squiggle is a surface, taken here in R^2000. All
denoisers are exact; theirs are trained networks. Errors are over points.
"""

from __future__ import annotations

import sys

import torch
from dimensions import judge, methods
from row import Found, publish
from torch import Tensor

from geomem.exact import GaussianDenoiser, MixtureDenoiser
from geomem.manifolds import Lollipop, Squiggle
from geomem.stats import torch_rng

SIGMAS = (0.01, 0.05, 0.1)
AFFINE = (10, 25, 50)


def affine(dims: tuple[int, ...], d: int, edge: float, seed: int) -> tuple[MixtureDenoiser, list]:
    r"""Normal laws on random subspaces about the corners of a simplex, standardised.

    Returns:
        The exact denoiser, and for each part its centre (d) and its factor (d, m).
    """
    centres = edge / 2**0.5 * torch.eye(d, dtype=torch.float64)[: len(dims)]
    rng, factors = torch_rng(seed, "affine"), []
    for m in dims:
        normal = torch.randn(d, m, generator=rng, dtype=torch.float64)
        factors.append(torch.linalg.qr(normal).Q)
    mean = centres.mean(0)
    inside = torch.stack([F.square().sum(1) for F in factors]).mean(0)
    scale = (inside + (centres - mean).square().mean(0)).sqrt()
    parts = [
        ((c - mean) / scale, F / scale[:, None]) for c, F in zip(centres, factors, strict=True)
    ]
    exact = [GaussianDenoiser.from_factor(c, F) for c, F in parts]
    return MixtureDenoiser(torch.ones(len(dims)), exact), parts


def of_affine(parts: list[tuple[Tensor, Tensor]], each: int, seed: int) -> tuple[Tensor, Tensor]:
    r"""So many points of each part (B, d), and the dimension at each (B)."""
    rng, points = torch_rng(seed, "points"), []
    for centre, F in parts:
        latent = torch.randn(each, F.shape[1], generator=rng, dtype=torch.float64)
        points.append(centre + latent @ F.T)
    dims = torch.tensor([F.shape[1] for _, F in parts]).repeat_interleave(each)
    return torch.cat(points), dims


def measure(seed: int, *, quick: bool = False) -> Found:
    sigmas = SIGMAS[:1] if quick else SIGMAS
    found: Found = {"sigmas": list(sigmas), "sets": {}}

    lollipop = Lollipop()
    x_0 = lollipop.sample(8 if quick else 70, torch_rng(seed, "lollipop"))
    dims, exact = lollipop.dimension_at(x_0), lollipop.population_denoiser()
    found["sets"]["lollipop in R^2"] = {
        "points": len(x_0),
        "methods": judge(exact, x_0, dims, sigmas, methods(), seed),
    }

    d, subspaces = (20, (2, 5)) if quick else (100, AFFINE)
    mixture, parts = affine(subspaces, d, 10.0, seed)
    x_0, dims = of_affine(parts, 2 if quick else 8, seed)
    found["sets"]["affine " + ", ".join(map(str, subspaces)) + f" in R^{d}"] = {
        "points": len(x_0),
        "methods": judge(mixture, x_0, dims, sigmas, methods(), seed),
    }

    if not quick:
        squiggle = Squiggle(2, 2000, seed=seed)
        x_0 = squiggle.sample(4, torch_rng(seed, "squiggle"))
        # d draws and their decomposition are out of reach here: FLIPD takes 32 signs.
        asked = methods(32, bundle=False)
        dims, exact = torch.full((len(x_0),), 2), squiggle.population_denoiser()
        found["sets"]["squiggle of 2 in R^2000"] = {
            "points": len(x_0),
            "methods": judge(exact, x_0, dims, sigmas, asked, seed),
        }
    return found


if __name__ == "__main__":
    sys.exit(publish(measure, __doc__, "flipd_sets"))
