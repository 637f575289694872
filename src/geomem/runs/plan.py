r"""Plan: how many images would it take, predicted from the images alone, as a run of its own.

Its subjects are the parts of the work: near-duplicates, the Gaussian guide level by level, and
what subsets keep at some of the noisy images. It may be interrupted anywhere; the same plan goes
on, does no finished part again, and ends with the same ``plan.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
import xarray as xr

from geomem.arguments import Number, Whole, checked
from geomem.compute.progress import Forecast
from geomem.data.source import KNOWN_NAMES, LINEAR_NAMES, DataOptions, Source, load_source
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.measure.plan import (
    WIDEST,
    GaussianGuide,
    NearDuplicates,
    Part,
    SubsetRetention,
    parts_bytes,
    variances_of,
)
from geomem.measure.probes import MeasureOptions
from geomem.measure.study import Probe, Study, describe
from geomem.measure.subject import Description, Subject
from geomem.runs.design import about, choose_levels, default_window
from geomem.runs.jobs import Task, run_job
from geomem.runs.planned import write_plan
from geomem.runs.records import RunFolder
from geomem.runs.run import Run
from geomem.theory.collapse import collapse_sigma
from geomem.theory.moments import Array
from geomem.theory.planning import BLOCKS, LARGEST

CHUNK = 16  # sources of one part
SWEPT = MeasureOptions.levels  # levels that a sweep measures


@checked
@dataclass(frozen=True)
class Plan(Run, DataOptions):
    r"""How many images keep each direction, at each noise level: predicted before any training.

    Raises:
        InputError: If an option is out of its range.
    """

    sizes: tuple[Annotated[float, Number(least=2, most=LARGEST)], ...] = ()
    """Sizes N of which a table is made; by default 32, 100, 300 ... up to all images."""
    directions: Annotated[int, Whole(least=1)] = 8
    """How many principal directions, from the highest variance on."""
    levels: Annotated[int, Whole(least=2, most=1000)] = 10
    """How many noise levels, of those that a sweep measures."""
    sigmas: tuple[Annotated[float, Number(above=0)], ...] = ()
    """Noise levels instead, in units of the data's rms deviation."""
    sources: Annotated[int, Whole(least=BLOCKS)] = 128
    """To how many images noise is added; more make errors smaller."""
    seed: Annotated[int, Whole(least=0)] = 0
    """Seed of the split, of these images and of the noise."""
    show_images: bool = False
    """Keep pixels of near-duplicates in the records and show them on the page."""

    kind: ClassVar[str] = "plan"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data in KNOWN_NAMES:
            exact = "the sizes that it needs are exact, see `geomem theory critical`; "
            raise InputError(
                f"`data` is {self.data}, whose law is known: "
                f"{exact if self.data in LINEAR_NAMES else ''}pass images to plan with"
            )
        part = [n for n in self.sizes if n != int(n)]
        if part:
            raise InputError(f"`sizes` has {part[0]:g}; pass whole numbers of images")
        object.__setattr__(self, "sizes", tuple(sorted({int(n) for n in self.sizes})))

    # ------------------------------------------------------------------------------- study

    @cached_property
    def source(self) -> Source:
        r"""The data, split as every process splits them."""
        return load_source(self, seed=self.seed)

    def study(self) -> Study:
        r"""Levels, directions and sizes; the data by their digests.

        Raises:
            InputError: If there are too few images, or they do not fit into memory.
        """
        source = self.source
        data, digests = about(source), source.data.digests()
        different = len({digests[i] for i in source.split.pool})
        if different < BLOCKS or data["reserved"] < 8:
            raise InputError(
                f"{len(source.data)} images are too few to plan with: {different} different ones "
                f"to draw sets from and {data['reserved']} for the principal directions, where "
                f"{BLOCKS} and 8 are needed"
            )
        data["images"] = len(source.data)
        least = {"data": data, "sizes": [], "sigmas": [], "direction_variances": []}
        Forecast(0, parts_bytes(least)).check_memory("plan with fewer or smaller images")
        directions, control = source.directions, source.linear_control
        rank = directions.vectors.shape[1]
        if self.directions > rank:
            raise InputError(
                f"`directions` is {self.directions}, and the images span {rank}; pass fewer"
            )
        linear = {"variances": control.variances.tolist(), "rest": float(control.rest),
                  "complement": int(control.complement)}  # fmt: skip
        variances = variances_of({"linear_control": linear})
        probes: list[Probe] = [NearDuplicates(self.show_images), GaussianGuide(), SubsetRetention()]
        window = default_window(source)
        content = {
            "schema_version": 2,
            "data": data,
            "points": {},
            "sigmas": self._levels(variances, window[0]).tolist(),
            "window": list(window),
            "rms": source.rms,
            "draws": 1,
            "seed": self.seed,
            "control": "population",
            "direction_counts": [1] * self.directions,
            "direction_variances": variances[: self.directions].tolist(),
            "linear_control": linear,
            "sizes": [int(n) for n in self.sizes],
            "sources": min(self.sources, data["pool"]),
            "probes": [describe(probe) for probe in probes],
        }
        return Study(content, directions, {}, source)

    def _levels(self, variances: Array, lowest: float) -> Array:
        # Levels of a sweep: from where even M² images collapse, were they Gaussian, to where
        # the control keeps less than a third of the first direction.
        if self.sigmas:
            return np.unique(self.sigmas) * self.source.rms
        top = 1.5 * float(np.sqrt(variances[0]))
        pool = float(len(self.source.split.pool))
        low = max(min(collapse_sigma(variances, pool**2), top / 4), lowest)
        grid = choose_levels(self.source, None, max(SWEPT, self.levels))
        last = max(self.levels, int(np.searchsorted(grid, top, side="right")))
        first = min(int(np.searchsorted(grid, low)), last - self.levels)
        picked = np.linspace(first, last - 1, self.levels).round().astype(int)
        return np.asarray(grid[picked])

    def subjects(self, study: Study) -> list[Description]:
        r"""Near-duplicates, the guide at each level, the sources by sixteens."""
        T, total = len(study.sigmas), study.content["sources"]
        wide = study.content["data"]["ambient_dim"] > WIDEST
        guide = ["Gaussian guide"] if wide else [f"Gaussian guide {i + 1} of {T}" for i in range(T)]
        last = [min(a + CHUNK, total) for a in range(0, total, CHUNK)]
        chunks = [f"sources {CHUNK * i + 1} to {b} of {total}" for i, b in enumerate(last)]
        return [
            Description("data", label="near-duplicates"),
            *(Description("linear", label=label) for label in guide),
            *(Description("empirical", label=label) for label in chunks),
        ]

    # ------------------------------------------------------------------------------- parts

    def ready(
        self,
        folder: RunFolder,
        study: Study,
        numbers: Sequence[int],
        device: str,
        report: Callable[[float], None],
    ) -> Iterator[tuple[int, Subject, float]]:
        r"""Parts of the work; sets are drawn from what the near-duplicates' record leaves.

        Raises:
            InputError: If too few different images are left.
        """
        kinds = [subject.kind for subject in folder.subjects]
        T, guides = len(study.sigmas), kinds.count("linear")
        for done, number in enumerate(numbers, start=1):
            description, control = folder.subjects[number], self.source.linear_control
            part = Part(description, control)
            if description.kind == "linear":
                levels = range(T) if guides == 1 else range(number - 1, number)
                part = Part(description, control, places=levels)
            elif description.kind == "empirical":
                if folder.missing([0]):
                    run_job(Task(folder.path, replace(self), (0,), device), lambda share: None)
                different = folder.read_record(0)["different"].values.tolist()
                if len(different) < BLOCKS:
                    raise InputError(
                        f"of {study.content['data']['pool']} images to draw sets from only "
                        f"{len(different)} are no near-duplicates of others, too few to plan with; "
                        f"get {BLOCKS} or more that differ"
                    )
                exact = EmpiricalDenoiser(self.source.data.tensor(different))
                first = CHUNK * (number - 1 - guides)
                most = min(study.content["sources"], len(different))
                places = range(first, max(first, min(first + CHUNK, most)))
                part = Part(description, exact, training=different, places=places)
            yield number, part, done / len(numbers)

    def conclude(self, folder: RunFolder, dataset: xr.Dataset) -> None:
        r"""Writes ``plan.json``, and its findings as ``summary.json``."""
        write_plan(folder)

    # ----------------------------------------------------------------------------- forecast

    def seconds(self, subject: Description, study: Study, device: str = "cpu") -> float:
        r"""Seconds that a part takes, roughly."""
        data = study.content["data"]
        d, pool, images = (float(data[k]) for k in ("ambient_dim", "pool", "images"))
        T, K = len(study.sigmas), self.directions
        if subject.kind == "data":
            return 0.2 + 256e-9 * images * d + 2e-5 * images
        if subject.kind == "linear":
            return 0.1 if d > WIDEST else 1.0 + 2e-4 * d * (8 + K)
        sizes = 3 * (len(study.content["sizes"]) + 24)
        return CHUNK * (2e-9 * pool * d + T * (1e-8 * pool * (K + 20) + 1e-4 * sizes * (8 + K)))

    def num_bytes(self, study: Study) -> float:
        r"""Bytes of memory that one worker takes, roughly."""
        return parts_bytes(study.content)
