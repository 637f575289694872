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
from typing import Annotated, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from geomem.arguments import Values, checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.theory.averages import USUAL, Effort, planted_average
from geomem.theory.draws import Sampled
from geomem.theory.finite_size import predict
from geomem.theory.priors import GaussianMixture, Sigmas, check_sizes

Kind = Literal["planted", "fresh", "centre"]


@checked
def retention_map(
    prior: GaussianMixture | Sampled,
    sigmas: Sigmas,
    num_samples: Annotated[ArrayLike, Values(shape="(S)", least=1, most=1e12)],
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
    levels, sizes = np.atleast_1d(np.asarray(sigmas, float)), check_sizes(num_samples)
    count = prior.ambient_dim if directions is None else len(np.atleast_2d(directions))
    cells = len(levels) * len(sizes) * (count * (4 + 2 * bounded) + 3)
    Forecast(0, 24.0 * cells).check_memory("pass fewer `sigmas`, `num_samples` or `directions`")
    full, each = ("num_samples", "direction"), ("num_samples",)
    rows = []
    for done, sigma in enumerate(levels, start=1):
        own = replace(effort, seed=effort.seed + 1000 * done)  # levels fluctuate independently
        if kind == "centre":
            p = predict(prior, prior.mean, sigma, sizes, directions=directions, bounded=bounded)
        else:
            p = planted_average(
                prior,
                sigma,
                sizes,
                directions=directions,
                bounded=bounded,
                effort=own,
                fresh=kind == "fresh",
            )
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
        rows.append(xr.Dataset(variables, {"num_samples": sizes}))
        progress(done)
    out = xr.concat(rows, dim="sigma").assign_coords(sigma=levels)
    return out.assign_attrs(kind=kind)


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
    retention = retention.sortby("sigma")
    # Trapezoid; levels are drawn independently, so weights and errors are squared.
    steps = np.diff(np.log(retention.sigma.values))
    each = (np.append(steps, 0) + np.append(0, steps)) / 2
    weights = xr.DataArray(each, dims="sigma")
    missing = (weights * retention.missing_dimension.fillna(0)).sum("sigma")
    population = (weights * retention.control).sum("sigma")
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
