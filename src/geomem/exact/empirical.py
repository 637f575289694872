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
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from geomem.arguments import Number, Whole, check, checked
from geomem.compute.executor import Executor
from geomem.compute.progress import Forecast
from geomem.denoiser import as_columns
from geomem.errors import InputError
from geomem.exact.blocks import Block, Blocks, InMemory, as_blocks
from geomem.exact.covariance import covariance_operator, diagonal
from geomem.exact.neighbours import nearest
from geomem.exact.one_pass import PAIRS, QUERIES, concatenate, smallest
from geomem.exact.passes import Pass, block_size, blocks_of
from geomem.exact.paths import path_posterior
from geomem.exact.posterior import Posterior, all_pairs
from geomem.exact.queries import (
    centre_of,
    checked_queries,
    exactly,
    level_rows,
    needs_derivatives,
    no_answer,
    product_dtype,
    weight_dtype,
)
from geomem.noise import Levels, as_levels, level_of_each
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

    exact: Literal[True] = True

    @checked
    def __init__(
        self,
        data: Tensor | np.ndarray[Any, Any] | Blocks | Path | str | Sequence[Path | str],
        chunk_size: Annotated[int, Whole(least=1)] | None = None,
        *,
        tolerance: Annotated[float, Number(above=0, below=1)] = 1e-7,
        dtype: torch.dtype | None = None,
    ) -> None:
        # No module and no buffer: a training set does not belong into a state dict.
        if dtype not in (None, torch.float32, torch.float64):
            raise InputError(
                f"`dtype` is {dtype}, whose products lose the neighbours; pass torch.float32 or "
                "torch.float64"
            )
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

    @checked
    def posterior(
        self,
        x: Tensor,
        sigmas: Levels,
        *,
        scalars_only: bool = False,
        executor: Executor | None = None,
        shards: Annotated[int, Whole(least=1)] | None = None,
    ) -> Posterior:
        r"""Posterior at several noise levels, for one computation of the distances.

        Work that takes long says so before, shows its progress, and is refused where its
        memory would not fit.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigmas: The noise levels, with shape :math:`()`, :math:`(T)` or :math:`(T, B)`.
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
        queries, levels = checked_queries(x, self._item_shape), level_rows(sigmas, x)
        if len(x) == 0:
            return no_answer(len(levels), x)
        if needs_derivatives(x, levels):
            parts = (
                all_pairs(queries, levels, block).posterior(block.centred(slice(None)))
                for block in self._blocks(queries, dense=True)
            )
            return self._finish(reduce(Posterior.merge, parts), x, scalars_only)
        with exactly(x.device):
            this = self._pass(x, queries, levels, not scalars_only)
            return self._finish(this.answer(self.source, executor, shards), x, scalars_only)

    def path(
        self, y_0: Tensor, z: Tensor, sigmas: Levels, *, scalars_only: bool = False
    ) -> Posterior:
        r"""Posterior along noised paths :math:`y_0 + \sigma z`, from two products for all levels.

        Arguments:
            y_0: Where the paths start, with shape :math:`(B, *)`.
            z: Their noise, with shape :math:`(B, *)`.
            sigmas: The noise levels, with shape :math:`()`, :math:`(T)` or :math:`(T, B)`.
            scalars_only: Leave the means out.

        Returns:
            The posterior at the points of the paths, as :meth:`posterior` gives it, without
            gradients.

        Raises:
            InputError: If shapes do not match, points are not finite, or a level is not above 0.
        """
        with exactly(y_0.device):
            start, noise = (checked_queries(p, self._item_shape) for p in (y_0, z))
            levels = level_rows(sigmas, y_0)
            if len(y_0) != len(z):
                raise InputError(f"{len(y_0)} starts and {len(z)} noises; pass one noise a start")
            if len(y_0) == 0:
                return no_answer(len(levels), y_0)
            this = self._pass(y_0, start, levels, not scalars_only)
            ask = partial(
                path_posterior,
                dtype=this.dtype,
                log_tolerance=this.log_tolerance,
                with_mean=this.with_mean,
            )
            starts, noises = torch.split(start, QUERIES), torch.split(noise, QUERIES)
            groups = list(zip(starts, noises, torch.split(levels, QUERIES, dim=1), strict=True))
            told = this.told("noised paths", self.source, lambda b: ask(*groups[0], b))
            parts = []
            for group in groups:
                blocks = told.follow(self._blocks(group[0], PAIRS // 4), len(group[0]))
                parts.append(reduce(Posterior.merge, (ask(*group, b) for b in blocks)))
            told.finish()
            return self._finish(concatenate(parts), y_0, scalars_only)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return self.posterior(x, level_of_each(sigma, x)[None]).mean[0]

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithm of the noisy density in nats, for a level of shape () or (B).

        Returns:
            The log-density at each point, with shape :math:`(B)`, in float64.
        """
        level = level_of_each(sigma, x)
        known = self.posterior(x, level[None], scalars_only=True)
        d = math.prod(self._item_shape)
        normaliser = math.log(self.num_samples) + d * (level.log() + math.log(math.tau) / 2)
        return known.log_partition[0] - normaliser

    # ------------------------------------------------------------------ single points

    def log_weights(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithms of all posterior weights.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.

        Returns:
            The logarithms, with shape :math:`(B, N)`, in float64.
        """
        queries, levels = self._ask(x, sigma)
        known = [all_pairs(queries, levels, b) for b in self._blocks(queries, dense=True)]
        whole = reduce(Posterior.merge, (part.posterior() for part in known))
        return torch.cat([part.log_weights(whole)[0] for part in known], dim=1)

    def weights(self, x: Tensor, sigma: Tensor | float, k: int) -> tuple[Tensor, Tensor]:
        r"""The ``k`` training points that weigh most, and their posterior weights.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            k: How many, at most :math:`N`.

        Returns:
            Their indices and weights, each with shape :math:`(B, k)`, heaviest first.
        """
        queries, levels = self._ask(x, sigma)
        index, parts, start = [], [], 0
        with exactly(x.device):
            check("k", k, Annotated[int, Whole(least=1, most=self.num_samples)])
            for block in self._blocks(queries, dense=True):
                part = all_pairs(queries, levels, block)
                _, first = smallest(part.excess[0], min(k, len(block)))
                first = first.sort(dim=1).values[None]  # equal ones in the order of the data
                index.append(first[0] + start)
                parts.append((part.posterior(), replace(part, excess=part.excess.gather(2, first))))
                start += len(block)
            whole = reduce(Posterior.merge, (known for known, _ in parts))
            logs = torch.cat([part.log_weights(whole)[0] for _, part in parts], dim=1)
            order = logs.sort(dim=1, descending=True, stable=True).indices[:, :k]
            return torch.cat(index, dim=1).gather(1, order), logs.gather(1, order).exp()

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
        check("k", k, Annotated[int, Whole(least=1, most=self.num_samples)])
        with exactly(x.device):
            queries = checked_queries(x, self._item_shape)
            dtype = product_dtype(x, self.source.dtype, self.dtype)
            this = self._pass(x, queries, queries.new_ones(0, len(x)), with_mean=False)
            groups = torch.split(queries, QUERIES)
            told = this.told("neighbours", self.source, lambda b: nearest(groups[0], [b], k, dtype))
            found = [nearest(q, told.follow(self._blocks(q), len(q)), k, dtype) for q in groups]
            told.finish()
            return torch.cat([i for i, _ in found]), torch.cat([d for _, d in found])

    def covariance(self, x: Tensor, sigma: Tensor | float) -> LinearOperator:
        r"""Posterior covariance :math:`\mathrm{Cov}[x_0 \mid x]` at one point, as an operator.

        On the points that carry weight: a factor where they are fewer than coordinates, for
        :class:`~geomem.spectra.Gram`, and the matrix itself where they are more.
        Divided by :math:`\sigma^2` it is the Jacobian: see :meth:`jacobian`.

        Arguments:
            x: The noisy point, with shape :math:`(*)`.
            sigma: The noise level, with shape :math:`()`.

        Returns:
            The operator, with shape :math:`(d, d)`, in float64 and squared units of the data.

        Raises:
            InputError: If a batch of points or several levels are passed.
        """
        return self._covariance(x, sigma, in_noise=False)

    def jacobian(self, x: Tensor, sigma: Tensor | float) -> LinearOperator:
        r"""Jacobian :math:`\nabla_x D = \mathrm{Cov}[x_0 \mid x] / \sigma^2`, without derivatives.

        Arguments and errors are those of :meth:`covariance`.
        """
        return self._covariance(x, sigma, in_noise=True)

    def _covariance(self, x: Tensor, sigma: Tensor | float, in_noise: bool) -> LinearOperator:
        if tuple(x.shape) != self._item_shape:
            raise InputError(
                f"`x` has shape {tuple(x.shape)}; pass one point of shape {self._item_shape}"
            )
        if as_levels(sigma).numel() != 1:
            raise InputError(f"one level for one point; got {as_levels(sigma).numel()} of them")
        with exactly(x.device):
            query, level = self._ask(x[None], as_levels(sigma).reshape(()))
            return covariance_operator(
                query[0],
                float(level),
                self._blocks(query),
                math.log(self.tolerance / self.num_samples),
                product_dtype(x, self.source.dtype, self.dtype),
                float(level) if in_noise else 1.0,
            )

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor | float, directions: Tensor) -> Tensor:
        r"""Diagonal :math:`u^\top \mathrm{Cov}_w u / \sigma^2` along directions, exactly.

        Arguments:
            x: The noisy points, with shape :math:`(B, *)`.
            sigma: The noise level, with shape :math:`()` or :math:`(B)`.
            directions: The vectors :math:`u` as columns, with shape :math:`(d, n)`.

        Returns:
            The diagonal, with shape :math:`(B, n)`, in float64.
        """
        queries = checked_queries(x, self._item_shape)
        U = as_columns(directions, x)
        rows = (b.centred(slice(None)) for b in self._blocks(queries, dense=True))
        projected = [y @ U for y in rows]
        return diagonal(projected, self.log_weights(x, sigma).exp(), level_of_each(sigma, x))

    # ------------------------------------------------------------------ the pass

    def forecast(self, x: Tensor, sigmas: Levels, *, scalars_only: bool = False) -> Forecast:
        r"""What :meth:`posterior` would cost: one small block is timed, memory is counted.

        Arguments are those of :meth:`posterior`.
        """
        with exactly(x.device):
            queries, levels = checked_queries(x, self._item_shape), level_rows(sigmas, x)
            return self._pass(x, queries, levels, not scalars_only).forecast(self.source)

    def _ask(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        queries = checked_queries(x, self._item_shape)
        return queries, level_rows(level_of_each(sigma, x)[None], x)

    def _pass(self, x: Tensor, queries: Tensor, levels: Tensor, with_mean: bool) -> Pass:
        dtype = product_dtype(x, self.source.dtype, self.dtype)
        return Pass(
            queries,
            levels,
            self._centre.to(x.device),
            weight_dtype(x, levels, dtype),
            # If none of the N points that are left out weighs more, all of them do not.
            math.log(self.tolerance / self.num_samples),
            with_mean,
            self.chunk_size,
        )

    def _blocks(self, x: Tensor, pairs: int = PAIRS, dense: bool = False) -> Iterator[Block]:
        size = self.chunk_size or block_size(len(x), pairs)
        if dense:  # every pair is looked at, in float64
            size = min(size, max(1, _DENSE // (8 * max(self._centre.numel(), len(x)))))
        return blocks_of(self.source, self._centre.to(x.device), size)

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
