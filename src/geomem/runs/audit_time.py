r"""How long an audit takes, and how a time becomes a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from geomem.compute.devices import is_accelerator
from geomem.errors import InputError
from geomem.measure.study import Study
from geomem.measure.subject import Description
from geomem.models.train import TrainState, checkpoint_step
from geomem.runs.audited import FEWEST_STEPS, MOST_STEPS, STEPS, Audited
from geomem.runs.calls import basis_calls, measured_calls, model_calls, timed
from geomem.runs.jobs import Numbers
from geomem.runs.records import RunFolder
from geomem.runs.run import exact_seconds


@dataclass(frozen=True)
class TimedAudit(Audited):
    r"""The forecasts of an audit, from calls and steps timed on this machine."""

    def seconds(self, subject: Description, study: Study, device: str = "cpu") -> float:
        r"""Seconds that a subject takes on a device, roughly."""
        if subject.kind in ("linear", "empirical"):
            return exact_seconds(study, subject.num_samples) + 2.0
        plan, errors_only = study.content["plan"], subject.kind == "mirror"
        whole = subject.kind in ("model", "base")
        calls = measured_calls(
            study,
            jacobians=0 if errors_only else plan["jacobian_points"],
            samples=plan["samples"] if whole else 0,
            trajectories=plan["trajectories"] if whole else 0,
        )
        calls += 0 if errors_only else basis_calls(self._bases)
        if subject.kind == "reference" and study.content["reference"]:
            a_step = self._step_seconds(device)
            return self.training.steps * a_step * 1.15 + calls * a_step / 200
        return calls * self._call_seconds(device)

    def seconds_left(self, folder: RunFolder, study: Study, job: Numbers, device: str) -> float:
        r"""Seconds that a job still takes: the reference goes on from its checkpoint."""
        whole = super().seconds_left(folder, study, job, device)
        recipe = folder.subjects[job[-1]]
        if recipe.kind != "reference" or not study.content["reference"]:
            return whole
        done = checkpoint_step(self._checkpoint(folder))
        return whole - done * self._step_seconds(device) * 1.15 if done else whole

    def _checkpoint(self, folder: RunFolder) -> Path:
        return folder.path / "checkpoints" / "reference.safetensors"

    def _call_seconds(self, device: str) -> float:
        # Of the model at one noised point, in a batch.
        return self._once("call", device, self._timed_call)

    def _step_seconds(self, device: str) -> float:
        return self._once("step", device, self._timed_step)

    def _once(self, what: str, device: str, timing: Callable[[str], float]) -> float:
        # Timed once where it will be done, since nothing else tells.
        known: dict[tuple[str, str], float] = self.__dict__.setdefault("_timed", {})
        if (what, device) not in known:
            known[what, device] = timing(device)
        return known[what, device]

    def _timed_call(self, device: str) -> float:
        model = self.opened(device)
        numbers = [int(i) for i in np.resize(self.source.split.held_out, 64)]
        x = self.source.data.tensor(numbers)
        x = x.to(device, torch.float64 if model.dtype == torch.float64 else torch.float32)
        bind = self._bind(model)
        denoiser = model.denoiser if bind is None else bind(numbers)
        sigma = torch.tensor(float(np.sqrt(np.prod(model.sigma_range))) or 1.0).to(x)

        @torch.no_grad()
        def call() -> None:
            denoiser(x, sigma)

        each = timed(call, device) / len(x)
        if is_accelerator(device):
            self.__dict__["_opened"].pop(("model", device))  # its memory is for who measures
        return each

    def _timed_step(self, device: str) -> float:
        zeros = torch.zeros(2, *self.source.data.item_shape)
        state = TrainState(self.network_config, self.training, zeros, seed=0, device=device)
        return timed(state.advance, device)

    def cheaper(self, seconds: float) -> str:
        r"""Settings that take less time, where this takes long."""
        return "give a `budget`, such as 10m; or pass fewer `points`, `samples` 0, or `controls`"

    def within(self, seconds: float, workers: int, device: str = "cpu") -> Self:
        r"""The same audit, planned to fit into a time on this machine.

        Less is measured in this order: samples and trajectories, Jacobians, levels, points, until
        the reference has half of the steps that it gets without a budget: it makes errors
        smaller than more of anything else does. Where no plan leaves it that much it gets what
        the fullest plan leaves, and is left out where fewer than 300 steps fit.

        Arguments:
            seconds: The time in all.
            workers: How many subjects are measured at a time, at the pace of one alone.
            device: Where they are measured.

        Raises:
            InputError: If even the smallest audit takes longer.
        """
        few = {"samples": min(self.samples, 64), "trajectories": min(self.trajectories, 8)}
        none = {"samples": 0, "trajectories": 0, "jacobian_points": 0}
        tries: list[dict[str, Any]] = [
            {},
            few,
            {**few, "jacobian_points": min(self._jacobians, 8)},
            none,
            {**none, "levels": min(self.levels, 12)},
            {**none, "levels": min(self.levels, 12), "points": min(self.points, 32)},
        ]
        fullest: Self | None = None
        for fewer in tries:
            planned = replace(self, **fewer, controls=self.chosen)
            planned.__dict__["_timed"] = self.__dict__.setdefault("_timed", {})
            measuring = planned._measuring(workers, device)
            if measuring > 0.8 * seconds:
                continue
            planned = planned._with_reference(0.9 * seconds, measuring, workers, device)
            steps = planned.reference_steps or 0
            if not self._trains or steps >= STEPS[self.network_config.kind] // 2:
                return planned
            fullest = fullest or planned
        if fullest is not None:
            return fullest
        raise InputError(
            f"`budget` allows {seconds:.0f} s, and the smallest audit takes about {measuring:.0f} "
            "s here; give more time, or a `device`"
        )

    def _measuring(self, workers: int, device: str) -> float:
        # Without the training of a reference.
        calls = 2.0 * self.points * self.draws * self.levels
        models = [model_calls(self.plan, len(self.source.directions.counts), self._bases)]
        models += [calls] * ("mirror" in self.chosen) + models[:1] * ("base" in self.chosen)
        exact = 2e-9 * calls * len(self.source.split.pool) * np.prod(self.source.data.item_shape)
        a_call = self._call_seconds(device)
        return float(exact + a_call * max(sum(models) / workers, models[0]) + 5)

    def _with_reference(self, seconds: float, measuring: float, workers: int, device: str) -> Self:
        if not self._trains:
            return self
        # With several workers it is trained while the others measure.
        left = seconds - measuring if workers == 1 else seconds - 0.3 * measuring
        steps = min(MOST_STEPS, int(left / self._step_seconds(device) / 1.3))
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
