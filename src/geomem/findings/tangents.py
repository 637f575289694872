r"""How tangent spaces turn with the number of images, and what that is to be measured by.

Two spaces of m directions in d dimensions overlap by

.. math:: q = \frac1m \| A^\top B \|_F^2 = \frac1m \sum_i \cos^2 \theta_i \, , \qquad
    \theta = \arccos \sqrt q

with their principal angles :math:`\theta_i`; unrelated ones by m / d on average. At the same
point, level and noise the spaces of networks of N images are put beside those of the largest N
of the same seed. What that is to be compared with: other seeds at the same N, and the same
network at other points.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.stats import Estimate

Array = NDArray[np.float64]
COUNT = 8  # directions of a space that is compared
NAMES = ("to_largest", "between_seeds", "between_points")


def turns(dataset: xr.Dataset, count: int = COUNT) -> xr.Dataset:
    r"""Overlaps of tangent spaces of networks, by size, kind of points and level.

    Arguments:
        dataset: What :func:`geomem.load` returns of a run of ``tangents``.
        count: How many leading directions m are compared, at most those that were kept.

    Returns:
        Over ``num_samples``, ``at`` and ``sigma``: the overlap q ``to_largest`` N,
        ``between_seeds`` and ``between_points`` of a network, each with ``_stderr`` over points
        and trainings; and ``gap``, the eigenvalue of direction m minus that of m + 1. The overlap
        of unrelated spaces is the attribute ``unrelated``, m the attribute ``count``.
    """
    learned = np.flatnonzero((dataset["kind"].values == "learned") & dataset.measured.values)
    rows = dataset.isel(subject=learned).transpose(
        "subject", "at", "sigma", "point", "tangent", ...
    )
    m = min(count, rows.sizes["tangent"] - 1)
    spaces = rows.tangent_vector.values[..., :m, :].astype(
        float
    )  # (subject, at, sigma, point, m, d)
    values = rows.tangent_value.values
    gaps = values[..., m - 1] - values[..., m]
    sizes = sorted({int(n) for n in rows.num_samples.values})
    shape = (len(sizes), rows.sizes["at"], rows.sizes["sigma"])
    arrays = {name: np.full((2, *shape), np.nan) for name in NAMES}
    gap = np.full(shape, np.nan)
    of_size = {
        n: {int(rows.seed.values[k]): k for k in np.flatnonzero(rows.num_samples.values == n)}
        for n in sizes
    }
    largest = of_size[sizes[-1]]
    for i, n in enumerate(sizes):
        mine = of_size[n]
        gap[i] = np.nanmean(gaps[list(mine.values())], axis=(0, 3))
        pairs = {
            "to_largest": [(k, largest[s]) for s, k in mine.items() if s in largest],
            "between_seeds": list(combinations(mine.values(), 2)),
        }
        for a, k in np.ndindex(*shape[1:]):
            for name, both in pairs.items():
                q = [_overlaps(spaces[p, a, k], spaces[r, a, k]) for p, r in both]
                arrays[name][:, i, a, k] = _mean(q)
            q = [_among(spaces[p, a, k]) for p in mine.values()]
            arrays["between_points"][:, i, a, k] = _mean(q)
    dims = ("num_samples", "at", "sigma")
    columns: dict[str, Any] = {"gap": (dims, gap, {"units": "1"})}
    for name, (mean, error) in arrays.items():
        columns[name] = (dims, mean, {"units": "1"})
        columns[f"{name}_stderr"] = (dims, error, {"units": "1"})
    coords = {"num_samples": sizes, "at": rows["at"].values, "sigma": rows.sigma.values}
    coords["sigma_relative"] = ("sigma", rows.sigma_relative.values)
    d = spaces.shape[-1]
    return xr.Dataset(columns, coords, {"count": m, "unrelated": m / d, "ambient_dim": d})


def angle(overlap: float, stderr: float = 0.0) -> Estimate:
    r"""The angle of an overlap, in degrees.

    Example:
        >>> angle(0.5), angle(1.0)
        (45 ± 0, 0 ± 0)
    """
    q = min(max(overlap, 0.0), 1.0)
    value = float(f"{np.degrees(np.arccos(np.sqrt(q))):.6g}")
    slope = 2 * np.sqrt(max(q * (1 - q), 1e-9))
    return Estimate(value, float(np.degrees(stderr / slope)) if stderr else 0.0)


def summarize_turns(found: xr.Dataset, data: str) -> dict[str, Any]:
    r"""The angles as plain JSON values, with a sentence for each size at the first level."""
    sentences, rows = [], []
    for n in found.num_samples.values[:-1]:
        for at in map(str, found["at"].values):
            for k, level in enumerate(found.sigma_relative.values):
                one = found.sel(num_samples=n, at=at).isel(sigma=k)
                pair = {name: _angle_of(one, name) for name in NAMES}
                rows.append(
                    {
                        "num_samples": int(n),
                        "at": at,
                        "sigma_relative": float(f"{level:.4g}"),
                        **{name: None if e is None else [e.value, e.stderr]
                           for name, e in pair.items()},
                    }
                )  # fmt: skip
                if at == "training" and pair["to_largest"] is not None:
                    sentences.append(
                        f"At {level:.2g} rms the {found.attrs['count']} leading directions of "
                        f"networks on {int(n):,} images lie {pair['to_largest']} degrees from "
                        f"those on {int(found.num_samples.values[-1]):,}."
                    )
    return {
        "schema_version": 2,
        "kind": "tangents",
        "data": data,
        "count": int(found.attrs["count"]),
        "unrelated": angle(float(found.attrs["unrelated"])).value,
        "angles": rows,
        "findings": sentences,
    }


def _angle_of(one: xr.Dataset, name: str) -> Estimate | None:
    q, error = float(one[name]), float(one[f"{name}_stderr"])
    return angle(q, error) if np.isfinite([q, error]).all() else None


def _overlaps(first: Array, second: Array) -> Array:
    # Of spaces at the same points, (point, m, d) each: (point), NaN where there is none.
    products = np.einsum("pid,pjd->pij", first, second)
    return np.asarray(np.square(products).sum((1, 2)) / first.shape[1])


def _among(spaces: Array) -> Array:
    # Of the spaces of one network at its points, each two of them.
    there = [s for s in spaces if np.isfinite(s).all()]
    found = [np.square(a @ b.T).sum() / len(a) for a, b in combinations(there, 2)]
    return np.array(found or [np.nan])


def _mean(parts: Iterable[Array]) -> tuple[float, float]:
    # Over points, and over pairs of trainings: what each of them differs by.
    values = np.array(list(parts), float)
    if not values.size or np.isnan(values).all():
        return np.nan, np.nan
    values = values[:, ~np.isnan(values).all(0)]
    trainings, points = values.shape
    over_points = values.mean(0).var(ddof=1) / points if points > 1 else np.nan
    over_trainings = values.mean(1).var(ddof=1) / trainings if trainings > 1 else 0.0
    return float(values.mean()), float(np.sqrt(over_points + over_trainings))
