r"""An experiment: a claim, the runs that could show it, and the judgement of their records.

Everything that it measures is a run of the house, resumed like any other; everything that its
page says stands in one JSON document, from which page and figure are written again at any time.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from matplotlib.figure import Figure

from geomem import __version__
from geomem.compute.devices import pace
from geomem.compute.executor import Executor
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import format_seconds, say
from geomem.errors import InputError
from geomem.runs.jobs import jobs_to_do
from geomem.runs.provenance import sessions
from geomem.runs.records import RunFolder
from geomem.runs.run import Run

SCHEMA_VERSION = 1
Scale = Literal["cpu", "gpu"]
Verdict = Literal["confirmed", "confirmed in this regime", "not seen", "undecided at this scale"]
Runs = Mapping[str, Run]
SOURCE = (
    "Achilli, Ventura, Silvestri, Pham, Raya, Krotov, Lucibello, Ambrogioni: *Losing dimensions: "
    "Geometric memorization in generative diffusion*, arXiv 2410.08727, abstract"
)


@dataclass(frozen=True)
class Table:
    r"""A table of the page; cells are texts, numbers with their errors."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Judgement:
    r"""What the records say of a claim.

    Attributes:
        verdict: One of four.
        why: One sentence.
        ran: What was run, in sentences.
        tables: The numbers, with errors.
        curves: What the figure draws, as plain JSON values.
    """

    verdict: Verdict
    why: str
    ran: Sequence[str]
    tables: Sequence[Table] = ()
    curves: Mapping[str, Any] = field(default_factory=dict)


class Experiment(ABC):
    r"""One experiment, frozen: its name is its config.

    Arguments:
        data: The sets of images that it is run on, where it can be told: names and paths.

    Raises:
        InputError: If it has data of its own.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    quote: ClassVar[str]
    """The claim in the paper's words."""
    source: ClassVar[str] = SOURCE
    """Which paper's, with the part of it."""
    claim: ClassVar[str]
    """What follows from it here, and would be seen if it held."""
    limits: ClassVar[str]
    """What the CPU's scale cannot decide."""
    gpu_limits: ClassVar[str] = (
        "One recipe, which is not the authors', and one kind of network a set: what others would "
        "lose is not seen here."
    )
    """What the larger scale cannot decide."""
    usual_sets: ClassVar[tuple[str, ...]] = ()
    """The sets of images that it is run on if none is given; none where it has its own."""

    def __init__(self, data: Sequence[str] = ()) -> None:
        if data and not self.usual_sets:
            raise InputError(
                f"{self.name} has data of its own; leave `data` out, or choose an experiment on "
                "images"
            )
        self.sets = tuple(data) or self.usual_sets

    @abstractmethod
    def trainings(self, scale: Scale) -> Runs:
        r"""The runs that can start at once, by the name of their folder."""

    def measurements(self, out: Path, scale: Scale) -> Runs:
        r"""The runs that ask the networks which the trainings left, likewise."""
        return {}

    @abstractmethod
    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""What the records in a folder say: a function of them alone."""

    @abstractmethod
    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""The figure, from the document alone."""


def networks_left(path: Path) -> tuple[int, int]:
    r"""How many networks of a sweep are not there yet, of how many."""
    folder = RunFolder.open(path)
    learned = {k for k, subject in enumerate(folder.subjects) if subject.kind == "learned"}
    return len(learned & {*folder.missing()}), len(learned)


def last_networks(path: Path, step: int, seed: int | None = None) -> tuple[Path, ...]:
    r"""The files of the networks that a sweep has trained to a step, of one seed or of all."""
    of_seed = "" if seed is None else f"-seed{seed}"
    return tuple(sorted((path / "networks").glob(f"N*{of_seed}-step{step}.safetensors")))


def verdict_of(everywhere: bool, somewhere: bool, nowhere: bool) -> Verdict:
    r"""The verdict on a claim that holds everywhere, somewhere, or has failed everywhere."""
    if everywhere:
        return "confirmed"
    if somewhere:
        return "confirmed in this regime"
    return "not seen" if nowhere else "undecided at this scale"


def forecast(runs: Runs, out: Path, workers: int, device: str = "cpu") -> float:
    r"""Seconds that what is not measured yet takes, on so many workers at the pace of one."""
    seconds = 0.0
    for name, run in runs.items():
        folder, study = run.prepare(out / name), run.study()
        jobs = jobs_to_do(folder)
        costs = [run.seconds_left(folder, study, job, device) for job in jobs]
        seconds += max(sum(costs) / workers, max(costs, default=0.0))
    return seconds


def reproduce(
    experiment: Experiment, out: Path, scale: Scale, executor: Executor, device: str = "cpu"
) -> dict[str, Any]:
    r"""Runs what is missing, judges, and writes ``NAME.json``, ``NAME.png`` and ``NAME.md``.

    Arguments:
        experiment: The experiment.
        out: The folder of all experiments of one scale: trainings are shared.
        scale: ``cpu``, or the paper's own sizes.
        executor: Who works.
        device: Where networks are trained and measured.

    Returns:
        The document.
    """
    trainings = experiment.trainings(scale)
    left = forecast(trainings, out, pace(executor, device), device)
    say(f"{experiment.name}: trainings and their measurements, about {format_seconds(left)}")
    for name, run in trainings.items():
        run.run(out / name, executor=executor, device=device)
    for name, run in experiment.measurements(out, scale).items():
        run.run(out / name, executor=executor, device=device)
    return judged(experiment, out, scale)


def judged(experiment: Experiment, out: Path, scale: Scale) -> dict[str, Any]:
    r"""The document of the records that are there, written as ``NAME.json``: nothing is run.

    Raises:
        InputError: If too few of them are there.
    """
    document = document_of(experiment, experiment.judge(out, scale), scale)
    names = (*experiment.trainings(scale), *experiment.measurements(out, scale))
    # Apart from the document, which is the same however often its runs were interrupted.
    sessions_of = made(out / name for name in names)
    atomic_write_text(out / f"{experiment.name}-made.json", json.dumps(sessions_of) + "\n")
    path = out / f"{experiment.name}.json"
    atomic_write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document


def made(runs: Iterable[Path]) -> list[str]:
    r"""With what, where and for how long each run was made, as far as its sessions ended."""
    said = []
    for path in runs:
        done = sessions(path)
        if done:
            seconds = sum(one["seconds"] for one in done)
            devices = " and ".join(dict.fromkeys(one["device"] for one in done))
            versions = " and ".join(dict.fromkeys(one["versions"]["torch"] for one in done))
            said.append(f"{path.name} in {format_seconds(seconds)} on {devices}, torch {versions}")
    return said


def document_of(experiment: Experiment, found: Judgement, scale: Scale) -> dict[str, Any]:
    r"""All that a page says, as plain JSON values."""
    return {
        "schema_version": SCHEMA_VERSION,
        "geomem": __version__,
        "name": experiment.name,
        "title": experiment.title,
        "quote": experiment.quote,
        "source": experiment.source,
        "claim": experiment.claim,
        "scale": scale,
        "limits": experiment.limits if scale == "cpu" else experiment.gpu_limits,
        **json.loads(json.dumps(asdict(found), allow_nan=False)),
    }
