r"""What a figure shows: from the numbers of a run to the dataset that is drawn.

Both the pictures in matplotlib and the page read from here, so that they show the same. A map
has one column for each principal direction, in the order of falling variance. Directions far
down the spectrum are measured in bands, which hold sums; a picture on one colour scale needs a
value a direction, so a band is drawn as the mean over its directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.stats import Estimate, clustered_mean

Array = NDArray[np.float64]
Quantity = Literal["density", "gap"]
MIN_JACOBIANS = 8  # fewer images than that are not called a mean
ENOUGH = 0.5  # of the images must have a local dimension, for their mean to be drawn as a line


@dataclass(frozen=True)
class Words:
    r"""How a quantity is called: beside the population as control, other words are due."""

    name: str
    total: str
    units: str
    cell_units: str


def words(known: xr.Dataset, quantity: Quantity) -> Words:
    r"""The words for a map and its integral."""
    if quantity == "gap":
        return Words("dimension gap", "dimension gap, integrated", "directions", "of a direction")
    kind = "missing" if known.attrs["control"] == "population" else "memorized"
    first = "missing dimension" if kind == "missing" else "memorized density"
    return Words(first, f"{kind} information", "nats per e-fold", "nats per e-fold")


def signature(known: xr.Dataset, quantity: Quantity = "density") -> xr.Dataset:
    r"""The signature picture: a map for each N, its margins and its total.

    Arguments:
        known: What :func:`geomem.findings.numbers.numbers` returns; for the gap, together with
            :func:`gap_margins`.
        quantity: ``density`` of what is memorized, from errors, or the dimension ``gap``
            between held-out and training images, from the Jacobian's diagonal.

    Returns:
        ``value`` (num_samples, sigma, direction) and ``by_direction``, both a direction where
        one column is a band; ``by_level`` and ``total``, sums over all directions; each with
        its ``_stderr``. NaN is an error that is not known.
    """
    density = quantity == "density"
    names = {
        "value": quantity,
        "by_level": "by_level" if density else "total_gap",
        "by_direction": "by_direction" if density else "gap_by_direction",
        "total": "information" if density else "gap_information",
    }
    count = known.direction_count
    arrays = {}
    for name, source in names.items():
        for suffix in ("", "_stderr"):
            values = known[source + suffix]
            arrays[name + suffix] = values / count if "direction" in values.dims else values
    return xr.Dataset(arrays).transpose("num_samples", "sigma", "direction")


def gap_margins(dataset: xr.Dataset, known: xr.Dataset) -> xr.Dataset:
    r"""The dimension gap integrated over the window, by direction and in all, in nats.

    A direction kept for one e-fold of noise carries one nat. Errors are over image groups, or
    over trainings where there are several seeds.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        known: The numbers of that dataset.
    """
    values = _integrated_diagonals(dataset)
    groups = {at: dataset.point_group.sel(at=at).values for at in ("training", "held_out")}
    rows = [_gap(values.sel(num_samples=n), groups) for n in known.num_samples.values]
    value, stderr = (np.array(part) for part in zip(*rows, strict=True))
    dims = ("num_samples", "direction")
    nats = {"units": "nats"}
    return xr.Dataset(
        {
            "gap_by_direction": (dims, value[:, :-1], nats),
            "gap_by_direction_stderr": (dims, stderr[:, :-1], nats),
            "gap_information": ("num_samples", value[:, -1], nats),
            "gap_information_stderr": ("num_samples", stderr[:, -1], nats),
        },
        coords={"num_samples": known.num_samples},
    )


def has_jacobian(dataset: xr.Dataset) -> bool:
    r"""Whether dimension comes from the networks' Jacobian, or from ``z·(D - x_0)/sigma``."""
    if "diagonal" not in dataset or "learned" not in dataset.denoiser.values:
        return False
    picked = dataset.diagonal.isel(step=-1, sigma=0, direction=0).sel(denoiser="learned")
    there = (~np.isnan(picked)).any(["num_samples", "seed"]).sum("point")
    return int(there.min()) >= MIN_JACOBIANS


def _integrated_diagonals(dataset: xr.Dataset) -> xr.DataArray:
    name = "diagonal" if has_jacobian(dataset) else "forward_diagonal"
    picked = dataset[name].sel(denoiser="learned").isel(step=-1)
    dims = ("num_samples", "seed", "at", "point", "direction", "sigma")
    nats = np.trapezoid(picked.transpose(*dims).values, np.log(dataset.sigma.values), axis=-1)
    nats = np.concatenate([nats, nats.sum(-1, keepdims=True)], axis=-1)  # and all directions
    coords = {name: dataset[name].values for name in ("num_samples", "at")}
    return xr.DataArray(nats.astype(float), dims=dims[:-1], coords=coords)


def _gap(values: xr.DataArray, groups: dict[str, Array]) -> tuple[Array, Array]:
    seeds = [_gap_of_one(one, groups) for one in values.transpose("seed", ...)]
    finished = [pair for pair in seeds if not np.isnan(pair[0]).any()]
    if not finished:
        return (np.full(values.sizes["direction"], np.nan),) * 2
    value = np.mean([pair[0] for pair in finished], axis=0)
    if len(seeds) == 1:
        return value, finished[0][1]
    if len(finished) == 1:
        return value, np.full_like(value, np.nan)
    spread = np.std([pair[0] for pair in finished], axis=0, ddof=1)
    return value, spread / np.sqrt(len(finished))


def _gap_of_one(values: xr.DataArray, groups: dict[str, Array]) -> tuple[Array, Array]:
    held_out, training = (
        clustered_mean(values.sel(at=at).transpose("point", "direction").values, groups[at])
        for at in ("held_out", "training")
    )
    return held_out[0] - training[0], np.hypot(held_out[1], training[1])


def colour_limit(values: Array, quantile: float = 0.995) -> float:
    r"""Where a colour map centred at 0 ends: few outliers must not wash out the rest."""
    finite = np.abs(values[np.isfinite(values)])
    return max(float(np.quantile(finite, quantile)), 1e-3) if finite.size else 1.0


def direction_labels(counts: NDArray[np.int64]) -> list[str]:
    r"""The directions behind each column.

    Example:
        >>> direction_labels(np.array([1, 1, 3]))
        ['1', '2', '3–5']
    """
    last = np.cumsum(counts)
    first = last - counts + 1
    return [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(first, last, strict=True)]


def peak_level(known: xr.Dataset, num_samples: int) -> int:
    r"""The level at which the lost share of a training-set size is largest."""
    share = known.lost_share.sel(num_samples=num_samples).values
    return int(np.nanargmax(share)) if np.isfinite(share).any() else len(share) // 2


def number(known: xr.Dataset, name: str, **at: Any) -> Estimate:
    r"""One number with its error; ``nan`` where an error is not known."""
    value, stderr = (float(known[k].sel(at)) for k in (name, f"{name}_stderr"))
    return Estimate(value, stderr)


def size_colours(count: int) -> list[str]:
    r"""Colours for training-set sizes: in an order that also the colour-blind see."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](x)) for x in np.linspace(0.0, 0.82, max(count, 2))][:count]
