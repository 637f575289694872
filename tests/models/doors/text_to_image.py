r"""A text-to-image pipeline as strangers save it: tiny, with a LoRA, made from configs offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.doors.strangers import scheduler_of

WIDTH = 8


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
