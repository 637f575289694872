r"""Posteriors along noised paths: all levels from two products.

On the path :math:`x_t = y_0 + \sigma z` squared distances are linear in two numbers a point,

.. math:: \frac{\|x_t - x_i\|^2}{2 \sigma^2} = \frac{A_i}{2 \sigma^2} + \frac{G_i}{\sigma}
    + \frac{\|z\|^2}{2} \, , \qquad A_i = \|y_0 - x_i\|^2 , \; G_i = z \cdot (y_0 - x_i) \, .

The largest exponent of each level is not known before the last point was seen, so sums are kept
relative to the largest one so far (Milakov & Gimelshein 2018, arXiv 1805.02867).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geomem.one_pass import LOG2E, Block
from geomem.posterior import LOG_WEIGHT_ERROR, Posterior, rounding_of_products

_CACHED, _BYTES = 2**18, 2**24
_VISIBLE = 90.0  # bits: lighter than 2^-90 of the heaviest is nothing in float64


class _Sums:
    # Sums over points at T levels, relative to 2^largest.
    def __init__(self, levels: Tensor, d: int) -> None:
        T, B = levels.shape
        self.largest = levels.new_full((T, B), -torch.inf)
        self.weights, self.squares, self.moments = (levels.new_zeros(T, B) for _ in range(3))
        self.mean = levels.new_zeros(T, B, d)

    def rescale(self, at: slice, largest: Tensor) -> None:
        old = self.largest[at]
        bits = torch.where(old == -torch.inf, 0.0, old - largest)
        factor = bits.exp2()
        # Moments are of exponents, which move with their origin.
        self.moments[at] = factor * (self.moments[at] + bits * self.weights[at])
        self.weights[at] *= factor
        self.squares[at] *= factor.square()
        self.mean[at] *= factor[..., None]
        self.largest[at] = largest


def path_posterior(
    y_0: Tensor, z: Tensor, levels: Tensor, block: Block, dtype: torch.dtype, with_mean: bool
) -> Posterior:
    r"""Posterior over a block at the points of noised paths.

    Arguments:
        y_0: The starts about the centre, with shape :math:`(B, d)`, in float64.
        z: The noise, with shape :math:`(B, d)`, in float64.
        levels: The noise levels, with shape :math:`(T, B)`, in float64.
        block: The training points.
        dtype: The dtype of weights and of the products of means.
        with_mean: Whether to compute means.
    """
    B, d = y_0.shape
    sums = _Sums(levels, d if with_mean else 0)
    lowest = -62.0 if dtype == torch.float32 else -500.0
    size = max(1, min(_CACHED // B, _BYTES // (8 * d)))
    together = max(1, 4 * _CACHED // (B * size))
    for chunk in block.chunks(size):
        y = block.centred(chunk)
        A, G = _two_products(y_0, z, y, levels)
        for k in range(0, len(levels), together):
            at = slice(k, k + together)
            _add(sums, at, levels[at], A, G, y if with_mean else None, dtype, lowest)
    return _posterior(sums, z, levels, len(block), lowest)


def _two_products(y_0: Tensor, z: Tensor, y: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    B, d = y_0.shape
    products = torch.cat([y_0, z]) @ y.T
    y_squares, squares = y.square().sum(1), y_0.square().sum(1)
    A = (y_squares - 2 * products[:B]).add_(squares[:, None]).clamp_(min=0)
    G = (z * y_0).sum(1, keepdim=True) - products[B:]
    reach = (y_squares.max() * z.square().sum(1)).sqrt()
    smallest = levels.min(0).values
    error = rounding_of_products(squares, y_squares.max(), d) / smallest.square()
    error = error + rounding_of_products(reach, reach, d) / smallest
    blurred = error > LOG_WEIGHT_ERROR
    if bool(blurred.any()):
        _again(A, G, y_0, z, y, levels, blurred, error)
    return A, G


def _again(
    A: Tensor,
    G: Tensor,
    y_0: Tensor,
    z: Tensor,
    y: Tensor,
    levels: Tensor,
    blurred: Tensor,
    error: Tensor,
) -> None:
    # Explicit differences for whatever a level may see; in place.
    seen = torch.zeros_like(A, dtype=torch.bool)
    for s in levels:
        bits = -LOG2E * (A / (2 * s.square()[:, None]) + G / s[:, None])
        seen |= bits >= bits.amax(1, keepdim=True) - _VISIBLE - 4 * LOG2E * error[:, None]
    b, i = (seen & blurred[:, None]).nonzero(as_tuple=True)
    for some in torch.split(torch.arange(len(b), device=b.device), max(1, 2**21 // y.shape[1])):
        difference = y_0[b[some]] - y[i[some]]
        A[b[some], i[some]] = difference.square().sum(1)
        G[b[some], i[some]] = (z[b[some]] * difference).sum(1)


def _add(
    sums: _Sums,
    at: slice,
    levels: Tensor,
    A: Tensor,
    G: Tensor,
    y: Tensor | None,
    dtype: torch.dtype,
    lowest: float,
) -> None:
    a, b = -LOG2E / (2 * levels.square()), -LOG2E / levels
    bits = torch.addcmul(G * b[..., None], A, a[..., None])  # (T, B, n)
    largest = torch.maximum(sums.largest[at], bits.amax(2))
    sums.rescale(at, largest)
    excess = torch.empty_like(bits, dtype=dtype)
    torch.sub(bits, largest[..., None], out=excess)
    weights = excess.clamp_(min=lowest).exp2()
    sums.weights[at] += weights.sum(2)
    sums.squares[at] += torch.linalg.vector_norm(weights, dim=2).double().square()
    sums.moments[at] += torch.linalg.vecdot(weights, excess)
    if y is not None:
        products = weights.flatten(0, 1) @ y.to(dtype)
        sums.mean[at] += products.reshape(*levels.shape, -1)


def _posterior(sums: _Sums, z: Tensor, levels: Tensor, n: int, lowest: float) -> Posterior:
    log_sum = sums.weights.log()
    base = math.log(2) * sums.largest - z.square().sum(1) / 2
    entropy = log_sum - math.log(2) * sums.moments / sums.weights
    return Posterior(
        base + log_sum,
        sums.mean / sums.weights[..., None],
        sums.squares / sums.weights.square(),
        entropy,
        n * 2**lowest / sums.weights,
    )
