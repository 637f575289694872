r"""The monitor with the services themselves, where they are installed.

Lightning's own ``Trainer``, TensorBoard's own writer, PEFT's own adapters: the other tests of
this folder stand in for them with what they call and have.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geomem.monitor import MemorizationMonitor, lightning_callback, scheduled_denoiser
from tests.monitor.loops import Noisy, monitor_of, points

TRAIN, HELD_OUT = points(16), points(80, seed=1)


@pytest.mark.slow  # Lightning alone takes seconds to be imported
def test_in_a_trainer_of_lightning(tmp_path: Path) -> None:
    r"""Steps counted by the trainer, accumulation included; interrupted, it goes on."""
    lightning: Any = pytest.importorskip("pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = Noisy()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            sigma = torch.tensor(0.5)
            noisy = batch[0] + sigma * torch.randn_like(batch[0])
            error: Tensor = self.network(noisy, sigma) - batch[0]
            return error.square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-2)

    def fit(steps: int, checkpoint: Path | None = None) -> tuple[MemorizationMonitor, Any]:
        torch.manual_seed(0)
        monitor = monitor_of(TRAIN, HELD_OUT, every=1, out=tmp_path / "run", levels=3)
        trainer = lightning.Trainer(
            max_steps=steps, accelerator="cpu", accumulate_grad_batches=2, logger=False,
            callbacks=[lightning_callback(monitor, lambda module: module.network)],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = Module()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(TRAIN), batch_size=4)
        trainer.fit(module, loader, ckpt_path=checkpoint)
        assert not monitor._said
        assert module.network.training
        return monitor, trainer

    first, trainer = fit(3)
    assert [look.step for look in first.history] == [1, 2]
    trainer.save_checkpoint(tmp_path / "there.ckpt")
    again, _ = fit(9, tmp_path / "there.ckpt")
    assert [look.step for look in again.history] == [1, 2, 4, 8]
    assert again.history[:2] == first.history
    assert again.steps == 9
    assert (tmp_path / "run" / "summary.json").exists()


def test_in_the_files_of_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore
        EventAccumulator,
    )

    monitor = monitor_of(TRAIN, HELD_OUT, every=1, log=f"tensorboard:{tmp_path / 'events'}")
    for _ in range(2):
        monitor.step(lambda x, sigma: x / (1 + sigma**2))
    assert not monitor.fault
    there = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in there.Scalars("geomem/p_value")] == [1, 2]


def test_with_an_adapter_of_peft(tmp_path: Path) -> None:
    r"""``add_adapter`` as ``train_text_to_image_lora.py`` calls it: the looks see it."""
    peft: Any = pytest.importorskip("peft")
    diffusers: Any = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4, cross_attention_dim=6,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet.requires_grad_(False)
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    trained = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    scheduler = diffusers.DDPMScheduler()
    latents, empty = torch.randn(32, 4, 8, 8), torch.zeros(1, 5, 6)
    monitor = monitor_of(latents[:16], latents[16:], every=1, levels=3)
    for step in (1, 2):
        unet.train()
        t = torch.randint(0, 1000, (8,))
        noise = torch.randn(8, 4, 8, 8)
        noisy = scheduler.add_noise(latents[:8], noise, t)
        output = unet(noisy, t, empty.expand(8, -1, -1)).sample
        (output - noise).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        monitor.step(scheduled_denoiser(unet, scheduler, encoder_hidden_states=empty), step)
    assert not monitor._said
    assert monitor.history[0].training != monitor.history[1].training
    assert unet.training
