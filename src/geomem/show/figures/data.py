r"""What a figure shows: from the numbers of a run to the dataset that is drawn.

Both the pictures in matplotlib and the page read from here, so that they show the same. A map
has one column for each principal direction, in the order of falling variance. Directions far
down the spectrum are measured in bands, which hold sums; a picture on one colour scale needs a
value a direction, so a band is drawn as the mean over its directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from geomem.findings.sentences import networks, state

Array = NDArray[np.float64]
Quantity = Literal["density", "gap"]
QUANTITIES: tuple[Quantity, ...] = ("density", "gap")
ENOUGH = 0.5  # of the images must have a local dimension, for their mean to be drawn as a line
MOST_ROWS = 8  # more maps, or curves of one panel, cannot be told apart
# The kinds of points, as titles call them.
PLACES = {
    "training": "training images",
    "held_out": "held-out images",
    "reserved": "reserved images",
    "generated": "generated points",
    "trajectory": "points of trajectories",
    "fixed": "fixed points",
}


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


# --------------------------------------------------------------------------- which are shown


def shown_rows(known: xr.Dataset, most: int = MOST_ROWS) -> list[int]:
    r"""The rows that figures show, at most so many, spread evenly: networks if there are any.

    The last step of each training; of a single training all steps. Without a network the exact
    denoisers are shown, and without these whatever there is.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        most: How many.

    Returns:
        Their numbers along ``subject``.
    """
    about = known.coords.to_dataset()
    rows = networks(about)
    rows = rows if len(rows) > 1 else networks(about, early=True)
    found = [int(row["subject"]) for row in rows]
    found = found or _of_kind(known, "empirical") or list(range(known.sizes["subject"]))
    spread = np.linspace(0, len(found) - 1, min(len(found), most)).round().astype(int)
    return [found[k] for k in spread]


def strongest_row(known: xr.Dataset) -> xr.Dataset:
    r"""The row of those shown that memorized most: of those that are told apart, if any."""
    rows = [known.isel(subject=k) for k in shown_rows(known)]
    if "information" not in known:
        return rows[0]
    order = ("underfit", "no test", "not significant", "told apart")
    nats = [float(np.nan_to_num(row.information, nan=-np.inf)) for row in rows]
    return max(zip(rows, nats, strict=True), key=lambda r: (order.index(state(r[0])), r[1]))[0]


def peak_level(row: xr.Dataset) -> int:
    r"""The level at which the lost share of a row is largest; the middle one if none is known."""
    share = row.lost_share.values if "lost_share" in row else np.array([np.nan])
    return int(np.nanargmax(share)) if np.isfinite(share).any() else row.sizes["sigma"] // 2


def _of_kind(known: xr.Dataset, kind: str) -> list[int]:
    return [k for k, v in enumerate(known["kind"].values) if str(v) == kind]


def control_row(known: xr.Dataset) -> xr.Dataset | None:
    r"""The row of the control, if it was measured."""
    found = _of_kind(known, known.attrs["control"])
    return known.isel(subject=found[0]) if found else None


def exact_row(known: xr.Dataset, row: xr.Dataset) -> xr.Dataset | None:
    r"""The exact denoiser of as many images as a row has, if it was measured."""
    found = [
        k
        for k in _of_kind(known, "empirical")
        if float(known.num_samples[k]) == float(row.num_samples)
    ]
    return known.isel(subject=found[0]) if found else None


# ------------------------------------------------------------------------------ what is drawn


def has(known: xr.Dataset, name: str) -> bool:
    r"""Whether a number is known of any row that is shown."""
    return name in known and bool(known[name].isel(subject=shown_rows(known)).notnull().any())


def signature(known: xr.Dataset, quantity: Quantity = "density") -> xr.Dataset:
    r"""The signature picture: a map for each row shown, its margins and its total.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        quantity: ``density`` of what is memorized, from errors, or the dimension ``gap``
            between held-out and training images, from the Jacobian's diagonal.

    Returns:
        ``value`` (subject, sigma, direction) and ``by_direction``, both a direction where
        one column is a band; ``by_level`` and ``total``, sums over all directions; each with
        its ``_stderr``. NaN is a number, or an error, that is not known.
    """
    density = quantity == "density"
    names = {
        "value": quantity,
        "by_level": "by_level" if density else "total_gap",
        "by_direction": "by_direction" if density else "gap_by_direction",
        "total": "information" if density else "gap_information",
    }
    one = known.isel(subject=shown_rows(known))
    arrays = {}
    for name, source in names.items():
        for suffix in ("", "_stderr"):
            values = one[source + suffix]
            mean = "direction" in values.dims
            arrays[name + suffix] = values / one.direction_count if mean else values
    return xr.Dataset(arrays).transpose("subject", "sigma", "direction")


@dataclass(frozen=True)
class Panel:
    r"""One panel of curves against the noise level.

    Attributes:
        title: What is above it.
        at: At which kind of points.
        curves: ``value`` and ``stderr`` (subject, sigma); for a local dimension ``answered``,
            the share of images that have one.
        control: The same of the control; None if it was not measured there.
    """

    title: str
    at: str
    curves: xr.Dataset
    control: xr.Dataset | None


def panels(known: xr.Dataset, name: str = "dimension") -> list[Panel]:
    r"""Curves against the noise level: the rows shown at each kind of points, exact ones beside.

    Arguments:
        known: What :func:`geomem.numbers` returns, of one dimension method where there are some.
        name: ``dimension`` or ``local_dimension``.
    """
    if name not in known:
        return []
    names = {"value": name, "stderr": f"{name}_stderr", "answered": f"{name}_answered"}
    one = xr.Dataset({k: known[v] for k, v in names.items() if v in known})
    rows, control = shown_rows(known), _of_kind(known, known.attrs["control"])
    # What networks are along their own trajectories has a figure of its own.
    kinds = [str(at) for at in known["at"].values if at != "trajectory"]
    exact = [k for k in _of_kind(known, "empirical") if k not in rows]
    sizes = set(known.num_samples.values[rows])
    exact = [k for k in exact if known.num_samples.values[k] in sizes] or exact[:MOST_ROWS]
    who = "Networks" if networks(known.coords.to_dataset()) else "Exact denoisers"
    wanted = [(who, at, rows) for at in kinds]
    if exact and kinds:
        at = "training" if "training" in kinds else kinds[0]
        wanted.append(("Exact denoisers", at, exact))
    found = []
    for title, at, members in wanted:
        curves = one.isel(subject=members).sel(at=at).transpose("subject", "sigma")
        beside = one.isel(subject=control[0]).sel(at=at) if control else None
        if beside is not None and "answered" in beside:
            beside = beside.where(beside.answered >= ENOUGH)
        if beside is not None and not beside.value.notnull().any():
            beside = None
        if curves.value.notnull().any():
            found.append(Panel(f"{title}, at {PLACES.get(at, at)}", at, curves, beside))
    return found


# ------------------------------------------------------------------------- colours and labels


def colour_limit(values: Array) -> float:
    r"""Where a colour map centred at 0 ends: a few outliers must not wash out the rest.

    Three times what 95 % of the cells stay below, or the largest if that is less.

    Example:
        >>> colour_limit(np.array([*np.linspace(-1, 1, 101), 1000.0])).__round__(2)
        2.88
    """
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size:
        return 1.0
    bulk = float(np.quantile(finite, 0.95, method="lower"))
    return max(min(float(finite.max()), 3 * bulk or np.inf), 1e-3)


def direction_labels(counts: NDArray[np.int64]) -> list[str]:
    r"""The directions behind each column.

    Example:
        >>> direction_labels(np.array([1, 1, 3]))
        ['1', '2', '3–5']
    """
    last = np.cumsum(counts)
    first = last - counts + 1
    return [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(first, last, strict=True)]


def row_colours(known: xr.Dataset, *, dark: bool = False) -> dict[int, str]:
    r"""Colours of the rows, by their number: in an order that also the colour-blind see.

    An exact denoiser has the colour of the network of as many images, all else is grey.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        dark: Whether they are for a dark background.
    """
    rows = shown_rows(known)
    ends = (0.35, 0.97) if dark else (0.0, 0.82)
    scale = [to_hex(colormaps["viridis"](x)) for x in np.linspace(*ends, max(len(rows), 2))]
    found = dict.fromkeys(range(known.sizes["subject"]), "#9aa4ae" if dark else "#57606a")
    sizes = known.num_samples.values
    for k, colour in reversed(list(zip(rows, scale, strict=False))):
        found |= {e: colour for e in _of_kind(known, "empirical") if sizes[e] == sizes[k]}
    return found | dict(zip(rows, scale, strict=False))
