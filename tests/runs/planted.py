r"""Runs whose truth is known: exact denoisers, measured and recorded like networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.measure.errors import Errors
from geomem.measure.jacobian import Jacobian
from geomem.measure.probes import measure
from geomem.measure.study import make_study
from geomem.measure.subject import Description, Subject
from geomem.noise import log_levels
from geomem.runs.load import dataset_of, load
from geomem.runs.records import RunFolder
from geomem.subspaces import PrincipalDirections


def axes(variances: Tensor) -> PrincipalDirections:
    r"""The coordinate axes as principal directions, in the order they come."""
    d = len(variances)
    return PrincipalDirections(torch.eye(d, dtype=torch.float64), variances, 0.0, d, (d,))


def planted_run(
    path: Path,
    *,
    model: Denoiser,
    control: Denoiser,
    control_name: str,
    training: Tensor,
    held_out: Tensor,
    window: tuple[float, float],
    levels: int = 24,
    draws: int = 4,
    seed: int = 0,
) -> xr.Dataset:
    r"""Measures two denoisers at given points through the very code of a sweep."""
    study = make_study(
        {"training": training, "held_out": held_out},
        directions=axes(training.var(0)),
        sigmas=log_levels(*window, levels),
        probes=[Errors(), Jacobian(len(training))],
        rms=float(training.std()),
        draws=draws,
        seed=seed,
        control=control_name,
    )
    subjects = [
        Description(control_name),
        Description("learned", num_samples=len(training), seed=0, step=1),
    ]
    folder = RunFolder.create(path, {"kind": "planted"}, study.content, subjects)
    for number, denoiser in enumerate((control, model)):
        folder.write_record(number, measure(Subject(subjects[number], denoiser), study))
    return load(path)


def planted_audit(
    *,
    model: Denoiser,
    controls: Mapping[str, Denoiser],
    training: Tensor,
    held_out: Tensor,
    reserved: Tensor,
    levels: int = 20,
    draws: int = 4,
    seed: int = 0,
    groups: Mapping[str, Sequence[int]] | None = None,
    declared: Mapping[str, object] | None = None,
) -> xr.Dataset:
    r"""An audit of a denoiser that is known, measured in memory by the code of a run."""
    fitted = GaussianDenoiser.fit(reserved)
    directions = PrincipalDirections.of(fitted)
    rms = float((reserved - reserved.mean(0)).square().mean().sqrt())
    named = {"point_groups": {at: list(map(int, g)) for at, g in groups.items()}} if groups else {}
    study = make_study(
        {"training": training, "held_out": held_out},
        directions=directions,
        sigmas=log_levels(0.05 * rms, 5 * rms, levels),
        probes=[Errors()],
        rms=rms,
        draws=draws,
        seed=seed,
        control="auto",
        more={**named, **(declared or {})},
    )
    denoisers = {"model": model, **controls, "linear": fitted}
    subjects = [Description(kind) for kind in denoisers]
    records = {
        number: Errors()(Subject(subjects[number], denoiser), study, lambda share: None)
        for number, denoiser in enumerate(denoisers.values())
    }
    return dataset_of(study.content, subjects, records).assign_attrs(kind="audit", run="planted")


def network(known: xr.Dataset) -> xr.Dataset:
    r"""The numbers of the one network of a planted run."""
    return known.isel(subject=0)


def gaussian(variances: Tensor) -> GaussianDenoiser:
    return GaussianDenoiser(torch.zeros(len(variances), dtype=torch.float64), variances)


def draw(variances: Tensor, count: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(count, len(variances), generator=rng, dtype=torch.float64)
    return z * variances.sqrt()


def zmax(value: xr.DataArray, stderr: xr.DataArray) -> float:
    return float(np.nanmax((value / stderr.where(stderr > 0)).values))
