r"""The patches of docs/monitor.md, put into loops of the structure of diffusers' scripts.

``train_unconditional.py`` and ``train_text_to_image_lora.py`` themselves need packages and
downloads that are not here; ``scripts/`` has their structure and names: accelerate's prepare,
accumulate, checkpointing and sync of gradients, a wrapped model, a scheduler, latents, captions.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.monitor import (
    EncodedImages,
    MemorizationMonitor,
    lightning_callback,
    scheduled_denoiser,
)
from geomem.noise import DiscreteBetas

diffusers: Any = pytest.importorskip("diffusers")
SIZE = 8
HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "monitor.md"


def pictures(count: int, seed: int, channels: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    waves = torch.randn(count, channels, SIZE, 1, generator=rng).cumsum(2) / 2
    return (waves + 0.1 * torch.randn(count, channels, SIZE, SIZE, generator=rng)).tanh()


class Set(torch.utils.data.Dataset[dict[str, Tensor]]):
    r"""As the data set of the script, with transforms done."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input": self.images[index]}


def patched(name: str) -> dict[str, Any]:
    r"""A script with the patch that docs/monitor.md has for it, and what is defined in it."""
    patch = re.search(rf"`{name}\.py`.*?```diff\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert patch
    rows = (HERE / "scripts" / f"{name}.txt").read_text().split("\n")
    # As a patch is read: what is there is looked for from the last place on, what is new follows.
    at = next(k for k, row in enumerate(rows) if row.startswith("import "))
    for line in patch[1].splitlines():
        mark, text = line[:1], line[1:]
        if mark == "+":
            rows.insert(at, text)
            at += 1
        elif text.strip() != "...":
            at = rows.index(text, at) + 1
    names: dict[str, Any] = {}
    exec(compile("\n".join(rows), name, "exec"), names)
    return names


def arguments(out: Path, steps: int, **more: Any) -> argparse.Namespace:
    settings = {
        "output_dir": str(out), "max_train_steps": steps, "checkpointing_steps": 3,
        "prediction_type": "epsilon", "resume_from_checkpoint": None,
    }  # fmt: skip
    return argparse.Namespace(**(settings | more))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Monitors of patches look early, coarsely, whatever it costs: these loops are short."""

    def soon(train: Any, held_out: Any, *, every: int, **rest: Any) -> MemorizationMonitor:
        assert every >= 100
        return MemorizationMonitor(train, held_out, every=2, levels=3, share=float("inf"), **rest)

    monkeypatch.setattr("geomem.monitor.MemorizationMonitor", soon)


def unconditional(out: Path, steps: int, **more: Any) -> MemorizationMonitor:
    r"""``train_unconditional.py``, patched."""
    torch.manual_seed(0)
    sets = Set(pictures(24, 0)), Set(pictures(48, 1))
    monitor: MemorizationMonitor = patched("train_unconditional")["main"](
        arguments(out, steps, **more), *sets
    )["monitor"]
    return monitor


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_unconditional(prediction: str, tmp_path: Path) -> None:
    monitor = unconditional(tmp_path, 9, prediction_type=prediction)
    assert [look.step for look in monitor.history] == [2, 4, 8]
    assert not monitor._said
    assert (tmp_path / "monitor" / "summary.json").exists()


def test_unconditional_killed_and_resumed(tmp_path: Path) -> None:
    first = unconditional(tmp_path, 5)
    again = unconditional(tmp_path, 9, resume_from_checkpoint="checkpoint-3")
    assert [look.step for look in again.history] == [2, 4, 8]
    assert again.history[:2] == first.history
    assert again.steps == 9


class Encoded:
    r"""An autoencoder whose latents have four channels, drawn around a mean."""

    config = argparse.Namespace(scaling_factor=0.5)

    def encode(self, pixels: Tensor) -> Any:
        mean = pixels.repeat(1, 4, 1, 1)
        drawn = argparse.Namespace(mean=mean, sample=lambda: mean + 0.01 * torch.randn_like(mean))
        return argparse.Namespace(latent_dist=drawn)


class Tokens:
    r"""A tokenizer that knows the empty caption, as that is the only one it is asked for."""

    model_max_length = 5

    def __call__(self, text: str, *, max_length: int, padding: str, return_tensors: str) -> Any:
        assert (text, padding, return_tensors) == ("", "max_length", "pt")
        return argparse.Namespace(input_ids=torch.zeros(1, max_length, dtype=torch.long))


class Captioned(Set):
    r"""As the data set of the script, with captions tokenized."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "input_ids": torch.full((5,), index % 7)}


def test_text_to_image_lora(tmp_path: Path) -> None:
    r"""Latents, captions, a frozen network with a few trained matrices of low rank."""
    torch.manual_seed(0)
    sets = Captioned(pictures(32, 4)), Captioned(pictures(48, 5))
    embedding = nn.Embedding(7, 6)
    there = patched("train_text_to_image_lora")["main"](
        arguments(tmp_path, 5), *sets, Encoded(), lambda ids: (embedding(ids),), Tokens()
    )
    monitor = there["monitor"]
    assert [look.step for look in monitor.history] == [2, 4]
    assert monitor.history[0].training != monitor.history[1].training
    assert not monitor._said
    # What is measured is the latents' means, scaled as the script scales them.
    assert monitor._known is not None
    assert monitor._known.study.item_shape == (4, 8, 8)
    assert float(EncodedImages(sets[0], there["encode"])[3].abs().max()) <= 0.5
    assert (tmp_path / "monitor" / "summary.json").exists()


def test_what_does_not_encode_is_told_so() -> None:
    images = pictures(3, 4)
    assert EncodedImages(images, lambda pixels: pixels.double())[1].dtype == torch.float32
    with pytest.raises(InputError, match="`encode` returned a tuple"):
        EncodedImages(images, lambda pixels: (pixels,))[0]  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match="no image was found"):
        EncodedImages([{"text": "a"}], lambda pixels: pixels)[0]


