r"""Pictures of a run in matplotlib: each a function of its numbers and the axes to draw on."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from geomem.findings.sentences import estimate
from geomem.show.figures.data import (
    PLACES,
    Quantity,
    colour_limit,
    control_row,
    direction_labels,
    row_colours,
    shown_rows,
    signature,
    words,
)

LEVEL = "noise level σ (rms)"


def plot_signature(
    known: xr.Dataset,
    ax: Axes,
    *,
    subject: int | None = None,
    quantity: Quantity = "density",
    limit: float | None = None,
    colorbar: bool = True,
) -> None:
    r"""The signature picture: principal direction by noise level, coloured by what is lost.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        ax: The axes to draw on.
        subject: The number of its row; the first of those shown if not given.
        quantity: ``density`` or ``gap``.
        limit: Where the colours end; the same for maps that are compared.
        colorbar: Whether to draw the colour bar.
    """
    view, said = signature(known, quantity), words(known, quantity)
    one = view.isel(subject=0) if subject is None else view.sel(subject=subject)
    top = limit or colour_limit(view.value.values)
    # Edges of cells around levels, in the logarithm.
    middle = np.log(one.sigma_relative.values)
    half = np.diff(middle) / 2
    edges = np.concatenate([[middle[0] - half[0]], middle[:-1] + half, [middle[-1] + half[-1]]])
    columns = np.arange(one.sizes["direction"] + 1) + 0.5
    mesh = ax.pcolormesh(columns, np.exp(edges), one.value, cmap="RdBu_r", vmin=-top, vmax=top)
    ax.set(yscale="log", xlabel="principal direction, by falling variance", ylabel=LEVEL)
    _level_ticks(ax.yaxis)
    _direction_ticks(ax, known)
    nats = f": {estimate(one, 'total')} nats" if quantity == "density" else ""
    ax.set_title(f"{one['label'].item()}{nats}", fontsize="medium")
    if colorbar and ax.figure is not None:
        ax.figure.colorbar(mesh, ax=ax, label=f"{said.name} ({said.cell_units})")


def plot_signatures(known: xr.Dataset, axes: list[Axes], *, quantity: Quantity = "density") -> None:
    r"""One map for each row shown, on one colour scale.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        axes: The axes to draw on, one for each row of
            :func:`~geomem.show.figures.data.shown_rows`.
        quantity: ``density`` or ``gap``.
    """
    rows = shown_rows(known)
    for ax, k in zip(axes, rows, strict=True):
        plot_signature(known, ax, subject=k, quantity=quantity, colorbar=k == rows[-1])
        if k != rows[0]:
            ax.set_ylabel("")


def plot_dimension(
    known: xr.Dataset, ax: Axes, *, kind: str | None = None, at: str = "training"
) -> None:
    r"""Dimension kept against the noise level, a curve for each row; bands are one error wide.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        ax: The axes to draw on.
        kind: Whose dimension, such as ``empirical``; of the rows shown if not given.
        at: At which kind of points, such as ``training`` or ``held_out``.
    """
    kinds = known["kind"].values
    rows = shown_rows(known) if kind is None else np.flatnonzero(kinds == kind).tolist()
    colours, control = row_colours(known), control_row(known)
    for k in rows:
        one = known.isel(subject=k).sel(at=at)
        x, y = one.sigma_relative, one.dimension
        _band(ax, x, y, one.dimension_stderr, colours[k], str(one["label"].item()))
    if control is not None:
        beside = control.sel(at="held_out" if "held_out" in control["at"].values else at)
        label = f"{known.attrs['control']} control"
        x, y = beside.sigma_relative, beside.dimension
        ax.plot(x, y, "--", color="0.35", lw=1.2, label=label)
    ax.set(xscale="log", xlabel=LEVEL, ylabel="dimension kept, tr dD/dx")
    ax.set_title(f"at {PLACES.get(at, at)}", fontsize="medium")
    _level_ticks(ax.xaxis)
    ax.legend(frameon=False, fontsize="small")


def plot_levels(known: xr.Dataset, ax: Axes, *, quantity: Quantity = "density") -> None:
    r"""The margin of the map by level: where along the noise something is memorized."""
    _margin(known, ax, "by_level" if quantity == "density" else "total_gap")
    ax.set_ylabel(f"{words(known, quantity).name}, all directions")


def plot_directions(known: xr.Dataset, ax: Axes) -> None:
    r"""The margin of the map by direction, in nats; bands as the mean over their directions."""
    view, colours = signature(known, "density"), row_colours(known)
    x = np.arange(1, view.sizes["direction"] + 1)
    for k in view.subject.values:
        one = view.sel(subject=k)
        label = str(one["label"].item())
        _band(ax, x, one.by_direction, one.by_direction_stderr, colours[int(k)], label)
    _finish_margin(ax)
    _direction_ticks(ax, known)
    ax.set(xlabel="principal direction, by falling variance")
    ax.set_ylabel(f"{words(known, 'density').total} (nats)")


def plot_lost_share(known: xr.Dataset, ax: Axes) -> None:
    r"""The share of the control's dimension that is gone, against the noise level."""
    _margin(known, ax, "lost_share")
    ax.set_ylabel("lost share")


def _margin(known: xr.Dataset, ax: Axes, name: str) -> None:
    colours = row_colours(known)
    for k in shown_rows(known):
        one = known.isel(subject=k)
        x, label = one.sigma_relative, str(one["label"].item())
        _band(ax, x, one[name], one[f"{name}_stderr"], colours[k], label)
    _finish_margin(ax)
    ax.set(xscale="log", xlabel=LEVEL)
    _level_ticks(ax.xaxis)


def _finish_margin(ax: Axes) -> None:
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    ax.legend(frameon=False, fontsize="small")


def _band(
    ax: Axes,
    x: xr.DataArray | np.ndarray,
    value: xr.DataArray,
    stderr: xr.DataArray,
    color: str,
    label: str,
) -> None:
    ax.plot(x, value, color=color, lw=1.6, label=label)
    ax.fill_between(x, value - stderr, value + stderr, color=color, alpha=0.2, lw=0)


def _direction_ticks(ax: Axes, known: xr.Dataset) -> None:
    labels = direction_labels(known.direction_count.values)
    at = sorted({0, *range(15, len(labels), 16), len(labels) - 1})
    # The last column may be a band with a long name: what stands close before it makes room.
    at = [k for k in at if k == at[-1] or len(labels) - 1 - k > len(labels) / 8]
    ax.set_xticks([k + 1 for k in at], [labels[k] for k in at], fontsize="small")


def _level_ticks(axis: Axis) -> None:
    # 0.2, not 2 × 10^-1.
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
