r"""The local dimension, by default: kept directions, if a gap sets them apart.

An eigenvalue of the Jacobian near 1 is a direction in which the model varies, one near 0 a
direction in which it does not. The dimension is their number above 1/2, *provided* that the
two kinds are apart: a spectrum that passes through 1/2 without a gap has a soft count and no
dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from geomem.arguments import Number, Whole, checked
from geomem.denoiser import Denoiser
from geomem.dimension.answers import NoGap, PointMethod
from geomem.dimension.gaps import LARGEST_KEPT, gap_p_value, gap_ratio
from geomem.dimension.ritz import RitzPairs, leading_pairs, trace_beside
from geomem.errors import InputError
from geomem.operators import DenoiserJacobian
from geomem.stats import Estimate, torch_rng

# Of condensation, see geomem.dimension.gaps.
_TEMPERATURE = 0.7


@checked
@dataclass(frozen=True, kw_only=True)
class LocalDimension(PointMethod):
    r"""How many directions a denoiser keeps at a noisy point, matrix-free; or no gap.

    With the eigenvalues :math:`\lambda_k` of the symmetric part of the Jacobian,

    .. math:: m = \# \{\lambda_k > 1/2\} \, , \qquad \lambda_m / \lambda_{m+1} \geq r \, ,

    and ratio and kept eigenvalues must not be such as white noise makes them: at level ``alpha``
    against the hard edge of a sample covariance, and against the weights of a few training
    points, which are seldom all near 1 (:mod:`geomem.dimension.gaps`). An eigenvalue above 3/2
    is the second kind at once: the posterior is spread over separate points and there is no
    tangent space. No directions kept, or all of them, is "no gap", too;
    :class:`~geomem.dimension.counts.Threshold` counts them. At the default level one direction
    of eigenvalue .99 needs a ratio of 43, two within 5 % of 1 need 3.9, and three the least of
    2; two or three that reach down to .5 need 115 and 24, seven 3.9.

    It takes about 2m products by :func:`~geomem.dimension.ritz.leading_pairs`, whatever d is, and
    some blocks of images more where lost eigenvalues are not small: of 3072 with 6 kept at .95,
    26 products for lost ones up to .03 and 47 up to .2. Where there is no gap, eight more are
    spent on the soft count that the answer then carries.

    Arguments:
        above: The threshold between kept and lost.
        ratio: The least ratio across the gap.
        alpha: The level of the test.
        block: Random directions of the first round.
        depth: Products with the images of a round, where they are not settled.
        products: The most products at one point, 1024 if not given. Where they run out there
            is no dimension, but a lower bound in the reason: what few random directions say of
            the rest is biased wherever lost directions are not small.
        seed: The seed of the random directions.

    Example:
        >>> from geomem.manifolds import LinearManifold
        >>> plane = LinearManifold(torch.ones(7), ambient_dim=30).population_denoiser()
        >>> LocalDimension()(plane, torch.zeros(30).double(), torch.tensor(0.1))
        7 ± 0
        >>> white = LinearManifold(torch.ones(30), ambient_dim=30).population_denoiser()
        >>> LocalDimension()(white, torch.zeros(30).double(), torch.tensor(0.1)).reason
        'all 30 directions looked at are kept'
    """

    above: Annotated[float, Number(above=0.0, below=1.0)] = 0.5
    ratio: Annotated[float, Number(least=1.0)] = 2.0
    alpha: Annotated[float, Number(above=0.0, below=1.0)] = 0.01
    block: Annotated[int, Whole(least=3)] = 4
    depth: Annotated[int, Whole(least=1)] = 3
    products: Annotated[int | None, Whole(least=1)] = None
    seed: Annotated[int, Whole(least=0)] = 0

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
        pairs = self.pairs(denoiser, x, sigma)
        found = self.of(pairs, x.numel())
        if isinstance(found, Estimate):
            return found
        rng = torch_rng(self.seed, "soft count")
        soft = trace_beside(DenoiserJacobian(denoiser, x, sigma), pairs, rng)
        return replace(found, soft_count=soft)

    def pairs(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> RitzPairs:
        r"""What is looked at: the leading Ritz pairs, and how many products they took."""

        def needed(kept: int) -> float:
            # A largest lost eigenvalue far below what the test allows need not be known better.
            ratio = gap_ratio(self.alpha, kept, max(1, x.numel() - kept), _TEMPERATURE)
            return 0.3 / max(self.ratio, ratio)

        return leading_pairs(
            DenoiserJacobian(denoiser, x, sigma),
            torch_rng(self.seed, "local dimension"),
            above=self.above,
            block=self.block,
            depth=self.depth,
            products=self.products,
            level=needed,
        )

    def of(self, pairs: RitzPairs, d: int) -> Estimate | NoGap:
        r"""The answer from what was looked at, in d dimensions."""
        values, kept = pairs.values, int((pairs.values > self.above).sum())
        if not bool(torch.isfinite(values).all()):
            raise InputError("the Jacobian holds NaN; check the denoiser at this level")
        if float(values[0]) > LARGEST_KEPT:
            return NoGap(
                f"the largest eigenvalue is {float(values[0]):.3g}: "
                "the posterior is spread over separate points"
            )
        if not pairs.complete:
            return NoGap(
                f"the products ran out: at least {kept} of {d} directions are kept; "
                f"pass more products than {pairs.products}"
            )
        if kept == 0:
            reason = f"no direction is kept: the largest eigenvalue is {float(values[0]):.3g}"
            return NoGap(reason, kept=0)
        if kept == len(values):
            return NoGap(f"all {kept} directions looked at are kept", kept)
        # A Ritz value is too low by up to its residual. The floor is rounding in the Jacobian.
        first_lost = float((values[kept:] + pairs.residuals[kept:]).max())
        log_ratio = math.log(float(values[kept - 1]) / max(first_lost, 1e-12))
        p_value = gap_p_value(
            log_ratio,
            kept,
            max(1, d - kept),
            _TEMPERATURE,
            values=values[:kept].tolist(),
            low=self.above,
        )
        if log_ratio < math.log(self.ratio) or p_value > self.alpha:
            return NoGap(
                f"the gap at {self.above:g} is a factor {math.exp(log_ratio):.3g} after {kept} "
                f"of {d} directions, with p = {p_value:.2g}",
                kept,
            )
        return Estimate(float(kept))
