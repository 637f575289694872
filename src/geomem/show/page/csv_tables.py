r"""All that a page draws, as CSV files: one row of a file for each of what the file is named by.

Every file begins with what is known of the subject (its ``row`` of numbers, ``kind, label,
num_samples, step, width``), then says where (``at, sigma, sigma_relative, directions, ...``),
then the numbers, each ``x`` with its ``x_stderr``. Directions that are a band hold the sum over
them. Empty is what is not known. ``samples.csv`` is of single trainings: it has the number of
the ``subject`` and its ``seed`` instead.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomem.compute.files import atomic_write_text
from geomem.show.figures.data import direction_labels

ABOUT = ("kind", "label", "num_samples", "step", "width")
SAMPLES = ("sample_ratio", "sample_p_value", "sample_distance", "sample_nearest")
# The numbers of a file have exactly these dims.
FILES = {
    "subjects": ("subject",),
    "levels": ("subject", "sigma"),
    "directions": ("subject", "direction"),
    "cells": ("subject", "sigma", "direction"),
    "dimension": ("subject", "at", "sigma"),
    "local_dimension": ("dimension_method", "subject", "at", "sigma"),
    "images": ("subject", "point"),
}


def write_csv(folder: Path, dataset: xr.Dataset, known: xr.Dataset) -> list[Path]:
    r"""Writes the numbers behind the page as CSV files.

    Arguments:
        folder: Where to; ``tables`` in the run folder.
        dataset: The records.
        known: Their numbers.

    Returns:
        The files; those of numbers that the run does not have are left out.
    """
    frames = {
        name: (known, [str(k) for k, v in known.data_vars.items() if set(v.dims) == set(dims)])
        for name, dims in FILES.items()
    }
    made = {name: _rows(of, FILES[name], names) for name, (of, names) in frames.items() if names}
    if "sample_ratio" in dataset:
        names = [name for name in SAMPLES if name in dataset]
        made["samples"] = _rows(dataset, ("subject", "sample"), names)
    for name, rows in made.items():
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([[_cell(v) for v in r] for r in rows])
        path = folder / f"{name}.csv"
        atomic_write_text(path, buffer.getvalue(), inside=folder.parent, private=True)
    return [folder / f"{name}.csv" for name in made]


def _rows(dataset: xr.Dataset, dims: tuple[str, ...], names: list[str]) -> list[list[Any]]:
    # One row for each place where something is known; of subjects each has a row.
    single = "seed" in dataset.coords
    about = [*ABOUT, *(["seed"] if single else [])]
    header = ["subject" if single else "row", *about]
    leads: list[tuple[tuple[str, ...], np.ndarray]] = [
        (("subject",), dataset[name].values) for name in ("subject", *about)
    ]
    for dim in (d for d in dims if d != "subject"):
        if dim == "direction":
            counts, variances = dataset.direction_count.values, dataset.direction_variance.values
            header += ["directions", "direction_count", "direction_variance"]
            labels = np.array(direction_labels(counts), dtype=object)
            leads += [((dim,), column) for column in (labels, counts, variances)]
        elif dim == "point":
            training = dataset.sel(at="training")
            header += ["image", "image_name"]
            leads += [((dim,), training[name].values) for name in ("point_index", "point_name")]
        elif dim == "sigma":
            header += ["sigma", "sigma_relative"]
            leads += [((dim,), dataset[name].values) for name in ("sigma", "sigma_relative")]
        else:
            header.append(dim)
            leads.append(((dim,), dataset[dim].values))
    values = [dataset[name].transpose(*dims).values for name in names]
    there = np.any([v == v for v in values], axis=0)  # not NaN
    rows: list[list[Any]] = [[*header, *names]]
    for index in np.ndindex(*(dataset.sizes[d] for d in dims)):
        if not there[index] and len(dims) > 1:
            continue
        lead = [column[index[dims.index(dim[0])]] for dim, column in leads]
        rows.append([*lead, *(v[index] for v in values)])
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value.item() if isinstance(value, np.generic) else value
