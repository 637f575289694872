r"""What the scripts of the theory pages share: data, draws, and how a document is kept."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib

matplotlib.use("Agg")
import numpy as np
import scipy
import torch
import xarray as xr

import geomem
from geomem.stats import Estimate

SEED = 4
PAPER = (1.0,) * 2 + (0.09,) * 5  # the paper's linear manifold without the normal directions
WIDTH = 8.0  # inches: at the 800 pixels that a page shows, text of 9 points is 12 pixels high

STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": 150,
}

Pair = tuple[float, float]  # a value and its standard error


def mean(values: Any) -> Pair:
    r"""The mean of a sample and its standard error."""
    found = Estimate.of_mean(np.asarray(values, float))
    return found.value, found.stderr


def versions() -> dict[str, str]:
    r"""What a document was computed with."""
    found = {m.__name__: m.__version__ for m in (geomem, np, scipy, xr, torch, matplotlib)}
    return found | {"python": platform.python_version()}


def rounded(values: Any, digits: int = 6) -> Any:
    r"""An array as nested lists of so many significant digits; NaN is null."""
    if isinstance(values, (xr.DataArray, np.ndarray)):
        values = np.asarray(values).tolist()
    if isinstance(values, list):
        return [rounded(v, digits) for v in values]
    return None if not np.isfinite(values) else float(f"{values:.{digits}g}")


def array(values: Any) -> np.ndarray:
    r"""What ``rounded`` wrote, as an array."""
    return np.array(values, dtype=float)


def write(document: dict[str, Any], path: Path) -> None:
    r"""Keeps a document: lists of numbers on one line, so that changes can be read."""
    path.write_text(_pretty(document, "") + "\n", encoding="utf-8")


def _pretty(value: Any, indent: str) -> str:
    inner = indent + " "
    if isinstance(value, dict) and value:
        items = (f"{inner}{json.dumps(k, ensure_ascii=False)}: {_pretty(v, inner)}"
                 for k, v in value.items())  # fmt: skip
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(v, (list, dict)) for v in value):
        return "[\n" + ",\n".join(inner + _pretty(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
