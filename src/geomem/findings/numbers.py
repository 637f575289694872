r"""The numbers of a run: one pure function from records to a dataset of estimates.

Every figure, table and finding reads from here, so that what is drawn is what was recorded.
Errors are bootstrap intervals over image groups (over trainings where there are several
seeds), with the same images and noise for every subject.

Beside the linear control, which knows a covariance, the generalization ratio says how much
better the best network of the run is on new images. The population and the reference network
are taken as they are: differences are paired, image by image.

References:
    | geomem's own definitions: :mod:`geomem.information`
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.arguments import checked
from geomem.compute.threads import one_thread
from geomem.errors import InputError
from geomem.findings.bases import basis_numbers
from geomem.findings.channels import channel_numbers
from geomem.findings.controls import control_numbers
from geomem.findings.copies import copy_numbers, twin_numbers
from geomem.findings.disjoint import disjoint_quantities
from geomem.findings.evidence import alike_numbers, exact_numbers, test_numbers
from geomem.findings.images import class_numbers, image_numbers
from geomem.findings.local_dimension import local_dimension_numbers
from geomem.findings.looks import look_numbers
from geomem.findings.lost import lost_numbers
from geomem.findings.measured import OWN, PERMUTATIONS, Measured
from geomem.findings.rows import Row, row_coordinates, rows_of
from geomem.information import integrate_log
from geomem.measure.subject import NETWORKS

Array = NDArray[np.float64]
REPLICATES = 1000
FOLD = "nats per e-fold of noise"
# Dims, units and meaning of what is estimated for each row, with its error and interval.
ESTIMATES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "density": (("sigma", "direction"), FOLD, "memorized density"),
    "by_level": (("sigma",), FOLD, "memorized density of all directions"),
    "by_direction": (("direction",), "nats", "memorized information of a direction"),
    "information": ((), "nats", "memorized information"),
    "control_information": ((), "nats", "all that could have been memorized"),
    "lost_share": (("sigma",), "1", "share of the control's dimension that is gone"),
    "excess_density": (("sigma", "direction"), FOLD, "excess error on new images"),
    "excess_by_level": (("sigma",), FOLD, "excess error on new images, of all directions"),
    "excess_by_direction": (("direction",), "nats", "excess on new images, of a direction"),
    "excess": ((), "nats", "excess on new images, beside the control"),
    "parts_excess": ((), "nats", "excess on new images, mean over disjoint trainings"),
    "variance_density": (("sigma", "direction"), FOLD, "variance over disjoint trainings"),
    "variance_by_level": (("sigma",), FOLD, "variance over trainings, of all directions"),
    "variance_by_direction": (("direction",), "nats", "variance over trainings, of a direction"),
    "variance": ((), "nats", "variance over disjoint trainings"),
    "bias_by_level": (("sigma",), FOLD, "excess minus variance, of all directions"),
    "bias_by_direction": (("direction",), "nats", "excess minus variance, of a direction"),
    "bias": ((), "nats", "excess minus variance, beside the control"),
    "agreement_by_level": (("sigma",), "1", "share of their error that two trainings agree on"),
    "agreement": ((), "1", "share of their error that two trainings agree on, over the window"),
    "beside_linear": ((), "nats", "training images, linear control's error minus the subject's"),
    "gap": (("sigma", "direction"), "directions", "dimension gap, held-out minus training"),
    "total_gap": (("sigma",), "directions", "dimension gap of all directions"),
    "gap_by_direction": (("direction",), "nats", "dimension gap over the window, of a direction"),
    "gap_information": ((), "nats", "dimension gap over the window"),
    "dimension": (("at", "sigma"), "directions", "dimension kept, trace of dD/dx"),
    "nearest_distance": (
        ("at", "sigma"),
        "rms",
        "distance of denoised points to the nearest training image, a coordinate",
    ),
    "information_beside": (("control",), "nats", "memorized information beside each control"),
    "disagreement": (("control",), "nats", "main control's information minus each other one's"),
}


@checked
@one_thread()  # the same floats on every machine; and small products are faster so
def numbers(
    dataset: xr.Dataset,
    *,
    replicates: int = REPLICATES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> xr.Dataset:
    r"""Estimates with errors of all that the records of a run say.

    Arguments:
        dataset: What :func:`geomem.load` returns; unfinished subjects are left out.
        replicates: How many bootstrap resamplings.
        permutations: How many permutations of labels the tests draw.
        seed: The seed of both.

    Returns:
        By ``subject`` (a row for each training recipe, with ``kind``, ``label``,
        ``num_samples``, ``step``, ``width``, ``trainings`` as coordinates), where it applies by
        ``sigma``, ``direction``, ``at``, ``point``, ``control``: memorized ``density`` and its
        margins ``by_level`` and ``by_direction``; memorized ``information`` in nats;
        ``lost_share``; the signed ``excess`` on new images, and with disjoint trainings its
        ``variance`` and ``bias`` and their ``agreement``; ``dimension`` and its ``gap``;
        ``point_information`` of each image and its place among held-out ones; ``auc``;
        ``p_value``; ``copies``; ``local_dimension``, if the run asked for it. Each ``x`` comes
        with ``x_stderr``, ``x_low`` and ``x_high`` (95 %). What the records do not say is NaN,
        or absent.

    Raises:
        InputError: If no subject is finished.
    """
    rows = rows_of(dataset)
    if not rows:
        raise InputError("the run has no finished subject yet; run the same command again")
    run = Measured(dataset, rows, replicates, seed, permutations)
    found = [quantities(run, row) for row in rows]
    several = any(len(row.members) > 1 for row in rows)
    networks = [row.members if row.kind in NETWORKS else () for row in rows]
    lost = lost_numbers(run)
    parts = [
        _estimates(found, several, run),
        image_numbers(run),
        class_numbers(run),
        test_numbers(run),
        alike_numbers(run),
        control_numbers(run),
        lost,
        basis_numbers(run, lost),
        channel_numbers(run),
        exact_numbers(run),
        look_numbers(run),
        copy_numbers(dataset, networks),
        twin_numbers(dataset),
        local_dimension_numbers(dataset, [row.members for row in rows]),
    ]
    merged = xr.merge(parts, combine_attrs="override", join="outer", compat="no_conflicts")
    if "at" in merged.dims:  # a union is in the order of the alphabet
        merged = merged.sel(at=[at for at in run.places if at in merged["at"].values])
    if run.ratio is not None:
        about = {"units": "1", "long_name": "generalization ratio, of the best network"}
        merged = merged.assign(ratio=(("sigma", "direction"), run.ratio[0], about))
    shared = ("sigma", "sigma_relative", "direction", "direction_count", "direction_variance")
    points = ("point", "point_index", "point_group", "point_name", "point_label")
    known = {name: dataset[name] for name in (*shared, *points) if name in dataset.coords}
    if "at" in merged.dims:
        known |= {
            name: value.reindex(at=merged["at"], fill_value="" if value.dtype == object else -1)
            for name, value in known.items()
            if "at" in value.dims
        }
    merged = merged.assign_coords(known).assign_coords(row_coordinates(rows))
    over = "trainings" if several else "images"
    return merged.assign_attrs({**dataset.attrs, "control": run.main, "error_over": over})


def quantities(run: Measured, row: Row) -> dict[str, list[Array]]:
    r"""All estimates of a row by name: for each of its trainings, resampled, with shape (R, \*).

    The first resampling is the sample itself.
    """
    found: dict[str, list[Array]] = {}
    for member in row.members:
        one: dict[str, Array] = {}
        main = run.main
        beside = {name: run.densities(member, row, name) for name in run.controls}
        totals = {
            name: integrate_log((w - e).sum(-1), run.sigmas, axis=1)
            for name, pair in beside.items()
            if pair is not None
            for w, e in [pair]
        }
        mine = beside.get(main)
        if mine is not None:
            control, own = mine
            one["density"] = control - own
            one["by_level"] = one["density"].sum(-1)
            one["by_direction"] = integrate_log(one["density"], run.sigmas, axis=1)
            one["information"] = totals[main]
            one["control_information"] = integrate_log(control.sum(-1), run.sigmas, axis=1)
            one["lost_share"] = one["by_level"] / control.sum(-1)
            one["excess_density"] = run.excess(member, row, run.beside_new)
            one["excess_by_level"] = one["excess_density"].sum(-1)
            one["excess_by_direction"] = integrate_log(one["excess_density"], run.sigmas, axis=1)
            one["excess"] = integrate_log(one["excess_by_level"], run.sigmas, axis=1)
        if totals:
            blank = np.full(run.replicates + 1, np.nan)
            values = [totals.get(name, blank) for name in run.controls]
            one["information_beside"] = np.stack(values, axis=1)
            if main in totals:
                one["disagreement"] = np.stack([totals[main] - v for v in values], axis=1)
        linear = run.densities(member, row, "linear", ratio=False)
        if linear is not None:
            gap = (linear[0] - linear[1]).sum(-1)
            one["beside_linear"] = integrate_log(gap, run.sigmas, axis=1)
        means = {}
        if "forward_diagonal" in run.dataset:
            means = {at: run.mean_diagonal(member, row, at) for at in run.kinds}
            kept = [means[at].sum(-1) for at in run.kinds]
            if OWN in run.places and OWN not in run.kinds:
                kept.append(run.own_means(member, "trajectory_trace"))
            one["dimension"] = np.stack(kept, axis=1)
        if {"training", "held_out"} <= set(means):
            one["gap"] = means["held_out"] - means["training"]
            one["total_gap"] = one["gap"].sum(-1)
            one["gap_by_direction"] = integrate_log(one["gap"], run.sigmas, axis=1)
            one["gap_information"] = integrate_log(one["total_gap"], run.sigmas, axis=1)
        if "denoised_distance" in run.dataset:
            far = [run.denoised_means(member, row, at) for at in run.kinds]
            if OWN in run.places and OWN not in run.kinds:
                far.append(run.own_means(member, "trajectory_distance"))
            scale = float(run.dataset.attrs["rms"]) * run.dataset.attrs["ambient_dim"] ** 0.5
            one["nearest_distance"] = np.stack(far, axis=1) / scale
        one |= disjoint_quantities(run, row, member)
        for name, array in one.items():
            found.setdefault(name, []).append(array)
    return found


def _estimates(rows: Sequence[dict[str, list[Array]]], several: bool, run: Measured) -> xr.Dataset:
    # One training: its resamplings. Several: their mean, and the spread between them.
    columns: dict[str, tuple[tuple[str, ...], Array, dict[str, str]]] = {}
    lengths = {"control": len(run.controls), "at": len(run.places)}
    for name, (dims, units, text) in ESTIMATES.items():
        if not any(name in row for row in rows):
            continue
        shape = tuple(lengths.get(d, run.dataset.sizes.get(d, 0)) for d in dims)
        made = np.full((4, len(rows), *shape), np.nan)
        for k, row in enumerate(rows):
            if name not in row:
                continue
            trainings = row[name]
            value = np.mean([v[0] for v in trainings], axis=0)
            spread = trainings[0][1:] - value
            if len(trainings) > 1:
                spread = np.array([v[0] for v in trainings]) - value
                spread = spread / np.sqrt(len(trainings) - 1)
            error = np.sqrt(np.square(spread - spread.mean(0)).mean(0))
            ends = value + np.quantile(spread, (0.025, 0.975), axis=0)
            if several:
                ends = np.stack([value - 1.96 * error, value + 1.96 * error])
            made[:, k] = value, error, *ends
        for suffix, said, values in zip(
            ("", "_stderr", "_low", "_high"),
            ("", ", standard error", ", lower end at 95 %", ", upper end at 95 %"),
            made,
            strict=True,
        ):
            about = {"units": units, "long_name": text + said}
            columns[name + suffix] = (("subject", *dims), values, about)
    coords = {"at": run.places, "control": list(run.controls)}
    used = {d for dims, *_ in columns.values() for d in dims}
    return xr.Dataset(columns, coords={d: v for d, v in coords.items() if d in used})
