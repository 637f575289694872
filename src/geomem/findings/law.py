r"""The law of memorization: how much a training memorizes, against its length, size and width.

A network that was trained on :math:`N` images denoises these with an error of :math:`E` nats over
the window; one of the same kind, trained as long on images that are not measured, with
:math:`E_\infty`. What the first has memorized, as a share of what there was to memorize,

.. math:: m = 1 - E / E_\infty ,

does not count as memory what both have not learned yet. The law is that its odds fall with the
number of images by a power, nearly 1:

.. math:: \frac{m}{1 - m} = \Big( \frac{k}{N} \Big)^p , \qquad p \approx 1 .

:math:`k(\tau, w)`, a number of images, is all that training time and width decide: half is
memorized of a set of :math:`k`. With :math:`p = 1` and many images it is what a model with
:math:`k` effective parameters does, whose error on its own data is lower by a part :math:`k / N`.
:math:`\tau` is :meth:`geomem.models.train.Training.time`. At first :math:`k` grows steeply with
it, while the data are learned; later like :math:`\tau`, that is, like the number of passes over an
image. So a pilot measures :math:`k` at some moments, and beyond the last one
:math:`\ln k` grows with :data:`GROWTH` for an e-fold of time.

:math:`E_\infty` falls like :math:`e_0 + e_1 / \tau`, through the last two moments of the pilot.
A part of what lies beyond what was seen is error: :data:`GROWTH`, :data:`DRIFT` for an e-fold of
size (or more, where the pilot's own largest N, predicted from its smaller ones, says so), and
:data:`FALL`. They were chosen on trainings on scikit-learn's digits; how they were, and what they
hold of others: ``docs/pilot.md``.

References:
    | Bonnaire, Urfin, Biroli, Mézard, arXiv 2505.17638: the time to memorize grows like N
    | geomem's own: the reference that is trained as long, k, and the errors of extrapolation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, least_squares
from scipy.special import expit, logit

Array = NDArray[np.float64]
POWER = (1.1, 0.2)  # p before anything is seen, and its standard deviation
SPREAD = 3.0  # of ln k at a moment, before anything is seen
GROWTH = (1.1, 0.4)  # of ln k for an e-fold of time beyond the pilot, and its standard error
DRIFT = 0.15  # of a logit, for an e-fold of size beyond the pilot
BELIEF = 4.0  # how many extrapolations within a pilot weigh as much as DRIFT
FLOOR = 0.02  # of a share: what trainings that differ in their seed differ by
FALL = 0.4  # of a fall of E_inf that is extrapolated, its standard error
REPEAT = 0.01  # of E_inf: what it differs by between trainings
UNFINISHED = (0.04, 0.04)  # of E_inf: how much higher before the rate has fallen, and its error
# For an e-fold of width to the nearest one that was trained: of ln k, and of E_inf; and beyond
# the widths that were.
BETWEEN, OUTSIDE = (0.6, 0.06), (1.0, 0.2)
Z90 = 1.6449
FURTHEST = 7.0  # e-folds within which a size or time is looked for: 1,100 times


@dataclass(frozen=True)
class Share:
    r"""A share, or nats, that is predicted, with its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Law:
    r"""A fitted law.

    Attributes:
        times: Moments of the pilot, increasing, with shape (K).
        widths: Its widths, increasing, with shape (W).
        log_k: ln k by width and moment, with shape (W, K).
        power: p.
        covariance: Of ``log_k``, row by row, and ``power``, with shape (W K + 1, W K + 1).
        sizes: The smallest and the largest size that were seen.
        drift: Error of extrapolation in size, in the logit for an e-fold.
        left: Root mean square of what the law leaves of the shares.
    """

    times: Array
    widths: Array
    log_k: Array
    power: float
    covariance: Array
    sizes: tuple[float, float]
    drift: float
    left: float

    def images(self, time: float, width: float) -> tuple[float, float]:
        r"""ln k at a time and width, and its standard error."""
        row, beyond = self._weights(time, width)
        slope = GROWTH[0] if beyond > 0 else self._first(width)
        value = float(row[:-1] @ self.log_k.ravel()) + slope * beyond
        apart, error = _apart(self.widths, width)
        known = float(row @ self.covariance @ row)
        return value, float(np.sqrt(known + (GROWTH[1] * beyond) ** 2 + (error[0] * apart) ** 2))

    def _weights(self, time: float, width: float) -> tuple[Array, float]:
        # Of ln k at the moments and widths around; and how many e-folds beyond the moments.
        places, axis = np.log(self.times), np.log(self.widths)
        inside = float(np.clip(np.log(time), places[0], places[-1]))
        of_time = np.array([np.interp(inside, places, unit) for unit in np.eye(len(places))])
        if len(axis) == 1:
            of_width = np.ones(1)
        else:  # on the line through the two widths that are nearest
            k = int(np.clip(np.searchsorted(axis, np.log(width)), 1, len(axis) - 1))
            part = (np.log(width) - axis[k - 1]) / (axis[k] - axis[k - 1])
            of_width = np.zeros(len(axis))
            of_width[k - 1], of_width[k] = 1 - part, part
        row = np.append(np.outer(of_width, of_time).ravel(), 0.0)
        return row, float(np.log(time)) - inside

    def _first(self, width: float) -> float:
        # How k grows before the first moment: as between the first two.
        if len(self.times) < 2:
            return GROWTH[0]
        a, b = (self._weights(t, width)[0][:-1] @ self.log_k.ravel() for t in self.times[:2])
        return max(0.0, float((b - a) / np.log(self.times[1] / self.times[0])))

    def logit(self, time: float, num_samples: float, width: float) -> tuple[float, float]:
        r"""The logit of the share, and its standard error: of the fit and of extrapolation."""
        value, error = self.images(time, width)
        far = value - float(np.log(num_samples))
        row, _ = self._weights(time, width)
        joint = self.power * row + np.append(np.zeros(len(row) - 1), far)
        known = float(joint @ self.covariance @ joint) + self.power**2 * (
            error**2 - float(row @ self.covariance @ row)
        )
        low, high = self.sizes
        beyond = max(0.0, np.log(num_samples / high), np.log(low / num_samples))
        return self.power * far, float(np.sqrt(known + (self.drift * beyond) ** 2))

    def share(self, time: float, num_samples: float, width: float) -> Share:
        r"""What a training memorizes, as a share of what there is to memorize."""
        value, error = self.logit(time, num_samples, width)
        m = float(expit(value))
        # Two trainings of the same recipe are FLOOR apart, also where nothing is memorized.
        down, up = (m - expit(value + side * Z90 * error) for side in (-1, 1))
        noise = Z90 * FLOOR * (1 - m)
        return Share(m, m - float(np.hypot(down, noise)), min(1.0, m + float(np.hypot(up, noise))))

    def enough(self, most: float, *, time: float, width: float) -> list[float | None]:
        r"""The number of images of which ``most`` is memorized after a time.

        Arguments:
            most: A share, above what trainings of a recipe differ by.
            time: The time.
            width: The width.

        Returns:
            Where the share, the low and the high end of its interval are ``most``; None for
            what lies further than :data:`FURTHEST` e-folds away.
        """
        return [
            _root(lambda n, e=end: getattr(self.share(time, n, width), e) - most, self.sizes[1])  # type: ignore[misc]
            for end in ("value", "low", "high")
        ]

    def until(self, most: float, *, num_samples: float, width: float) -> list[float | None]:
        r"""The time after which ``most`` of a set of images is memorized; as :meth:`enough`."""
        last = float(self.times[-1])
        return [
            _root(lambda t, e=end: getattr(self.share(t, num_samples, width), e) - most, last)  # type: ignore[misc]
            for end in ("value", "high", "low")
        ]


