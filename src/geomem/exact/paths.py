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

from geomem.errors import InputError
from geomem.exact.blocks import NOT_FINITE, Block
from geomem.exact.one_pass import BLURRED, LOG2E, NAMES, block_posterior
from geomem.exact.posterior import Posterior, rounding_of_products

_CACHED, _BYTES = 2**19, 2**25


class _Sums:
    # Sums over points at T levels, relative to 2^largest; working arrays of one chunk.
    def __init__(
        self, levels: Tensor, d: int, size: int, together: int, dtype: torch.dtype
    ) -> None:
        T, B = levels.shape
        self.largest = levels.new_full((T, B), -torch.inf)
        self.weights, self.squares, self.moments = (levels.new_zeros(T, B) for _ in range(3))
        self.mean = levels.new_zeros(T, B, d)
        self.bits = levels.new_empty(B * size)
        self.excess = torch.empty(B * size, dtype=dtype, device=levels.device)
        self.group = torch.empty(together, B * size, dtype=dtype, device=levels.device)
        # Lighter than 2^-62 cannot be seen beside 1, and its square is still a normal number.
        self.lowest = -62.0 if dtype == torch.float32 else -500.0

    def add(self, t: int, a: Tensor, b: Tensor, A: Tensor, G: Tensor, out: Tensor) -> None:
        r"""Adds a chunk at level t; its weights go into ``out``, with shape (B, n)."""
        bits = torch.mul(G, b[:, None], out=self.bits[: G.numel()].view_as(G))
        bits.addcmul_(A, a[:, None])
        largest = torch.maximum(self.largest[t], bits.amax(1))
        self._rescale(t, largest)
        excess = self.excess[: G.numel()].view_as(G)
        torch.sub(bits, largest[:, None], out=excess).clamp_(min=self.lowest)
        weights = torch.exp2(excess, out=out)
        self.weights[t] += weights.sum(1)
        self.squares[t] += torch.linalg.vector_norm(weights, dim=1).double().square()
        self.moments[t] += torch.linalg.vecdot(weights, excess)

    def _rescale(self, t: int, largest: Tensor) -> None:
        old = self.largest[t]
        if torch.equal(old, largest):
            return
        bits = torch.where(old == -torch.inf, 0.0, old - largest)
        factor = bits.exp2()
        # Moments are of exponents, which move with their origin.
        self.moments[t] = factor * (self.moments[t] + bits * self.weights[t])
        self.weights[t] *= factor
        self.squares[t] *= factor.square()
        self.mean[t] *= factor[:, None]
        self.largest[t] = largest

    def posterior(self, z: Tensor, n: int) -> Posterior:
        log_sum = self.weights.log()
        base = math.log(2) * self.largest - z.square().sum(1) / 2
        return Posterior(
            base + log_sum,
            self.mean / self.weights[..., None],
            self.squares / self.weights.square(),
            log_sum - math.log(2) * self.moments / self.weights,
            n * 2**self.lowest / self.weights,
            torch.zeros_like(log_sum),
        )


def path_posterior(
    y_0: Tensor,
    z: Tensor,
    levels: Tensor,
    block: Block,
    *,
    dtype: torch.dtype,
    log_tolerance: float,
    with_mean: bool,
) -> Posterior:
    r"""Posterior over a block at the points of noised paths.

    Arguments:
        y_0: The starts, with shape :math:`(B, d)`, in float64.
        z: The noise, with shape :math:`(B, d)`, in float64.
        levels: The noise levels, with shape :math:`(T, B)`, in float64.
        block: The training points.
        dtype: The dtype of weights and of the products of means.
        log_tolerance: As for :func:`~geomem.exact.one_pass.block_posterior`, which answers at
            the levels where the rounding of products would reach the weights.
        with_mean: Whether to compute means.
    """
    B, d = y_0.shape
    size = max(1, min(_CACHED // B, _BYTES // (8 * d), len(block)))
    together = min(len(levels), max(1, 4 * _CACHED // (B * size))) if with_mean else 1
    sums = _Sums(levels, d if with_mean else 0, size, together, dtype)
    points = block.buffer(size, torch.float64)
    a, b = -LOG2E / (2 * levels.square()), -LOG2E / levels
    start = y_0 - block.centre
    squares, both = start.square().sum(1), torch.cat([start, z])
    along, largest = (z * start).sum(1, keepdim=True), start.new_zeros(())
    for chunk in block.chunks(size):
        y = block.centred(chunk, torch.float64, points)
        products, y_squares = both @ y.T, y.square().sum(1)
        largest = torch.maximum(largest, y_squares.max())
        A = (y_squares - 2 * products[:B]).add_(squares[:, None]).clamp_(min=0)
        G = along - products[B:]
        for k in range(0, len(levels), together):
            some = range(k, min(k + together, len(levels)))
            group = sums.group[: len(some), : G.numel()].view(len(some), *G.shape)
            for t, out in zip(some, group, strict=True):
                sums.add(t, a[t], b[t], A, G, out)
            if with_mean:
                product = group.flatten(0, 1) @ y.to(dtype)
                sums.mean[some.start : some.stop] += product.view(len(some), B, d)
    if not math.isfinite(float(largest)):
        raise InputError(NOT_FINITE)
    known = sums.posterior(z, len(block))
    reach = (largest * z.square().sum(1)).sqrt()
    error = rounding_of_products(squares, largest, d) / levels.square()
    error = error + rounding_of_products(reach, reach, d) / levels
    for t in (error > BLURRED).any(1).nonzero()[:, 0].tolist():
        x, level = y_0 + levels[t, :, None] * z, levels[t, None]
        sharp = block_posterior(
            x, level, block, dtype=dtype, log_tolerance=log_tolerance, with_mean=with_mean
        )
        for name in NAMES:
            getattr(known, name)[t] = getattr(sharp, name)[0]
    return known
