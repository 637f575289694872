r"""A scale for the dimension: where it does not depend on the scale.

The number of kept directions depends on the noise level. Where variances come in groups far
apart, there are levels between them over which it stays the same: a plateau, with a range. A
power law of variances has none, and the answer is then "no plateau".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from geomem.arguments import Number, Values, Whole, checked, shown
from geomem.denoiser import Denoiser
from geomem.dimension.answers import DimensionMethod, NoGap, Place, PointMethod, place_of
from geomem.dimension.local import LocalDimension
from geomem.errors import InputError
from geomem.noise import check_levels, log_levels
from geomem.stats import Estimate, torch_rng


@dataclass(frozen=True, repr=False)
class PlateauEstimate(Estimate):
    r"""A dimension that holds from one noise level to another.

    Attributes:
        low: The lowest level of the plateau.
        high: The highest one.
    """

    low: float = math.nan
    high: float = math.nan

    def __repr__(self) -> str:
        return f"{super().__repr__()} for sigma from {self.low:.3g} to {self.high:.3g}"


@checked
@dataclass(frozen=True)
class Plateau(PointMethod):
    r"""The longest range of noise levels over which a dimension stays the same.

    Called with a *clean* point; a method that wants a noisy one gets :math:`x_0 + \sigma z`
    with the same z at every level. A range counts if the values differ by no more than
    ``tolerance`` (and twice their errors), over ``e_folds`` or more of ln sigma, and are neither
    0 nor d: a level at which nothing, or everything, is kept names no dimension. A level that
    has no gap ends a range. The error holds half the height of the plateau.

    Arguments:
        method: The dimension at one level.
        sigmas: The levels, in units of the ``sigma`` of the call, with shape :math:`(T)`; 17
            levels from 1/64 to 4 of it if not given.
        e_folds: The least length.
        tolerance: The largest height.
        seed: The seed of the noise z.

    Example:
        The paper's variances 1 (2 directions), 0.09 (5) and 0.0001 (23).

        >>> from geomem.manifolds import PAPER_VARIANCES, LinearManifold
        >>> paper = LinearManifold(torch.tensor(PAPER_VARIANCES), ambient_dim=30)
        >>> found = Plateau()(paper.population_denoiser(), torch.zeros(30), torch.tensor(1.0))
        >>> found.value, found.low < 0.05 < 0.1 < found.high
        (7.0, True)
    """

    at: ClassVar[Place] = "clean"
    method: DimensionMethod = field(default_factory=LocalDimension)
    sigmas: Annotated[Tensor | None, Values(shape="(T)", above=0.0)] = None
    e_folds: Annotated[float, Number(least=0.0)] = 1.0
    tolerance: Annotated[float, Number(least=0.0)] = 0.5
    seed: Annotated[int, Whole(least=0)] = 0

    def __post_init__(self) -> None:
        if not callable(self.method):
            raise InputError(f"`method` is {shown(self.method)}; pass one like LocalDimension()")
        if self.sigmas is not None and len(self.sigmas) < 2:
            raise InputError("`sigmas` is one level, and a plateau has two or more; pass shape (T)")

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> PlateauEstimate | NoGap:
        levels = self.levels(sigma)
        return self.of(levels, self.measure(denoiser, x, levels), x.numel())

    def levels(self, sigma: Tensor) -> Tensor:
        r"""The noise levels that are looked at, lowest first, in float64."""
        relative = log_levels(1 / 64, 4, 17) if self.sigmas is None else self.sigmas.double()
        return check_levels(relative.cpu() * float(check_levels(sigma))).sort().values

    def measure(self, denoiser: Denoiser, x_0: Tensor, levels: Tensor) -> list[Estimate | NoGap]:
        r"""The dimension at each level."""
        z = torch.randn(x_0.shape, generator=torch_rng(self.seed, "plateau"), dtype=torch.float64)
        z = z.to(x_0) if place_of(self.method) == "noisy" else torch.zeros_like(x_0)
        scale = levels.to(x_0)
        return [self.method(denoiser, x_0 + s * z, s) for s in scale]

    def of(
        self, levels: Tensor, found: Sequence[Estimate | NoGap], d: int
    ) -> PlateauEstimate | NoGap:
        r"""The longest plateau among dimensions in d at levels, lowest first."""
        plateaus = list(self.plateaus(levels, found, d))
        if not plateaus:
            return NoGap(
                f"no plateau: the dimension stays within {self.tolerance:g} over "
                f"{self.e_folds:g} e-folds of sigma nowhere, except at 0 or at {d}"
            )
        return max(plateaus, key=lambda p: p.high / p.low)

    def plateaus(
        self, levels: Tensor, found: Sequence[Estimate | NoGap], d: int
    ) -> Iterator[PlateauEstimate]:
        r"""All plateaus; each range is the longest that starts at its lowest level."""
        sigmas, last = levels.tolist(), -1
        for start in range(len(sigmas)):
            end, longest = start, None
            while end < len(found) and (flat := self._flat(found[start : end + 1], d)):
                end, longest = end + 1, flat
            if longest is None or end <= last:  # none, or a part of the one before
                continue
            if math.log(sigmas[end - 1] / sigmas[start]) >= self.e_folds - 1e-9:
                yield replace(longest, low=sigmas[start], high=sigmas[end - 1])
                last = end

    def _flat(self, found: Sequence[Estimate | NoGap], d: int) -> PlateauEstimate | None:
        # Their mean, if they are the same.
        known = [f for f in found if isinstance(f, Estimate)]
        values, errors = [f.value for f in known], [f.stderr for f in known]
        if len(known) < len(found) or not 0.5 <= min(values) <= max(values) <= d - 0.5:
            return None
        height = max(values) - min(values)
        if height > max(self.tolerance, 2 * max(0.0 if math.isnan(e) else e for e in errors)):
            return None
        # Levels share noise and probes. An error that nobody knows is none of the others'.
        error = math.nan if any(map(math.isnan, errors)) else max(errors)
        return PlateauEstimate(math.fsum(values) / len(values), math.hypot(height / 2, error))
