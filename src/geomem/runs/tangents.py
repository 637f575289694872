r"""Tangents: the tangent spaces of denoisers that are there, as a run of its own.

Its subjects are trained networks, exact denoisers and the population where it is known, asked at
the same noisy points, so that their spaces can be compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import xarray as xr

from geomem.arguments import Whole, checked
from geomem.compute.devices import seconds_once
from geomem.compute.files import atomic_write_text
from geomem.errors import InputError
from geomem.findings.tangents import summarize_turns, turns
from geomem.measure.study import Probe, Study
from geomem.measure.subject import Description
from geomem.measure.tangents import TangentSpaces, jacobian_by_differences
from geomem.runs.asked import Asked
from geomem.runs.records import RunFolder, json_text

At = Literal["training", "held_out"]


@checked
@dataclass(frozen=True)
class Tangents(Asked):
    r"""Leading eigenspaces of Jacobians, at points and levels."""

    at: tuple[At, ...] = ("training", "held_out")
    """Kinds of points."""
    rank: Annotated[int, Whole(least=1)] = 16
    """How many directions are kept."""

    kind: ClassVar[str] = "tangents"

    def __post_init__(self) -> None:
        if not self.at or not self.sigmas:
            raise InputError("`at` and `sigmas` want at least one entry each")

    @property
    def kinds(self) -> Sequence[str]:
        r"""The kinds of points that are asked for."""
        return self.at

    @property
    def asking(self) -> list[Probe]:
        r"""The tangent spaces."""
        return [TangentSpaces(self.rank)]

    def seconds(self, subject: Description, study: Study, device: str = "cpu") -> float:
        r"""Seconds that a subject takes, from forming one Jacobian."""
        number = self.subjects(study).index(subject)
        one = self._subject(number, subject, study, device)
        points = study.points(one)
        first = next(iter(points.values()))[0]
        each = seconds_once(
            lambda: jacobian_by_differences(one.denoiser, first, study.rms / 3), one.device
        )
        return each * sum(map(len, points.values())) * len(study.sigmas)

    def conclude(self, folder: RunFolder, dataset: xr.Dataset) -> None:
        r"""Writes the summary: how far the spaces of each size are turned."""
        text = json_text(summarize_turns(turns(dataset), folder.study["data"]["name"]))
        atomic_write_text(folder.path / "summary.json", text, inside=folder.path, private=True)
