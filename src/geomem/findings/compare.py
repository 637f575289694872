r"""Runs side by side: what one has memorized that another has not, beyond error.

Before and after deduplication, an early stop, another rank: two runs differ by what was changed
and by chance. Nats grow with every smaller noise level, so runs are compared on the intersection
of their windows: squared errors are taken on all levels of all runs inside it, linear in the
logarithm of the level, as the trapezoid rule takes them.

Images that are the same, by their digest, carry the same weight in each resampling of every run,
so differences are paired where they can be. Weights are exponential, one for each image group
(the Bayesian bootstrap): unlike counts they are never 0, however few images two runs share.

References:
    | Rubin, The Bayesian bootstrap (1981)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.arguments import Whole, checked
from geomem.errors import InputError
from geomem.findings.images import nats_by_draw, ranked_above
from geomem.findings.measured import CONTROLS, SIDES, Measured
from geomem.findings.numbers import FOLD, REPLICATES, quantities
from geomem.findings.rows import Row, rows_of
from geomem.information import integrate_log
from geomem.measure.subject import NETWORKS
from geomem.stats import numpy_rng

Array = NDArray[np.float64]
# Dims beside the column, units and meaning of what is compared.
COMPARED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "information": ((), "nats", "memorized information"),
    "training_error": ((), "nats", "denoising error at training images"),
    "excess": ((), "nats", "excess on new images, beside the control"),
    "largest_share": ((), "1", "lost share, at the level named"),
    "auc": ((), "1", "AUC of members"),
    "by_level": (("sigma",), FOLD, "memorized density of all directions"),
    "lost_share": (("sigma",), "1", "share of the control's dimension that is gone"),
}
ENDS = (0.025, 0.975)


@checked
def compare(
    runs: Sequence[xr.Dataset],
    *,
    replicates: Annotated[int, Whole(least=2)] = REPLICATES,
    seed: int = 0,
) -> xr.Dataset:
    r"""Puts runs side by side: sweeps, audits or monitored trainings, also of different kinds.

    Arguments:
        runs: What :func:`geomem.load` returns, of each; differences are to the first.
        replicates: How many resamplings of images.
        seed: Their seed.

    Returns:
        By ``column``, a network of a run, with coordinates ``run``, ``label`` and ``partner``,
        the column of the first run that it is compared with (-1: none): memorized
        ``information`` in nats, ``training_error``, ``excess``, ``largest_share`` at level
        ``share_sigma`` (the partner's largest), ``auc``; ``by_level`` and ``lost_share`` by
        ``sigma``. Each ``x`` comes with ``x_stderr``, and with ``x_change`` from its partner,
        ``x_change_stderr``, ``x_change_low`` and ``x_change_high`` (95 %). ``images`` and
        ``shared_images`` count training images, and those that the partner was measured at,
        too. NaN is what is not known.

    Raises:
        InputError: If there are fewer than two runs, if their data differ in shape or their
            windows do not meet, or if one has no network beside a common control.
    """
    if len(runs) < 2:
        raise InputError("`runs` has fewer than two runs; pass those that are to be compared")
    for run in runs:
        if "error" not in run or not set(SIDES) <= set(run["at"].values.tolist()):
            raise InputError(
                f"{run.attrs['run']} has no denoising errors at training and held-out images; "
                "compare sweeps, audits or monitored trainings of which something is measured"
            )
    levels = common_levels(runs)
    there = [on_levels(run, levels) for run in runs]
    control = _common_control(there)
    there = [one.assign_attrs(control=control) for one in there]
    draws = {at: _shared_weights(there, at, replicates, seed) for at in SIDES}
    columns: list[_Column] = []
    for number, one in enumerate(there):
        measured = _Shared(one, {at: draws[at][number] for at in SIDES}, replicates, seed)
        columns += [_Column(number, measured, row) for row in _networks(measured)]
    return _arranged(columns, there, levels, control)


# ---------------------------------------------------------------------- one window for all


def common_levels(runs: Sequence[xr.Dataset]) -> Array:
    r"""All levels of all runs inside the intersection of their windows, increasing.

    Raises:
        InputError: If the images differ in shape, or the windows do not meet.
    """
    first = runs[0]
    for run in runs[1:]:
        mine, other = (int(r.attrs["ambient_dim"]) for r in (first, run))
        if mine != other:
            raise InputError(
                f"data differ in shape: {mine} values an image in {first.attrs['run']}, {other} "
                f"in {run.attrs['run']}; compare runs on images of one size"
            )
    ends = [run.sigma.values[[0, -1]] for run in runs]
    low, high = max(e[0] for e in ends), min(e[1] for e in ends)
    if not low < high:
        said = "; ".join(
            f"{run.attrs['run']} {e[0]:.3g} to {e[1]:.3g}"
            for run, e in zip(runs, ends, strict=True)
        )
        raise InputError(
            f"the windows of noise levels do not meet ({said}, in the data's units); measure one "
            "of the runs again at levels that both have"
        )
    inside = np.concatenate([run.sigma.values for run in runs])
    inside = np.sort(inside[(inside >= low) & (inside <= high)])
    new = np.append(True, np.diff(np.log(inside)) > 1e-6)
    return np.asarray(inside[new])


def on_levels(run: xr.Dataset, levels: Array) -> xr.Dataset:
    r"""The errors of a run at other levels: their squares linear in the level's logarithm.

    Arguments:
        run: What :func:`geomem.load` returns.
        levels: The noise levels, within those of the run, with shape :math:`(T)`.
    """
    own, wanted = np.log(run.sigma.values), np.log(levels)
    right = np.clip(np.searchsorted(own, wanted - 1e-9), 1, len(own) - 1)
    share = np.clip((wanted - own[right - 1]) / (own[right] - own[right - 1]), 0, 1)
    share = np.where(np.abs(share - share.round()) < 1e-6, share.round(), share)
    dims = ("sigma", *(d for d in run.error.dims if d != "sigma"))
    error = run.error.transpose(*dims).values
    part = share.reshape(-1, *[1] * (error.ndim - 1))
    below, above = error[right - 1], error[right]
    size = np.sqrt((1 - part) * np.square(below) + part * np.square(above))
    values = np.copysign(size, np.where(part < 0.5, below, above)).astype(error.dtype)
    kept = {k: v for k, v in run.coords.items() if "sigma" not in v.dims}
    kept |= {"sigma": levels, "sigma_relative": ("sigma", levels / run.attrs["rms"])}
    return xr.Dataset({"error": (dims, values)}, coords=kept, attrs=run.attrs)


# -------------------------------------------------------------------- one weight, one image


def _shared_weights(runs: Sequence[xr.Dataset], at: str, replicates: int, seed: int) -> list[Array]:
    # Of each run, weights of its images with shape (R, n): one for an image wherever it is.
    names = [_image_names(run, at, number) for number, run in enumerate(runs)]
    unit = _units(names, [run.point_group.sel(at=at).values for run in runs])
    places = {name: k for k, name in enumerate(sorted(set(unit.values())))}
    rng = numpy_rng(seed, f"comparison/{at}")
    drawn = rng.exponential(size=(replicates, len(places)))
    drawn = np.vstack([np.ones(len(places)), drawn])
    return [drawn[:, [places[unit[name]] for name in mine]] for mine in names]


def _image_names(run: xr.Dataset, at: str, number: int) -> list[str]:
    # By the digest of its pixels; without one an image is itself in its own data alone.
    index = run.point_index.sel(at=at).values
    if "point_digest" in run.coords:
        digests = run.point_digest.sel(at=at).values
        return [str(d) if d else f"{number}/{i}" for i, d in zip(index, digests, strict=True)]
    data = run.attrs.get("data_digest") or number
    return [f"{data}/{i}" for i in index]


def _units(names: Sequence[Sequence[str]], groups: Sequence[Any]) -> dict[str, str]:
    # Images that any run holds for one group are one unit in all of them.
    parent = {name: name for mine in names for name in mine}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for mine, of in zip(names, groups, strict=True):
        first: dict[int, str] = {}
        for name, group in zip(mine, of, strict=True):
            parent[root(name)] = root(first.setdefault(int(group), name))
    return {name: root(name) for name in parent}


class _Shared(Measured):
    # The records of a run, resampled with weights that other runs share.

    def __init__(
        self, run: xr.Dataset, drawn: Mapping[str, Array], replicates: int, seed: int
    ) -> None:
        super().__init__(run, rows_of(run), replicates, seed)
        self.drawn = drawn

    def weights(self, at: str, row: Row, count: int) -> Array:
        values = self.drawn[at][:, :count]
        return np.asarray(values / values.sum(1, keepdims=True))


# ------------------------------------------------------------------------ a network of a run


class _Column:
    # A network of a run: its quantities, each resampled, with shape (trainings, R, *).

    def __init__(self, run: int, measured: Measured, row: Row) -> None:
        self.run, self.label, self.row = run, row.label, row
        found = {k: np.array(v) for k, v in quantities(measured, row).items() if k in COMPARED}
        own = [
            measured.mean_squares(m, row, "training", self._count(measured)) for m in row.members
        ]
        found["training_error"] = np.array(
            [integrate_log(values.sum(-1), measured.sigmas, axis=1) for values in own]
        )
        sides = [nats_by_draw(measured, row, list(row.members), at).mean(1) for at in SIDES]
        found["auc"] = np.round(ranked_above(measured, row, *sides), 12)[None]
        self.values: dict[str, Array] = found
        names = _image_names(measured.dataset, "training", run)
        self.images = set(names[: self._count(measured)])

    def _count(self, measured: Measured) -> int:
        return int(measured.squares(self.row.members[0], "training").shape[1])

    def spread(self, name: str) -> Array:
        r"""How a value varies: over resamplings, or over trainings where there are several."""
        values = self.values[name]
        if len(values) == 1:
            return np.asarray(values[0][1:] - values[0][0])
        apart = values[:, 0] - values[:, 0].mean(0)
        return np.asarray(apart / np.sqrt(len(values) - 1))

    def value(self, name: str) -> Array:
        return np.asarray(self.values[name][:, 0].mean(0))

    def stderr(self, name: str) -> Array:
        spread = self.spread(name)
        return np.asarray(np.sqrt(np.square(spread - spread.mean(0)).mean(0)))

    def change(self, name: str, partner: _Column) -> tuple[Array, Array, Array, Array]:
        r"""Its value minus the partner's, the error of that, and the ends at 95 %."""
        value = self.value(name) - partner.value(name)
        if len(self.values[name]) == len(partner.values[name]) == 1:
            spread = self.spread(name) - partner.spread(name)  # paired
            error = np.sqrt(np.square(spread - spread.mean(0)).mean(0))
            low, high = value + np.quantile(spread, ENDS, axis=0)
        else:  # trainings that know nothing of each other
            error = np.hypot(self.stderr(name), partner.stderr(name))
            low, high = value - 1.96 * error, value + 1.96 * error
        return value, np.asarray(error), np.asarray(low), np.asarray(high)


def _networks(measured: Measured) -> list[Row]:
    # Those with something to be compared; the control of a run is not among them.
    rows = [
        row
        for row in measured.rows
        if row.kind in NETWORKS
        and row.kind not in measured.controls
        and len(measured.squares(row.members[0], "training")[0])
    ]
    if not rows:
        raise InputError(
            f"{measured.dataset.attrs['run']} has no network that is measured at training images "
            "yet; run it to its end, and compare then"
        )
    return rows


def _common_control(runs: Sequence[xr.Dataset]) -> str:
    # The main control of all, where they agree; else the first that each of them has.
    found = [Measured(run, rows_of(run), 0, 0) for run in runs]
    mains = {one.main for one in found}
    shared = [name for name in CONTROLS if all(name in one.controls for one in found)]
    if len(mains) == 1 and mains <= set(shared):
        return mains.pop()
    if not shared:
        said = "; ".join(
            f"{run.attrs['run']} has {', '.join(one.controls) or 'none'}"
            for run, one in zip(runs, found, strict=True)
        )
        raise InputError(f"the runs have no control in common ({said}); measure one in all of them")
    return shared[0]


# ---------------------------------------------------------------------------- side by side


def _partners(columns: Sequence[_Column]) -> list[int]:
    # By their label in the first run; where each run has one network, these.
    first = [k for k, column in enumerate(columns) if column.run == 0]
    by_label = {columns[k].label: k for k in first}
    counts = [sum(c.run == number for c in columns) for number in range(columns[-1].run + 1)]
    alone = set(counts) == {1}
    return [-1 if c.run == 0 else first[0] if alone else by_label.get(c.label, -1) for c in columns]


def _arranged(
    columns: Sequence[_Column], runs: Sequence[xr.Dataset], levels: Array, control: str
) -> xr.Dataset:
    partners = _partners(columns)
    shares = [column.values.get("lost_share") for column in columns]
    peaks = [0 if s is None else int(np.nanargmax(s[:, 0].mean(0))) for s in shares]
    peaks = [peaks[k] if p < 0 else peaks[p] for k, p in enumerate(partners)]
    for column, share, peak in zip(columns, shares, peaks, strict=True):
        if share is not None:
            column.values["largest_share"] = share[:, :, peak]
    made: dict[str, Any] = {}
    for name, (dims, units, text) in COMPARED.items():
        shape = (6, len(columns), *([len(levels)] if dims else []))
        values = np.full(shape, np.nan)
        for k, (column, partner) in enumerate(zip(columns, partners, strict=True)):
            if name not in column.values:
                continue
            values[0, k], values[1, k] = column.value(name), column.stderr(name)
            if partner >= 0 and name in columns[partner].values:
                values[2:, k] = column.change(name, columns[partner])
        for suffix, said, one in zip(SUFFIXES, SAID, values, strict=True):
            made[name + suffix] = (
                ("column", *dims),
                one,
                {"units": units, "long_name": text + said},
            )
    counts = [
        (len(c.images), len(c.images & columns[p].images) if p >= 0 else np.nan)
        for c, p in zip(columns, partners, strict=True)
    ]
    for name, one in zip(("images", "shared_images"), np.array(counts, float).T, strict=True):
        made[name] = ("column", one, {"units": "1", "long_name": name.replace("_", " ")})
    rms = runs[0].attrs["rms"]
    about = {
        "run": ("column", [str(runs[c.run].attrs["run"]) for c in columns]),
        "run_number": ("column", [c.run for c in columns]),
        "label": ("column", [c.label for c in columns]),
        "trainings": ("column", [len(c.row.members) for c in columns]),
        "partner": ("column", partners),
        "share_sigma": ("column", [float(levels[k]) / rms for k in peaks]),
        "sigma": levels,
        "sigma_relative": ("sigma", levels / rms),
    }
    window = [float(levels[0]), float(levels[-1])]
    names = [str(run.attrs["run"]) for run in runs]
    attrs = {"control": control, "window": window, "rms": rms, "runs": names}
    return xr.Dataset(made, coords=about, attrs=attrs)


SUFFIXES = ("", "_stderr", "_change", "_change_stderr", "_change_low", "_change_high")
SAID = (
    "",
    ", standard error",
    ", minus the partner's",
    ", standard error of the change",
    ", lower end of the change at 95 %",
    ", upper end of the change at 95 %",
)
