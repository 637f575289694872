r"""Trains two models with diffusers' own classes alone, for an audit to look at as strangers.

    python examples/train_strangers.py strangers
    geomem audit --model strangers/few/pipeline --data strangers/few/training.npy \
        --held-out strangers/few/held_out.npy --reserved strangers/few/reserved.npy --out runs/few

*few* learns 100 Fashion-MNIST images, by epsilon on linear betas; *many* learns 10,000 others, by
v on cosine betas. Both are `UNet2DModel`s of .28M parameters trained with a `DDPMScheduler`'s
`add_noise`, a mean squared error and an `EMAModel`, and saved by `DDPMPipeline.save_pretrained`.
Nothing of geomem is used but its reader of the data set. 25 minutes each on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from geomem.data import load_data

HELD_OUT, RESERVED = 600, 600


def pictures(size: int) -> np.ndarray:
    r"""Fashion-MNIST's training images as uint8 with shape (60000, size, size), zero around."""
    found = load_data("fashion-mnist")
    images = ((found.tensor(np.arange(60000)) + 1) * 127.5).round().to(torch.uint8)[:, 0]
    border = (size - 28) // 2
    return np.pad(images.numpy(), ((0, 0), (border, border), (border, border)))


def train(
    training: np.ndarray, out: Path, *, prediction: str, betas: str, steps: int, seed: int
) -> None:
    r"""Trains one model the way diffusers' own example script does, and saves it."""
    torch.manual_seed(seed)
    network = UNet2DModel(
        sample_size=training.shape[-1],
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    scheduler = DDPMScheduler(1000, beta_schedule=betas, prediction_type=prediction)
    average = EMAModel(network.parameters(), decay=0.995)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, 2 * (1 - k / steps)))
    images = torch.from_numpy(training).float()[:, None] / 127.5 - 1
    start = time.time()
    for step in range(steps):
        clean = images[torch.randint(len(images), (64,))]
        noise = torch.randn_like(clean)
        t = torch.randint(1000, (len(clean),))
        target = noise if prediction == "epsilon" else scheduler.get_velocity(clean, noise, t)
        found = network(scheduler.add_noise(clean, noise, t), t).sample
        loss = torch.nn.functional.mse_loss(found, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        average.step(network.parameters())
        if step % 100 == 99:
            left = (time.time() - start) * (steps / (step + 1) - 1)
            print(f"{out.name}: step {step + 1}, loss {loss.item():.4f}, {left / 60:.1f} min left")
    average.copy_to(network.parameters())
    DDPMPipeline(network, scheduler).save_pretrained(out / "pipeline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--size", type=int, default=32, help="28 or more, a multiple of 4")
    parser.add_argument("--only", choices=["few", "many"])
    asked = parser.parse_args()
    images = pictures(asked.size)[np.random.default_rng(0).permutation(60000)]
    plans = {
        "few": (100, "epsilon", "linear"),
        "many": (10000, "v_prediction", "squaredcos_cap_v2"),
    }
    for name, (count, prediction, betas) in plans.items():
        if asked.only not in (None, name):
            continue
        out = asked.out / name
        out.mkdir(parents=True, exist_ok=True)
        parts = {"training": count, "held_out": HELD_OUT, "reserved": RESERVED}
        first = 0
        for part, size in parts.items():
            np.save(out / f"{part}.npy", images[first : first + size])
            first += size
        train(
            images[:count],
            out,
            prediction=prediction,
            betas=betas,
            steps=asked.steps,
            seed=0,
        )
        print(f"{out}: {count} images, {prediction}, {betas}")


if __name__ == "__main__":
    main()
