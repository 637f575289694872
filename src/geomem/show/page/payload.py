r"""The numbers that the page draws, as plain JSON values: rounded, and small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_hex

from geomem.findings.looks import first_warning
from geomem.show.figures.data import (
    ENOUGH,
    QUANTITIES,
    Quantity,
    colour_limit,
    direction_labels,
    has,
    panels,
    peak_level,
    row_colours,
    shown_rows,
    signature,
    strongest_row,
    words,
)
from geomem.stats import Estimate

DIGITS = 6
SCALE = np.linspace(0, 1, 21)


def payload(known: xr.Dataset) -> dict[str, Any]:
    r"""What the scripts of the page need to draw it; figures of nothing are left out.

    Arguments:
        known: The numbers of a run.
    """
    rows = shown_rows(known)
    light, dark = row_colours(known), row_colours(known, dark=True)
    strongest = strongest_row(known)
    local = []
    for method in known.dimension_method.values if "local_dimension" in known else ():
        drawn = _panels(known.sel(dimension_method=method), "local_dimension")
        if drawn:
            local.append({"name": str(method), "panels": drawn, "enough": ENOUGH})
    return {
        "rows": [str(known["label"].values[k]) for k in rows],
        "colours": {"light": [light[k] for k in rows], "dark": [dark[k] for k in rows]},
        # Red is memorized, blue the contrary, white is 0; the colour-blind tell them apart.
        "scale": [[round(float(x), 3), to_hex(colormaps["RdBu_r"](x))] for x in SCALE],
        "levels": plain(known.sigma_relative.values),
        "start": peak_level(strongest),
        "chosen": rows.index(int(strongest["subject"])),
        "columns": {
            "labels": direction_labels(known.direction_count.values),
            "counts": known.direction_count.values.tolist(),
            "variances": plain(known.direction_variance.values / known.attrs["rms"] ** 2, 3),
        }
        if "direction_count" in known
        else None,
        "maps": {name: _map(known, name) for name in QUANTITIES if has(known, name)},
        "panels": _panels(known, "dimension"),
        "local": local,
        "looks": _looks(known),
    }


def _looks(known: xr.Dataset) -> dict[str, Any] | None:
    # What is drawn against the steps of a training that was looked at while it went on.
    if "look_number" not in known:
        return None
    rows = np.argsort(known.look_number.values)[: int(known.look_number.notnull().sum())]
    one, first = known.isel(subject=rows), first_warning(known)

    def curve(name: str, **at: str) -> dict[str, Any]:
        value, stderr = (one[name + end].sel(at) for end in ("", "_stderr"))
        return {"value": plain(value.values), "stderr": plain(stderr.values)}

    return {
        "steps": one.step.values.astype(int).tolist(),
        "gains": {name: curve("look_gain", beside=name) for name in one.beside.values.tolist()},
        "lost": curve("by_level"),
        "errors": {at: curve(f"{at}_error") for at in ("training", "held_out")},
        "p_values": plain(one.look_p_value.values, 2),
        "first": None if first is None else int(first.step),
    }


def _map(known: xr.Dataset, quantity: Quantity) -> dict[str, Any]:
    view, said = signature(known, quantity), words(known, quantity)
    limit, values = colour_limit(view.value.values), view.value.values
    totals = zip(view.total.values, view.total_stderr.values, strict=True)
    return {
        "name": said.name,
        "units": said.units,
        "cell_units": said.cell_units,
        "total_text": [
            f"{Estimate(float(v), float(e))} nats" if math.isfinite(v) else "not measured"
            for v, e in totals
        ],
        "limit": plain(limit, 3),
        "beyond": int((np.abs(values) > limit).sum()),
        **{str(name): plain(value.values) for name, value in view.data_vars.items()},
    }


def _panels(known: xr.Dataset, name: str) -> list[dict[str, Any]]:
    rows = shown_rows(known)
    light, dark = row_colours(known), row_colours(known, dark=True)
    made = []
    for panel in panels(known, name):
        curves = []
        for k in panel.curves["subject"].values:
            one = panel.curves.sel(subject=k)
            about = {
                "label": str(one["label"].item()),
                "row": rows.index(k) if k in rows else None,
                "colours": {"light": light[int(k)], "dark": dark[int(k)]},
            }
            curves.append(about | {str(n): plain(v.values) for n, v in one.data_vars.items()})
        beside = panel.control and {str(n): plain(v.values) for n, v in panel.control.items()}
        control = beside and {"label": f"{known.attrs['control']} control", **beside}
        made.append({"title": panel.title, "curves": curves, "control": control or None})
    return made


def plain(values: Any, digits: int = DIGITS) -> Any:
    r"""Numbers as JSON: a few digits, and null for what is not known.

    Example:
        >>> plain(np.array([[1.2345649, np.nan]]))
        [[1.23456, None]]
    """
    if isinstance(values, np.ndarray) and values.ndim:
        return [plain(v, digits) for v in values]
    value = float(values)
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
