r"""A pilot in words: pure functions of what ``plan.json`` holds under ``pilot``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geomem.findings.plan_sentences import count, whole


def percent(share: float) -> str:
    r"""A share for people, whole above 1 %.

    Example:
        >>> [percent(share) for share in (0.123, 0.004, -0.02)]
        ['12 %', '0.4 %', '0 %']
    """
    number = 100 * max(0.0, share)
    return f"{number:.1f} %" if 0.05 <= number < 0.95 else f"{number:.0f} %"


def span(found: Mapping[str, float | None], unit: str) -> str:
    r"""A number with its 90 % interval; an end that is out of reach is open.

    Example:
        >>> span({"value": 812.0, "low": 507.0, "high": None}, " steps")
        '812 steps (90 %: 507 to any number)'
    """
    low = "1" if found["low"] is None else count(found["low"])
    high = "any number" if found["high"] is None else count(found["high"])
    value = "an unknown number of" if found["value"] is None else count(found["value"])
    return f"{value}{unit} (90 %: {low} to {high})"


def share_text(found: Mapping[str, float]) -> str:
    r"""A share with its 90 % interval.

    Example:
        >>> share_text({"value": 0.25, "low": 0.18, "high": 0.33})
        '25 % (90 %: 18 to 33 %)'
    """
    low = percent(found["low"]).removesuffix(" %")
    return f"{percent(found['value'])} (90 %: {low} to {percent(found['high'])})"


def pilot_headline(document: Mapping[str, Any]) -> str:
    r"""What a pilot says, in one sentence: what comes, when to stop, how many are enough."""
    pilot = document["pilot"]
    answer, name, most = pilot["answer"], document["data"]["name"], percent(pilot["most"])
    n, steps = whole(answer["num_samples"]), whole(answer["steps"])
    width = "" if answer["width"] is None else f" of width {answer['width']:.0f}"
    nats = answer["nats"]
    rough = "the pilot is undertrained, so this is a first guess: " * pilot["undertrained"]
    comes = (
        f"{name}: {rough}{steps} steps on N = {n} images memorize {share_text(answer['share'])} of "
        f"what a network{width} can, {max(0.0, nats['value']):.3g} nats an image"
    )
    if answer["share"]["high"] <= pilot["most"]:
        until = ""
        if answer["stop"]["value"] is not None:
            until = f", and it may go on until {span(answer['stop'], ' steps')}"
        enough = f"N = {span(answer['enough'], ' images')}"
        if answer["enough"]["value"] is None:
            enough = "even a few images"
        return f"{comes}; {enough} would be enough for at most {most}{until}"
    stop, enough = (
        span(answer[k], f" {k2}") for k, k2 in (("stop", "steps"), ("enough", "images"))
    )
    return f"{comes}; for at most {most} stop at {stop}, or train on {enough}"


def pilot_findings(pilot: Mapping[str, Any]) -> list[str]:
    r"""What was found, as sentences."""
    recipe, law, cells = pilot["recipe"], pilot["law"], pilot["trainings"]
    sizes = sorted({int(n) for n in cells["num_samples"]})
    nats = pilot["answer"]["nats"]
    said = []
    if pilot["undertrained"]:
        said.append(
            "The pilot is undertrained: its best reference denoises new images worse than the "
            "linear control does. What longer trainings learn was hardly seen; pass more "
            "--pilot-steps."
        )
    said.append(
        f"The pilot trained on N = {', '.join(map(whole, sizes))} for {whole(recipe['steps'])} of "
        f"{whole(recipe['planned_steps'])} steps and fitted one law: the odds of what is memorized "
        f"are (k/N)^{law['p'][0]:.2f} ± {law['p'][1]:.2f}, where k, the N of which half is "
        f"memorized, will be {count(pilot['answer']['half'])}. It leaves {100 * law['left']:.1f} "
        "points of the pilot's own shares unexplained."
    )
    said.append(
        f"In nats an image: {max(0.0, nats['value']):.3g} (90 %: {max(0.0, nats['low']):.3g} to "
        f"{nats['high']:.3g}), over the window. Shares are beside a network of the same kind and "
        "length of training that never saw the images."
    )
    return said


def tables(pilot: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    r"""Predictions by size and steps, a table a width: title, head and rows of cells."""
    found = []
    for width in dict.fromkeys(row["width"] for row in pilot["predictions"]):
        mine = [row for row in pilot["predictions"] if row["width"] == width]
        steps = list(dict.fromkeys(row["steps"] for row in mine))
        rows = [
            [whole(n), *(_cell(row) for row in mine if row["num_samples"] == n)]
            for n in dict.fromkeys(row["num_samples"] for row in mine)
        ]
        of = "" if width is None else f", width {width:.0f}"
        title = f"Memorized share by N and steps of a whole training{of}, 90 % interval"
        found.append((title, ["N", *(f"{whole(k)} steps" for k in steps)], rows))
    return found


def _cell(row: Mapping[str, Any]) -> str:
    share = row["share"]
    low = percent(share["low"]).removesuffix(" %")
    return f"{percent(share['value'])} ({low} to {percent(share['high']).removesuffix(' %')})"
