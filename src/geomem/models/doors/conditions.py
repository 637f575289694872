r"""What a network is conditioned on: nothing, labels, or texts; and how it is asked without.

The audit is of the unguided denoiser: with its own caption or label at each image, or without
any (the empty caption, the label that trainers drop to). Classifier-free guidance mixes the two
and is no posterior mean.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.data.reading import reading
from geomem.errors import InputError
from geomem.models.doors.files import read_json, sha256_of, weight_files
from geomem.models.doors.lora import Lora

INSTALL = "install transformers (pip install 'geomem[text]'), or bind embeddings"


@dataclass(frozen=True, eq=False)
class Asked:
    r"""A network of diffusers, asked under conditions.

    Attributes:
        network: The network.
        argument: What it calls its conditions; None if it has none.
        given: The conditions, with shape (n, \*), one for each point, or one for all.
        missing: Why it cannot be asked as it stands.
    """

    network: nn.Module
    argument: str | None = None
    given: Tensor | None = None
    missing: str | None = None

    def __call__(self, x: Tensor, label: Tensor) -> Any:
        if self.missing:
            raise InputError(self.missing)
        if self.argument is None or self.given is None:
            return self.network(x, label)
        if len(self.given) not in (1, len(x)):
            raise InputError(
                f"{len(self.given)} conditions were bound and {len(x)} points passed; bind the "
                "conditions of exactly these points"
            )
        given = self.given.to(x.device).expand(len(x), *self.given.shape[1:])
        given = given.to(x.dtype) if given.is_floating_point() else given
        return self.network(x, label, **{self.argument: given})


@dataclass(frozen=True, eq=False)
class Conditions:
    r"""How a network is asked without a condition, and with one at each point.

    Attributes:
        unconditional: The network without a condition.
        prepare: From conditions to what the network takes, with shape (n, \*); None if it takes
            none.
    """

    unconditional: Asked
    prepare: Callable[[Sequence[Any]], Tensor] | None = None

    def bound(self, conditions: Sequence[Any]) -> Asked:
        r"""The network at points with these conditions.

        Raises:
            InputError: If they are not what the network takes.
        """
        assert self.prepare is not None
        if isinstance(conditions, str) or not len(conditions):
            raise InputError("`conditions` is one text or empty; pass a list, one for each point")
        asked = self.unconditional
        return Asked(asked.network, asked.argument, self.prepare(conditions))


def conditions_of(
    places: Sequence[Path],
    network: nn.Module,
    config: dict[str, Any],
    device: str,
    about: dict[str, Any],
    lora: Lora | None = None,
) -> Conditions:
    r"""How a network of diffusers is asked.

    Arguments:
        places: The folder of the model, then those of its base: where a text encoder may be.
        network: The network.
        config: Its config.
        device: Where it works.
        about: What is said of the model; the kind of condition is added.
        lora: Updates, of the text encoder perhaps.

    Raises:
        InputError: If it takes conditions that geomem cannot make.
    """
    cls = str(config.get("_class_name"))
    if cls == "UNet2DConditionModel":
        return _texts(places, network, config, device, about, lora)
    if cls == "DiTTransformer2DModel":
        classes = int(config.get("num_embeds_ada_norm") or 1000)
        about["conditions"] = f"labels 0 to {classes - 1}; {classes} stands for none"
        null = torch.tensor([classes])
        return Conditions(Asked(network, "class_labels", null), _labels(classes))
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        count = config.get("num_class_embeds")
        about["conditions"] = "labels" if count is None else f"labels 0 to {count - 1}"
        missing = (
            "this network wants the label of each image and knows none that stands for no label; "
            "pass the labels of the images"
        )
        return Conditions(Asked(network, "class_labels", missing=missing), _labels(count))
    if cls == "UNet2DModel":
        return Conditions(Asked(network))
    raise InputError(
        f"the network is a {cls}, whose conditions geomem cannot make; name a function of yours, "
        "package.module:function, which is called with (x, sigma)"
    )


def _labels(count: int | None) -> Callable[[Sequence[Any]], Tensor]:
    def prepare(conditions: Sequence[Any]) -> Tensor:
        try:
            labels = torch.as_tensor([int(c) for c in conditions])
        except (TypeError, ValueError) as error:
            raise InputError("`conditions` holds no labels; pass a whole number a point") from error
        if int(labels.min()) < 0 or (count is not None and int(labels.max()) >= count):
            raise InputError(
                f"`conditions` holds labels from {int(labels.min())} to {int(labels.max())}; the "
                f"network knows 0 to {'...' if count is None else count - 1}"
            )
        return labels

    return prepare


# ------------------------------------------------------------------------------------ texts


def _texts(
    places: Sequence[Path],
    network: nn.Module,
    config: dict[str, Any],
    device: str,
    about: dict[str, Any],
    lora: Lora | None,
) -> Conditions:
    if config.get("addition_embed_type") or config.get("class_embed_type"):
        kind = config.get("addition_embed_type") or config.get("class_embed_type")
        raise InputError(
            f"the network wants a further condition ({kind}) beside the text, which geomem cannot "
            "make; name a function of yours, package.module:function, called with (x, sigma)"
        )
    width = int(config.get("encoder_hid_dim") or config.get("cross_attention_dim") or 0)
    about["conditions"] = f"texts, as embeddings of width {width}"
    home = next((p for p in places if (p / "text_encoder" / "config.json").is_file()), None)
    known: dict[str, Tensor] = {}
    if home is None:
        lacking = "there is no text_encoder beside the network; pass the pipeline as `base`"
    elif importlib.util.find_spec("transformers") is None:
        lacking = f"captions need the text encoder; {INSTALL}"
    else:
        lacking = ""
        encode = _text_encoder(home, device, about, lora)

    if lacking and lora is not None and lora.pairs.get("text_encoder"):
        lacking += (
            "; the LoRA updates the text encoder, too, so embeddings must be of the updated one"
        )

    def embedding(condition: Any) -> Tensor:
        if isinstance(condition, Tensor):
            if condition.ndim != 2 or condition.shape[1] != width:
                raise InputError(
                    f"an embedding has shape {tuple(condition.shape)}; the network takes "
                    f"(tokens, {width})"
                )
            return condition
        if not isinstance(condition, str):
            raise InputError("`conditions` holds something else than texts; pass captions")
        if lacking:
            raise InputError(lacking)
        if condition not in known:
            known[condition] = encode(condition)
        return known[condition]

    def prepare(conditions: Sequence[Any]) -> Tensor:
        return torch.stack([embedding(c) for c in conditions])

    empty = None if lacking else prepare([""])
    asked = Asked(network, "encoder_hidden_states", empty, lacking or None)
    return Conditions(asked, prepare)


def _text_encoder(
    home: Path, device: str, about: dict[str, Any], lora: Lora | None
) -> Callable[[str], Tensor]:
    r"""From a caption to its embedding with shape (tokens, width), as the trainers do it."""
    library: Any = importlib.import_module("transformers")
    folder = home / "text_encoder"
    config = read_json(folder / "config.json")
    cls = str((config.get("architectures") or ["CLIPTextModel"])[0])
    files, _ = weight_files(folder)
    with reading(folder):
        encoder = getattr(library, cls).from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        tokenizer = library.AutoTokenizer.from_pretrained(home / "tokenizer", local_files_only=True)
    if lora is not None:
        lora.merge("text_encoder", encoder)
    encoder = encoder.float().eval().requires_grad_(requires_grad=False).to(device)
    about.setdefault("sha256", {}).update(sha256_of(files))
    length = int(tokenizer.model_max_length)
    length = length if length < 10_000 else int(config.get("max_position_embeddings", 77))

    @torch.no_grad()
    def encode(text: str) -> Tensor:
        tokens = tokenizer(
            [text], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        found: Tensor = encoder(tokens.to(device))[0][0]
        return found

    return encode