# ------------------------------------------------------------------------------ the adapter


class Clean(nn.Module):
    r"""A model that knows the Gaussian law N(0, 1), in any parametrization."""

    def __init__(self, levels: Tensor, prediction: str) -> None:
        super().__init__()
        self.levels, self.prediction = levels, prediction
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x_t: Tensor, t: Tensor) -> Any:
        sigma = self.levels[t.round().long()].float()[:, None, None, None]
        alpha = (1 + sigma**2).rsqrt()
        clean = alpha * x_t  # E[x_0 | x_t] of the unit Gaussian
        noise = (x_t / alpha - clean) / sigma
        found = {
            "sample": clean,
            "epsilon": noise,
            "v_prediction": alpha * noise - alpha * sigma * clean,
        }
        return diffusers.models.unets.unet_2d.UNet2DOutput(sample=found[self.prediction])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_model_with_its_scheduler_is_a_denoiser(prediction: str) -> None:
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
    levels = DiscreteBetas(scheduler.betas).levels
    denoiser = scheduled_denoiser(Clean(levels, prediction), scheduler)
    x = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    for k in (10, 400, 900):
        sigma = levels[k].float()
        torch.testing.assert_close(denoiser(x, sigma), x / (1 + sigma**2), rtol=1e-4, atol=1e-5)
    told = scheduled_denoiser(Clean(levels, "sample"), scheduler, "sample")
    torch.testing.assert_close(told(x, levels[400]), denoiser(x, levels[400]))


def test_what_is_no_scheduler_is_said() -> None:
    with pytest.raises(InputError, match="without a config"):
        scheduled_denoiser(nn.Linear(2, 2), 3)


# -------------------------------------------------------------------------------- Lightning


class Trainer:
    r"""Lightning's loop as far as callbacks see it; the package itself is not installed here."""

    def __init__(self, callbacks: list[Any], accumulate: int = 2) -> None:
        self.callbacks, self.accumulate, self.global_step = callbacks, accumulate, 0

    def fit(self, module: nn.Module, batches: int) -> None:
        module.train()
        for k in range(batches):
            self.global_step += (k + 1) % self.accumulate == 0
            for callback in self.callbacks:
                callback.on_train_batch_end(self, module, None, None, k)
        for callback in self.callbacks:
            callback.on_train_end(self, module)


class Callback:
    r"""As Lightning's base class."""


def denoiser_of(module: nn.Module) -> Any:
    return lambda x, sigma: x / (1 + sigma**2) + module(x)


def test_lightning_callback(tmp_path: Path) -> None:
    points = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    monitor = MemorizationMonitor(
        points[:16], points[16:], every=1, out=tmp_path / "run", share=float("inf"), levels=3
    )
    callback = lightning_callback(monitor, denoiser_of, base=Callback)
    assert isinstance(callback, Callback)
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    Trainer([callback]).fit(module, 9)
    assert [look.step for look in monitor.history] == [1, 2, 4]
    assert module.training
    assert (tmp_path / "run" / "summary.json").exists()
    kept: Any = callback
    assert kept.state_dict()["steps"] == 4
    kept.load_state_dict({"steps": 40})
    assert monitor.steps == 40


def test_a_denoiser_that_cannot_be_made_stops_no_training() -> None:
    points = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    monitor = MemorizationMonitor(points[:16], points[16:], every=1, share=float("inf"), levels=3)
    callback = lightning_callback(monitor, lambda module: module.nowhere, base=Callback)
    Trainer([callback]).fit(nn.Linear(4, 4), 4)
    assert monitor.history == []
    assert len(monitor._said) == 1


def test_lightning_is_asked_for_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomem.monitor.hooks.PACKAGES", ("not_there.pytorch",))
    points = torch.randn(64, 4)
    with pytest.raises(InputError, match="Lightning is not installed"):
        lightning_callback(MemorizationMonitor(points[:16], points[16:]), denoiser_of)
