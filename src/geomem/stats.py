r"""Numbers with their errors: estimates, proportions, resampling and tests.

The statistical unit of geomem is an image group, never a noise draw: draws inside a group
are averaged first. Everything here therefore takes one row per unit.

References:
    | Clopper & Pearson, The use of confidence or fiducial limits, Biometrika 26 (1934)
    | Benjamini & Hochberg, Controlling the false discovery rate, JRSS B 57 (1995)
    | Westfall & Young, Resampling-based multiple testing (1993): the maximum over looks
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomem.arguments import Number, Values, Whole, checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]


@checked
def seed_sequence(
    seed: Annotated[int, Whole(least=0)], purpose: str, unit: Annotated[int, Whole(least=0)] = 0
) -> np.random.SeedSequence:
    r"""Seed of one purpose and one unit of work, independent of every other.

    Results then depend neither on the order of the work nor on who does it.

    Raises:
        InputError: If the seed is not an integer from 0 on.
    """
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), unit])


def numpy_rng(seed: int, purpose: str, unit: int = 0) -> np.random.Generator:
    r"""NumPy generator of :func:`seed_sequence`."""
    return np.random.default_rng(seed_sequence(seed, purpose, unit))


def torch_rng(seed: int, purpose: str, unit: int = 0) -> torch.Generator:
    r"""Torch generator of :func:`seed_sequence`, on the CPU: devices draw differently."""
    import torch  # theory needs these statistics and no torch

    state = seed_sequence(seed, purpose, unit).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass(frozen=True)
class Estimate:
    r"""A number and the standard error of how it was measured.

    Deterministic results carry a standard error of zero, so that a table never mixes
    numbers that fluctuate with numbers that do not. One random draw says nothing about
    its own error, which is then ``nan``, never zero.

    Example:
        >>> Estimate(0.5123456, stderr=0.0123)
        0.512 ± 0.012
        >>> Estimate(31.0)
        31 ± 0
        >>> Estimate(31.0, stderr=math.nan)
        31 ± nan
    """

    value: float
    stderr: float = 0.0

    def __repr__(self) -> str:
        if not 0 < self.stderr < math.inf:
            return f"{self.value:g} ± {self.stderr:g}"
        digits = max(0, 1 - math.floor(math.log10(self.stderr)))
        return f"{self.value:.{digits}f} ± {self.stderr:.{digits}f}"

    def z_score(self, other: Estimate | float) -> float:
        r"""Distance to another estimate in joint standard errors.

        Example:
            >>> Estimate(3.0, 0.3).z_score(Estimate(2.0, 0.4))
            2.0
        """
        other = other if isinstance(other, Estimate) else Estimate(other)
        difference = self.value - other.value
        joint = math.hypot(self.stderr, other.stderr)
        if joint == 0:
            return 0.0 if difference == 0 else math.copysign(math.inf, difference)
        return difference / joint

    @staticmethod
    @checked
    def of_mean(values: Annotated[ArrayLike, Values(shape="(n)")]) -> Estimate:
        r"""Mean of independent values, with shape :math:`(n)`, and its standard error.

        Example:
            >>> Estimate.of_mean([1.0, 3.0])
            2.0 ± 1.0
        """
        sample = np.asarray(values, dtype=float)
        if sample.size == 1:
            return Estimate(float(sample[0]), math.nan)
        return Estimate(float(sample.mean()), float(sample.std(ddof=1) / math.sqrt(sample.size)))


@checked
@dataclass(frozen=True)
class Proportion:
    r"""So many of so many, with the exact (Clopper-Pearson) interval.

    Example:
        Nothing seen is not nothing there: the bound is then one-sided.

        >>> Proportion(0, 500)
        0 of 500 (< 0.6 % at 95 %)
        >>> Proportion(30, 60)
        30 of 60 (50 %, 37 % to 63 % at 95 %)
    """

    successes: Annotated[int, Whole(least=0)]
    trials: Annotated[int, Whole(least=1)]
    confidence: Annotated[float, Number(above=0, below=1)] = 0.95

    def __post_init__(self) -> None:
        if self.successes > self.trials:
            raise InputError(
                f"{self.successes} of {self.trials} is not a proportion; "
                "pass at most as many `successes` as `trials`"
            )

    @property
    def value(self) -> float:
        r"""The share."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        r"""The interval at the stated confidence; one-sided at 0 and at all of them."""
        from scipy.stats import beta

        k, n, alpha = self.successes, self.trials, 1 - self.confidence
        tail = alpha if k in (0, n) else alpha / 2
        low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
        high = 1.0 if k == n else float(beta.ppf(1 - tail, k + 1, n - k))
        return low, high

    def __repr__(self) -> str:
        low, high = self.interval
        level = f"at {self.confidence:.0%}".replace("%", " %")
        if self.successes == 0:
            return f"0 of {self.trials} (< {_percent(high)} {level})"
        if self.successes == self.trials:
            return f"{self.trials} of {self.trials} (> {_percent(low)} {level})"
        inside = f"{_percent(self.value)}, {_percent(low)} to {_percent(high)} {level}"
        return f"{self.successes} of {self.trials} ({inside})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def clustered_mean(values: Array, groups: NDArray[Any]) -> tuple[Array, Array]:
    r"""The mean over images, and its standard error over groups of them.

    Arguments:
        values: One row an image, with shape :math:`(n, k)`; rows with NaN are left out.
        groups: The group of each image, with shape :math:`(n)`.

    Returns:
        Mean and error, with shape :math:`(k)`; NaN for the error of fewer than two groups.

    Example:
        >>> mean, error = clustered_mean(np.array([[1.0], [1.0], [3.0]]), np.array([0, 0, 1]))
        >>> mean.round(2), error.round(2)
        (array([1.67]), array([0.89]))
    """
    there = ~np.isnan(values).any(1)
    values, groups = values[there], groups[there]
    blank = np.full(values.shape[1], np.nan)
    if not len(values):
        return blank, blank
    mean, distinct = values.mean(0), np.unique(groups)
    if len(distinct) < 2:
        return mean, blank
    sums = np.array([(values[groups == g] - mean).sum(0) for g in distinct])
    correction = len(distinct) / (len(distinct) - 1)
    return mean, np.sqrt(correction * np.square(sums).sum(0)) / len(values)


@checked
def bootstrap_weights(
    num_units: Annotated[int, Whole(least=1)],
    replicates: Annotated[int, Whole(least=0)],
    rng: np.random.Generator,
) -> Array:
    r"""Weights of bootstrap replicates: a resampled mean is one row times the values.

    Arguments:
        num_units: The number :math:`n` of units that are resampled.
        replicates: The number :math:`R` of replicates.
        rng: The source of randomness.

    Returns:
        The weights, with shape :math:`(R, n)`; each row sums to 1.

    Raises:
        InputError: If there is no unit, or the weights would not fit into memory.
    """
    Forecast(0, 16.0 * num_units * replicates).check_memory("pass fewer `replicates`")
    counts = rng.multinomial(num_units, np.full(num_units, 1 / num_units), size=replicates)
    return counts / num_units


@dataclass(frozen=True)
class PermutationTest:
    r"""Result of :func:`permutation_test`.

    Attributes:
        p_value: Probability of a maximum as large if labels do not matter.
        adjusted: The same for each look, with shape :math:`(L)`, adjusted for all looks.
        statistic: The studentised difference of each look, with shape :math:`(L)`.
    """

    p_value: float
    adjusted: Array
    statistic: Array


@checked
def permutation_test(
    larger: Annotated[ArrayLike, Values()],
    smaller: Annotated[ArrayLike, Values()],
    *,
    rng: np.random.Generator,
    permutations: Annotated[int, Whole(least=1)] = 9999,
) -> PermutationTest:
    r"""Is the mean of one group larger than the other's in any of several looks?

    One-sided, studentised (Welch), with the maximum over looks under permuted labels, so
    that looking at twenty noise levels costs nothing in false alarms. Where neither group
    varies, any difference is infinitely many standard errors.

    Arguments:
        larger: One row per unit of the group said to be larger, with shape :math:`(n, L)`.
        smaller: The other group, with shape :math:`(m, L)`.
        rng: The source of the permutations.
        permutations: How many are drawn; the p-value is never below 1/(permutations + 1).

    Raises:
        InputError: If either group has fewer than two units, the looks differ, or there is NaN.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(2, 1, (20, 3)), rng.normal(0, 1, (20, 3))
        >>> permutation_test(a, b, rng=rng, permutations=999).p_value
        0.001
    """
    first = np.atleast_2d(np.asarray(larger, float))
    second = np.atleast_2d(np.asarray(smaller, float))
    shapes = first.shape, second.shape
    if min(len(first), len(second)) < 2 or shapes[0][1:] != shapes[1][1:] or 0 in shapes[0]:
        raise InputError(
            "a permutation test needs two units a side and the same looks; "
            f"`larger` and `smaller` have shapes {first.shape} and {second.shape}"
        )
    if first.ndim != 2:
        raise InputError(f"`larger` has shape {first.shape}; pass one row a unit, (n, L)")
    pooled = np.concatenate([first, second])
    pooled = pooled - pooled.mean(0)  # a common offset would cancel in the variances
    labels = np.zeros(len(pooled))
    labels[: len(first)] = 1
    statistic = _welch(labels[None], pooled)[0]
    # The same relabeling gives the same statistic up to rounding, and is a tie.
    reached = statistic * (1 - 1e-9 * np.sign(statistic))
    exceed = np.zeros(len(statistic))
    top = 0
    for start in range(0, permutations, 1000):
        rows = np.tile(labels, (min(1000, permutations - start), 1))
        maximum = _welch(rng.permuted(rows, axis=1), pooled).max(1)
        exceed += (maximum[:, None] >= reached).sum(0)
        top += int((maximum >= reached.max()).sum())
    return PermutationTest(
        (top + 1) / (permutations + 1), (exceed + 1) / (permutations + 1), statistic
    )


def _welch(labels: Array, values: Array) -> Array:
    # Both groups' means and variances, for every row of labels, are matrix products.
    n = labels.sum(1, keepdims=True)
    m = labels.shape[1] - n
    total, squares = values.sum(0), (values**2).sum(0)
    sum_a, square_a = labels @ values, labels @ values**2
    difference = sum_a / n - (total - sum_a) / m
    spread_a = square_a - sum_a**2 / n
    spread_b = squares - square_a - (total - sum_a) ** 2 / m
    # Below a few roundings of the sums, a spread or a difference is none.
    rounding = 64 * np.finfo(float).eps
    variance = sum(
        np.where(spread > rounding * squares, spread, 0) / (k * (k - 1))
        for spread, k in ((spread_a, n), (spread_b, m))
    )
    difference = np.where(np.abs(difference) > rounding * np.sqrt(squares), difference, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / np.sqrt(variance))


@checked
def benjamini_hochberg(
    p_values: Annotated[ArrayLike, Values(shape="(n)", least=0, most=1)],
) -> Array:
    r"""Adjusted p-values that control the false discovery rate, with shape :math:`(n)`.

    Arguments:
        p_values: The p-values, with shape :math:`(n)`.

    Raises:
        InputError: If one is not between 0 and 1.

    Example:
        >>> benjamini_hochberg([0.01, 0.02, 0.5]).round(3).tolist()
        [0.03, 0.03, 0.5]
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.minimum.accumulate(p[order] * len(p) / ranks))
    return adjusted


def conformal_p_values(values: ArrayLike, calibration: ArrayLike) -> Array:
    r"""How unusually *small* each value is among exchangeable calibration values.

    .. math:: p = \frac{1 + \#\{c \leq v\}}{1 + n}

    Arguments:
        values: The values in question, with shape :math:`(k)`.
        calibration: Values known not to be unusual, with shape :math:`(n)`.

    Returns:
        The p-values, with shape :math:`(k)`. NaN values stay NaN: they are not "usual".
    """
    known = np.sort(np.asarray(calibration, float))
    if len(known) == 0 or np.isnan(known).any():
        raise InputError("calibration needs at least one value and no NaN; check the held-out set")
    asked = np.asarray(values, float)
    p = (1 + np.searchsorted(known, asked, side="right")) / (1 + len(known))
    return np.where(np.isnan(asked), np.nan, p)
