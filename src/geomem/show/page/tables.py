r"""Tables: the numbers of a run by training-set size, and all that is drawn as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomem.compute.files import atomic_write_text
from geomem.findings.local_dimension import DIMS
from geomem.findings.sentences import copy_rate
from geomem.show.figures.views import (
    Quantity,
    direction_labels,
    number,
    peak_level,
    signature,
    words,
)
from geomem.stats import Proportion


@dataclass(frozen=True)
class Row:
    r"""One quantity: its name, how it was obtained, and a cell for each N.

    A cell is a number with its error, and what else has to be said about it.
    """

    name: str
    how: str
    cells: list[tuple[str, str]]


def table(known: xr.Dataset) -> list[Row]:
    r"""The table of numbers, one column for each N."""
    sizes = [int(n) for n in known.num_samples.values]
    control, information = known.attrs["control"], words(known, "density").total
    rows: list[tuple[str, str, Callable[[xr.Dataset, int], tuple[str, str]]]] = [
        (
            f"{information.capitalize()}, nats",
            "the control's error minus the network's at training images, over the window",
            lambda k, n: (str(number(k, "information", num_samples=n)), ""),
        ),
        (
            f"of the {control} control's, nats",
            "all that could have been, had the network made no error",
            lambda k, n: (str(number(k, "control_information", num_samples=n)), ""),
        ),
        ("Largest lost share", "of the control's dimension; at this noise level", _share),
        ("Dimension kept at training images", "directions, at that level", _kept("training")),
        ("Dimension kept at held-out images", "directions, at that level", _kept("held_out")),
        (
            "Damage, nats",
            "by which the network is worse than the control on new images",
            lambda k, n: (str(number(k, "damage", num_samples=n)), ""),
        ),
        ("Exact denoiser's budget, nats", "spent in the window, of ln N in all", _budget),
        ("p-value", "permutation of training and held-out images, all levels at once", _p_value),
    ]
    if "copies" in known:
        rows += [
            (
                "Copies among samples",
                "distance ratio among the smallest 1 % of held-out images'; with 95 % interval",
                _copies,
            ),
            ("Reserved images called copies", "should be about 1 %; with 95 % interval", _unseen),
            (
                "Median distance ratio of samples",
                "nearest over second-nearest training image; no error known",
                lambda k, n: (f"{float(k.median_ratio.sel(num_samples=n)):.2f}", ""),
            ),
        ]
    rows.append(("Identity check, largest |z|", "of all levels; above 4 is a fault", _identity))
    return [Row(name, how, [cell(known, n) for n in sizes]) for name, how, cell in rows]


def _share(known: xr.Dataset, n: int) -> tuple[str, str]:
    level = {"num_samples": n, "sigma": known.sigma.values[peak_level(known, n)]}
    sigma = float(known.sigma_relative.sel(sigma=level["sigma"]))
    return str(number(known, "lost_share", **level)), f"at σ = {sigma:.2g} rms"


def _kept(at: str) -> Callable[[xr.Dataset, int], tuple[str, str]]:
    def cell(known: xr.Dataset, n: int) -> tuple[str, str]:
        sigma = known.sigma.values[peak_level(known, n)]
        here = {"denoiser": "learned", "at": at, "num_samples": n, "sigma": sigma}
        return str(number(known, "dimension", **here)), ""

    return cell


def _budget(known: xr.Dataset, n: int) -> tuple[str, str]:
    return (
        str(number(known, "exact_information", num_samples=n)),
        f"of {math.log(n):.2f}",
    )


def _p_value(known: xr.Dataset, n: int) -> tuple[str, str]:
    p = float(known.p_value.sel(num_samples=n))
    return ("no test", "too few image groups") if math.isnan(p) else (f"{p:.2g}", "")


def _copies(known: xr.Dataset, n: int) -> tuple[str, str]:
    return _rate(copy_rate(known, n))


def _unseen(known: xr.Dataset, n: int) -> tuple[str, str]:
    return _rate(copy_rate(known, n, "unseen_copies"))


def _rate(rate: Proportion | str) -> tuple[str, str]:
    if isinstance(rate, str):
        return rate, "takes 199 held-out images"
    count, _, interval = str(rate).partition(" (")
    return count, interval.rstrip(")").removesuffix(" at 95 %")


def _identity(known: xr.Dataset, n: int) -> tuple[str, str]:
    z = np.abs(known.identity_z.sel(num_samples=n).values)
    return (f"{np.nanmax(z):.1f}", "") if np.isfinite(z).any() else ("not checked", "no Jacobian")


# ------------------------------------------------------------------------------------- CSV


def write_csv(folder: Path, dataset: xr.Dataset, known: xr.Dataset) -> list[Path]:
    r"""Writes the tables behind the page as CSV files.

    Arguments:
        folder: Where to; the run's ``tables``.
        dataset: The records.
        known: Their numbers, with the margins of the gap.
    """
    made = {
        "sizes": _frame(known, ("num_samples",)),
        "levels": _frame(known, ("num_samples", "sigma")),
        "dimension": _frame(known, ("denoiser", "at", "num_samples", "sigma")),
        "images": _images(dataset, known),
        "map_density": _map(known, "density"),
        "map_gap": _map(known, "gap"),
        "directions": _directions(known),
    }
    if "local_dimension" in known:
        made["local_dimension"] = _frame(known, DIMS)
    if "sample_ratio" in dataset:
        made["samples"] = _samples(dataset)
    for name, rows in made.items():
        atomic_write_text(folder / f"{name}.csv", _text(rows))
    return [folder / f"{name}.csv" for name in made]


def _frame(known: xr.Dataset, dims: tuple[str, ...]) -> list[list[Any]]:
    # All variables with exactly these dims, one row for each combination.
    names = [str(k) for k, v in known.data_vars.items() if set(v.dims) == set(dims)]
    arrays = [known[name].transpose(*dims).values for name in names]
    relative = "sigma" in dims
    header = [*dims, *(["sigma_relative"] if relative else []), *names]
    rows: list[list[Any]] = [header]
    for index in np.ndindex(*(known.sizes[d] for d in dims)):
        lead = [known[d].values[i] for d, i in zip(dims, index, strict=True)]
        extra = [known.sigma_relative.values[index[dims.index("sigma")]]] if relative else []
        rows.append([*lead, *extra, *(array[index] for array in arrays)])
    return rows


def _map(known: xr.Dataset, quantity: Quantity) -> list[list[Any]]:
    # In long form, a direction: bands are the mean over theirs, and "directions" names them.
    view, labels = signature(known, quantity), direction_labels(known.direction_count.values)
    rows: list[list[Any]] = [
        ["num_samples", "sigma", "sigma_relative", "directions", quantity, f"{quantity}_stderr"]
    ]
    for i, k, u in np.ndindex(view.value.shape):
        where = [view.num_samples.values[i], view.sigma.values[k], view.sigma_relative.values[k]]
        what = [view.value.values[i, k, u], view.value_stderr.values[i, k, u]]
        rows.append([*where, labels[u], *what])
    return rows


def _directions(known: xr.Dataset) -> list[list[Any]]:
    labels = direction_labels(known.direction_count.values)
    names = ("by_direction", "by_direction_stderr", "gap_by_direction", "gap_by_direction_stderr")
    rows: list[list[Any]] = [["num_samples", "directions", "count", "variance", *names]]
    for i, u in np.ndindex(known.by_direction.shape):
        about = [labels[u], known.direction_count.values[u], known.direction_variance.values[u]]
        values = [known[name].transpose("num_samples", "direction").values[i, u] for name in names]
        rows.append([known.num_samples.values[i], *about, *values])
    return rows


def _images(dataset: xr.Dataset, known: xr.Dataset) -> list[list[Any]]:
    index = dataset.point_index.sel(at="training").values
    rows: list[list[Any]] = [["num_samples", "image", "nats", "nats_stderr"]]
    for i, k in np.ndindex(known.point_information.shape):
        nats, stderr = known.point_information.values[i, k], known.point_information_stderr.values
        if np.isfinite(nats):
            rows.append([known.num_samples.values[i], index[k], nats, stderr[i, k]])
    return rows


def _samples(dataset: xr.Dataset) -> list[list[Any]]:
    names = ("sample_ratio", "sample_p_value", "sample_distance", "sample_nearest")
    last = dataset.isel(step=-1)
    arrays = [last[name].transpose("num_samples", "seed", "sample").values for name in names]
    rows: list[list[Any]] = [["num_samples", "seed", "sample", *names]]
    for index in np.ndindex(arrays[0].shape):
        if np.isfinite(arrays[0][index]):
            lead = [last.num_samples.values[index[0]], last.seed.values[index[1]], index[2]]
            rows.append([*lead, *(array[index] for array in arrays)])
    return rows


def _text(rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([[_cell(v) for v in row] for row in rows])
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value.item() if isinstance(value, np.generic) else value
