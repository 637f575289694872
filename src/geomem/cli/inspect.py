r"""``geomem inspect``: what a trained model is, as its files say, and whether that holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from geomem.cli.options import say_account
from geomem.compute.files import atomic_write_text, check_writable
from geomem.data.source import DataOptions, load_source
from geomem.models.doors.checking import check_model
from geomem.models.doors.loaded import LoadedModel, ModelCheck
from geomem.models.doors.opening import open_door
from geomem.models.doors.options import DoorOptions


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
    images: Annotated[InspectData, tyro.conf.OmitArgPrefixes]
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
                print(f"{'holds' if check.passed else 'FAILS'}  {check.name}: {check.sentence}")
        else:
            print("nothing was checked: pass its training images as --data")
        if self.json is not None:
            document = {"about": model.about, "checks": [_row(check) for check in checks]}
            atomic_write_text(self.json, json.dumps(document, indent=1) + "\n")
        return 0 if all(check.passed for check in checks) else 1

    def _checks(self, model: LoadedModel) -> list[ModelCheck]:
        source = load_source(self.images.options(), seed=self.seed)
        data = source.data
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
