r"""Who is behind a noisy point: posteriors over training points, and how they add up.

The posterior over a whole set is the merge of the posteriors over its parts, in any order and
grouping. Chunks of memory, memory-mapped files, streams and the machines of a cluster are
therefore one case, and the fast pass (:mod:`geomem.exact.one_pass`) only has to know a block.

Far from the data, or at tiny levels, an exponent :math:`\|x - x_i\|^2 / 2 \sigma^2` of 1e14 has
no :math:`\ln N` left in float64. Exponents are therefore kept relative to the nearest point's,
and its own as a sum of two float64 (:mod:`geomem.exact.twofold`), so that parts can be merged.

The functions here are slow and differentiable twins: float64 throughout, every pair of points
at every level.

References:
    | Dynamical Regimes of Diffusion Models (Biroli et al., 2024), arXiv 2402.18491
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact.blocks import NOT_FINITE, Block
from geomem.exact.twofold import ROUNDING, divide, squared_distances, two_sum

# Logarithms of weights are wanted to better than this, so that weights are, too.
LOG_WEIGHT_ERROR = 1e-9
# Where it may be more than this, weights are called undecided.
UNDECIDED = 1e-7
# Points that are lighter than exp(-60) of the heaviest one cannot be seen in float64.
NEGLIGIBLE = 60.0
_ELEMENTS = 2**18


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
            by at most this times the diameter of the data, beside the rounding of products. It
            is infinite where 32 digits do not tell which points are the nearest.
        remainder: What float64 leaves out of ``log_partition``, with shape :math:`(T, B)`; for
            :meth:`merge`.
    """

    log_partition: Tensor
    mean: Tensor
    participation: Tensor
    entropy: Tensor
    dropped: Tensor
    remainder: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    @property
    def effective_points(self) -> Tensor:
        r"""How many training points share ``x``, with shape :math:`(T, B)`."""
        return 1 / self.participation

    def merge(self, other: Posterior) -> Posterior:
        r"""The posterior over the union of both parts."""
        a, b = self.log_partition, other.log_partition
        gap = (a - b) + (self.remainder - other.remainder)
        # Logistic functions add up to 1 where the logarithms are too large for a sum of them.
        p, q = gap.sigmoid(), (-gap).sigmoid()
        larger = torch.where(gap > 0, a, b)
        more = torch.nn.functional.softplus(torch.where(gap > 0, -gap, gap))
        rest = torch.where(gap > 0, self.remainder, other.remainder)
        doubt = ROUNDING * torch.maximum(a.detach().abs(), b.detach().abs())
        undecided = (doubt > UNDECIDED) & (gap.detach().abs() < NEGLIGIBLE + 2 * doubt)
        dropped = [torch.where(w > 0, w * part.dropped, 0) for w, part in ((p, self), (q, other))]
        log_partition, remainder = two_sum(larger, more + rest)
        return Posterior(
            log_partition,
            scale(p, self.mean) + scale(q, other.mean),
            p**2 * self.participation + q**2 * other.participation,
            p * self.entropy + q * other.entropy - torch.xlogy(p, p) - torch.xlogy(q, q),
            (dropped[0] + dropped[1]).masked_fill(undecided, torch.inf),
            remainder,
        )


def scale(weight: Tensor, x: Tensor) -> Tensor:
    r"""A weight with shape :math:`(T, B)` times something with shape :math:`(T, B, *)`."""
    product: Tensor = weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim)) * x
    return product


@dataclass(frozen=True)
class Energies:
    r"""Exponents :math:`\|x - x_i\|^2 / 2 \sigma^2` of points, relative to the nearest one's.

    Attributes:
        excess: What each point's has above the nearest one's, with shape :math:`(T, B, n)`.
        least: The nearest one's, with shape :math:`(T, B)`.
        rest: What float64 leaves out of it, with shape :math:`(T, B)`.
        undecided: Where rounding still reaches the weights, with shape :math:`(T, B)`.
    """

    excess: Tensor
    least: Tensor
    rest: Tensor
    undecided: Tensor

    def log_weights(self, whole: Posterior) -> Tensor:
        r"""Logarithms of weights in the posterior of a whole, with shape :math:`(T, B, n)`."""
        gap = (self.least + whole.log_partition) + (self.rest + whole.remainder)
        return (-self.excess - gap[..., None]).clamp(max=0)

    def posterior(self, data: Tensor | None = None) -> Posterior:
        r"""The posterior over points: shared by all queries, ``(n, d)``, or each query's own,
        ``(B, n, d)``; without them, its scalars.
        """
        log_sum = (-self.excess).logsumexp(-1, keepdim=True)
        log_weights = -self.excess - log_sum
        weights = log_weights.exp()
        if data is None:
            mean = weights[..., :0]
        elif data.ndim == 2:
            mean = torch.tensordot(weights, data, dims=1)
        else:
            mean = (weights.transpose(0, 1) @ data).transpose(0, 1)
        log_partition, remainder = two_sum(-self.least, log_sum[..., 0] - self.rest)
        return Posterior(
            log_partition,
            mean,
            weights.square().sum(-1),
            -(weights * log_weights).sum(-1),
            torch.zeros_like(log_partition).masked_fill(self.undecided, torch.inf),
            remainder,
        )


