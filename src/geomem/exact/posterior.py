r"""Who is behind a noisy point: posteriors over training points, and how they add up.

The posterior over a whole set is the merge of the posteriors over its parts, in any order and
grouping. Chunks of memory, memory-mapped files, streams and the machines of a cluster are
therefore one case, and the fast pass (:mod:`geomem.exact.one_pass`) only has to know a block.

The functions here are its slow and differentiable twins: float64 throughout, every pair of
points at every level.

References:
    | Dynamical Regimes of Diffusion Models (Biroli et al., 2024), arXiv 2402.18491
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Logarithms of weights are wanted to better than this, so that weights are, too.
LOG_WEIGHT_ERROR = 1e-9
# Points that are lighter than exp(-60) of the heaviest one cannot be seen in float64.
_NEGLIGIBLE = 60.0


@dataclass(frozen=True)
class Posterior:
    r"""What a noisy point tells about which training point is behind it.

    Attributes:
        log_partition: :math:`\log \sum_i \exp(-\|x - x_i\|^2 / 2 \sigma^2)`, with shape
            :math:`(T, B)`, in float64.
        mean: The posterior mean :math:`\sum_i w_i x_i`, with shape :math:`(T, B, *)`; empty,
            :math:`(T, B, 0)`, where only the scalars were asked for.
        participation: The sum of squared weights, with shape :math:`(T, B)`.
        entropy: The entropy of the weights in nats, with shape :math:`(T, B)`.
        dropped: Certified bound on the weight that was left out, with shape :math:`(T, B)`; 0
            where nothing was. Weights are off by at most this in total variation, and the mean
            by at most this times the diameter of the data, beside the rounding of products.
    """

    log_partition: Tensor
    mean: Tensor
    participation: Tensor
    entropy: Tensor
    dropped: Tensor

    @property
    def effective_points(self) -> Tensor:
        r"""How many training points share ``x``, with shape :math:`(T, B)`."""
        return 1 / self.participation

    def merge(self, other: Posterior) -> Posterior:
        r"""The posterior over the union of both parts."""
        # Logistic functions add up to 1 where the logarithms are too large for a sum of them.
        p = (self.log_partition - other.log_partition).sigmoid()
        q = (other.log_partition - self.log_partition).sigmoid()
        return Posterior(
            torch.logaddexp(self.log_partition, other.log_partition),
            scale(p, self.mean) + scale(q, other.mean),
            p**2 * self.participation + q**2 * other.participation,
            p * self.entropy + q * other.entropy - torch.xlogy(p, p) - torch.xlogy(q, q),
            p * self.dropped + q * other.dropped,
        )


def scale(weight: Tensor, x: Tensor) -> Tensor:
    r"""A weight with shape :math:`(T, B)` times something with shape :math:`(T, B, *)`."""
    product: Tensor = weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim)) * x
    return product


def all_pairs(x: Tensor, levels: Tensor, data: Tensor) -> Posterior:
    r"""Posterior with every pair in float64, differentiable in ``x`` and the levels.

    Arguments:
        x: The queries, with shape :math:`(B, d)`, in float64 and about the data's centre.
        levels: The noise levels, with shape :math:`(T, B)`.
        data: Training points about the same centre, with shape :math:`(n, d)`.
    """
    return from_logits(logits(x, levels, data), data)


def from_logits(logits: Tensor, data: Tensor) -> Posterior:
    r"""Posterior from :math:`-|x - x_i|^2 / 2 \sigma^2` ``(T, B, n)`` and points.

    The points are shared by all queries, ``(n, d)``, or each query's own, ``(B, n, d)``.
    """
    # Far from all points, logits of -1e14 hold no ln N any more: weights about the largest
    # one still add up to 1 and keep the mean among the points.
    largest = logits.detach().amax(-1, keepdim=True)
    shifted = logits - largest
    log_sum = shifted.logsumexp(-1, keepdim=True)
    log_weights = shifted - log_sum
    weights = log_weights.exp()
    if data.ndim == 2:
        mean = torch.tensordot(weights, data, dims=1)
    else:
        mean = (weights.transpose(0, 1) @ data).transpose(0, 1)
    log_partition = (largest + log_sum)[..., 0]
    return Posterior(
        log_partition,
        mean,
        weights.square().sum(-1),
        -(weights * log_weights).sum(-1),
        torch.zeros_like(log_partition),
    )


def logits(x: Tensor, levels: Tensor, data: Tensor) -> Tensor:
    r""":math:`-|x - x_i|^2 / 2 \sigma^2`, with shape :math:`(T, B, n)`, in float64."""
    result: Tensor = -_squared_distances(x, data, levels) / (2 * levels[..., None] ** 2)
    return result


def rounding_of_products(x_squares: Tensor, largest: Tensor, d: int) -> Tensor:
    r"""What rounding may leave of a squared distance that was taken by a float64 product.

    A few eps of the terms that cancelled: :math:`(8 + \sqrt d)\, \epsilon (|x|^2 + |x_i|^2)`.
    """
    bound: Tensor = (8 + d**0.5) * torch.finfo(torch.float64).eps * (x_squares + largest)
    return bound


def _squared_distances(x: Tensor, data: Tensor, levels: Tensor) -> Tensor:
    x_squares, data_squares = x.square().sum(1, keepdim=True), data.square().sum(1)
    distances = x_squares + data_squares - 2 * x @ data.T
    error = rounding_of_products(x_squares, data_squares.max(), x.shape[1])
    again = _inaccurate(distances.detach(), error.detach(), levels)
    b, i = again.nonzero(as_tuple=True)
    if len(b) == 0:
        return distances
    return distances.index_put((b, i), explicit_distances(x, data, b, i))


def _inaccurate(distances: Tensor, error: Tensor, levels: Tensor) -> Tensor:
    # Rounding reaches the weights at levels below `blurred`, and there only those of points
    # within exp(-60) of the nearest.
    blurred = error[:, 0] / (2 * LOG_WEIGHT_ERROR)
    largest = torch.minimum(blurred, levels.max(0).values ** 2)[:, None]
    nearest = distances.min(1, keepdim=True).values
    visible = distances <= nearest + 2 * _NEGLIGIBLE * largest + 2 * error
    again: Tensor = visible & (levels.min(0).values.square() < blurred)[:, None]
    return again


def explicit_distances(x: Tensor, data: Tensor, b: Tensor, i: Tensor) -> Tensor:
    r""":math:`|x_b - x_i|^2` for pairs, with shape :math:`(P)`: subtract before squaring."""
    size = max(1, 2**21 // x.shape[1])
    pairs = zip(torch.split(b, size), torch.split(i, size), strict=True)
    return torch.cat([(x[p] - data[q]).square().sum(1) for p, q in pairs])
