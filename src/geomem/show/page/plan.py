r"""The page of a plan: one file that opens from disk, drawn from the JSON document alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
KEPT = (0.5, 0.9)
TICKS = [a * 10.0**b for b in range(-3, 4) for a in (1, 1.5, 2, 3, 5, 7)]
SHOWN_PAIRS = 12

PREDICTS = (
    "What is predicted is the exact denoiser of N images: a model that has memorized its training "
    "set exactly, the worst case. A trained network usually keeps more, or loses directions in its "
    "own way; a sweep (geomem sweep) measures what it does relative to this plan."
)
LIMITATION = (
    "At small noise a few images with a rare near neighbour carry the mean; where they were not "
    "among the images that got noise, intervals are too narrow."
)


def plan_page(document: Mapping[str, Any], pictures: Mapping[int, str]) -> str:
    r"""The page. All that comes from the data is escaped.

    Arguments:
        document: The plan, as ``plan.json`` holds it.
        pictures: Data URIs of images by their number; none unless pixels are to be shown.
    """
    M = document["data"]["pool"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("plan.html").render(
        plan=document,
        title=headline(document),
        findings=findings(document),
        predicts=PREDICTS,
        limitation=LIMITATION,
        levels=[f"{s:.2g}" for s in document["sigmas_relative"]],
        points=[f"{n:,.0f}" for n in document["reference_points"]],
        needed=[(f"{100 * kept:.0f} %", _needed_table(document, kept)) for kept in KEPT],
        figure=_data_uri(_needed_figure(document)),
        maps=[_map(document, i) for i, N in enumerate(document["sizes"]) if N < M],
        collapse=[_collapse_row(document, row) for row in document["collapse"]],
        twins=_twins(document, pictures),
        exact=_exact(document, pictures),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
    )


# ----------------------------------------------------------------------------------- words


def count(number: float | None) -> str:
    r"""A number of images that was estimated, to three digits; below 1,000 rounded up.

    Example:
        >>> [count(n) for n in (7.2, 9476.3, 3.7e9)]
        ['8', '9,480', '3.7·10⁹']
    """
    if number is None:
        return "?"
    if number >= 1e6:
        mantissa, exponent = f"{number:.1e}".split("e")
        return f"{mantissa}·10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    rounded = np.ceil(number - 1e-6) if number < 1000 else float(f"{number:.3g}")
    return f"{rounded:,.0f}"


def whole(number: float) -> str:
    r"""A number of images that is known."""
    return f"{number:,.0f}" if number < 1e7 else count(number)


def entry(document: Mapping[str, Any], kept: float, level: int, direction: int) -> dict[str, Any]:
    r"""What the plan says of one direction at one noise level."""
    width, height = len(document["direction_variances"]), len(document["sigmas"])
    found: dict[str, Any] = document["needed"][
        (KEPT.index(kept) * height + level) * width + direction
    ]
    return found


def two_lines(document: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[str, str]:
    r"""A size, and below it what is known of its error or from above."""
    M = whole(document["data"]["pool"])
    if found["status"] == "not open":
        return "–", "not open"
    if found["status"] == "found":
        high = f"> {M}" if found["high"] is None else count(found["high"])
        return count(max(2.0, found["num_samples"])), f"{count(found['low'])} to {high}"
    main = f"> {M}" if found["status"] == "more than M" else f"≥ {count(found['low'])}"
    return main, guide_text(found)


def guide_text(found: Mapping[str, Any]) -> str:
    r"""The guide from above, if there is one."""
    if found["guide_above_1e12"]:
        return "guide > 10¹²"
    return "no guide" if found["guide"] is None else f"guide {count(found['guide'])}"


def cell(document: Mapping[str, Any], kept: float, level: int, direction: int) -> str:
    r"""The size alone, as short as it can be."""
    found = entry(document, kept, level, direction)
    short = two_lines(document, found)[0].replace(" ", "")
    return ">M" if found["status"] == "more than M" else short


def size_text(document: Mapping[str, Any]) -> str:
    r"""How to read a cell."""
    M = whole(document["data"]["pool"])
    return (
        f"Sizes are relative to all M = {M} images. ≥: these are too few a reference, and it is a "
        f"lower end. >M: all of them fall short. –: not open at that noise level. The page has "
        "intervals and the guide from above."
    )


def headline(document: Mapping[str, Any]) -> str:
    r"""What the plan says, in one sentence."""
    M, name = whole(document["data"]["pool"]), document["data"]["name"]
    level = _lowest_known(document)
    if level is None:
        return f"{M} images of {name} are too few to say what would be kept at these noise levels"
    sigma = document["sigmas_relative"][level]
    main, _ = two_lines(document, entry(document, 0.5, level, 0))
    return (
        f"{name}: at σ = {sigma:.2g} rms, N = {main} images keep half of the first principal "
        f"direction; below it, even {M} are too few to say"
        if level
        else f"{name}: {M} images tell what is kept at every noise level looked at"
    )


def _lowest_known(document: Mapping[str, Any]) -> int | None:
    enough = document["enough_reference_points"]
    known = [i for i, n in enumerate(document["reference_points"]) if n >= enough]
    return min(known) if known else None


def findings(document: Mapping[str, Any]) -> list[str]:
    r"""What was found, as sentences."""
    return [
        *_reach(document),
        *_first_and_last(document),
        *_collapse_of_all(document),
        _duplicates(document),
        PREDICTS,
    ]


def _reach(document: Mapping[str, Any]) -> list[str]:
    M, levels = whole(document["data"]["pool"]), document["sigmas_relative"]
    lowest, enough = _lowest_known(document), document["enough_reference_points"]
    if lowest == 0:
        return [f"{M} images are a large enough reference at every noise level looked at."]
    where = f"below σ = {levels[lowest]:.2g} rms" if lowest else "at any noise level looked at"
    return [
        f"{M} images are too small a reference {where}: fewer than {enough} of them share a noisy "
        "image there, and sizes are lower ends, with the Gaussian guide from above."
    ]


def _first_and_last(document: Mapping[str, Any]) -> list[str]:
    lowest = _lowest_known(document)
    if lowest is None:
        return []
    sigma, out = document["sigmas_relative"][lowest], []
    for k in sorted({0, len(document["direction_variances"]) - 1}):
        pair = [entry(document, kept, lowest, k) for kept in KEPT]
        if all(found["status"] == "found" for found in pair):
            (a, b), (c, d) = (two_lines(document, found) for found in pair)
            out.append(
                f"At σ = {sigma:.2g} rms direction {k + 1} is kept to 50 % from N = {a} "
                f"({b}) and to 90 % from N = {c} ({d})."
            )
    return out


def _collapse_of_all(document: Mapping[str, Any]) -> list[str]:
    out = []
    for row in document["collapse"]:
        if row["num_samples"] == document["data"]["pool"]:
            sigma, interval, guide = _collapse_row(document, row)[1:]
            ends = f" ({interval})" if row["sigma"] is not None else ""
            out.append(
                f"All {whole(row['num_samples'])} images are down to 2 effective points at "
                f"σ = {sigma} rms{ends}; for Gaussian data of their covariance ln N = I at {guide}."
                if row["sigma"] is not None
                else f"All {whole(row['num_samples'])} images: 2 effective points are left at a "
                f"noise level {sigma}."
            )
    return out


def _duplicates(document: Mapping[str, Any]) -> str:
    found = document["duplicates"]
    exact, near = len(found["exact_groups"]), found["near_count"]
    return (
        f"Among {document['data']['images']:,} images there are {exact or 'no'} groups of exact "
        f"duplicates and {near or 'no'} pairs nearer than {found['threshold']:.2g} of the usual "
        "distance to the nearest neighbour."
    )


# ---------------------------------------------------------------------------------- tables


def _needed_table(document: Mapping[str, Any], kept: float) -> list[list[dict[str, str]]]:
    rows = []
    for k in range(len(document["direction_variances"])):
        found = [entry(document, kept, i, k) for i in range(len(document["sigmas"]))]
        rows.append([_needed_cell(document, one) for one in found])
    return rows


def _needed_cell(document: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    main, below = two_lines(document, found)
    return {"main": main, "below": below, "kind": "known" if found["status"] == "found" else "few"}


def _map(document: Mapping[str, Any], size: int) -> dict[str, Any]:
    # One size: retention in percent, by direction and noise level, with its colour.
    retention = np.array(document["retention"], dtype=float)[:, size]
    error = np.array(document["retention_stderr"], dtype=float)[:, size]
    control = np.array(document["control"], dtype=float)
    few = np.array(document["reference_points"]) < document["enough_reference_points"]
    rows = [
        [
            _map_cell(retention[i, k], error[i, k], control[i, k], bool(few[i]))
            for i in range(retention.shape[0])
        ]
        for k in range(retention.shape[1])
    ]
    return {"size": whole(document["sizes"][size]), "rows": rows}


def _map_cell(retention: float, error: float, control: float, few: bool) -> dict[str, str]:
    if not control >= 0.05 and not few:
        return {"text": "–", "style": "", "kind": "closed"}
    if few:
        retention += 2 * error  # an upper end
    if few and not retention < 0.5:
        return {"text": "?", "style": "", "kind": "few"}
    colour, ink = _colour(min(retention, 1.0))
    style = f"background:{colour};color:{ink}"
    percent = f"{100 * retention:.0f}"
    if few:
        percent = "≤ 1" if retention < 0.01 else f"≤ {percent}"
    return {"text": percent, "style": style, "kind": "bound" if few else "known"}


def _colour(share: float) -> tuple[str, str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    dark = share < 0.55
    return to_hex(colormaps["viridis"](share)), "#fff" if dark else "#1f2328"


def _collapse_row(document: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    rms, levels = document["rms"], document["sigmas_relative"]

    def level(sigma: float | None) -> str:
        return "?" if sigma is None else f"{sigma / rms:.2g}"

    beyond = row["num_samples"] > document["data"]["pool"]
    outside = "beyond M" if beyond else f"outside {levels[0]:.2g} to {levels[-1]:.2g} rms"
    sigma = outside if row["sigma"] is None else level(row["sigma"])
    interval = "" if row["sigma"] is None else f"{level(row['low'])} to {level(row['high'])}"
    return whole(row["num_samples"]), sigma, interval, level(row["guide"])


def _twins(document: Mapping[str, Any], pictures: Mapping[int, str]) -> list[dict[str, Any]]:
    found = document["duplicates"]
    return [
        {
            "names": [_name(document, i) for i in (a, b)],
            "ratio": f"{ratio:.3f}",
            "images": [pictures[i] for i in (a, b) if i in pictures],
        }
        for a, b, ratio in found["near_pairs"][:SHOWN_PAIRS]
    ]


def _exact(document: Mapping[str, Any], pictures: Mapping[int, str]) -> list[dict[str, Any]]:
    return [
        {
            "names": [_name(document, i) for i in group[:4]],
            "more": len(group) - 4,
            "images": [pictures[i] for i in group[:2] if i in pictures],
        }
        for group in document["duplicates"]["exact_groups"][:SHOWN_PAIRS]
    ]


def _name(document: Mapping[str, Any], index: int) -> str:
    return str(document["duplicates"]["files"].get(str(index), f"image {index}"))


# ---------------------------------------------------------------------------------- figure


def _needed_figure(document: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(10.6, 4.3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, kept in zip(axes, KEPT, strict=True):
        plot_needed(document, kept, ax)
    axes[0].set_ylabel("images N")
    axes[1].legend(frameon=False, fontsize="small", loc="upper right")
    return figure


def plot_needed(document: Mapping[str, Any], kept: float, ax: Axes) -> None:
    r"""N that keeps each direction, with its interval; lower ends and guide where too few."""
    from matplotlib import colormaps

    width = len(document["direction_variances"])
    for k in range(width):
        colour = colormaps["viridis"](0.9 * k / max(width - 1, 1))
        cells = [entry(document, kept, i, k) for i in range(len(document["sigmas"]))]
        _plot_direction(document, cells, colour, ax, f"direction {k + 1}")
    M = document["data"]["pool"]
    ax.axhline(M, color="0.35", lw=0.9)
    ax.annotate(f"M = {M:,}", (0.01, M), xycoords=("axes fraction", "data"), va="bottom", size=9)
    ax.set(xscale="log", yscale="log", xlabel="noise level σ, in rms", ylim=(1.5, M**2))
    ticks = [s for s in TICKS if ax.get_xlim()[0] <= s <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{s:g}" for s in ticks])
    ax.minorticks_off()
    ax.grid(color="0.92", lw=0.8)
    ax.set_axisbelow(True)
    ax.set_title(f"kept to {100 * kept:.0f} %", fontsize=11)


def _plot_direction(
    document: Mapping[str, Any], cells: list[dict[str, Any]], colour: Any, ax: Axes, label: str
) -> None:
    M = document["data"]["pool"]
    found = [c for c in cells if c["status"] == "found"]
    x = [c["sigma_relative"] for c in found]
    low, high = [c["low"] for c in found], [c["high"] or M for c in found]
    ax.plot(x, [c["num_samples"] for c in found], "o-", ms=3.5, lw=1.4, color=colour, label=label)
    ax.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
    ends = [c for c in cells if c["status"] in ("too few images", "more than M")]
    ax.plot([c["sigma_relative"] for c in ends], [c["low"] for c in ends], "^", ms=5,
            mfc="none", color=colour)  # fmt: skip
    guide = [c for c in cells if c["guide"] is not None]
    ax.plot([c["sigma_relative"] for c in guide], [c["guide"] for c in guide], ":", lw=1,
            color=colour)  # fmt: skip


def _data_uri(figure: Figure) -> str:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "geomem"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
