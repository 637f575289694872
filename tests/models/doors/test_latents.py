r"""Text to image: latents, captions, and LoRAs, all tiny and made offline."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from geomem.errors import InputError
from geomem.models.doors import check_model, load_model
from tests.models.doors.strangers import scheduler_of

WIDTH = 8
LEVEL = torch.tensor(0.8)
has_transformers = importlib.util.find_spec("transformers") is not None


def parts() -> tuple[Any, Any]:
    r"""A network and an autoencoder for images of 3 x 16 x 16 and latents of 4 x 8 x 8."""
    import diffusers

    unet: Any = diffusers.UNet2DConditionModel
    vae: Any = diffusers.AutoencoderKL
    torch.manual_seed(0)
    return (
        unet(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        ).eval(),
        vae(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
            sample_size=16,
            scaling_factor=0.5,
        ).eval(),
    )


def save_parts(folder: Path, **vae_config: Any) -> Path:
    r"""A pipeline without its text encoder."""
    unet, vae = parts()
    vae.register_to_config(**vae_config)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    scheduler_of("DDPM", beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


def embeddings(count: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(4)
    return list(torch.randn(count, 5, WIDTH, generator=rng))


def pictures(count: int) -> Tensor:
    rng = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, 16, 16, generator=rng) * 2 - 1


def latents(count: int) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(6))


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

NAME = "mid_block.attentions.0.transformer_blocks.0.attn1.{}"
TARGETS = [NAME.format(n) for n in ("to_q", "to_k", "to_v", "to_out.0")]
RANK = 2


def factors() -> dict[str, tuple[Tensor, Tensor]]:
    rng = torch.Generator().manual_seed(8)
    return {
        name: (torch.randn(RANK, 8, generator=rng), torch.randn(8, RANK, generator=rng))
        for name in TARGETS
    }


def in_names(layout: str) -> dict[str, Tensor]:
    r"""The same factors as several trainers name them."""
    made: dict[str, Tensor] = {}
    for name, (down, up) in factors().items():
        if layout == "peft":
            made |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
        elif layout == "diffusers":
            made |= {f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up}
        elif layout == "processors":
            head, last = name.removesuffix(".0").rsplit(".", 1)
            made |= {
                f"unet.{head}.processor.{last}_lora.{part}.weight": tensor
                for part, tensor in (("down", down), ("up", up))
            }
        else:
            flat = "lora_unet_" + name.replace(".", "_")
            made |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            made |= {f"{flat}.alpha": torch.tensor(1.0)}
    return {k: v.contiguous() for k, v in made.items()}


def save_lora(folder: Path, layout: str, metadata: dict[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(in_names(layout), folder / "pytorch_lora_weights.safetensors", metadata)
    return folder


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

WORDS = ["a", "bird", "cat", "red"]


def save_stable_diffusion(folder: Path) -> Path:
    r"""A whole pipeline, made from configs and saved by its own class."""
    import diffusers

    transformers: Any = pytest.importorskip("transformers")
    library: Any = diffusers
    words = {f"{w}</w>": k for k, w in enumerate(WORDS)}
    letters = {c: len(words) + k for k, c in enumerate("abcdefghijklmnopqrstuvwxyz")}
    ends = {f"{c}</w>": len(words) + 26 + k for k, c in enumerate("bcdefghijklmnopqrstuvwxyz")}
    vocabulary = {**words, **letters, **ends}
    for piece in ("bi", "bir", "ca"):
        vocabulary[piece] = len(vocabulary)
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    source = folder.parent / "words"
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps(vocabulary))
    (source / "merges.txt").write_text("#version: 0.2\nb i\nbi r\nbir d</w>\nc a\nca t</w>\n")
    tokenizer = transformers.CLIPTokenizer(
        str(source / "vocab.json"), str(source / "merges.txt"), model_max_length=6
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=6,
        eos_token_id=vocabulary["<|endoftext|>"],
    )
    torch.manual_seed(3)
    encoder = transformers.CLIPTextModel(config)
    unet, vae = parts()
    pipeline = library.StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler_of("DDPM", beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


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