def rounding_of_products(x_squares: Tensor, largest: Tensor, d: int) -> Tensor:
    r"""What rounding may leave of a squared distance that was taken by a float64 product.

    A few eps of the terms that cancelled: :math:`(8 + \sqrt d)\, \epsilon (|x|^2 + |x_i|^2)`.
    """
    bound: Tensor = (8 + d**0.5) * torch.finfo(torch.float64).eps * (x_squares + largest)
    return bound


def decide(
    excess: Tensor,
    nearest: Tensor,
    x: Tensor,
    levels: Tensor,
    points: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Takes distances again, to 32 digits, where those of float64 would blur the weights.

    Arguments:
        excess: Squared distances above the smallest, with shape :math:`(B, n)`, in float64, from
            explicit differences; those that blur are replaced.
        nearest: The smallest squared distances, with shape :math:`(B)`.
        x: The queries, with shape :math:`(B, d)`.
        levels: The noise levels, with shape :math:`(T, B)`.
        points: The points of pairs (query, column), with shape :math:`(P, d)`.

    Returns:
        The smallest squared distances as a sum of two float64, each with shape :math:`(B)`, and
        where even they do not decide, with shape :math:`(T, B)`.
    """
    rest, undecided = torch.zeros_like(nearest), torch.zeros_like(levels, dtype=torch.bool)
    error = rounding_of_products(nearest, rest, x.shape[1])
    b, i = _blurred(excess, error, levels)
    if len(b) == 0:
        return nearest, rest, undecided
    size = max(1, _ELEMENTS // x.shape[1])
    pairs = zip(torch.split(b, size), torch.split(i, size), strict=True)
    found = [squared_distances(x[p], points(p, q)) for p, q in pairs]
    high, low = (torch.cat([pair[k] for pair in found]) for k in (0, 1))
    # The smallest of the pairs: by the first number, then by the second.
    least = nearest.scatter_reduce(0, b, high, "amin", include_self=False)
    ties = torch.where(high == least[b], low, torch.inf)
    rest = rest.scatter_reduce(0, b, ties, "amin", include_self=False)
    excess[b, i] = (high - least[b]) + (low - rest[b])
    doubt = ROUNDING * least
    for t, s in enumerate(levels):
        shaky = doubt / (2 * s.square()) > UNDECIDED
        if bool(shaky.any()):
            seen = excess <= (2 * NEGLIGIBLE * s.square() + 2 * doubt)[:, None]
            undecided[t] = shaky & (seen.sum(1) > 1)
    return least, rest, undecided


def _blurred(excess: Tensor, error: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    # Rounding reaches the weights at levels whose square is below `reach`, and there only those
    # of points within exp(-60) of the nearest.
    reach = error / (2 * LOG_WEIGHT_ERROR)
    blurred = levels.amin(0).square() < reach
    if not bool(blurred.any()):
        none = torch.empty(0, dtype=torch.long, device=levels.device)
        return none, none
    largest = torch.minimum(reach, levels.amax(0).square())
    visible = excess <= (2 * NEGLIGIBLE * largest + 2 * error)[:, None]
    b, i = (visible & blurred[:, None]).nonzero(as_tuple=True)
    return b, i


def all_pairs(x: Tensor, levels: Tensor, block: Block) -> Energies:
    r"""Exponents of every pair in float64, differentiable in ``x`` and the levels.

    Arguments:
        x: The queries, with shape :math:`(B, d)`, in float64.
        levels: The noise levels, with shape :math:`(T, B)`.
        block: The training points.

    Raises:
        InputError: If a point is not finite.
    """
    q, y = x - block.centre, block.centred(slice(None), torch.float64)
    x_squares, y_squares = q.square().sum(1, keepdim=True), y.square().sum(1)
    if not bool(torch.isfinite(y_squares).all()):
        raise InputError(NOT_FINITE)
    squares = x_squares + y_squares - 2 * q @ y.T
    error = rounding_of_products(x_squares, y_squares.max(), x.shape[1]).detach()[:, 0]
    fixed = squares.detach()
    b, i = _blurred(fixed - fixed.amin(1, keepdim=True), error, levels.detach())
    if len(b):
        size = max(1, 2**21 // x.shape[1])
        pairs = zip(torch.split(b, size), torch.split(i, size), strict=True)
        again = [(x[p] - block.points(k)).square().sum(1) for p, k in pairs]
        squares = squares.index_put((b, i), torch.cat(again))
    nearest = squares.gather(1, squares.detach().argmin(1, keepdim=True))
    excess = squares - nearest
    sharp = excess.detach().clone()
    high, low, undecided = decide(
        sharp, nearest.detach()[:, 0], x.detach(), levels.detach(), lambda p, k: block.points(k)
    )
    # The numbers of one, the derivatives of the other.
    excess = sharp + (excess - excess.detach())
    variances = 2 * levels**2
    least = nearest[:, 0] / variances
    exact, rest = divide(high, low, variances.detach())
    least = exact + (least - least.detach())
    return Energies(excess / variances[..., None], least, rest, undecided)
