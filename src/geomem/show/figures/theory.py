r"""Pictures of the theory: each a function of a data set and the axes to draw on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from geomem.errors import InputError

LEVEL = "noise level σ, in the data's units"
STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
SURE = 20  # effective points of a data set, below which it is too small a reference to say


def plot_spectrum(spectrum: xr.Dataset, ax: Axes) -> None:
    r"""Eigenvalues of the denoiser Jacobian against their rank, a line for each level.

    Arguments:
        spectrum: ``eigenvalue`` over ``sigma`` and ``rank``.
        ax: The axes to draw on.
    """
    colors = _shades(spectrum.sizes["sigma"])
    for sigma, color in zip(spectrum.sigma.values, colors, strict=True):
        eigenvalues = spectrum.eigenvalue.sel(sigma=sigma)
        ax.plot(spectrum["rank"], eigenvalues, "o-", ms=4, color=color, label=f"σ = {sigma:g}")
    ax.axhline(0.5, color="0.7", lw=0.8, zorder=0)
    ax.set(xlabel="rank", ylabel="eigenvalue of the denoiser's Jacobian", ylim=(-0.02, 1.02))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)


def plot_critical(critical: xr.Dataset, ax: Axes) -> None:
    r"""Critical levels of each group against the size: exact, the paper's, and collapse.

    Arguments:
        critical: ``retention_sigma`` and ``paper_sigma`` over ``num_samples`` and ``group``,
            ``collapse_sigma`` over ``num_samples``.
        ax: The axes to draw on.
    """
    x = critical.num_samples.values
    # Of few sizes each is marked: a line through one of them alone would not be seen.
    exact, paper, collapse = ("o", "s", "D") if len(x) < 12 else ("", "", "")
    for k, color in enumerate(_colors(critical.sizes["group"])):
        group = critical.isel(group=k)
        ax.plot(x, group.retention_sigma, marker=exact, ms=4, color=color)
        ax.plot(x, group.paper_sigma, ls=STYLES[1], marker=paper, ms=4, mfc="w", color=color)
    ax.plot(x, critical.collapse_sigma, ls=STYLES[2], lw=2, marker=collapse, ms=4, color="k")
    _sizes_and_levels(ax)
    _legend_below(
        ax,
        [
            *_group_handles(critical),
            Line2D([], [], color="0.4", marker=exact, ms=4, label="half kept, exact"),
            Line2D(
                [],
                [],
                color="0.4",
                ls=STYLES[1],
                marker=paper,
                ms=4,
                mfc="w",
                label="the paper's t*",
            ),
            Line2D(
                [],
                [],
                color="k",
                lw=2,
                ls=STYLES[2],
                marker=collapse,
                ms=4,
                label="collapse, ln N = I",
            ),
        ],
    )


def plot_retention(retention: xr.Dataset, ax: Axes) -> None:
    r"""Retention against the noise level, with its error: colours are sizes, dashes variances.

    Directions of equal variance keep the same and are drawn once; of more than four different
    variances, four from the highest to the lowest are drawn.

    Arguments:
        retention: A map, with ``retention``, ``retention_stderr`` and ``control``.
        ax: The axes to draw on.
    """
    control = retention.control.isel(sigma=0)
    if "num_samples" in control.dims:
        control = control.isel(num_samples=0)
    share, first = np.unique(np.round(control.values, 9), return_index=True)
    t = float(retention.sigma[0]) ** 2
    chosen = np.unique(np.linspace(0, len(share) - 1, min(len(share), len(STYLES))).round())[::-1]
    colors = _shades(retention.sizes["num_samples"])
    handles = [
        Line2D([], [], color=color, label=f"N = {n:,g}")
        for n, color in zip(retention.num_samples.values, colors, strict=True)
    ]
    for k, style in zip(chosen.astype(int), STYLES, strict=False):
        for n, color in enumerate(colors):
            line = retention.isel(num_samples=n, direction=first[k])
            bars = ax.errorbar(
                line.sigma, line.retention, line.retention_stderr, color=color, ls=style
            )
            bars.lines[0].set_marker("o" if retention.sizes["sigma"] < 12 else "")
            bars.lines[0].set_markersize(4)
        variance = t * share[k] / (1 - share[k]) if share[k] < 1 else math.inf
        handles.append(Line2D([], [], color="0.4", ls=style, label=f"variance {variance:.3g}"))
    ax.set(xscale="log", xlabel=LEVEL, ylabel="retention: kept share of posterior variance")
    ax.set_ylim(0, max(1.03, ax.get_ylim()[1]))
    _plain_ticks(ax.xaxis)
    _legend_below(ax, handles)


def plot_information(missing: xr.Dataset, ax: Axes) -> None:
    r"""The signature picture: missing dimension, direction by noise level, at one size.

    Arguments:
        missing: A map of one size, with ``missing_dimension`` over sigma and direction.
        ax: The axes to draw on.
    """
    values = missing.missing_dimension.transpose("direction", "sigma")
    edges = _edges(np.log(values.sigma.values))
    rows = np.arange(values.sizes["direction"] + 1) + 0.5
    mesh = ax.pcolormesh(np.exp(edges), rows, values.values, vmin=0, vmax=1, cmap="magma")
    ax.set(xscale="log", xlabel=LEVEL, ylabel="direction")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    _plain_ticks(ax.xaxis)
    ax.invert_yaxis()
    if "num_samples" in missing.coords:
        ax.set_title(f"N = {float(missing.num_samples):,g}")
    if ax.figure is not None:
        ax.figure.colorbar(mesh, ax=ax, label="missing dimension (population - kept)")


def plot_phase_diagram(phases: xr.Dataset, ax: Axes, *, legend: bool = True) -> None:
    r"""Where groups open, are lost, and the set collapses; shaded: lost without collapse.

    Levels at which a data set is too small a reference (fewer than 20 effective points) are
    greyed, and cut off soon below.

    Arguments:
        phases: What :func:`geomem.theory.phase.phase_diagram` returns.
        ax: The axes to draw on.
        legend: Whether to explain the lines below the axes; :func:`phase_handles` does so
            elsewhere.
    """
    x, y = phases.num_samples.values, phases.sigma.values
    edge, colors = ax.get_yaxis_transform(), _colors(phases.sizes["group"])
    for k, color in enumerate(colors):
        group = phases.isel(group=k)
        shade = group.lost_without_collapse.transpose("sigma", "num_samples").values.astype(float)
        if shade.any():  # cell by cell: more than the cells is not known
            cells = np.ma.masked_equal(shade, 0)
            ax.pcolormesh(x, y, cells, cmap=ListedColormap([color]), alpha=0.3, shading="nearest")
        ax.plot(x, group.retention_sigma, color=color)
        ax.plot(x, group.paper_sigma, color=color, ls=STYLES[1])
    ax.plot(x, phases.two_points_sigma, "k-", lw=2)
    ax.plot(x, phases.collapse_sigma, "k", ls=STYLES[2], lw=2)
    _sizes_and_levels(ax)
    ax.set_ylim(y.min(), y.max())
    if len(x) > 1:
        ax.set_xlim(x.min(), x.max())
    if "reference_points" in phases:
        _grey_unknown(phases, ax)
    low, high = ax.get_ylim()
    for opens, color in zip(phases.opening_sigma.values, colors, strict=True):
        if low < opens < high:
            ax.plot([1], [opens], "<", color=color, ms=8, transform=edge, clip_on=False)
    if legend:
        _legend_below(ax, phase_handles(phases))


def phase_handles(phases: xr.Dataset) -> list[Line2D | Patch]:
    r"""What each colour and line of a phase diagram means, for a legend."""
    handles: list[Line2D | Patch] = _group_handles(phases)
    handles += [
        Line2D([], [], color="0.4", label=f"{100 * phases.attrs['kept']:g} % kept, exact"),
        Line2D([], [], color="0.4", ls=STYLES[1], label="the paper's t*"),
        Line2D([], [], color="0.4", ls="", marker="<", ms=7, label="opens"),
        Line2D([], [], color="k", lw=2, label="2 effective points"),
        Line2D([], [], color="k", lw=2, ls=STYLES[2], label="collapse, ln N = I"),
    ]
    if bool(phases.lost_without_collapse.any()):
        handles.append(Patch(color="0.4", alpha=0.3, label="lost, not collapsed"))
    return handles


def save_figure(figure: Figure, path: Path) -> None:
    r"""Saves a figure in the format of its name.

    Raises:
        InputError: If the name has no known format, or nothing can be written there.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path} has no known format; name it .png, .svg or .pdf")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, bbox_inches="tight")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another") from error


