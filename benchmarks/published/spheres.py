r"""Normal bundles of k-spheres: is it k or k + 1, and is the radius the one too many?

Run:  python benchmarks/published/spheres.py [--quick] [--seed S] [--out PATH]

Stanczuk et al. (2022) train networks of 5 layers of 2048 on 50,000 points of a k-sphere of radius
1 in R^100, VE noise from .01 to 4, and report 11 for k = 10 and 51 for k = 50. Here the estimator
is asked of the exact denoiser of the same data at levels over their range, as they draw
(400 Gaussian draws) and with d orthogonal draws, and of a small network trained on 50,000
points at the lowest levels. Where k + 1 is said, the share of the radius that lies in the
directions counted as tangent, and what the Jacobian keeps along it, tell whether it is the radius.
"""

from __future__ import annotations

import math
import sys

import torch
from row import Found, publish, trained, with_error
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.dimension import LocalDimension, NormalBundle
from geomem.dimension.differences import haar_rows, scores_at
from geomem.manifolds import Sphere
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training
from geomem.operators import DenoiserJacobian
from geomem.stats import Estimate, torch_rng

D = 100
SIGMAS = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 4.0)
LOWEST = (0.01, 0.05)
BUNDLES = {
    "as they draw": {"noise": "gaussian", "draws": 4 * D},
    "orthogonal draws": {"noise": "orthogonal"},
}


def asked(denoiser: Denoiser, x_0: Tensor, k: int, sigma: float, seed: int) -> Found:
    r"""Answers at clean points, how many are k, k + 1 or something else, and the radius."""
    level, found = torch.tensor(sigma, dtype=x_0.dtype), {}
    for name, options in BUNDLES.items():
        answers = [NormalBundle(seed=seed + i, **options)(denoiser, x, level)  # type: ignore
                   for i, x in enumerate(x_0)]  # fmt: skip
        found[name] = counted(answers, k)
    z = torch.randn(x_0.shape, generator=torch_rng(seed, "noise"), dtype=torch.float64)
    noisy = x_0 + level * z.to(x_0)
    ours = [LocalDimension(seed=seed + i)(denoiser, x, level) for i, x in enumerate(noisy)]
    found["LocalDimension"] = counted(ours, k)
    tangent, kept = zip(*(radius(denoiser, x, level, k, seed) for x in x_0), strict=True)
    found["radius among the k + 1 smallest"] = with_error(tangent)
    found["kept along the radius"] = with_error(kept)
    return found


def counted(answers: list[object], k: int) -> list[int]:
    values = [a.value if isinstance(a, Estimate) else -1.0 for a in answers]
    said = [values.count(k), values.count(k + 1)]
    return [*said, len(values) - sum(said)]


def radius(
    denoiser: Denoiser, x_0: Tensor, level: Tensor, k: int, seed: int
) -> tuple[float, float]:
    r"""Share of the radius within the k + 1 smallest directions of the scores, and u'(∇D)u."""
    z = math.sqrt(D) * haar_rows(D, D, torch_rng(seed, "radius"))
    S = scores_at(denoiser, x_0 + level * z.to(x_0), level)
    S = S - scores_at(denoiser, x_0[None], level)[0]
    rows = torch.linalg.svd(S).Vh
    u = (x_0 / x_0.norm()).double()
    J = DenoiserJacobian(denoiser, x_0, level)
    kept = float(u @ J.rmatmat(u[:, None].to(x_0))[:, 0].double())
    return float((rows[D - k - 1 :] @ u).square().sum()), kept


def measure(seed: int, *, quick: bool = False) -> Found:
    points, steps = (3, 40) if quick else (6, 4000)
    rows = []
    for k in (10,) if quick else (10, 50):
        sphere = Sphere(k, D, seed=seed)
        x_0 = sphere.sample(points, torch_rng(seed, "points", k))
        exact = sphere.population_denoiser()
        for sigma in (0.01, 0.5) if quick else SIGMAS:
            row = {"k": k, "denoiser": "exact", "sigma": sigma, "points": points}
            rows.append(row | asked(exact, x_0, k, sigma, seed))
        data = sphere.sample(500 if quick else 50_000, torch_rng(seed, "data", k)).float()
        config = NetworkConfig("mlp", (D,), float(data.std()), width=256, blocks=2)
        network = trained(config, Training(steps=steps), data, seed)
        for sigma in (0.01,) if quick else LOWEST:
            row = {"k": k, "denoiser": "network", "sigma": sigma, "points": points}
            rows.append(row | asked(network, x_0.float(), k, sigma, seed))
    return {"training_steps": steps, "width": 256, "counted": "k, k + 1, else", "rows": rows}


if __name__ == "__main__":
    sys.exit(publish(measure, __doc__, "spheres"))
