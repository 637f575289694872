r"""Looks at a training while it goes on: has it memorized beyond chance by now?

A look measures one moment of a training at the same training and held-out images, levels and
noise as every other look. What is tested is a difference of differences. With the error
:math:`e_k` of look k, summed over directions, and that of a control :math:`c`, both in noise
units and at the same noisy image,

    g(image, sigma) = c - e_k           by how much the look denoises this image better,
    G = mean over training images of g - mean over held-out images of g.

A network that learned something general gains at both, and G stays 0; what it gains at training
images alone it has memorized. Integrated over ln sigma that is nats. Two controls stand beside
each look: the linear denoiser, which cannot memorize images, and the best *earlier look* of the
same training. The earlier look shares the network's strengths and weaknesses image by image, so
its differences vary least. Which look was the best is decided at reserved images, which are in
neither mean: chosen at held-out images, it would be better there by luck, and that luck would
look like memory.

Under the null hypothesis the measured training images are as new to the network as the held-out
ones, and labels may be permuted: one test a look, one-sided, studentised, the maximum over
levels, the integral and both controls. Look k is significant at :math:`\alpha / k(k + 1)`.
These levels add up to alpha over any number of looks, so that a training that never memorizes
is warned of with a probability of at most alpha, however often it is looked at.

References:
    | geomem's own definitions; the maximum over looks as in :func:`geomem.stats.permutation_test`
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.findings.measured import MIN_UNITS, SIDES, Measured, group_means
from geomem.information import integrate_log
from geomem.stats import Estimate, numpy_rng, permutation_test

Array = NDArray[np.float64]
ALPHA = 0.05  # of a warning in a whole training that never memorizes
BESIDE = ("earlier", "linear")
FEW = 999  # permutations that decide whether more are worth their time


@dataclass(frozen=True, eq=False)
class Moment:
    r"""Squared errors of one denoiser, in noise units, summed over directions.

    Attributes:
        errors: By kind of images one row a group of images, with shape :math:`(n, T)`.
        step: The step of the training; None of the linear control.
    """

    errors: Mapping[str, Array]
    step: int | None = None


@dataclass(frozen=True)
class Look:
    r"""What a look says.

    Attributes:
        number: Its number k in the training, from 1 on.
        step: The step of the training.
        p_value: Of the differences between training and held-out images; NaN where there are
            fewer than 8 image groups a side.
        level: The p-value up to which it is significant.
        gains: Nats gained at training images beyond held-out ones, beside each control.
        earlier: The step of the best earlier look, if there is one.
        training: Mean error at training images, integrated over ln sigma, in nats.
        held_out: The same at held-out images.
    """

    number: int
    step: int
    p_value: float
    level: float
    gains: Mapping[str, Estimate]
    earlier: int | None
    training: Estimate
    held_out: Estimate

    @property
    def significant(self) -> bool:
        r"""Whether memorization is beyond chance, all looks of the training considered."""
        return self.p_value <= self.level

    @property
    def finite(self) -> bool:
        r"""Whether it was tested at all."""
        return not math.isnan(self.p_value)


def moment(
    squares: Mapping[str, Array], groups: Mapping[str, Sequence[int]], step: int | None = None
) -> Moment:
    r"""The errors of a denoiser by group of images.

    Arguments:
        squares: By kind of images squared errors, draws averaged, with shape :math:`(T, n)`.
        groups: The group of each image by kind.
        step: The step of the training.
    """
    found = {}
    for at, values in squares.items():
        found[at] = group_means(values.T, np.asarray(groups[at])[: values.shape[1]])
    return Moment(found, step)


def level_of(number: int) -> float:
    r"""The p-value up to which look k is significant.

    Example:
        >>> [round(level_of(k), 4) for k in (1, 2, 3)], sum(map(level_of, range(1, 21))) < ALPHA
        ([0.025, 0.0083, 0.0042], True)
    """
    return ALPHA / (number * (number + 1))


def judge(looks: Sequence[Moment], linear: Moment, sigmas: Array, seed: int = 0) -> Look:
    r"""What the last look of a training says.

    Arguments:
        looks: The looks of the training so far, in order.
        linear: The linear control at the same images.
        sigmas: The noise levels, increasing, with shape :math:`(T)`.
        seed: The seed of the permutations.
    """
    last, number = looks[-1], len(looks)
    best = _best(looks[:-1], sigmas)
    controls = {"linear": linear} if best is None else {"earlier": best, "linear": linear}
    sides: dict[str, list[Array]] = {at: [] for at in SIDES}
    gains = dict.fromkeys(BESIDE, Estimate(math.nan, math.nan))
    for name, control in controls.items():
        for at in SIDES:
            gained = control.errors[at][: len(last.errors[at])] - last.errors[at]
            sides[at].append(np.column_stack([gained, integrate_log(gained, sigmas, axis=1)]))
        gains[name] = _difference(*(sides[at][-1][:, -1] for at in SIDES))
    training, held_out = (np.hstack(sides[at]) for at in SIDES)
    p_value = math.nan
    if min(len(training), len(held_out)) >= MIN_UNITS:
        p_value = _p_value(training, held_out, number, seed, int(last.step or 0))
    errors = {at: Estimate.of_mean(integrate_log(last.errors[at], sigmas, axis=1)) for at in SIDES}
    return Look(
        number,
        int(last.step or 0),
        p_value,
        level_of(number),
        gains,
        None if best is None else best.step,
        errors["training"],
        errors["held_out"],
    )


def _best(looks: Sequence[Moment], sigmas: Array) -> Moment | None:
    if not looks:
        return None
    return min(
        looks, key=lambda m: float(integrate_log(m.errors["reserved"], sigmas, axis=1).mean())
    )


def _difference(first: Array, second: Array) -> Estimate:
    if min(len(first), len(second)) < 2:
        return Estimate(float(first.mean() - second.mean()), math.nan)
    error = math.hypot(*(float(v.std(ddof=1) / math.sqrt(len(v))) for v in (first, second)))
    return Estimate(float(first.mean() - second.mean()), error)


def _p_value(training: Array, held_out: Array, number: int, seed: int, step: int) -> float:
    # Few permutations tell most looks of nothing apart. A small p-value of few is never
    # believed: it takes as many more as make four relabelings the limit of the look's level.
    rng = numpy_rng(seed, "looks", step)
    few = permutation_test(training, held_out, rng=rng, permutations=FEW)
    if few.p_value > ALPHA:
        return few.p_value
    enough = max(FEW, math.ceil(4 / level_of(number)))
    return permutation_test(training, held_out, rng=rng, permutations=enough).p_value


# ----------------------------------------------------------------------- from records


def look_numbers(run: Measured) -> xr.Dataset:
    r"""What each look of a monitored training says; nothing of other kinds of run.

    Returns:
        By ``subject``: ``look_number``, ``look_p_value`` and ``look_level``; ``look_gain``
        (subject, beside) in nats and its standard error; ``look_earlier``, the step of the best
        earlier look; ``training_error`` and ``held_out_error`` in nats, with theirs.
    """
    rows = [(k, row) for k, row in enumerate(run.rows) if row.kind == "learned" and row.step >= 0]
    linear = run.controls.get("linear")
    if run.dataset.attrs.get("kind") != "monitor" or not rows or linear is None:
        return xr.Dataset()
    places = {at: run.dataset.point_group.sel(at=at).values for at in run.kinds}

    def seen(member: int, step: int | None = None) -> Moment:
        squares = {at: run.squares(member, at).sum(-1) for at in run.kinds}
        return moment(squares, places, step)

    control, moments = seen(linear), []
    count = len(run.rows)
    names = ("look_number", "look_p_value", "look_level", "look_earlier")
    plain = {name: np.full(count, np.nan) for name in names}
    gain = np.full((2, count, len(BESIDE)), np.nan)
    errors = {at: np.full((2, count), np.nan) for at in SIDES}
    for k, row in sorted(rows, key=lambda pair: pair[1].step):
        moments.append(seen(row.members[0], int(row.step)))
        look = judge(moments, control, run.sigmas, run.seed)
        found = (look.number, look.p_value, look.level, look.earlier)
        for name, number in zip(names, found, strict=True):
            plain[name][k] = np.nan if number is None else number
        gain[:, k] = [
            [getattr(look.gains[name], part) for name in BESIDE] for part in ("value", "stderr")
        ]
        for at, estimate in (("training", look.training), ("held_out", look.held_out)):
            errors[at][:, k] = estimate.value, estimate.stderr
    said = {
        "look_number": "number of the look in its training",
        "look_p_value": "p-value of the look, training against held-out images",
        "look_level": "p-value up to which the look is significant, all looks considered",
        "look_earlier": "step of the best earlier look, by reserved images",
    }
    columns: dict[str, tuple[object, ...]] = {
        name: ("subject", plain[name], {"units": "1", "long_name": text})
        for name, text in said.items()
    }
    both = ("", "_stderr")
    for end, values in zip(both, gain, strict=True):
        about = {"units": "nats", "long_name": "gained at training images beyond held-out ones"}
        columns["look_gain" + end] = (("subject", "beside"), values, about)
    for at in SIDES:
        for end, values in zip(both, errors[at], strict=True):
            place = at.replace("_", "-")
            about = {"units": "nats", "long_name": f"error at {place} images over the window"}
            columns[f"{at}_error{end}"] = ("subject", values, about)
    return xr.Dataset(columns, coords={"beside": list(BESIDE)})


def first_warning(known: xr.Dataset) -> xr.Dataset | None:
    r"""The row of the first significant look; None if there is none, or none can be one."""
    if "look_p_value" not in known:
        return None
    rows = [known.isel(subject=k) for k in np.argsort(known.look_number.values)]
    found = [row for row in rows if float(row.look_p_value) <= float(row.look_level)]
    return found[0] if found else None


def look_sentence(known: xr.Dataset) -> str:
    r"""What the looks of a training say together, in words."""
    count = int(np.isfinite(known.look_number.values).sum())
    tested = known.look_p_value.values
    if not np.isfinite(tested).any():
        return f"{_looks(count)}, without a test: fewer than {MIN_UNITS} image groups a side."
    first = first_warning(known)
    if first is None:
        return (
            f"{_looks(count)}, none of them beyond chance (smallest p = {np.nanmin(tested):.2g})."
        )
    gains = {
        name: Estimate(*(float(first[f"look_gain{e}"].sel(beside=name)) for e in ("", "_stderr")))
        for name in BESIDE
    }
    earlier = float(first.look_earlier)
    said = significant_text(
        int(first.step),
        float(first.look_p_value),
        float(first.look_level),
        gains,
        None if math.isnan(earlier) else int(earlier),
    )
    lowest = int(np.nanargmin(known.held_out_error.values))
    return (
        f"{_looks(count)}: {said}. The error at held-out images is lowest at step "
        f"{int(known.step[lowest])} so far."
    )


def significant_text(
    step: int,
    p_value: float,
    level: float,
    gains: Mapping[str, Estimate],
    earlier: int | None,
) -> str:
    r"""A significant look in words: what a warning says, and a finding."""
    parts = [f"{gains['linear']} nats beside the linear control"]
    if earlier is not None:
        parts.append(f"{gains['earlier']} beside step {earlier}, the best earlier look")
    return (
        f"memorization is beyond chance from step {step} on (p = {p_value:.1g}, at most "
        f"{level:.2g} allowed at this look); gained at training images beyond held-out ones: "
        f"{', '.join(parts)}"
    )


def _looks(count: int) -> str:
    return f"{count} looks at the training" if count != 1 else "One look at the training"
