r"""Where a falling share crosses a level: the N that is enough, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from geomem.stats import numpy_rng

DRAWS = 2000  # of the numbers that a crossing is interpolated between
Crossing = tuple[float, float, float]


def crossing(
    sizes: ArrayLike,
    values: ArrayLike,
    errors: ArrayLike,
    level: float = 0.5,
) -> Crossing:
    r"""The N at which falling shares cross a level: the median and a 95 % interval.

    Interpolated in ln N between draws of the shares; 0 or infinity where all N lie on one side.

    Arguments:
        sizes: Increasing N.
        values: The share at each.
        errors: Its standard error.
        level: The level.

    Example:
        >>> crossing([10, 100, 1000], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0])
        (100.0, 100.0, 100.0)
    """
    rng = numpy_rng(0, "crossings")
    x, shares = np.log(np.array(sizes, float)), np.array(values, float)
    found = []
    for noise in rng.standard_normal((DRAWS, len(shares))):
        y = shares + noise * np.array(errors, float)
        above = np.flatnonzero(y >= level)
        if not len(above) or above[-1] == len(y) - 1:
            found.append(-np.inf if not len(above) else np.inf)
            continue
        k = above[-1]
        found.append(x[k] + (y[k] - level) / (y[k] - y[k + 1]) * (x[k + 1] - x[k]))
    low, middle, high = np.quantile(found, (0.025, 0.5, 0.975), method="nearest")
    return (rounded(middle), rounded(low), rounded(high))


def rounded(log: float) -> float:
    r"""A size from its logarithm, to four digits."""
    return float(f"{np.exp(log):.4g}")


def span(found: Crossing, sizes: Sequence[float]) -> str:
    r"""A crossing as a cell of a table; what lies beyond the sizes is said to.

    Example:
        >>> span((120.0, 0.0, np.inf), [30, 1000]), span((np.inf, 800.0, np.inf), [30, 1000])
        ('120 (below 30 to above 1,000)', 'above 1,000 (from 800)')
    """
    least, most = (f"{n:,.0f}" for n in (min(sizes), max(sizes)))
    middle, low, high = found

    def end(value: float) -> str:
        if value == 0:
            return f"below {least}"
        return f"above {most}" if np.isinf(value) else f"{value:,.0f}"

    if middle == 0:
        return end(middle) if high == 0 else f"{end(middle)} (up to {end(high)})"
    if np.isinf(middle):
        return end(middle) if np.isinf(low) else f"{end(middle)} (from {end(low)})"
    return f"{end(middle)} ({end(low)} to {end(high)})"
