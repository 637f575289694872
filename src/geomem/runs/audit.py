r"""Audit: a model that someone trained, beside its own images and images that it has not seen.

Its subjects are the model and the controls that it is compared with: the linear denoiser, the
exact denoiser of the training images, a reference network trained on the reserved images, the
model's own error at mirrored images, and its base where there is one. Nothing about the model is
believed that was not checked at its door; what cannot be measured is declared, and stands on the
page. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from geomem.arguments import Text, Whole, checked
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import say
from geomem.compute.threads import one_thread
from geomem.data.joined import Joined, PartsOptions, in_space, join, overlap
from geomem.data.source import Source
from geomem.denoiser import Denoiser
from geomem.errors import Inconclusive, InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.mirror import MirrorDenoiser
from geomem.measure.pixels import WhereErrors
from geomem.measure.probes import MeasureOptions
from geomem.measure.study import Study
from geomem.measure.subject import Description, Subject
from geomem.measure.twins import Twins
from geomem.models.doors.checking import check_model
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.opening import open_door
from geomem.models.doors.options import DoorOptions
from geomem.models.networks import NetworkConfig, save_network
from geomem.models.train import Training, TrainState, train
from geomem.runs.design import choose_levels, default_window, study_of
from geomem.runs.records import RunFolder, json_text, read_json
from geomem.runs.run import Run, exact_seconds
from geomem.stats import numpy_rng

Control = Literal["auto", "linear", "reference", "mirror", "base"]
LEAST_RESERVED = 128  # reserved images from which on a reference is worth its training
STEPS = {"mlp": 3000, "unet": 1200}  # of the reference, where no budget says otherwise
FEWEST_STEPS, MOST_STEPS = 300, 4000
SAMPLE_CALLS = 36  # of Heun's method for one sample
NO_CONTROL = (
    "inconclusive: no control. What a model does at its training images is memory only beside "
    "what it does at images of the same kind that it has not seen; pass at least 16, better 128 "
    "and more, of them as `held_out`"
)


@checked
@dataclass(frozen=True)
class AuditOptions:
    r"""The model of an audit, and what it is compared with."""

    model: Annotated[str, Text()] = ""
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
class Audit(Run, AuditOptions, MeasureOptions, DoorOptions, PartsOptions):
    r"""Measure a trained model beside controls, and say what it has memorized."""

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
        return join(self, self.seed)

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

    def study(self) -> Study:
        r"""Images, levels and probes; the model's checks are made here.

        Raises:
            InputError: If data or model cannot be used, or the model fails a check at its door.
        """
        source, model = self.source, self.opened("cpu")
        split = source.split
        for name, numbers in (("held_out", split.held_out), ("reserved", split.reserved)):
            if len(numbers) < 8:
                raise InputError(
                    f"{len(numbers)} {name.replace('_', '-')} images are left, and fewer than 8 "
                    "say nothing; pass more images as `held_out`"
                )
        repeated = None if self.repeat is None else _read_study(self.repeat)
        index = self._points(repeated)
        checks = self._check(model, index)
        derivable = all(c.passed for c in checks if c.name == "derivatives")
        probes = self.probes_of(self._jacobians if derivable else 0)
        probes += [WhereErrors(), Twins()]
        levels = self._levels(model) if repeated is None else np.array(repeated["sigmas"])
        return study_of(
            source,
            index,
            sigmas=levels,
            probes=probes,
            draws=self.draws if repeated is None else int(repeated["draws"]),
            seed=self.seed if repeated is None else int(repeated["seed"]),
            control="auto",
            more={
                "order": [int(i) for i in split.pool],
                "reference": [int(i) for i in split.reserved] if self._trains else [],
                "plan": self.plan,
                "models": {who: _about(self.opened("cpu", who)) for who in self._models},
                "checks": {check.name: check.passed for check in checks},
                "overlap": overlap(self.joined),
                "declared": self._declared(model, derivable),
                "warnings": [
                    str(text)
                    for who in self._models
                    for text in self.opened("cpu", who).about.get("warnings", [])
                ],
            },
        )

    @property
    def _models(self) -> list[str]:
        given = {"base": self.base, "reference": self.reference}
        return ["model", *(name for name, where in given.items() if where and name in self.chosen)]

    @property
    def _trains(self) -> bool:
        return "reference" in self.chosen and self.reference is None

    def _points(self, repeated: dict[str, Any] | None) -> dict[str, list[int]]:
        split, digests = self.source.split, self.source.data.digests()
        if repeated is None:
            chosen = {}
            for at, numbers in (("training", split.pool), ("held_out", split.held_out)):
                order = numpy_rng(self.seed, f"{at} points").permutation(numbers)
                chosen[at] = [int(i) for i in order[: self.points]]
            return chosen
        chosen = {}
        for at, numbers in (("training", split.pool), ("held_out", split.held_out)):
            place = {digests[i]: int(i) for i in reversed(numbers)}
            wanted = repeated["point_digests"][at]
            missing = [d for d in wanted if d not in place]
            if missing:
                raise InputError(
                    f"{len(missing)} of {len(wanted)} {at.replace('_', '-')} images of "
                    f"{self.repeat} are not among the images given; pass the images of that study"
                )
            chosen[at] = [place[d] for d in wanted]
        return chosen

    def _levels(self, model: LoadedModel) -> NDArray[np.float64]:
        # Those that the model was trained on, within the window, at its own discrete ones.
        levels = choose_levels(self.source, self.sigmas, self.levels)
        low, high = model.sigma_range
        if self.sigmas is None:
            start, end = default_window(self.source)
            start, end = max(start, low), min(end, high)
            if not start < end / 2:
                raise InputError(
                    f"the model knows levels from {low:.3g} to {high:.3g}, and these images have "
                    f"something to lose from {default_window(self.source)[0]:.3g} to "
                    f"{default_window(self.source)[1]:.3g}; check the scale of the images"
                )
            levels = np.geomspace(start, end, self.levels)
        if model.levels is not None and len(model.levels):
            own = np.log(np.asarray(model.levels, dtype=float))
            near = np.abs(own[:, None] - np.log(levels)[None]).argmin(0)
            levels = np.exp(np.unique(own[near]))
        return levels

    def _check(self, model: LoadedModel, index: dict[str, list[int]]) -> list[Any]:
        data = self.source.data
        training = index["training"][:16]
        conditions = self.conditions(training) if model.bind is not None else None
        checks = check_model(
            model,
            data.tensor(index["held_out"][:16]),
            seed=self.seed,
            training=data.tensor(training),
            conditions=conditions,
        )
        faults = [c.sentence for c in checks if not c.passed and c.name != "derivatives"]
        if faults:
            raise InputError(f"the model is refused at the door: {'; '.join(faults)}")
        self.__dict__["_checks"] = checks
        return checks

    def conditions(self, numbers: Sequence[int]) -> list[Any] | None:
        r"""The captions, else the labels, of images; None where neither is known."""
        data = self.joined.data
        if self.joined.captions is not None:
            return [self.joined.captions[i] for i in numbers]
        if data.labels is None:
            return None
        classes = data.classes or ()
        named = all(name.isdecimal() for name in classes)
        return [int(classes[data.labels[i]]) if named else int(data.labels[i]) for i in numbers]

    def _declared(self, model: LoadedModel, derivable: bool) -> list[str]:
        found = []
        if self.reserved is None:
            found.append("Half of the held-out images were reserved, and not measured.")
        if self.flip:
            found.append("Declared: the model was trained with mirrored images; no mirror control.")
        elif "mirror" in self.chosen and model.flips is None:
            found.append(
                "Its files do not say whether the model was trained with mirrored images; if it "
                "was, the mirror control sees nothing."
            )
        if model.bind is not None:
            known = self.conditions([0])
            what = "its own caption" if self.joined.captions is not None else "its own label"
            found.append(
                "The model takes conditions, and none were given: it was asked without any."
                if known is None
                else f"Each image was denoised under {what}, without guidance."
            )
        if model.encode is not None:
            found.append(
                "The model works on latents: what is measured are the means of its encoder, and "
                "trainers draw from the encoder's law."
            )
        if not derivable:
            found.append("The model's answers cannot be differentiated: no Jacobian was measured.")
        if self._trains:
            found.append(
                f"The reference network is another recipe (EDM, {self._steps:,} steps), trained on "
                f"the {len(self.source.split.reserved):,} reserved images."
            )
        return found

    def subjects(self, study: Study) -> list[Description]:
        r"""Controls first, the model last but for what takes longest."""
        plan, size = study.content["plan"], len(study.content["order"])
        found = [Description("linear"), Description("empirical", num_samples=size)]
        if "base" in plan["controls"]:
            found.append(Description("base", label="base"))
        found.append(Description("model", num_samples=size, label="model"))
        if "mirror" in plan["controls"]:
            found.append(Description("mirror", label="mirror"))
        if "reference" in plan["controls"]:
            trained = study.content["reference"]
            if trained:
                step = int(plan["reference_steps"])
                there = Description(
                    "reference", num_samples=len(trained), seed=self.seed, step=step
                )
            else:
                there = Description("reference", label="reference")
            found.append(there)
        return found

    # ---------------------------------------------------------------------------- subjects

    def ready(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int],
        device: str,
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Subject, float]]:
        r"""Loads models, builds exact denoisers, trains the reference."""
        for number in numbers:
            description = folder.subject(number)
            if description.kind == "reference" and study.content["reference"]:
                yield from self._trained(folder, study, number, device, report)
            else:
                yield number, self._subject(description, study, device), 1.0

    def _subject(self, description: Description, study: Study, device: str) -> Subject:
        kind, order = description.kind, study.content["order"]
        if kind == "empirical":
            exact = EmpiricalDenoiser(self.source.data.tensor(order))
            return Subject(description, exact, training=order)
        if kind == "linear":
            return Subject(description, self.source.linear_control)
        model = self.opened(device, "model" if kind == "mirror" else kind)
        dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
        bind = self._bind(model)
        denoiser: Denoiser = model.denoiser
        if kind == "mirror":
            denoiser, plain = MirrorDenoiser(denoiser), bind
            bind = plain and (lambda numbers: MirrorDenoiser(plain(numbers)))
        training = order if kind == "model" else None
        return Subject(description, denoiser, dtype, device, training=training, bind=bind)

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

    def _trained(
        self,
        folder: RunFolder,
        study: Study,
        number: int,
        device: str,
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Subject, float]]:
        images = self.source.data.tensor(study.content["reference"])
        state = TrainState(
            self.network_config, self.training, images, seed=self.seed, device=device
        )
        checkpoint = folder.path / "checkpoints" / "reference.safetensors"
        steps = self.training.steps
        for moment in train(state, max(1, steps // 20), checkpoint):
            report(0.87 * moment.step / steps)
        save_network(state.average, self.network_config, folder.path / "networks" / "reference")
        # It is measured at the training images of the model: new ones to it.
        yield number, Subject(folder.subject(number), state.average, torch.float32, device), 1.0
        checkpoint.unlink(missing_ok=True)

    def _begin(self, out: str | Path) -> tuple[RunFolder, Study]:
        folder, study = super()._begin(out)
        content = {
            "schema_version": folder.config["schema_version"],
            "models": {who: self.opened("cpu", who).about for who in self._models},
            "checks": [
                {"name": c.name, "passed": c.passed, "sentence": c.sentence}
                for c in self.__dict__.get("_checks", [])
            ],
        }
        place = folder.path / "model.json"
        if not place.exists():
            atomic_write_text(place, json_text(content), inside=folder.path, private=True)
        if study.content["overlap"]:
            names = ", ".join(study.content["overlap"][:3])
            say(
                f"{len(study.content['overlap'])} held-out or reserved images are training images, "
                f"too ({names}, ...): the verdict will be inconclusive; take them out"
            )
        return folder, study

    # ----------------------------------------------------------------------------- forecast

    def seconds(self, subject: Description, study: Study) -> float:
        r"""Seconds that a subject takes, roughly."""
        if subject.kind in ("linear", "empirical"):
            return exact_seconds(study, subject.num_samples) + 2.0
        plan, levels = study.content["plan"], len(study.sigmas)
        points = sum(map(len, study.images.values()))
        calls = float(points * study.draws * levels)
        if subject.kind != "mirror":
            products = len(study.directions.counts)
            calls += 2.5 * 2 * min(plan["jacobian_points"], points) * levels * products
        if subject.kind in ("model", "base"):
            calls += float(plan["samples"]) * SAMPLE_CALLS * (subject.kind == "model")
            return calls * self._call_seconds
        if subject.kind == "reference" and study.content["reference"]:
            return (
                self.training.steps * self._step_seconds * 1.15 + calls * self._step_seconds / 200
            )
        return calls * self._call_seconds

    @cached_property
    def _call_seconds(self) -> float:
        # Of the model at one noised point, in a batch: timed here, since nothing else tells.
        model = self.opened("cpu")
        numbers = [int(i) for i in np.resize(self.source.split.held_out, 64)]
        x = self.source.data.tensor(numbers)
        x = x.to(torch.float64 if model.dtype == torch.float64 else torch.float32)
        bind = self._bind(model)
        denoiser = model.denoiser if bind is None else bind(numbers)
        sigma = torch.tensor(float(np.sqrt(np.prod(model.sigma_range))) or 1.0).to(x)

        @torch.no_grad()
        def call() -> None:
            denoiser(x, sigma)

        return _timed(call) / len(x)

    @cached_property
    def _step_seconds(self) -> float:
        shape = self.source.data.item_shape
        state = TrainState(self.network_config, self.training, torch.zeros(2, *shape), seed=0)
        return _timed(state.advance)

    def cheaper(self, seconds: float) -> str:
        r"""Settings that take less time, where this takes long."""
        return "give a `budget`, such as 10m; or pass fewer `points`, `samples` 0, or `controls`"

    def within(self, seconds: float, workers: int) -> Audit:
        r"""The same audit, planned to fit into a time on this machine.

        Less is measured in this order: samples, levels, points; what is left of the time trains
        the reference, which is left out where fewer than 300 steps fit.

        Arguments:
            seconds: The time in all.
            workers: How many subjects are measured at a time.

        Raises:
            InputError: If even the smallest audit takes longer.
        """
        tries: list[dict[str, Any]] = [
            {},
            {"samples": min(self.samples, 64)},
            {"samples": min(self.samples, 64), "jacobian_points": min(self._jacobians, 8)},
            {"samples": 0, "jacobian_points": 0},
            {"samples": 0, "jacobian_points": 0, "levels": min(self.levels, 12)},
            {
                "samples": 0,
                "jacobian_points": 0,
                "levels": min(self.levels, 12),
                "points": min(self.points, 32),
            },
        ]
        for fewer in tries:
            planned = replace(self, **fewer, controls=self.chosen)
            measuring = planned._measuring(workers)
            if measuring <= 0.8 * seconds:
                return planned._with_reference(0.9 * seconds, measuring, workers)
        raise InputError(
            f"`budget` allows {seconds:.0f} s, and the smallest audit takes about {measuring:.0f} "
            "s here; give more time, or a `device`"
        )

    def _measuring(self, workers: int) -> float:
        # Without the training of a reference.
        copies = self.samples * SAMPLE_CALLS
        calls = 2.0 * self.points * self.draws * self.levels
        products = len(self.source.directions.counts)
        jacobian = 2.5 * 2 * 2 * self._jacobians * self.levels * products
        models = [calls + jacobian + copies]
        models += [calls] * ("mirror" in self.chosen) + [calls + jacobian] * ("base" in self.chosen)
        exact = 2e-9 * calls * len(self.source.split.pool) * np.prod(self.source.data.item_shape)
        total = sum(models) * self._call_seconds
        return float(exact + max(total / workers, models[0] * self._call_seconds) + 5)

    def _with_reference(self, seconds: float, measuring: float, workers: int) -> Audit:
        if not self._trains:
            return self
        # With several workers it is trained while the others measure.
        left = seconds - measuring if workers == 1 else seconds - 0.3 * measuring
        steps = min(MOST_STEPS, int(left / self._step_seconds / 1.3))
        if steps < FEWEST_STEPS:
            return replace(self, controls=tuple(c for c in self.chosen if c != "reference"))
        return replace(self, reference_steps=steps)

    def num_bytes(self, study: Study) -> float:
        r"""Bytes of memory that one worker takes, roughly."""
        d, n = int(study.content["data"]["ambient_dim"]), len(study.content["order"])
        entries = len(study.directions.counts)
        record = 8.0 * 2 * study.width * len(study.sigmas) * (study.draws + 2) * entries
        return (
            12.0 * n * d + 8.0 * 4 * 512 * n + 8.0 * 3 * d * d + 512.0 * d * 4 * 64 + record + 6e8
        )


def _about(model: LoadedModel) -> dict[str, Any]:
    # What a study rests on: all but where the files lie, which is no matter.
    return {k: v for k, v in model.about.items() if k not in ("source", "warnings")}


def _read_study(path: Path) -> dict[str, Any]:
    found = read_json(path / "study.json" if path.is_dir() else path)
    lacking = [k for k in ("sigmas", "draws", "seed", "point_digests", "plan") if k not in found]
    if lacking:
        raise InputError(f"{path} is no study of an audit ({lacking[0]} is missing); pass one")
    return found


def _timed(action: Callable[[], Any]) -> float:
    with one_thread():
        action()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5 or count < 2:
            action()
            count += 1
    return (time.perf_counter() - start) / count
