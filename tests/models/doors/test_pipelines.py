r"""Folders of diffusers as their trainers leave them, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomem.errors import InputError
from geomem.models.doors import load_model
from tests.models.doors.strangers import images, save_ddpm, scheduler_of, tiny_unet

WEIGHTS = "diffusion_pytorch_model.safetensors"


def own_clean(unet: Any, scheduler: Any, step: int, x: torch.Tensor) -> torch.Tensor:
    r"""The clean points by diffusers' own classes, at points in units of the data."""
    noisy = x * scheduler.alphas_cumprod[step] ** 0.5
    with torch.no_grad():
        output = unet(noisy, torch.full((len(x),), step)).sample
    found: torch.Tensor = scheduler.step(output, step, noisy).pred_original_sample
    return found


SCHEDULERS = {
    "DDPM": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    "DDIM": {"beta_schedule": "linear", "prediction_type": "sample"},
    "DDPMParallel": {"beta_schedule": "sigmoid", "prediction_type": "epsilon"},
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_pipeline_denoises_as_its_own_classes(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = SCHEDULERS[name]
    unet, scheduler = tiny_unet(), scheduler_of(name, clip_sample=False, **options)
    model = load_model(save_ddpm(tmp_path / "it", unet, scheduler))
    assert model.item_shape == (1, 8, 8)
    assert model.bind is None
    assert model.encode is None
    assert model.levels is not None
    about = model.about
    assert about["prediction"] == options["prediction_type"]
    assert about["parameters"] == sum(p.numel() for p in unet.parameters())
    assert list(about["sha256"]) == [f"unet/{WEIGHTS}"]
    assert json.loads(json.dumps(about)) == about  # plain JSON
    if name == "DDIM":
        scheduler.set_timesteps(1000)
    for step in (100, 500, 900):
        sigma = torch.tensor(model.levels[step])
        x = images(2) + sigma.float()
        torch.testing.assert_close(
            model.denoiser(x, sigma), own_clean(unet, scheduler, step, x), rtol=2e-4, atol=2e-4
        )


def test_learned_variance_is_split_off(tmp_path: Path) -> None:
    unet = tiny_unet(out_channels=2)
    model = load_model(
        save_ddpm(tmp_path / "it", unet, scheduler_of("DDPM", variance_type="learned"))
    )
    x = images(3)
    assert model.denoiser(x, torch.tensor(0.5)).shape == x.shape


def checkpoint(folder: Path, *, averaged: bool = True) -> Path:
    r"""A ``checkpoint-N``: raw and averaged weights, no scheduler, no index."""
    tiny_unet(1).save_pretrained(folder / "unet")
    if averaged:
        tiny_unet(2).save_pretrained(folder / "unet_ema")
        config = json.loads((folder / "unet_ema" / "config.json").read_text())
        config |= {"decay": 0.9999, "optimization_step": 300, "inv_gamma": 1.0, "power": 0.75}
        (folder / "unet_ema" / "config.json").write_text(json.dumps(config))
    return folder


def test_a_checkpoint_takes_the_scheduler_above_it(tmp_path: Path) -> None:
    save_ddpm(tmp_path, tiny_unet(0), scheduler_of("DDPM", prediction_type="sample"))
    folder = checkpoint(tmp_path / "checkpoint-300")
    average, raw = load_model(folder), load_model(folder, weights="raw")
    assert average.about["prediction"] == "sample"
    assert (average.about["weights"], raw.about["weights"]) == ("unet_ema", "unet")
    assert average.about["average"]["optimization_step"] == 300
    level = torch.tensor(0.5)
    assert not torch.equal(*(m.denoiser(images(1), level) for m in (average, raw)))
    alone = load_model(folder / "unet")  # the network's own folder
    torch.testing.assert_close(alone.denoiser(images(1), level), raw.denoiser(images(1), level))


def test_a_checkpoint_without_a_scheduler_asks_for_one(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "run" / "checkpoint-300", averaged=False)
    with pytest.raises(InputError, match=r"pass `schedule`.* or the pipeline .* as `base`"):
        load_model(folder)
    with pytest.raises(InputError, match="pass `prediction`"):
        load_model(folder, schedule="linear")
    model = load_model(folder, schedule="linear", prediction="epsilon")
    assert model.about["warnings"] == [
        "there is no unet_ema in checkpoint-300; these are the raw weights"
    ]
    base = save_ddpm(tmp_path / "base", tiny_unet(), scheduler_of("DDPM"))
    assert load_model(folder, base=base).about["schedule"]["name"] == "linear betas"


# ------------------------------------------------------------------------------ conditions


def test_labels_are_bound_one_for_each_point(tmp_path: Path) -> None:
    unet = tiny_unet(num_class_embeds=3)
    model = load_model(save_ddpm(tmp_path / "it", unet, scheduler_of("DDPM")))
    assert model.bind is not None
    x, level = images(2), torch.tensor(0.5)
    with pytest.raises(InputError, match="wants the label of each image"):
        model.denoiser(x, level)
    both = model.bind([0, 2])(x, level)
    torch.testing.assert_close(model.bind([2])(x, level)[1:], both[1:])  # one for all points
    assert not torch.allclose(model.bind([2])(x, level)[:1], both[:1])
    with pytest.raises(InputError, match="2 conditions were bound and 3 points passed"):
        model.bind([0, 2])(images(3), level)
    with pytest.raises(InputError, match="knows 0 to 2"):
        model.bind([3])
    with pytest.raises(InputError, match="holds no labels"):
        model.bind(["cat"])


def test_a_transformer_is_asked_without_a_label_by_its_own(tmp_path: Path) -> None:
    import diffusers

    build: Any = diffusers.DiTTransformer2DModel
    network = build(
        sample_size=8,
        in_channels=1,
        out_channels=2,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        patch_size=2,
        num_embeds_ada_norm=5,
        norm_num_groups=4,
    ).eval()
    network.save_pretrained(tmp_path / "transformer")
    scheduler_of("DDIM").save_pretrained(tmp_path / "scheduler")
    model = load_model(tmp_path)
    assert model.bind is not None
    x, level = images(2), torch.tensor(0.5)
    assert model.denoiser(x, level).shape == x.shape
    assert model.about["conditions"] == "labels 0 to 4; 5 stands for none"
    with pytest.raises(InputError, match="knows 0 to 4"):
        model.bind([5, 0])


# ------------------------------------------------------------------------------- refusals


def damaged(folder: Path, how: str) -> Path:
    r"""A pipeline with something wrong with it."""
    save_ddpm(folder, tiny_unet(), scheduler_of("DDPM"))
    weights = folder / "unet" / WEIGHTS
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "missing":
        weights.unlink()
    elif how == "pickle":
        torch.save(load_file(weights), weights.with_suffix(".bin"))
        weights.unlink()
    elif how == "nan":
        state = load_file(weights)
        state["conv_in.weight"][0] = torch.nan
        save_file(state, weights)
    elif how == "other":
        state = load_file(weights)
        del state["conv_in.weight"]
        save_file(state, weights)
    elif how == "json":
        (folder / "unet" / "config.json").write_text("{")
    elif how == "class":
        (folder / "unet" / "config.json").write_text('{"_class_name": "UNet9DModel"}')
    elif how == "empty":
        for path in (folder / "unet").iterdir():
            path.unlink()
    return folder


REFUSED = {
    "truncated": "may be truncated",
    "missing": "holds no weights",
    "pickle": "safe_serialization=True",
    "nan": "NaN or infinity, first in conv_in.weight",
    "other": "are not those of its config.json",
    "json": "is no JSON",
    "class": "is a UNet9DModel, which this diffusers",
    "empty": "there is no file",
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_damaged_ends_in_one_sentence(how: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=REFUSED[how]) as refused:
        load_model(damaged(tmp_path / "it", how))
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_no_model_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model that geomem knows; pass a folder"):
        load_model(tmp_path)
    with pytest.raises(InputError, match=r"there is no .*nowhere; pass a folder"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="has no folder unet or transformer"):
        load_model(tmp_path)
