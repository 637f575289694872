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
from typing import Annotated, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geomem.arguments import Values, Whole, check, checked
from geomem.dimension.answers import NoGap, within
from geomem.errors import InputError
from geomem.stats import Estimate, numpy_rng

# What scikit-dimension 0.5 offers, but for its KNN: that one found 1 for 500 points of a plane of
# dimension 5.
Estimator = Literal[
    "MLE", "TwoNN", "lPCA", "ESS", "MOM", "TLE", "CorrInt", "MADA", "MiND_ML", "FisherS", "DANCo"
]
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


class DataDimensionMethod(Protocol):
    r"""A way to tell the dimension of points, around one of them or of all."""

    def __call__(self, points: Tensor, query: Tensor | None = None) -> Estimate | NoGap:
        r"""
        Arguments:
            points: The points, with shape :math:`(N, *)`.
            query: The point around which, with shape :math:`(*)`; all of them if not given.
        """


@checked
@dataclass(frozen=True, kw_only=True)
class ScikitDimension:
    r"""An estimator of scikit-dimension, with an error bar.

    Around a query its nearest points are looked at, otherwise all of them; copies count once, and
    the unit of the points does not matter. The error is the
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
        >>> import torch
        >>> rng = torch.Generator().manual_seed(0)
        >>> points = torch.randn(500, 3, generator=rng) @ torch.eye(3, 10)
        >>> ScikitDimension(estimator="lPCA")(points)
        3 ± 0
    """

    estimator: Estimator = "MLE"
    neighbours: Annotated[int, Whole(least=4)] = 100
    groups: Annotated[int, Whole(least=2)] = 10
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: Annotated[int, Whole(least=0)] = 0

    def __call__(self, points: Tensor, query: Tensor | None = None) -> Estimate | NoGap:
        r"""The dimension of points, or around one of them.

        Arguments:
            points: The points, with shape :math:`(N, *)`.
            query: Where to look, with shape :math:`(*)`; at all points if not given.

        Raises:
            InputError: If there are fewer than 4 points, or scikit-dimension is not installed.
        """
        points = check("points", points, Annotated[Tensor, Values(shape="(N, d, *)")])
        if len(points) < 4:
            raise InputError(f"`points` are {len(points)}, and have no dimension; pass 4 or more")
        if query is not None:
            query = check("query", query, Annotated[Tensor, Values()])
            if query.shape != points.shape[1:]:
                raise InputError(
                    f"`query` has shape {tuple(query.shape)}; pass one point of shape "
                    f"{tuple(points.shape[1:])}"
                )
        try:
            import skdim
        except ImportError as error:
            raise InputError(
                "dimensions from points need scikit-dimension; `pip install geomem[lid]`"
            ) from error
        try:
            getattr(skdim.id, self.estimator)(**self.settings)
        except TypeError as error:
            raise InputError(f"`settings` do not fit {self.estimator}: {error}") from error
        X = distinct(points.detach().flatten(1).double().numpy(force=True))
        if query is not None:
            to_query = np.square(X - query.detach().flatten().double().numpy(force=True)).sum(1)
            X = X[np.sort(to_query.argsort(kind="stable")[: self.neighbours])]
        if len(X) < 4:
            if len(X) == 1:
                return NoGap("all points are equal: they span nothing")
            return NoGap(f"{len(X)} different points are too few to span a dimension")
        # Estimators compare distances with constants of their own: the unit must not matter.
        X = X - X.mean(0)
        X = X / np.sqrt(np.square(X).sum(1).mean())
        value = self._fit(skdim, X)
        if not math.isfinite(value):
            return NoGap(f"{self.estimator} finds no dimension in {len(X)} points")
        G = min(self.groups, len(X) // 2)
        group = numpy_rng(self.seed, "jackknife").permutation(len(X)) % G
        left_out = np.array([self._fit(skdim, X[group != g]) for g in range(G)])
        return within(Estimate(value, float(np.sqrt((G - 1) * np.var(left_out)))), X.shape[1])

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


def distinct(X: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""The points without copies, in their order: a distance of 0 says nothing of a dimension.

    Two are copies if they are as near as rounding to float32 brings them.

    Example:
        >>> distinct(np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0 + 1e-9]])).tolist()
        [[0.0, 1.0], [2.0, 0.0]]
    """
    size = float(np.abs(X - X.mean(0)).max())
    grid = np.round((X - X.mean(0)) / (1e-6 * size)) if size else np.zeros_like(X)
    _, first = np.unique(grid, axis=0, return_index=True)
    kept: NDArray[np.float64] = X[np.sort(first)]
    return kept
