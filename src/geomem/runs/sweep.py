r"""Sweep: the same recipe trained on more and more of the same data, and measured.

Its subjects are the controls, the exact denoiser of each training set, and a network trained on
each. It may be interrupted anywhere; the same command goes on, does no finished work again, and
ends with the same records.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from geomem.arguments import Number, Whole, checked
from geomem.compute.threads import one_thread
from geomem.data.source import LINEAR_NAMES, DataOptions, Source, load_source
from geomem.data.splits import nested_subsets, split_text
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.dimension import LocalDimensions
from geomem.measure.probes import MeasureOptions
from geomem.measure.study import Study, make_study
from geomem.measure.subject import Description, Subject
from geomem.models.networks import NetworkConfig, save_network
from geomem.models.train import Training, TrainState, checkpoint_step, train
from geomem.noise import log_levels
from geomem.runs.records import RunFolder
from geomem.runs.run import Run, exact_seconds
from geomem.stats import numpy_rng

Size = Annotated[int, Whole(least=2)] | Literal["all"]


@checked
@dataclass(frozen=True)
class TrainOptions:
    r"""How networks are trained: the same recipe for every N."""

    sizes: tuple[Size, ...] = (32, 128, 512, "all")
    """Training-set sizes N, nested: the images of a smaller one are in every larger one."""
    steps: Annotated[int, Whole(least=1)] = 6000
    """Training steps: the same number for every N."""
    batch_size: Annotated[int, Whole(least=1)] = 128
    """Images a step."""
    learning_rate: Annotated[float, Number(above=0.0)] = 1e-3
    """Adam's rate; linearly to 0 in the second half."""
    seeds: tuple[Annotated[int, Whole(least=0)], ...] = (0,)
    """Seeds of the training; several give an error over trainings."""
    measured_steps: tuple[Annotated[int, Whole(least=1)], ...] = ()
    """Earlier steps at which networks are measured, too."""
    network: Literal["auto", "mlp", "unet"] = "auto"
    """The backbone; auto takes an MLP up to 256 coordinates, a U-Net for larger images."""
    channels: tuple[Annotated[int, Whole(least=1)], ...] = (32, 64, 64)
    """Channels of the U-Net at each resolution."""


