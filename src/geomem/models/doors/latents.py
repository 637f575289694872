r"""From images to latents, as the trainer scaled them.

Trainers draw from the encoder's law, ``latent_dist.sample()``, so that their :math:`x_0` is
random; what is measured here is its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.models.doors.files import read_json, sha256_of
from geomem.models.doors.modules import built

FOLDERS = ("vae", "vqvae", "movq")


def encoder_of(
    places: Sequence[Path], device: str, about: dict[str, Any]
) -> Callable[[Tensor], Tensor] | None:
    r"""The encoder of a pipeline; None where it works on pixels.

    Arguments:
        places: The folder of the model, then those of its base.
        device: Where it works.
        about: What is said of the model; the scale of the latents is added.

    Raises:
        InputError: If its files are missing or damaged.
    """
    here = next((p / n for p in places for n in FOLDERS if (p / n / "config.json").is_file()), None)
    if here is None:
        return None
    config = read_json(here / "config.json")
    encoder: Any
    encoder, files = built(here, config, torch.float32, device)
    shift, scale = _shift_and_scale(config, device)
    about["latent"] = {
        "encoder": config.get("_class_name"),
        "scale": _plain(scale),
        "shift": _plain(shift),
        "of": "the mean of the encoder; trainers draw from its law",
    }
    about.setdefault("sha256", {}).update(sha256_of(files))

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        wanted = int(config.get("in_channels", 3))
        if images.ndim != 4 or images.shape[1] not in (1, wanted):
            raise InputError(
                f"the encoder takes images of {wanted} channels, got shape {tuple(images.shape)}"
            )
        images = images.expand(-1, wanted, -1, -1).to(device, torch.float32)
        return (_mean(encoder.encode(images)) - shift) * scale

    return encode


def _mean(output: Any) -> Tensor:
    law = getattr(output, "latent_dist", None)
    for found in (getattr(law, "mean", None), *(getattr(output, n, None) for n in _OUTPUTS)):
        if isinstance(found, Tensor):
            return found
    raise InputError(f"the encoder returned a {type(output).__name__} without latents")


_OUTPUTS = ("latents", "latent")


def _shift_and_scale(config: dict[str, Any], device: str) -> tuple[Tensor, Tensor]:
    scale = torch.tensor(float(config.get("scaling_factor") or 1.0), device=device)
    shift = torch.tensor(float(config.get("shift_factor") or 0.0), device=device)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:  # one for each channel
        columns = [torch.tensor(v, device=device).reshape(1, -1, 1, 1) for v in (mean, std)]
        return columns[0], scale / columns[1]
    return shift, scale


def _plain(value: Tensor) -> Any:
    return value.flatten().tolist() if value.ndim else float(value)
