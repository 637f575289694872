r"""The exact denoiser of a finite training set: the global minimizer of the denoising loss.

It memorizes perfectly, so it is the null model of every network, and must be right where
memorization lives: at small levels, next to duplicates, in thousands of dimensions. The work
is done by :mod:`geomem.exact.one_pass`, block by block; what is left out is bounded and reported.

References:
    | Dynamical Regimes of Diffusion Models (Biroli et al., 2024), arXiv 2402.18491
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact.blocks import Blocks, InMemory, as_blocks
from geomem.exact.covariance import covariance_operator, diagonal
from geomem.exact.neighbours import nearest
from geomem.exact.one_pass import Block
from geomem.exact.passes import PAIRS, QUERIES, Pass, blocks_of
from geomem.exact.posterior import Posterior, all_pairs, logits
from geomem.executors import Executor
from geomem.noise import check_levels
from geomem.operators import LinearOperator
from geomem.work import Forecast, Progress, say

# Longer work, in seconds, says before what it will cost, and shows its progress.
_LONG = 20.0


class EmpiricalDenoiser:
    r"""Exact denoiser of a finite training set: the one that memorizes perfectly.

    For the empirical distribution of :math:`x_1, \dots, x_N`,

    .. math::
        D(x, \sigma) = \sum_{i=1}^N w_i(x, \sigma) \, x_i \, , \qquad
        w_i(x, \sigma) \propto \exp \left( - \frac{\|x - x_i\|^2}{2 \sigma^2} \right) \, .

    Arguments:
        data: The training set, with shape :math:`(N, *)`: a tensor, a memory-mapped array,
            paths of ``.npy`` files, or any :class:`~geomem.exact.blocks.Blocks`.
        chunk_size: How many training points meet the queries at a time; as many as keep
            memory small if not given. It changes the result by rounding only.
        tolerance: Bound on the posterior weight that may be left out, in all.
        dtype: The dtype of products over many points. float32 for float32 data, where each
            weight is then right to about 1e-7 of the whole; distances, and levels at which
            few points weigh, are in float64 all the same.

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

    def __init__(
        self,
        data: Tensor | np.ndarray[Any, Any] | Blocks | Sequence[Path | str],
        chunk_size: int | None = None,
        *,
        tolerance: float = 1e-7,
        dtype: torch.dtype | None = None,
    ) -> None:
        # No module and no buffer: a training set does not belong into a state dict.
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance = {tolerance:g} is no share; pass 0 < tolerance < 1")
        self.source = as_blocks(data)
        self.chunk_size, self.tolerance, self.dtype = chunk_size, tolerance, dtype
        self._item_shape = self.source.item_shape
        self._centre = _centre(self.source)

    @property
    def num_samples(self) -> int:
        return self.source.num_samples

    @property
    def data(self) -> Tensor:
        r"""The training set ``(N, *)``, where it is in memory.

        Raises:
            InputError: If it is on a disk or a stream.
        """
        if not isinstance(self.source, InMemory):
            raise InputError("the training set is not in memory; go through denoiser.source")
        return self.source.data

    # ------------------------------------------------------------------ posteriors

    def posterior(
        self,
        x: Tensor,
        sigmas: Tensor,
        *,
        scalars_only: bool = False,
        executor: Executor | None = None,
        shards: int | None = None,
    ) -> Posterior:
        r"""Posterior at several noise levels, for one computation of the distances.

        Work that takes long says so before, shows its progress, and is refused where its
        memory would not fit.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigmas: The noise levels, with shape :math:`(T)` or :math:`(T, B)`.
            scalars_only: Leave the means out: they are then empty, :math:`(T, B, 0)`.
            executor: Who answers the shards of the training set: local processes or Ray; this
                process alone if not given. A lost worker costs its shard, which is run again.
            shards: Into how many parts the set is split; two a worker if not given.

        Returns:
            The posterior over the training points; ``mean`` in the dtype of ``x``, and
            ``dropped`` bounds what was left out.

        Raises:
            InputError: If shapes do not match, ``x`` is not finite, or a level is not above 0.
        """
        queries, levels = self._queries(x), _rows(sigmas, x)
        if _needs_gradient(x, levels):
            parts = (all_pairs(queries, levels, b.centred(slice(None))) for b in self._blocks(x))
            merged = reduce(Posterior.merge, parts)
        else:
            this = self._pass(queries, levels, self._work_dtype(x), not scalars_only)
            merged = self._run(this, executor, shards)
        return self._finish(merged, x, scalars_only)

    def path(
        self, y_0: Tensor, z: Tensor, sigmas: Tensor, *, scalars_only: bool = False
    ) -> Posterior:
        r"""Posterior along noised paths :math:`y_0 + \sigma z`, from two products for all levels.

        Arguments:
            y_0: Where the paths start, with shape :math:`(B, *)`.
            z: Their noise, with shape :math:`(B, *)`.
            sigmas: The noise levels, with shape :math:`(T)` or :math:`(T, B)`.
            scalars_only: Leave the means out.

        Returns:
            The posterior at the points of the paths, as :meth:`posterior` gives it.
        """
        from geomem.exact.paths import path_posterior

        start, levels = self._queries(y_0), _rows(sigmas, y_0)
        noise = self._queries(z) + self._centre.to(z.device)  # checks its shape and values
        blocks = self._blocks(y_0, pairs=PAIRS // 4)
        dtype = self._work_dtype(y_0)
        parts = (path_posterior(start, noise, levels, b, dtype, not scalars_only) for b in blocks)
        return self._finish(reduce(Posterior.merge, parts), y_0, scalars_only)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.posterior(x, sigma.expand(1, len(x))).mean[0]

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithm of the noisy density in nats, for a level of shape () or (B).

        Returns:
            The log-density at each point, with shape :math:`(B)`, in float64.
        """
        d, level = x[0].numel(), sigma.double()
        known = self.posterior(x, sigma.expand(1, len(x)), scalars_only=True)
        normaliser = math.log(self.num_samples) + d * (level.log() + math.log(math.tau) / 2)
        return known.log_partition[0] - normaliser

    # ------------------------------------------------------------------ single points

    def log_weights(self, x: Tensor, sigma: Tensor) -> Tensor:
        r"""Logarithms of all posterior weights, with shape :math:`(B, N)`, in float64."""
        queries, levels = self._queries(x), _rows(sigma.expand(1, len(x)), x)
        parts = [logits(queries, levels, b.centred(slice(None)))[0] for b in self._blocks(x)]
        return torch.cat(parts, dim=1).log_softmax(1)

    def weights(self, x: Tensor, sigma: Tensor, k: int) -> tuple[Tensor, Tensor]:
        r"""The ``k`` training points that weigh most, and their posterior weights.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            k: How many, at most :math:`N`.

        Returns:
            Their indices and weights, each with shape :math:`(B, k)`, heaviest first.
        """
        index, distance = self.neighbours(x, k)
        queries, levels = self._queries(x), _rows(sigma.expand(1, len(x)), x)
        known = self._run(self._pass(queries, levels, torch.float64, with_mean=False))
        energies = distance.square() / (2 * levels[0, :, None].square())
        # Relative to the nearest point first: far away, logarithms of 1e14 hold no ln N.
        log_sum = (known.log_partition[0] + energies[:, 0]).clamp(0, math.log(self.num_samples))
        weights = (energies[:, :1] - energies - log_sum[:, None]).exp()
        return index, weights / weights.sum(1, keepdim=True).clamp(min=1)

    def neighbours(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        r"""The ``k`` nearest training points, exactly, and their distances.

        Found by products of matrices and confirmed by explicit differences in float64; a
        point that rounding could have hidden is looked at, too.

        Arguments:
            x: The queries, with shape :math:`(B, *)`.
            k: How many, at most :math:`N`.

        Returns:
            Indices and distances (float64), each with shape :math:`(B, k)`, nearest first.
        """
        if not 1 <= k <= self.num_samples:
            raise InputError(f"k = {k} of {self.num_samples} points; pass 1 <= k <= N")
        return nearest(self._queries(x), self._blocks(x), k, self._work_dtype(x))

    def covariance(self, x: Tensor, sigma: Tensor) -> LinearOperator:
        r"""Posterior covariance :math:`\mathrm{Cov}[x_0 \mid x]` at one point, as an operator.

        On the points that carry weight: a factor where they are fewer than coordinates, for
        :class:`~geomem.spectra.Gram`, and the matrix itself where they are more.
        Divided by :math:`\sigma^2` it is the Jacobian: see :meth:`jacobian`.

        Arguments:
            x: The noisy point, with shape :math:`(*)`.
            sigma: The noise level, with shape :math:`()`.

        Returns:
            The operator, with shape :math:`(d, d)`, in float64 and squared units of the data.
        """
        return self._covariance(x, sigma, unit=1.0)

    def jacobian(self, x: Tensor, sigma: Tensor) -> LinearOperator:
        r"""Jacobian :math:`\nabla_x D = \mathrm{Cov}[x_0 \mid x] / \sigma^2`, without derivatives.

        Arguments and errors are those of :meth:`covariance`.
        """
        return self._covariance(x, sigma, unit=float(sigma))

    def _covariance(self, x: Tensor, sigma: Tensor, unit: float) -> LinearOperator:
        queries, levels = self._queries(x[None]), _rows(sigma.reshape(1, 1), x[None])
        blocks, dtype = self._blocks(x[None]), self._work_dtype(x)
        return covariance_operator(
            queries[0], float(levels), blocks, self._log_tolerance, dtype, unit
        )

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        r"""Diagonal :math:`u^\top \mathrm{Cov}_w u / \sigma^2` along directions, exactly.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            directions: The vectors :math:`u` as columns, with shape :math:`(d, n)`.

        Returns:
            The diagonal, with shape :math:`(B, n)`, in float64.
        """
        projected = [b.centred(slice(None)) @ directions.double() for b in self._blocks(x)]
        return diagonal(projected, self.log_weights(x, sigma).exp(), sigma.double())

    # ------------------------------------------------------------------ cost

    def forecast(self, x: Tensor, sigmas: Tensor, *, scalars_only: bool = False) -> Forecast:
        r"""What :meth:`posterior` would cost: one small block is timed, memory is counted.

        Arguments are those of :meth:`posterior`.
        """
        queries, levels = self._queries(x), _rows(sigmas, x)
        return self._forecast(self._pass(queries, levels, self._work_dtype(x), not scalars_only))

    def _forecast(self, this: Pass) -> Forecast:
        rows = self.source.some(4096)[:4096]
        B = min(len(this.x), QUERIES)
        started = time.perf_counter()
        this.over_block(this.x[:B], this.levels[:, :B], Block(rows, this.centre))
        taken = time.perf_counter() - started
        seconds = taken * self.num_samples / len(rows) * len(this.x) / B
        return Forecast(seconds, this.num_bytes(self.num_samples))

    # ------------------------------------------------------------------ the pass

    def _pass(self, x: Tensor, levels: Tensor, dtype: torch.dtype, with_mean: bool) -> Pass:
        centre = self._centre.to(x.device)
        # If none of the N points that are left out weighs more, all of them do not.
        return Pass(x, levels, centre, dtype, self._log_tolerance, with_mean, self.chunk_size)

    def _run(
        self, this: Pass, executor: Executor | None = None, shards: int | None = None
    ) -> Posterior:
        progress = self._announce(this, executor)
        if executor is None:
            merged = this.over(self.source, progress)
        else:
            count = shards or 2 * executor.workers()
            merged = this.over_shards(self.source, executor, count, progress)
        progress.finish()
        return merged

    def _announce(self, this: Pass, executor: Executor | None) -> _Pairs:
        Forecast(0, this.num_bytes(self.num_samples)).check_memory(
            "pass fewer queries or levels at a time, or scalars_only=True"
        )
        (B, d), T, N = this.x.shape, len(this.levels), self.num_samples
        # At a rate that any machine reaches; only what may be long is timed.
        if B * N * (d + T * (d * this.with_mean + 20)) < 1e10 * _LONG / 2:
            return _Pairs(None)
        forecast = self._forecast(this)
        if forecast.seconds < _LONG:
            return _Pairs(None)
        who = "" if executor is None else f" of work for {executor.workers()} workers"
        say(f"exact posterior: {forecast}{who}")
        return _Pairs(Progress(B * N, "exact posterior"))

    @property
    def _log_tolerance(self) -> float:
        return math.log(self.tolerance / self.num_samples)

    def _blocks(self, x: Tensor, pairs: int = PAIRS) -> Iterator[Block]:
        return blocks_of(self.source, self._centre.to(x.device), len(x), self.chunk_size, pairs)

    def _queries(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self._item_shape:
            raise InputError(
                f"a query has shape {tuple(x.shape[1:])} and a training point "
                f"{self._item_shape}; pass queries of shape (B, *)"
            )
        if not torch.isfinite(x).all():
            raise InputError("a query holds NaN or infinite values; check where it comes from")
        return x.flatten(1).double() - self._centre.to(x.device)

    def _work_dtype(self, x: Tensor) -> torch.dtype:
        if self.dtype is not None:
            return self.dtype
        wide = torch.float64 in (x.dtype, self.source.dtype)
        return torch.float64 if wide else torch.float32

    def _finish(self, merged: Posterior, x: Tensor, scalars_only: bool) -> Posterior:
        T, B = merged.log_partition.shape
        if scalars_only:
            mean = x.new_empty(T, B, 0)
        else:
            mean = (merged.mean + self._centre.to(x.device)).reshape(T, *x.shape).to(x.dtype)
        return Posterior(
            merged.log_partition,
            mean,
            merged.participation,
            merged.entropy.clamp(min=0),  # its rounding has both signs
            merged.dropped,
        )


class _Pairs:
    # Progress in pairs of a query and a training point; silent where work is short.
    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.done = progress, 0

    def __call__(self, pairs: int) -> None:
        self.done += pairs
        if self.progress is not None:
            self.progress.update(self.done)

    def finish(self) -> None:
        if self.progress is not None:
            self.progress.finish()


def _centre(source: Blocks) -> Tensor:
    # Any point near the middle will do; exact in the dtype of the data, so that subtracting
    # it rounds once.
    mean = source.some(65536).double().mean(0)
    return mean.to(source.dtype if source.dtype.is_floating_point else torch.float32).double()


def _needs_gradient(x: Tensor, levels: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or levels.requires_grad)


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