def _apart(widths: Array, width: float) -> tuple[float, tuple[float, float]]:
    # E-folds to the nearest width that was trained, and what one costs.
    inside = widths[0] <= width <= widths[-1]
    return float(np.abs(np.log(widths / width)).min()), BETWEEN if inside else OUTSIDE


def _root(off: Callable[[float], float], start: float) -> float | None:
    # In logarithms about a number that was seen.
    ends = [off(start * float(np.exp(side * FURTHEST))) for side in (-1, 1)]
    if not ends[0] * ends[1] < 0:
        return None
    return start * float(np.exp(brentq(lambda x: off(start * np.exp(x)), -FURTHEST, FURTHEST)))


def fit_law(
    times: ArrayLike, sizes: ArrayLike, widths: ArrayLike, shares: ArrayLike, errors: ArrayLike
) -> Law:
    r"""The law of some trainings.

    Arguments:
        times: The time of each, see :meth:`geomem.models.train.Training.time`, with shape (n).
        sizes: Its number of training images, with shape (n).
        widths: Its width, with shape (n).
        shares: What it memorized, with shape (n).
        errors: The standard errors of the shares, with shape (n).
    """
    t, N, w, m = (np.asarray(v, dtype=float) for v in (times, sizes, widths, shares))
    error = np.hypot(np.asarray(errors, dtype=float), FLOOR)
    moments, all_widths = np.unique(t), np.unique(w)
    cell = np.searchsorted(all_widths, w) * len(moments) + np.searchsorted(moments, t)
    count = len(moments) * len(all_widths)
    found, covariance, left = _fit(cell, np.log(N), m, error, count)
    drifts = []
    for largest in np.unique(N)[2:]:  # each larger size from those below it
        rest, there = largest > N, np.isclose(N, largest)
        slopes, spread, _ = _fit(cell[rest], np.log(N[rest]), m[rest], error[rest], count)
        # In the logit; where a share is hardly above its error it says nothing.
        said = there & (m > 2 * error) & (m < 1 - 2 * error)
        for k in np.flatnonzero(said):
            far = slopes[cell[k]] - np.log(N[k])
            off = logit(m[k]) - slopes[-1] * far
            row = np.zeros(count + 1)
            row[cell[k]], row[-1] = slopes[-1], far
            known = (error[k] / (m[k] * (1 - m[k]))) ** 2 + row @ spread @ row
            gap = np.log(largest / N[rest].max())
            drifts.append((max(0.0, off**2 - known) / gap**2, said.sum()))
    # Cells of one size share what it deviates by: together they are one extrapolation.
    weight = sum(1 / n for _, n in drifts)
    drift = (BELIEF * DRIFT**2 + sum(d / n for d, n in drifts)) / (BELIEF + weight)
    log_k = found[:-1].reshape(len(all_widths), len(moments))
    ends = (float(N.min()), float(N.max()))
    return Law(
        moments, all_widths, log_k, float(found[-1]), covariance, ends, float(drift**0.5), left
    )


