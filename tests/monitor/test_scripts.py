r"""The patch of docs/monitor.md in loops of the structure of diffusers' training scripts.

``train_unconditional.py`` and ``train_text_to_image_lora.py`` themselves need packages and
downloads that are not here; what matters to a monitor is: accelerate's prepare, accumulate,
checkpointing and sync of gradients, a wrapped model, a scheduler, latents and captions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.monitor import MemorizationMonitor, lightning_callback, scheduled_denoiser
from geomem.noise import DiscreteBetas

diffusers: Any = pytest.importorskip("diffusers")
SIZE = 8


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


def unconditional(
    out: Path, steps: int, prediction: str = "epsilon", resume: bool = False
) -> MemorizationMonitor:
    r"""``train_unconditional.py``, its main loop, with the patch."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, project_dir=str(out))
    model = diffusers.UNet2DModel(
        sample_size=SIZE, in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4, dropout=0.1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    noise_scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", prediction_type=prediction
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    dataset = Set(pictures(24, 0))
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    # --- patch
    monitor = MemorizationMonitor(
        dataset, Set(pictures(48, 1)), every=2, out=out / "monitor", levels=3, share=float("inf")
    )
    accelerator.register_for_checkpointing(monitor)
    # ---
    global_step = 0
    if resume:
        accelerator.load_state(str(out / "checkpoint"))
        global_step = monitor.steps
    while global_step < steps:
        model.train()
        for batch in loader:
            clean = batch["input"]
            noise = torch.randn(clean.shape)
            timesteps = torch.randint(0, 1000, (len(clean),))
            noisy = noise_scheduler.add_noise(clean, noise, timesteps)
            with accelerator.accumulate(model):
                output = model(noisy, timesteps).sample
                target = {
                    "epsilon": noise,
                    "sample": clean,
                    "v_prediction": noise_scheduler.get_velocity(clean, noise, timesteps),
                }[prediction]
                accelerator.backward(nn.functional.mse_loss(output, target))
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients and global_step < steps:
                global_step += 1
                # --- patch
                monitor.step(scheduled_denoiser(model, noise_scheduler), global_step)
                # ---
                assert model.training
                if global_step == 3:
                    accelerator.save_state(str(out / "checkpoint"))
    monitor.close()  # patch
    return monitor


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_unconditional(prediction: str, tmp_path: Path) -> None:
    monitor = unconditional(tmp_path, 9, prediction)
    assert [look.step for look in monitor.history] == [2, 4, 8]
    assert not monitor._said
    assert (tmp_path / "monitor" / "summary.json").exists()


def test_unconditional_killed_and_resumed(tmp_path: Path) -> None:
    first = unconditional(tmp_path, 5)
    again = unconditional(tmp_path, 9, resume=True)  # from the checkpoint of step 3
    assert [look.step for look in again.history] == [2, 4, 8]
    assert again.history[:2] == first.history
    assert again.steps == 9


def test_text_to_image_lora(tmp_path: Path) -> None:
    r"""Latents, captions, a frozen network with a few trained matrices of low rank."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIZE, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4, cross_attention_dim=6,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet.requires_grad_(False)
    adapted = []
    for name, module in list(unet.named_modules()):
        if name.endswith(("to_q", "to_v")):
            parent, _, child = name.rpartition(".")
            lora = LowRank(module)
            setattr(unet.get_submodule(parent), child, lora)
            adapted += [lora.down.weight, lora.up.weight]
    noise_scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    optimizer = torch.optim.AdamW(adapted, lr=1e-2)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    latents, captions = pictures(32, 4, 4), torch.randn(32, 5, 6)
    # --- patch
    empty = torch.zeros(1, 5, 6)  # the embedding of the empty caption
    monitor = MemorizationMonitor(
        latents, pictures(48, 5, 4), every=1, out=tmp_path / "run", levels=3, share=float("inf")
    )
    # ---
    for global_step in range(1, 5):
        unet.train()
        index = torch.randint(0, len(latents), (8,))
        noise = torch.randn(8, 4, SIZE, SIZE)
        timesteps = torch.randint(0, 1000, (8,))
        noisy = noise_scheduler.add_noise(latents[index], noise, timesteps)
        output = unet(noisy, timesteps, captions[index]).sample
        accelerator.backward(nn.functional.mse_loss(output, noise))
        optimizer.step()
        optimizer.zero_grad()
        # --- patch
        denoiser = scheduled_denoiser(unet, noise_scheduler, encoder_hidden_states=empty)
        monitor.step(denoiser, global_step)
        # ---
    assert [look.step for look in monitor.history] == [1, 2, 4]
    assert monitor.history[0].held_out != monitor.history[2].held_out
    assert not monitor._said


class LowRank(nn.Module):
    r"""A linear map with a trained part of rank 2."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.down = nn.Linear(frozen.in_features, 2, bias=False)
        self.up = nn.Linear(2, frozen.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.frozen(x) + self.up(self.down(x))
        return out


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
    assert kept.state_dict() == {"steps": 4}
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