@checked
@dataclass(frozen=True)
class Sweep(Run, TrainOptions, MeasureOptions, DataOptions):
    r"""Train on nested subsets of one data set and measure what each size has lost."""

    seed: Annotated[int, Whole(least=0)] = 0
    """The seed of everything else: split, order, noise, samples."""

    kind: ClassVar[str] = "sweep"

    def __post_init__(self) -> None:
        late = [step for step in self.measured_steps if step >= self.steps]
        if late:
            raise InputError(f"`measured_steps` has {late[0]}; pass steps below {self.steps}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("`seeds` are different numbers; pass at least one")
        if not self.sizes:
            raise InputError("`sizes` is empty; pass training-set sizes N, such as 32 512 all")

    # ------------------------------------------------------------------------------- study

    @cached_property
    def source(self) -> Source:
        r"""The data, split as every process splits them."""
        largest = max((int(n) for n in self.sizes if n != "all"), default=0)
        if self.data in LINEAR_NAMES and largest < 2:
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
        return NetworkConfig(kind, shape, self.source.rms, channels=self.channels)

    @property
    def training(self) -> Training:
        r"""The training recipe."""
        return Training(self.steps, self.batch_size, self.learning_rate)

    def study(self) -> Study:
        r"""Points, levels and probes; the data by their digests.

        Raises:
            InputError: If the data do not have so many images, or the network cannot take them.
        """
        source = self.source
        sizes = choose_sizes(self.sizes, len(source.split.pool))
        self.network_config.build(seed=0)  # refuses channels that it cannot be built of
        order = nested_subsets(source.split.pool, [sizes[-1]], self.seed)[sizes[-1]]
        held_out = numpy_rng(self.seed, "held-out points").permutation(source.split.held_out)
        default = self.points if self.network_config.kind == "mlp" else 8
        jacobians = default if self.jacobian_points is None else self.jacobian_points
        return study_of(
            source,
            {
                "training": order[: self.points].tolist(),
                "held_out": held_out[: self.points].tolist(),
            },
            sigmas=choose_levels(source, self.sigmas, self.levels),
            probes=self.probes_of(jacobians),
            draws=self.draws,
            seed=self.seed,
            more={"order": order.tolist(), "sizes": sizes},
        )

    def subjects(self, study: Study) -> list[Description]:
        r"""Controls, exact denoisers and networks, in this order."""
        sizes = study.content["sizes"]
        known = [Description("linear")]
        known += [Description("population")] if self.source.population is not None else []
        known += [Description("empirical", num_samples=n) for n in sizes]
        steps = sorted({*self.measured_steps, self.steps})
        return known + [
            Description("learned", num_samples=n, seed=s, step=k)
            for n in sizes
            for s in self.seeds
            for k in steps
        ]

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
            if subjects[number].kind == "learned":
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
        wanted = {subjects[k].step: k for k in numbers}
        recipe = subjects[numbers[-1]]
        index = study.content["order"][: recipe.num_samples]
        state = TrainState(
            self.network_config,
            self.training,
            self.source.data.tensor(index),
            seed=self.seed,
            # All sizes of one seed share initial weights and draws of levels: size differs.
            unit=int(recipe.seed or 0),
            device=device,
        )
        name = f"N{recipe.num_samples:06d}-seed{recipe.seed}"
        checkpoint = folder.path / "checkpoints" / f"{name}.safetensors"
        if checkpoint_step(checkpoint) > min(int(step or 0) for step in wanted):
            checkpoint.unlink(missing_ok=True)  # a record was deleted that lies before it
        every = max(1, self.steps // 20)
        if self.measured_steps:
            every = math.gcd(every, self.steps, *self.measured_steps)
        for moment in train(state, every, checkpoint):
            share = 0.87 * moment.step / self.steps
            report(share)
            if moment.step in wanted:
                number = wanted[moment.step]
                path = folder.path / "networks" / f"{name}-step{moment.step}"
                save_network(moment.average, self.network_config, path)
                subject = Subject(
                    subjects[number], moment.average, torch.float32, device, training=index
                )
                yield number, subject, share + (0.13 if moment.step == self.steps else 0.0)
        checkpoint.unlink(missing_ok=True)

    # ----------------------------------------------------------------------------- forecast

    def seconds(self, subject: Description, study: Study) -> float:
        r"""Seconds that a subject takes, roughly."""
        levels = len(study.sigmas)
        asked = 2 * self.dimension_points * levels * self._question_seconds(subject, study)
        if subject.kind != "learned":
            return exact_seconds(study, subject.num_samples) + asked
        return self._step_seconds * self.steps * 1.15 + asked

    def _question_seconds(self, description: Description, study: Study) -> float:
        # Of one question to each dimension method, on a denoiser of the same size.
        if not self.dimension:
            return 0.0
        if description.kind == "learned":
            network = self.network_config.build(0).eval()
            subject = Subject(description, network, torch.float32)
        else:
            subject = self._exact(description, study)
        with one_thread():
            return LocalDimensions(self.dimension).question_seconds(subject, study)

    @cached_property
    def _step_seconds(self) -> float:
        # Timed on this machine, since nothing else tells.
        shape = self.source.data.item_shape
        state = TrainState(self.network_config, self.training, torch.zeros(2, *shape), seed=0)
        with one_thread():
            state.advance()
            start, steps = time.perf_counter(), 0
            while time.perf_counter() - start < 0.5 or steps < 2:
                state.advance()
                steps += 1
        return (time.perf_counter() - start) / steps

    def num_bytes(self, study: Study) -> float:
        r"""Bytes of memory that one worker takes, roughly."""
        d, n = int(study.content["data"]["ambient_dim"]), int(study.content["sizes"][-1])
        batch = 512.0 * d * 4 * 8 + 4.0 * d * max(self.samples, self.batch_size) * 4
        entries = len(study.directions.counts)
        record = 8.0 * 2 * self.points * len(study.sigmas) * (self.draws + 2) * entries
        return 8.0 * n * d + 8.0 * 4 * 512 * n + 8.0 * 3 * d * d + batch + record + 4e8


# ------------------------------------------------------------------------------------ choices


def study_of(
    source: Source,
    index: Mapping[str, Sequence[int]],
    *,
    sigmas: NDArray[np.float64],
    probes: Sequence[Any],
    draws: int,
    seed: int,
    more: dict[str, Any],
) -> Study:
    r"""A study of images of a source, with all that it rests on by digest.

    Arguments:
        source: The data and their parts.
        index: The numbers of the points of each kind in the data.
        sigmas: The noise levels in the data's units, increasing.
        probes: What is asked.
        draws: Noise draws for each image.
        seed: The seed of the noise.
        more: Further JSON values that belong to the study.
    """
    data, split = source.data, source.split
    if min(len(split.held_out), len(split.reserved)) < 8:
        raise InputError(
            "fewer than 8 held-out or reserved images say nothing; hold out more of the data"
        )
    points = {at: [int(i) for i in numbers] for at, numbers in index.items()}
    digests = data.digests()
    names = data.files if data.files is not None else [str(i) for i in range(len(data))]
    return make_study(
        {at: data.tensor(i) for at, i in points.items()},
        directions=source.directions,
        sigmas=torch.from_numpy(sigmas),
        probes=probes,
        rms=source.rms,
        draws=draws,
        seed=seed,
        control="linear" if source.population is None else "population",
        points=points,
        source=source,
        more={
            "data": about(source),
            "point_groups": {at: [int(g) for g in source.groups[i]] for at, i in points.items()},
            "point_names": {at: [names[k] for k in i] for at, i in points.items()},
            "point_digests": {at: [digests[k] for k in i] for at, i in points.items()},
            **more,
        },
    )


def about(source: Source) -> dict[str, Any]:
    r"""What a study rests on, by digest: images, split, groups and labels."""
    data, split = source.data, source.split
    return {
        "name": data.name,
        "digest": data.digest,
        "item_shape": list(data.item_shape),
        "ambient_dim": math.prod(data.item_shape),
        "quantum": data.quantum,
        "pool": len(split.pool),
        "held_out": len(split.held_out),
        "reserved": len(split.reserved),
        "left_out": split.left_out,
        "split": _digest(split_text(split, data).encode()),
        "groups": _digest(source.groups.tobytes()),
        "labels": None if data.labels is None else _digest(data.labels.tobytes()),
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def default_window(source: Source) -> tuple[float, float]:
    r"""The default window of noise levels, in the data's units.

    From the larger of .03 rms and half a quantisation step (below it noise sees the grid of
    grey levels) to where the control's error is below 2 % of its maximum.
    """
    low = max(0.03 * source.rms, source.data.quantum / 2)
    grid = np.geomspace(low, 1e4 * source.rms, 2000)
    control = source.linear_control
    variances = torch.cat([control.variances, torch.full((control.complement,), control.rest)])
    errors = np.array([float((variances / (variances + s**2)).sum()) for s in grid])
    return low, float(grid[errors < 0.02 * errors[0]][0])


def choose_levels(
    source: Source, relative: Sequence[float] | None, count: int, least: int = 2
) -> NDArray[np.float64]:
    r"""The noise levels in the data's units: those asked for, or a grid over the window."""
    if relative is None:
        return log_levels(*default_window(source), count).numpy()
    levels = np.array(sorted(set(relative)), dtype=float)
    if len(levels) < least:
        raise InputError(
            f"`sigmas` is {list(relative)}; pass at least {least} different levels, in units of "
            "the data's rms"
        )
    if not (levels[0] >= 1e-6 and levels[-1] <= 1e6):
        raise InputError(f"`sigmas` is {list(relative)}; pass levels from 1e-6 to 1e6 rms")
    return levels * source.rms


@checked
def choose_sizes(sizes: tuple[Size, ...], pool: int) -> list[int]:
    r"""Training-set sizes, increasing; ``all`` is the whole pool.

    Raises:
        InputError: If one is below 2, or above the pool.
    """
    numbers = sorted({pool if size == "all" else int(size) for size in sizes})
    if numbers[-1] > pool:
        raise InputError(
            f"`sizes` has N = {numbers[-1]}, larger than the pool of {pool} images; pass sizes up "
            f"to {pool}, or `all`"
        )
    return numbers
