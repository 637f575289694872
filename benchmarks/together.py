r"""Trainings together beside the same ones one by one: seconds a step of all.

python benchmarks/together.py [--device cuda] [--steps 100000]

The networks of the linear experiments: MLPs of width 128 with two residual blocks, batches of
128, nine sizes and three seeds. From 50,000 steps on a step is compiled where it is recorded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import side_by_side as bench
import torch

from geomem.models.networks import NetworkConfig
from geomem.models.stacked import Member, StackedState
from geomem.models.train import Training, TrainState

SIZES = (10, 50, 100, 250, 500, 1000, 2500, 5000, 20_000)
SEEDS = (0, 1, 2)


def step_of_all(states: list[Any], device: str, count: int) -> bench.Competitor:
    r"""So many steps of all of these; the clock waits for the device."""

    def run() -> None:
        for _ in range(count):
            for state in states:
                state.advance()
        if device != "cpu":
            torch.cuda.synchronize()

    return bench.Competitor(run, times=1 / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=bench.RESULTS / "together.json")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=100_000, help="of the whole training")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    device, training = options.device, Training(options.steps)
    if device == "cpu":
        torch.set_num_threads(1)
    result = bench.environment()
    result["command"] = f"python benchmarks/together.py --device {device}"
    result["device"] = torch.cuda.get_device_name() if device != "cpu" else "cpu, one thread"
    config = NetworkConfig("mlp", (30,), 0.3, width=128, blocks=2)
    data = 0.3 * torch.randn(SIZES[-1], 30, generator=torch.Generator().manual_seed(0))
    members = [Member(f"N{n}-seed{s}", data[:n], s) for n in SIZES for s in SEEDS]
    stack = StackedState(config, training, members, seed=0, device=device)
    alone = [
        TrainState(config, training, m.data, seed=0, unit=m.unit, device=device) for m in members
    ]
    for _ in range(10):
        stack.advance()  # recorded, and compiled, once
    competitors = {
        "together": step_of_all([stack], device, 5 if device == "cpu" else 500),
        "one by one": step_of_all(alone, device, 2),
    }
    bench.in_turn(competitors, options.rounds)
    result["networks"] = len(members)
    result["table"] = bench.ratios(competitors, "together")
    bench.write(options.out, result)


if __name__ == "__main__":
    main()
