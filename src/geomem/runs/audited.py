r"""What an audit looks at: images, models, and the controls that can be had.

Everything here follows from the options and the files that they name; nothing is measured yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch

from geomem.arguments import Whole, checked
from geomem.data.joined import Joined, PartsOptions, in_space, join
from geomem.data.source import Source
from geomem.denoiser import Denoiser
from geomem.errors import Inconclusive, InputError
from geomem.measure.probes import MeasureOptions
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.opening import open_door
from geomem.models.doors.options import DoorOptions
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training
from geomem.runs.records import read_json
from geomem.runs.run import Run

Control = Literal["auto", "linear", "reference", "mirror", "base"]
LEAST_RESERVED = 128  # reserved images from which on a reference is worth its training
STEPS = {"mlp": 3000, "unet": 1200}  # of the reference, where no budget says otherwise
FEWEST_STEPS, MOST_STEPS = 300, 4000
NO_CONTROL = (
    "inconclusive: no control. What a model does at its training images is memory only beside "
    "what it does at images of the same kind that it has not seen; pass at least 16, better 128 "
    "and more, of them as `held_out`"
)


@checked
@dataclass(frozen=True)
class AuditOptions:
    r"""The model of an audit, and what it is compared with."""

    model: str = ""
    """The model: a folder that diffusers saved, a checkpoint, or package.module:function."""
    controls: tuple[Control, ...] = ("auto",)
    """What it is compared with: auto takes all that can be had; linear always belongs to them."""
    reference: str | None = None
    """A model of the same kind that has not seen the training images, instead of a trained one."""
    reference_steps: Annotated[int, Whole(least=1)] | None = None
    """Training steps of the reference network on the reserved images."""
    flip: bool = False
    """Declare that the model was trained with mirrored images."""
    repeat: Path | None = None
    """A study.json of another audit: the same images, levels and noise are measured again."""


@checked
@dataclass(frozen=True)
class Audited(Run, AuditOptions, MeasureOptions, DoorOptions, PartsOptions):
    r"""The images and models of an audit: what follows from its options alone."""

    seed: Annotated[int, Whole(least=0)] = 0
    """The seed of the choice of images, of the reference, of noise and samples."""

    kind: ClassVar[str] = "audit"

    def __post_init__(self) -> None:
        PartsOptions.__post_init__(self)
        if not self.model or not self.data:
            raise InputError("an audit needs a `model` and its training images, `data`")
        if not self.held_out:
            raise Inconclusive(NO_CONTROL)
        if not self.controls:
            raise InputError("`controls` is empty; pass auto, or some of the controls")
        if "base" in self.controls and self.base is None:
            raise InputError("`controls` has base; pass the model it was tuned from as `base`")

    # ------------------------------------------------------------------------------- study

    @cached_property
    def joined(self) -> Joined:
        r"""All images with their parts, as pixels."""
        return join(self, self._seed)

    @cached_property
    def repeated(self) -> dict[str, Any] | None:
        r"""The study that is measured again, if one is."""
        return None if self.repeat is None else _read_study(self.repeat)

    @property
    def _seed(self) -> int:
        return self.seed if self.repeated is None else int(self.repeated["seed"])

    @cached_property
    def source(self) -> Source:
        r"""The images in the model's own space, with the parts that they play."""
        joined, model = self.joined, self.opened("cpu")
        data = joined.data
        if model.encode is not None and data.item_shape != model.item_shape:
            parts = torch.split(torch.arange(len(data)), 64)
            latents = [model.encode(data.tensor(part)) for part in parts]
            data = in_space(data, torch.cat(latents))
        if model.item_shape not in (None, data.item_shape):
            raise InputError(
                f"the images have shape {data.item_shape} and the model works on "
                f"{model.item_shape}; bring them to its size, as its trainer did"
            )
        return Source(data, joined.split)

    def opened(self, device: str, who: str = "model") -> LoadedModel:
        r"""A model behind its door, loaded once for each device: model, base or reference.

        Raises:
            InputError: If it cannot be loaded.
        """
        known: dict[tuple[str, str], LoadedModel] = self.__dict__.setdefault("_opened", {})
        if (who, device) not in known:
            where = {"model": self.model, "base": str(self.base), "reference": self.reference}[who]
            options = DoorOptions(**{f.name: getattr(self, f.name) for f in fields(DoorOptions)})
            if who != "model":
                options = replace(options, base=None, lora_scale=None)
            known[who, device] = open_door(str(where), options, device)
        return known[who, device]

    @cached_property
    def plan(self) -> dict[str, Any]:
        r"""What is measured and trained, as plain JSON values: what a budget decides."""
        return {
            "points": self.points,
            "draws": self.draws,
            "levels": self.levels,
            "samples": self.samples,
            "trajectories": self.trajectories,
            "jacobian_points": self._jacobians,
            "reference_steps": self._steps if "reference" in self.chosen else 0,
            "controls": list(self.chosen),
        }

    @property
    def _jacobians(self) -> int:
        small = int(np.prod(self.source.data.item_shape)) <= 256
        return (
            (self.points if small else 8) if self.jacobian_points is None else self.jacobian_points
        )

    @property
    def _bases(self) -> int:
        # At so many images of a kind the tangent basis is found: each takes 100 products.
        small = int(np.prod(self.source.data.item_shape)) <= 256
        return min(self._jacobians, 8 if small else 4)

    @cached_property
    def chosen(self) -> tuple[Control, ...]:
        r"""The controls that are measured, the linear one last."""
        auto, model = "auto" in self.controls, self.opened("cpu")
        shape, reserved = self.source.data.item_shape, len(self.source.split.reserved)
        flips = self.flip or model.flips is True
        found: list[Control] = []
        if self.reference or "reference" in self.controls or (auto and reserved >= LEAST_RESERVED):
            found.append("reference")
        if self.base is not None and (auto or "base" in self.controls):
            found.append("base")
        if "mirror" in self.controls:
            if flips:
                raise InputError(
                    "`controls` has mirror, and the model was trained with mirrored images, so "
                    "that it has seen both ways round: leave mirror out"
                )
            if len(shape) != 3:
                raise InputError("`controls` has mirror, which needs images; leave mirror out")
        pixels = len(shape) == 3 and model.encode is None
        if "mirror" in self.controls or (auto and pixels and not flips):
            found.append("mirror")
        return (*found, "linear")

    @property
    def _models(self) -> list[str]:
        given = {"base": self.base, "reference": self.reference}
        return ["model", *(name for name, where in given.items() if where and name in self.chosen)]

    @property
    def _trains(self) -> bool:
        return "reference" in self.chosen and self.reference is None

    def conditions(self, numbers: Sequence[int]) -> list[Any] | None:
        r"""The captions, else the labels, of images; None where neither is known."""
        data = self.joined.data
        if data.captions is not None:
            return [data.captions[i] for i in numbers]
        if data.labels is None:
            return None
        classes = data.classes or ()
        named = all(name.isdecimal() for name in classes)
        return [int(classes[data.labels[i]]) if named else int(data.labels[i]) for i in numbers]

    def _bind(self, model: LoadedModel) -> Callable[[Sequence[int]], Denoiser] | None:
        given = model.bind
        if given is None or self.conditions([0]) is None:
            return None
        return lambda numbers: given(self.conditions(numbers) or [])

    @cached_property
    def network_config(self) -> NetworkConfig:
        r"""The reference network: an MLP up to 256 coordinates, a U-Net for images."""
        shape = self.source.data.item_shape
        small = int(np.prod(shape)) <= 256 or len(shape) != 3
        kind: Any = "mlp" if small else "unet"
        return NetworkConfig(kind, shape, self.source.rms, channels=(16, 32, 32))

    @property
    def _steps(self) -> int:
        return self.reference_steps or STEPS[self.network_config.kind]

    @property
    def training(self) -> Training:
        r"""The reference's recipe."""
        return Training(self._steps, 128 if self.network_config.kind == "mlp" else 64)


def _read_study(path: Path) -> dict[str, Any]:
    found = read_json(path / "study.json" if path.is_dir() else path)
    lacking = [k for k in ("sigmas", "draws", "seed", "point_digests", "plan") if k not in found]
    if lacking:
        raise InputError(f"{path} is no study of an audit ({lacking[0]} is missing); pass one")
    return found
