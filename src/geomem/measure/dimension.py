r"""Local dimensions of a subject, at the points and the noised points of a study.

The same noise as for errors: the first draw of each image. A method that wants the clean point
gets it, see :func:`geomem.dimension.place_of`. One that draws draws anew at each point, by a
seed of its own and the point's, so that errors are independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import Text, Whole, checked
from geomem.checks import admit
from geomem.compute.devices import seconds_once
from geomem.dimension import DimensionMethod, NoGap, ask, place_of, seeded_for
from geomem.dimension.names import dimension_method
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject
from geomem.operators import DenoiserJacobian
from geomem.stats import Estimate

DIMS = ("dimension_method", "at", "sigma", "point")  # `sel` takes a `method` of its own


@checked
@dataclass(frozen=True)
class LocalDimensions:
    r"""Gives ``local_dimension``, its ``_stderr``, and ``no_gap``: why a point has none.

    All of them (dimension_method, at, sigma, point). ``no_gap_kept`` is the number of kept
    directions where a point without a gap keeps a known number of them, such as 0;
    ``no_gap_soft_count`` and its ``_stderr`` are the soft count there, where it is known.

    Attributes:
        methods: Names, or ``package.module:Class``, with arguments in parentheses if any.
        points: How many points of each kind are asked about.
    """

    methods: tuple[Annotated[str, Text()], ...] = ("local-dimension",)
    points: Annotated[int, Whole(least=1)] = 8

    def __post_init__(self) -> None:
        self.built  # noqa: B018  (refuses names of nothing before anything is begun)

    @property
    def built(self) -> dict[str, DimensionMethod]:
        r"""The methods by name."""
        return {text: dimension_method(text) for text in self.methods}

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`.

        Raises:
            InputError: If a method does not answer, or memory would not do.
        """
        points = {at: x[: self.points] for at, x in study.points(subject).items()}
        levels, methods = study.sigmas.tolist(), self.built
        _check_costs(subject, methods, next(iter(points.values()))[0], levels[0])
        shape = (len(methods), len(points), len(levels), study.width)
        values = np.full((5, *shape), np.nan)
        reasons = np.full(shape, "", dtype=object)
        total, done = sum(map(len, points.values())) * len(methods) * len(levels), 0
        for m, a, k in np.ndindex(*shape[:3]):
            at = list(points)[a]
            for i in range(len(points[at])):
                answer = answer_of(
                    subject, study, list(methods.values())[m], at, points[at], i, levels[k]
                )
                if isinstance(answer, NoGap):
                    reasons[m, a, k, i] = answer.reason
                    values[2, m, a, k, i] = np.nan if answer.kept is None else answer.kept
                    if answer.soft_count is not None:
                        soft = answer.soft_count
                        values[3:, m, a, k, i] = soft.value, soft.stderr
                else:
                    values[:2, m, a, k, i] = answer.value, answer.stderr
                done += 1
                report(done / total)
        one = {"units": "directions"}
        named = one | {"long_name": "kept directions; NaN where there is no gap"}
        error = one | {"long_name": "standard error of local_dimension"}
        kept = one | {"long_name": "kept directions where there is no gap, as far as known"}
        soft_count = one | {"long_name": "soft count where there is no gap, as far as known"}
        soft_error = one | {"long_name": "standard error of no_gap_soft_count"}
        why = {"units": "1", "long_name": "why there is no gap"}
        return xr.Dataset(
            {
                "local_dimension": (DIMS, values[0], named),
                "local_dimension_stderr": (DIMS, values[1], error),
                "no_gap_kept": (DIMS, values[2], kept),
                "no_gap_soft_count": (DIMS, values[3], soft_count),
                "no_gap_soft_count_stderr": (DIMS, values[4], soft_error),
                "no_gap": (DIMS, reasons.astype(str), why),
            },
            coords={"at": list(points), "dimension_method": list(methods)},
        )

    def question_seconds(self, subject: Subject, study: Study) -> float:
        r"""Seconds that one question to each method takes, from asking it once."""
        at, x = next(iter(study.points(subject).items()))

        def ask_all() -> None:
            for method in self.built.values():
                answer_of(subject, study, method, at, x, 0, study.rms / 3)

        return seconds_once(ask_all, subject.device)


def _check_costs(
    subject: Subject, methods: Mapping[str, DimensionMethod], x: Tensor, level: float
) -> None:
    # What a spectrum takes is known from a few products, before the first one is asked for.
    sigma = torch.tensor(level, dtype=torch.float64).to(x)
    for name, method in methods.items():
        spectrum: Any = getattr(method, "spectrum", None)
        if any(callable(getattr(spectrum, key, None)) for key in ("need", "products")):
            admit(subject.denoiser, x, sigma)
            cost = DenoiserJacobian(subject.denoiser, x, sigma).cost(spectrum)
            cost.check_memory(f"for {name}: use local-dimension, or spectrum=lanczos(...)")


def answer_of(
    subject: Subject,
    study: Study,
    method: DimensionMethod,
    at: str,
    x_0: Tensor,
    index: int,
    level: float,
) -> Estimate | NoGap:
    r"""What a method says of a subject at one point and level.

    Arguments:
        subject: The denoiser.
        study: Its noise and seed.
        method: The method.
        at: The kind of the points.
        x_0: The clean points of that kind, with shape :math:`(P, *)`.
        index: Which of them.
        level: The noise level, in the data's units.
    """
    x, sigma = x_0[index], torch.tensor(level, dtype=torch.float64).to(x_0)
    if place_of(method) == "noisy":
        x = x + sigma * study.noise_of(at, index)[0].to(x)
    own = seeded_for(method, study.seed, f"method/{at}", index)
    return ask(own, subject.denoiser, x, sigma)
