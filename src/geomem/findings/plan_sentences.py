r"""A plan in words: pure functions of the document that ``plan.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geomem.theory.planning import KEPT

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

PREDICTS = (
    "What is predicted is the exact denoiser of N images: a model that has memorized its training "
    "set exactly, the worst case. A trained network usually keeps more, or loses directions in its "
    "own way; a sweep (geomem sweep) measures what it does relative to this plan."
)


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
        f"Sizes are relative to the population, as M = {M} different images extrapolate it. ≥: "
        "they are too few a reference, and it is a lower end. >M: all of them fall short. –: not "
        "open at that noise level. The page has intervals and the guide from above."
    )


def headline(document: Mapping[str, Any]) -> str:
    r"""What the plan says, in one sentence: the sizes below which memorization is to be expected.

    In the worst case, and where there is about as much noise as signal: with less noise every
    finite set memorizes, with more noise a few images are enough.
    """
    M, name = whole(document["data"]["pool"]), document["data"]["name"]
    level, found = hardest(document)
    where = f"at σ = {document['sigmas_relative'][level]:.2g} rms, in the worst case"
    if found is None:
        return f"{name}: no direction is open {where}, so there is nothing to lose there"
    if found["status"] == "found":
        return f"{name}: expect memorization below N about {count(found['num_samples'])} ({where})"
    if found["status"] == "too few images" and found["low"] < document["data"]["pool"]:
        return (
            f"{name}: expect memorization below N about {count(found['low'])}, and maybe still "
            f"with all {M} images ({where})"
        )
    return f"{name}: expect memorization with all {M} images ({where})"


def hardest(document: Mapping[str, Any]) -> tuple[int, dict[str, Any] | None]:
    r"""The level nearest to 1 rms, and of its open directions the one that needs most images."""
    level = int(np.argmin(np.abs(np.log(document["sigmas_relative"]))))
    cells = [entry(document, 0.5, level, k) for k in range(len(document["direction_variances"]))]
    order = ("found", "too few images", "more than M")
    cells = [found for found in cells if found["status"] in order]

    def needs(found: Mapping[str, Any]) -> tuple[float, ...]:
        guide = np.inf if found["guide_above_1e12"] else found["guide"] or 0.0
        return order.index(found["status"]), found["num_samples"] or found["low"] or 0.0, guide

    return level, max(cells, key=needs, default=None)


def _lowest_known(document: Mapping[str, Any]) -> int | None:
    enough = document["enough_reference_points"]
    known = [i for i, n in enumerate(document["reference_points"]) if n >= enough]
    return min(known) if known else None


def findings(document: Mapping[str, Any]) -> list[str]:
    r"""What was found, as sentences."""
    return [
        *_expected(document),
        *_reach(document),
        *_first_and_last(document),
        *_collapse_of_all(document),
        *_beyond(document),
        _duplicates(document),
        PREDICTS,
    ]


def _expected(document: Mapping[str, Any]) -> list[str]:
    level, found = hardest(document)
    if found is None:
        return []
    at = f"At σ = {document['sigmas_relative'][level]:.2g} rms"
    near = abs(np.log(document["sigmas_relative"][level])) < 0.5
    at += ", about as much noise as signal," if near else ", the level nearest to 1 rms,"
    main, below = two_lines(document, found)
    half = f"half of principal direction {found['direction']}, which needs the most"
    if found["status"] == "found":
        return [
            f"{at} a model that memorizes exactly has lost {half}, below N = {main} ({below}): "
            "train on more, or expect memorization. Less noise takes more images."
        ]
    guide = below.replace("guide >", "N >").replace("guide", "N =")
    above = f"Gaussian data of their covariance, a guide from above, would take {guide}"
    if found["guide"] is None and not found["guide_above_1e12"]:
        above = "there is no guide from above"
    return [
        f"{at} a model that memorizes exactly keeps {half}, from N {main} on, and M = "
        f"{whole(document['data']['pool'])} images do not say more; {above}."
    ]


def _beyond(document: Mapping[str, Any]) -> list[str]:
    sizes = [whole(n) for n in document["sizes_beyond"]]
    if not sizes:
        return []
    M = whole(document["data"]["pool"])
    several = "these sizes have" if len(sizes) > 1 else "this size has"
    return [
        f"N = {', '.join(sizes)}: beyond the M = {M} different images that sets are drawn from; "
        f"{several} the Gaussian guide alone, which needs the most images and so keeps the least."
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
            sigma, interval, guide = collapse_row(document, row)[1:]
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


def collapse_row(document: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    r"""A size, its level of 2 effective points, the interval of that, and the guide, in rms."""
    rms, levels = document["rms"], document["sigmas_relative"]

    def level(sigma: float | None) -> str:
        return "?" if sigma is None else f"{sigma / rms:.2g}"

    beyond = row["num_samples"] > document["data"]["pool"]
    outside = "beyond M" if beyond else f"outside {levels[0]:.2g} to {levels[-1]:.2g} rms"
    sigma = outside if row["sigma"] is None else level(row["sigma"])
    interval = "" if row["sigma"] is None else f"{level(row['low'])} to {level(row['high'])}"
    return whole(row["num_samples"]), sigma, interval, level(row["guide"])
