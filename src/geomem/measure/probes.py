r"""The probes that there are, and the measuring of a subject: each probe asks in its turn."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import xarray as xr

from geomem.arguments import Number, Text, Whole, checked
from geomem.compute.products import float32_products
from geomem.errors import InputError
from geomem.measure.alike import Alike
from geomem.measure.copies import Copies
from geomem.measure.dimension import LocalDimensions
from geomem.measure.errors import Errors
from geomem.measure.jacobian import Jacobian
from geomem.measure.pixels import Pixels
from geomem.measure.posterior import PosteriorWeights
from geomem.measure.samples import Samples
from geomem.measure.study import Probe, Report, Study
from geomem.measure.subject import Subject
from geomem.measure.trajectories import SIGNS, Trajectories

# Shares of the work, roughly, for progress: what is not named here takes little.
WEIGHTS = {"Errors": 4.0, "Jacobian": 4.0, "LocalDimensions": 8.0}


@checked
@dataclass(frozen=True)
class MeasureOptions:
    """What is measured of each denoiser."""

    sigmas: tuple[Annotated[float, Number(above=0.0)], ...] | None = None
    """Noise levels in units of the data's rms deviation; the default window if not given."""
    levels: Annotated[int, Whole(least=2)] = 20
    """How many levels the default window gets."""
    points: Annotated[int, Whole(least=8)] = 64
    """Training images and held-out images that are measured."""
    draws: Annotated[int, Whole(least=1)] = 4
    """Noise draws for each image."""
    jacobian_points: Annotated[int, Whole(least=0)] | None = None
    """At how many images the Jacobian is measured; all of them for an MLP, 8 for a U-Net."""
    dimension: tuple[Annotated[str, Text()], ...] = ()
    """Methods of local dimension to record, too: names, or package.module:Class of your own."""
    dimension_points: Annotated[int, Whole(least=1)] = 8
    """At how many training and held-out images they are asked."""
    samples: Annotated[int, Whole(least=0)] = 256
    """Samples that each network generates, to look for copies."""
    trajectories: Annotated[int, Whole(least=0)] = 16
    """Trajectories of each network's own sampler along which it is followed."""
    probes: tuple[Annotated[str, Text()], ...] = ()
    """Further probes of your own, as package.module:Class (docs/extend.md)."""
    show_images: bool = False
    """Keep pixels of training images in the records and show them on the page."""

    def probes_of(self, jacobian_points: int) -> list[Probe]:
        r"""The probes that these options ask for.

        Arguments:
            jacobian_points: At how many images the Jacobian of networks is measured.

        Raises:
            InputError: If there is no such method or probe.
        """
        if len(set(self.dimension)) < len(self.dimension):
            raise InputError(f"`dimension` names a method twice: {list(self.dimension)}")
        asked: list[Probe] = [Errors(), Jacobian(jacobian_points), PosteriorWeights(), Alike()]
        if self.dimension:
            asked.append(LocalDimensions(self.dimension, self.dimension_points))
        if self.samples:
            asked.append(Samples(self.samples))
            asked.append(Copies(self.samples, show_images=self.show_images))
        if self.trajectories:
            asked.append(Trajectories(self.trajectories, signs=SIGNS if jacobian_points else 0))
        asked.append(Pixels(self.show_images))
        return asked + [build({"probe": where}) for where in self.probes]


def build(written: dict[str, Any]) -> Probe:
    r"""The probe that a study describes, see :func:`geomem.measure.study.describe`.

    Raises:
        InputError: If there is no such class here, or it does not take these fields.
    """
    where = str(written["probe"])
    fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in written.items()}
    del fields["probe"]
    module, _, name = where.partition(":")
    if os.getcwd() not in sys.path:  # a probe of one's own stands beside where one works
        sys.path.append(os.getcwd())
    try:
        probe: Probe = getattr(import_module(module), name)(**fields)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"there is no probe {where!r} ({error}); write package.module:Class of a frozen "
            "dataclass that can be imported here"
        ) from error
    return probe


def measure(subject: Subject, study: Study, report: Report = lambda share: None) -> xr.Dataset:
    r"""The record of a subject: what each probe of the study returns of it.

    Arguments:
        subject: The denoiser.
        study: What is asked.
        report: Called with the share that is done.

    Raises:
        InputError: If a probe fails, naming the subject; or returns what is no record.
    """
    probes = [build(written) for written in study.content["probes"]]
    weights = [WEIGHTS.get(type(probe).__name__, 1.0) for probe in probes]
    record, done = xr.Dataset(), 0.0
    for probe, weight in zip(probes, weights, strict=True):
        start, share = done / sum(weights), weight / sum(weights)
        with float32_products():
            found = probe(subject, study, lambda part, a=start, b=share: report(a + b * part))  # type: ignore[misc]
        _check(found, probe, record)
        record = record.merge(found, join="outer")
        done += weight
        report(done / sum(weights))
    return record


def _check(found: Any, probe: Probe, record: xr.Dataset) -> None:
    name = type(probe).__name__
    if not isinstance(found, xr.Dataset):
        raise InputError(f"the probe {name} returned a {type(found).__name__}; return xr.Dataset")
    twice = sorted(map(str, set(found.data_vars) & set(record.data_vars)))
    if twice:
        raise InputError(f"the probe {name} returned {twice[0]}, which another one has; rename it")
    bare = [
        str(k) for k, v in found.data_vars.items() if not {"units", "long_name"} <= set(v.attrs)
    ]
    if bare:
        raise InputError(f"the probe {name} gave {bare[0]} no `units` or `long_name`; add both")
