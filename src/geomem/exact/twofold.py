r"""Sums of two float64: squared distances to about 32 digits, where float64 cannot tell a tie.

An exponent :math:`\|x - x_i\|^2 / 2 \sigma^2` of 1e14 holds no :math:`\ln N` in float64, and two
points that are equally near may seem not to be. Both are cured by a second float64 that
keeps what rounding left over; the transformations are those of Dekker (1971) and Knuth.

References:
    | Ogita, Rump & Oishi, Accurate sum and dot product (2005), SIAM J. Sci. Comput. 26
"""

from __future__ import annotations

import torch
from torch import Tensor

# A sum of positive terms loses 2^-104 a step, and a tree over d terms has log2(d) of them.
ROUNDING = 2.0**-99
_SPLIT = 2.0**27 + 1


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`a + b` rounded, and what rounding left over, exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`a b` rounded, and what rounding left over, exactly."""
    p = a * b
    c, d = _SPLIT * a, _SPLIT * b
    a_high, b_high = c - (c - a), d - (d - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def squared_distances(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\|x_p - y_p\|^2` for pairs, as a sum of two float64, each with shape :math:`(P)`.

    Equal pairs give equal bits, wherever they stand.

    Arguments:
        x: Points, with shape :math:`(P, d)`, in float64.
        y: Points, with shape :math:`(P, d)`, in float64.
    """
    difference, rest = two_sum(x, -y)
    high, low = two_product(difference, difference)
    low = low + (2 * difference * rest + rest * rest)
    while high.shape[1] > 1:  # halves are added, so that the order is always the same
        if high.shape[1] % 2:
            high, low = (torch.nn.functional.pad(t, (0, 1)) for t in (high, low))
        (a, b), (c, d) = high.chunk(2, dim=1), low.chunk(2, dim=1)
        total, rest = two_sum(a, b)
        high, low = two_sum(total, rest + (c + d))
    return high[:, 0], low[:, 0]


def divide(high: Tensor, low: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    r"""A sum of two float64 over a float64, as a sum of two."""
    quotient = high / by
    product, rest = two_product(quotient, by)
    return two_sum(quotient, ((high - product) - rest + low) / by)
