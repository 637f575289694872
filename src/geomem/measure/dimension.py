r"""Local dimensions of denoisers, at the points and the noised points of a run.

The same noise as in a sweep's records: the first draw of each image. A method that wants the
clean point gets it, see :func:`geomem.dimension.place_of`. One that draws draws anew at each
point, by a seed of its own and the point's, so that errors are independent.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.checks import admit
from geomem.compute.progress import Forecast, Progress, say
from geomem.denoiser import Denoiser
from geomem.dimension import DimensionMethod, NoGap, ask, place_of, seeded_for
from geomem.noise import check_levels
from geomem.operators import DenoiserJacobian
from geomem.stats import Estimate, torch_rng

_LONG = 5.0  # seconds a point from which it is said before the first one
DRAWS = 4  # of a sweep, by default: the first of so many draws is another number than one of one


@dataclass(frozen=True, eq=False)
class Subject:
    r"""A denoiser, and the points that it is asked about.

    Attributes:
        denoiser: The denoiser.
        points: Clean points by kind (training, held_out), each with shape :math:`(P, *)`, in
            the dtype and on the device of the denoiser.
        coordinates: Which denoiser it is: ``denoiser``, and where they exist ``num_samples``,
            ``seed`` and ``step``.
    """

    denoiser: Denoiser
    points: Mapping[str, Tensor]
    coordinates: Mapping[str, Any]

    def __str__(self) -> str:
        names = {"num_samples": "N", "seed": "seed", "step": "step"}
        pairs = [(k, v) for k, v in self.coordinates.items() if k in names]
        known = [f"{names[k]} = {v}" for k, v in pairs if k != "seed" or v]
        return ", ".join([str(self.coordinates["denoiser"]), *known])


@dataclass
class Row:
    r"""One denoiser, asked by one method at one level: the answers at each of its points.

    Attributes:
        subject: The denoiser.
        method: What the method was called.
        at: The kind of the points.
        sigma: The noise level, in the data's units.
        answers: One for each point.
    """

    subject: Subject
    method: str
    at: str
    sigma: float
    answers: list[Estimate | NoGap] = field(default_factory=list)

    @property
    def estimates(self) -> list[Estimate]:
        return [a for a in self.answers if isinstance(a, Estimate)]

    @property
    def mean(self) -> Estimate | None:
        r"""Mean over the points that have a dimension, ± over points; None if none has.

        .. math:: \delta^2 = \frac{s^2}{n} + \max \left( 0, \overline{\delta_k^2} - s^2 \right)

        Errors :math:`\delta_k` that are independent are a part of the variance :math:`s^2` over
        the n points, and methods draw at each of them anew. What points do not differ by is
        common to them, such as a bias that a method states, and no mean makes it smaller. One
        point says nothing of the others: its ± is its own.
        """
        found = self.estimates
        if len(found) < 2:
            return found[0] if found else None
        mean = Estimate.of_mean([e.value for e in found])
        common = _mean_square([e.stderr for e in found]) - len(found) * mean.stderr**2
        return Estimate(mean.value, math.hypot(mean.stderr, math.sqrt(max(0.0, common))))

    @property
    def how(self) -> str:
        r"""How the number was obtained, in words."""
        found, total = self.estimates, len(self.answers)
        points = f"{total} point" + "s" * (total != 1)
        none = f", none kept at {self.none_kept}" if self.none_kept else ""
        if not found:
            return (f"no gap at all {points}" if total > 1 else "no gap at 1 point") + none
        gaps = f", no gap at {total - len(found)}{none}" if len(found) < total else ""
        return f"{points}{gaps}, {errors_said([e.stderr for e in found])}"

    @property
    def none_kept(self) -> int:
        r"""At how many points there is no gap because no direction is kept."""
        return sum(isinstance(a, NoGap) and a.kept == 0 for a in self.answers)


def errors_said(errors: Sequence[float]) -> str:
    r"""The errors of single answers, in words."""
    if all(e == 0 for e in errors):
        return "each exact"
    if all(map(math.isnan, errors)):
        return "each of one draw"
    return f"± {math.sqrt(_mean_square(errors)):.2g} each"


def _mean_square(errors: Sequence[float]) -> float:
    known = [e * e for e in errors if not math.isnan(e)]
    return sum(known) / len(known) if known else 0.0


def measure_dimensions(
    subjects: Sequence[Subject],
    methods: Mapping[str, DimensionMethod],
    sigmas: Iterable[float],
    *,
    seed: int,
    draws: int = DRAWS,
    quiet: bool = False,
) -> list[Row]:
    r"""Asks each method about each denoiser, at each point and level.

    The first question of each pair is timed, and what the rest will take is said before it
    is begun.

    Arguments:
        subjects: The denoisers and their points.
        methods: The methods by name.
        sigmas: The noise levels, in the data's units.
        seed: The seed of the noise, and with a method's own one of what it draws.
        draws: How many draws the sweep makes whose noise this is the first of.
        quiet: Whether to show no progress.

    Raises:
        InputError: If a level is not above 0, a denoiser cannot be measured, a method does not
            answer, or memory would not do.
    """
    levels = check_levels(torch.tensor(list(sigmas), dtype=torch.float64)).tolist()
    tell: Callable[[str], None] = (lambda text: None) if quiet else say
    _check_costs(subjects, methods, levels[0], tell)
    rows = [
        Row(subject, name, at, sigma)
        for subject in subjects
        for name in methods
        for at in subject.points
        for sigma in levels
    ]
    total = sum(len(row.subject.points[row.at]) for row in rows)
    progress = Progress(total, "dimension", quiet=quiet)
    _ask_first(rows, methods, seed, draws, tell)
    done = sum(len(row.answers) for row in rows)
    for row in rows:
        for k in range(len(row.answers), len(row.subject.points[row.at])):
            row.answers.append(_answer(row, k, methods, seed, draws))
            done += 1
            progress.update(done, f"{row.subject}, {row.method}")
    progress.finish()
    return rows


def _ask_first(
    rows: Sequence[Row],
    methods: Mapping[str, DimensionMethod],
    seed: int,
    draws: int,
    tell: Callable[[str], None],
) -> None:
    seconds: dict[tuple[int, str], float] = {}
    for row in rows:
        pair = id(row.subject), row.method
        if pair not in seconds:
            _answer(row, 0, methods, seed, draws)  # checks and caches of a first call
            start = time.perf_counter()
            row.answers.append(_answer(row, 0, methods, seed, draws))
            seconds[pair] = time.perf_counter() - start
    left = sum(
        seconds[id(row.subject), row.method] * (len(row.subject.points[row.at]) - len(row.answers))
        for row in rows
    )
    tell(f"{len(rows)} numbers to measure, {Forecast(left, _peak_memory())}")


def _answer(
    row: Row, k: int, methods: Mapping[str, DimensionMethod], seed: int, draws: int
) -> Estimate | NoGap:
    x_0, method = row.subject.points[row.at], methods[row.method]
    sigma = torch.tensor(row.sigma, dtype=torch.float64).to(x_0)
    x = x_0[k]
    if place_of(method) == "noisy":
        rng = torch_rng(seed, f"noise/{row.at}", k)
        x = x + sigma * torch.randn(draws, *x.shape, generator=rng)[0].to(x)
    own = seeded_for(method, seed, f"method/{row.at}", k)
    return ask(own, row.subject.denoiser, x, sigma)


def local_dimensions(
    subject: Subject,
    methods: Mapping[str, DimensionMethod],
    sigmas: Sequence[float],
    *,
    width: int,
    seed: int,
    draws: int = DRAWS,
    report: Callable[[float], None] = lambda share: None,
) -> xr.Dataset:
    r"""The answers as part of a record: NaN where there is no gap, or no such point.

    Arguments:
        subject: The denoiser and its points.
        methods: The methods by name.
        sigmas: The noise levels, in the data's units.
        width: The number of points that a record has room for.
        seed: The seed of the noise, and with a method's own one of what it draws.
        draws: How many draws the record holds: the first one is used.
        report: Called with the share that is done.

    Returns:
        ``local_dimension`` and ``local_dimension_stderr`` (dimension_method, at, sigma,
        point).
    """
    kinds = list(subject.points)
    values = np.full((2, len(methods), len(kinds), len(sigmas), width), np.nan, np.float32)
    total, done = sum(map(len, subject.points.values())) * len(methods) * len(sigmas), 0
    for m, name in enumerate(methods):
        for a, at in enumerate(kinds):
            for k, sigma in enumerate(sigmas):
                row = Row(subject, name, at, sigma)
                for i in range(len(subject.points[at])):
                    found = _answer(row, i, methods, seed, draws)
                    if isinstance(found, Estimate):
                        values[:, m, a, k, i] = found.value, found.stderr
                    done += 1
                    report(done / total)
    dims = ("dimension_method", "at", "sigma", "point")  # `sel` takes a `method` of its own
    text = "kept directions; NaN where the method finds no gap"
    return xr.Dataset(
        {
            "local_dimension": (dims, values[0], {"units": "1", "long_name": text}),
            "local_dimension_stderr": (dims, values[1], {"units": "1"}),
        },
        coords={"at": kinds, "dimension_method": list(methods)},
    )


def question_seconds(
    subject: Subject, methods: Mapping[str, DimensionMethod], sigma: float, seed: int
) -> float:
    r"""Seconds that one question to each method takes, from asking it once."""
    rows = [Row(subject, name, at, sigma) for name in methods for at in list(subject.points)[:1]]
    start = time.perf_counter()
    for row in rows:
        _answer(row, 0, methods, seed, DRAWS)
    return time.perf_counter() - start


def _check_costs(
    subjects: Sequence[Subject],
    methods: Mapping[str, DimensionMethod],
    level: float,
    tell: Callable[[str], None],
) -> None:
    # What a spectrum takes is known from a few products, before the first one is asked for.
    for subject in subjects:
        x = next(iter(subject.points.values()))[0]
        sigma = torch.tensor(level, dtype=torch.float64).to(x)
        for name, method in methods.items():
            spectrum: Any = getattr(method, "spectrum", None)
            if not any(callable(getattr(spectrum, key, None)) for key in ("need", "products")):
                continue
            admit(subject.denoiser, x, sigma)
            cost = DenoiserJacobian(subject.denoiser, x, sigma).cost(spectrum)
            cost.check_memory(f"for {name}: use local-dimension, or spectrum=lanczos(...)")
            if cost.seconds > _LONG:
                tell(f"{subject}, {name}: one point takes {cost}")


def _peak_memory() -> float:
    # The first question of each pair has taken what the others will take.
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
