r"""Text to image: latents, captions, and LoRAs, all tiny and made offline."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from geomem.errors import InputError
from geomem.models.doors import check_model, load_model
from tests.models.doors.text_to_image import (
    TARGETS,
    embeddings,
    factors,
    in_names,
    latents,
    parts,
    pictures,
    save_lora,
    save_parts,
    save_stable_diffusion,
)

LEVEL = torch.tensor(0.8)
has_transformers = importlib.util.find_spec("transformers") is not None


def test_latents_are_scaled_as_in_training(tmp_path: Path) -> None:
    _, vae = parts()
    model = load_model(save_parts(tmp_path / "plain"))
    assert model.item_shape == (4, 8, 8)
    assert model.encode is not None
    with torch.no_grad():
        mean = vae.encode(pictures(2)).latent_dist.mean
    torch.testing.assert_close(model.encode(pictures(2)), 0.5 * mean)
    assert model.about["latent"]["scale"] == 0.5
    shifted = load_model(save_parts(tmp_path / "shifted", shift_factor=0.1))
    assert shifted.encode is not None
    torch.testing.assert_close(shifted.encode(pictures(2)), 0.5 * (mean - 0.1))
    columns = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 1.0, 4.0]}
    each = load_model(save_parts(tmp_path / "each", **columns))
    assert each.encode is not None
    m, s = (torch.tensor(columns[k]).reshape(1, 4, 1, 1) for k in columns)
    torch.testing.assert_close(each.encode(pictures(2)), 0.5 * (mean - m) / s)
    with pytest.raises(InputError, match="takes images of 3 channels"):
        each.encode(pictures(2)[:, :2])


def test_embeddings_are_bound_one_for_each_point(tmp_path: Path) -> None:
    unet, _ = parts()
    model = load_model(save_parts(tmp_path))
    assert model.bind is not None
    given = embeddings(2)
    bound = model.bind(given)
    step = 400
    assert model.levels is not None
    sigma = torch.tensor(model.levels[step])
    x = latents(2)
    alpha = float((1 + sigma**2) ** -0.5)
    with torch.no_grad():
        told = torch.full((2,), step)
        noise = unet(alpha * x, told, encoder_hidden_states=torch.stack(given)).sample
    torch.testing.assert_close(bound(x, sigma), x - sigma.float() * noise, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"an embedding has shape \(5, 7\).*\(tokens, 8\)"):
        model.bind([torch.zeros(5, 7)])
    with pytest.raises(InputError, match="pass a list"):
        model.bind("a bird")


def test_the_checks_run_in_latent_space(tmp_path: Path) -> None:
    model = load_model(save_parts(tmp_path))
    checks = check_model(model, pictures(6), points=4, conditions=embeddings(6))
    assert checks[0].passed  # untrained, so no more is asked of it
    with pytest.raises(InputError, match="in its latents and the model works on"):
        check_model(model, torch.zeros(4, 3, 32, 32), conditions=embeddings(4))


# ------------------------------------------------------------------------------------ LoRA


def merged(scale: float) -> Any:
    unet, _ = parts()
    for name, (down, up) in factors().items():
        unet.get_submodule(name).weight.data += scale * up @ down
    return unet


HEADER = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 6})}
STABLE = {
    "lora_adapter_metadata": json.dumps(
        {"unet.r": 2, "unet.lora_alpha": 6, "unet.use_rslora": True}
    )
}
SCALES = {
    "no alpha": ("peft", None, 1.0, "no alpha anywhere"),
    "an older trainer": ("diffusers", None, 1.0, "no alpha anywhere"),
    "the oldest": ("processors", None, 1.0, "no alpha anywhere"),
    "alpha in the header": ("peft", HEADER, 3.0, "in its header"),
    "rank-stabilized": ("peft", STABLE, 6 / 2**0.5, "in its header"),
    "alpha in a tensor": ("kohya", None, 0.5, "alpha in the file"),
}


@pytest.mark.parametrize("case", SCALES)
def test_a_lora_is_merged_with_the_scale_that_its_file_tells(case: str, tmp_path: Path) -> None:
    layout, metadata, scale, source = SCALES[case]
    base = save_parts(tmp_path / "base")
    lora = save_lora(tmp_path / "lora", layout, metadata)
    model = load_model(lora, base=base)
    assert model.bind is not None
    said = model.about["lora"]
    assert [s["scale"] for s in said["scale"]] == [pytest.approx(scale)]
    assert source in said["scale"][0]["from"]
    assert (said["rank"], said["modules"]) == ([2], {"network": 4})
    assert str(lora) in said["file"]
    by_hand = load_model(base)
    assert by_hand.bind is not None
    given, x = embeddings(2), latents(2)
    before = by_hand.bind(given)(x, LEVEL)
    merged(scale).save_pretrained(base / "unet")
    after_model = load_model(base)
    assert after_model.bind is not None
    after, ours = after_model.bind(given)(x, LEVEL), model.bind(given)(x, LEVEL)
    torch.testing.assert_close(ours, after, rtol=1e-5, atol=1e-5)
    assert float((ours - before).abs().max()) > 1e-3
    named = load_model(lora, base=base, lora_scale=0.0)
    assert named.about["lora"]["scale"][0]["from"] == "named"


def test_what_the_header_tells_of_the_training_is_told(tmp_path: Path) -> None:
    header = {
        "ss_num_train_images": "40",
        "ss_epoch": "25",
        "ss_flip_aug": "True",
        "ss_noise_offset": "0.05",
        "ss_zero_terminal_snr": "True",
        "modelspec.prediction_type": "v",
    }
    lora = save_lora(tmp_path / "lora", "kohya", header)
    model = load_model(lora, base=save_parts(tmp_path / "base"))
    assert model.flips is True
    assert model.about["training"]["training images, repeats included"] == "40"
    offset, prediction, zero = model.about["warnings"]
    assert "not white" in offset
    assert "says v_prediction and the base epsilon" in prediction
    assert "rescale_betas_zero_snr" in zero


def test_a_lora_that_does_not_fit_ends_in_one_sentence(tmp_path: Path) -> None:
    base, lora = save_parts(tmp_path / "base"), save_lora(tmp_path / "lora", "peft")
    file = lora / "pytorch_lora_weights.safetensors"
    with pytest.raises(InputError, match=r"is a LoRA.* as `base`"):
        load_model(lora)
    good = in_names("peft")
    first = "unet." + TARGETS[0]
    for change, sentence in (
        ({f"{first}.lora_A.weight": torch.zeros(2, 9)}, "which has shape"),
        ({"unet.nowhere.lora_A.weight": torch.zeros(2, 8)}, "no such module|not both"),
        ({f"{first}.lora_magnitude_vector": torch.zeros(8)}, "no factor of a plain LoRA"),
        ({f"{first}.lora_A.weight": torch.full((2, 8), torch.nan)}, "NaN or infinity"),
        ({"text_encoder_2.x.lora_A.weight": torch.zeros(2, 8)}, "no factor of a plain LoRA"),
    ):
        save_file({**good, **change}, file)
        with pytest.raises(InputError, match=sentence):
            load_model(lora, base=base)
    save_file(good, file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match="may be truncated"):
        load_model(lora, base=base)


# -------------------------------------------------------------------------------- captions


@pytest.mark.skipif(not has_transformers, reason="captions need transformers")
def test_captions_are_bound_as_the_pipeline_encodes_them(tmp_path: Path) -> None:
    import diffusers

    folder = save_stable_diffusion(tmp_path / "it")
    model = load_model(folder)
    assert model.bind is not None
    pipeline: Any = diffusers.StableDiffusionPipeline
    own = pipeline.from_pretrained(folder, local_files_only=True)
    x = latents(2)
    captions = ["a bird", "red cat"]
    given, _ = own.encode_prompt(captions, "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(model.bind(captions)(x, LEVEL), model.bind(list(given))(x, LEVEL))
    torch.testing.assert_close(model.denoiser(x, LEVEL), model.bind([""])(x, LEVEL))
    lora = save_lora(tmp_path / "lora", "peft")
    updated = load_model(lora, base=folder)
    assert updated.bind is not None
    assert not torch.allclose(updated.bind(captions)(x, LEVEL), model.bind(captions)(x, LEVEL))
    checks = check_model(updated, pictures(4), points=4, conditions=captions * 2)
    assert checks[0].passed


@pytest.mark.skipif(has_transformers, reason="transformers is there")
def test_captions_without_transformers_say_what_to_install(tmp_path: Path) -> None:
    folder = save_parts(tmp_path)
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "config.json").write_text("{}")
    model = load_model(folder)
    assert model.bind is not None
    with pytest.raises(InputError, match="install transformers"):
        model.bind(["a bird"])
    with pytest.raises(InputError, match="install transformers"):
        model.denoiser(latents(1), LEVEL)
