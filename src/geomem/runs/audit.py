r"""Audit: a model that someone trained, beside its own images and images that it has not seen.

Its subjects are the model and the controls that it is compared with: the linear denoiser, the
exact denoiser of the training images, a reference network trained on the reserved images, the
model's own error at mirrored images, and its base where there is one. Nothing about the model is
believed that was not checked at its door; what cannot be measured is declared, and stands on the
page. The same command goes on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geomem.arguments import checked
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import say
from geomem.data.joined import overlap
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.bases import TangentBases
from geomem.measure.channels import Channels
from geomem.measure.mirror import MirrorDenoiser
from geomem.measure.pixels import WhereErrors
from geomem.measure.study import Study
from geomem.measure.subject import Description, Subject
from geomem.measure.twins import Twins
from geomem.models.doors.checking import check_model
from geomem.models.doors.loaded import LoadedModel
from geomem.models.networks import save_network
from geomem.models.train import TrainState, train
from geomem.runs.audit_time import TimedAudit
from geomem.runs.design import choose_levels, default_window, study_of
from geomem.runs.records import RunFolder, json_text
from geomem.stats import numpy_rng


@checked
@dataclass(frozen=True)
class Audit(TimedAudit):
    r"""Measure a trained model beside controls, and say what it has memorized."""

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
        repeated = self.repeated
        index = self._points(repeated)
        checks = self._check(model, index)
        derivable = all(c.passed for c in checks if c.name == "derivatives")
        probes = self.probes_of(self._jacobians if derivable else 0)
        probes += [WhereErrors(), Twins()]
        if derivable and self._jacobians:
            probes.append(TangentBases(self._bases))
        probes += [] if model.updates is None else [Channels()]
        levels = self._levels(model) if repeated is None else np.array(repeated["sigmas"])
        return study_of(
            source,
            index,
            sigmas=levels,
            probes=probes,
            draws=self.draws if repeated is None else int(repeated["draws"]),
            seed=self._seed,
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

    def _points(self, repeated: dict[str, Any] | None) -> dict[str, list[int]]:
        split, digests = self.source.split, self.source.data.digests()
        if repeated is None:
            chosen = {}
            for at, numbers in (("training", split.pool), ("held_out", split.held_out)):
                order = numpy_rng(self._seed, f"{at} points").permutation(numbers)
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
        if "_checks" in self.__dict__:  # a study is made twice: before a run begins, and in it
            return list(self.__dict__["_checks"])
        data = self.source.data
        training = index["training"][:16]
        conditions = self.conditions(training) if model.bind is not None else None
        checks = check_model(
            model,
            data.tensor(index["held_out"][:16]),
            seed=self._seed,
            training=data.tensor(training),
            conditions=conditions,
        )
        faults = [c.sentence for c in checks if not c.passed and c.name != "derivatives"]
        if faults:
            raise InputError(f"the model is refused at the door: {'; '.join(faults)}")
        self.__dict__["_checks"] = checks
        return checks

    def _declared(self, model: LoadedModel, derivable: bool) -> list[str]:
        found = []
        if self.reserved is None:
            found.append("Half of the held-out images were reserved, and not measured.")
        if self.size is not None:
            crop = {
                None: "",
                "center": ", cropped at the centre",
                "random": ", cropped at the centre (its trainer cropped at random)",
            }[self.crop]
            found.append(
                f"Images were resized to {self.size} pixels ({self.resample or 'bilinear'}){crop}."
            )
        if self.flip:
            found.append("Declared: the model was trained with mirrored images; no mirror control.")
        elif "mirror" in self.chosen and model.flips is None:
            found.append(
                "Its files do not say whether the model was trained with mirrored images; if it "
                "was, the mirror control sees nothing."
            )
        if model.bind is not None:
            known = self.conditions([0])
            what = "its own caption" if self.joined.data.captions is not None else "its own label"
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
                    "reference", num_samples=len(trained), seed=self._seed, step=step
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
        updates = model.updates if kind == "model" else None
        return Subject(
            description, denoiser, dtype, device, training=training, bind=bind, updates=updates
        )

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
            self.network_config, self.training, images, seed=self._seed, device=device
        )
        checkpoint = self._checkpoint(folder)
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


def _about(model: LoadedModel) -> dict[str, Any]:
    # What a study rests on: all but where the files lie, which is no matter.
    return {k: v for k, v in model.about.items() if k not in ("source", "warnings")}
