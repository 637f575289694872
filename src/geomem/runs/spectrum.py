r"""Spectra: the singular values that the paper draws, of denoisers that are there.

Beside them the theory needs the data's variances, which the study holds: those of the known
manifold, or of the reserved images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.compute.devices import seconds_once
from geomem.compute.files import atomic_write_text
from geomem.compute.threads import one_thread
from geomem.data.source import LINEAR_NAMES
from geomem.errors import InputError
from geomem.findings.spectrum import Spectra, summarize_spectra
from geomem.manifolds import PAPER_VARIANCES
from geomem.measure.spectrum import ScoreSpectrum
from geomem.measure.study import Probe, Study
from geomem.measure.subject import Description
from geomem.runs.asked import Asked
from geomem.runs.records import RunFolder, json_text

At = Literal["origin", "training", "held_out"]


@checked
@dataclass(frozen=True)
class ScoreSpectra(Asked):
    r"""Singular values of scores and Jacobians, by the paper's estimator and by ours."""

    at: tuple[At, ...] = ("origin",)
    """Kinds of points; the origin is x = 0."""
    given: Path | None = None
    """An .npy file of further points, in the data's units, of shape (P, *)."""
    sets: Annotated[int, Whole(least=1)] = 1
    """On how many disjoint sets of each size exact denoisers are asked: errors over data sets."""

    kind: ClassVar[str] = "spectrum"

    def __post_init__(self) -> None:
        if not (self.at or self.given) or not self.sigmas:
            raise InputError("`at` and `sigmas` want at least one entry each")

    @property
    def kinds(self) -> Sequence[str]:
        r"""The kinds of points; the origin and given points are ``fixed``."""
        fixed = ["fixed"] if "origin" in self.at or self.given else []
        return [*fixed, *(at for at in self.at if at != "origin")]

    @property
    def asking(self) -> list[Probe]:
        r"""The spectra."""
        return [ScoreSpectrum()]

    @property
    def disjoint(self) -> int:
        r"""On how many disjoint sets of each size exact denoisers are asked."""
        return self.sets

    def fixed(self) -> tuple[Tensor, list[str]]:
        r"""The origin and the given points, with shape (P, \*).

        Raises:
            InputError: If the file holds no such points.
        """
        shape = self.source.data.item_shape
        points = [torch.zeros(1, *shape)] if "origin" in self.at else []
        names = ["origin"] * len(points)
        if self.given is not None:
            points.append(_read_points(self.given, shape))
            names += [f"{self.given.name}, row {k}" for k in range(len(points[-1]))]
        return torch.cat(points), names

    def more(self) -> dict[str, Any]:
        r"""What the theory needs to know: variances, and whether samples are normalised."""
        source = self.source
        if source.data.name in LINEAR_NAMES:
            home = self if self.home is None else self._home_options()
            variances = list(home.variances or PAPER_VARIANCES)
            return {"theory": {"variances": variances, "gaussian": source.data.name == "linear"}}
        control = source.linear_control
        rest = [float(control.rest)] * int(control.complement)
        return {"theory": {"variances": [*control.variances.tolist(), *rest], "gaussian": True}}

    def _home_options(self) -> Any:
        from geomem.runs.kinds import open_run

        return open_run(self.home)

    def seconds(self, subject: Description, study: Study, device: str = "cpu") -> float:
        r"""Seconds that a subject takes, from asking it once at one level."""
        number = self.subjects(study).index(subject)
        one = self._subject(number, subject, study, device)
        first = {at: x[:1] for at, x in list(study.images.items())[:1]}
        content = {**study.content, "sigmas": study.content["sigmas"][:1]}
        asked = Study(content, study.directions, first)
        with one_thread():
            each = seconds_once(lambda: ScoreSpectrum()(one, asked, lambda share: None), one.device)
        return each * sum(map(len, study.points(one).values())) * len(study.sigmas)

    def conclude(self, folder: RunFolder, dataset: xr.Dataset) -> None:
        r"""Writes the summary: drops, kept directions and the theory beside them."""
        found = Spectra.of(dataset, folder.study)
        text = json_text(summarize_spectra(found))
        atomic_write_text(folder.path / "summary.json", text, inside=folder.path, private=True)


def _read_points(path: Path, shape: tuple[int, ...]) -> Tensor:
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"`given` is {path}, which is no .npy file ({error})") from error
    if points.ndim != 1 + len(shape) or points.shape[1:] != shape or not len(points):
        raise InputError(
            f"`given` has shape {points.shape}; pass points of shape "
            f"({', '.join(['P', *map(str, shape)])})"
        )
    if not (points.dtype.kind in "fiu" and np.isfinite(points).all()):
        raise InputError("`given` holds values that are no finite numbers; pass floats")
    return torch.from_numpy(points.astype(np.float32))