def _fit(
    cell: NDArray[np.int64], log_size: Array, shares: Array, errors: Array, count: int
) -> tuple[Array, Array, float]:
    # ln k of each width and moment, and p: with their priors; wider where the law fits badly.
    middle = float(log_size.mean())
    mean = np.append(np.full(count, middle - 1.0), POWER[0])
    spread = np.append(np.full(count, SPREAD), POWER[1])

    def misfit(numbers: Array) -> Array:
        off = (shares - expit(numbers[-1] * (numbers[cell] - log_size))) / errors
        return np.concatenate([off, (numbers - mean) / spread])

    found = least_squares(misfit, mean)
    off, jacobian = misfit(found.x)[: len(shares)], found.jac[: len(shares)]
    excess = max(1.0, float(off @ off) / max(1, len(shares) - count - 1))
    covariance = np.linalg.inv(jacobian.T @ jacobian / excess + np.diag(spread**-2))
    left = float(np.sqrt(np.mean((off * errors) ** 2)))
    return np.asarray(found.x), np.asarray(covariance), left


# -------------------------------------------------------------- what there is to memorize


@dataclass(frozen=True, eq=False)
class Ceiling:
    r"""What there is to memorize: errors of networks that never saw the images, in nats.

    Attributes:
        times: Times at which they are known, increasing, with shape (K); the last one is the end
            of their training.
        widths: Their widths, increasing, with shape (W).
        nats: Their errors over the window at the measured images, with shape (W, K).
    """

    times: Array
    widths: Array
    nats: Array

    def at(self, time: float, width: float, *, whole: bool = True) -> tuple[float, float]:
        r"""The error at a time and width, and its standard error; in nats.

        Arguments:
            time: The time.
            width: The width.
            whole: Whether the training ends there: before, its rate is high, and it errs more.
        """
        t, nats = self.times, self.nats
        inside = np.array([np.interp(np.log(time), np.log(t), np.log(row)) for row in nats])
        steep = np.zeros(len(nats))  # of one moment no fall is known
        if len(t) > 1:
            steep = np.maximum(0.0, nats[:, -2] - nats[:, -1]) / (1 / t[-2] - 1 / t[-1])
        fall = steep * (1 / t[-1] - 1 / max(time, t[-1]))
        values = np.where(time > t[-1], np.log(nats[:, -1] - fall), inside)
        known, place = np.log(self.widths), np.log(width)
        value = values[0]
        if len(known) > 1:
            k = int(np.clip(np.searchsorted(known, place), 1, len(known) - 1))
            slope = (values[k] - values[k - 1]) / (known[k] - known[k - 1])
            value = values[k] + slope * (place - known[k])
        apart, error = _apart(self.widths, width)
        errors = (
            FALL * float((fall / nats[:, -1]).mean()),
            error[1] * apart,
            REPEAT if whole else UNFINISHED[1],
        )
        found = float(np.exp(value)) * (1.0 if whole else 1 + UNFINISHED[0])
        return found, found * float(np.linalg.norm(errors))


