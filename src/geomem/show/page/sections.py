r"""Further sections of a page: disjoint trainings, the network's own trajectories, classes.

Each is there only where a run knows something of it; all are drawn without a script.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from geomem.findings.sentences import estimate, state
from geomem.show.figures.data import PLACES, has, shown_rows, words
from geomem.show.page.headlines import of, unbroken
from geomem.show.page.plots import Plot, Series
from geomem.stats import Estimate

MOST_NETWORKS = 4  # whose trajectories are drawn: more panels are not read
MOST_CLASSES = 40
LEVEL = "noise level σ (rms)"
ALONG = {"trajectory": "solid", "training": "dashed", "held_out": "dotted"}


@dataclass(frozen=True, eq=False)
class Section:
    r"""A section: a title that says the message, what one sees, plots, and a table.

    Attributes:
        name: What it is called in the page's addresses.
        title: The message.
        text: What one sees.
        plots: The plots.
        labels: Of each row shown its label and place, for the key of colours.
        lines: What the kinds of line are, if there are several.
        columns: The columns of the table, if there is one.
        rows: Its rows: a cell is a text.
    """

    name: str
    title: str
    text: str
    plots: list[Plot]
    labels: list[tuple[str, int]]
    lines: list[tuple[str, str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def sections(known: xr.Dataset, study: Mapping[str, Any]) -> list[Section]:
    r"""The further sections of a run's page.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        study: The content of the study.
    """
    found = [_disjoint(known), _trajectories(known), _classes(known, study)]
    return [section for section in found if section is not None]


def _rows(known: xr.Dataset) -> list[tuple[int, xr.Dataset]]:
    return [(place, known.isel(subject=k)) for place, k in enumerate(shown_rows(known))]


def _by_level(
    row: xr.Dataset, place: int, name: str, dash: str = "solid", more: str = ""
) -> Series:
    label = f"{row['label'].item()}{more}"
    x, y, stderr = row.sigma_relative.values, row[name].values, row[f"{name}_stderr"].values
    return Series(label, f"var(--row-{place})", x, y, stderr, dash)


# ------------------------------------------------------------------------ disjoint trainings


def _disjoint(known: xr.Dataset) -> Section | None:
    if not has(known, "variance"):
        return None
    rows = [(p, row) for p, row in _rows(known) if math.isfinite(float(row.variance))]
    asked = (
        ("variance_by_level", "variance", "nats per e-fold"),
        ("bias_by_level", f"bias, beside the {known.attrs['control']} control", "nats per e-fold"),
        ("agreement_by_level", "agreement: share of their error in common", "share"),
    )
    plots = [
        Plot(title, LEVEL, units, [_by_level(row, place, name) for place, row in rows])
        for name, title, units in asked
        if name in known
    ]
    said = [f"{estimate(row, 'agreement')} {of(row)}" for _, row in rows]
    ends = said if len(said) < 2 else [said[0], said[-1]]
    title = f"Networks that share no image agree on {' and on '.join(ends)} of their error"
    text = (
        "For each N several networks were trained on disjoint parts of the pool, and are compared "
        "at held-out images, new to all, with the same noise. Half their squared difference is the "
        "variance of what is learned from N images, which more images mend; the rest of the excess "
        "on new images is bias, which may be below 0 beside a control that is no population. "
        "Networks that agree wholly (1) err alike: they have learned the law, or the same mistake. "
        "Bands are ± one standard error."
    )
    labels = [(str(row["label"].item()), place) for place, row in rows]
    return Section("disjoint", unbroken(title), text, plots, labels)


# ---------------------------------------------------------------------------- trajectories


def _trajectories(known: xr.Dataset) -> Section | None:
    if "at" not in known.dims or "trajectory" not in known["at"].values:
        return None
    names = {
        "dimension": ("dimension kept", "directions"),
        "nearest_distance": ("to the nearest training image", "rms"),
    }
    rows = [
        (place, row)
        for place, row in _rows(known)
        if any(name in row and _there(row, name) for name in names)
    ]
    if not rows:
        return None
    spread = np.linspace(0, len(rows) - 1, min(len(rows), MOST_NETWORKS)).round().astype(int)
    rows = [rows[k] for k in spread]
    plots = []
    for name, (text, units) in names.items():
        for place, row in rows:
            if name not in row or not _there(row, name):
                continue
            lines = [
                _by_level(row.sel(at=at), place, name, dash, f", {PLACES.get(at, at)}")
                for at, dash in ALONG.items()
                if at in row["at"].values
            ]
            plots.append(Plot(f"{row['label'].item()}: {text}", LEVEL, units, lines))
    text = (
        "Solid: at the noisy points that the network's own sampler passes through, from pure noise "
        "down to a sample. Dashed and dotted: at noised training and held-out images. First, along "
        "how many directions the denoised point follows the noisy one; then, how far the denoised "
        "point is from the nearest training image, per coordinate: where a network pulls its "
        "samples towards training images the solid line is near the dashed one, not near the "
        "dotted one. Bands are ± one standard error over trajectories, or images."
    )
    labels = [(str(row["label"].item()), place) for place, row in rows]
    kinds = [(PLACES[at], dash) for at, dash in ALONG.items()]
    return Section("trajectories", unbroken(_own_way(rows)), text, plots, labels, kinds)


def _there(row: xr.Dataset, name: str) -> bool:
    return bool(np.isfinite(row[name].sel(at="trajectory").values).any())


def _own_way(rows: list[tuple[int, xr.Dataset]]) -> str:
    # How far the end of the trajectories of the first network is, beside both kinds of images.
    row = rows[0][1].isel(sigma=0)
    if "nearest_distance" not in row or not _there(rows[0][1], "nearest_distance"):
        return "Along the network's own trajectories"
    own, near, new = (
        estimate(row, "nearest_distance", at=at) for at in ("trajectory", "training", "held_out")
    )
    return (
        f"The trajectories {of(row)} end {own} rms from a training image, where training images "
        f"are denoised to {near} and held-out ones to {new}"
    )


# ---------------------------------------------------------------------------------- classes


def _classes(known: xr.Dataset, study: Mapping[str, Any]) -> Section | None:
    if "classes" not in study or not has(known, "class_information"):
        return None
    about = {str(c["label"]): c for c in study["classes"]}
    names = [str(c) for c in known["class"].values if str(c) in about]
    if not names:
        return None
    scale = float(known.attrs["rms"]) ** 2
    variance = np.array([about[c]["variance"] / scale for c in names])
    images = np.array([float(about[c]["images"]) for c in names])
    rows = [(p, row) for p, row in _rows(known) if row.class_information.notnull().any()]
    what = words(known, "density").total
    plots = [
        Plot(
            f"{what} of an image, by the {title}",
            label,
            "nats",
            [_of_classes(row.sel({"class": names}), place, x, names) for place, row in rows],
            log_x=False,
        )
        for x, title, label in (
            (variance, "variance of its class", "variance of the class (rms² a coordinate)"),
            (images, "size of its class", "images of the class in the pool"),
        )
    ]
    order = sorted(names, key=lambda c: -_nats(rows[0][1], c))[:MOST_CLASSES]
    table = [
        [c, f"{about[c]['images']:,}", f"{about[c]['variance'] / scale:.3g}"]
        + [_cell(row, c) for _, row in rows]
        for c in order
    ]
    labels = [(str(row["label"].item()), place) for place, row in rows]
    columns = ["class", "images in the pool", "variance, rms²", *(f"{k}, nats" for k, _ in labels)]
    text = (
        f"The mean {what} of a measured training image of each class, beside how "
        "many images the class has in the pool and how much they vary; ± over images, and in "
        "brackets how many of them were measured. The plots ask whether rare or varied classes "
        "have more of it."
    )
    if len(names) > MOST_CLASSES:
        text += f" The table has the {MOST_CLASSES} classes with most of {len(names)}."
    return Section("classes", unbroken(_most(rows, names)), text, plots, labels, [], columns, table)


def _of_classes(row: xr.Dataset, place: int, x: np.ndarray, names: list[str]) -> Series:
    label, colour = str(row["label"].item()), f"var(--row-{place})"
    y, stderr = row.class_information.values, row.class_information_stderr.values
    return Series(label, colour, x, y, stderr, "", [f"class {c}" for c in names])


def _nats(row: xr.Dataset, name: str) -> float:
    value = float(row.class_information.sel({"class": name}))
    return -math.inf if math.isnan(value) else value


def _cell(row: xr.Dataset, name: str) -> str:
    one = row.sel({"class": name})
    count = float(one.class_images)
    if not count > 0 or math.isnan(float(one.class_information)):
        return "not measured"
    if count == 1:
        return f"{float(one.class_information):.1f} (1, no error)"
    return f"{_estimate(one)} ({count:.0f})"


def _estimate(one: xr.Dataset) -> Estimate:
    return Estimate(float(one.class_information), float(one.class_information_stderr))


def _most(rows: list[tuple[int, xr.Dataset]], names: list[str]) -> str:
    # Of classes with an error, so of at least two images, and of a network that has learned.
    said = [row for _, row in rows if state(row) in ("told apart", "not significant")]
    row = said[0] if said else rows[0][1]
    sure = [
        c for c in names if math.isfinite(float(row.class_information_stderr.sel({"class": c})))
    ]
    if len(sure) < 2 or not said:
        return "Single classes"
    first, last = (pick(sure, key=lambda c: _nats(row, c)) for pick in (max, min))
    most, least = (_estimate(row.sel({"class": c})) for c in (first, last))
    if not most.z_score(least) > 3:  # the largest of some against the smallest
        return f"No class is memorized clearly more than the others {of(row)}"
    text = f"Most is memorized of class {first} ({most} nats an image)"
    return f"{text}, least of {last} ({least}), {of(row)}"
