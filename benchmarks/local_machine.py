r"""The local machine: its time, its accuracy, and how much of a small convolutional network it is.

Run (GEOMEM_DATA names MNIST):  python benchmarks/local_machine.py [--quick] [--out FILE]

Time: one 28 x 28 image at 20 levels, against 5,000 images at fixed positions and 1,000 over
positions, with one side and with sides by level; beside what everybody writes first, unfolded
patches in float32 and a softmax, timed at one level and multiplied.

The network is of a tiny scale, minutes on two cores, where the published one has hours of a
GPU: six convolutions of 3 x 3, zero padding, EDM's preconditioning, trained on the same few
hundred images that the machines are of. Sides are chosen on held-out images, never on the
network. r² is the squared correlation, over pixels, of the network with each machine: of
denoised held-out images, also beyond the linear denoiser, and of samples from the same noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side as bench
import torch
from side_by_side import Competitor
from torch import Tensor, nn

from geomem.data import load_data
from geomem.denoiser import Denoiser
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser, LocalDenoiser
from geomem.models.networks import LEVEL_MEAN, LEVEL_SPREAD, PreconditionedDenoiser
from geomem.models.sample import heun, sigma_steps

SIDES = ((0.05, 5), (0.2, 9), (0.5, 15), (1.0, 25), (3.0, 55))


def unfolded(images: Tensor, x: Tensor, sigma: float, side: int, equivariant: bool) -> Tensor:
    r"""What everybody writes first; positions at the border are left out where they roam."""
    pad = 0 if equivariant else side // 2
    patches = nn.functional.unfold(images, side, padding=pad)  # (N, side², positions)
    query = nn.functional.unfold(x, side, padding=pad)[0]
    middle = patches[:, side * side // 2]
    if not equivariant:
        distances = (patches - query).square().sum(1)
        return ((-distances / (2 * sigma**2)).softmax(0) * middle).sum(0)
    found = []
    flat = patches.permute(0, 2, 1).flatten(0, 1)
    for q in query.T.split(16):
        distances = torch.cdist(q, flat).square()
        found.append((-distances / (2 * sigma**2)).softmax(1) @ middle.flatten())
    return torch.cat(found)


def speed(images: Tensor, x: Tensor, rounds: int, shrink: int) -> dict[str, Any]:
    sigmas = torch.logspace(-1.3, 0.7, 20)
    table: dict[str, Any] = {}
    for name, N, equivariant in (
        ("fixed", 5000 // shrink, False),
        ("equivariant", 1000 // shrink, True),
    ):
        some = images[:N]
        one = LocalDenoiser(some, 9, equivariant=equivariant)
        many = LocalDenoiser(some, SIDES, equivariant=equivariant)
        path = x + sigmas[:, None, None, None] * torch.randn(20, 1, 28, 28)
        found = {
            "ours": Competitor(lambda one=one: one.posterior(x, sigmas)),
            "ours, sides by level": Competitor(lambda many=many: many.posterior(x, sigmas)),
            "ours, with variances": Competitor(
                lambda one=one: one.posterior(x, sigmas, variance=True)
            ),
            "unfold and softmax": Competitor(
                lambda some=some, e=equivariant: unfolded(some, x, float(sigmas[10]), 9, e),
                times=len(sigmas),
            ),
        }
        if not equivariant:
            found["ours, 20 noisy images, a level each"] = Competitor(
                lambda many=many, path=path: many(path, sigmas)
            )
        bench.in_turn(found, rounds)
        exact = LocalDenoiser(some.double(), 9, equivariant=equivariant)
        off = one.posterior(x, sigmas).mean.double() - exact.posterior(x.double(), sigmas).mean
        table[name] = {
            "images": N,
            "competitors": bench.ratios(found, "ours"),
            "error": float(off.abs().max()),
        }
    return table


# --------------------------------------------------------------------------- the network


class SmallConvolutions(nn.Module):
    r"""Convolutions of 3 x 3 with residuals: a receptive field of 2 layers + 1."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.enter, self.leave = (
            nn.Conv2d(2, width, 3, padding=1),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        self.between = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in range(layers - 2)
        )
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        level = c_noise[:, None, None, None].expand(-1, 1, *x.shape[2:])
        h = self.enter(torch.cat([x, level], 1))
        for layer in self.between:
            h = h + layer(nn.functional.silu(h))
        return self.leave(nn.functional.silu(h))


