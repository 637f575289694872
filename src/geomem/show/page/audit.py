r"""What the page of an audit has beside that of any run: verdict, what was lost, digests, limits.

Pictures of directions, samples and images are there only where they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec

from geomem.errors import InputError
from geomem.findings.card import model_card, three_numbers
from geomem.findings.sentences import ALPHA, estimate
from geomem.findings.verdict import FULL, SHARE, verdict
from geomem.runs.records import RunFolder, read_json
from geomem.show.page.gallery import first_known, image_names
from geomem.show.page.headlines import unbroken
from geomem.show.page.layout import drawn
from geomem.show.page.pictures import Floats, is_picture

MARKS = {
    "generalization": "good",
    "geometric memorization": "some",
    "full memorization": "much",
    "inconclusive": "open",
}
SHOWN_LOST = 4
SHOWN_IMAGES = 64
TICKS = [m * 10.0**e for e in range(-4, 4) for m in (1, 2, 5)]


def audit_content(
    folder: RunFolder, dataset: xr.Dataset, known: xr.Dataset, *, show_images: bool
) -> dict[str, Any]:
    r"""What the template of an audit asks for; nothing where there is no verdict yet.

    Arguments:
        folder: The run.
        dataset: Its records.
        known: Their numbers.
        show_images: Whether pictures may be shown: of directions, and of where in the image.
    """
    try:
        found = verdict(known)
    except InputError:  # the model itself is not measured yet
        return {}
    row = known.isel(subject=found.subject or 0)
    lost = pictures_of_lost(dataset, row) if show_images else []
    return {
        "title": f"{str(found).capitalize()}, verdict on {found.label} · {known.attrs['data']}",
        "verdict": found,
        "mark": MARKS[found.word],
        "three": three_numbers(found),
        "reasons": [unbroken(said) for said in found.reasons],
        "lost": drawn(lambda inks: what_was_lost(row, lost, inks)) if _has_shares(row) else None,
        "lost_pictures": bool(lost),
        "controls": controls(known, row),
        "limits": [unbroken(said) for said in found.limits],
        "digests": digests(folder),
        "checks": _checks(folder),
        "single": single_images(dataset, row, folder.study),
        "card": model_card(known, found, study=folder.config["study"]),
    }


def without_pictures(dataset: xr.Dataset) -> xr.Dataset:
    r"""The records without what can be looked at: samples may be copies, directions lost ones."""
    names = ("sample_image", "nearest_image", "training_image", "vector")
    return dataset.drop_vars([name for name in names if name in dataset])


# ---------------------------------------------------------------------------- what was lost


def _has_shares(row: xr.Dataset) -> bool:
    return "lost_share" in row and bool(row.lost_share.notnull().any())


def pictures_of_lost(dataset: xr.Dataset, row: xr.Dataset) -> list[tuple[str, Floats]]:
    r"""Lost directions as pictures, and where in the image it is: each with what it shows."""
    found: list[tuple[str, Floats]] = []
    vectors = first_known(dataset, "vector")
    if "lost_direction" in row and vectors is not None and is_picture(vectors.shape[1:]):
        for axis, share in zip(
            row.lost_direction.values, row.lost_direction_share.values, strict=True
        ):
            there = np.flatnonzero(np.nan_to_num(axis))
            if len(found) < SHOWN_LOST and len(there) and there.max() < len(vectors):
                picture = np.tensordot(axis[: len(vectors)], vectors, 1)
                found.append((f"{100 * share:.0f} % gone", _plane(picture)))
    if "lost_pixels" in row and bool(row.lost_pixels.notnull().any()):
        found.append(("where, nats", row.lost_pixels.values))
    return found


def _plane(picture: Floats) -> Floats:
    # A direction has signs, and colours have no common one: of several channels the mean.
    return picture if picture.ndim == 2 else np.asarray(picture.mean(0))


def what_was_lost(
    row: xr.Dataset, pictures: list[tuple[str, Floats]], inks: Mapping[str, str]
) -> Figure:
    r"""Lost shares against the noise level, and the directions that are lost.

    Arguments:
        row: The numbers of the model.
        pictures: What each shows, and its values, with shape (H, W).
        inks: Colours of text and lines: ``ink``, ``muted``, ``grid``.
    """
    figure = Figure(figsize=(7.4, 3.9 if pictures else 3.3), layout="constrained")
    lines = 2 if pictures else 1
    grid = figure.add_gridspec(lines, 1, height_ratios=[2.3, 1][:lines])
    _shares(row, figure.add_subplot(grid[0]), inks)
    if pictures:
        below = GridSpecFromSubplotSpec(1, SHOWN_LOST + 1, subplot_spec=grid[1])
        for k, (said, values) in enumerate(pictures):
            ax = figure.add_subplot(below[k])
            where = said.startswith("where")
            top = float(np.nanmax(np.abs(values))) or 1.0
            ax.imshow(values, cmap="RdBu_r" if where else "gray", vmin=-top, vmax=top)
            ax.set_title(said, fontsize=9)
            ax.set(xticks=[], yticks=[])
    return figure


def _shares(row: xr.Dataset, ax: Axes, inks: Mapping[str, str]) -> None:
    dark = inks["ink"] > inks["paper"]
    curves = (
        ("lost_share", "of the control's dimension", "#7d95d6" if dark else "#3b528b", "-"),
        ("worst_share", "of the worst three directions", "#f0a14a" if dark else "#b35900", "--"),
    )
    x, top = row.sigma_relative.values, 1.0
    for name, said, colour, style in curves:
        if name not in row or not row[name].notnull().any():
            continue
        value, low, high = (row[name + end].values for end in ("", "_low", "_high"))
        ax.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(x, value, color=colour, ls=style, lw=2, label=said)
        if "p_level" in row:
            sure = np.where(row.p_level.values <= ALPHA, value, np.nan)
            ax.plot(x, sure, ls="", marker="o", ms=4, color=colour)
        top = max(top, float(np.nanmax(value)))
    for level, said in ((SHARE, "memorization"), (FULL, "full")):
        ax.axhline(level, color=inks["muted"], lw=1, ls=":")
        text = f"{said}: {100 * level:.0f} %"
        ax.annotate(text, (0.995, level), xycoords=("axes fraction", "data"), size=8.5,
                    ha="right", va="bottom", color=inks["muted"])  # fmt: skip
    ax.axhline(0, color=inks["muted"], lw=0.8)
    ax.set(
        xscale="log", xlabel="noise level σ (rms)", ylabel="lost share", ylim=(-0.15, top + 0.08)
    )
    inside = [s for s in TICKS if x[0] <= s <= x[-1]]
    ax.set_xticks(inside, [f"{s:g}" for s in inside])
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    ax.minorticks_off()
    ax.grid(color=inks["grid"], lw=0.8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(-0.01, 1.0),
              borderaxespad=0.1)  # fmt: skip


# --------------------------------------------------------------------------------- evidence


def controls(known: xr.Dataset, row: xr.Dataset) -> list[dict[str, str]]:
    r"""Each control: nats beside it, how finely it decides, how much of an image it knows."""
    found = []
    for name in map(str, known["control"].values) if "control" in known.dims else ():
        one = row.sel(control=name)
        nats = estimate(one, "information_beside")
        fine = float(one.control_error) if "control_error" in one else math.nan
        r = one.r_squared.values if "r_squared" in one else np.array([np.nan])
        gap = estimate(one, "disagreement") if "disagreement" in one else None
        apart = gap is not None and abs(gap.value) > 2 * gap.stderr > 0
        found.append(
            {
                "name": name + (", which decided" if name == known.attrs["control"] else ""),
                "nats": str(nats) if math.isfinite(nats.value) else "not measured",
                "fine": f"{fine:.{0 if fine >= 10 else 1}f}" if math.isfinite(fine) else "",
                "r": f"{np.nanmin(r):.2f} to {np.nanmax(r):.2f}" if np.isfinite(r).any() else "",
                "gap": f"{gap}" + (", beyond error" if apart else "") if apart else "",
            }
        )
    return found


def single_images(
    dataset: xr.Dataset, row: xr.Dataset, study: Mapping[str, Any]
) -> list[dict[str, str]]:
    r"""Training images that are memorized one by one, by name and digest, most nats first."""
    if "point_q_value" not in row:
        return []
    names = image_names(study)
    nats, q = row.point_information.values, row.point_q_value.values
    there = [int(k) for k in np.argsort(-np.nan_to_num(nats, nan=-np.inf)) if q[k] <= ALPHA]
    index = dataset.point_index.sel(at="training").values
    digests = study.get("point_digests", {}).get("training", [])
    return [
        {
            "name": names[int(index[k])],
            "digest": str(digests[k]) if k < len(digests) else "",
            "nats": str(estimate(row.isel(point=k), "point_information")),
            "q": f"{q[k]:.2g}",
        }
        for k in there[:SHOWN_IMAGES]
    ]


# ---------------------------------------------------------------------------------- digests


def digests(folder: RunFolder) -> list[tuple[str, str]]:
    r"""The sha256 of all that a verdict follows from, as pairs of name and value."""
    study, found = folder.study, [("Study", str(folder.config["study"]))]
    found += [("Records", folder.records_digest()), ("Images", str(study["data"]["digest"]))]
    for name in ("split", "groups", "labels"):
        if study["data"].get(name):
            found.append((name.capitalize(), str(study["data"][name])))
    for who, about in study.get("models", {}).items():
        weights = about.get("sha256") if isinstance(about, Mapping) else None
        for file, digest in (weights or {}).items() if isinstance(weights, Mapping) else ():
            found.append((f"{str(who).capitalize()}, {file}", str(digest)))
    return found


def _checks(folder: RunFolder) -> list[tuple[str, str]]:
    # The checks at the model's door, in their own words where they are kept.
    try:
        told = read_json(folder.path / "model.json").get("checks", [])
        return [
            (str(c["name"]), ("passed: " if c["passed"] else "not passed: ") + str(c["sentence"]))
            for c in told
        ]
    except (InputError, KeyError, TypeError):
        passed = folder.study.get("checks", {})
        return [(str(k), "passed" if v else "not passed") for k, v in passed.items()]
