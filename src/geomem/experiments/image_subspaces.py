r"""Which principal directions of images are lost first: at small and large noise, shares and nats.

Directions are those of reserved images, so the first ones are what differs most from image to
image: the salient features. *First* means: at the same N and step the larger share of what the
control knows is gone. In nats per direction the answer may differ, since a direction of high
variance has more to lose at large noise, and all have the same to lose at small noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from geomem.experiments.experiment import (
    Experiment,
    Judgement,
    Runs,
    Scale,
    Table,
    Verdict,
    verdict_of,
)
from geomem.experiments.image_dimension import SOURCE
from geomem.experiments.images import (
    GROUPS,
    LARGE_NOISE,
    LIMITS,
    SETS,
    SMALL_NOISE,
    finished,
    groups_of,
    missing,
    ran,
    sizes_axis,
    stretches,
    sweep_of,
    trainings,
)
from geomem.findings.crossings import crossing, span
from geomem.findings.groups import group_numbers
from geomem.findings.images import class_numbers
from geomem.findings.measured import Measured
from geomem.findings.rows import rows_of
from geomem.stats import Estimate

PICTURES = 3  # of the directions lost first, and last, at each noise
SURE = 3.0  # standard errors between groups, from which an order is an order
MANY = 0.8  # of the sure cells
LOST = 0.1  # of a group, two errors beyond which something is lost in a cell
MOST_CLASSES = 20  # of which a table is made


class ImageSubspaces(Experiment):
    r"""High against low variance on images."""

    name = "images-subspaces"
    title = "Which features of images are lost first"
    quote = (
        "salient features collapse first, then finer details, leading to near point-wise "
        "replication"
    )
    source = SOURCE
    claim = (
        "Where something is lost and the groups differ, principal directions 1 to 4 should have "
        "lost a larger share than 17 to 64, at small noise and at large noise."
    )
    limits = LIMITS
    usual_sets = SETS

    def trainings(self, scale: Scale) -> Runs:
        r"""The sweep of each set."""
        return trainings(self.sets, scale)

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Shares and nats of each group, their order cell by cell, pictures, classes."""
        found = finished(out, self.sets, scale)
        rows, orders, halves, counted = [], [], [], {}
        classes: list[list[str]] = []
        curves: dict[str, Any] = {}
        for data, dataset in found.items():
            last = sweep_of(data, scale).training.steps
            curves[data] = {}
            for noise, levels in stretches(dataset).items():
                known = group_numbers(dataset.isel(sigma=levels), groups_of(dataset))
                counts = order(known)
                counted[data, noise] = counts
                orders.append([data, noise, *map(str, counts)])
                final = known.isel(subject=known.step.values == last).sortby("num_samples")
                sizes = [int(n) for n in final.num_samples.values]
                rows += [_row(data, noise, final.isel(subject=k)) for k in range(len(sizes))]
                halves.append([data, noise, *_halves(final, sizes)])
                middle = _middle(final)
                picked = dataset.isel(sigma=levels, subject=_at(dataset, sizes[middle], last))
                curves[data][noise] = {
                    "sizes": sizes,
                    "share": [_pairs(final, g) for g in range(len(GROUPS))],
                    "size": sizes[middle],
                    "pictures": _pictures(picked, sweep_of(data, scale).source),
                }
            classes += _classes(data, dataset, last)
        verdict, why = _verdict(counted)
        bounds = (
            f"Small noise is below {SMALL_NOISE:g} rms, large noise above {LARGE_NOISE:g} rms; a "
            "cell is a size and a step."
        )
        tables = [
            Table(
                f"Cells in which a group has lost {LOST:g} and more, and in how many of them the "
                f"groups 1 to 4 and 17 to 64 differ by more than {SURE:g} standard errors",
                ["set", "noise", "cells", "share: high variance first", "low first",
                 "nats per direction: high more", "low more"],
                orders,
            ),
            Table(
                "Lost share, and nats per direction, by group of directions after the last step",
                ["set", "noise", "N", *(f"share, {g}" for g in GROUPS),
                 *(f"nats, {g}" for g in GROUPS)],
                rows,
            ),
            Table(
                "N at which a group's lost share falls below 1/2 (95 % interval)",
                ["set", "noise", *GROUPS],
                halves,
            ),
        ]  # fmt: skip
        if classes:
            tables.append(
                Table(
                    "Memorized nats per image by class, at the smallest N (± over its images)",
                    ["set", "N", "classes, from most to least"],
                    classes,
                )
            )
        return Judgement(
            verdict,
            why,
            [
                *ran(found, scale),
                *missing(out, self.sets, scale),
                bounds,
                "The rules stood in the source before a record of these networks was read.",
            ],
            tables,
            curves,
        )

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Shares by group against N, at small and large noise, and the directions themselves."""
        return _figure(document["curves"])


# ------------------------------------------------------------------------------- numbers


def order(known: xr.Dataset) -> tuple[int, int, int, int, int]:
    r"""Cells where something is lost; high first, low first by share; likewise by nats.

    Arguments:
        known: What :func:`geomem.findings.groups.group_numbers` returns of a stretch of levels.
    """
    sure = (known.whole_share - 2 * known.whole_share_stderr >= LOST).any("group").values
    z = (known.whole_difference / known.whole_difference_stderr).values[sure]
    nats = (known.nats_difference / known.nats_difference_stderr).values[sure]
    return (
        int(sure.sum()),
        int((z > SURE).sum()),
        int((z < -SURE).sum()),
        int((nats > SURE).sum()),
        int((nats < -SURE).sum()),
    )


def _row(data: str, noise: str, row: xr.Dataset) -> list[str]:
    shares = zip(row.whole_share.values, row.whole_share_stderr.values, strict=True)
    count = row.group_count.values
    nats = zip(row.nats.values / count, row.nats_stderr.values / count, strict=True)
    cells = [repr(Estimate(float(v), float(e))) for v, e in (*shares, *nats)]
    return [data, noise, f"{int(row.num_samples):,}", *cells]


def _halves(final: xr.Dataset, sizes: Sequence[int]) -> list[str]:
    columns = final.whole_share.values.T, final.whole_share_stderr.values.T
    return [span(crossing(sizes, v, e), sizes) for v, e in zip(*columns, strict=True)]


def _pairs(final: xr.Dataset, group: int) -> list[list[float]]:
    columns = final.whole_share.values[:, group], final.whole_share_stderr.values[:, group]
    return [[float(f"{v:.4g}"), float(f"{e:.3g}")] for v, e in zip(*columns, strict=True)]


def _middle(final: xr.Dataset) -> int:
    # The size where about half is lost: there first and last are told apart.
    weights = final.group_count.values
    return int(np.abs((final.whole_share.values * weights).sum(1) / weights.sum() - 0.5).argmin())


def _at(dataset: xr.Dataset, size: int, step: int) -> np.ndarray:
    # The trainings of a size, and all that they are compared with.
    own = (dataset.num_samples.values == size) & (dataset.step.values == step)
    control = dataset["kind"].values == dataset.attrs["control"]
    linear = dataset["kind"].values == "linear"
    return np.flatnonzero(dataset.measured.values & (own | control | linear))


def _pictures(dataset: xr.Dataset, source: Any) -> list[dict[str, Any]]:
    # The single directions of which the largest and the smallest share is lost.
    singles = groups_of(dataset)["17 to 64"].stop
    known = group_numbers(dataset, {str(k + 1): slice(k, k + 1) for k in range(singles)})
    known = known.isel(subject=0)
    share, error = known.whole_share.values, known.whole_share_stderr.values
    places = np.argsort(-share)
    vectors = source.directions.vectors.numpy()
    shape = source.data.item_shape
    found = []
    for k in (*places[:PICTURES], *places[-PICTURES:]):
        v = vectors[:, k] / np.abs(vectors[:, k]).max()
        found.append(
            {
                "direction": int(k) + 1,
                "share": [float(f"{share[k]:.3g}"), float(f"{error[k]:.2g}")],
                "shape": list(shape),
                # In hundredths of the largest entry: a picture, not a number.
                "pixels": [round(100 * float(x)) for x in v],
            }
        )
    return found


def _classes(data: str, dataset: xr.Dataset, step: int) -> list[list[str]]:
    if "point_label" not in dataset.coords:
        return []
    known = class_numbers(Measured(dataset, rows_of(dataset), 0, 0))
    if not known or known.sizes["class"] > MOST_CLASSES:
        return []
    rows = rows_of(dataset)
    learned = [k for k, row in enumerate(rows) if row.kind == "learned" and row.step == step]
    first = min(learned, key=lambda k: rows[k].num_samples)
    one = known.isel(subject=first)
    values, errors = one.class_information.values, one.class_information_stderr.values
    ranked = [int(c) for c in np.argsort(-values) if np.isfinite(values[c])]
    text = "; ".join(
        f"{known['class'].values[c]} {Estimate(float(values[c]), float(errors[c]))}" for c in ranked
    )
    return [[data, f"{int(rows[first].num_samples):,}", text]]


def _verdict(counted: Mapping[tuple[str, str], Sequence[int]]) -> tuple[Verdict, str]:
    parts, first = [], {}
    for (data, noise), (cells, high, low, *_) in counted.items():
        parts.append(f"{data}, {noise} noise: high first in {high}, low first in {low} of {cells}")
        if high + low:
            first[data, noise] = high / (high + low)
    text = f"By share, in cells where something is lost: {'; '.join(parts)}."
    shares = list(first.values())
    if not shares:
        return "undecided at this scale", text
    both = {noise for _, noise in first} == {"small", "large"}
    mostly = [share >= MANY for share in shares]
    opposite = all(share <= 1 - MANY for share in shares)
    return verdict_of(both and all(mostly), any(mostly), opposite), text


# -------------------------------------------------------------------------------- figure


def _figure(curves: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(3.5 * max(2, len(curves)) + 0.3, 8.4))
    outer = figure.add_gridspec(
        4, len(curves), height_ratios=(1, 0.75, 1, 0.75), hspace=0.42, wspace=0.2,
        left=0.3 / len(curves) ** 0.5 * 0.45, right=0.985, top=0.95, bottom=0.07,
    )  # fmt: skip
    for c, (data, one) in enumerate(curves.items()):
        for r, noise in enumerate(("small", "large")):
            ax = figure.add_subplot(outer[2 * r, c])
            for g, group in enumerate(GROUPS):
                values, errors = np.array(one[noise]["share"][g]).T
                ax.errorbar(
                    one[noise]["sizes"], values, errors, fmt="o-", ms=4, lw=1.2, color=f"C{g}",
                    label=f"directions {group}",
                )  # fmt: skip
            sizes_axis(ax, one[noise]["sizes"])
            ax.set_ylim(-0.1, 1.05)
            ax.axhline(0, color="0.85", lw=0.8, zorder=0)
            ax.set_title(f"{data}, {noise} noise", fontsize=9)
            ax.tick_params(labelsize=8)
            ax.spines[["top", "right"]].set_visible(False)
            if r:
                ax.set_xlabel("training images N", fontsize=8)
            if not c:
                ax.set_ylabel("lost share", fontsize=9)
                if not r:
                    ax.legend(frameon=False, fontsize=7)
            _draw_pictures(figure, outer[2 * r + 1, c], one[noise])
    return figure


def _draw_pictures(figure: Figure, place: Any, one: Mapping[str, Any]) -> None:
    pictures = one["pictures"]
    inner = place.subgridspec(1, len(pictures), wspace=0.08)
    for k, picture in enumerate(pictures):
        ax = figure.add_subplot(inner[k])
        shape = picture["shape"]
        pixels = np.array(picture["pixels"], float).reshape(shape) / 100
        if len(shape) == 3 and shape[0] == 3:
            ax.imshow((pixels.transpose(1, 2, 0) + 1) / 2)
        else:
            ax.imshow(pixels.reshape(shape[-2:]), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"{picture['direction']}: {picture['share'][0]:.2f}", fontsize=6.5)
        if k == 0:
            ax.set_title(f"lost first, N = {one['size']}", fontsize=7, loc="left")
        if k == len(pictures) // 2:
            ax.set_title("lost last", fontsize=7, loc="left")
