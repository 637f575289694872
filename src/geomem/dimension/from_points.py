r"""Local dimension from points alone, without a denoiser: scikit-dimension's estimators.

What a model has learned is one thing, what its data are another. These estimators see only
neighbouring points; they are the second protocol, and the other column of a comparison.
``pip install geomem[lid]`` brings the library.

References:
    | Bac et al., Scikit-dimension (2021), arXiv 2109.02596
    | Levina & Bickel (2004): MLE; Facco et al. (2017): TwoNN; Fan et al. (2010): lPCA
    | Efron & Stein, The jackknife estimate of variance (1981)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomem.dimension.counts import NoGap
from geomem.errors import InputError
from geomem.stats import Estimate, numpy_rng

# What scikit-dimension 0.5 offers, but for its KNN: that one found 1 for 500 points of a plane of
# dimension 5.
ESTIMATORS = tuple("MLE TwoNN lPCA ESS MOM TLE CorrInt MADA MiND_ML FisherS DANCo".split())


class DataDimensionMethod(Protocol):
    r"""A way to tell the dimension of points, around one of them or of all."""

    def __call__(self, points: Tensor, query: Tensor | None = None) -> Estimate | NoGap:
        r"""
        Arguments:
            points: The points, with shape :math:`(N, *)`.
            query: The point around which, with shape :math:`(*)`; all of them if not given.
        """


@dataclass(frozen=True, kw_only=True)
class ScikitDimension:
    r"""An estimator of scikit-dimension, with an error bar.

    Around a query its nearest points are looked at, otherwise all of them. The error is the
    jackknife's over groups: a bootstrap would draw points twice, and a distance of 0 breaks
    estimators that are made of distances. It holds no bias, of which these methods have much
    in high dimensions.

    Arguments:
        estimator: One of :data:`ESTIMATORS`.
        neighbours: How many points nearest to a query are looked at.
        groups: Into how many groups points are divided; each is left out once.
        settings: Further settings of the estimator, by name.
        seed: The seed of the groups, and of an estimator that draws.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> points = torch.randn(500, 3, generator=rng) @ torch.eye(3, 10)
        >>> ScikitDimension(estimator="lPCA")(points)
        3 ± 0
    """

    estimator: str = "MLE"
    neighbours: int = 100
    groups: int = 10
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            known = ", ".join(ESTIMATORS)
            raise InputError(f"there is no estimator {self.estimator!r}; choose one of {known}")
        if self.groups < 2 or self.neighbours < 4:
            raise InputError("an error bar needs 2 groups or more, and 4 neighbours or more")

    def __call__(self, points: Tensor, query: Tensor | None = None) -> Estimate | NoGap:
        library = _skdim()
        X = self._chosen(points, query)
        if float(np.ptp(X, axis=0).max()) == 0:
            return NoGap("all points are equal: they span nothing")
        value = self._fit(library, X)
        if not math.isfinite(value):
            return NoGap(f"{self.estimator} finds no dimension in {len(X)} points")
        return Estimate(value, self._jackknife(library, X))

    def _chosen(self, points: Tensor, query: Tensor | None) -> NDArray[np.float64]:
        if len(points) < 4 or points[0].numel() == 0:
            raise InputError(f"{len(points)} points have no dimension; pass 4 or more")
        if not bool(torch.isfinite(points).all()):
            raise InputError("the points hold NaN or infinite values; clean them first")
        if query is not None:
            points = _nearest(points, query, self.neighbours)
        X: NDArray[np.float64] = points.detach().flatten(1).double().numpy(force=True)
        return X

    def _fit(self, library: ModuleType, X: NDArray[np.float64]) -> float:
        state = np.random.get_state()  # some estimators draw from the global one
        try:
            np.random.seed(self.seed)
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # repeated points and empty sums, not ours
                fitted = getattr(library.id, self.estimator)(**self.settings).fit(X)
            return float(np.mean(fitted.dimension_))
        except (ValueError, IndexError, ZeroDivisionError, np.linalg.LinAlgError):
            return math.nan
        finally:
            np.random.set_state(state)

    def _jackknife(self, library: ModuleType, X: NDArray[np.float64]) -> float:
        G = min(self.groups, len(X) // 2)
        group = numpy_rng(self.seed, "jackknife").permutation(len(X)) % G
        left_out = np.array([self._fit(library, X[group != g]) for g in range(G)])
        return float(np.sqrt((G - 1) * np.var(left_out)))


def _nearest(points: Tensor, query: Tensor, k: int) -> Tensor:
    if query.shape != points.shape[1:] or not bool(torch.isfinite(query).all()):
        raise InputError(
            f"a query is one finite point of shape {tuple(points.shape[1:])}, "
            f"got {tuple(query.shape)}"
        )
    distances = (points - query).flatten(1).double().square().sum(1)
    return points[distances.topk(min(k, len(points)), largest=False).indices]


def _skdim() -> ModuleType:
    try:
        import skdim
    except ImportError as error:
        raise InputError(
            "dimensions from points need scikit-dimension; `pip install geomem[lid]`"
        ) from error
    library: ModuleType = skdim
    return library
