r"""Which door a model comes in by: told by what is there, never by trial."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from geomem.data.reading import printable
from geomem.errors import InputError
from geomem.models.doors.callables import is_named, load_callable
from geomem.models.doors.checkpoints import (
    SUFFIXES,
    load_checkpoint,
    refuse_network_pickle,
)
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.lora import lora_file
from geomem.models.doors.options import DoorOptions
from geomem.models.doors.own import load_own, own_network
from geomem.models.doors.pipelines import is_pipeline, load_lora, load_pipeline

ACCEPTED = (
    "a folder that diffusers saved (a pipeline, a checkpoint-N, a network), a LoRA with its base, "
    "a model-N.pt of denoising-diffusion-pytorch, safetensors of k-diffusion or geomem, or "
    "package.module:function"
)


def load_model(
    where: str | Path,
    *,
    prediction: str | None = None,
    schedule: str | Path | None = None,
    base: str | Path | None = None,
    weights: Literal["ema", "raw"] = "ema",
    device: str = "cpu",
    network: str | None = None,
    lora_scale: float | None = None,
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32",
) -> LoadedModel:
    r"""Loads a trained model, from files alone or by the name of a function.

    Arguments:
        where: A folder, a file, or ``package.module:function``.
        prediction: See :class:`DoorOptions`, as for all that follow.
        schedule: What its levels are.
        base: The pipeline that it belongs to.
        weights: The average, or the raw ones.
        device: Where it works.
        network: What builds the network of bare weights.
        lora_scale: What a LoRA's update is multiplied with.
        dtype: The dtype that it works in.

    Raises:
        InputError: If it cannot be loaded, or not without more said about it.
    """
    options = DoorOptions(
        prediction=prediction,
        schedule=None if schedule is None else str(schedule),
        base=None if base is None else Path(base),
        network=network,
        weights=weights,
        lora_scale=lora_scale,
        dtype=dtype,
    )
    return open_door(str(where), options, device)


def open_door(where: str, options: DoorOptions, device: str = "cpu") -> LoadedModel:
    r"""Loads a trained model; see :func:`load_model`.

    Raises:
        InputError: If it cannot be loaded, or not without more said about it.
    """
    path = Path(where)
    if is_named(where) and not path.exists():
        return load_callable(where, options, device)
    own = own_network(path)
    if own is not None:
        return load_own(own, options.dtype, device)
    if not path.exists():
        raise InputError(f"there is no {printable(where)}; pass {ACCEPTED}")
    lora = lora_file(path)
    if lora is not None and not (path / "model_index.json").is_file():
        return load_lora(lora, options, device)
    if path.is_dir() and is_pipeline(path):
        return load_pipeline(path, options, device)
    if path.is_file():
        refuse_network_pickle(path)
        if path.suffix.lower() in SUFFIXES:
            return load_checkpoint(path, options, device)
    raise InputError(f"{printable(where)} is no model that geomem knows; pass {ACCEPTED}")
