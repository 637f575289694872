r"""The numbers of a run: one pure function from records to a dataset of estimates.

Every figure, table and finding reads from here, so that what is drawn is what was recorded.
A row of numbers is a subject, or several trainings that differ in their seed alone. Errors are
bootstrap intervals over image groups (over trainings where there are several seeds), with the
same images and noise for every subject.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.errors import InputError
from geomem.findings.copies import copy_numbers
from geomem.findings.local_dimension import local_dimension_numbers
from geomem.information import (
    Averages,
    SquaredErrors,
    average,
    cluster_weights,
    common_ratio,
    damage,
    integrate_log,
    lost_share,
    memorized_density,
    worst_subspace_share,
)
from geomem.measure.subject import NETWORKS
from geomem.stats import PermutationTest, numpy_rng, permutation_test

Array = NDArray[np.float64]
REPLICATES = 1000
PERMUTATIONS = 9999
MIN_UNITS = 8  # image groups a side for a test, and images for a mean of Jacobians
FOLD = "nats per e-fold of noise"
# Dims, units and meaning of what is estimated for each row, with its error and interval.
ESTIMATES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "density": (("sigma", "direction"), FOLD, "memorized density"),
    "by_level": (("sigma",), FOLD, "memorized density of all directions"),
    "by_direction": (("direction",), "nats", "memorized information of a direction"),
    "information": ((), "nats", "memorized information"),
    "control_information": ((), "nats", "all that could have been memorized"),
    "lost_share": (("sigma",), "1", "share of the control's dimension that is gone"),
    "damage": ((), "nats", "by which new images are denoised worse than by the control"),
    "gap": (("sigma", "direction"), "directions", "dimension gap, held-out minus training"),
    "total_gap": (("sigma",), "directions", "dimension gap of all directions"),
    "gap_by_direction": (("direction",), "nats", "dimension gap over the window, of a direction"),
    "gap_information": ((), "nats", "dimension gap over the window"),
    "dimension": (("at", "sigma"), "directions", "dimension kept, trace of dD/dx"),
}


def numbers(dataset: xr.Dataset, *, replicates: int = REPLICATES, seed: int = 0) -> xr.Dataset:
    r"""Estimates with errors of all that the records of a run say.

    Arguments:
        dataset: What :func:`geomem.load` returns; unfinished subjects are left out.
        replicates: How many bootstrap resamplings.
        seed: Their seed.

    Returns:
        By ``subject`` (a row for each training recipe, with ``kind``, ``label``,
        ``num_samples``, ``step``, ``width``, ``trainings`` as coordinates), where it applies by
        ``sigma``, ``direction``, ``at``, ``point``: memorized ``density`` and its margins
        ``by_level`` and ``by_direction``; memorized ``information`` in nats; ``lost_share``;
        ``damage``; ``dimension`` and its ``gap``; ``point_information`` of each image;
        ``p_value``; ``copies``; ``local_dimension``, if the run asked for it. Each ``x`` comes
        with ``x_stderr``, ``x_low`` and ``x_high`` (95 %). What the records do not say is NaN,
        or absent.

    Raises:
        InputError: If no subject is finished.
    """
    rows = rows_of(dataset)
    if not rows:
        raise InputError("the run has no finished subject yet; run the same command again")
    run = _Measured(dataset, rows, replicates, seed)
    found = [run.quantities(row) for row in rows]
    several = any(len(row.members) > 1 for row in rows)
    parts = [
        _estimates(found, several, dataset),
        _single_images(run),
        _tests(run),
        _exact(run),
        copy_numbers(dataset, [row.members if row.kind in NETWORKS else () for row in rows]),
        local_dimension_numbers(dataset, [row.members for row in rows]),
    ]
    merged = xr.merge(parts, combine_attrs="override", join="outer", compat="no_conflicts")
    if run.ratio is not None:
        about = {"units": "1", "long_name": "generalization ratio, of the best network"}
        merged = merged.assign(ratio=(("sigma", "direction"), run.ratio[0], about))
    shared = ("sigma", "sigma_relative", "direction", "direction_count", "direction_variance")
    points = ("point", "point_index", "point_group", "point_name")
    known = {name: dataset[name] for name in (*shared, *points) if name in dataset.coords}
    merged = merged.assign_coords(known).assign_coords(_row_coordinates(rows))
    return merged.assign_attrs(dataset.attrs, error_over="trainings" if several else "images")


@dataclass(frozen=True)
class Row:
    r"""One row of numbers: the trainings of one recipe.

    Attributes:
        kind: The kind of its subjects.
        label: What to call it.
        members: The positions of its subjects in the dataset, by seed.
        num_samples: What is known of all of them, NaN where it is not; so ``step``, ``width``.
    """

    kind: str
    label: str
    members: tuple[int, ...]
    num_samples: float
    step: float
    width: float

    @property
    def unit(self) -> int:
        r"""What seeds the resampling of its training images: subsets of one size share it."""
        return 0 if np.isnan(self.num_samples) else int(self.num_samples)


def rows_of(dataset: xr.Dataset) -> list[Row]:
    r"""The finished subjects, trainings that differ in their seed together.

    Networks come first, from few training images to many and from early steps to late ones.
    """
    groups: dict[Key, list[int]] = {}
    for k in np.flatnonzero(dataset["measured"].values):
        n, step, width, seed = (
            float(dataset[name].values[k]) for name in ("num_samples", "step", "width", "seed")
        )
        kind = str(dataset["kind"].values[k])
        label = str(dataset["label"].values[k]) if np.isnan(seed) else ""
        n, step, width = (-1.0 if np.isnan(v) else v for v in (n, step, width))
        key: Key = (kind, label, n, step, width)
        groups.setdefault(key, []).append(int(k))
    last: dict[tuple[str, str, float, float], float] = {}
    for kind, label, n, step, width in groups:
        recipe = (kind, label, n, width)
        last[recipe] = max(last.get(recipe, -1.0), step)
    several = len({(kind, width) for kind, _, _, _, width in groups if width >= 0}) > 1
    rows = []
    for (kind, label, n, step, width), members in groups.items():
        # The last step goes without saying, and so does a width that all share.
        early = step < last[kind, label, n, width]
        says = [("N", n, True), ("width", width, several), ("step", step, early)]
        name = ", ".join(f"{k} = {int(v)}" for k, v, said in says if v >= 0 and said)
        known = (np.nan if v < 0 else v for v in (n, step, width))
        rows.append(Row(kind, name or label or kind, tuple(members), *known))
    return sorted(rows, key=_place)


Key = tuple[str, str, float, float, float]


def _place(row: Row) -> tuple[float, ...]:
    values = (row.num_samples, row.width, row.step)
    return (row.kind not in NETWORKS, *(np.inf if np.isnan(v) else v for v in values))


def _row_coordinates(rows: Sequence[Row]) -> dict[str, object]:
    names = ("kind", "label", "num_samples", "step", "width")
    columns = {
        name: ("subject", np.array([getattr(r, name) for r in rows], dtype=kind))
        for name, kind in zip(names, (object, object, float, float, float), strict=True)
    }
    trainings = np.array([len(row.members) for row in rows])
    return {"subject": np.arange(len(rows)), **columns, "trainings": ("subject", trainings)}


class _Measured:
    r"""The records as arrays, with the resampling of their images."""

    def __init__(self, dataset: xr.Dataset, rows: list[Row], replicates: int, seed: int) -> None:
        self.dataset, self.rows, self.replicates, self.seed = dataset, rows, replicates, seed
        self.sigmas = dataset.sigma.values
        self.kinds = [str(at) for at in dataset["at"].values] if "at" in dataset.dims else []
        controls = [row.members[0] for row in rows if row.kind == dataset.attrs["control"]]
        self.control = controls[0] if controls else None

    def errors(self, member: int, at: str) -> Array:
        r"""Signed errors of the images that were measured, with shape (T, n, draws, u)."""
        dims = ("sigma", "point", "draw", "direction")
        values = self.dataset.error.isel(subject=member).sel(at=at).transpose(*dims).values
        return np.asarray(values[:, ~np.isnan(values).all((0, 2, 3))], dtype=float)

    def weights(self, at: str, row: Row, count: int) -> Array:
        r"""Bootstrap weights of the first images of a kind, with shape (R, n)."""
        groups = self.dataset.point_group.sel(at=at).values[:count]
        rng = numpy_rng(self.seed, f"bootstrap/{at}", row.unit if at == "training" else 0)
        return cluster_weights(groups, self.replicates, rng)

    def averages(self, member: int, row: Row) -> Averages | None:
        r"""Mean squared errors of a subject and the control; None if one side was not measured."""
        there = {"training", "held_out"} <= set(self.kinds) and "error" in self.dataset
        if self.control is None or not there:
            return None
        sides = ("training", "held_out")
        own = [np.square(self.errors(member, at)).mean(2) for at in sides]
        if not all(values.shape[1] for values in own):
            return None
        control = [
            np.square(self.errors(self.control, at)).mean(2)[:, : values.shape[1]]
            for at, values in zip(sides, own, strict=True)
        ]
        weights = [self.weights(at, row, v.shape[1]) for at, v in zip(sides, own, strict=True)]
        return average(SquaredErrors(*own, *control), *weights)

    @cached_property
    def all_averages(self) -> dict[int, Averages]:
        found = {m: self.averages(m, row) for row in self.rows for m in row.members}
        return {m: a for m, a in found.items() if a is not None}

    @cached_property
    def ratio(self) -> Array | None:
        r"""How good a generalizer the control is taken for, with shape (R, T, u)."""
        members = [m for row in self.rows if row.kind in NETWORKS for m in row.members]
        known = [self.all_averages[m] for m in members if m in self.all_averages]
        if not known:
            return None
        ratio = common_ratio(known)
        return np.ones_like(ratio) if self.dataset.attrs["control"] == "population" else ratio

    def diagonal(self, member: int, at: str) -> tuple[Array, NDArray[np.bool_]]:
        r"""Diagonals (T, n, u) of the images that have one, and which (point) these are."""
        name = "diagonal" if self.has_jacobian(member) else "forward_diagonal"
        array = self.dataset[name].isel(subject=member).sel(at=at)
        values = np.asarray(array.transpose("sigma", "point", "direction").values, dtype=float)
        there = ~np.isnan(values).any((0, 2))
        return values[:, there], there

    def has_jacobian(self, member: int) -> bool:
        r"""Whether dimension comes from the Jacobian, or from ``z·(D - x_0)/sigma``."""
        if "diagonal" not in self.dataset:
            return False
        one = self.dataset.diagonal.isel(subject=member, sigma=0, direction=0)
        measured = self.dataset.error.isel(subject=member, sigma=0, draw=0, direction=0)
        kinds = measured.notnull().any("point").values
        counts = one.notnull().sum("point").values
        return bool((counts[kinds] >= MIN_UNITS).all())

    def mean_diagonal(self, member: int, row: Row, at: str) -> Array:
        r"""Mean diagonals for each resampling, with shape (R, T, u)."""
        values, there = self.diagonal(member, at)
        if not values.shape[1]:
            return np.full((self.replicates + 1, len(self.sigmas), values.shape[2]), np.nan)
        measured = self.errors(member, at).shape[1]
        weights = self.weights(at, row, measured)[:, there[:measured]]
        weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)
        return np.asarray(np.einsum("rn,tnu->rtu", weights, values, optimize=True))

    def quantities(self, row: Row) -> dict[str, list[Array]]:
        r"""All estimates of a row: for each training, values of shape (R, \*)."""
        found: dict[str, list[Array]] = {}
        for member in row.members:
            one: dict[str, Array] = {}
            averages, ratio = self.all_averages.get(member), self.ratio
            if averages is not None and ratio is not None and member != self.control:
                one["density"] = memorized_density(averages, ratio)
                one["by_level"] = one["density"].sum(-1)
                one["by_direction"] = integrate_log(one["density"], self.sigmas, axis=1)
                one["information"] = integrate_log(one["by_level"], self.sigmas, axis=1)
                control = (ratio * averages.control_training).sum(-1)
                one["control_information"] = integrate_log(control, self.sigmas, axis=1)
                one["lost_share"] = lost_share(averages, ratio)
                one["damage"] = damage(averages, self.sigmas)
            means = {}
            if "forward_diagonal" in self.dataset:
                means = {at: self.mean_diagonal(member, row, at) for at in self.kinds}
                one["dimension"] = np.stack([means[at].sum(-1) for at in self.kinds], axis=1)
            if {"training", "held_out"} <= set(means):
                one["gap"] = means["held_out"] - means["training"]
                one["total_gap"] = one["gap"].sum(-1)
                one["gap_by_direction"] = integrate_log(one["gap"], self.sigmas, axis=1)
                one["gap_information"] = integrate_log(one["total_gap"], self.sigmas, axis=1)
            for name, values in one.items():
                found.setdefault(name, []).append(values)
        return found


def _estimates(
    rows: Sequence[dict[str, list[Array]]], several: bool, dataset: xr.Dataset
) -> xr.Dataset:
    # One training: its resamplings. Several: their mean, and the spread between them.
    columns: dict[str, tuple[tuple[str, ...], Array, dict[str, str]]] = {}
    for name, (dims, units, text) in ESTIMATES.items():
        if not any(name in row for row in rows):
            continue
        shape = tuple(dataset.sizes[d] for d in dims)
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
    coords = {"at": dataset["at"].values} if "at" in dataset.dims else {}
    return xr.Dataset(columns, coords=coords)


def _single_images(run: _Measured) -> xr.Dataset:
    # Pointwise I-MMSE: control minus network at one image is a mean log-likelihood ratio.
    if run.ratio is None or run.control is None:
        return xr.Dataset()
    ratio, width = run.ratio[0][:, None, None, :], run.dataset.sizes["point"]
    value, stderr = np.full((2, len(run.rows), width), np.nan)
    worst = np.full((len(run.rows), len(run.sigmas)), np.nan)
    singles = int((run.dataset.direction_count.values == 1).sum())
    control = run.errors(run.control, "training")
    for k, row in enumerate(run.rows):
        members = [m for m in row.members if m in run.all_averages and m != run.control]
        if not members:
            continue
        networks = [run.errors(m, "training") for m in members]
        count = networks[0].shape[1]
        squares = [(ratio * control[:, :count] ** 2 - e**2).sum(-1) for e in networks]
        nats = integrate_log(np.mean(squares, axis=0), run.sigmas)
        value[k, :count] = nats.mean(1)
        if nats.shape[1] > 1:
            stderr[k, :count] = nats.std(1, ddof=1) / np.sqrt(nats.shape[1])
        rng = numpy_rng(run.seed, "halves", row.unit)
        if count >= 2 * MIN_UNITS and row.kind in NETWORKS:
            worst[k] = [
                worst_subspace_share(
                    networks[0][t, ..., :singles],
                    control[t, :count, :, :singles],
                    ratio[t, 0, 0, :singles],
                    rng=rng,
                ).mean()
                for t in range(len(run.sigmas))
            ]
    dims = ("subject", "point")
    nat = {"units": "nats", "long_name": "memorized information of a training image"}
    error = {"units": "nats", "long_name": "its standard error, over draws of noise"}
    share = {"units": "1", "long_name": "lost share of the worst subspace of three directions"}
    return xr.Dataset(
        {
            "point_information": (dims, value, nat),
            "point_information_stderr": (dims, stderr, error),
            "worst_share": (("subject", "sigma"), worst, share),
        }
    )


def _tests(run: _Measured) -> xr.Dataset:
    levels = len(run.sigmas)
    p_value = np.full(len(run.rows), np.nan)
    adjusted = np.full((len(run.rows), levels), np.nan)
    identity = np.full((len(run.rows), len(run.kinds), levels), np.nan)
    for k, row in enumerate(run.rows):
        if row.kind not in NETWORKS or "error" not in run.dataset:
            continue
        found = _permutation(run, row)
        if found is not None:
            p_value[k], adjusted[k] = found.p_value, found.adjusted[:levels]
        for a, at in enumerate(run.kinds):
            identity[k, a] = _identity(run, row.members[0], at)
    chance = {"units": "1", "long_name": "p-value, training against held-out images"}
    level = {"units": "1", "long_name": "p-value at a level, adjusted for all levels"}
    z = {"units": "1", "long_name": "identity of error and Jacobian, z-score"}
    return xr.Dataset(
        {
            "p_value": ("subject", p_value, chance),
            "p_level": (("subject", "sigma"), adjusted, level),
            "identity_z": (("subject", "at", "sigma"), identity, z),
        },
        coords={"at": run.kinds},
    )


def _permutation(run: _Measured, row: Row) -> PermutationTest | None:
    # One row a group: errors at each level, and the dimension where it is measured.
    if not {"training", "held_out"} <= set(run.kinds):
        return None
    sides = []
    for at in ("held_out", "training"):
        errors = np.square(run.errors(row.members[0], at)).mean(2).sum(-1).T
        looks = [errors]
        if run.has_jacobian(row.members[0]):
            diagonal, _ = run.diagonal(row.members[0], at)
            if diagonal.shape[1] == len(errors):
                looks.append(diagonal.sum(-1).T)
        values = np.hstack(looks)
        groups = run.dataset.point_group.sel(at=at).values[: len(values)]
        sides.append(np.array([values[groups == g].mean(0) for g in dict.fromkeys(groups)]))
    if min(map(len, sides)) < MIN_UNITS or sides[0].shape[1] != sides[1].shape[1]:
        return None  # too few units to say anything
    rng = numpy_rng(run.seed, "permutation", row.unit)
    return permutation_test(*sides, rng=rng, permutations=PERMUTATIONS)


def _identity(run: _Measured, member: int, at: str) -> Array:
    # Error gap = residual gap + 2 sigma² dimension gap, an identity for every denoiser:
    # z·(D - x_0)/sigma minus the trace has mean 0, or schedule, code or model is wrong.
    blank = np.full(len(run.sigmas), np.nan)
    if "diagonal" not in run.dataset:
        return blank
    picked = run.dataset.isel(subject=member).sel(at=at)
    difference = (picked.forward_diagonal - picked.diagonal).sum("direction", skipna=False)
    values = difference.transpose("sigma", "point").values.astype(float)
    values = values[:, ~np.isnan(values).any(0)]
    if values.shape[1] < 2:
        return blank
    error = values.std(1, ddof=1) / np.sqrt(values.shape[1])
    return np.asarray(values.mean(1) / np.where(error > 0, error, np.inf))


def _exact(run: _Measured) -> xr.Dataset:
    # What the exact denoiser spends of its budget ln N in the window, beside each N.
    if "entropy" not in run.dataset:
        return xr.Dataset()
    budget = {}
    for row in run.rows:
        if row.kind == "empirical":
            entropy = run.dataset.entropy.isel(subject=row.members[0])
            points = (entropy.isel(sigma=-1) - entropy.isel(sigma=0)).mean("draw").values
            budget[row.unit] = points[~np.isnan(points)]
    own = [budget.get(row.unit, np.array([])) if row.unit else np.array([]) for row in run.rows]
    mean: Callable[[Array], float] = lambda v: v.mean() if len(v) else np.nan  # noqa: E731
    error: Callable[[Array], float] = lambda v: (  # noqa: E731
        v.std(ddof=1) / np.sqrt(len(v)) if len(v) > 1 else np.nan
    )
    said = {"units": "nats", "long_name": "ln N spent by the exact denoiser of as many images"}
    also = {"units": "nats", "long_name": "its standard error, over images"}
    return xr.Dataset(
        {
            "exact_information": ("subject", np.array([mean(v) for v in own]), said),
            "exact_information_stderr": ("subject", np.array([error(v) for v in own]), also),
        }
    )
