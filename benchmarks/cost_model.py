r"""What an audit costs: products a second of UNet2DModels measured here, larger ones on paper.

Run:  python benchmarks/cost_model.py [--quick] [--out PATH]

Times calls, and products with the Jacobian and its transpose, of `UNet2DModel`s of four sizes at
32 x 32, in seconds of one thread's own time, so that a busy machine matters little; counts their
operations with torch's own counter; and takes the operations a second of the larger ones, with
their spread, to models whose operations are counted without weights: the 35.7M parameters of
DDPM's network for CIFAR-10 and the 860M of a latent text-to-image model's. The former is timed,
too, and takes no part in the fit: it says how far the forecast can be trusted. Then the calls of
an audit by the formula that `--budget` plans with. A minute on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from side_by_side import environment
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from geomem.compute.files import atomic_write_text
from geomem.compute.threads import one_thread
from geomem.operators import DenoiserJacobian
from geomem.runs.calls import model_calls

HERE = Path(__file__).parent
SIZES = ((16, 32, 32), (32, 64, 64), (64, 128, 128), (96, 192, 192))
FITTED = 3  # the largest so many: small networks spend their time between operations
BATCH, PRODUCTS = 4, 4
PLANS = {
    "smallest": {"points": 32, "draws": 4, "levels": 12, "samples": 0, "trajectories": 0,
                 "jacobian_points": 0},
    "64 + 64 points": {"points": 64, "draws": 4, "levels": 16, "samples": 64, "trajectories": 8,
                       "jacobian_points": 0},
    "all that there is": {"points": 64, "draws": 4, "levels": 20, "samples": 256,
                          "trajectories": 16, "jacobian_points": 8},
}  # fmt: skip
DIRECTIONS = 80  # products of a Jacobian's diagonal: 64 single directions and 16 bands


def small(channels: tuple[int, ...]) -> nn.Module:
    r"""A network of the kind that the strangers of the docs have."""
    found: nn.Module = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    return found


def cifar() -> nn.Module:
    r"""The network of DDPM for CIFAR-10."""
    found: nn.Module = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    return found


def text_to_image() -> nn.Module:
    r"""The network of a latent text-to-image model at 512 x 512 pixels."""
    found: nn.Module = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        attention_head_dim=8,
        cross_attention_dim=768,
    )
    return found


def counted(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[int, float]:
    r"""Parameters, and operations of one call at one point, without any weight."""
    with torch.device("meta"):
        network = build()
        x, t = torch.empty(1, *shape), torch.zeros(1, dtype=torch.long)
        more = {}
        if isinstance(network, UNet2DConditionModel):
            more["encoder_hidden_states"] = torch.empty(1, 77, 768)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x, t, **more)
    return sum(p.numel() for p in network.parameters()), float(counter.get_total_flops())


def seconds(action: Callable[[], object], rounds: int) -> list[float]:
    r"""Seconds of the thread's own time, after one round that does not count."""
    found = []
    for _ in range(rounds + 1):
        start = time.thread_time()
        action()
        found.append(time.thread_time() - start)
    return found[1:]


def measured(network: nn.Module, shape: tuple[int, ...], rounds: int, batch: int) -> dict[str, Any]:
    r"""Medians of seconds a call at one point of a batch, and a product at one point."""
    network = network.eval().requires_grad_(False)
    x = torch.randn(batch, *shape)

    def denoiser(points: Tensor, sigma: Tensor) -> Tensor:
        times = torch.full((len(points),), 100)
        answer: Tensor = network(points, times).sample
        return points - sigma * answer

    @torch.no_grad()
    def call() -> Tensor:
        return denoiser(x, torch.tensor(0.5))

    jacobian = DenoiserJacobian(denoiser, x[0], torch.tensor(0.5))
    vectors = torch.randn(x[0].numel(), PRODUCTS)
    calls = [s / batch for s in seconds(call, rounds)]
    found = {"call": statistics.median(calls), "call_spread": spread(calls)}
    if batch < BATCH:  # a large one, timed to see whether the forecast holds
        return found
    for name, side in (("product", jacobian.matmat), ("transposed", jacobian.rmatmat)):
        each = [s / PRODUCTS for s in seconds(partial(side, vectors), max(1, rounds // 2))]
        found[name] = statistics.median(each)
    return found


def spread(values: list[float]) -> float:
    r"""Standard deviation of the logarithms."""
    return float(np.log(values).std(ddof=1)) if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small networks, nothing written")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cost_model.json")
    asked = parser.parse_args()
    rounds, sizes = (1, SIZES[:2]) if asked.quick else (3, SIZES)
    rows: list[dict[str, Any]] = []
    torch.manual_seed(0)
    with one_thread():
        for channels in sizes:
            count, operations = counted(lambda c=channels: small(c), (3, 32, 32))
            row = {"channels": list(channels), "parameters": count, "operations": operations}
            row |= measured(small(channels), (3, 32, 32), rounds, BATCH)
            rows.append(row)
            print(json.dumps(row), flush=True)
        rates = [row["operations"] / row["call"] for row in rows[-FITTED:]]
        factor = statistics.mean(row["product"] / row["call"] for row in rows[-FITTED:])
        error = max(spread(rates), max(row["call_spread"] for row in rows[-FITTED:]))
        rate = float(np.exp(np.log(rates).mean()))
        forecasts = []
        for name, build, shape in (
            ("35.7M parameters, 32 x 32", cifar, (3, 32, 32)),
            ("860M parameters, latents of 64 x 64", text_to_image, (4, 64, 64)),
        ):
            count, operations = counted(build, shape)
            one = {"name": name, "parameters": count, "operations": operations}
            one |= {"call": operations / rate, "error": error}
            one["products_a_second"] = 1 / (factor * operations / rate)
            for plan, content in PLANS.items():
                bases = min(content["jacobian_points"], 4)
                calls = model_calls(content, DIRECTIONS, bases)
                one[plan] = {"calls": calls, "seconds": calls * operations / rate}
            if build is cifar and not asked.quick:
                one["timed"] = measured(cifar(), shape, 2, 1)
            forecasts.append(one)
            print(json.dumps(one), flush=True)
    content = {
        "command": "python benchmarks/cost_model.py",
        **environment(),
        "sizes": rows,
        "operations_a_second": rate,
        "product_over_call": factor,
        "error": error,
        "forecasts": forecasts,
    }
    if not asked.quick:
        atomic_write_text(asked.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
