r"""Sweep: the same recipe trained on more and more of the same data, and measured.

Its subjects are the controls, the exact denoiser of each training set, and a network trained on
each. It may be interrupted anywhere; the same command goes on, does no finished work again, and
ends with the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from geomem.arguments import Whole, checked
from geomem.compute.executor import Executor
from geomem.compute.ranks import leads
from geomem.compute.threads import one_thread
from geomem.data.source import KNOWN_NAMES, DataOptions, Source, load_source
from geomem.data.splits import nested_subsets
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.dimension import LocalDimensions
from geomem.measure.probes import MeasureOptions
from geomem.measure.sketches import Sketches
from geomem.measure.study import Probe, Study
from geomem.measure.subject import Description, Subject
from geomem.models.networks import NetworkConfig, load_network, save_network
from geomem.models.parallel import new_state
from geomem.models.stacked import Member
from geomem.models.train import Training, TrainState, checkpoint_step, train
from geomem.runs.calls import measured_calls, timed
from geomem.runs.design import choose_levels, choose_sizes, study_of
from geomem.runs.jobs import Numbers, jobs_to_do
from geomem.runs.parts import other_parts
from geomem.runs.recipe import TrainOptions
from geomem.runs.records import RunFolder
from geomem.runs.run import Run, exact_seconds
from geomem.runs.together import network_path, stacks_of, train_together
from geomem.stats import numpy_rng


@checked
@dataclass(frozen=True)
class Sweep(Run, TrainOptions, MeasureOptions, DataOptions):
    r"""Train on nested subsets of one data set and measure what each size has lost."""

    seed: Annotated[int, Whole(least=0)] = 0
    """The seed of everything else: split, order, noise, samples."""

    kind: ClassVar[str] = "sweep"

    def __post_init__(self) -> None:
        self.check_budget()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("`seeds` are different numbers; pass at least one")
        if not self.sizes:
            raise InputError("`sizes` is empty; pass training-set sizes N, such as 32 512 all")
        if len(set(self.widths)) < len(self.widths):
            raise InputError("`widths` names a width twice; pass different ones")

    # ------------------------------------------------------------------------------- study

    @cached_property
    def source(self) -> Source:
        r"""The data, split as every process splits them."""
        largest = max((int(n) for n in self.sizes if n != "all"), default=0)
        if self.data in KNOWN_NAMES and largest < 2:
            raise InputError("a manifold has no last point: pass `sizes` of numbers, not `all`")
        return load_source(self, seed=self.seed, largest=largest)

    @cached_property
    def network_config(self) -> NetworkConfig:
        r"""The network for data of this shape."""
        shape = self.source.data.item_shape
        small = int(np.prod(shape)) <= 256 or len(shape) != 3
        kind: Any = self.network if self.network != "auto" else "mlp" if small else "unet"
        if kind == "unet" and len(shape) != 3:
            raise InputError(f"a U-Net needs images, got points of shape {shape}; use mlp")
        if kind == "unet" and (self.widths or self.blocks):
            raise InputError("`widths` and `blocks` are those of an MLP; pass `channels`")
        config = NetworkConfig(kind, shape, self.source.rms, channels=self.channels)
        # The widest one: it takes the most time and memory.
        width, blocks = max(self.widths, default=config.width), self.blocks or config.blocks
        return replace(config, width=width, blocks=blocks)

    def _config_of(self, description: Description) -> NetworkConfig:
        config = self.network_config
        return config if description.width is None else replace(config, width=description.width)

    @property
    def training(self) -> Training:
        r"""The recipe of the largest N; steps and batches that finish, where not given."""
        small = self.network_config.kind == "mlp"
        steps, batch = (6000, 128) if small else (1500, 64)
        steps, batch = self.steps or steps, self.batch_size or batch
        if self.epochs is not None:
            largest = choose_sizes(self.sizes, len(self.source.split.pool))[-1]
            steps = self.steps_after(self.epochs, largest, batch)
        return Training(steps, batch, self.learning_rate, mixed_precision=self.mixed_precision)

    def _training_of(self, description: Description) -> Training:
        # The reference is trained as long as the largest N.
        whole, size = self.training, description.num_samples
        if self.epochs is None or description.kind == "reference" or size is None:
            return whole
        return replace(whole, steps=self.steps_after(self.epochs, size, whole.batch_size))

    def _moments(self, num_samples: int) -> list[int]:
        # The steps at which a training on N images is measured, increasing; the last is its end.
        whole = self.training
        if self.epochs is None:
            return sorted({*self.measured_steps, whole.steps})
        passes = (*self.measured_epochs, self.epochs)
        return sorted({self.steps_after(e, num_samples, whole.batch_size) for e in passes})

    def study(self) -> Study:
        r"""Points, levels and probes; the data by their digests.

        Raises:
            InputError: If the data do not have so many images, or the network cannot take them.
        """
        source = self.source
        sizes = choose_sizes(self.sizes, len(source.split.pool))
        self.network_config.build(seed=0)  # refuses channels that it cannot be built of
        pool = len(source.split.pool)
        whole = nested_subsets(source.split.pool, [pool], self.seed)[pool]
        order = whole[: sizes[-1]]
        held_out = numpy_rng(self.seed, "held-out points").permutation(source.split.held_out)
        if any(step >= self.training.steps for step in self.measured_steps):
            raise InputError(f"`measured_steps` must be below the {self.training.steps} steps")
        control, reason = self._choose_control(order[: self.points], sizes)
        probes: list[Probe] = []
        parts: dict[str, Any] = {}
        if self.disjoint > 1:
            split, others = other_parts(whole, source.groups, sizes, self.points, self.disjoint)
            probes, parts = [Sketches()], {"part_sizes": split, "parts": others}
        if self.together and self.network_config.kind != "mlp":
            raise InputError("`together` stacks MLPs, and this is a U-Net; leave it out")
        budget = {
            "epochs": self.epochs,
            "mixed_precision": self.mixed_precision,
            "together": self.together,
        }
        return study_of(
            source,
            {
                "training": order[: self.points].tolist(),
                "held_out": held_out[: self.points].tolist(),
            },
            sigmas=choose_levels(source, self.sigmas, self.levels),
            probes=[*self.probes_of(self._jacobians), *probes],
            draws=self.draws,
            seed=self.seed,
            control=control,
            more={
                "order": order.tolist(),
                "sizes": sizes,
                "control_reason": reason,
                "reference": self._rest(order[: self.points]) if control == "reference" else [],
                **parts,
                # Named only where asked for: studies of before keep their digests.
                **{name: value for name, value in budget.items() if value},
            },
        )

    @property
    def _jacobians(self) -> int:
        default = self.points if self.network_config.kind == "mlp" else 8
        return default if self.jacobian_points is None else self.jacobian_points

    def _rest(self, measured: NDArray[np.int64]) -> list[int]:
        # The pool without the measured images, and without what belongs to their groups.
        source = self.source
        pool = source.split.pool
        there = np.isin(source.groups[pool], source.groups[measured])
        return [int(i) for i in pool[~there]]

    def _choose_control(self, measured: NDArray[np.int64], sizes: Sequence[int]) -> tuple[str, str]:
        known = self.source.population is not None
        left, least = len(self._rest(measured)), max(2 * len(measured), sizes[-1] // 2)
        if self.control == "population" and not known:
            raise InputError("`control` is population, which these data do not know; pass auto")
        if self.control == "reference" and left < 2:
            raise InputError("`control` is reference, and no image of the pool is left to train it")
        if self.control != "auto":
            return self.control, "as asked"
        if known:
            return "population", "the population is known"
        if left >= least:
            return "reference", f"{left} images of the pool are not measured"
        return "linear", f"only {left} images of the pool are not measured, and {least} are wanted"

    def subjects(self, study: Study) -> list[Description]:
        r"""Controls, exact denoisers and networks, in this order."""
        sizes, rest = study.content["sizes"], study.content["reference"]
        split, first_part = study.content.get("part_sizes", []), 0 if self.disjoint > 1 else None
        parts = {n: [first_part, *range(1, self.disjoint if n in split else 1)] for n in sizes}
        known = [Description("linear")]
        known += [Description("population")] if self.source.population is not None else []
        known += [Description("empirical", num_samples=n) for n in sizes]
        if rest:
            known += self._references(len(rest), sizes[-1])
        return known + [
            Description("learned", num_samples=n, seed=s, step=k, width=w, part=part)
            for n in sizes
            for part in parts[n]
            for w in self.widths or (None,)
            for s in self.seeds
            for k in self._moments(n)
        ]

    def _references(self, num_samples: int, largest: int) -> list[Description]:
        # Networks that never saw the measured images; one is enough to stand beside.
        end = self._moments(largest)[-1]
        return [Description("reference", num_samples=num_samples, seed=self.seeds[0], step=end)]

    # ---------------------------------------------------------------------------- subjects

    def ready(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int],
        device: str,
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Subject, float]]:
        r"""Builds exact denoisers; trains networks and stops at each step that is measured."""
        subjects = folder.subjects
        for number in numbers:
            if subjects[number].kind in ("learned", "reference"):
                yield from self._trained(folder, study, numbers, device, report)
                return
            yield number, self._exact(subjects[number], study), 1.0

    def _exact(self, description: Description, study: Study) -> Subject:
        if description.num_samples is not None:
            index = study.content["order"][: description.num_samples]
            denoiser: Denoiser = EmpiricalDenoiser(self.source.data.tensor(index))
            return Subject(description, denoiser, training=index)
        if description.kind == "population" and self.source.population is not None:
            return Subject(description, self.source.population)
        return Subject(description, self.source.linear_control)

    def _trained(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int],
        device: str,
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Subject, float]]:
        subjects = folder.subjects
        recipe, wanted = subjects[numbers[-1]], {subjects[k].step: k for k in numbers}
        member, networks = self._member(recipe, study), folder.path / "networks"
        # The reference is measured at the training points of the others.
        own = None if recipe.kind == "reference" else self._index(recipe, study)
        if self.together:
            for done, number in enumerate(numbers, start=1):
                found = network_path(networks, member.name, int(subjects[number].step or 0))
                denoiser = load_network(found).to(device)
                measured = Subject(subjects[number], denoiser, torch.float32, device, own)
                yield number, measured, done / len(numbers)
            return
        config, training = self._config_of(recipe), self._training_of(recipe)
        state = new_state(
            config, training, member.data, seed=self.seed, unit=member.unit, device=device
        )
        checkpoint = self._checkpoint(folder, member.name)
        if checkpoint_step(checkpoint) > min(int(step or 0) for step in wanted):
            checkpoint.unlink(missing_ok=True)  # a record was deleted that lies before it
        steps = training.steps
        for moment in train(state, max(1, steps // 20), checkpoint, [k for k in wanted if k]):
            share = 0.87 * moment.step / steps
            report(share)
            if moment.step in wanted:
                number = wanted[moment.step]
                save_network(
                    moment.average, config, network_path(networks, member.name, moment.step)
                )
                subject = Subject(subjects[number], moment.average, torch.float32, device, own)
                yield number, subject, share + (0.13 if moment.step == steps else 0.0)
        checkpoint.unlink(missing_ok=True)

    def _index(self, recipe: Description, study: Study) -> list[int]:
        if recipe.kind == "reference":
            return list(study.content["reference"])
        part = recipe.part or 0
        order = study.content["parts"][part - 1] if part else study.content["order"]
        return list(order[: recipe.num_samples])

    def _name(self, recipe: Description) -> str:
        # Of the training that a network is a moment of, and of its files.
        width = "" if recipe.width is None else f"-width{recipe.width:04d}"
        name = "reference-" * (recipe.kind == "reference")
        name += f"N{recipe.num_samples:06d}{width}-seed{recipe.seed}"
        return name + f"-part{recipe.part}" * bool(recipe.part)

    def _checkpoint(self, folder: RunFolder, name: str) -> Path:
        return folder.path / "checkpoints" / f"{name}.safetensors"

    def _member(self, recipe: Description, study: Study) -> Member:
        # All sizes and parts of one seed share initial weights and draws of levels: only the
        # images differ.
        images = self.source.data.tensor(self._index(recipe, study))
        return Member(self._name(recipe), images, int(recipe.seed or 0))

    def check_device(self, device: str) -> None:
        r"""Refuses what cannot be trained there, on all ranks where there are several.

        Raises:
            InputError: If the device is not there, or ranks cannot share the trainings.
        """
        super().check_device(device)
        ranks = leads()
        if ranks is None:
            return
        if ":" in device:
            raise InputError(
                f"`device` is {device}, and each of {ranks.count} ranks takes one of its own; "
                f"pass {device.partition(':')[0]}"
            )
        if self.together:
            raise InputError(
                f"`together` trains on one device, and a launcher started {ranks.count} ranks; "
                "leave it out, or start one process"
            )
        if self.training.batch_size < ranks.count:
            raise InputError(
                f"`batch_size` is {self.training.batch_size}, which {ranks.count} ranks cannot "
                "share; pass a larger one, or start fewer processes"
            )

    def _work(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int] | None,
        executor: Executor,
        device: str,
        quiet: bool,
    ) -> list[int]:
        if self.together and jobs_to_do(folder, numbers):
            trained = [s for s in folder.subjects if s.kind in ("learned", "reference")]
            stacks = stacks_of(
                trained, lambda one: self._member(one, study), self._config_of, self.training
            )
            train_together(folder.path, stacks, seed=self.seed, device=device, quiet=quiet)
        return super()._work(folder, study, numbers, executor, device, quiet)

    # ----------------------------------------------------------------------------- forecast

    def seconds(self, subject: Description, study: Study, device: str = "cpu") -> float:
        r"""Seconds that a subject takes on a device, roughly."""
        levels = len(study.sigmas)
        asked = 2 * self.dimension_points * levels * self._question_seconds(subject, study, device)
        if subject.kind not in ("learned", "reference"):
            return exact_seconds(study, subject.num_samples) + asked
        calls = measured_calls(study, self._jacobians, self.samples, self.trajectories)
        # A step is three calls of its batch, forwards and backwards.
        a_step, batch = self._step_seconds(subject.width, device), self._share
        return a_step * self._own_steps(subject, study) + calls * a_step / (3 * batch) + asked

    def seconds_left(self, folder: RunFolder, study: Study, job: Numbers, device: str) -> float:
        r"""Seconds that a job still takes: a training goes on from its checkpoint."""
        whole, subjects = super().seconds_left(folder, study, job, device), folder.subjects
        recipe = subjects[job[-1]]
        if recipe.kind not in ("learned", "reference") or self.together:
            return whole
        counted = sum(self._own_steps(subjects[number], study) for number in job)
        # One that lies behind a network that is missing is of no use: all begins anew.
        done = checkpoint_step(self._checkpoint(folder, self._name(recipe)))
        left = int(recipe.step or 0) - done * (done <= int(subjects[job[0]].step or 0))
        return whole + (left - counted) * self._step_seconds(recipe.width, device)

    def _own_steps(self, subject: Description, study: Study) -> int:
        # One training passes through all steps at which it is measured.
        if self.together:
            return 0  # forecast when they begin
        last = subject.step or 0
        same = self._same_training(subject, study)
        return last - max((step for step in same if step < last), default=0)

    def _same_training(self, subject: Description, study: Study) -> list[int]:
        # The steps at which the training of a subject is measured.
        if subject.kind == "reference":
            references = self._references(0, study.content["sizes"][-1])
            return [r.step or 0 for r in references if r.width == subject.width]
        return self._moments(subject.num_samples or 0)

    def _question_seconds(self, description: Description, study: Study, device: str) -> float:
        # Of one question to each dimension method, on a denoiser of the same size.
        if not self.dimension:
            return 0.0
        if description.kind in ("learned", "reference"):
            network = self._config_of(description).build(0).eval().to(device)
            subject = Subject(description, network, torch.float32, device)
        else:
            subject = self._exact(description, study)
        with one_thread():
            return LocalDimensions(self.dimension).question_seconds(subject, study)

    def _step_seconds(self, width: int | None, device: str) -> float:
        # Timed once where it will be done, since nothing else tells.
        known: dict[tuple[int | None, str], float] = self.__dict__.setdefault("_timed", {})
        if (width, device) not in known:
            config = self._config_of(Description("learned", width=width))
            zeros = torch.zeros(2, *self.source.data.item_shape)
            # Several ranks take a step as long as that of the largest share of its batch.
            share = replace(self.training, batch_size=self._share)
            state = TrainState(config, share, zeros, seed=0, device=device)
            known[width, device] = timed(state.advance, device)
        return known[width, device]

    @property
    def _share(self) -> int:
        # The rows of a batch that one rank computes, at most.
        ranks = leads()
        return -(-self.training.batch_size // (1 if ranks is None else ranks.count))

    def cheaper(self, seconds: float) -> str:
        r"""Settings that take less time, where this takes long."""
        steps = self.training.steps
        half = f"`steps` {max(1, steps // 2)} takes about half as long"
        if self.epochs is not None:
            half = f"`epochs` {self.epochs / 2:g} takes about half as long"
        fewer = f"{self._trainings} networks are trained: pass fewer `sizes`"
        return f"{half}; {fewer}; or give a `budget`, such as 30m"

    def within(self, seconds: float, workers: int, device: str = "cpu") -> Sweep:
        r"""The same sweep with so many steps as fit into a time on this machine, at least 100.

        Arguments:
            seconds: The time in all.
            workers: How many networks are trained at a time, at the pace of one alone.
            device: Where they are trained.
        """
        networks = self._trainings + 1
        share = seconds * 0.85 * min(workers, networks) / networks
        widest = max(self._step_seconds(width, device) for width in (None, *self.widths))
        return replace(self, steps=max(100, int(share / widest / 1.15)))

    @property
    def _trainings(self) -> int:
        # At most: sizes that leave no second part are trained once.
        return len(self.sizes) * len(self.seeds) * self.disjoint * max(1, len(self.widths))

    def num_bytes(self, study: Study) -> float:
        r"""Bytes of memory that one worker takes, roughly."""
        d, n = int(study.content["data"]["ambient_dim"]), int(study.content["sizes"][-1])
        batch = 512.0 * d * 4 * 8 + 4.0 * d * max(self.samples, self.training.batch_size) * 4
        entries = len(study.directions.counts)
        record = 8.0 * 2 * self.points * len(study.sigmas) * (self.draws + 2) * entries
        return 8.0 * n * d + 8.0 * 4 * 512 * n + 8.0 * 3 * d * d + batch + record + 4e8
