r"""``geomem dimension``: how many directions a denoiser keeps, at points and noise levels."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from geomem import __version__
from geomem.cli.output import plain, print_table
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import say
from geomem.data.splits import nested_subsets
from geomem.dimension import DimensionMethod, NoGap
from geomem.dimension.names import dimension_method
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.manifolds import PAPER_VARIANCES
from geomem.measure.dimension import DRAWS, Row, Subject, errors_said, measure_dimensions
from geomem.models.networks import load_network
from geomem.runs.design import LINEAR_NAMES, Source, choose_sizes, load_source
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep
from geomem.stats import Estimate, numpy_rng

SCHEMA_VERSION = 1
At = Literal["training", "held_out"]


@dataclass(frozen=True)
class DimensionCommand:
    r"""Local dimension of a denoiser: how many directions it still varies in.

    Of the exact denoiser of N images (--data, --sizes), which memorizes them, or of trained
    networks (--network), at training and held-out images and at noise levels in units of the
    data's rms deviation. "No gap" is an answer: such a spectrum names no dimension.

    Examples:

      geomem dimension --data digits --sizes 32 512 --sigmas 0.1 0.3

      geomem dimension --network runs/demo --dimension local-dimension soft-count

      geomem dimension --data digits --dimension "threshold(above=0.9)" own_method:Kept

    Methods: local-dimension, threshold, soft-count, forward-soft-count, largest-gap, spike-rule,
    normal-bundle, flipd, filtered-trace, or package.module:Class of your own (docs/extend.md).
    """

    data: str | None = None
    """A name (digits, mnist, fashion-mnist, cifar10, olivetti, linear), or PATH[:key]. Networks
    in a run folder know theirs."""
    sizes: tuple[int | Literal["all"], ...] = ()
    """Training-set sizes N of exact denoisers; all images if neither --network is given."""
    network: tuple[Path, ...] = ()
    """Trained networks: files of a run's networks/, or the run folder for all of them."""
    dimension: tuple[str, ...] = ("local-dimension",)
    """Methods, with arguments in parentheses if any."""
    sigmas: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Noise levels in units of the data's rms deviation."""
    at: tuple[At, ...] = ("training", "held_out")
    """Kinds of points."""
    points: int = 8
    """Points of each kind."""
    split: Path | None = None
    """A file written by `geomem split`; the default split of the data if not given."""
    variances: tuple[float, ...] = PAPER_VARIANCES
    """Variances of `linear` and `linear-sphere`; the paper's if not given."""
    ambient_dim: int = 30
    """Dimension of the space around `linear` and `linear-sphere`."""
    seed: int = 0
    """Seed of the split, of the choice of points and of their noise."""
    device: str = "cpu"
    """Where networks are measured."""
    json: Path | None = None
    """Write everything, point by point, to this JSON file."""
    csv: Path | None = None
    """Write one line a point to this CSV file."""

    def run(self) -> int:
        r"""Measures, prints a table, writes the files; returns the exit status."""
        methods = self._methods()
        with warnings_said():
            place = _Place.of(self)
            subjects = place.subjects(self)
            sigmas = [s * place.source.rms for s in self.sigmas]
            rows = measure_dimensions(subjects, methods, sigmas, seed=place.seed, draws=place.draws)
        print_table(*_table(rows, place.source.rms))
        for line in _how(rows) + _reasons(rows, place.source.rms):
            print(line)
        if self.json is not None:
            document = _document(rows, place)
            atomic_write_text(self.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
        if self.csv is not None:
            atomic_write_text(self.csv, _lines(rows, place.source.rms))
        return 0

    def _methods(self) -> dict[str, DimensionMethod]:
        levels = np.array(self.sigmas, float)
        if not len(levels) or not (np.isfinite(levels) & (levels > 0)).all():
            raise InputError(f"--sigmas {list(self.sigmas)}: pass levels above 0, in rms")
        if self.points < 1:
            raise InputError(f"--points {self.points}: pass at least 1")
        if not self.at or not self.dimension:
            raise InputError("pass a name to --at and to --dimension")
        return {text: dimension_method(text) for text in self.dimension}


@dataclass(frozen=True, eq=False)
class _Place:
    r"""Where points come from: data with their split and order, of a run or of their own."""

    source: Source
    order: list[int]
    seed: int
    draws: int
    networks: list[Path]

    @staticmethod
    def of(command: DimensionCommand) -> _Place:
        networks = [stem for path in command.network for stem in find_networks(path)]
        runs = {run for stem in networks if (run := _run_of(stem)) is not None}
        if len(runs) > 1:
            raise InputError("these networks are of several runs; pass one run at a time")
        if runs and command.data is not None:
            raise InputError("a run knows its data; leave --data out")
        if runs:
            return _Place._of_run(runs.pop(), networks)
        if command.data is None:
            raise InputError("pass --data, or --network of a run folder, which knows its data")
        numbers = [int(n) for n in command.sizes if n != "all"]
        largest = max(numbers, default=0)
        if command.data in LINEAR_NAMES and (largest < 2 or "all" in command.sizes):
            raise InputError(f"--data {command.data} has no last point: pass --sizes, not `all`")
        source = load_source(
            command.data,
            split=command.split,
            seed=command.seed,
            largest=largest,
            variances=command.variances,
            ambient_dim=command.ambient_dim,
        )
        pool = len(source.split.pool)
        order = nested_subsets(source.split.pool, [pool], command.seed)[pool]
        return _Place(source, [int(i) for i in order], command.seed, DRAWS, networks)

    @staticmethod
    def _of_run(run: Path, networks: list[Path]) -> _Place:
        folder = RunFolder.open(run)
        sweep = Sweep.from_config(folder.config)
        if sweep.source.data.digest != folder.design["data"]["digest"]:
            raise InputError(f"{sweep.data} has changed since {run} was started")
        return _Place(sweep.source, folder.design["order"], sweep.seed, sweep.draws, networks)

    def subjects(self, command: DimensionCommand) -> list[Subject]:
        r"""The denoisers that the command asks about."""
        held_out = numpy_rng(self.seed, "held-out points").permutation(self.source.split.held_out)
        index = {"held_out": held_out[: command.points].tolist()}
        found = [self._network(stem, command, index) for stem in self.networks]
        sizes: Sequence[int | str] = command.sizes or (() if self.networks else ("all",))
        for n in choose_sizes(sizes, len(self.order)) if sizes else ():
            data = self.source.data.tensor(self.order[:n]).double()
            points = self._points(command, index, n, torch.float64, "cpu")
            coordinates = {"denoiser": "empirical", "num_samples": n}
            found.append(Subject(EmpiricalDenoiser(data), points, coordinates))
        if self.source.population is not None:
            points = self._points(command, index, len(self.order), torch.float64, "cpu")
            found.append(Subject(self.source.population, points, {"denoiser": "population"}))
        return found

    def _network(self, stem: Path, command: DimensionCommand, index: dict[str, Any]) -> Subject:
        network = load_network(stem).to(command.device)
        config = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        if tuple(config["item_shape"]) != self.source.data.item_shape:
            raise InputError(
                f"{stem} takes points of shape {tuple(config['item_shape'])} and the data have "
                f"{self.source.data.item_shape}; pass the --data that it was trained on"
            )
        named = re.fullmatch(r"N(\d+)-seed(\d+)-step(\d+)", stem.name)
        names = ("num_samples", "seed", "step")
        known = dict(zip(names, map(int, named.groups()), strict=True)) if named else {}
        points = self._points(
            command, index, known.get("num_samples", 0), torch.float32, command.device
        )
        return Subject(network, points, {"denoiser": "learned", **known})

    def _points(
        self, command: DimensionCommand, index: dict[str, Any], n: int, dtype: Any, device: str
    ) -> dict[str, torch.Tensor]:
        index = {"training": self.order[: min(n, command.points)], **index}
        if not index["training"] and "training" in command.at:
            say("a network without N in its name has no known training images: held-out ones only")
        kinds = [at for at in dict.fromkeys(command.at) if index[at]]
        if not kinds:
            raise InputError("there is no point to measure at; pass --at held_out")
        return {str(at): self.source.data.tensor(index[at]).to(device, dtype) for at in kinds}


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
    if not stem.with_suffix(".safetensors").exists():
        if not path.exists():
            raise InputError(f"{path} does not exist; pass a run folder or one of its networks/")
        runs = sorted(str(p.parent) for p in path.glob("*/networks") if p.is_dir())
        hint = f"; there is {', '.join(runs[:3])}" if runs else ""
        raise InputError(
            f"{path} holds no network; pass a run folder or one of its networks/{hint}"
        )
    return [stem]


def _run_of(stem: Path) -> Path | None:
    run = stem.resolve().parent.parent
    return run if (run / "config.json").exists() else None


@contextmanager
def warnings_said() -> Iterator[None]:
    r"""Warnings as one line each for people, without a file name and a line of code."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = lambda message, *rest, **more: say(f"note: {message}")
        yield


# -------------------------------------------------------------------------------- what is shown


def _table(rows: Sequence[Row], rms: float) -> tuple[list[str], list[list[str]]]:
    levels = list(dict.fromkeys(row.sigma for row in rows))
    # Seed and step are told where they tell networks apart.
    told = [k for k in _TOLD if k == "num_samples" or len({_told(row, k) for row in rows}) > 1]
    lines: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        who = row.subject.coordinates["denoiser"], *(_told(row, k) for k in told)
        lines.setdefault((*who, row.at.replace("_", "-"), row.method), []).append(row)
    head = ["denoiser", *(_TOLD[k] for k in told), "at", "method"]
    head += [f"{s / rms:.3g} rms" for s in levels]
    return head, [[*key, *map(_cell, found)] for key, found in lines.items()]


_TOLD = {"num_samples": "N", "seed": "seed", "step": "step"}


def _told(row: Row, name: str) -> str:
    return str(row.subject.coordinates.get(name, ""))


def _cell(row: Row) -> str:
    if row.mean is None:
        none, total = row.none_kept, len(row.answers)
        if none == total:
            return "none kept"
        return f"no gap ({none} of {total}: none kept)" if none else "no gap"
    some = len(row.estimates) < len(row.answers)
    return _shown(row.mean) + (f" ({len(row.estimates)} of {len(row.answers)})" if some else "")


def _how(rows: Sequence[Row]) -> list[str]:
    # How means were obtained, a line a method: what is missing stands in the cells.
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        asked = [row for row in rows if row.method == method]
        counts = sorted({len(row.answers) for row in asked})
        points = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        errors = [e.stderr for row in asked for e in row.estimates]
        said = f", {errors_said(errors)}" if errors else ""
        lines.append(f"- {method}: ± over {points} points{said}")
    return lines


def _shown(found: Estimate) -> str:
    # A collapsed posterior keeps 1e-90 of a direction, which nobody reads digit by digit.
    tiny = 0 < abs(found.value) < 1e-6 and not found.stderr >= 1e-6
    return "< 1e-6" if tiny else repr(found)


def _reasons(rows: Sequence[Row], rms: float) -> list[str]:
    # How many points of a method, and one of them: the files have the reason at each point.
    found: dict[tuple[str, bool], list[str]] = {}
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.method] = totals.get(row.method, 0) + len(row.answers)
        for answer in row.answers:
            if isinstance(answer, NoGap):
                where = f"{row.subject}, {row.at.replace('_', '-')}, {row.sigma / rms:.3g} rms"
                reasons = found.setdefault((row.method, answer.kept == 0), [])
                reasons.append(f"{where}: {answer.reason}")
    return [
        f"- {'none kept' if none else 'no gap'} by {method} at {len(reasons)} of {totals[method]} "
        f"points, for instance {reasons[0]}"
        for (method, none), reasons in found.items()
    ]


def _document(rows: Sequence[Row], place: _Place) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "geomem": __version__,
        "data": place.source.data.name,
        "digest": place.source.data.digest,
        "ambient_dim": math.prod(place.source.data.item_shape),
        "rms": place.source.rms,
        "seed": place.seed,
        "rows": [_row(row, place.source.rms) for row in rows],
    }


def _row(row: Row, rms: float) -> dict[str, Any]:
    mean = row.mean
    return {
        **row.subject.coordinates,
        "at": row.at,
        "sigma": row.sigma,
        "sigma_relative": row.sigma / rms,
        "method": row.method,
        "dimension": None if mean is None else plain(mean.value),
        "stderr": None if mean is None else plain(mean.stderr),
        "how": row.how,
        "answers": [
            {"dimension": plain(a.value), "stderr": plain(a.stderr)}
            if isinstance(a, Estimate)
            else {"no_gap": a.reason}
            for a in row.answers
        ],
    }


def _lines(rows: Sequence[Row], rms: float) -> str:
    which = ["denoiser", "num_samples", "seed", "step"]
    head = [
        *which,
        "at",
        "point",
        "sigma",
        "sigma_relative",
        "method",
        "dimension",
        "stderr",
        "no_gap",
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        coordinates = [row.subject.coordinates.get(name, "") for name in which]
        for k, a in enumerate(row.answers):
            known = [a.value, a.stderr, ""] if isinstance(a, Estimate) else ["", "", a.reason]
            place = [row.at, k, f"{row.sigma:.6g}", f"{row.sigma / rms:.6g}", row.method]
            writer.writerow([*coordinates, *place, *known])
    return out.getvalue()
