r"""The page of a plan: one file that opens from disk, drawn from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geomem.compute.files import atomic_write_text
from geomem.errors import InputError
from geomem.findings.plan_sentences import (
    PREDICTS,
    collapse_row,
    entry,
    hardest,
    two_lines,
    whole,
)
from geomem.runs.planned import planned, said
from geomem.runs.records import RunFolder
from geomem.show.page.layout import drawn, render
from geomem.show.page.pictures import Painter, is_picture
from geomem.show.page.pilot import pilot_content
from geomem.theory.planning import KEPT

TICKS = [a * 10.0**b for b in range(-3, 4) for a in (1, 1.5, 2, 3, 5, 7)]
SHOWN_PAIRS = 12
SHOWN_DIRECTIONS = 4
FAINT = (1.0, 0.9, 0.5, 0.1, 0.0)  # shares of a direction that are kept, drawn beside each other
# Of curves, told apart without colour, too (Okabe and Ito, with a marker each); further
# directions stand in the tables.
CURVES = (
    ("#000000", "o"), ("#d55e00", "s"), ("#0072b2", "D"), ("#009e73", "v"),
    ("#cc79a7", "P"), ("#e69f00", "X"), ("#56b4e9", "<"), ("#7a5195", "h"),
)  # fmt: skip
# Of maps: how much is kept, in steps whose colours nobody takes for each other.
STEPS = (
    (0.1, "#67000d", "#fff", "below 10 %: lost"),
    (0.5, "#ef6548", "#1f2328", "10 to 50 %"),
    (0.9, "#fdd9b5", "#1f2328", "50 to 90 %"),
    (np.inf, "#d9f0e3", "#1f2328", "90 % and more: kept"),
)

LIMITATION = (
    "At small noise a few images with a rare near neighbour carry the mean; where they were not "
    "among the images that got noise, intervals are too narrow."
)


def plan_report(folder: RunFolder, show_images: bool | None) -> Path:
    r"""Draws the page of a plan from its records, ``plan.html`` in its folder.

    Arguments:
        folder: The run.
        show_images: Whether pixels of near-duplicates are shown; as the run was configured if
            not given.

    Raises:
        InputError: If the plan is not finished, or no record holds the pixels asked for.
    """
    missing = folder.missing()
    if missing:
        raise InputError(
            f"the plan in {folder.path} is not finished: {len(missing)} of "
            f"{len(folder.subjects)} parts are missing; do it again, and it goes on"
        )
    records = [record for _, record in folder.records()]
    there = bool(folder.config.get("show_images", False))
    if show_images and not there:
        raise InputError(
            f"`show_images` is asked for, and the records of {folder.path} hold no pixels of the "
            "data; plan again in a new folder with `show_images`"
        )
    pictures = {}
    shown = there if show_images is None else show_images
    if shown and "picture" in records[0] and is_picture(tuple(folder.study["data"]["item_shape"])):
        pixels, numbers = records[0]["picture"].values, records[0]["picture_image"].values
        painter = Painter.of(pixels, folder.study["data"]["quantum"])
        pictures = {int(i): painter.image(p) for i, p in zip(numbers, pixels, strict=True)}
    shape = tuple(folder.study["data"]["item_shape"])
    seen = "vector" in records[0] and is_picture(shape)
    vectors = list(records[0]["vector"].values) if seen else []
    path = folder.path / "plan.html"
    html = plan_page(planned(folder), pictures, vectors)
    atomic_write_text(path, html, inside=folder.path, private=True)
    return path


def plan_page(
    document: Mapping[str, Any],
    pictures: Mapping[int, str],
    vectors: Sequence[NDArray[np.floating]] = (),
) -> str:
    r"""The page. All that comes from the data is escaped.

    Arguments:
        document: The plan, as ``plan.json`` holds it.
        pictures: Data URIs of images by their number; none unless pixels are to be shown.
        vectors: Principal directions in the shape of an image, where items are pictures.
    """
    title, more = said(document)
    content = {
        "plan": document,
        "file": "geomem-plan",
        "title": title,
        "findings": more,
        "pilot": pilot_content(document["pilot"]) if "pilot" in document else None,
        "predicts": PREDICTS,
        "limitation": LIMITATION,
        "hardest": f"{document['sigmas_relative'][hardest(document)[0]]:.2g}",
        "levels": [f"{s:.2g}" for s in document["sigmas_relative"]],
        "points": [f"{n:,.0f}" for n in document["reference_points"]],
        "needed": [(f"{100 * kept:.0f} %", _needed_rows(document, kept)) for kept in KEPT],
        "figure": drawn(lambda inks: needed(document, inks)),
        "hidden": max(0, len(document["direction_variances"]) - len(CURVES)),
        "steps": [(f"background:{colour};color:{ink}", said) for _, colour, ink, said in STEPS],
        "maps": _maps(document),
        "faint": _faint(document, vectors),
        "collapse": [collapse_row(document, row) for row in document["collapse"]],
        "twins": [
            {"ratio": f"{ratio:.3f}", **_images(document, [i, j], pictures)}
            for i, j, ratio in document["duplicates"]["near_pairs"][:SHOWN_PAIRS]
        ],
        "exact": [
            {"more": len(group) - 4, **_images(document, group, pictures)}
            for group in document["duplicates"]["exact_groups"][:SHOWN_PAIRS]
        ],
    }
    return render("plan.html", content)


def _faint(
    document: Mapping[str, Any], vectors: Sequence[NDArray[np.floating]]
) -> list[dict[str, Any]]:
    # What "kept" means on the picture of a direction: how much of it samples would still vary by.
    level, _ = hardest(document)
    rows = []
    for k, vector in enumerate(vectors[:SHOWN_DIRECTIONS]):
        needs = [two_lines(document, entry(document, kept, level, k))[0] for kept in KEPT]
        pictures = [(share, Painter().direction(vector, share)) for share in FAINT]
        rows.append({"pictures": pictures, "needs": list(zip(KEPT, needs, strict=True))})
    return rows


# ---------------------------------------------------------------------------------- tables


def _needed_rows(document: Mapping[str, Any], kept: float) -> list[list[dict[str, str]]]:
    rows: list[list[dict[str, str]]] = []
    for k in range(len(document["direction_variances"])):
        rows.append([])
        for i in range(len(document["sigmas"])):
            found = entry(document, kept, i, k)
            main, below = two_lines(document, found)
            kind = "known" if found["status"] == "found" else "few"
            rows[-1].append({"main": main, "below": below, "kind": kind})
    return rows


def _maps(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    # A map a size: retention in percent, by direction and noise level, with its colour.
    few = np.array(document["reference_points"]) < document["enough_reference_points"]
    control = np.array(document["control"], dtype=float)
    retention, error = (
        np.array(document[name], dtype=float) for name in ("retention", "retention_stderr")
    )
    levels, width = control.shape
    maps = []
    for s, size in enumerate(document["sizes"]):
        if size < document["data"]["pool"]:
            rows = [
                [
                    _cell(retention[i, s, k], error[i, s, k], control[i, k], bool(few[i]))
                    for i in range(levels)
                ]
                for k in range(width)
            ]
            maps.append({"title": f"N = {whole(size)}", "rows": rows})
    guide = np.array(document["guide_retention"], dtype=float)
    for s, size in enumerate(document["sizes_beyond"]):
        rows = [[_guided(guide[i, s, k]) for i in range(levels)] for k in range(width)]
        title = f"N = {whole(size)}: beyond the data, Gaussian guide"
        maps.append({"title": title, "rows": rows})
    return maps


def _cell(retention: float, error: float, control: float, few: bool) -> dict[str, str]:
    if not control >= 0.05 and not few:
        return {"text": "–", "style": "", "kind": "closed"}
    if few:
        retention += 2 * error  # an upper end
    if few and not retention < 0.5:
        return {"text": "?", "style": "", "kind": "few"}
    percent = f"{100 * retention:.0f}"
    if few:
        percent = "≤ 1" if retention < 0.01 else f"≤ {percent}"
    return {"text": percent, "style": _style(retention), "kind": "bound" if few else "known"}


def _guided(retention: float) -> dict[str, str]:
    if not np.isfinite(retention):
        return {"text": "–", "style": "", "kind": "closed"}
    return {"text": f"{100 * retention:.0f}", "style": _style(retention), "kind": "known"}


def _style(share: float) -> str:
    return next(f"background:{c};color:{ink}" for below, c, ink, _ in STEPS if share < below)


def _images(
    document: Mapping[str, Any], group: list[int], pictures: Mapping[int, str]
) -> dict[str, Any]:
    files = document["duplicates"]["files"]
    return {
        "names": [str(files.get(str(i), f"image {i}")) for i in group[:4]],
        "images": [pictures[i] for i in group[:2] if i in pictures],
    }


# ---------------------------------------------------------------------------------- figure


def needed(document: Mapping[str, Any], inks: Mapping[str, str]) -> Figure:
    r"""N that keeps each direction to one half and to nine tenths, side by side.

    Arguments:
        document: The plan.
        inks: Colours of text and lines: ``ink``, ``muted``, ``grid``.
    """
    figure = Figure(figsize=(9.6, 4.3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, kept in zip(axes, KEPT, strict=True):
        plot_needed(document, kept, ax, inks)
    axes[0].set_ylabel("images N")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside right center")
    return figure


def plot_needed(
    document: Mapping[str, Any], kept: float, ax: Axes, inks: Mapping[str, str]
) -> None:
    r"""N that keeps each direction, with its interval; lower ends and guide where too few.

    Arguments:
        document: The plan.
        kept: .5 or .9.
        ax: Where to draw.
        inks: Colours of text and lines; the first curve has that of the text.
    """
    M = document["data"]["pool"]
    curves = [(inks["ink"], CURVES[0][1]), *CURVES[1:]]
    for k, (colour, marker) in enumerate(curves[: len(document["direction_variances"])]):
        cells = [entry(document, kept, i, k) for i in range(len(document["sigmas"]))]
        found = [c for c in cells if c["status"] == "found"]
        at = [c["sigma_relative"] for c in found]
        ax.plot(at, [c["num_samples"] for c in found], ls="-", marker=marker, ms=5.5, lw=1.6,
                mew=0, color=colour, label=f"direction {k + 1}")  # fmt: skip
        low, high = [c["low"] for c in found], [c["high"] or M for c in found]
        ax.vlines(at, low, high, color=colour, alpha=0.45, lw=1.2)
        ends = [c for c in cells if c["status"] in ("too few images", "more than M")]
        ax.plot([c["sigma_relative"] for c in ends], [c["low"] for c in ends], ls="", marker="^",
                ms=6, mfc="none", color=colour)  # fmt: skip
        guide = [c for c in cells if c["guide"] is not None]
        ax.plot([c["sigma_relative"] for c in guide], [c["guide"] for c in guide], ls=":", lw=1.2,
                color=colour)  # fmt: skip
    ax.plot([], [], ls="", marker="^", ms=6, mfc="none", color=inks["muted"], label="lower end")
    ax.plot([], [], ls=":", lw=1.2, color=inks["muted"], label="Gaussian guide")
    ax.axhline(M, color=inks["muted"], lw=0.9)
    ax.annotate(f"M = {M:,}", (0.99, M), xycoords=("axes fraction", "data"), va="bottom",
                ha="right", size=9)  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="noise level σ, in rms", ylim=(1.5, M**2))
    inside = [s for s in TICKS if ax.get_xlim()[0] <= s <= ax.get_xlim()[1]]
    inside = inside if len(inside) <= 9 else [s for s in inside if f"{s:e}"[0] in "15"]
    ax.set_xticks(inside, [f"{s:g}" for s in inside])
    ax.minorticks_off()
    ax.grid(color=inks["grid"], lw=0.8)
    ax.set_axisbelow(True)
    ax.set_title(f"kept to {100 * kept:.0f} %", fontsize=11)