def nats_of(share: Share, ceiling: tuple[float, float]) -> Share:
    r"""A share in nats, with what there is to memorize and its standard error.

    Example:
        >>> nats_of(Share(0.5, 0.4, 0.6), (60.0, 0.0))
        Share(value=30.0, low=24.0, high=36.0)
    """
    whole, error = ceiling
    value, spread = share.value * whole, Z90 * share.value * error
    down, up = ((share.value - end) * whole for end in (share.low, share.high))
    return Share(value, value - float(np.hypot(down, spread)), value + float(np.hypot(up, spread)))


def beside(share: Share, ceiling: tuple[float, float], control: tuple[float, float]) -> Share:
    r"""A share beside a control of another time or width, as pages of sweeps have it.

    What a network has not learned that its control has is counted off: it may be negative.

    Arguments:
        share: What it memorized beside a network that is trained as long.
        ceiling: The error of such a one in nats, with its standard error.
        control: The same of the control.

    Example:
        >>> found = beside(Share(0.5, 0.4, 0.6), (60.0, 0.0), (50.0, 0.0))
        >>> [round(end, 3) for end in (found.value, found.low, found.high)]
        [0.4, 0.28, 0.52]
    """
    ratio = ceiling[0] / control[0]
    relative = (
        0.0
        if ceiling == control
        else float(np.hypot(ceiling[1] / ceiling[0], control[1] / control[0]))
    )
    value, spread = 1 - (1 - share.value) * ratio, Z90 * (1 - share.value) * ratio * relative
    down, up = (ratio * (share.value - end) for end in (share.low, share.high))
    return Share(value, value - float(np.hypot(down, spread)), value + float(np.hypot(up, spread)))
