r"""Runs that ask denoisers which are there: exact ones, the population, saved networks.

Networks of a run are asked at the points, and with the noise, of that run. A kind of run says
which probes ask, and may add points of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from geomem.arguments import Number, Whole, checked
from geomem.data.source import KNOWN_NAMES, DataOptions, Source, load_source
from geomem.data.splits import nested_subsets
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.study import Probe, Study
from geomem.measure.subject import Description, Subject
from geomem.models.networks import load_network
from geomem.runs.design import Size, choose_levels, choose_sizes, study_of
from geomem.runs.kinds import open_run
from geomem.runs.records import RunFolder
from geomem.runs.run import Run
from geomem.stats import numpy_rng

NAME = re.compile(r"(?:reference-)?N(\d+)(?:-width(\d+))?-seed(\d+)-step(\d+)")


@checked
@dataclass(frozen=True)
class Asked(Run, DataOptions):
    r"""Denoisers that are there, asked at points and levels."""

    data: str = ""
    """A name (digits, mnist, fashion-mnist, cifar10, olivetti, linear), or PATH[:key]. Networks
    in a run folder know theirs."""
    sizes: tuple[Size, ...] = ()
    """Training-set sizes N of exact denoisers; all images if no network is given either."""
    network: tuple[Path, ...] = ()
    """Trained networks: files of a run's networks/, or the run folder for all of them."""
    sigmas: tuple[Annotated[float, Number(above=0.0)], ...] = (0.1, 0.3, 1.0)
    """Noise levels in units of the data's rms deviation."""
    points: Annotated[int, Whole(least=1)] = 8
    """Points of each kind."""
    seed: Annotated[int, Whole(least=0)] = 0
    """Seed of the split, of the choice of points and of their noise."""

    @property
    @abstractmethod
    def kinds(self) -> Sequence[str]:
        r"""The kinds of points: training, held_out, fixed."""

    @property
    @abstractmethod
    def asking(self) -> list[Probe]:
        r"""The probes that ask."""

    @property
    def disjoint(self) -> int:
        r"""On how many disjoint subsets of each size exact denoisers are asked."""
        return 1

    def fixed(self) -> tuple[Tensor, list[str]]:
        r"""The points of kind ``fixed``, with shape (P, \*), and their names."""
        raise InputError("this kind of run has no points of its own")

    def more(self) -> dict[str, Any]:
        r"""What a kind of run adds to the study, as plain JSON values."""
        return {}

    # -------------------------------------------------------------------- where points are from

    @cached_property
    def stems(self) -> list[Path]:
        r"""The files of the networks, without their suffix."""
        return [stem for path in self.network for stem in find_networks(path)]

    @cached_property
    def home(self) -> Any:
        r"""The run that the networks belong to; None if to none."""
        runs = {stem.resolve().parent.parent for stem in self.stems}
        runs = {run for run in runs if (run / "config.json").exists()}
        if len(runs) > 1:
            raise InputError("`network` names networks of several runs; pass one run at a time")
        if runs and self.data:
            raise InputError("a run knows its data; leave `data` out")
        return next(iter(runs), None)

    @cached_property
    def source(self) -> Source:
        r"""The data, with their split."""
        if self.home is not None:
            source: Source = open_run(self.home).source
            if source.data.digest != RunFolder.open(self.home).study["data"]["digest"]:
                raise InputError(f"the data of {self.home.name} have changed since it was started")
            return source
        if not self.data:
            raise InputError("pass `data`, or `network` of a run folder, which knows its data")
        largest = self.disjoint * max((int(n) for n in self.sizes if n != "all"), default=0)
        if self.data in KNOWN_NAMES and (largest < 2 or "all" in self.sizes):
            raise InputError(f"{self.data} has no last point: pass `sizes` of numbers, not `all`")
        return load_source(self, seed=self.seed, largest=largest)

    def study(self) -> Study:
        r"""Points and noise of the networks' run, or the first ones of the data's own order."""
        source, seed, draws = self.source, self.seed, 4
        pool = len(source.split.pool)
        order = nested_subsets(source.split.pool, [pool], seed)[pool].tolist()
        if self.home is not None:
            there = RunFolder.open(self.home).study
            order, seed, draws = there["order"], there["seed"], there["draws"]
        chosen: tuple[int | Literal["all"], ...] = self.sizes or (() if self.stems else ("all",))
        sizes = choose_sizes(chosen, len(order)) if chosen else []
        if self.disjoint > 1 and sizes and self.disjoint * sizes[-1] > len(order):
            raise InputError(
                f"{self.disjoint} disjoint sets of {sizes[-1]} take more than the "
                f"{len(order)} images there are; pass smaller `sizes`, or fewer `sets`"
            )
        held_out = numpy_rng(seed, "held-out points").permutation(source.split.held_out)
        names = [_known_name(stem) for stem in self.stems]
        if not sizes and not any(names) and source.population is None:
            order = []  # nobody's training images are known
        index = {"training": order[: self.points], "held_out": held_out[: self.points].tolist()}
        asked = dict.fromkeys(self.kinds)
        kinds = [at for at in asked if index.get(at)]
        fixed = self.fixed() if "fixed" in asked else None
        if not kinds and fixed is None:
            raise InputError("there is no point to measure at; pass held_out as `at`")
        return study_of(
            source,
            {at: index[at] for at in kinds},
            sigmas=choose_levels(source, self.sigmas, 0, least=1),
            probes=self.asking,
            draws=draws,
            seed=seed,
            more={
                "order": order,
                "sizes": sizes,
                "networks": [{"name": s.name, "sha256": _sha256(s)} for s in self.stems],
                **self.more(),
            },
            fixed=fixed,
        )

    def subjects(self, study: Study) -> list[Description]:
        r"""Networks, exact denoisers, and the population where it is known."""
        found = []
        for stem in self.stems:
            known = _known_name(stem)
            kind = "reference" if stem.name.startswith("reference-") else "learned"
            found.append(Description(kind, **known, label="" if known else stem.name))
        sets = [None] if self.disjoint == 1 else range(self.disjoint)
        found += [
            Description("empirical", num_samples=n, seed=k)
            for n in study.content["sizes"]
            for k in sets
        ]
        return found + ([Description("population")] if self.source.population else [])

    # ---------------------------------------------------------------------------- subjects

    def ready(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int],
        device: str,
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Subject, float]]:
        r"""Loads networks, builds exact denoisers."""
        for done, number in enumerate(numbers, start=1):
            subject = self._subject(number, folder.subjects[number], study, device)
            yield number, subject, done / len(numbers)

    def _subject(self, number: int, description: Description, study: Study, device: str) -> Subject:
        n = description.num_samples or 0
        start = 0 if number < len(self.stems) else n * (description.seed or 0)
        index = study.content["order"][start : start + n]
        if number < len(self.stems):
            stem = self.stems[number]
            network = load_network(stem).to(device)
            config = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
            if tuple(config["item_shape"]) != self.source.data.item_shape:
                raise InputError(
                    f"{stem} takes points of shape {tuple(config['item_shape'])} and the data have "
                    f"{self.source.data.item_shape}; pass the `data` that it was trained on"
                )
            # The reference has no training image among the points that the others are asked at.
            own = None if description.kind == "reference" else index
            return Subject(description, network, torch.float32, device, training=own)
        if description.kind == "empirical":
            denoiser: Denoiser = EmpiricalDenoiser(self.source.data.tensor(index).double())
            return Subject(description, denoiser, training=index)
        if self.source.population is None:
            raise InputError("the population of these data is not known")
        return Subject(description, self.source.population)

    def num_bytes(self, study: Study) -> float:
        r"""Bytes of memory that one worker takes, roughly."""
        d, n = int(study.content["data"]["ambient_dim"]), len(study.content["order"])
        return 16.0 * n * d + 8.0 * 3 * d * d + 4e8


def find_networks(path: Path) -> list[Path]:
    r"""The saved networks of a run folder, of its ``networks/``, or one of them.

    Raises:
        InputError: If there is none.
    """
    for folder in (path / "networks", path):
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if files:
            return [file.with_suffix("") for file in files]
    stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
    if not stem.name or not stem.with_suffix(".safetensors").exists():
        if not path.exists():
            raise InputError(f"{path} does not exist; pass a run folder or one of its networks/")
        runs = sorted(str(p.parent) for p in path.glob("*/networks") if p.is_dir())
        hint = f"; there is {', '.join(runs[:3])}" if runs else ""
        raise InputError(
            f"{path} holds no network; pass a run folder or one of its networks/{hint}"
        )
    return [stem]


def _known_name(stem: Path) -> dict[str, Any]:
    named = NAME.fullmatch(stem.name)
    if named is None:
        return {}
    values = zip(("num_samples", "width", "seed", "step"), named.groups(), strict=True)
    return {name: int(value) for name, value in values if value is not None}


def _sha256(stem: Path) -> str:
    return hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()
