r"""Dimensions: how many directions denoisers keep, at points and levels, as a run of its own.

Its subjects are exact denoisers of N images, the population where it is known, and trained
networks; its one probe asks methods of local dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from geomem.arguments import Text, checked
from geomem.errors import InputError
from geomem.measure.dimension import LocalDimensions
from geomem.measure.study import Probe, Study
from geomem.measure.subject import Description
from geomem.runs.asked import Asked

At = Literal["training", "held_out"]


@checked
@dataclass(frozen=True)
class Dimensions(Asked):
    r"""Local dimension of denoisers: how many directions they still vary in."""

    dimension: tuple[Annotated[str, Text()], ...] = ("local-dimension",)
    """Methods, with arguments in parentheses if any."""
    at: tuple[At, ...] = ("training", "held_out")
    """Kinds of points."""

    kind: ClassVar[str] = "dimension"

    def __post_init__(self) -> None:
        if not self.at or not self.dimension or not self.sigmas:
            raise InputError("`at`, `dimension` and `sigmas` want at least one entry each")

    @property
    def kinds(self) -> Sequence[str]:
        r"""The kinds of points that are asked for."""
        return self.at

    @property
    def asking(self) -> list[Probe]:
        r"""The methods of local dimension."""
        return [LocalDimensions(self.dimension, self.points)]

    def seconds(self, subject: Description, study: Study, device: str = "cpu") -> float:
        r"""Seconds that a subject takes, from asking it once."""
        number = self.subjects(study).index(subject)
        one = self._subject(number, subject, study, device)
        points = sum(map(len, study.points(one).values())) * len(study.sigmas)
        probe = LocalDimensions(self.dimension, self.points)
        return points * probe.question_seconds(one, study)
