r"""U-Nets as folders of diffusers: the same denoiser, sampled by diffusers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from geomem.cli.main import run
from geomem.models.networks import NetworkConfig, save_network


def saved(folder: Path, kind: str = "unet", side: int = 8) -> Path:
    shape = (1, side, side)
    config = NetworkConfig(kind, shape, 0.6, channels=(8, 16), width=8)  # type: ignore[arg-type]
    save_network(config.build(0).eval(), config, folder / "network")
    return folder / "network"


def test_diffusers_loads_the_same_denoiser_and_samples_from_it(tmp_path: Path) -> None:
    from diffusers import EDMEulerScheduler, UNet2DModel

    from geomem.models.networks import load_network

    path = saved(tmp_path)
    assert run(["export", str(path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors").exists()
    unet: Any = UNet2DModel.from_pretrained(tmp_path / "out", subfolder="unet")
    scheduler: Any = EDMEulerScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    ours, rng = load_network(path), torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, 8, 8, generator=rng)
    scheduler.set_timesteps(6)
    x = x * scheduler.init_noise_sigma
    with torch.no_grad():
        for k, t in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[k]
            output = unet(scheduler.scale_model_input(x, t), t).sample
            found = scheduler.step(output, t, x)
            torch.testing.assert_close(
                found.pred_original_sample, ours(x, sigma), rtol=1e-4, atol=1e-4
            )
            x = found.prev_sample
    assert torch.isfinite(x).all()


@pytest.mark.parametrize(
    ("kind", "side", "said"),
    [
        ("mlp", 8, "train with"),
        ("unet", 7, "a `size` that 2 divides, such as 8, or with 1 of the `channels`"),
    ],
)
def test_what_diffusers_cannot_do_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, side: int, said: str
) -> None:
    assert run(["export", str(saved(tmp_path, kind, side)), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path)
    (tmp_path / "out" / "unet").mkdir(parents=True)
    assert run(["export", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
