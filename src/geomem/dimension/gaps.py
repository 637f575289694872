r"""When is a gap in a spectrum more than chance? Three ways in which noise makes gaps.

Eigenvalues :math:`\lambda_1 \geq \dots \geq \lambda_d` with a gap after the k-th, of ratio
:math:`r = \lambda_k / \lambda_{k+1}`. White noise has no dimension, and yet its spectra gape:

* **at the hard edge.** The covariance of about as many points as dimensions (square Wishart)
  has eigenvalues as close to 0 as it likes. The j smallest leave the rest behind with the
  volume of :math:`\prod_i \lambda_i^{-1/2} \prod_{i<l} |\lambda_i - \lambda_l|`, that is

  .. math:: P(\ln r_j > \ell) \leq \exp \left( -\tfrac{1}{2} j^2
      (\ell - 1.4 \, j^{-1/3}) \right)

  whatever d is; the exponent is exact, the constant was fitted to 4,000 spectra at each of
  d = 8, 16, 40 and covers their 90 and 99 % points for j up to d/4. Neither is it known
  beforehand how many directions are lost: j shares the level in parts
  :math:`6 / \pi^2 j^2`. Rectangular Wishart spectra have a softer edge and smaller gaps.
* **at condensation.** Where a few training points share a noisy one, the k kept directions
  are the differences between them. In a random energy model the k-th and the next weight are
  :math:`(\Gamma_{k+1} / \Gamma_k)^{1/x}` apart, :math:`\Gamma_k` the arrival times of a Poisson
  process and x <= 1 the ratio of temperatures, so that

  .. math:: P(\ln r_k > \ell) = e^{-k x \ell} \, .

  At x = 1 condensation begins; further below, ratios are larger still, but then the weights
  miss the band in which a direction counts as kept. For a band from 1/2 to 3/2, x = 1 gives
  exact denoisers of white noise a gap in 1.2 % of 1,000 cases where 1 % is asked for, x = 0.7
  in .4 %; for one from .05, x = 1/2 is needed.

  A manifold's kept directions are all alike, near 1, and those of a few points are not: they lie
  anywhere in the band, evenly in the logarithm. So the chance that k of them are all within
  :math:`\delta` of 1 is the k-th power of the band's share, and Fisher's method puts both
  together: two independent p-values of product q have the p-value :math:`q (1 - \ln q)`.
  At 1 %, exact denoisers of white noise have such a gap in at most 1.4 % of cases from d = 5 on,
  at any level, and in up to 2.7 % in d = 2 and 3 (without likeness 1.9 and 3.7 %).
* **anywhere**, if the logarithms are thrown at random: the largest of n spacings (Fisher).

References:
    | Edelman, Eigenvalues and condition numbers of random matrices (1988): the hard edge
    | Derrida, Random-energy model (1981); Bouchaud & Mézard, cond-mat/9707047
    | Fisher, Tests of significance in harmonic analysis (1929): the largest of n spacings
    | Fisher, Statistical methods for research workers (1932): combining p-values
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Fitted constant of the hard edge, see above.
_EDGE = 1.4
# A manifold keeps at most 1, networks overshoot by a little; a posterior over a few separate
# points keeps any number.
LARGEST_KEPT = 1.5


def hard_edge_p_value(log_ratio: float, lost: int) -> float:
    r"""Chance of such a gap above the smallest eigenvalues of a square Wishart matrix.

    Arguments:
        log_ratio: The logarithm :math:`\ell` of the ratio.
        lost: How many eigenvalues j lie below the gap.

    Example:
        One small eigenvalue means little; four of them, as far away, mean much.

        >>> [round(hard_edge_p_value(5.0, lost), 5) for lost in (1, 2, 4)]
        [0.27191, 0.00276, 0.0]
    """
    exponent = lost**2 / 2 * (log_ratio - _EDGE * lost ** (-1 / 3))
    scanned = math.pi**2 * lost**2 / 6
    return min(1.0, scanned * math.exp(-exponent)) if exponent > 0 else 1.0


def condensation_p_value(log_ratio: float, kept: int, temperature: float = 1.0) -> float:
    r"""Chance of such a gap between the k-th and the next weight at condensation.

    Arguments:
        log_ratio: The logarithm of the ratio.
        kept: How many eigenvalues k lie above the gap.
        temperature: The ratio x of temperatures.

    Example:
        >>> round(condensation_p_value(math.log(10), kept=1), 3)
        0.1
    """
    return min(1.0, math.exp(-kept * temperature * log_ratio))


def likeness_p_value(
    values: Sequence[float], low: float = 0.5, high: float = LARGEST_KEPT
) -> float:
    r"""Bound on the chance that eigenvalues thrown into a band are all as near 1.

    They are thrown evenly in the logarithm. Up to the nearer end of the band it is exact.

    Arguments:
        values: The kept eigenvalues.
        low: The band's lower end.
        high: Its upper end.

    Example:
        >>> round(likeness_p_value([1.02, 0.95]), 4), likeness_p_value([1.02, 0.55])
        (0.0087, 1.0)
    """
    spread = max(abs(math.log(v)) for v in values)
    return min(1.0, 2 * spread / math.log(high / low)) ** len(values)


def together(*p_values: float) -> float:
    r"""The p-value of two independent ones, by their product (Fisher).

    Example:
        >>> round(together(0.05, 0.05), 4), together(1.0, 1.0), together(0.0, 1.0)
        (0.0175, 1.0, 0.0)
    """
    q = math.prod(p_values)
    return q * (1 - math.log(q)) if q > 0 else 0.0


def gap_p_value(
    log_ratio: float,
    kept: int,
    lost: int,
    temperature: float = 1.0,
    *,
    values: Sequence[float] | None = None,
    low: float = 0.5,
) -> float:
    r"""The larger of both: a gap must be too much for either.

    Arguments:
        log_ratio: The logarithm of the ratio across the gap.
        kept: How many eigenvalues lie above.
        lost: How many lie below.
        temperature: The ratio x of temperatures at condensation.
        values: The kept eigenvalues, if how alike they are shall count, too.
        low: The threshold above which they count as kept.
    """
    above = condensation_p_value(log_ratio, kept, temperature)
    if values is not None:
        above = together(above, likeness_p_value(values, low))
    return max(above, hard_edge_p_value(log_ratio, lost))


def gap_ratio(alpha: float, kept: int, lost: int, temperature: float = 1.0) -> float:
    r"""The least ratio at which :func:`gap_p_value` is not above a level.

    Example:
        >>> [round(gap_ratio(0.01, k, 30), 1) for k in (1, 2, 7)]
        [100.0, 10.0, 1.9]
    """
    scanned = math.pi**2 * lost**2 / 6
    edge = _EDGE * lost ** (-1 / 3) + 2 * math.log(scanned / alpha) / lost**2
    return math.exp(max(-math.log(alpha) / (kept * temperature), edge))


def spacing_p_value(share: float, n: int) -> float:
    r"""Chance that the largest of n random spacings takes such a share of the whole.

    .. math:: P(\max > g) = \sum_k (-1)^{k+1} \binom{n}{k} (1 - k g)^{n-1} \, , \quad k g < 1

    Example:
        >>> round(spacing_p_value(0.75, 2), 2)
        0.5
    """
    # The alternating sum is bounded by its first term, which is the Bonferroni bound.
    if n < 2:
        return 1.0
    bound = n * (1 - share) ** (n - 1)
    if bound < 0.05 or n > 200:
        return min(1.0, bound)
    terms = range(1, math.floor(1 / share) + 1)
    total = math.fsum(
        (-1) ** (k + 1) * math.comb(n, k) * max(1 - k * share, 0) ** (n - 1) for k in terms
    )
    return min(1.0, max(0.0, total))
