r"""The numbers that the page draws, as plain JSON values: rounded, and small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_hex

from geomem.show.figures.views import (
    ENOUGH,
    Quantity,
    colour_limit,
    direction_labels,
    peak_level,
    signature,
    size_colours,
    words,
)
from geomem.stats import Estimate

DIGITS = 6
QUANTITIES: tuple[Quantity, ...] = ("density", "gap")
# Whose dimension is drawn, one panel each: denoiser, images, title.
PANELS = (
    ("learned", "training", "Learned, at training images"),
    ("learned", "held_out", "Learned, at held-out images"),
    ("empirical", "training", "Exact denoiser, at training images"),
)


def payload(known: xr.Dataset) -> dict[str, Any]:
    r"""What the scripts of the page need to draw it.

    Arguments:
        known: The numbers of a run, with the margins of the gap.
    """
    sizes = [int(n) for n in known.num_samples.values]
    return {
        "sizes": sizes,
        "colours": size_colours(len(sizes)),
        "scale": _scale(),
        "levels": plain(known.sigma_relative.values),
        "start": peak_level(known, sizes[0]),
        "columns": _columns(known),
        "maps": {name: _map(known, name) for name in QUANTITIES},
        "panels": [_panel(known, *panel) for panel in _panels(known)],
        "control": _control(known),
        "local": _local(known),
    }


def _local(known: xr.Dataset) -> list[dict[str, Any]]:
    # A figure for each method, with the share of images for which it has an answer.
    if "local_dimension" not in known:
        return []
    return [
        {
            "name": str(method),
            "panels": [_panel(one, *panel, _LOCAL) for panel in _panels(known)],
            "control": _control(_enough(one), _LOCAL),
            "answered": [_answered(one, *panel) for panel in _panels(known)],
            "enough": ENOUGH,
        }
        for method in known.dimension_method.values
        for one in [known.sel(dimension_method=method)]
    ]


_LOCAL = ("local_dimension", "local_dimension_stderr")
_TRACE = ("dimension", "dimension_stderr")


def _enough(one: xr.Dataset) -> xr.Dataset:
    there = one.local_dimension_answered >= ENOUGH
    return one.assign({name: one[name].where(there) for name in _LOCAL})


def _answered(known: xr.Dataset, denoiser: str, at: str, title: str) -> Any:
    here = known.sel(denoiser=denoiser, at=at)
    return plain(here.local_dimension_answered.transpose("num_samples", "sigma").values, 3)


def _columns(known: xr.Dataset) -> dict[str, Any]:
    labels = direction_labels(known.direction_count.values)
    return {
        "labels": labels,
        "counts": known.direction_count.values.tolist(),
        "variances": plain(known.direction_variance.values / known.attrs["rms"] ** 2, 3),
    }


def _map(known: xr.Dataset, quantity: Quantity) -> dict[str, Any]:
    view, said = signature(known, quantity), words(known, quantity)
    arrays = {str(name): plain(value.values) for name, value in view.data_vars.items()}
    return {
        "name": said.name,
        "total_name": said.total,
        "units": said.units,
        "cell_units": said.cell_units,
        "total_text": [
            str(Estimate(float(v), float(e)))
            for v, e in zip(view.total, view.total_stderr, strict=True)
        ],
        "limit": plain(colour_limit(view.value.values), 3),
        **arrays,
    }


def _panels(known: xr.Dataset) -> list[tuple[str, str, str]]:
    kinds = known.denoiser.values if "denoiser" in known.dims else []
    return [panel for panel in PANELS if panel[0] in kinds]


def _panel(
    known: xr.Dataset, denoiser: str, at: str, title: str, names: tuple[str, str] = _TRACE
) -> dict[str, Any]:
    here = known.sel(denoiser=denoiser, at=at)
    value, stderr = (plain(here[name].transpose("num_samples", "sigma").values) for name in names)
    return {"title": title, "at": at, "value": value, "stderr": stderr}


def _control(known: xr.Dataset, names: tuple[str, str] = _TRACE) -> dict[str, Any]:
    # The control is the same beside each N; at training images the largest set says it best.
    kind = known.attrs["control"]
    made: dict[str, Any] = {"name": f"{kind} control"}
    for at in ("training", "held_out"):
        one = known.sel(denoiser=kind, at=at).isel(num_samples=-1)
        made[at] = [plain(one[name].values) for name in names]
    return made


def _scale(steps: int = 21) -> list[list[Any]]:
    # Red is memorized, blue the contrary, white is 0; the colour-blind tell them apart.
    ends = np.linspace(0, 1, steps)
    return [[round(float(x), 3), to_hex(colormaps["RdBu_r"](x))] for x in ends]


def plain(values: Any, digits: int = DIGITS) -> Any:
    r"""Numbers as JSON: a few digits, and null for what is not known.

    Example:
        >>> plain(np.array([[1.2345649, np.nan]]))
        [[1.23456, None]]
    """
    if isinstance(values, np.ndarray):
        return [plain(v, digits) for v in values]
    value = float(values)
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
