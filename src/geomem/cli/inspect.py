r"""``geomem inspect``: what a trained model is, as its files say, and whether that holds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from geomem.arguments import checked
from geomem.cli.options import as_options, say_account
from geomem.compute.files import atomic_write_text, check_writable
from geomem.data.source import TrainedOnOptions, load_images
from geomem.models.doors.checking import check_model
from geomem.models.doors.loaded import LoadedModel, ModelCheck
from geomem.models.doors.opening import open_door
from geomem.models.doors.options import DoorOptions


@checked
@dataclass(frozen=True)
class InspectOptions(TrainedOnOptions):
    r"""The images that a model was trained on.

    Attributes:
        data: The images: a name, or PATH[:key]; nothing is checked if not given.
    """

    data: str = ""


@dataclass(frozen=True)
class InspectCommand:
    r"""What a trained model is, as its files say, and whether that holds; in seconds.

    Prints the resolved schedule, prediction and sizes. With --data, the images that it was
    trained on (--held-out-only: images like them), five checks are made; one that fails ends
    with status 1 and says what would fit.

    Examples:

      geomem inspect ddpm-butterflies/ --data butterflies/ --size 64 --crop center

      geomem inspect lora-out/ --base stable-diffusion/ --data pictures/ --size 512

      geomem inspect mine.models:denoise --data digits
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A folder of diffusers (a pipeline, a checkpoint-N, a LoRA), a file of weights, or
    package.module:function, called with (x, sigma)."""
    door: Annotated[DoorOptions, tyro.conf.OmitArgPrefixes]
    images: Annotated[InspectOptions, tyro.conf.OmitArgPrefixes]
    points: int = 16
    """How many images are looked at."""
    held_out_only: bool = False
    """The images are none that it was trained on."""
    seed: int = 0
    """Seed of the choice of images and of their noise."""
    device: str = "cpu"
    """Where the model works, for example cuda."""
    json: Path | None = None
    """Write everything to this JSON file."""

    def run(self) -> int:
        r"""Prints what was read and checked; returns the exit status."""
        if self.json is not None:
            check_writable(self.json)
        model = open_door(self.model, self.door, self.device)
        for line in described(model):
            print(line)
        checks: list[ModelCheck] = []
        if self.images.data:
            checks = self._checks(model)
            for check in checks:
                said = as_options(check.sentence, type(self))
                print(f"{'holds' if check.passed else 'FAILS'}  {check.name}: {said}")
        else:
            print("nothing was checked: pass its training images as --data")
        if self.json is not None:
            document = {"about": model.about, "checks": [_row(check) for check in checks]}
            atomic_write_text(self.json, json.dumps(document, indent=1) + "\n")
        return 0 if all(check.passed for check in checks) else 1

    def _checks(self, model: LoadedModel) -> list[ModelCheck]:
        data = load_images(self.images)
        say_account(data)
        count = len(data) if data.num_train is None else data.num_train
        pixels = data.tensor(range(count))
        conditions: Any = None
        if model.bind is not None:
            conditions = data.captions or (None if data.labels is None else data.labels.tolist())
            conditions = None if conditions is None else list(conditions)[:count]
        training = None if self.held_out_only else pixels
        return check_model(
            model,
            pixels,
            seed=self.seed,
            points=self.points,
            training=training,
            conditions=conditions,
        )


def described(model: LoadedModel) -> list[str]:
    r"""What was read of a model, in lines; its warnings last."""
    about = model.about
    schedule = about.get("schedule", {})
    low, high = model.sigma_range
    levels = "" if model.levels is None else f", {len(model.levels)} discrete levels"
    shape = "not known" if model.item_shape is None else " x ".join(map(str, model.item_shape))
    rows = [
        ("model", about["source"]),
        ("network", _network(about)),
        ("works on", shape + (" (latents)" if model.encode else "")),
        ("predicts", f"{about.get('prediction')} ({about.get('prediction_from', 'its kind')})"),
        ("schedule", f"{schedule.get('name')}, sigma {low:.4g} to {high:.4g}{levels}"),
        ("latents", _latents(about.get("latent"))),
        ("conditions", about.get("conditions")),
        ("LoRA", _lora(about.get("lora"))),
        ("mirrored", {True: "yes", False: "no", None: "the files do not tell"}[model.flips]),
        *((f"training: {key}", value) for key, value in about.get("training", {}).items()),
        *((f"sha256 {name}", digest) for name, digest in about.get("sha256", {}).items()),
    ]
    lines = [f"{name:12}  {value}" for name, value in rows if value]
    return [*lines, *(f"note: {warning}" for warning in about["warnings"])]


def _network(about: dict[str, Any]) -> str:
    count = about.get("parameters")
    size = "" if count is None else f"{about.get('class')}, {count:,} parameters, "
    weights = f", weights: {about['weights']}" if "weights" in about else ""
    return f"{size}{about['dtype']}{weights}"


def _latents(latent: dict[str, Any] | None) -> str | None:
    if latent is None:
        return None
    return f"of {latent['encoder']}, x {latent['scale']} after - {latent['shift']}: {latent['of']}"


def _lora(lora: dict[str, Any] | None) -> str | None:
    if lora is None:
        return None
    scales = "; ".join(
        f"scale {s['scale']:.4g} at {s['modules']} modules ({s['from']})" for s in lora["scale"]
    )
    return f"rank {', '.join(map(str, lora['rank']))}; {scales}"


def _row(check: ModelCheck) -> dict[str, Any]:
    return {**vars(check), "value": None if math.isnan(check.value) else check.value}
