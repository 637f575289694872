r"""Titles that say the message: what each figure of a page shows, in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomem.findings.looks import first_warning
from geomem.findings.sentences import copy_rate, drawn_alike, estimate, networks, state
from geomem.show.figures.data import (
    ENOUGH,
    PLACES,
    control_row,
    has,
    peak_level,
    shown_rows,
    strongest_row,
    words,
)
from geomem.stats import Estimate, Proportion

CLEAR = 2.0  # joint standard errors from which two numbers are said to differ
SIDES = ("training", "held_out")


@dataclass(frozen=True)
class Headlines:
    r"""One sentence for the page, and one for each of its figures."""

    page: str
    levels: str
    dimension: str
    local: str
    samples: str
    looks: str


def headlines(known: xr.Dataset) -> Headlines:
    r"""The titles of a page. They claim no difference that is within its error."""
    dimension, local = _dimension(known), _local(known)
    page = _warned(known) or _page(known) or (dimension if "dimension" in known else local)
    made = (page, _levels(known), dimension, local, _samples(known), _looks(known))
    return Headlines(*map(unbroken, made))


def unbroken(text: str) -> str:
    r"""Keeps numbers together with their errors and names where lines break."""
    for sign in ("±", "="):
        text = text.replace(f" {sign} ", f"\u00a0{sign}\u00a0")
    return text.replace(" %", "\u00a0%").replace("e-fold", "e\u2011fold")


def of(row: xr.Dataset) -> str:
    r"""A row in a sentence: ``at N = 16``, or ``of model``."""
    label = str(row["label"].item())
    return f"at {label}" if "=" in label else f"of {label}"


def _rows(known: xr.Dataset) -> list[xr.Dataset]:
    return [known.isel(subject=k) for k in shown_rows(known)]


def _page(known: xr.Dataset) -> str:
    # What is known beyond chance; where nothing is, that, and never a number as if it were.
    what = words(known, "density").total
    if not networks(known) or not has(known, "information"):
        return ""
    rows: dict[str, list[xr.Dataset]] = {}
    for row in _rows(known):
        found, nats = state(row), estimate(row, "information")
        if math.isfinite(nats.value):
            weak = found == "told apart" and not nats.value > CLEAR * nats.stderr
            rows.setdefault("weak" if weak else found, []).append(row)
    clear, text = rows.pop("told apart", []), ""
    if clear:
        first, last = (estimate(row, "information") for row in (clear[0], clear[-1]))
        text = f"{what.capitalize()} {of(clear[0])}: {first} nats"
        if len(clear) > 1 and _differ(first, last):
            verb = "falls" if last.value < first.value else "rises"
            text = f"{what.capitalize()} {verb} from {first} nats {of(clear[0])} to {last} "
            text += of(clear[-1])
        elif len(clear) > 1:
            text += f", {last} {of(clear[-1])}"
    said = {
        "weak": f"{{}}: training and held-out images differ, {what} is not above its error",
        "not significant": f"no {what} beyond chance {{}}",
        "underfit": "nothing can be said {}: undertrained, worse than the linear control",
        "no test": "nothing can be said {}: fewer than 8 image groups a side",
    }
    for found in said:
        if found in rows and not (clear and found == "no test"):
            names = ", ".join(of(row) for row in rows[found])
            text += ("; " if text else "") + said[found].format(names)
    return text[:1].upper() + text[1:]


def _warned(known: xr.Dataset) -> str:
    # Where a training was looked at while it went on.
    if "look_number" not in known or not drawn_alike(known):
        return ""
    first = first_warning(known)
    if first is None:
        return "No look at the training shows memorization beyond chance"
    return f"Memorization is beyond chance from step {int(first.step)} on: {_gain(first)} there"


def _looks(known: xr.Dataset) -> str:
    if "look_number" not in known:
        return ""
    last = known.isel(subject=int(np.nanargmax(known.look_number.values)))
    return f"At the last look, step {int(last.step)}, training images gained {_gain(last)}"


def _gain(row: xr.Dataset) -> str:
    one = row.sel(beside="linear")
    return f"{estimate(one, 'look_gain')} nats"


def _levels(known: xr.Dataset) -> str:
    if not has(known, "by_level"):
        return "What held-out images keep and training images lose"
    row, said = strongest_row(known), words(known, "density")
    level = int(np.nanargmax(row.by_level.values))
    most = estimate(row.isel(sigma=level), "by_level")
    if not most.value > CLEAR * most.stderr:
        return f"At no noise level is the {said.name} {of(row)} above 0 beyond its error"
    kind = said.total.removesuffix(" information")
    place = "at the lowest level, " if level == 0 else "at "
    sigma = float(known.sigma_relative[level])
    text = f"Most is {kind} {place}σ = {sigma:.2g} rms: {most} {said.units} {of(row)}"
    last = _rows(known)[-1].isel(sigma=level)
    beside = estimate(last, "by_level")
    if int(last.subject) == int(row.subject) or math.isnan(beside.value):
        return text
    return f"{text}, {beside} {of(last)}"


def _differ(a: Estimate, b: Estimate) -> bool:
    known = not (math.isnan(a.stderr) or math.isnan(b.stderr))
    return known and abs(a.z_score(b)) > CLEAR


def _dimension(known: xr.Dataset) -> str:
    if not set(SIDES) <= set(known["at"].values.tolist()) or "dimension" not in known:
        return "Dimension kept against the noise level"
    row = strongest_row(known)
    row = row.isel(sigma=peak_level(row))
    training, held_out = (estimate(row, "dimension", at=at) for at in SIDES)
    if math.isnan(training.value) or math.isnan(held_out.value):
        return "Dimension kept against the noise level"
    kind = str(row["kind"].item())
    who = {"empirical": "exact denoiser"}.get(kind, "network" if networks(known) else "denoiser")
    who = f"At σ = {float(row.sigma_relative):.2g} rms the {who} {of(row)}"
    if not _differ(training, held_out):
        return (
            f"{who} keeps as many directions at training images ({training}) "
            f"as at held-out ones ({held_out}), within error"
        )
    verb = "fewer" if training.value < held_out.value else "more"
    return (
        f"{who} keeps {verb} directions at its training images ({training}) "
        f"than at held-out ones ({held_out})"
    )


def _local(known: xr.Dataset) -> str:
    # Of the first method, where the most of a row's points have an answer.
    if "local_dimension" not in known:
        return ""
    method = str(known.dimension_method.values[0])
    one = known.sel(dimension_method=method).isel(subject=shown_rows(known))
    by = f" by {method}" if known.sizes["dimension_method"] > 1 else ""
    shares = one.local_dimension_answered.sum("at").transpose("subject", "sigma").values
    if not shares.any():
        return f"No local dimension{by} at any image and noise level: there is no gap"
    k, level = np.unravel_index(int(shares.argmax()), shares.shape)
    row = one.isel(subject=int(k), sigma=int(level))
    texts = []
    for at in row["at"].values.tolist()[:2]:
        share, place = float(row.local_dimension_answered.sel(at=at)), PLACES.get(at, at)
        if math.isnan(share):
            continue
        if share >= ENOUGH:
            found = estimate(row, "local_dimension", at=at)
            texts.append(f"{found} at {100 * share:.0f} % of {place}")
        else:
            texts.append(f"no answer at {'most' if share > 0 else 'any'} of the {place}")
    sigma = float(row.sigma_relative)
    return f"Local dimension{by} at σ = {sigma:.2g} rms {of(row)}: {'; '.join(texts)}"


def _samples(known: xr.Dataset) -> str:
    if "copies" not in known:
        return "No samples were drawn"
    rates: list[tuple[xr.Dataset, Any]] = [(row, copy_rate(row)) for row in _rows(known)]
    counts = [
        f"{rate.successes} of {rate.trials} {of(row)}"
        for row, rate in rates
        if isinstance(rate, Proportion)
    ]
    if not counts:
        return "Generated samples beside their nearest training images (copies not calibrated)"
    return f"Samples that are copies: {', '.join(counts)}"


def control_name(known: xr.Dataset) -> str | None:
    r"""What the dashed curve is, if there is one."""
    return None if control_row(known) is None else f"{known.attrs['control']} control"
