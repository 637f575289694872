r"""The phase diagram: where directions open, are lost, and where a set collapses.

Over sizes N and noise levels, for each group of directions: it *opens* below :math:`\sigma =
\sqrt v`; it is *lost* where its exact retention, averaged over planted points, is below ``kept``
(the paper's :math:`t^*_j` beside it); the posterior has *collapsed* where the participation
exceeds 1/2, two effective points. What is open, lost and not collapsed is geometric
memorization as a region on a map, exact at finite size. **[ours]**

**Measured.** At half retention that region is empty for the exact denoiser. Five spectra of
7 to 202 directions, N = 3 to 10^6: wherever the participation is below .5, no direction
keeps less than .504 +- .005, and no open one less than .553 +- .005. The reason is in the
limit :math:`v \to 0`, in which the weights know nothing of the direction and :math:`r = 1 -
\mathbb{E} \sum_i w_i^2`; higher variances kept more than that in every case tried. The region
opens at a milder threshold (``kept = .75``). What networks lose on top of it is not the exact
denoiser's doing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomem.arguments import Values, Whole, checked
from geomem.compute.progress import Forecast
from geomem.errors import Inconclusive, InputError
from geomem.theory.averages import USUAL, Effort
from geomem.theory.collapse import collapse_sigma
from geomem.theory.critical import Share, critical_sigma
from geomem.theory.data_prior import data_prior
from geomem.theory.maps import retention_map
from geomem.theory.moments import Array
from geomem.theory.priors import Gaussian, check_variances

BANDS = (2, 5, 10, 20, 40, 64)  # last principal direction of each band


@checked
def phase_diagram(
    variances: ArrayLike,
    sigmas: Annotated[ArrayLike, Values(shape="(T)", least=1e-30, most=1e30)],
    num_samples: Annotated[ArrayLike, Values(shape="(S)", least=1, most=1e12)],
    *,
    kept: Share = 0.5,
    effort: Effort = USUAL,
    progress: Callable[[int], None] = lambda done: None,
) -> xr.Dataset:
    r"""Phase diagram of Gaussian data; directions of equal variance are one group.

    Arguments:
        variances: The variances, with shape :math:`(m)`.
        sigmas: Increasing noise levels, with shape :math:`(T)`.
        num_samples: The sizes, 2 or more, with shape :math:`(S)`.
        kept: The retention below which a group is called lost.
        effort: How much is drawn.
        progress: Called with the number of levels that are done.

    Returns:
        Over ``sigma``, ``num_samples``, ``group``: ``retention``, ``participation``,
        ``lost_without_collapse``; lines over sizes: ``retention_sigma``,
        ``paper_sigma`` (normalised samples), ``paper_sigma_gaussian``,
        ``two_points_sigma``, ``collapse_sigma``; and ``opening_sigma``.
    """
    v = check_variances(variances)
    groups, first, count = np.unique(v[v > 0], return_index=True, return_counts=True)
    m = retention_map(Gaussian(v[v > 0]), sigmas, num_samples, effort=effort, progress=progress)
    order = np.argsort(groups)[::-1]
    chosen = m.isel(direction=first[order]).rename(direction="group")
    chosen = chosen.assign_coords(group=groups[order])
    chosen["multiplicity"] = ("group", count[order])
    return _with_lines(chosen, v[v > 0], kept)


@checked
def phase_diagram_of_data(
    points: Annotated[ArrayLike, Values(shape="(M, d)")],
    sigmas: Annotated[ArrayLike, Values(shape="(T)", least=1e-30, most=1e30)],
    num_samples: Annotated[ArrayLike, Values(shape="(S)", least=1, most=1e12)],
    *,
    bands: tuple[Annotated[int, Whole(least=1)], ...] = BANDS,
    kept: Share = 0.5,
    queries: Annotated[int, Whole(least=2)] = 32,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> xr.Dataset:
    r"""Phase diagram of a data set, which is its own prior, by bands of principal directions.

    Retention is relative to all M points (:mod:`geomem.theory.data_prior`), averaged over
    noisy versions of randomly chosen points; the paper's and the collapse line are those of
    the Gaussian with the data's covariance.

    Arguments:
        points: The data, with shape :math:`(M, d)`.
        sigmas: Increasing noise levels, with shape :math:`(T)`.
        num_samples: The sizes, up to M, with shape :math:`(S)`.
        bands: The last principal direction of each band.
        kept: The retention below which a band is called lost.
        queries: How many points are looked at.
        seed: The seed of their choice and of their noise.

    Returns:
        As :func:`phase_diagram`, with ``reference_points`` over ``sigma``: below 20 the data
        are too few to say.
    """
    data = np.asarray(points, dtype=float)
    if len(data) < 2:
        raise InputError("`points` is a single point; pass two or more")
    if not bands:
        raise InputError("`bands` is empty; pass the last principal direction of each")
    Forecast(0, 8.0 * (3 * data.size + 2 * min(data.shape) ** 2)).check_memory(
        "pass fewer `points`, or fewer coordinates"
    )
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(data)]))
    _, s, axes = np.linalg.svd(data - data.mean(0), full_matrices=False)
    variances = s**2 / len(data)
    present = variances > 1e-12 * variances[0]
    if not present.any():
        raise InputError("all `points` are the same; pass data that vary")
    variances, axes = variances[present], axes[present]
    last = min(len(axes), max(bands))
    edges = sorted({0, last, *(b for b in bands if b < last)})
    sources = rng.permutation(len(data))[:queries]
    noise = rng.standard_normal((len(sources), data.shape[1]))
    directions = axes[: edges[-1]]
    raw = data_prior(
        data, sigmas, num_samples, sources=sources, noise=noise, directions=directions, trace=False
    )
    return _with_lines(_banded(raw, variances, edges), variances, kept)


def _banded(raw: xr.Dataset, variances: Array, edges: list[int]) -> xr.Dataset:
    starts = np.array(edges[:-1])
    kept = np.add.reduceat(raw.kept.values, starts, axis=-1)
    reference = np.add.reduceat(raw.reference_kept.values, starts, axis=-1)[:, :, None]
    # Of nothing, nothing is kept: no ratio where the reference keeps less than .05 each.
    width = np.diff(edges)
    enough = reference.mean(0) >= 0.05 * width
    reference = np.where(enough, reference, np.nan)
    ratio = kept.mean(0) / reference.mean(0)
    # Error of a ratio of means over sources, numerator and control fluctuating together.
    residual = (kept - ratio * reference) / reference.mean(0)
    stderr = residual.std(0, ddof=1) / np.sqrt(len(residual))
    full = ("sigma", "num_samples", "group")
    return xr.Dataset(
        {
            "retention": (full, ratio),
            "retention_stderr": (full, stderr),
            "participation": raw.participation.mean("source"),
            "reference_points": raw.reference_points.median("source"),
            "multiplicity": ("group", width),
        },
        {"group": np.add.reduceat(variances[: edges[-1]], starts) / width},
    )


def _with_lines(map_: xr.Dataset, variances: Array, kept: float) -> xr.Dataset:
    v, sizes = map_.group.values, map_.num_samples.values
    line, lines = "num_samples", ("num_samples", "group")

    def crossing(value: xr.DataArray, stderr: xr.DataArray, at: float) -> float:
        found = critical_sigma(map_.sigma.values, value.values, stderr.values, at)
        return np.nan if found is None else float(np.exp(found.value))

    kept_at, two_points, collapse, paper = [], [], [], []
    for n, size in enumerate(map(float, sizes)):
        one = map_.isel(num_samples=n)
        columns = [one.isel(group=k) for k in range(len(v))]
        kept_at.append([crossing(c.retention, c.retention_stderr, kept) for c in columns])
        two_points.append(crossing(1 - one.participation, 0 * one.participation, 0.5))
        try:
            collapse.append(collapse_sigma(variances, size))
        except (InputError, Inconclusive):
            collapse.append(np.nan)
        if size < 2:
            paper.append(np.full((2, len(v)), np.nan))
            continue
        # The paper's level of each group, with the sum over k running over all directions.
        A = 8 * (variances**2).sum() / 2 * np.log(size)
        both = [v + np.sqrt(v**2 + g * A) for g in (0, 1)]
        paper.append(np.sqrt(np.stack(both) / (4 * np.log(size))))
    out = map_.assign(
        opening_sigma=("group", np.sqrt(v)),
        retention_sigma=(lines, kept_at),
        two_points_sigma=(line, two_points),
        collapse_sigma=(line, collapse),
        paper_sigma=(lines, np.stack(paper)[:, 0]),
        paper_sigma_gaussian=(lines, np.stack(paper)[:, 1]),
    )
    lost = (out.retention < kept) & (out.sigma < out.opening_sigma) & (out.participation < 0.5)
    return out.assign(lost_without_collapse=lost).assign_attrs(kept=kept)
