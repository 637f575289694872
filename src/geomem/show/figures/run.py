r"""Pictures of a run in matplotlib: each a function of its numbers and the axes to draw on."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from geomem.show.figures.views import (
    Quantity,
    colour_limit,
    direction_labels,
    number,
    signature,
    size_colours,
    words,
)

LEVEL = "noise level σ (rms)"


def plot_signature(
    known: xr.Dataset,
    ax: Axes,
    *,
    num_samples: int,
    quantity: Quantity = "density",
    limit: float | None = None,
    colorbar: bool = True,
) -> None:
    r"""The signature picture: principal direction by noise level, coloured by what is lost.

    Arguments:
        known: What :func:`geomem.findings.numbers.numbers` returns.
        ax: The axes to draw on.
        num_samples: The size of the training set.
        quantity: ``density`` or ``gap``.
        limit: Where the colours end; the same for maps that are compared.
        colorbar: Whether to draw the colour bar.
    """
    one, said = known.sel(num_samples=num_samples), words(known, quantity)
    values = (one[quantity] / one.direction_count).transpose("sigma", "direction").values
    top = limit or colour_limit((known[quantity] / known.direction_count).values)
    columns = np.arange(values.shape[1] + 1) + 0.5
    mesh = ax.pcolormesh(
        columns, _edges(one.sigma_relative.values), values, cmap="RdBu_r", vmin=-top, vmax=top
    )
    ax.set(yscale="log", xlabel="principal direction, by falling variance", ylabel=LEVEL)
    _level_ticks(ax.yaxis)
    _direction_ticks(ax, one)
    title = f"N = {num_samples}"
    if quantity == "density":
        title += f": {number(known, 'information', num_samples=num_samples)} nats"
    ax.set_title(title, fontsize="medium")
    if colorbar and ax.figure is not None:
        ax.figure.colorbar(mesh, ax=ax, label=f"{said.name} ({said.cell_units})")


def plot_signatures(known: xr.Dataset, axes: list[Axes], *, quantity: Quantity = "density") -> None:
    r"""One map for each training-set size, on one colour scale.

    Arguments:
        known: What :func:`geomem.findings.numbers.numbers` returns.
        axes: The axes to draw on, one for each size.
        quantity: ``density`` or ``gap``.
    """
    sizes = [int(n) for n in known.num_samples.values]
    limit = colour_limit((known[quantity] / known.direction_count).values)
    for k, (ax, n) in enumerate(zip(axes, sizes, strict=True)):
        last = k == len(sizes) - 1
        plot_signature(known, ax, num_samples=n, quantity=quantity, limit=limit, colorbar=last)
        if k:
            ax.set_ylabel("")


def plot_dimension(
    known: xr.Dataset, ax: Axes, *, denoiser: str = "learned", at: str = "training"
) -> None:
    r"""Dimension kept against the noise level, a curve for each N; bands are one error wide.

    Arguments:
        known: What :func:`geomem.findings.numbers.numbers` returns.
        ax: The axes to draw on.
        denoiser: Whose dimension: learned or empirical.
        at: At which images: training or held_out.
    """
    sizes = [int(n) for n in known.num_samples.values]
    for n, color in zip(sizes, size_colours(len(sizes)), strict=True):
        here = known.sel(denoiser=denoiser, at=at, num_samples=n)
        _band(ax, here.sigma_relative, here.dimension, here.dimension_stderr, color, f"N = {n}")
    control = known.sel(denoiser=known.attrs["control"], at="held_out", num_samples=sizes[-1])
    label = f"{known.attrs['control']} control"
    ax.plot(control.sigma_relative, control.dimension, "--", color="0.35", lw=1.2, label=label)
    ax.set(xscale="log", xlabel=LEVEL, ylabel="dimension kept, tr dD/dx")
    _level_ticks(ax.xaxis)
    ax.legend(frameon=False, fontsize="small")


def plot_levels(known: xr.Dataset, ax: Axes, *, quantity: Quantity = "density") -> None:
    r"""The margin of the map by level: where along the noise something is memorized."""
    name = "by_level" if quantity == "density" else "total_gap"
    _margin(known, ax, name, known.sigma_relative)
    ax.set(xscale="log", xlabel=LEVEL, ylabel=f"{words(known, quantity).name}, all directions")
    _level_ticks(ax.xaxis)


def plot_directions(known: xr.Dataset, ax: Axes) -> None:
    r"""The margin of the map by direction, in nats; bands as the mean over their directions."""
    view = signature(known, "density")
    _margin(view, ax, "by_direction", np.arange(1, view.sizes["direction"] + 1))
    _direction_ticks(ax, known)
    ax.set(xlabel="principal direction, by falling variance")
    ax.set_ylabel(f"{words(known, 'density').total} (nats)")


def plot_lost_share(known: xr.Dataset, ax: Axes) -> None:
    r"""The share of the control's dimension that is gone, against the noise level."""
    _margin(known, ax, "lost_share", known.sigma_relative)
    ax.set(xscale="log", xlabel=LEVEL, ylabel="lost share")
    _level_ticks(ax.xaxis)


def _margin(known: xr.Dataset, ax: Axes, name: str, x: xr.DataArray | np.ndarray) -> None:
    sizes = [int(n) for n in known.num_samples.values]
    for n, color in zip(sizes, size_colours(len(sizes)), strict=True):
        one = known.sel(num_samples=n)
        _band(ax, x, one[name], one[f"{name}_stderr"], color, f"N = {n}")
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


def _edges(levels: np.ndarray) -> np.ndarray:
    # Of cells around levels, in the logarithm.
    middle = np.log(levels)
    step = np.diff(middle)
    inner = middle[:-1] + step / 2
    ends = [middle[0] - step[0] / 2], [middle[-1] + step[-1] / 2]
    return np.asarray(np.exp(np.concatenate([ends[0], inner, ends[1]])))


def _direction_ticks(ax: Axes, known: xr.Dataset) -> None:
    labels = direction_labels(known.direction_count.values)
    at = sorted({0, *range(15, len(labels), 16), len(labels) - 1})
    ax.set_xticks([k + 1 for k in at], [labels[k] for k in at], fontsize="small")


def _level_ticks(axis: Axis) -> None:
    # 0.2, not 2 × 10^-1.
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
