r"""What each principal direction has to lose: a direction of no variance cannot be memorized."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

LEAST = 0.1  # of the largest: directions with less have nothing to lose


def openings(known: xr.Dataset) -> NDArray[np.float64]:
    r"""What each single direction has to lose, in units of the largest.

    The linear denoiser's expected error, times what the best network leaves of it, over the
    window: a pixel that never changes has nothing to lose, and losing least there says nothing.

    Arguments:
        known: What :func:`geomem.numbers` returns.

    Returns:
        Shares of the largest, with shape :math:`(u)`; 0 for bands, which hold many directions.
    """
    variance = known.direction_variance
    keeps = variance / (variance + known.sigma**2)
    if "ratio" in known:
        keeps = known.ratio * keeps
    values = keeps.transpose("direction", "sigma").values
    nats = np.trapezoid(values, np.log(known.sigma.values), axis=-1)
    nats = np.where(known.direction_count.values == 1, np.nan_to_num(nats), 0.0)
    return np.asarray(nats / max(float(nats.max(initial=0.0)), 1e-300))
