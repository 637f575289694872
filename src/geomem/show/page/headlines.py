r"""Titles that say the message: what each figure of a page shows, in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geomem.findings.sentences import ALPHA, copy_rate
from geomem.show.figures.views import ENOUGH, number, peak_level, words
from geomem.stats import Estimate, Proportion

CLEAR = 2.0  # joint standard errors from which two numbers are said to differ


@dataclass(frozen=True)
class Headlines:
    r"""One sentence for each figure."""

    signature: str
    levels: str
    dimension: str
    local: str
    samples: str


def headlines(known: xr.Dataset) -> Headlines:
    r"""The titles of a page. They claim no difference that is within its error."""
    made = (_signature(known), _levels(known), _dimension(known), _local(known), _samples(known))
    return Headlines(*map(unbroken, made))


def _signature(known: xr.Dataset) -> str:
    what = words(known, "density").total.capitalize()
    sizes = [int(n) for n in known.num_samples.values]
    first, last = (number(known, "information", num_samples=n) for n in (sizes[0], sizes[-1]))
    p = float(known.p_value.sel(num_samples=sizes[0]))
    if len(sizes) == 1:
        doubt = "" if p <= ALPHA else " (no significant difference to held-out images)"
        return f"{what} at N = {sizes[0]}: {first} nats{doubt}"
    if bool((known.p_value > ALPHA).all()):
        counts = ", ".join(
            f"{number(known, 'information', num_samples=n)} nats at N = {n}" for n in sizes
        )
        return f"No significant {what.lower()}: {counts}"
    if not _differ(first, last):
        return f"{what}: {first} nats at N = {sizes[0]}, {last} at N = {sizes[-1]}"
    verb = "falls" if last.value < first.value else "rises"
    return f"{what} {verb} from {first} nats at N = {sizes[0]} to {last} at N = {sizes[-1]}"


def _levels(known: xr.Dataset) -> str:
    sizes = [int(n) for n in known.num_samples.values]
    level = int(np.nanargmax(known.by_level.sel(num_samples=sizes[0]).values))
    where = {"sigma": known.sigma.values[level]}
    said = words(known, "density")
    if not _positive(number(known, "by_level", num_samples=sizes[0], **where)):
        return f"At no noise level is the {said.name} at N = {sizes[0]} above 0 beyond its error"
    first, *others = (
        f"{number(known, 'by_level', num_samples=n, **where)} {said.units} at N = {n}"
        for n in dict.fromkeys((sizes[0], sizes[-1]))
    )
    sigma = float(known.sigma_relative[level])
    kind = said.total.removesuffix(" information")
    beside = f", {others[0].replace(f' {said.units}', '')}" if others else ""
    where_it_is = "at the lowest level, " if level == 0 else "at "
    return f"Most is {kind} {where_it_is}σ = {sigma:.2g} rms: {first}{beside}"


def unbroken(text: str) -> str:
    r"""Keeps numbers together with their errors and names where lines break."""
    for sign in ("±", "="):
        text = text.replace(f" {sign} ", f"\u00a0{sign}\u00a0")
    return text


def _positive(a: Estimate) -> bool:
    return a.value > CLEAR * a.stderr


def _differ(a: Estimate, b: Estimate) -> bool:
    if math.isnan(a.stderr) or math.isnan(b.stderr):
        return False
    return abs(a.z_score(b)) > CLEAR


def _dimension(known: xr.Dataset) -> str:
    n = int(known.num_samples.values[0])
    level = peak_level(known, n)
    here = {"denoiser": "learned", "num_samples": n, "sigma": known.sigma.values[level]}
    training, held_out = (number(known, "dimension", at=a, **here) for a in _PLACES)
    sigma = float(known.sigma_relative[level])
    at = f"of N = {n} at σ = {sigma:.2g} rms"
    if math.isnan(training.value) or math.isnan(held_out.value):
        return "Dimension kept against the noise level"
    if not _differ(training, held_out):
        return (
            f"The network {at} keeps as many directions at training images ({training}) "
            f"as at held-out ones ({held_out}), within error"
        )
    verb = "fewer" if training.value < held_out.value else "more"
    return (
        f"The network {at} keeps {verb} directions at its training images ({training}) "
        f"than at held-out ones ({held_out})"
    )


def _local(known: xr.Dataset) -> str:
    # Of the first method, where the most of a network's images have an answer.
    if "local_dimension" not in known:
        return ""
    method = known.dimension_method.values[0]
    one = known.sel(dimension_method=method, denoiser="learned")
    by = f" by {method}" if known.sizes["dimension_method"] > 1 else ""
    shares = one.local_dimension_answered.sum("at").transpose("num_samples", "sigma").values
    if not shares.any():
        return f"No local dimension{by} at any image and noise level: there is no gap"
    k, level = np.unravel_index(int(shares.argmax()), shares.shape)
    n, sigma = int(one.num_samples.values[k]), one.sigma.values[level]
    here: dict[str, Any] = {"denoiser": "learned", "num_samples": n, "sigma": sigma}
    here["dimension_method"] = method
    texts = []
    for at in _PLACES:
        share = float(known.local_dimension_answered.sel(at=at, **here))
        found = number(known, "local_dimension", at=at, **here)
        place = f"{at.replace('_', '-')} images"
        if not share >= ENOUGH:
            texts.append(f"no answer at {'most' if share > 0 else 'any'} of the {place}")
        else:
            texts.append(f"{found} at {100 * share:.0f} % of {place}")
    relative = float(known.sigma_relative.sel(sigma=sigma))
    return f"Local dimension{by} of N = {n} at σ = {relative:.2g} rms: {'; '.join(texts)}"


_PLACES = ("training", "held_out")


def _samples(known: xr.Dataset) -> str:
    if "copies" not in known:
        return "No samples were drawn"
    if np.isnan(known.copies.values).all():
        return "Generated samples beside their nearest training images (copies not calibrated)"
    rates = {int(n): copy_rate(known, int(n)) for n in known.num_samples.values}
    counts = [
        f"{rate.successes} of {rate.trials} at N = {n}"
        for n, rate in rates.items()
        if isinstance(rate, Proportion)
    ]
    return f"Samples that are copies: {', '.join(counts)}"
