r"""LoRA: low-rank updates of a base, merged into its weights before anything is measured.

.. math:: W \leftarrow W + \frac{\alpha}{r}\, B A

Where :math:`\alpha` stands differs from trainer to trainer: in a tensor beside each pair, in the
header (``lora_adapter_metadata``), in ``adapter_config.json``, or nowhere; a loader that misses
it measures another model. What was used is therefore said, and may be named.

References:
    | Hu et al., LoRA, arXiv 2106.09685
    | Kalajdzievski, A rank stabilization scaling factor, arXiv 2312.03732 (alpha / sqrt r)
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.data.reading import printable
from geomem.errors import InputError
from geomem.models.doors.files import read_header, read_json, read_weights, sha256_of

FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
COMPONENTS = {
    "unet.": "network",
    "transformer.": "network",
    "lora_unet_": "network",
    "lora_transformer_": "network",
    "base_model.model.": "network",
    "text_encoder.": "text_encoder",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
}
# Ends of names -> which part it is. The oldest files of diffusers name their processors.
PART = re.compile(
    r"^(?P<name>.+?)(?P<old>_lora)?"
    r"\.(?P<part>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|down|up|alpha)"
    r"(?:\.default)?(?:\.weight)?$"
)
DOWN, UP = ("lora_A", "lora_down", "lora.down", "down"), ("lora_B", "lora_up", "lora.up", "up")
# What kohya's trainer says of the training: the key in our words.
FACTS = {
    "ss_num_train_images": "training images, repeats included",
    "ss_num_validation_images": "validation images",
    "ss_num_reg_images": "regularization images",
    "ss_epoch": "epochs",
    "ss_steps": "steps",
    "ss_flip_aug": "mirrored",
    "ss_noise_offset": "noise offset",
    "ss_zero_terminal_snr": "zero terminal SNR",
    "ss_sd_model_name": "base",
    "modelspec.prediction_type": "prediction",
}


@dataclass
class _Pair:
    r"""One update: down :math:`A` (r, in), up :math:`B` (out, r), and alpha, if it is there."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


