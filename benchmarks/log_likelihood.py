r"""Log-likelihood from denoising errors, beside Hutchinson's trace along the probability flow.

Run (GEOMEM_DATA names MNIST):  python benchmarks/log_likelihood.py [--quick] [--out FILE]

Two denoisers. A mixture of one Gaussian for each digit of MNIST, whose density is known, so that
errors are against the truth; and a small network trained on the 8 x 8 digits, where they are
what each method says of itself. Both methods estimate the mean of ln p over the noise of the
lowest level. The flow is followed by Heun's method from a few noisy points each, with one sign
vector a point for the trace; a pullback is counted as two calls.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side as bench
import torch
from torch import Tensor

from geomem.data import load_data
from geomem.denoiser import Denoiser
from geomem.exact import GaussianDenoiser, MixtureDenoiser
from geomem.likelihood import log_likelihood
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState
from geomem.noise import log_levels


def flow(
    denoiser: Denoiser,
    x: Tensor,
    prior: GaussianDenoiser,
    sigmas: Tensor,
    starts: int,
    rng: torch.Generator,
) -> Tensor:
    r"""``ln p`` at noisy points about one clean point, with shape (starts)."""
    z = torch.randn(starts, *x.shape, generator=rng, dtype=x.dtype)
    signs = torch.randint(2, z.shape, generator=rng).to(x) * 2 - 1
    y, total = x + sigmas[0].to(x) * z, torch.zeros(starts, dtype=torch.float64)

    def slope(y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        point = y.detach().requires_grad_()
        D = denoiser(point, sigma.to(y))
        (pulled,) = torch.autograd.grad(D, point, signs)
        trace = (pulled * signs).double().flatten(1).sum(1)
        return y - D.detach(), x.numel() - trace

    for low, high in pairwise(sigmas):
        h = float((high / low).log())
        a, p = slope(y, low)
        b, q = slope(y + h * a, high)
        y, total = y + h / 2 * (a + b), total + h / 2 * (p + q)
    return prior.log_density(y, sigmas[-1]) + total


def truth(mixture: MixtureDenoiser, control: GaussianDenoiser, x: Tensor, sigma: Tensor) -> Tensor:
    r"""``E_z ln p(x_0 + sigma z)`` of each point, with the control's, which is known, beside it."""
    z = torch.randn(500, *x.shape[1:], generator=torch.Generator().manual_seed(9)).to(x)
    t, found = float(sigma) ** 2, []
    lost = float((t / (control.variances + t)).sum()) + control.complement * t / (control.rest + t)
    for p in x:
        noisy = torch.cat([p + sigma * z, p - sigma * z])
        beyond = mixture.log_density(noisy, sigma) - control.log_density(noisy, sigma)
        found.append(beyond.mean() + control.log_density(p[None], sigma)[0] - lost / 2)
    return torch.stack(found)


def measured(run: Callable[[], tuple[list[float], list[float]]], calls: int) -> dict[str, Any]:
    r"""Values and errors of each point, seconds and calls a point."""
    start = time.perf_counter()
    values, errors = run()
    seconds = (time.perf_counter() - start) / len(values)
    return {"values": values, "stderr": errors, "calls": calls, "seconds": seconds}


def compare(
    denoiser: Denoiser,
    control: GaussianDenoiser,
    x: Tensor,
    sigmas: tuple[float, float],
    quick: bool,
) -> dict[str, Any]:
    low, high = sigmas
    table = {}
    for draws in (2,) if quick else (2, 4, 16):

        def ours(draws: int = draws) -> tuple[list[float], list[float]]:
            found = log_likelihood(
                denoiser, x, control=control, sigmas=log_levels(low, high, 65), draws=draws
            )
            return [p.value for p in found.points], [p.stderr for p in found.points]

        table[f"denoising errors, {64 * draws} draws"] = measured(ours, 64 * draws)
    for steps, starts in ((8, 2),) if quick else ((16, 2), (16, 8), (64, 2), (64, 8)):
        levels = log_levels(low, high, steps + 1)

        def theirs(
            levels: Tensor = levels, starts: int = starts
        ) -> tuple[list[float], list[float]]:
            rng = torch.Generator().manual_seed(1)
            each = [flow(denoiser, p, control, levels, starts, rng).numpy() for p in x]
            errors = [float(e.std(ddof=1) / math.sqrt(starts)) for e in each]
            return [float(e.mean()) for e in each], errors

        name = f"probability flow, {steps} Heun steps from {starts} points"
        table[name] = measured(theirs, 3 * 2 * steps * starts)
    return table


def mnist_mixture(per_class: int, points: int, quick: bool) -> dict[str, Any]:
    images = load_data("mnist")
    pixels, labels = images.tensor(range(60 * per_class)).flatten(1).double(), images.labels
    assert labels is not None
    digits = torch.as_tensor(np.asarray(labels[: len(pixels)]).astype(int))
    parts = [GaussianDenoiser.fit(pixels[digits == k][:per_class]) for k in range(10)]
    mixture, control = MixtureDenoiser(torch.ones(10), parts), GaussianDenoiser.fit(pixels[:2000])
    x = images.tensor(range(59_000, 59_000 + points)).flatten(1).double()
    rms = float((pixels - pixels.mean(0)).square().mean().sqrt())
    sigmas = (0.1 * rms, 100 * rms)
    known = truth(mixture, control, x, torch.tensor(sigmas[0], dtype=torch.float64))
    table = compare(mixture, control, x, sigmas, quick)
    for row in table.values():
        off = np.array(row["values"]) - known.numpy()
        row["rmse"] = float(np.sqrt(np.square(off).mean()))
        row["bias"] = float(off.mean())
    return {"ambient_dim": 784, "sigmas": sigmas, "known": known.tolist(), "methods": table}


def digits_network(steps: int, points: int, quick: bool) -> dict[str, Any]:
    images = load_data("digits")
    data = images.tensor(range(1500)).flatten(1)
    rms = float((data - data.mean(0)).square().mean().sqrt())
    state = TrainState(NetworkConfig("mlp", (64,), rms), Training(steps), data[:1200], seed=0)
    while state.step < steps:
        state.advance()
    control = GaussianDenoiser.fit(data[:1200])
    x, sigmas = data[1200 : 1200 + points], (0.1 * rms, 13 * rms)
    table = compare(state.average, control, x, sigmas, quick)
    return {"ambient_dim": 64, "steps": steps, "sigmas": sigmas, "methods": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=bench.RESULTS / "log_likelihood.json")
    parser.add_argument("--quick", action="store_true", help="few points and draws")
    options = parser.parse_args()
    quick = options.quick
    result = bench.environment()
    result["command"] = "python benchmarks/log_likelihood.py" + (" --quick" if quick else "")
    result["network"] = digits_network(100 if quick else 2000, 2 if quick else 6, quick)
    result["mixture"] = mnist_mixture(20 if quick else 100, 1 if quick else 6, quick)
    bench.write(options.out, result)


if __name__ == "__main__":
    main()