def trained(data: Tensor, rms: float, steps: int) -> Denoiser:
    torch.manual_seed(0)
    network = PreconditionedDenoiser(SmallConvolutions(6, 32), rms)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        x_0 = data[torch.randint(len(data), (32,))]
        s = (LEVEL_SPREAD * torch.randn(32) + LEVEL_MEAN).exp()
        sigma = s * rms
        error = network(x_0 + sigma[:, None, None, None] * torch.randn_like(x_0), sigma) - x_0
        loss = ((1 + s**2) / s**2 * error.square().mean((1, 2, 3))).mean() / rms**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.requires_grad_(False)


def r_squared(a: Tensor, b: Tensor) -> list[float]:
    r"""Squared correlation over pixels of each pair of images."""
    pairs = zip(a.flatten(1).double(), b.flatten(1).double(), strict=True)
    return [float(np.corrcoef(p.numpy(), q.numpy())[0, 1] ** 2) for p, q in pairs]


def network(images: Tensor, sizes: dict[str, int]) -> dict[str, Any]:
    training, rest = images[: sizes["training"]], images[-1000:]
    rms = float((training - training.mean(0)).square().mean().sqrt())
    D = trained(training, rms, sizes["steps"])
    W = GaussianDenoiser.fit(rest[-500:])
    x_0, chosen_on = rest[: sizes["points"]], rest[100 : 100 + sizes["choice"]]
    sigmas = rms * torch.logspace(-1, 0.7, sizes["levels"])
    choose = {"patches": (3, 5, 7, 9, 11, 17, 25, 55)}
    machines: dict[str, Denoiser] = {"empirical": EmpiricalDenoiser(training), "linear": W}
    sides = {}
    for name, equivariant in (("local", False), ("equivariant", True)):
        fitted = LocalDenoiser.fit(training, chosen_on, sigmas, equivariant=equivariant, **choose)
        machines[name] = fitted
        sides[name] = fitted.sides(sigmas).tolist()
    z = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(3))
    table: dict[str, Any] = {name: {"denoised": [], "beyond_linear": []} for name in machines}
    errors: list[float] = []
    for sigma in sigmas:
        x = x_0 + sigma * z
        known, linear = D(x, sigma), W(x, sigma)
        errors.append(float(((known - x_0) / sigma).square().flatten(1).sum(1).mean()))
        for name, machine in machines.items():
            answer = machine(x, sigma)
            table[name]["denoised"].append(r_squared(answer, known))
            if name != "linear":
                table[name]["beyond_linear"].append(r_squared(answer - linear, known - linear))
    noise = torch.randn(sizes["samples"], 1, 28, 28, generator=torch.Generator().manual_seed(4))
    steps = sigma_steps(0.1 * rms, 10 * rms, 8)
    drawn = heun(D, noise, steps)
    for name, machine in machines.items():
        table[name]["samples"] = r_squared(heun(machine, noise, steps), drawn)
    return {
        "sizes": sizes,
        "sigmas_relative": (sigmas / rms).tolist(),
        "sides": sides,
        "network_error": errors,
        "r_squared": table,
        "published_median": 0.94,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=bench.RESULTS / "local_machine.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few images, one round")
    options = parser.parse_args()
    quick = options.quick
    torch.manual_seed(0)
    images = load_data("mnist").tensor(range(8000))
    result = bench.environment()
    result["command"] = "python benchmarks/local_machine.py" + (" --quick" if quick else "")
    x = images[7000:7001] + 0.3 * torch.randn(1, 1, 28, 28)
    result["speed"] = speed(images, x, 1 if quick else options.rounds, 20 if quick else 1)
    sizes = {"training": 300, "steps": 600, "points": 6, "choice": 3, "levels": 6, "samples": 4}
    small = {"training": 30, "steps": 20, "points": 2, "choice": 1, "levels": 2, "samples": 2}
    result["network"] = network(images, small if quick else sizes)
    bench.write(options.out, result)


if __name__ == "__main__":
    main()
