r"""A U-Net of a run as a folder of diffusers, for those who sample with it.

EDM's preconditioning is what the EDM schedulers of diffusers, such as ``EDMEulerScheduler``,
do around a network that predicts noise: skip, output and input scaled by ``sigma_data``, and
:math:`\ln(\sigma) / 4` for a time. So the backbone alone goes into ``unet/``, and the rest is the
config in ``scheduler/``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from geomem.compute.files import check_writable
from geomem.errors import InputError
from geomem.models.networks import PreconditionedDenoiser, UNet

STEPS = 50  # of its sampler, if nobody asks for others


def export_diffusers(denoiser: PreconditionedDenoiser, folder: Path) -> None:
    r"""Writes ``unet/`` (safetensors) and ``scheduler/`` of a network.

    Arguments:
        denoiser: A network that :func:`geomem.models.networks.load_network` read.
        folder: A folder that holds neither.

    Raises:
        InputError: If it is no U-Net, or its images are padded at the door, or the folder is
            taken.
    """
    backbone = denoiser.backbone
    if not isinstance(backbone, UNet):
        raise InputError(
            "only a U-Net is a model of diffusers, and this network is an MLP; train with "
            "`network` unet"
        )
    unet: Any = backbone.unet
    height, width = unet.config.sample_size
    if height % backbone.stride or width % backbone.stride:
        common = math.gcd(height, width)
        resolutions = (common & -common).bit_length()  # each but the first one halves the sides
        larger = -(-max(height, width) // backbone.stride) * backbone.stride
        raise InputError(
            f"images of {height} x {width} pixels are padded to multiples of {backbone.stride} "
            f"here, which no model of diffusers does; train with a `size` that {backbone.stride} "
            f"divides, such as {larger}, or with {resolutions} of the `channels`"
        )
    for name in ("unet", "scheduler"):
        if (folder / name).exists():
            raise InputError(f"{folder / name} is there already; choose another folder")
    check_writable(folder, folder=True)
    from diffusers import EDMEulerScheduler

    build: Any = EDMEulerScheduler  # untyped in diffusers
    scheduler = build(
        sigma_min=denoiser.sigma_min,
        sigma_max=denoiser.sigma_max,
        sigma_data=denoiser.sigma_data,
        num_train_timesteps=STEPS,
        prediction_type="epsilon",
    )
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    scheduler.save_pretrained(folder / "scheduler")
