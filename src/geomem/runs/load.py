r"""A run as one dataset: what its records say, subject by subject."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomem.arguments import checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.measure.study import KINDS
from geomem.measure.subject import KNOWN, Description
from geomem.runs.records import SCHEMA_VERSION, RunFolder

# What a study says for findings to know: of an audit, and of disjoint parts.
DECLARED = ("overlap", "declared", "warnings", "part_sizes")
# Axes on which records may be of different lengths, or know other entries: by name or number.
NAMED = ("at", "dimension_method")


@checked
def load(run: str | Path) -> xr.Dataset:
    r"""All records of a run as one dataset; what is not there, or not yet, is NaN.

    Dims: ``subject, at, sigma, point, draw, direction``, those of further probes, and none that
    no record has. What is known of a subject (``kind, label, num_samples, seed, step, width``)
    are coordinates along ``subject``; ``at`` is any kind of points. Levels and images are those
    of the study, never recomputed. ``error`` is signed, in noise units, along single
    directions, and a norm along bands: its square adds up. ``dataset.sel(subject=3)``,
    ``dataset.where(dataset.num_samples == 512, drop=True)`` and :func:`grid` pick from it.

    Arguments:
        run: The folder of the run.

    Raises:
        InputError: If the folder holds no run, or a record is not what it should be.
    """
    folder = RunFolder.open(run)
    subjects = folder.subjects
    records = dict(folder.records())
    attrs = {"run": folder.path.resolve().name, "kind": folder.config["kind"]}
    return dataset_of(folder.study, subjects, records).assign_attrs(attrs)


def dataset_of(
    study: Mapping[str, Any], subjects: list[Description], records: Mapping[int, xr.Dataset]
) -> xr.Dataset:
    r"""Records of a study as one dataset, wherever they are kept; see :func:`load`.

    Arguments:
        study: The content of the study.
        subjects: What is known of each subject.
        records: The records by the number of their subject.
    """
    dataset = xr.Dataset(stack(records, len(subjects), study))
    dataset = dataset.assign_coords(subject_coordinates(subjects))
    measured = np.array([number in records for number in range(len(subjects))], dtype=bool)
    dataset = dataset.assign_coords(measured=("subject", measured))
    dataset = dataset.assign_coords(_study_coordinates(study, dataset))
    return dataset.assign_attrs(
        data=study["data"]["name"],
        data_digest=study["data"]["digest"],
        control=study["control"],
        rms=study["rms"],
        ambient_dim=study["data"]["ambient_dim"],
        window=study["window"],
        subjects_done=len(records),
        subjects_planned=len(subjects),
        schema_version=SCHEMA_VERSION,
        **{name: study[name] for name in DECLARED if study.get(name)},
    )


def stack(
    records: Mapping[int, xr.Dataset], count: int, study: Mapping[str, Any]
) -> dict[str, xr.DataArray]:
    r"""Records side by side along ``subject``, padded with NaN where one lacks something."""
    named: dict[str, list[Any]] = {"at": [], "dimension_method": []}
    lengths: dict[str, int] = {}
    for record in records.values():
        for dim, size in record.sizes.items():
            lengths[str(dim)] = max(lengths.get(str(dim), 0), size)
        for dim in NAMED:
            if dim in record.dims:
                named[dim] += [v for v in record[dim].values.tolist() if v not in named[dim]]
    named["at"].sort(key=lambda at: KINDS.index(at) if at in KINDS else len(KINDS))
    lengths |= {dim: len(values) for dim, values in named.items() if values}
    first = {
        str(name): value
        for r in reversed(list(records.values()))
        for name, value in r.data_vars.items()
    }
    width = sum(math.prod(lengths[str(d)] for d in v.dims) for v in first.values())
    Forecast(0, 8.0 * count * width).check_memory("load fewer subjects, or a run of fewer points")
    arrays: dict[str, xr.DataArray] = {}
    for name in sorted(first):
        value = first[name]
        dims = [str(d) for d in value.dims]
        text = value.dtype.kind not in "fiub"
        dtype = object if text else np.result_type(value.dtype, np.float32)
        blank = np.full([count, *(lengths[d] for d in dims)], "" if text else np.nan, dtype)
        for number, record in records.items():
            if name not in record:
                continue
            here = record[name].transpose(*dims)
            places: list[Any] = [
                [named[d].index(v) for v in record[d].values.tolist()]
                if d in NAMED
                else range(here.sizes[d])
                for d in dims
            ]
            blank[number, *np.ix_(*places)] = here.values
        arrays[name] = xr.DataArray(blank, dims=("subject", *dims), attrs=value.attrs)
        for dim in NAMED:
            if dim in dims:
                arrays[name] = arrays[name].assign_coords({dim: named[dim]})
    return arrays


def subject_coordinates(subjects: list[Description]) -> dict[str, Any]:
    r"""What is known of subjects, as coordinates along ``subject``; NaN where it is not."""
    numbers = {
        name: np.array([np.nan if (v := getattr(s, name)) is None else v for s in subjects], float)
        for name in KNOWN
    }
    names = {
        "kind": [s.kind for s in subjects],
        "label": [s.label or str(s) for s in subjects],
    }
    return {
        "subject": np.arange(len(subjects)),
        **{name: ("subject", np.array(values, dtype=object)) for name, values in names.items()},
        **{name: ("subject", values) for name, values in numbers.items()},
    }


def _study_coordinates(study: Mapping[str, Any], dataset: xr.Dataset) -> dict[str, Any]:
    sigmas = np.array(study["sigmas"])
    found: dict[str, Any] = {
        "sigma": ("sigma", sigmas, {"units": "data units", "long_name": "noise level"}),
        "sigma_relative": (
            "sigma",
            sigmas / study["rms"],
            {"units": "rms", "long_name": "noise level, in rms deviations of the data"},
        ),
        "direction": np.arange(1, len(study["direction_counts"]) + 1),
        "direction_count": ("direction", study["direction_counts"]),
        "direction_variance": ("direction", study["direction_variances"]),
    }
    if "point" not in dataset.dims:
        return {k: v for k, v in found.items() if v[0] in dataset.dims or k in dataset.dims}
    width = dataset.sizes["point"]
    if "at" not in dataset.dims:
        return found | {"point": np.arange(width)}
    kinds = [str(at) for at in dataset["at"].values]
    for name, source, blank in (
        ("point_index", "points", -1),
        ("point_group", "point_groups", -1),
        ("point_name", "point_names", ""),
        ("point_label", "point_labels", ""),
        ("point_digest", "point_digests", ""),
    ):
        if source in study:  # labels are not always known
            rows = [study[source].get(at, []) for at in kinds]
            padded = [[*row, *[blank] * (width - len(row))][:width] for row in rows]
            dtype = object if blank == "" else np.int64
            found[name] = (("at", "point"), np.array(padded, dtype=dtype))
    return found | {"point": np.arange(width)}


@checked
def grid(dataset: xr.Dataset, kind: str = "learned") -> xr.Dataset:
    r"""Subjects of one kind, with ``num_samples`` x ``seed`` x ``step`` as dims.

    Arguments:
        dataset: What :func:`load` or :func:`geomem.numbers` returns.
        kind: The kind of the subjects; those of others are left out.

    Returns:
        The same variables, with ``subject`` replaced by those of the three (and ``width`` and
        ``part``) that are known of every subject of this kind, in increasing order.

    Raises:
        InputError: If there is no such subject, or two are at one place.
    """
    picked = dataset.isel(subject=np.flatnonzero(dataset["kind"].values == kind))
    if not picked.sizes["subject"]:
        kinds = sorted({str(k) for k in dataset["kind"].values})
        raise InputError(f"`kind` is {kind!r}, and the run has {', '.join(kinds) or 'no subject'}")
    names = [
        name
        for name in ("num_samples", "seed", "step", "width", "part")
        if name in picked.coords and not np.isnan(picked[name].values).any()
    ]
    if not names:
        raise InputError(f"nothing is known of {kind} subjects that a grid could be made of")
    places = list(zip(*(picked[name].values.tolist() for name in names), strict=True))
    if len(set(places)) < len(places):
        raise InputError(f"several {kind} subjects have the same {', '.join(names)}")
    axes = {name: np.unique(picked[name].values.astype(int)) for name in names}
    known = ("subject", "kind", "label", "trainings", "seeds", "measured", *KNOWN)
    picked = picked.drop_vars([name for name in known if name in picked.coords])
    columns = [np.searchsorted(axes[n], [p[k] for p in places]) for k, n in enumerate(names)]
    shape = tuple(len(axes[name]) for name in names)
    arrays = {}
    for name, value in picked.variables.items():
        if "subject" not in value.dims:
            arrays[name] = value
            continue
        value = value.transpose("subject", ...)
        text = value.dtype.kind not in "fiub"
        dtype = object if text else np.result_type(value.dtype, np.float32)
        blank = np.full((*shape, *value.shape[1:]), "" if text else np.nan, dtype)
        blank[tuple(columns)] = value.values
        arrays[name] = xr.Variable((*names, *value.dims[1:]), blank, value.attrs)
    coords = {k: arrays.pop(k) for k in list(arrays) if k in picked.coords}
    return xr.Dataset(arrays, coords={**coords, **axes}, attrs=dataset.attrs)
