r"""Sweep: the same recipe trained on more and more of the same data, and measured.

``Sweep(...).run(out)`` works through the units of its design, several processes at a time:
the controls, the exact denoiser of each training set, and a network trained on each. It may
be interrupted anywhere; the same command goes on, does no finished work again, and ends with
the same records.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from geomem.compute.executor import Executor
from geomem.compute.local import LocalExecutor
from geomem.compute.progress import Forecast, Progress, say
from geomem.compute.threads import one_thread
from geomem.denoiser import Denoiser
from geomem.dimension import DimensionMethod
from geomem.dimension.names import dimension_method
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.findings.sentences import summarize
from geomem.manifolds import PAPER_VARIANCES
from geomem.measure.dimension import Subject, question_seconds
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState
from geomem.runs.design import (
    LINEAR_NAMES,
    Source,
    choose_levels,
    choose_sizes,
    load_source,
    make_design,
)
from geomem.runs.jobs import Numbers, Task, jobs_to_do, run_job
from geomem.runs.provenance import describe
from geomem.runs.records import RunFolder, Unit, check_folder, load, write_json


@dataclass(frozen=True)
class Sweep:
    r"""Train on nested subsets of one data set and measure what each size has lost.

    Ends with a page of what was found. Interrupted, the same command goes on.
    """

    data: str
    """A name (digits, mnist, fashion-mnist, cifar10, olivetti, linear, linear-sphere) or a path
    to .npy, .npz[:key], idx.gz or a folder of images."""
    sizes: tuple[int | Literal["all"], ...] = (32, 128, 512, "all")
    """Training-set sizes N, nested: the images of a smaller one are in every larger one."""
    sigmas: tuple[float, ...] | None = None
    """Noise levels in units of the data's rms deviation; the default window if not given."""
    levels: int = 20
    """How many levels the default window gets."""
    points: int = 64
    """Training images and held-out images that are measured."""
    draws: int = 4
    """Noise draws for each image."""
    jacobian_points: int | None = None
    """At how many images the Jacobian is measured; all of them for an MLP, 8 for a U-Net."""
    dimension: tuple[str, ...] = ()
    """Methods of local dimension to record, too: names, or package.module:Class of your own."""
    dimension_points: int = 8
    """At how many training and held-out images they are asked."""
    samples: int = 256
    """Samples that each network generates, to look for copies."""
    steps: int = 6000
    """Training steps: the same number for every N."""
    batch_size: int = 128
    """Images a step."""
    learning_rate: float = 1e-3
    """Adam's rate; linearly to 0 in the second half."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the training; several give an error over trainings."""
    measured_steps: tuple[int, ...] = ()
    """Earlier steps at which networks are measured, too."""
    network: Literal["auto", "mlp", "unet"] = "auto"
    """The backbone; auto takes an MLP up to 256 coordinates, a U-Net for larger images."""
    channels: tuple[int, ...] = (32, 64, 64)
    """Channels of the U-Net at each resolution."""
    split: Path | None = None
    """A file written by `geomem split`; the default split of the data if not given."""
    groups: Path | None = None
    """CSV with header file,value, as for `geomem split`: images of one value are one unit."""
    variances: tuple[float, ...] = PAPER_VARIANCES
    """Variances of `linear` and `linear-sphere`; the paper's if not given."""
    ambient_dim: int = 30
    """Dimension of the space around `linear` and `linear-sphere`."""
    show_images: bool = False
    """Keep pixels of training images in the records and show them on the page."""
    seed: int = 0
    """The seed of everything else: split, order, noise, samples."""

    def __post_init__(self) -> None:
        least = {"levels": 2, "points": 8, "draws": 1, "samples": 0, "steps": 1, "batch_size": 1}
        least["dimension_points"] = 1
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InputError(f"--{name.replace('_', '-')} must be at least {value}")
        if any(not 0 < step < self.steps for step in self.measured_steps):
            raise InputError("--measured-steps lie between 0 and --steps")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("--seeds are different numbers, at least one")

    # ---------------------------------------------------------------------------- running

    def run(
        self,
        out: Path,
        *,
        processes: int | None = None,
        executor: Executor | None = None,
        device: str = "cpu",
        quiet: bool = False,
    ) -> xr.Dataset:
        r"""Runs, or goes on with, the sweep in a folder.

        Arguments:
            out: The run folder.
            processes: How many processes of this machine work at a time, where no executor
                is given; one a core if neither is.
            executor: Who works: :class:`~geomem.compute.local.LocalExecutor` or
                :class:`~geomem.compute.ray.RayExecutor`.
            device: Where networks are trained and measured.
            quiet: Whether to show no progress.

        Returns:
            The dataset of :func:`geomem.runs.records.load`.

        Raises:
            InputError: If the data or the folder cannot be used.
        """
        started = time.time()
        folder = self.prepare(out)
        jobs = jobs_to_do(folder)
        if jobs:
            self._work(folder, jobs, executor or LocalExecutor(processes), device, quiet)
        dataset = load(folder.path)
        write_json(folder.path / "summary.json", summarize(dataset))
        _write_provenance(folder, folder.path / "provenance.json", started, device)
        shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)
        return dataset

    def run_units(
        self,
        out: Path,
        numbers: Sequence[int],
        *,
        executor: Executor | None = None,
        device: str = "cpu",
        quiet: bool = False,
    ) -> list[Unit]:
        r"""Does single units of the run, and no more: what a scheduler calls, anywhere.

        The jobs of these units are done: a network measured at several steps is trained
        once. A unit whose record is there is left alone. The last call is :meth:`run`, which
        finds nothing left to do and writes the summary.

        Arguments:
            out: The run folder; it is started if it is not there.
            numbers: The numbers of the units in the run's list.
            executor: Who works; this very process if not given.
            device: Where networks are trained and measured.
            quiet: Whether to show no progress.

        Returns:
            The units that were done by this call.

        Raises:
            InputError: If the data or the folder cannot be used, or has no such unit.
        """
        started = time.time()
        folder = self.prepare(out)
        jobs = jobs_to_do(folder, numbers)
        if jobs:
            self._work(folder, jobs, executor or LocalExecutor(1), device, quiet)
            path = folder.path / "provenance" / f"{min(numbers):06d}.json"
            _write_provenance(folder, path, started, device)
        return [folder.units[n] for n in sorted(sum(jobs, ()))]

    def prepare(self, out: Path) -> RunFolder:
        r"""Starts or reopens the run folder: checks the data and writes the design."""
        out = Path(out)
        self.dimension_methods()  # refuses names of nothing
        check_folder(out, self.config())
        if (out / "config.json").exists():
            folder = RunFolder.open(out)
            if self.source.data.digest != folder.design["data"]["digest"]:
                raise InputError(f"{self.data} is not the data that {out} was started with")
            return folder
        return RunFolder.create(out, self.config(), self.design())

    def config(self) -> dict[str, Any]:
        r"""The config as plain JSON values."""
        asked = {k: v for k, v in asdict(self).items() if self.dimension or "dimension" not in k}
        return {"kind": "sweep"} | {
            k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v
            for k, v in asked.items()
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sweep:
        r"""The sweep that a run folder's config describes."""
        names = {k: v for k, v in config.items() if k in cls.__dataclass_fields__}
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in names.items()}
        paths = {k: Path(fields[k]) for k in ("split", "groups") if fields[k]}
        return cls(**{**fields, **paths})

    def design(self) -> dict[str, Any]:
        r"""Units, points and levels: see :mod:`geomem.runs.design`."""
        with one_thread():
            source = self.source
            sizes = choose_sizes(self.sizes, len(source.split.pool))
            self.network_config(source)  # refuses data that the backbone cannot take
            return make_design(
                source,
                self._units(source, sizes),
                sizes=sizes,
                sigmas=choose_levels(source, self.sigmas, self.levels),
                num_points=self.points,
                seed=self.seed,
            )

    def _units(self, source: Source, sizes: list[int]) -> list[dict[str, Any]]:
        units: list[dict[str, Any]] = [{"denoiser": "linear"}]
        if source.population is not None:
            units.append({"denoiser": "population"})
        units += [{"denoiser": "empirical", "num_samples": n} for n in sizes]
        steps = sorted({*self.measured_steps, self.steps})
        return units + [
            {"denoiser": "learned", "num_samples": n, "seed": s, "step": k}
            for n in sizes
            for s in self.seeds
            for k in steps
        ]

    @cached_property
    def source(self) -> Source:
        r"""The data, split as every process splits them."""
        largest = max((int(n) for n in self.sizes if n != "all"), default=0)
        if self.data in LINEAR_NAMES and largest < 2:
            raise InputError("a manifold has no last point: pass --sizes of at least 2, not `all`")
        return load_source(
            self.data,
            split=self.split,
            groups=self.groups,
            seed=self.seed,
            largest=largest,
            variances=self.variances,
            ambient_dim=self.ambient_dim,
        )

    def network_config(self, source: Source) -> NetworkConfig:
        r"""The network for data of this shape."""
        shape = source.data.item_shape
        small = int(np.prod(shape)) <= 256 or len(shape) != 3
        kind: Any = self.network if self.network != "auto" else "mlp" if small else "unet"
        if kind == "unet" and len(shape) != 3:
            raise InputError(f"a U-Net needs images, got points of shape {shape}; use mlp")
        return NetworkConfig(kind, shape, source.rms, channels=self.channels)

    def dimension_methods(self) -> dict[str, DimensionMethod]:
        r"""The methods of local dimension that are recorded, by name."""
        return {text: dimension_method(text) for text in self.dimension}

    def training_recipe(self) -> Training:
        r"""The training recipe."""
        return Training(self.steps, self.batch_size, self.learning_rate)

    # ------------------------------------------------------------------------------- jobs

    def _work(
        self,
        folder: RunFolder,
        jobs: list[Numbers],
        executor: Executor,
        device: str,
        quiet: bool,
    ) -> None:
        names = {job: folder.units[job[-1]] for job in jobs}
        costs = {job: self._cost(folder, names[job]) for job in jobs}
        forecast = self._forecast(folder, sum(costs.values()), min(executor.workers(), len(jobs)))
        if not quiet:
            todo, planned = sum(map(len, jobs)), len(folder.units)
            say(f"{folder.path}: {todo} of {planned} units to do, {forecast}")
        if executor.here:
            forecast.check_memory("measure fewer --points, or pass smaller --sizes")
        progress = Progress(sum(costs.values()), "sweep", quiet=quiet)
        shares: dict[Numbers, float] = {}

        def hear(task: Task, share: float) -> None:
            shares[task.numbers] = share
            done = sum(costs[j] * s for j, s in shares.items())
            running = [str(names[j]) for j, s in shares.items() if 0 < s < 1]
            progress.update(done, "; ".join(running))

        tasks = [Task.of(folder.path, self, job, device) for job in jobs]
        for task, _ in executor.run(run_job, tasks, on_message=hear):
            hear(task, 1.0)
        progress.finish()

    def _cost(self, folder: RunFolder, unit: Unit) -> float:
        # Seconds, roughly: shares of the work, for the progress line and the forecast.
        d, levels = int(folder.design["data"]["ambient_dim"]), len(folder.design["sigmas"])
        dimensions = self._dimension_seconds(folder, unit) * 2 * self.dimension_points * levels
        if unit.denoiser != "learned":
            pairs: float = 2 * self.points * self.draws * levels * (unit.num_samples or 1)
            return 0.2 + pairs * d * 5e-10 + dimensions
        return self._step_seconds * self.steps * 1.15 + dimensions

    def _dimension_seconds(self, folder: RunFolder, unit: Unit) -> float:
        # Of one question to each method, on a denoiser of the same size.
        if not self.dimension:
            return 0.0
        x = self.source.reserved[:1].double()
        denoiser: Denoiser = self.source.linear_control
        if unit.denoiser == "empirical":
            known = folder.design["order"][: unit.num_samples]
            denoiser = EmpiricalDenoiser(self.source.data.tensor(known).double())
        elif unit.denoiser == "learned":
            denoiser, x = self.network_config(self.source).build(0).eval(), x.float()
        subject = Subject(denoiser, {"training": x}, {"denoiser": unit.denoiser})
        with one_thread():
            methods = self.dimension_methods()
            return question_seconds(subject, methods, self.source.rms / 3, self.seed)

    @cached_property
    def _step_seconds(self) -> float:
        # Timed on this machine, since nothing else tells.
        shape = self.source.data.item_shape
        state = TrainState(
            self.network_config(self.source), self.training_recipe(), torch.zeros(2, *shape), seed=0
        )
        with one_thread():
            state.advance()
            start, steps = time.perf_counter(), 0
            while time.perf_counter() - start < 0.5 or steps < 2:
                state.advance()
                steps += 1
        return (time.perf_counter() - start) / steps

    def _forecast(self, folder: RunFolder, seconds: float, processes: int) -> Forecast:
        d, n = folder.design["data"]["ambient_dim"], folder.design["sizes"][-1]
        exact = 8.0 * n * d + 8.0 * 4 * 512 * n
        return Forecast(seconds / processes, processes * (exact + 8.0 * 3 * d * d + 4e8))


def _write_provenance(folder: RunFolder, path: Path, started: float, device: str) -> None:
    write_json(path, describe(path, started, device, folder.design["data"]["digest"]))


def open_sweep(run: Path) -> Sweep:
    r"""The sweep that a run folder holds: everything follows from its config.

    Raises:
        InputError: If the folder holds no run, or one of another kind.
    """
    config = RunFolder.open(run).config
    if config.get("kind") != "sweep":
        kind = config.get("kind")
        raise InputError(f"{run} holds a run of kind {kind}, not a sweep; pass a sweep's folder")
    return Sweep.from_config(config)
