r"""The verdict: generalization, geometric or full memorization, or inconclusive, and why.

A pure function of the numbers of a run, so that whoever has the records has the verdict. The
first of these rules that matches decides (docs/audit.md):

1. *Inconclusive* where nothing can be said: no held-out images, fewer than 8 image groups a
   side, training images among the held-out ones, sets that were not drawn alike, a failed
   identity check, a model worse than linear on new images without any sign of memory.
2. *Full memorization*: training and held-out images are told apart (p <= .05), and at a level
   that is significant by itself the lower bound of the lost share is at least .9; or the lower
   bound of the copy rate is at least one half.
3. *Geometric memorization*: told apart, and at such a level the lower bound of the lost share,
   or of that of the worst subspace of three directions, is at least .25; or single images are
   memorized beyond chance: then "of some images", which are counted.
4. *Generalization*: the upper bounds of both shares stay below .25 at all levels, and no more
   samples are copies than unseen images are called so.
5. *Inconclusive* otherwise, with the number of image groups that would decide.

A verdict is never a proof that an image was trained on, nor is any model clean because its
samples are no copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import xarray as xr
from scipy.stats import norm

from geomem.arguments import Number, Whole, checked
from geomem.errors import InputError
from geomem.findings.measured import MIN_UNITS, SIDES
from geomem.findings.numbers import numbers
from geomem.findings.sentences import (
    ALLOWED_Z,
    copy_rate,
    drawn_alike,
    estimate,
    largest_identity_z,
    networks,
    window,
)
from geomem.stats import Estimate, Proportion

Word = Literal["generalization", "geometric memorization", "full memorization", "inconclusive"]
ALPHA = 0.05  # of the one p-value
SHARE = 0.25  # of the control's dimension gone: from here on memorization, recalibrated
FULL = 0.9  # from here on full
HALF_COPIES = 0.5
WORSE = 1.1  # error on new images over the linear control's, from which a model is underfit
LOWER, UPPER = float(norm.ppf(0.975)), float(norm.ppf(0.95))
MANY = 100_000  # image groups: more than that is no advice
CAVEAT = (
    "A verdict is about a model and two sets of images: it is no proof that any single image was "
    "trained on, and samples that are no copies do not clear a model."
)


UNKNOWN = Estimate(math.nan, math.nan)


@dataclass(frozen=True)
class Verdict:
    r"""What a run says of one model, with what it rests on.

    Attributes:
        word: The verdict.
        reasons: Why, in sentences; the first one decided.
        limits: What it cannot say, and what was declared rather than measured.
        subject: The row of the numbers that it is about.
        label: What to call that model.
        of_some_images: Whether only single images are memorized beyond chance.
        p_value: Training against held-out images, NaN if there was no test.
        information: Memorized information in nats, beside the control.
        control_information: All that could have been memorized, in nats.
        window: The noise levels in which nats are counted, in words.
        lost_share: The share of the control's dimension that is gone, where its lower bound is
            largest among significant levels (among all, if none is).
        lost_share_sigma: That level, in rms deviations of the data.
        worst_share: The same of the worst subspace of three directions, where *its* bound is.
        worst_share_sigma: That level.
        memorized_images: How many training images are memorized one by one, of ``images``.
        images: How many training images were measured.
        units: Image groups, training and held-out.
        copies: Samples that are copies, as a proportion; None if not known.
        control: The control that decided.
        units_needed: Image groups a side that would decide, where the verdict is inconclusive
            and more would help.
    """

    word: Word
    reasons: tuple[str, ...]
    limits: tuple[str, ...]
    subject: int | None = None
    label: str = ""
    of_some_images: bool = False
    p_value: float = math.nan
    information: Estimate = UNKNOWN
    control_information: float = math.nan
    window: str = ""
    lost_share: Estimate = UNKNOWN
    lost_share_sigma: float = math.nan
    worst_share: Estimate = UNKNOWN
    worst_share_sigma: float = math.nan
    memorized_images: int = 0
    images: int = 0
    units: tuple[int, int] = (0, 0)
    copies: Proportion | None = None
    control: str = ""
    units_needed: int | None = None

    @property
    def severity(self) -> int:
        r"""0 where nothing was found or decided, 1 geometric, 2 full memorization."""
        return {"geometric memorization": 1, "full memorization": 2}.get(self.word, 0)

    def __str__(self) -> str:
        some = f" of some images ({self.memorized_images} of {self.images})"
        return self.word + (some if self.of_some_images else "")

    def to_json(self) -> dict[str, Any]:
        r"""The verdict as plain JSON values; what is not known is null."""
        return {key: _plain(value) for key, value in asdict(self).items()} | {
            "text": str(self),
            "copies": None
            if self.copies is None
            else {"successes": self.copies.successes, "trials": self.copies.trials},
        }


@checked
def verdict(
    known: xr.Dataset,
    *,
    subject: Annotated[int, Whole(least=0)] | None = None,
    alpha: Annotated[float, Number(above=0, below=1)] = ALPHA,
    share: Annotated[float, Number(above=0, below=1)] = SHARE,
) -> Verdict:
    r"""The verdict on one model of a run.

    Arguments:
        known: What :func:`geomem.numbers` returns, or :func:`geomem.load`.
        subject: The row of the numbers that is meant; if not given the model of an audit, or
            the only network of a run.
        alpha: The level of the one p-value.
        share: The lost share from which on it is memorization.

    Returns:
        The verdict, with its reasons and figures.

    Raises:
        InputError: If there is no such row, or several networks and none was picked.

    Example:
        >>> known = geomem.numbers(geomem.load("runs/audit"))  # doctest: +SKIP
        >>> geomem.verdict(known).word  # doctest: +SKIP
        'geometric memorization'
    """
    known = numbers(known) if "measured" in known.coords else known
    row = _row(known, subject)
    figures = _Figures(row, alpha)
    limits = tuple(_limits(known, row, figures))
    about = figures.fields() | {"control": str(known.attrs.get("control", "")), "limits": limits}
    nothing = _nothing_can_be_said(known, row, figures, alpha)
    if nothing:
        return Verdict(word="inconclusive", reasons=tuple(nothing), **about)
    for found in (_full(figures, alpha), _geometric(figures, alpha, share)):
        if found:
            word, reasons, some = found
            return Verdict(word=word, reasons=tuple(reasons), of_some_images=some, **about)
    clean, doubts = _generalization(figures, share)
    if not doubts:
        if figures.p_value <= alpha:
            clean.append(f"All the same, {_told_apart(figures)}: it knows its images a little.")
        return Verdict(word="generalization", reasons=tuple(clean), **about)
    needed = figures.units_needed(share)
    if needed is not None:
        doubts.append(
            f"About {needed:,} image groups a side would decide, where {min(figures.units):,} "
            "were measured."
        )
    return Verdict(word="inconclusive", reasons=tuple(doubts), units_needed=needed, **about)


def said(found: Verdict) -> list[str]:
    r"""A verdict as sentences: the word, then why."""
    return [f"Verdict: {found}.", *found.reasons]


def _row(known: xr.Dataset, subject: int | None) -> xr.Dataset:
    if subject is not None:
        if subject >= known.sizes["subject"]:
            raise InputError(
                f"`subject` is {subject}, and there are {known.sizes['subject']} rows; count from 0"
            )
        return known.isel(subject=subject)
    rows = networks(known)
    models = [row for row in rows if row["kind"].item() == "model"] or rows
    if len(models) != 1:
        found = ", ".join(f"{int(r.subject)} ({r.label.values})" for r in models) or "none"
        raise InputError(f"a verdict is about one network; pass `subject`, one of: {found}")
    return models[0]


# ------------------------------------------------------------------------------- the figures


class _Figures:
    # What the rule looks at, read from one row of numbers.

    def __init__(self, row: xr.Dataset, alpha: float) -> None:
        self.row = row
        self.p_value = float(row.get("p_value", xr.DataArray(math.nan)))
        self.units = (0, 0)
        if "image_groups" in row and set(SIDES) <= set(row["at"].values.tolist()):
            training, held_out = (int(row.image_groups.sel(at=at)) for at in SIDES)
            self.units = (training, held_out)
        blank = np.full(row.sizes.get("sigma", 0), np.nan)
        self.shares, self.worst = (
            [row[n].values if n in row else blank for n in (name, f"{name}_stderr")]
            for name in ("lost_share", "worst_share")
        )
        level = row["p_level"].values if "p_level" in row else blank
        self.significant = level <= alpha
        self.single = float(row.get("memorized_images", xr.DataArray(math.nan)))
        rate = copy_rate(row) if "copies" in row else ""
        self.copies = rate if isinstance(rate, Proportion) else None
        unseen = copy_rate(row, "unseen_copies") if "unseen_copies" in row else ""
        self.unseen = unseen if isinstance(unseen, Proportion) else None

    def strongest(self, pair: Sequence[Any]) -> int | None:
        # The level of the largest lower bound, among significant ones where there are any.
        low = np.asarray(pair[0]) - LOWER * np.asarray(pair[1])
        among = np.where(self.significant, low, np.nan)
        for values in (among, low):
            if np.isfinite(values).any():
                return int(np.nanargmax(values))
        return None

    def lower(self, pair: Sequence[Any]) -> tuple[float, int | None]:
        r"""The largest lower bound at a significant level, and where."""
        k = self.strongest(pair)
        if k is None or not self.significant[k]:
            return -math.inf, None
        return float(pair[0][k] - LOWER * pair[1][k]), k

    def upper(self, pair: Sequence[Any]) -> tuple[float, int | None]:
        r"""The largest upper bound at any level, and where."""
        high = np.asarray(pair[0]) + UPPER * np.asarray(pair[1])
        if not np.isfinite(high).any():
            return math.inf, None
        return float(np.nanmax(high)), int(np.nanargmax(high))

    def sigma(self, level: int | None) -> float:
        return math.nan if level is None else float(self.row.sigma_relative[level])

    def at(self, pair: Sequence[Any], level: int | None) -> Estimate:
        if level is None:
            return UNKNOWN
        return Estimate(float(pair[0][level]), float(pair[1][level]))

    def units_needed(self, share: float) -> int | None:
        r"""Groups a side after which every bound lies on one side, if values stay as they are."""
        factor = 0.0
        for pair in (self.shares, self.worst):
            for value, error in zip(*pair, strict=True):
                if math.isfinite(value) and value + UPPER * error >= share:
                    times = UPPER if value < share else LOWER
                    factor = max(factor, (times * error / max(abs(value - share), 1e-9)) ** 2)
        needed = math.ceil(min(self.units) * factor)
        if not np.isfinite(self.worst[0]).any():
            needed = max(needed, 2 * MIN_UNITS)  # a search on one half, a measure on the other
        return needed if min(self.units) < needed <= MANY else None

    def fields(self) -> dict[str, Any]:
        row, k, w = self.row, self.strongest(self.shares), self.strongest(self.worst)
        points = row.get("point_information", xr.DataArray(math.nan))
        return {
            "subject": int(row.subject),
            "label": str(row.label.values),
            "p_value": self.p_value,
            "information": estimate(row, "information") if "information" in row else UNKNOWN,
            "control_information": float(row.get("control_information", xr.DataArray(math.nan))),
            "window": window(row) if "window" in row.attrs else "",
            "lost_share": self.at(self.shares, k),
            "lost_share_sigma": self.sigma(k),
            "worst_share": self.at(self.worst, w),
            "worst_share_sigma": self.sigma(w),
            "memorized_images": 0 if math.isnan(self.single) else int(self.single),
            "images": int(np.isfinite(points.values).sum()),
            "units": self.units,
            "copies": self.copies,
        }


# --------------------------------------------------------------------------------- the rules


def _nothing_can_be_said(
    known: xr.Dataset, row: xr.Dataset, figures: _Figures, alpha: float
) -> list[str]:
    kinds = [str(at) for at in known["at"].values] if "at" in known.dims else []
    found = []
    if "held_out" not in kinds or "training" not in kinds:
        missing = "held-out" if "held_out" not in kinds else "training"
        return [
            f"Inconclusive: no control. No {missing} images were measured, and what a model does "
            "at new images of the same kind is what memory is told from; add at least "
            f"{2 * MIN_UNITS}, better 128, held-out images."
        ]
    overlap = known.attrs.get("overlap") or []
    if overlap:
        names = ", ".join(map(str, overlap[:3])) + (", ..." if len(overlap) > 3 else "")
        found.append(
            f"{len(overlap)} held-out image(s) are among the training images ({names}): they are "
            "no control; take them out of the held-out images and audit again."
        )
    if min(figures.units) < MIN_UNITS:
        found.append(
            f"{figures.units[0]} training and {figures.units[1]} held-out image groups were "
            f"measured, and a test needs at least {MIN_UNITS} a side; pass more images, 64 a side "
            "say."
        )
    if not drawn_alike(known):
        p = float(known.alike_p_value)
        found.append(
            f"Training and held-out images are not drawn alike (p = {p:.1g}, without any network): "
            "a difference between them is no evidence of memory; hold out images of the same kind."
        )
    z = largest_identity_z(row)
    if z > ALLOWED_Z:
        found.append(
            f"The identity of error and Jacobian fails (largest |z| = {z:.1f}, at most "
            f"{ALLOWED_Z:g} is allowed): the schedule, the conditions or the code of the model is "
            "not what was declared; check them with `geomem inspect`."
        )
    if found:
        return found
    worse = float(row.get("held_out_ratio", xr.DataArray(math.nan)))
    if worse > WORSE and figures.p_value > alpha:
        return [
            f"The model is underfit: its error on new images is {worse:.2f} times that of a linear "
            f"denoiser over the window, and nothing tells its training images from others (p = "
            f"{figures.p_value:.2g}); an almost untrained model shows no memory."
        ]
    if "lost_share" not in row or math.isnan(figures.p_value):
        return ["The model was not compared with any control; measure one beside it."]
    return []


def _told_apart(figures: _Figures) -> str:
    return (
        f"training and held-out images are told apart (p = {figures.p_value:.2g}, of "
        f"{figures.units[0]} and {figures.units[1]} image groups)"
    )


def _full(figures: _Figures, alpha: float) -> tuple[Word, list[str], bool] | None:
    reasons = []
    low, level = figures.lower(figures.shares)
    if figures.p_value <= alpha and low >= FULL:
        reasons.append(
            f"At sigma = {figures.sigma(level):.2g} rms {figures.at(figures.shares, level)} of the "
            f"control's dimension is gone at training images, at least {FULL:g}; "
            f"{_told_apart(figures)}."
        )
    if figures.copies is not None and figures.copies.interval[0] >= HALF_COPIES:
        reasons.append(f"At least half of the generated samples are copies: {figures.copies}.")
    return ("full memorization", reasons, False) if reasons else None


def _geometric(
    figures: _Figures, alpha: float, share: float
) -> tuple[Word, list[str], bool] | None:
    reasons = []
    for pair, whose in (
        (figures.shares, "of the control's dimension"),
        (figures.worst, "of the control's error in the worst subspace of three directions"),
    ):
        low, level = figures.lower(pair)
        if figures.p_value <= alpha and low >= share:
            reasons.append(
                f"At sigma = {figures.sigma(level):.2g} rms {figures.at(pair, level)} {whose} is "
                f"gone at training images, at least {low:.2g}; {_told_apart(figures)}."
            )
    some = not reasons
    if figures.single > 0:
        count = int(np.isfinite(figures.row.point_p_value.values).sum())
        reasons.append(
            f"{int(figures.single)} of {count} training images are memorized one by one (beside "
            "held-out images; at most 5 % of these falsely)."
        )
    return ("geometric memorization", reasons, some) if reasons else None


def _generalization(figures: _Figures, share: float) -> tuple[list[str], list[str]]:
    # What speaks for it, and what is still possible.
    clean, doubts = [], []
    for pair, whose in (
        (figures.shares, "of the control's dimension"),
        (figures.worst, "of the control's error in the worst subspace of three directions"),
    ):
        high, level = figures.upper(pair)
        if high < share:
            clean.append(f"At no noise level more than {max(high, 0):.2g} {whose} can be gone.")
        elif level is None:
            doubts.append(f"It is not known what share {whose} is gone: pass more images.")
        else:
            doubts.append(
                f"Up to {high:.2g} {whose} may be gone at training images (sigma = "
                f"{figures.sigma(level):.2g} rms: {figures.at(pair, level)}), and {share:g} is "
                f"memorization; {_not_more(figures)}."
            )
    if figures.copies is not None:
        own = figures.unseen.interval[1] if figures.unseen is not None else 0.01
        if figures.copies.interval[0] > own:
            doubts.append(
                f"More samples are copies than unseen images are called so: {figures.copies}, "
                f"beside {figures.unseen or '1 %'}."
            )
        else:
            clean.append(f"Copies among the samples: {figures.copies}, as of unseen images.")
    return clean, doubts


def _not_more(figures: _Figures) -> str:
    if figures.p_value <= ALPHA:
        return _told_apart(figures)
    return f"training and held-out images are not told apart (p = {figures.p_value:.2g})"


def _limits(known: xr.Dataset, row: xr.Dataset, figures: _Figures) -> list[str]:
    found = [str(text) for text in known.attrs.get("declared") or []]
    found += [str(text) for text in known.attrs.get("warnings") or []]
    control = str(known.attrs.get("control", ""))
    if control == "linear":
        found.append(
            "The control that decided is linear: it knows a covariance, and what a good model "
            "knows beyond it is taken out on average, not image by image."
        )
    if figures.copies is None:
        found.append(
            "Copies among samples were not judged: that takes generated samples and at least 199 "
            "held-out images."
        )
    if "identity_z" in row and math.isnan(largest_identity_z(row)):
        there = int(row.jacobian_images.max()) if "jacobian_images" in row else 0
        why = (
            f"the Jacobian was measured at {there} images of a kind, and it takes {MIN_UNITS}"
            if there
            else "no Jacobian was measured"
        )
        found.append(f"The identity of error and Jacobian was not checked: {why}.")
    return [*found, CAVEAT]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