@dataclass(frozen=True, eq=False)
class Lora:
    r"""The updates of a file.

    Attributes:
        file: The file.
        pairs: For each component (network, text_encoder) its updates by name of module.
        settings: What the header or the config beside it says of alpha and rank.
        facts: What the header says of the training, in words.
        scale: What every update is multiplied with, if named.
    """

    file: Path
    pairs: dict[str, dict[str, _Pair]]
    settings: dict[str, Any]
    facts: dict[str, str]
    scale: float | None = None
    used: Counter[tuple[float, str]] = field(default_factory=Counter)

    def merge(self, component: str, module: nn.Module) -> None:
        r"""Adds the updates of a component to its weights.

        Arguments:
            component: network or text_encoder.
            module: The component.

        Raises:
            InputError: If an update belongs to no weight of the module, or to one of another
                shape.
        """
        own = dict(module.named_modules())
        flat = {name.replace(".", "_"): name for name in own}
        for name, pair in self.pairs.get(component, {}).items():
            found = own.get(name) or own.get(flat.get(name, ""))
            weight = getattr(found, "weight", None)
            if not isinstance(weight, Tensor) or pair.down is None or pair.up is None:
                what = "no such module" if pair.down is not None else "not both of its factors"
                raise InputError(
                    f"{printable(self.file)} updates {printable(name)}, and there is {what} in the "
                    "base; pass the `base` that it was trained on, in diffusers' layout"
                )
            scale, source = self.scale_of(component, name, pair)
            update = pair.up.double().flatten(1) @ pair.down.double().flatten(1)
            if update.numel() != weight.numel():
                raise InputError(
                    f"{printable(self.file)} updates {printable(name)} by {tuple(update.shape)}, "
                    f"which has shape {tuple(weight.shape)} in the base; pass the `base` that it "
                    "was trained on"
                )
            if not bool(torch.isfinite(update).all()):
                raise InputError(
                    f"{printable(self.file)} holds NaN or infinity in {printable(name)}; the "
                    "training diverged: take an earlier checkpoint"
                )
            with torch.no_grad():
                weight += (scale * update).reshape(weight.shape).to(weight)
            self.used[scale, source] += 1

    def updates(self, module: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
        r"""Of the network's merged modules: name, the weights before, and what was added.

        Arguments:
            module: The network, merged.
        """
        own = dict(module.named_modules())
        flat = {name.replace(".", "_"): name for name in own}
        for name, pair in self.pairs.get("network", {}).items():
            assert pair.up is not None  # it has been merged
            assert pair.down is not None
            where = name if name in own else flat[name]
            weight = own[where].weight
            assert isinstance(weight, Tensor)
            scale, _ = self.scale_of("network", name, pair)
            update = scale * (pair.up.double().flatten(1) @ pair.down.double().flatten(1))
            merged = weight.detach().cpu().double().reshape(update.shape)
            yield where, merged - update, update

    def scale_of(self, component: str, name: str, pair: _Pair) -> tuple[float, str]:
        r"""What an update is multiplied with, and where that is from."""
        if self.scale is not None:
            return self.scale, "named"
        assert pair.down is not None
        rank = len(pair.down)
        if pair.alpha is not None:
            return pair.alpha / rank, "alpha in the file"
        settings = self.settings.get(component, {})
        alpha = settings.get("lora_alpha")
        for pattern, value in (settings.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", name):
                alpha = value
        if alpha is None:
            return 1.0, "no alpha anywhere: taken as the rank, as diffusers' trainers write it"
        below = math.sqrt(rank) if settings.get("use_rslora") else rank
        return float(alpha) / below, "alpha beside the file or in its header"

    def about(self) -> dict[str, Any]:
        r"""What is said of it, once merged."""
        ranks = {
            len(p.down) for part in self.pairs.values() for p in part.values() if p.down is not None
        }
        return {
            "file": printable(self.file),
            "modules": {component: len(part) for component, part in self.pairs.items()},
            "rank": sorted(ranks),
            "scale": [
                {"scale": scale, "from": source, "modules": count}
                for (scale, source), count in sorted(self.used.items())
            ],
            "sha256": sha256_of([self.file]),
        }


def lora_file(where: Path) -> Path | None:
    r"""The file of a LoRA that a path names: itself, or in its folder; None if it is none."""
    for file in (where, *(where / name for name in FILES)):
        if file.is_file() and file.suffix == ".safetensors":
            names = read_weights(file)
            if any("lora" in name.lower() for name in names):
                return file
    return None


def read_lora(file: Path, scale: float | None = None) -> Lora:
    r"""Reads a LoRA.

    Raises:
        InputError: If it holds something else than pairs of factors (LoHa, LoKr, DoRA), or its
            names are of no trainer that geomem knows.
    """
    header = read_header(file)
    pairs: dict[str, dict[str, _Pair]] = {}
    for name, tensor in read_weights(file).items():
        prefix = next((p for p in COMPONENTS if name.startswith(p)), None)
        match = PART.match(name.removeprefix(prefix or ""))
        if prefix is None or match is None:
            raise InputError(
                f"{printable(file)} holds {printable(name)}, which is no factor of a plain LoRA of "
                "a network or its text encoder (DoRA, LoHa, LoKr and second encoders are not "
                "read); merge it into its base where it was trained, and pass the result"
            )
        where = _module_name(match["name"], old=bool(match["old"]))
        pair = pairs.setdefault(COMPONENTS[prefix], {}).setdefault(where, _Pair())
        if match["part"] == "alpha":
            pair.alpha = float(tensor)
        elif match["part"] in DOWN:
            pair.down = tensor
        else:
            pair.up = tensor
    settings = _settings(file, header)
    if any(part.get("use_dora") for part in settings.values()):
        raise InputError(f"{printable(file)} is a DoRA, which is not read; merge it into its base")
    facts = {said: header[key] for key, said in FACTS.items() if key in header}
    return Lora(file, pairs, settings, facts, scale)


def _module_name(name: str, *, old: bool) -> str:
    if not old:
        return name
    head, _, last = name.replace(".processor", "").rpartition(".")
    return f"{head}.{'to_out.0' if last == 'to_out' else last}"


def _settings(file: Path, header: dict[str, str]) -> dict[str, dict[str, Any]]:
    r"""What is said of alpha, by component."""
    found: dict[str, dict[str, Any]] = {}
    raw = header.get("lora_adapter_metadata")
    if raw is not None:
        try:
            content: dict[str, Any] = json.loads(raw)
        except ValueError as error:
            raise InputError(
                f"{printable(file)} has a header that is no JSON; pass `lora_scale`"
            ) from error
        for key, value in content.items():
            prefix, _, setting = key.partition(".")
            component = COMPONENTS.get(f"{prefix}.")
            if component:
                found.setdefault(component, {})[setting] = value
    beside = file.with_name("adapter_config.json")
    if not found and beside.is_file():
        found["network"] = read_json(beside)
    return found
