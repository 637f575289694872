r"""Maps over sizes and noise levels, and the budget of information. **[ours]**

*Dimension is information per e-fold of noise.* For any exact denoiser, averaged over
:math:`x = x_0 + \sigma z` with :math:`x_0` from its own law, :math:`\mathbb{E} \,
\mathrm{tr} \nabla_x D = - d I / d \ln \sigma`. The population has :math:`I = \frac12 \sum_k
\ln(1 + v_k/t)` to give, N distinct points have :math:`\ln N` in all. What they fail to give,
direction by direction and level by level, is the *missing dimension*; its integral over
:math:`\ln \sigma` is the *missing information* in nats. It grows without bound as
:math:`\sigma \to 0`, so it is quoted with its window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomem.errors import InputError
from geomem.theory.averages import USUAL, Effort, planted_average
from geomem.theory.finite_size import Prediction, predict
from geomem.theory.moments import Array
from geomem.theory.priors import GaussianMixture, check_sizes, finite

Kind = Literal["planted", "fresh", "centre"]


def retention_map(
    prior: GaussianMixture,
    sigmas: ArrayLike,
    num_samples: ArrayLike,
    *,
    kind: Kind = "planted",
    directions: ArrayLike | None = None,
    bounded: bool = False,
    effort: Effort = USUAL,
    progress: Callable[[int], None] = lambda done: None,
) -> xr.Dataset:
    r"""Retention, missing dimension and participation over noise levels and sizes.

    Arguments:
        prior: The law of the clean points.
        sigmas: The noise levels, with shape :math:`(T)`.
        num_samples: The sizes, with shape :math:`(S)`.
        kind: Averaged over planted or over fresh points, or at the centre.
        directions: Unit directions as rows, with shape :math:`(K, d)`.
        bounded: Whether to add the bounded retention, the one to read at fresh and central
            points.
        effort: How much is drawn, where points are averaged over.
        progress: Called with the number of levels that are done.

    Returns:
        A data set over ``sigma``, ``num_samples``, ``direction``, with standard errors.

    Example:
        >>> from geomem.theory.priors import Gaussian
        >>> m = retention_map(Gaussian([1.0, 0.09]), [0.1, 1.0], [10, 1000], kind="centre")
        >>> m.retention.dims
        ('sigma', 'num_samples', 'direction')
    """
    levels, sizes = np.atleast_1d(finite(sigmas, "the noise levels")), check_sizes(num_samples)
    slices = []
    for done, sigma in enumerate(levels, start=1):
        own = replace(effort, seed=effort.seed + 1000 * done)  # levels fluctuate independently
        p = _one_level(prior, float(sigma), sizes, kind, directions, bounded, own)
        slices.append(_dataset(p, sizes))
        progress(done)
    out = xr.concat(slices, dim="sigma").assign_coords(sigma=levels)
    return out.assign_attrs(kind=kind)


def _one_level(
    prior: GaussianMixture,
    sigma: float,
    sizes: Array,
    kind: Kind,
    directions: ArrayLike | None,
    bounded: bool,
    effort: Effort,
) -> Prediction:
    if kind == "centre":
        return predict(prior, prior.mean, sigma, sizes, directions=directions, bounded=bounded)
    return planted_average(
        prior,
        sigma,
        sizes,
        directions=directions,
        bounded=bounded,
        effort=effort,
        fresh=kind == "fresh",
    )


def _dataset(p: Prediction, sizes: Array) -> xr.Dataset:
    full, each = ("num_samples", "direction"), ("num_samples",)
    variables = {
        "retention": (full, p.retention),
        "retention_stderr": (full, p.retention_stderr),
        "missing_dimension": (full, p.missing_dimension),
        "missing_dimension_stderr": (full, p.missing_dimension_stderr),
        "control": (("direction",), p.control / p.sigma**2),
        "participation": (each, p.participation),
        "participation_stderr": (each, p.participation_stderr),
        "identity_defect": (each, p.identity_defect),
    }
    if p.bounded is not None and p.bounded_stderr is not None:
        variables["bounded"] = (full, p.bounded)
        variables["bounded_stderr"] = (full, p.bounded_stderr)
    return xr.Dataset(variables, {"num_samples": sizes})


def information_budget(retention: xr.Dataset) -> xr.Dataset:
    r"""Who spends the budget of information, in nats, over the window of a map.

    Trapezoid in :math:`\ln \sigma`, no extrapolation.

    Arguments:
        retention: A map of kind "planted": elsewhere the budget does not add up.

    Returns:
        ``missing``, ``kept`` and ``population`` nats by ``num_samples`` and ``direction``,
        ``missing_stderr``, and the budget ``log_size`` = ln N; the window is in the
        attributes.

    Example:
        >>> from geomem.theory.priors import Gaussian
        >>> wide, prior = np.geomspace(0.02, 100, 24), Gaussian([1.0, 0.5, 0.2, 0.1])
        >>> m = retention_map(prior, wide, [10], effort=Effort(points=2))
        >>> spent = information_budget(m)
        >>> z = (spent.kept.sum() - spent.log_size[0]) / spent.missing_stderr.sum()
        >>> bool(abs(z) < 4)
        True
    """
    if retention.attrs.get("kind") != "planted":
        raise InputError("the budget adds up over planted points; pass a map of kind 'planted'")
    levels = np.log(retention.sigma)
    missing = _integral(retention.missing_dimension.fillna(0), levels)
    population = _integral(retention.control, levels)
    # Levels are drawn independently: weights and errors are squared.
    weights = _trapezoid_weights(levels)
    stderr = np.sqrt(((weights * retention.missing_dimension_stderr.fillna(0)) ** 2).sum("sigma"))
    window = [float(retention.sigma.min()), float(retention.sigma.max())]
    return xr.Dataset(
        {
            "missing": missing,
            "missing_stderr": stderr,
            "population": population,
            "kept": population - missing,
            "log_size": np.log(retention.num_samples),
        },
        attrs={"window": window},
    )


def _trapezoid_weights(log_sigma: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(np.abs(np.gradient(log_sigma.values)), dims="sigma") * _half_ends(log_sigma)


def _half_ends(log_sigma: xr.DataArray) -> Array:
    ends = np.ones(len(log_sigma))
    ends[[0, -1]] = 0.5
    return ends


def _integral(values: xr.DataArray, log_sigma: xr.DataArray) -> xr.DataArray:
    return values.assign_coords(sigma=log_sigma).sortby("sigma").integrate("sigma")
