r"""Do the directions that are left turn with N, or are they only fewer?

Tangent spaces of networks of nested training sets at the same noisy points: the leading
eigenspaces of their Jacobians, from the saved networks of the sweeps on images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.experiments.experiment import (
    Experiment,
    Judgement,
    Runs,
    Scale,
    Table,
    Verdict,
    last_networks,
)
from geomem.experiments.images import folder_of, sizes_axis, sweep_of, trainings
from geomem.findings.tangents import COUNT, NAMES, angle, turns
from geomem.runs.load import load
from geomem.runs.tangents import Tangents

SETS = ("fashion-mnist", "mnist", "olivetti")
LEVELS = (0.3, 1.0)  # rms
POINTS = 3
SURE = 3.0  # joint standard errors


class Rotation(Experiment):
    r"""Singular vectors move, too, not only values."""

    name = "rotation"
    title = "Tangent spaces turn"
    quote = (
        "different tangent subspaces are lost due to memorization effects at different critical "
        "times and dataset sizes"
    )
    claim = (
        "If subspaces are only lost, the directions that a network on few images keeps are among "
        "those that it keeps on many: at training points its leading eigenspace should lie no "
        f"further from that of the largest N (same seed) than {SURE:g} joint errors beyond what "
        "two seeds differ by, at the smallest N."
    )
    limits = (
        f"Three points of each kind, two levels, {COUNT} directions: at small noise many "
        "eigenvalues lie together, and a space of so few of them is hardly determined (the gap "
        "stands in the table); the angle between seeds holds that, too. Networks of .26 million "
        "parameters after 2,000 steps."
    )
    usual_sets = SETS

    def trainings(self, scale: Scale) -> Runs:
        r"""The sweep of each set."""
        return trainings(self.sets, scale)

    def measurements(self, out: Path, scale: Scale) -> Runs:
        r"""The tangent spaces of the final networks."""
        runs = {}
        for data in self.sets:
            step = sweep_of(data, scale).training.steps
            networks = last_networks(out / folder_of(data), step)
            if networks:
                runs[f"{folder_of(data)}-tangents"] = Tangents(
                    network=networks, sigmas=LEVELS, points=POINTS
                )
        return runs

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Angles to the largest N, between seeds and between points, by N and level."""
        paths = {data: out / f"{folder_of(data)}-tangents" for data in self.sets}
        found = {
            data: turns(load(path))
            for data, path in paths.items()
            if (path / "config.json").exists()
        }
        if not found:
            raise InputError(
                f"in {out} no tangent space has been measured yet; run the same command again, "
                "and let it finish"
            )
        rows = [row for data, one in found.items() for row in _rows(data, one)]
        verdict, why = _verdict(found)
        left = [data for data in self.sets if data not in found]
        absent = [f"Nothing is there yet of {', '.join(left)}."] if left else []
        return Judgement(
            verdict,
            why,
            [
                "The networks of the sweeps on images after their last step, asked at "
                f"{POINTS} training and {POINTS} held-out images, at one draw of noise each, at "
                f"{' and '.join(f'{s:g}' for s in LEVELS)} rms: the {COUNT} leading eigenvectors "
                "of the Jacobian (central differences). The angle of two spaces is arccos of the "
                "root of their mean squared cosine; ± is over points and trainings.",
                *absent,
                "The rule stood in the source before an angle was measured.",
            ],
            [
                Table(
                    "Angles in degrees at training points (unrelated spaces in brackets)",
                    ["set", "σ, rms", "N", "to the largest N", "between seeds",
                     "other points, same network", "gap behind the last direction"],
                    rows,
                )
            ],
            {data: _plain(one) for data, one in found.items()},
        )  # fmt: skip

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Angles against N: a column a set, a row a level."""
        return _figure(document["curves"])


def _rows(data: str, found: xr.Dataset) -> list[list[str]]:
    rows = []
    unrelated = angle(float(found.attrs["unrelated"])).value
    for k, level in enumerate(found.sigma_relative.values):
        for n in found.num_samples.values:
            one = found.sel(num_samples=n, at="training").isel(sigma=k)
            cells = [_cell(one, name) for name in NAMES]
            if n == found.num_samples.values[-1]:
                cells[0] = "–"
            rows.append(
                [data, f"{level:.2g} ({unrelated:.0f})", f"{int(n):,}", *cells,
                 f"{float(one.gap):.3f}"]
            )  # fmt: skip
    return rows


def _cell(one: xr.Dataset, name: str) -> str:
    value, error = float(one[name]), float(one[f"{name}_stderr"])
    return repr(angle(value, error)) if np.isfinite([value, error]).all() else "not known"


def _verdict(found: Mapping[str, xr.Dataset]) -> tuple[Verdict, str]:
    beyond, text = [], []
    for data, one in found.items():
        for k, level in enumerate(one.sigma_relative.values):
            first = one.sel(at="training").isel(num_samples=0, sigma=k)
            turned = angle(float(first.to_largest), float(first.to_largest_stderr))
            # The larger of what seeds differ by at this N and at the largest.
            seeds = [
                angle(float(q), float(e))
                for q, e in zip(
                    one.between_seeds.sel(at="training").isel(sigma=k).values[[0, -1]],
                    one.between_seeds_stderr.sel(at="training").isel(sigma=k).values[[0, -1]],
                    strict=True,
                )
                if np.isfinite([q, e]).all()
            ]
            if not seeds:
                continue
            scale = max(seeds, key=lambda e: e.value)
            beyond.append(turned.z_score(scale))
            text.append(f"{data} at {level:.2g} rms {turned} against {scale}")
    if not beyond:
        return "undecided at this scale", "No set has two trainings of a size yet."
    why = (
        "Degrees from the smallest to the largest N, against what seeds differ by (the larger of "
        f"both sizes): {'; '.join(text)}."
    )
    within = [z <= SURE for z in beyond]
    if all(within):
        return "confirmed", why
    return ("confirmed in this regime" if any(within) else "not seen"), why


def _plain(found: xr.Dataset) -> dict[str, Any]:
    levels = []
    for k, level in enumerate(found.sigma_relative.values):
        one = found.isel(sigma=k)
        levels.append(
            {
                "level": float(f"{level:.3g}"),
                **{
                    f"{name}, {at}": [
                        _angle(row[name], row[f"{name}_stderr"])
                        for row in (one.sel(at=at, num_samples=n) for n in found.num_samples.values)
                    ]
                    for name in NAMES
                    for at in map(str, found["at"].values)
                },
            }
        )
    return {
        "sizes": [int(n) for n in found.num_samples.values],
        "unrelated": float(f"{angle(float(found.attrs['unrelated'])).value:.4g}"),
        "levels": levels,
    }


def _angle(value: xr.DataArray, error: xr.DataArray) -> list[float] | None:
    if not np.isfinite([float(value), float(error)]).all():
        return None
    found = angle(float(value), float(error))
    return [float(f"{found.value:.4g}"), float(f"{found.stderr:.3g}")]


def _figure(curves: Mapping[str, Any]) -> Figure:
    rows = max(len(one["levels"]) for one in curves.values())
    figure = Figure(
        figsize=(3.2 * max(2, len(curves)) + 0.4, 2.7 * rows + 0.6), layout="constrained"
    )
    grid = figure.subplots(rows, len(curves), squeeze=False, sharey=True, sharex="col")
    styles = {
        "to_largest, training": ("o-", "C0", "to the largest N, training points"),
        "to_largest, held_out": ("o:", "C1", "to the largest N, held-out points"),
        "between_seeds, training": ("s--", "C2", "between seeds, training points"),
        "between_points, training": ("^--", "0.5", "other points, same network"),
    }
    for column, (data, one) in zip(grid.T, curves.items(), strict=True):
        for ax, level in zip(column, one["levels"], strict=False):
            for key, (style, colour, label) in styles.items():
                last = len(one["sizes"]) - key.startswith("to_largest")
                known = [
                    (n, *pair)
                    for n, pair in zip(one["sizes"][:last], level.get(key, [])[:last], strict=True)
                    if pair is not None
                ]
                if known:
                    x, values, errors = np.array(known).T
                    ax.errorbar(x, values, errors, fmt=style, color=colour, ms=4, lw=1.2,
                                label=label)  # fmt: skip
            ax.axhline(one["unrelated"], color="k", lw=0.8, ls=":")
            ax.set_title(f"{data}, σ = {level['level']:g} rms", fontsize=9)
            sizes_axis(ax, one["sizes"])
            ax.set_ylim(0, 92)
            ax.tick_params(labelsize=8)
            ax.spines[["top", "right"]].set_visible(False)
        column[-1].set_xlabel("training images N", fontsize=9)
    for ax in grid[:, 0]:
        ax.set_ylabel("angle, degrees", fontsize=9)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure
