r"""When does a network begin to copy? The step, against the number of training points.

Run:  python benchmarks/published/onset.py [--quick] [--seed S] [--out PATH]

Bonnaire et al. (2025) find that the training time at which samples become copies grows in
proportion to N, while the time at which they become good does not. As in their code: a mixture of
two normal laws at ±(1, ..., 1) in d = 8, a network of width 128 with three residual blocks, Adam at
a constant 6e-4, batches of min(512, N) points; a sample is a copy if its nearest training point
is less than 1/3 as far as the next. Theirs is N = 4,096 and more steps than fit here by a factor
of a thousand: N is 8 to 32, and the levels are drawn as geomem's recipe has them.

The onset is the step at which the share of copies passes 1/4 and 1/2 of all samples, interpolated
in ln(step); the exponent is the slope of ln(onset) on ln(N), its error is over trainings. The
time to generalize is the step at which the error at fresh points comes within 10 % of its least
over the training.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import torch
from row import Found, publish
from torch import Tensor

from geomem.denoiser import expand
from geomem.models.networks import LEVEL_MEAN, LEVEL_SPREAD, NetworkConfig, PreconditionedDenoiser
from geomem.models.sample import heun, sigma_steps
from geomem.stats import numpy_rng, seed_sequence, torch_rng

DIM, WIDTH, BLOCKS, RATE, LARGEST_BATCH = 8, 128, 3, 6e-4, 512
SHARES = (0.25, 0.5)
COPY = 1 / 3


def mixture(count: int, rng: torch.Generator) -> Tensor:
    signs = torch.arange(count) % 2 * 2.0 - 1
    return signs[:, None] + torch.randn(count, DIM, generator=rng)


def loss(network: PreconditionedDenoiser, x_0: Tensor, rms: float, rng: torch.Generator) -> Tensor:
    r"""EDM's weighted loss at one level a point."""
    s = (LEVEL_SPREAD * torch.randn(len(x_0), generator=rng) + LEVEL_MEAN).exp()
    z = torch.randn(x_0.shape, generator=rng)
    error = network(x_0 + rms * expand(s, x_0) * z, rms * s) - x_0
    return ((1 + s**2) / s**2 * error.square().mean(1)).mean() / rms**2


@torch.no_grad()
def copies(network: PreconditionedDenoiser, data: Tensor, z: Tensor, rms: float) -> float:
    r"""Share of samples whose nearest training point is less than 1/3 as far as the next."""
    drawn = heun(network, z, sigma_steps(0.005 * rms, 40 * rms, 24))
    near = torch.cdist(drawn, data).topk(2, largest=False).values
    return float((near[:, 0] < COPY * near[:, 1]).float().mean())


def training(
    N: int, steps: int, seed: int, unit: int, samples: int
) -> tuple[list[int], list[float], list[float]]:
    r"""Steps at which one looked, with the share of copies and the error at fresh points."""
    rng = torch_rng(seed, f"onset {N}", unit)
    data, fresh = mixture(N, rng), mixture(2000, rng)
    rms = float((data - data.mean(0)).square().mean().sqrt())
    config = NetworkConfig("mlp", (DIM,), rms, width=WIDTH, blocks=BLOCKS)
    network = config.build(int(seed_sequence(seed, f"onset {N}", unit).generate_state(1)[0]))
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    z = torch.randn(samples, DIM, generator=rng)
    looks = sorted({round(100 * 2 ** (k / 2)) for k in range(40)} & set(range(steps + 1)))
    at: list[int] = []
    shares: list[float] = []
    errors: list[float] = []
    for step in range(1, steps + 1):
        # With replacement: a batch as large as the set is the set with other noise, about.
        batch = data[torch.randint(N, (min(LARGEST_BATCH, N),), generator=rng)]
        optimizer.zero_grad()
        loss(network, batch, rms, rng).backward()
        optimizer.step()
        if step in looks:
            at.append(step)
            shares.append(copies(network, data, z, rms))
            with torch.no_grad():
                errors.append(float(loss(network, fresh, rms, torch_rng(seed, "fresh"))))
            if shares[-1] > SHARES[-1] + 0.05 and len(at) > 4:
                break
    return at, shares, errors


def passes(at: list[int], values: list[float], share: float) -> float:
    r"""The first step at which values pass a share, interpolated in its logarithm; or NaN."""
    for k, value in enumerate(values):
        if value >= share:
            if k == 0:
                return float(at[0])
            part = (share - values[k - 1]) / (value - values[k - 1])
            low, high = math.log(at[k - 1]), math.log(at[k])
            return math.exp(low + part * (high - low))
    return float("nan")


def exponent(sizes: list[int], steps: list[float], seed: int) -> list[float]:
    r"""Slope of ln(steps) on ln(sizes), ± by bootstrap over trainings; those without one, out."""
    known = [(math.log(n), math.log(s)) for n, s in zip(sizes, steps, strict=True) if s == s]
    if len({x for x, _ in known}) < 2:
        return [float("nan"), float("nan")]
    points, rng = np.array(known), numpy_rng(seed, "exponent")
    slope: Callable[[np.ndarray], float] = lambda p: float(np.polyfit(p[:, 0], p[:, 1], 1)[0])  # noqa: E731
    drawn = []
    while len(drawn) < 500:
        some = points[rng.integers(len(points), size=len(points))]
        if len(set(some[:, 0])) > 1:
            drawn.append(slope(some))
    return [slope(points), float(np.std(drawn, ddof=1))]


def measure(seed: int, *, quick: bool = False) -> Found:
    sizes, samples = ((4, 6), 64) if quick else ((8, 16, 32), 512)
    rows = []
    for N in sizes:
        for unit in range(1 if quick or sizes[-1] == N else 2):
            at, shares, errors = training(N, 30 * N if quick else 400 * N, seed, unit, samples)
            good = 1.1 * min(errors)
            rows.append(
                {
                    "N": N,
                    "training": unit,
                    "steps": at,
                    "copies": shares,
                    "fresh_error": errors,
                    "onset": [passes(at, shares, share) for share in SHARES],
                    "generalizes": passes(at, [-e for e in errors], -good),
                }
            )
    of = [row["N"] for row in rows]
    return {
        "samples": samples,
        "shares": list(SHARES),
        "rows": rows,
        "exponent": [
            exponent(of, [row["onset"][k] for row in rows], seed) for k in range(len(SHARES))
        ],
        "exponent_of_generalizing": exponent(of, [row["generalizes"] for row in rows], seed),
    }


if __name__ == "__main__":
    sys.exit(publish(measure, __doc__, "onset"))
