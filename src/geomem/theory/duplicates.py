r"""Near-duplicates: pairs of images much nearer than nearest neighbours usually are. **[ours]**

Copies tell nothing further: the posterior of the exact denoiser shares its weight among them,
and twice the same image looks like two that agree. So they are named, and left out where images
are counted (:mod:`geomem.theory.planning`). **Limitation:** near means near in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from geomem.arguments import Values, Whole, checked
from geomem.errors import InputError
from geomem.stats import numpy_rng
from geomem.theory.moments import Array

MOST_PAIRS = 1_000_000  # that are looked at
NEIGHBOURS = 32  # among which an image's copies are the nearer half at most


@dataclass(frozen=True)
class Twins:
    r"""Pairs of points much nearer to each other than nearest neighbours usually are.

    Attributes:
        pairs: ``(i, j, ratio)``, nearest first: the distance over ``typical``.
        typical: The median distance to the nearest neighbour that is no near-duplicate.
        threshold: Pairs below this ratio are listed: a third, or less where more than one image
            in 1,000 would be as near by chance.
        dimension: The dimension in which neighbours spread, by their distance ratios.
    """

    pairs: tuple[tuple[int, int, float], ...]
    typical: float
    threshold: float
    dimension: float


@checked
def near_duplicates(
    points: Annotated[ArrayLike, Values(shape="(n, d)")],
    directions: Annotated[ArrayLike, Values(shape="(K, d)")],
    *,
    sample: Annotated[int, Whole(least=8)] = 256,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> Twins:
    r"""Finds near-duplicates among distinct points, however many there are; none is missed.

    Distances along a few directions never exceed distances: pairs are sifted by these, and
    only what is left is measured in full. What is typical is first read from neighbours further
    away than anyone's copies (the 16th and the 32nd), then from the nearest that is no copy.

    Arguments:
        points: The data without exact duplicates, with shape :math:`(n, d)`.
        directions: Orthonormal directions of high variance, as rows, with shape :math:`(K, d)`.
        sample: How many points say what is typical.
        seed: The seed of their choice.
    """
    data = np.asarray(points)
    n = len(data)
    if n < 8:
        raise InputError(f"`points` has {n} points, too few to say what is near; pass 8 or more")
    chosen = numpy_rng(seed, "plan: neighbours").permutation(n)[:sample]
    far = min(NEIGHBOURS, n // 4)
    nearest, distances = np.empty((len(chosen), far), int), np.empty((len(chosen), far))
    for row, i in enumerate(chosen):
        squares = np.concatenate(
            [((data[k : k + 4096] - data[i]) ** 2).sum(1) for k in range(0, n, 4096)]
        ).astype(float)
        squares[i] = np.inf
        order = np.argpartition(squares, far - 1)[:far]
        nearest[row] = order[np.argsort(squares[order])]
        distances[row] = np.sqrt(squares[nearest[row]])
    distances = np.maximum(distances, 1e-300)
    tree = cKDTree(data @ np.asarray(directions, data.dtype).T)

    def listed(typical: float, rates: Array) -> Twins:
        dimension = float(1 / max(rates.mean(), 1e-9))
        # P(nearest < c typical) = 1 - 2^(-c^m) where points are locally uniform in m dimensions.
        threshold = min(1 / 3, 0.00144 ** (1 / dimension))
        while tree.count_neighbors(tree, threshold * typical) > 2 * MOST_PAIRS + n:
            threshold /= 2
        pairs, radius = [], threshold * typical
        for i, j in tree.query_pairs(radius * (1 + 1e-5), output_type="ndarray"):
            distance = float(np.sqrt(((data[i].astype(float) - data[j]) ** 2).sum()))
            if distance < radius:
                pairs.append((distance / typical, int(i), int(j)))
        named = tuple((i, j, ratio) for ratio, i, j in sorted(pairs))
        return Twins(named, typical, threshold, dimension)

    middle = max(far // 2, 1)
    rates = np.log(distances[:, -1] / distances[:, middle - 1]) / math.log(far / middle)
    extrapolated = (math.log(2) / far) ** max(rates.mean(), 1e-9)
    twins = listed(float(np.median(distances[:, -1])) * extrapolated, rates)
    for _ in range(3):
        there = np.zeros(n, dtype=bool)
        there[without_copies(n, twins.pairs)] = True
        rows = zip(there[chosen], there[nearest], distances, strict=True)
        two = np.array([d[left][:2] for itself, left, d in rows if itself and left.sum() > 1])
        if not len(two):  # nothing but copies around
            break
        before = len(twins.pairs)
        twins = listed(float(np.median(two[:, 0])), np.maximum(np.log(two[:, 1] / two[:, 0]), 1e-9))
        if len(twins.pairs) == before:
            break
    return twins


def without_copies(count: int, pairs: Iterable[Sequence[float]]) -> NDArray[np.intp]:
    r"""The indices below ``count`` that are left when no two of a pair may stay: the first does.

    Arguments:
        count: The number of points.
        pairs: Their near-duplicates ``(i, j, ...)``, as :attr:`Twins.pairs` has them.

    Example:
        >>> without_copies(5, [(0, 1), (1, 2), (3, 4)]).tolist()
        [0, 2, 3]
    """
    stays = np.ones(count, dtype=bool)
    for i, j in sorted(sorted((int(pair[0]), int(pair[1]))) for pair in pairs):
        if stays[i]:
            stays[j] = False
    return np.flatnonzero(stays)
