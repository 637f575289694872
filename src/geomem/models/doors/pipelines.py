r"""Folders of diffusers: a network, its scheduler, perhaps an autoencoder and a text encoder.

The schedule is rebuilt from the scheduler's config, never taken from a scheduler at work, whose
``sigmas`` change with every call of ``set_timesteps``. A training's ``checkpoint-N`` has no
scheduler: it is looked for in the folder above, else asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from geomem.data.reading import printable
from geomem.errors import InputError
from geomem.models.doors.conditions import conditions_of
from geomem.models.doors.denoisers import NetworkDenoiser
from geomem.models.doors.files import read_json, sha256_of
from geomem.models.doors.latents import encoder_of
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.lora import Lora, read_lora
from geomem.models.doors.modules import EMA_KEYS, built, size_of
from geomem.models.doors.options import DoorOptions
from geomem.models.doors.schedules import resolve

NETWORKS = ("unet", "transformer")


def is_pipeline(folder: Path) -> bool:
    r"""Whether a folder is one that diffusers saved: a pipeline, a checkpoint or a network."""
    names = [f"{name}{end}" for name in NETWORKS for end in ("", "_ema")]
    here = (folder / name / "config.json" for name in names)
    return (
        (folder / "model_index.json").is_file()
        or any(p.is_file() for p in here)
        or _is_network(folder)
    )


def load_pipeline(
    folder: Path, options: DoorOptions, device: str, lora: Lora | None = None
) -> LoadedModel:
    r"""A model that diffusers saved.

    Arguments:
        folder: A pipeline, a ``checkpoint-N`` of its training, or a network alone.
        options: What its files do not say.
        device: Where it works.
        lora: Updates of its weights.

    Raises:
        InputError: If something is missing, damaged, pickled, or not to be read from the files.
    """
    warnings: list[str] = []
    dtype: torch.dtype = getattr(torch, options.dtype)
    where = _network_folder(folder, options.weights, warnings)
    places = _places(folder, where, options.base)
    config = read_json(where / "config.json")
    network, files = built(where, config, dtype, device)
    if lora is not None:
        lora.merge("network", network)
    labels, prediction, told = resolve(places, options.prediction, options.schedule)
    if config.get("time_embedding_type") == "learned":
        labels = labels.rounded()
    about: dict[str, Any] = {
        "source": printable(folder),
        "weights": where.name,
        **size_of(network),
        "dtype": options.dtype,
        **told,
        "sha256": sha256_of(files),
    }
    averaged = {k: v for k, v in config.items() if k in EMA_KEYS}
    if averaged:
        about["average"] = averaged
    encode = encoder_of(places, device, about)
    conditions = conditions_of(places, network, config, device, about, lora)
    if lora is not None:
        about |= {"lora": lora.about(), "training": lora.facts}
        warnings += _warnings_of(lora, prediction, told["schedule"])
    about["warnings"] = warnings

    def bind(given: Sequence[Any]) -> NetworkDenoiser:
        return NetworkDenoiser(conditions.bound(given), labels, prediction, dtype)

    return LoadedModel(
        NetworkDenoiser(conditions.unconditional, labels, prediction, dtype),
        _item_shape(config),
        (labels.low, labels.high),
        labels.levels,
        about,
        dtype,
        device,
        bind if conditions.prepare else None,
        encode,
        None if lora is None else _flips(lora.facts),
        None if lora is None else lambda: lora.updates(network),
    )


def load_lora(file: Path, options: DoorOptions, device: str) -> LoadedModel:
    r"""A LoRA, merged into its base.

    Raises:
        InputError: If no base is named, or it is not that of the updates.
    """
    if options.base is None:
        raise InputError(
            f"{printable(file)} is a LoRA, and what it updates is not in the file; pass the "
            "pipeline that it was trained on as `base`"
        )
    return load_pipeline(options.base, options, device, read_lora(file, options.lora_scale))


def _flips(facts: dict[str, str]) -> bool | None:
    said = facts.get("mirrored")
    return None if said is None else said.lower() == "true"


def _warnings_of(lora: Lora, prediction: str, schedule: dict[str, Any]) -> list[str]:
    r"""What the header of a LoRA says against what is measured."""
    said = []
    offset = lora.facts.get("noise offset", "None")
    if offset not in ("None", "0", "0.0", ""):
        said.append(
            f"it was trained with offset noise ({offset}), which is not white: errors at white "
            "noise are not what it was trained on, and nothing follows from them for sure"
        )
    wanted = {"v": "v_prediction"}.get(
        lora.facts.get("prediction", ""), lora.facts.get("prediction")
    )
    if wanted is not None and wanted != prediction:
        said.append(
            f"its header says {wanted} and the base {prediction}; check, and pass `prediction`"
        )
    zero = lora.facts.get("zero terminal SNR", "False").lower() == "true"
    if zero and not schedule.get("rescale_betas_zero_snr"):
        said.append(
            "its header says zero terminal SNR and the base has none; pass `schedule`, a "
            "scheduler_config.json with rescale_betas_zero_snr"
        )
    return said


def _is_network(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and "_class_name" in read_json(path)


def _network_folder(folder: Path, weights: str, warnings: list[str]) -> Path:
    if _is_network(folder):
        return folder
    name = next(
        (n for n in NETWORKS for end in ("", "_ema") if (folder / f"{n}{end}").is_dir()), None
    )
    if name is None:
        raise InputError(
            f"{printable(folder)} has no folder unet or transformer; pass the folder of the "
            "pipeline, or of a checkpoint"
        )
    raw, average = folder / name, folder / f"{name}_ema"
    is_checkpoint = not (folder / "model_index.json").is_file()
    if weights == "ema" and average.is_dir():
        return average
    if weights == "ema" and is_checkpoint:
        warnings.append(f"there is no {name}_ema in {folder.name}; these are the raw weights")
    if weights == "raw" and not is_checkpoint:
        warnings.append(
            f"the {name} of a whole pipeline is the average where its training kept one "
            "(--use_ema); raw weights are in its checkpoints"
        )
    if not raw.is_dir():
        raise InputError(f"{printable(folder)} has {average.name} alone; pass `weights` ema")
    return raw


def _places(folder: Path, where: Path, base: Path | None) -> list[Path]:
    r"""Where what belongs to a network may lie: with it, above it, in the base."""
    found = [folder]
    if where == folder or not (folder / "model_index.json").is_file():
        found.append(folder.resolve().parent)
        if where == folder:  # .../checkpoint-500/unet: two above
            found.append(folder.resolve().parent.parent)
    return [*found, *([base] if base else [])]


def _item_shape(config: dict[str, Any]) -> tuple[int, ...] | None:
    size, channels = config.get("sample_size"), config.get("in_channels")
    if size is None or channels is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return (int(channels), *(int(side) for side in sides))
