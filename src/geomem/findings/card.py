r"""What an audit says in short: three numbers, and a paragraph for a model card."""

from __future__ import annotations

import math
from dataclasses import dataclass

import xarray as xr

from geomem import __version__
from geomem.findings.verdict import Verdict
from geomem.stats import Estimate


@dataclass(frozen=True)
class Figure:
    r"""One of the numbers that a verdict is read by.

    Attributes:
        value: The number with its error.
        said: What it is.
        more: What else has to be known of it.
    """

    value: str
    said: str
    more: str = ""


def three_numbers(found: Verdict) -> list[Figure]:
    r"""How much, of what share, of how many images; "not measured" where that is so."""
    return [_nats(found), _share(found), _images(found)]


def _nats(found: Verdict) -> Figure:
    more = f"beside the {found.control} control, over {found.window}"
    if math.isfinite(found.control_information):
        more = f"of {found.control_information:.0f} that could have been, {more}"
    return Figure(_known(found.information, " nats"), "memorized information", more)


def _share(found: Verdict) -> Figure:
    more = f"at σ = {found.lost_share_sigma:.2g} rms, where it is clearest"
    if not math.isfinite(found.lost_share.value):
        more = ""
    if math.isfinite(found.worst_share.value):
        more += "; " if more else ""
        more += f"in the worst three directions {percent(found.worst_share)}"
        more += f" at σ = {found.worst_share_sigma:.2g} rms"
    return Figure(percent(found.lost_share), "lost share of the control's dimension", more)


def _images(found: Verdict) -> Figure:
    copies = "no samples were judged" if found.copies is None else f"copies: {found.copies}"
    count = f"{found.memorized_images} of {found.images}" if found.images else "not measured"
    more = f"at most 5 % of them by chance; {copies}"
    return Figure(count, "training images memorized one by one", more)


def _known(found: Estimate, units: str) -> str:
    return f"{found}{units}" if math.isfinite(found.value) else "not measured"


def percent(found: Estimate) -> str:
    r"""A share with its error, in percent."""
    if not math.isfinite(found.value):
        return "not measured"
    return f"{Estimate(100 * found.value, 100 * found.stderr)} %"


def model_card(known: xr.Dataset, found: Verdict, *, study: str) -> str:
    r"""A paragraph for the card of a model: verdict, figures, what was compared, and the limits.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        found: The verdict.
        study: The sha256 of the study, with which anyone can ask for the same measurement.
    """
    training, held_out = found.units
    parts = [f"Memorization audit with geomem {__version__}: {found}."]
    if math.isfinite(found.information.value):
        parts.append(
            f"Beside the {found.control} control the model has {found.information} nats of "
            f"memorized information, of {found.control_information:.0f} that could have been "
            f"(noise levels {found.window}; ± one standard error over image groups)."
        )
    if math.isfinite(found.lost_share.value):
        parts.append(
            f"At σ = {found.lost_share_sigma:.2g} rms {percent(found.lost_share)} of the control's "
            "dimension is gone at training images"
            + (
                f"; in the worst three directions {percent(found.worst_share)} at σ = "
                f"{found.worst_share_sigma:.2g} rms."
                if math.isfinite(found.worst_share.value)
                else "."
            )
        )
    if found.images:
        parts.append(
            f"{found.memorized_images} of {found.images} measured training images are memorized "
            "one by one (at most 5 % of them by chance)."
        )
    if found.copies is not None:
        parts.append(f"Copies among generated samples: {found.copies}.")
    if found.word == "inconclusive" and found.reasons:
        parts.append(f"Why it is inconclusive: {found.reasons[0]}")
    p = "" if math.isnan(found.p_value) else f", p = {found.p_value:.2g}"
    parts.append(
        f"Measured at {training} training and {held_out} held-out image groups of "
        f"{known.attrs['data']} (sha256 {known.attrs['data_digest'][:16]}…){p}; study sha256 "
        f"{study[:16]}…."
    )
    parts.append("Limits: " + " ".join(found.limits))
    return " ".join(parts)
