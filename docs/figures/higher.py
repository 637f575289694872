r"""When are directions of higher variance lost first? Maps over (N, σ) for five spectra."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from common import PAPER, SEED, WIDTH, Pair, array, rounded
from matplotlib.axes import Axes

from geomem.theory.averages import Effort, planted_average
from geomem.theory.collapse import collapse_sigma
from geomem.theory.condensation import t_star
from geomem.theory.critical import critical_sigma
from geomem.theory.maps import Kind, retention_map
from geomem.theory.priors import Gaussian

SEEDS = 6  # repetitions with other draws: their spread is the error of a difference
PAPERS = "1 × 2, .09 × 5 (the paper's)"
SPECTRA = {
    "1 × 1, .09 × 2": (1.0,) + (0.09,) * 2,
    PAPERS: PAPER,
    "1 × 20, .09 × 50": (1.0,) * 20 + (0.09,) * 50,
    "k^-2, 4 directions": tuple(k**-2.0 for k in range(1, 5)),
    "1/k, 20 directions": tuple(1 / k for k in range(1, 21)),
}
KINDS: tuple[Kind, ...] = ("planted", "fresh", "centre")
DEAR = ("1 × 20, .09 × 50", "k^-2, 4 directions")  # fresh points are not looked at for these
MAPS = [(n, kind) for n in SPECTRA for kind in KINDS if kind != "fresh" or n not in DEAR]
BEYOND = 5  # standard errors; with 5 degrees of freedom chance exceeds them in 0.4 %
NEAR_1000 = 782.3  # the size of the maps next to 1,000


def differences(job: tuple[str, Kind], seeds: int = SEEDS) -> xr.Dataset:
    r"""High minus low over (N, sigma) and draws: of retention and of missing dimension.

    Planted points take the mean retention, fresh and central ones the bounded retention.
    """
    variances, kind = SPECTRA[job[0]], job[1]
    sizes = np.geomspace(3, 1e6, 17)
    low, high = 0.4 * collapse_sigma(variances, 1e6), 4 * collapse_sigma(variances, 3)
    sigmas = np.geomspace(low, high, 16)
    ends = np.eye(len(variances))[[0, -1]] if len(variances) > 10 else None
    bounded = kind != "planted"
    maps = [
        retention_map(
            Gaussian(variances),
            sigmas,
            sizes,
            kind=kind,
            directions=ends,
            bounded=bounded,
            effort=Effort(points=2, seed=SEED + 10**6 * s),
        )
        for s in range(1 if kind == "centre" else seeds)
    ]
    runs = xr.concat([_high_low(m, "bounded" if bounded else "retention") for m in maps], "seed")
    return runs.transpose("seed", "sigma", "num_samples")


def _high_low(m: xr.Dataset, name: str) -> xr.Dataset:
    # One number a group: the mean over its equal directions.
    control = m.control.isel(num_samples=0) if "num_samples" in m.control.dims else m.control
    first = control.isel(sigma=0)
    groups = {"high": np.isclose(first, first.max()), "low": np.isclose(first, first.min())}
    kept = {g: m[name].isel(direction=k).mean("direction") for g, k in groups.items()}
    missing = {
        g: control.isel(direction=k).mean("direction") * (1 - kept[g]) for g, k in groups.items()
    }
    return xr.Dataset(
        {
            "high": kept["high"],
            "low": kept["low"],
            "retention": kept["high"] - kept["low"],
            "missing": missing["high"] - missing["low"],
            "participation": m.participation,
        }
    )


def compute() -> dict[str, Any]:
    r"""Every number of the page, and the maps of its figures."""
    with ProcessPoolExecutor(2) as pool:
        runs = dict(zip(MAPS, pool.map(differences, MAPS), strict=True))
    means = {job: _with_errors(m) for job, m in runs.items()}
    return {
        "summary": [_summary(*job, m) for job, m in means.items()],
        "example": _example(),
        "crossing": {n: _crossing(n, m) for (n, kind), m in means.items() if kind == "planted"},
        "maps": shown(runs),
    }


def shown(runs: dict[tuple[str, Kind], xr.Dataset]) -> dict[str, Any]:
    r"""What the figures show: the first set of draws."""
    return {
        f"{name} | {kind}": {
            "num_samples": rounded(m.num_samples),
            "sigma": rounded(m.sigma),
            **{v: rounded(m[v][0], 4) for v in ("retention", "missing", "participation")},
        }
        for (name, kind), m in runs.items()
        if kind == "planted" or name == PAPERS
    }


def _with_errors(runs: xr.Dataset) -> xr.Dataset:
    out, seeds = runs.mean("seed"), runs.sizes["seed"]
    for name in list(runs.data_vars):
        spread = runs[name].std("seed", ddof=1) if seeds > 1 else 0 * out[name]
        out[f"{name}_stderr"] = spread / math.sqrt(seeds) + 1e-6
    return out


def _summary(name: str, kind: Kind, m: xr.Dataset) -> dict[str, Any]:
    # Only where something is being lost: a group between 5 % and 95 %.
    undecided = ((m.high > 0.05) & (m.high < 0.95)) | ((m.low > 0.05) & (m.low < 0.95))
    r, e = m.retention.where(undecided), m.retention_stderr
    d, f = m.missing.where(undecided), m.missing_stderr
    cells = int(undecided.sum())

    def share(values: xr.DataArray) -> float:
        return round(int(values.sum()) / cells, 4)

    def lowest(values: xr.DataArray, stderr: xr.DataArray) -> dict[str, float]:
        row, column = np.unravel_index(int(values.fillna(np.inf).argmin()), values.shape)
        return {
            "value": round(float(values[row, column]), 6),
            "stderr": round(float(stderr[row, column]), 6),
            "num_samples": round(float(values.num_samples[column])),
            "sigma": round(float(values.sigma[row]), 6),
        }

    def highest(values: xr.DataArray, stderr: xr.DataArray) -> dict[str, float]:
        found = lowest(-values, stderr)
        return found | {"value": -found["value"]}

    return {
        "spectrum": name,
        "points": kind,
        "cells": cells,
        "r_high_first": share(r < -BEYOND * e),
        "r_low_first": share(r > BEYOND * e),
        "r_lowest": lowest(r, e),
        "r_highest": highest(r, e),
        "d_high_first": share(d > BEYOND * f),
        "d_low_first": share(d < -BEYOND * f),
        "d_highest": highest(d, f),
        "d_lowest": lowest(d, f),
    }


def _example() -> dict[str, Pair]:
    p = planted_average(Gaussian(PAPER), 0.1**0.5, [50], effort=Effort(points=64, seed=SEED))
    columns = {
        "retention": (p.retention, p.retention_stderr),
        "missing": (p.missing_dimension, p.missing_dimension_stderr),
    }
    return {
        f"{name}_{group}": (float(value[0, k]), float(error[0, k]))
        for name, (value, error) in columns.items()
        for group, k in (("high", 0), ("low", 2))
    }


def _crossing(name: str, m: xr.Dataset) -> dict[str, Pair | float | None]:
    # As sigma falls at fixed N: at which level is half of each group's retention gone?
    one = m.sel(num_samples=1000, method="nearest")
    size, found = float(one.num_samples), {}
    for k, g in ((0, "high"), (-1, "low")):
        e = critical_sigma(one.sigma, one[g], one[f"{g}_stderr"])
        found[g] = None if e is None else (math.exp(e.value), math.exp(e.value) * e.stderr)
        found[f"paper_{g}"] = math.sqrt(float(t_star(SPECTRA[name], size, gaussian=True)[k]))
    return {"num_samples": size, **found}


def draw(document: dict[str, Any], out: Path) -> None:
    r"""The two figures, from the maps of the document."""
    titles = {"planted": "noisy training points", "fresh": "fresh points", "centre": "the centre"}
    columns = [(PAPERS, kind, titles[kind]) for kind in KINDS]
    _draw_maps(document["maps"], columns, out / "theory-higher-kinds.png")
    columns = [(n, "planted", n) for n in SPECTRA if n != PAPERS]
    _draw_maps(document["maps"], columns, out / "theory-higher-spectra.png")


def _draw_maps(maps: dict[str, Any], columns: list[tuple[str, Kind, str]], path: Path) -> None:
    figure, axes = plt.subplots(2, len(columns), figsize=(WIDTH, 5.6), layout="constrained")
    for column, (name, kind, title) in enumerate(columns):
        m = maps[f"{name} | {kind}"]
        top, bottom = axes[:, column]
        upper = _draw_map(m, array(m["retention"]), SPECTRA[name], top, 0.12)
        lower = _draw_map(m, -array(m["missing"]), SPECTRA[name], bottom, 0.6)
        top.set_title(title)
        top.set_xticklabels([])
        bottom.set_xlabel("training points N")
    for row, mesh, label in (
        (axes[0], upper, "retention,\nhigh variance - low"),
        (axes[1], lower, "missing dimension,\nlow variance - high"),
    ):
        row[0].set_ylabel("noise level σ")
        bar = figure.colorbar(mesh, ax=row, label=label, aspect=14)
        top = mesh.get_clim()[1]
        bar.set_ticks([-top, 0, top], labels=[f"{-top:g}\nhigh first", "0", f"{top:g}\nlow first"])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.savefig(path)
    plt.close(figure)


def _draw_map(
    m: dict[str, Any], values: np.ndarray, variances: tuple[float, ...], ax: Axes, limit: float
) -> Any:
    x, y, participation = (array(m[n]) for n in ("num_samples", "sigma", "participation"))
    mesh = ax.pcolormesh(
        x, y, values, cmap="RdBu", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
    )
    paper = np.array([np.sqrt(t_star(variances, n, gaussian=True))[[0, -1]] for n in x])
    for k, (style, group) in enumerate((("-", "high"), ("--", "low"))):
        ax.plot(x, paper[:, k], style, color="k", lw=1.3, label=f"the paper's t*, {group} variance")
    found = [critical_sigma(y, 1 - column, 0 * y) for column in participation.T]
    levels = [np.nan if e is None else math.exp(e.value) for e in found]
    ax.plot(x, levels, ":", color="k", lw=2, label="two effective points")
    ax.set(xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set_xticks([10, 1000, 100_000], ["10", "10³", "10⁵"])
    ticks = [t for t in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3) if y[0] <= t <= y[-1]]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    return mesh