def new_figure() -> tuple[Figure, Axes]:
    r"""A figure that belongs to no window, and its axes."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def _sizes_and_levels(ax: Axes) -> None:
    ax.set(xscale="log", yscale="log", xlabel="training points N", ylabel=LEVEL)
    _plain_ticks(ax.yaxis)


def _plain_ticks(axis: Axis) -> None:
    # 0.1, 0.2, 0.5 on a short logarithmic axis; 0.1, 0.3, 1 on a longer one; else decades.
    axis.set_major_locator(_Steps())
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


class _Steps(LogLocator):
    def tick_values(self, vmin: float, vmax: float) -> Any:
        decades = math.log10(vmax / vmin) if 0 < vmin < vmax else 1.0
        self.set_params(subs=(1, 2, 5) if decades < 1.7 else (1, 3) if decades < 3.5 else (1,))
        return super().tick_values(vmin, vmax)


def _colors(count: int) -> list[Any]:
    # Categories while there are few, shades from the highest variance on when there are many.
    return [f"C{k}" for k in range(count)] if count <= 4 else _shades(count)


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.85, count)))


def _group_handles(data: xr.Dataset) -> list[Any]:
    labels = [f"variance {v:.3g}" for v in data.group.values]
    if "reference_points" in data:  # bands of a data set's principal directions
        last = np.cumsum(data.multiplicity.values)
        spans = [f"{b - m + 1}-{b}" if m > 1 else f"{b}"
                 for b, m in zip(last, data.multiplicity.values, strict=True)]  # fmt: skip
        labels = [f"PC {s}, {v}" for s, v in zip(spans, labels, strict=True)]
    return [
        Line2D([], [], color=color, lw=3, label=label)
        for label, color in zip(labels, _colors(len(labels)), strict=True)
    ]


def _legend_below(ax: Axes, handles: list[Any]) -> None:
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.45, -0.14),
        ncols=min(4 if len(handles) < 10 else 3, -(-len(handles) // 2)),
        frameon=False,
        fontsize="small",
    )


def _grey_unknown(phases: xr.Dataset, ax: Axes) -> None:
    few = phases.sigma.values[phases.reference_points.values < SURE]
    if not len(few):
        return
    low, high = ax.get_ylim()
    top = float(few.max())
    bottom = max(low, min(top / 3, high / 10))
    ax.set_ylim(bottom, high)
    ax.axhspan(bottom, top, color="0.92", zorder=0)
    ax.text(
        0.5,
        bottom * (top / bottom) ** 0.2,
        "too few points in the data to say",
        transform=ax.get_yaxis_transform(),
        ha="center",
        va="center",
        color="0.35",
        bbox={"color": "0.92"},
    )


def _edges(centres: np.ndarray) -> np.ndarray:
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])
