r"""Exact denoisers: of a finite training set, of a Gaussian, and of mixtures of them.

The empirical denoiser is the global minimizer of the denoising loss on N points: the one
that memorizes perfectly. The Gaussian one is the best linear denoiser, the control of every
audit. For all of them :math:`\nabla_x D = \mathrm{Cov}[x_0 \mid x] / \sigma^2`.

Numbers first. Everything is computed in float64 about the mean of the data, whatever the
data. Distances come from one matrix product, and where its rounding would reach the weights
(about :math:`\epsilon (\|x\|^2 + \|y\|^2) / 2 \sigma^2`), those of the points that carry
weight are taken again by explicit differences: subtract before squaring. Weights are
logarithms until the last step.

References:
    | Dynamical Regimes of Diffusion Models (Biroli et al., 2024), arXiv 2402.18491
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.gaussian import GaussianDenoiser
from geomem.noise import check_levels

__all__ = ["EmpiricalDenoiser", "GaussianDenoiser", "MixtureDenoiser", "Posterior"]

# Logarithms of weights are wanted to better than this, so that weights are, too.
_LOG_WEIGHT_ERROR = 1e-9
# Points that are lighter than exp(-60) of the heaviest one cannot be seen in float64.
_NEGLIGIBLE = 60.0


@dataclass(frozen=True)
class Posterior:
    r"""What a noisy point tells about which training point is behind it.

    The posterior over a whole set is the merge of the posteriors over its parts, in any
    order and grouping. Chunks of memory, files on a disk and machines of a cluster are
    therefore the same case.

    Attributes:
        log_partition: :math:`\log \sum_i \exp(-\|x - x_i\|^2 / 2 \sigma^2)`, with shape
            :math:`(T, B)`, in float64.
        mean: The posterior mean :math:`\sum_i w_i x_i`, with shape :math:`(T, B, *)`.
        participation: The sum of squared weights, with shape :math:`(T, B)`.
        entropy: The entropy of the weights in nats, with shape :math:`(T, B)`.
    """

    log_partition: Tensor
    mean: Tensor
    participation: Tensor
    entropy: Tensor

    @property
    def effective_points(self) -> Tensor:
        r"""How many training points share ``x``, with shape :math:`(T, B)`."""
        return 1 / self.participation

    def merge(self, other: Posterior) -> Posterior:
        r"""The posterior over the union of both parts."""
        log_partition = torch.logaddexp(self.log_partition, other.log_partition)
        # Logistic functions add up to 1 where the logarithms are too large for a sum of them.
        p = (self.log_partition - other.log_partition).sigmoid()
        q = (other.log_partition - self.log_partition).sigmoid()
        return Posterior(
            log_partition,
            _scale(p, self.mean) + _scale(q, other.mean),
            p**2 * self.participation + q**2 * other.participation,
            p * self.entropy + q * other.entropy - torch.xlogy(p, p) - torch.xlogy(q, q),
        )


def _scale(weight: Tensor, x: Tensor) -> Tensor:
    return weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim)) * x


def _rows(sigmas: Tensor, x: Tensor) -> Tensor:
    # (T,) or (T, B) -> (T, B), in float64.
    sigmas = check_levels(sigmas).to(x.device).double()
    if sigmas.ndim == 1:
        return sigmas[:, None].expand(-1, len(x))
    if sigmas.ndim != 2 or sigmas.shape[1] != len(x):
        raise InputError(
            f"sigmas must have shape (T,) or (T, {len(x)}), got {tuple(sigmas.shape)}; "
            "pass one column for each query"
        )
    return sigmas


class EmpiricalDenoiser:
    r"""Exact denoiser of a finite training set: the one that memorizes perfectly.

    For the empirical distribution of :math:`x_1, \dots, x_N`,

    .. math::
        D(x, \sigma) = \sum_{i=1}^N w_i(x, \sigma) \, x_i \, , \qquad
        w_i(x, \sigma) \propto \exp \left( - \frac{\|x - x_i\|^2}{2 \sigma^2} \right) \, .

    Arguments:
        data: The training set, with shape :math:`(N, *)`.
        chunk_size: How many training points meet the queries at a time. It bounds memory
            and changes the result by rounding only.

    Raises:
        InputError: If the data are empty or not finite.

    Example:
        Between two points the exact denoiser hesitates; next to one it has decided.

        >>> denoiser = EmpiricalDenoiser(torch.tensor([[-1.0], [+1.0]]))
        >>> denoiser(torch.tensor([[0.0], [0.5]]), torch.tensor(1e-3)).flatten()
        tensor([0., 1.])
        >>> denoiser.posterior(torch.tensor([[0.0]]), torch.tensor([0.1, 9.0])).entropy.exp()
        tensor([[2.],
                [2.]], dtype=torch.float64)
    """

    def __init__(self, data: Tensor, chunk_size: int = 4096) -> None:
        # No module and no buffer: a training set does not belong into a state dict.
        if len(data) == 0 or data[0].numel() == 0:
            raise InputError("the training set is empty; pass at least one point")
        if not torch.isfinite(data).all():
            raise InputError("the training set holds NaN or infinite values; clean it first")
        self.data = data
        self.chunk_size = chunk_size
        flat = data.flatten(1).double()
        self._centre = flat.mean(0)
        self._chunks = [c - self._centre for c in torch.split(flat, chunk_size)]

    @property
    def num_samples(self) -> int:
        return len(self.data)

    def _queries(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.data.shape[1:]:
            raise InputError(
                f"a query has shape {tuple(x.shape[1:])} and a training point "
                f"{tuple(self.data.shape[1:])}; pass queries of shape (B, *)"
            )
        if not torch.isfinite(x).all():
            raise InputError("a query holds NaN or infinite values; check where it comes from")
        return x.flatten(1).double() - self._centre.to(x.device)

    def posterior(self, x: Tensor, sigmas: Tensor) -> Posterior:
        r"""Posterior at several noise levels, for one computation of the distances.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigmas: The noise levels, with shape :math:`(T)` or :math:`(T, B)`.

        Returns:
            The posterior over the training points; ``mean`` in the dtype of ``x``.

        Raises:
            InputError: If shapes do not match, ``x`` is not finite, or a level is not above 0.
        """
        queries, levels = self._queries(x), _rows(sigmas, x)
        parts = (_posterior(queries, levels, c.to(x.device)) for c in self._chunks)
        merged = reduce(Posterior.merge, parts)
        mean = (merged.mean + self._centre.to(x.device)).reshape(-1, *x.shape)
        return Posterior(
            merged.log_partition, mean.to(x.dtype), merged.participation, merged.entropy
        )

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.posterior(x, sigma.expand(1, len(x))).mean[0]

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithm of the noisy density in nats, for a level of shape () or (B).

        Returns:
            The log-density at each point, with shape :math:`(B)`, in float64.
        """
        d, level = x[0].numel(), sigma.double()
        log_partition = self.posterior(x, sigma.expand(1, len(x))).log_partition[0]
        return (
            log_partition - math.log(self.num_samples) - d * (level.log() + math.log(math.tau) / 2)
        )

    def log_weights(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithms of all posterior weights, with shape :math:`(B, N)`, in float64."""
        queries, levels = self._queries(x), _rows(sigma.expand(1, len(x)), x)
        logits = [_logits(queries, levels, c.to(x.device))[0] for c in self._chunks]
        return torch.cat(logits, dim=1).log_softmax(1)

    def weights(self, x: Tensor, sigma: Tensor, k: int) -> tuple[Tensor, Tensor]:
        r"""The ``k`` training points that weigh most, and their posterior weights.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            k: How many, at most :math:`N`.

        Returns:
            Their indices and weights, each with shape :math:`(B, k)`, heaviest first.
        """
        if not 1 <= k <= self.num_samples:
            raise InputError(f"k = {k} of {self.num_samples} points; pass 1 <= k <= N")
        top = self.log_weights(x, sigma).topk(k, dim=1)
        return top.indices, top.values.exp()

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        r"""Diagonal :math:`u^\top \mathrm{Cov}_w u / \sigma^2` along directions, exactly.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            directions: The vectors :math:`u` as columns, with shape :math:`(d, n)`.

        Returns:
            The diagonal, with shape :math:`(B, n)`, in float64.
        """
        weights = torch.split(self.log_weights(x, sigma).exp(), self.chunk_size, dim=1)
        projected = [c.to(x.device) @ directions.double() for c in self._chunks]
        parts = list(zip(weights, projected, strict=True))
        mean = torch.stack([w @ p for w, p in parts]).sum(0)
        level: Tensor = _scale(sigma.double().square(), mean.new_ones(len(x), 1))
        scale = max(float(p.square().max()) for p in projected)
        if scale * torch.finfo(torch.float64).eps > 1e-10 * float(level.min()):
            # E p² - (E p)² would cancel to noise; about the mean of each query it does not.
            rows = [sum(w[b] @ (p - m).square() for w, p in parts) for b, m in enumerate(mean)]
            return torch.stack([torch.as_tensor(row) for row in rows]) / level
        second = torch.stack([w @ p.square() for w, p in parts]).sum(0)
        variance: Tensor = (second - mean.square()).clamp(min=0)
        return variance / level


def _logits(x: Tensor, levels: Tensor, data: Tensor) -> Tensor:
    # -|x - x_i|²/2 sigma², with shape (T, B, N).
    return -_squared_distances(x, data, levels) / (2 * levels[..., None] ** 2)


def _squared_distances(x: Tensor, data: Tensor, levels: Tensor) -> Tensor:
    x_squares, data_squares = x.square().sum(1, keepdim=True), data.square().sum(1)
    distances = x_squares + data_squares - 2 * x @ data.T
    again = _inaccurate(distances.detach(), (x_squares + data_squares.max()).detach(), levels)
    b, i = again.nonzero(as_tuple=True)
    if len(b) == 0:
        return distances
    return distances.index_put((b, i), _explicit(x, data, b, i))


def _inaccurate(distances: Tensor, squares: Tensor, levels: Tensor) -> Tensor:
    # Rounding leaves a few eps of the terms that cancelled. It reaches the weights at levels
    # below `blurred`, and there only those of points within exp(-60) of the nearest.
    d_factor = 8 + distances.shape[1] ** 0.5
    error = d_factor * torch.finfo(distances.dtype).eps * squares
    blurred = error[:, 0] / (2 * _LOG_WEIGHT_ERROR)
    largest = torch.minimum(blurred, levels.max(0).values ** 2)[:, None]
    nearest = distances.min(1, keepdim=True).values
    visible = distances <= nearest + 2 * _NEGLIGIBLE * largest + 2 * error
    again: Tensor = visible & (levels.min(0).values.square() < blurred)[:, None]
    return again


def _explicit(x: Tensor, data: Tensor, b: Tensor, i: Tensor) -> Tensor:
    size = max(1, 2**24 // x.shape[1])
    pairs = zip(torch.split(b, size), torch.split(i, size), strict=True)
    return torch.cat([(x[p] - data[q]).square().sum(1) for p, q in pairs])


def _posterior(x: Tensor, levels: Tensor, data: Tensor) -> Posterior:
    logits = _logits(x, levels, data)
    # Far from all points, logits of -1e14 hold no ln N any more: weights about the largest
    # one still add up to 1 and keep the mean among the points.
    largest = logits.detach().amax(-1, keepdim=True)
    shifted = logits - largest
    log_sum = shifted.logsumexp(-1, keepdim=True)
    log_weights = shifted - log_sum
    weights = log_weights.exp()
    return Posterior(
        (largest + log_sum)[..., 0],
        torch.tensordot(weights, data, dims=1),
        weights.square().sum(-1),
        -(weights * log_weights).sum(-1),
    )


class MixtureDenoiser:
    r"""Exact denoiser of a mixture, from the exact denoisers of its components.

    With the components' noisy densities :math:`p_k` and weights :math:`\pi_k`,

    .. math:: D(x, \sigma) = \sum_k r_k D_k(x, \sigma) \, , \qquad r_k \propto \pi_k p_k(x) \, .

    Arguments:
        weights: The weights, with shape :math:`(K)`, above 0; they are normalised.
        components: Exact denoisers that answer ``log_density(x, sigma)``.

    Example:
        >>> left, right = (GaussianDenoiser(torch.tensor([m]), torch.zeros(1)) for m in (-1.0, 1.0))
        >>> mixture = MixtureDenoiser(torch.ones(2), [left, right])
        >>> mixture(torch.tensor([[0.5]]), torch.tensor(1.0))  # tanh(x / sigma²)
        tensor([[0.4621]])
    """

    def __init__(
        self, weights: Tensor, components: Sequence[GaussianDenoiser | EmpiricalDenoiser]
    ) -> None:
        if len(weights) != len(components) or not bool((weights > 0).all()) or not len(weights):
            raise InputError("a mixture needs one weight above 0 for each component")
        self.log_prior = (weights.double() / weights.double().sum()).log()
        self.components = list(components)

    def responsibilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Posterior weights of the components, with shape :math:`(K, B)`, in float64."""
        logs = torch.stack([c.log_density(x, sigma) for c in self.components])
        return (logs + self.log_prior.to(x.device)[:, None]).softmax(0)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        means = torch.stack([c(x, sigma) for c in self.components]).double()
        return _scale(self.responsibilities(x, sigma), means).sum(0).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        logs = torch.stack([c.log_density(x, sigma) for c in self.components])
        return (logs + self.log_prior.to(x.device)[:, None]).logsumexp(0)

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``: within components, and between them."""
        U, r = directions.double(), self.responsibilities(x, sigma)[..., None]
        within = torch.stack([c.jacobian_diagonal(x, sigma, U) for c in self.components])
        means = torch.stack([c(x, sigma).flatten(1).double() @ U for c in self.components])
        between = (r * (means - (r * means).sum(0)).square()).sum(0)
        return (r * within).sum(0) + between / _scale(
            sigma.double() ** 2, between.new_ones(len(x), 1)
        )
