r"""The check for strangers' probes: ours pass, and each broken one fails with its sentence."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from geomem.measure.copies import Copies
from geomem.measure.dimension import LocalDimensions
from geomem.measure.errors import Errors
from geomem.measure.jacobian import Jacobian
from geomem.measure.pixels import Pixels
from geomem.measure.posterior import PosteriorWeights
from geomem.measure.samples import Samples
from geomem.measure.study import Probe, Report, Study
from geomem.measure.subject import Subject
from geomem.measure.trajectories import Trajectories
from geomem.testing import check_probe

NAMED = {"units": "1", "long_name": "mean of the answer"}
BREAKS: dict[str, tuple[Callable[..., Any], str]] = {}


@pytest.mark.parametrize(
    "probe",
    [
        Errors(),
        Jacobian(4),
        LocalDimensions(("largest-gap",), 2),
        PosteriorWeights(),
        Samples(8, 4),
        Copies(8, 4, show_images=True),
        Trajectories(3, 2),
        Pixels(show_images=True),
    ],
    ids=lambda probe: type(probe).__name__,
)
def test_our_probes_pass(probe: Probe) -> None:
    check_probe(probe)


def answer(subject: Subject, study: Study) -> xr.Dataset:
    r"""The mean answer at noised points, by kind of points and level: what a probe may return."""
    points = study.points(subject)
    values = np.empty((len(points), len(study.sigmas)))
    for a, (at, x_0) in enumerate(points.items()):
        z = study.noise(at, len(x_0))[:, 0].to(x_0)
        for k, sigma in enumerate(study.sigmas.to(x_0)):
            with torch.no_grad():
                values[a, k] = float(subject.denoiser(x_0 + sigma * z, sigma).mean())
    return xr.Dataset({"mean_answer": (("at", "sigma"), values, NAMED)}, {"at": list(points)})


@dataclass(frozen=True)
class Mean:
    r"""A probe that is right, and what is done to its answer."""

    broken: str = ""

    def __call__(self, subject: Subject, study: Study, report: Report) -> Any:
        report(0.5)
        found = answer(subject, study)
        break_it, _ = BREAKS.get(self.broken, (lambda found, *rest: found, ""))
        return break_it(found, subject, study, report)


def breaks(name: str, sentence: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        BREAKS[name] = function, sentence
        return function

    return add


breaks("a float", "returns a float")(lambda found, *rest: 1.0)
breaks("nothing", "returns nothing of any")(lambda *rest: xr.Dataset())
breaks("no units", "no `units` or `long_name`")(lambda found, *rest: found.drop_attrs())
breaks("beyond 1", "reports shares .*rising to 1")(
    lambda found, subject, study, report: report(2.0) or found
)
breaks("backwards", "reports shares")(lambda found, subject, study, report: report(0.1) or found)
breaks("no kinds", "coordinate None where the points are")(
    lambda found, *rest: found.drop_vars("at")
)
breaks("another length", "'sigma' of length 1 where the study has 3")(
    lambda found, *rest: found.isel(sigma=[0])
)
breaks("levels again", "a coordinate 'sigma', which the study gives")(
    lambda found, subject, study, report: found.assign_coords(sigma=study.sigmas.numpy())
)
breaks("a dim of records", "a dim 'seed'")(lambda found, *rest: found.expand_dims("seed"))
breaks("a name of records", "a variable kind")(
    lambda found, *rest: found.rename(mean_answer="kind")
)
breaks("complex", "the dtype complex128")(lambda found, *rest: found.astype(complex))


@breaks("dims by subject", "mean_answer of Mean has other dims for other subjects")
def _(found: xr.Dataset, subject: Subject, *rest: Any) -> xr.Dataset:
    if subject.description.kind == "linear":
        return found
    return found.isel(sigma=0)


@breaks("clock", "two answers of")
def _(found: xr.Dataset, *rest: Any) -> xr.Dataset:
    late = (("at", "sigma"), found.mean_answer.values + time.perf_counter_ns(), NAMED)
    return xr.Dataset({"mean_answer": late}, found.coords)


@breaks("order", "two answers of")
def _(found: xr.Dataset, *rest: Any) -> xr.Dataset:
    COUNT.append(0)
    values = (("at", "sigma"), found.mean_answer.values + len(COUNT), NAMED)
    return xr.Dataset({"mean_answer": values}, found.coords)


@breaks("unseeded", "torch's random state")
def _(found: xr.Dataset, *rest: Any) -> xr.Dataset:
    torch.randn(1)
    return found


@breaks("training points", "KeyError: 'training'; return an empty")
def _(found: xr.Dataset, subject: Subject, study: Study, report: Report) -> xr.Dataset:
    study.points(subject)["training"]
    return found


@breaks("train mode", "changes the network's mode")
def _(found: xr.Dataset, subject: Subject, *rest: Any) -> xr.Dataset:
    if isinstance(subject.denoiser, torch.nn.Module):
        subject.denoiser.train()
    return found


@breaks("in place", "changes the study's images")
def _(found: xr.Dataset, subject: Subject, study: Study, report: Report) -> xr.Dataset:
    next(iter(study.images.values())).add_(1)
    return found


COUNT: list[int] = []


def test_a_probe_that_is_right_passes() -> None:
    check_probe(Mean())


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_broken_probes_fail(name: str) -> None:
    with pytest.raises(AssertionError, match=BREAKS[name][1]):
        check_probe(Mean(name))


@dataclass
class Thawed:
    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        return answer(subject, study)


@dataclass(frozen=True)
class Tensors:
    level: Any = None

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        return answer(subject, study)


def test_a_probe_is_a_frozen_dataclass_that_a_study_can_hold() -> None:
    with pytest.raises(AssertionError, match="no frozen dataclass"):
        check_probe(Thawed())
    with pytest.raises(AssertionError, match="no frozen dataclass"):
        check_probe(lambda subject, study, report: answer(subject, study))
    with pytest.raises(AssertionError, match="cannot be written into a study"):
        check_probe(Tensors(torch.zeros(2)))
    with pytest.raises(AssertionError, match="comes back from a study as"):
        check_probe(Tensors({"a": (1, 2)}))

    local = dataclasses.make_dataclass("Local", [], frozen=True, bases=(Mean,))
    with pytest.raises(AssertionError, match=r"defined inside a function|there is no probe"):
        check_probe(local())
