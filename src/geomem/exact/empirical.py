r"""The exact denoiser of a finite training set: the global minimizer of the denoising loss.

It memorizes perfectly, so it is the null model of every network, and must be right where
memorization lives: at small levels, next to duplicates, in thousands of dimensions. The work
is done by :mod:`geomem.exact.one_pass`, block by block; what is left out is bounded and reported.

References:
    | Dynamical Regimes of Diffusion Models (Biroli et al., 2024), arXiv 2402.18491
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.compute.executor import Executor
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.exact.blocks import NOT_FINITE, Blocks, InMemory, as_blocks
from geomem.exact.covariance import covariance_operator, diagonal
from geomem.exact.neighbours import nearest
from geomem.exact.one_pass import PAIRS, QUERIES, Block, concatenate
from geomem.exact.passes import Pass, blocks_of
from geomem.exact.paths import path_posterior
from geomem.exact.posterior import Posterior, all_pairs, logits
from geomem.exact.queries import (
    centre_of,
    checked_queries,
    exactly,
    level_rows,
    needs_derivatives,
    nobody,
)
from geomem.operators import LinearOperator

# Rows that are turned to float64 at a time where every pair is looked at, in bytes.
_DENSE = 2**25


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
        data: Tensor | np.ndarray[Any, Any] | Blocks | Path | str | Sequence[Path | str],
        chunk_size: int | None = None,
        *,
        tolerance: float = 1e-7,
        dtype: torch.dtype | None = None,
    ) -> None:
        # No module and no buffer: a training set does not belong into a state dict.
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance = {tolerance:g} is no share; pass 0 < tolerance < 1")
        if chunk_size is not None and chunk_size < 1:
            raise InputError(f"chunk_size = {chunk_size} holds no point; pass 1 or more")
        if dtype not in (None, torch.float32, torch.float64):
            raise InputError(f"products in {dtype} lose the neighbours; pass float32 or float64")
        self.source = as_blocks(data)
        self.chunk_size, self.tolerance, self.dtype = chunk_size, tolerance, dtype
        self._item_shape = self.source.item_shape
        self._centre = centre_of(self.source)

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
        queries, levels = self._queries(x), level_rows(sigmas, x)
        if len(x) == 0:
            return nobody(len(levels), x)
        if needs_derivatives(x, levels):
            parts = (all_pairs(queries, levels, rows) for rows in self._dense(x))
            return self._finish(reduce(Posterior.merge, parts), x, scalars_only)
        with exactly(x.device):
            this = self._pass(queries, levels, self._work_dtype(x, levels), not scalars_only)
            return self._finish(self._run(this, executor, shards), x, scalars_only)

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
            The posterior at the points of the paths, as :meth:`posterior` gives it, without
            gradients.
        """
        with exactly(y_0.device):
            start, levels = self._queries(y_0), level_rows(sigmas, y_0)
            noise = checked_queries(z, self._item_shape, torch.zeros_like(start[:1]))
            if len(y_0) == 0:
                return nobody(len(levels), y_0)
            this = self._pass(start, levels, self._work_dtype(y_0, levels), not scalars_only)
            ask = partial(path_posterior, dtype=this.dtype, with_mean=this.with_mean)
            starts, noises = torch.split(start, QUERIES), torch.split(noise, QUERIES)
            groups = list(zip(starts, noises, torch.split(levels, QUERIES, dim=1), strict=True))
            told = this.told("noised paths", self.source, lambda b: ask(*groups[0], b))
            parts = []
            for group in groups:
                blocks = told.follow(self._blocks(group[0], pairs=PAIRS // 4), len(group[0]))
                parts.append(reduce(Posterior.merge, (ask(*group, b) for b in blocks)))
            told.finish()
            return self._finish(concatenate(parts), y_0, scalars_only)

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
        queries, levels = self._queries(x), level_rows(sigma.expand(1, len(x)), x)
        parts = [logits(queries, levels, rows)[0] for rows in self._dense(x)]
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
        with exactly(x.device):
            queries, levels = self._queries(x), level_rows(sigma.expand(1, len(x)), x)
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
        with exactly(x.device):
            queries, dtype = self._queries(x), self._select_dtype(x)
            this = self._pass(queries, queries.new_empty(0, len(x)), dtype, with_mean=False)
            groups = torch.split(queries, QUERIES)
            told = this.told("neighbours", self.source, lambda b: nearest(groups[0], [b], k, dtype))
            found = [nearest(q, told.follow(self._blocks(q), len(q)), k, dtype) for q in groups]
            told.finish()
            return torch.cat([i for i, _ in found]), torch.cat([d for _, d in found])

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
        if sigma.numel() != 1:
            raise InputError(f"one level for one point; got {sigma.numel()} of them")
        with exactly(x.device):
            query, level = self._queries(x[None]), level_rows(sigma.reshape(1, 1), x[None])
            return covariance_operator(
                query[0],
                float(level),
                self._blocks(query),
                self._log_tolerance,
                self._select_dtype(x),
                unit,
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
        queries, levels = self._queries(x), level_rows(sigma.expand(1, len(x)), x)
        U, parts, projected = directions.double(), [], []
        for rows in self._dense(x):
            parts.append(logits(queries, levels, rows)[0])
            projected.append(rows @ U)
        weights = torch.cat(parts, dim=1).log_softmax(1).exp()
        return diagonal(projected, weights, sigma.double())

    # ------------------------------------------------------------------ cost

    def forecast(self, x: Tensor, sigmas: Tensor, *, scalars_only: bool = False) -> Forecast:
        r"""What :meth:`posterior` would cost: one small block is timed, memory is counted.

        Arguments are those of :meth:`posterior`.
        """
        with exactly(x.device):
            queries, levels = self._queries(x), level_rows(sigmas, x)
            this = self._pass(queries, levels, self._work_dtype(x, levels), not scalars_only)
            return this.forecast(self.source)

    # ------------------------------------------------------------------ the pass

    def _pass(self, x: Tensor, levels: Tensor, dtype: torch.dtype, with_mean: bool) -> Pass:
        centre = self._centre.to(x.device)
        # If none of the N points that are left out weighs more, all of them do not.
        return Pass(x, levels, centre, dtype, self._log_tolerance, with_mean, self.chunk_size)

    def _run(
        self, this: Pass, executor: Executor | None = None, shards: int | None = None
    ) -> Posterior:
        who = "" if executor is None else f" of work for {executor.workers()} workers"
        told = this.told("exact posterior", self.source, who=who)
        if executor is None:
            merged = this.over(self.source, told)
        else:
            count = shards or 2 * executor.workers()
            merged = this.over_shards(self.source, executor, count, told)
        told.finish()
        return merged

    @property
    def _log_tolerance(self) -> float:
        return math.log(self.tolerance / self.num_samples)

    def _blocks(self, x: Tensor, pairs: int = PAIRS) -> Iterator[Block]:
        return blocks_of(self.source, self._centre.to(x.device), len(x), self.chunk_size, pairs)

    def _dense(self, x: Tensor) -> Iterator[Tensor]:
        # All rows about the centre in float64, where every pair is looked at.
        size = max(1, _DENSE // (8 * max(self._centre.numel(), len(x))))
        for rows in self.source.blocks(min(size, self.chunk_size or size)):
            centred = Block(rows, self._centre.to(x.device)).centred(slice(None))
            if not bool(torch.isfinite(centred).all()):
                raise InputError(NOT_FINITE)
            yield centred

    def _queries(self, x: Tensor) -> Tensor:
        return checked_queries(x, self._item_shape, self._centre.to(x.device))

    def _select_dtype(self, x: Tensor) -> torch.dtype:
        # What selects points may be coarse: they are looked at again.
        if self.dtype is not None:
            return self.dtype
        wide = torch.float64 in (x.dtype, self.source.dtype)
        return torch.float64 if wide else torch.float32

    def _work_dtype(self, x: Tensor, levels: Tensor) -> torch.dtype:
        # Where tf32 products are switched on they may select and no more; and the squares of
        # very small or large numbers are no float32.
        tf32 = x.is_cuda and torch.backends.cuda.matmul.allow_tf32
        extreme = float(levels.min()) < 1e-15 or float(x.abs().max()) > 1e15
        return torch.float64 if tf32 or extreme else self._select_dtype(x)

    def _finish(self, merged: Posterior, x: Tensor, scalars_only: bool) -> Posterior:
        T, B = merged.log_partition.shape
        if scalars_only:
            mean = x.new_empty(T, B, 0)
        else:
            # Level by level: a sum of all of them would be another array of this size.
            centre, shape = self._centre.to(x.device), (T, *x.shape)
            mean = torch.stack([(m + centre).to(x.dtype) for m in merged.mean]).reshape(shape)
        # The rounding of an entropy has both signs.
        return replace(merged, mean=mean, entropy=merged.entropy.clamp(min=0))
