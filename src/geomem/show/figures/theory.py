r"""Pictures of the theory: each a function of a data set and the axes to draw on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.errors import InputError


def plot_spectrum(spectrum: xr.Dataset, ax: Axes) -> None:
    r"""Eigenvalues of the denoiser Jacobian against their rank, a line for each level."""
    for sigma in spectrum.sigma.values:
        eigenvalues = spectrum.eigenvalue.sel(sigma=sigma)
        ax.plot(eigenvalues["rank"], eigenvalues, "o-", ms=3, label=f"σ = {sigma:g}")
    ax.axhline(0.5, color="0.7", lw=0.8)
    ax.set(xlabel="rank", ylabel="eigenvalue of the denoiser Jacobian", ylim=(-0.02, 1.02))
    ax.legend(frameon=False)


def plot_critical(critical: xr.Dataset, ax: Axes) -> None:
    r"""Critical levels of each group against the size: exact, the paper's, and collapse."""
    for k, v in enumerate(critical.group.values):
        group = critical.sel(group=v)
        color = f"C{k}"
        ax.plot(group.num_samples, group.retention_sigma, "-", color=color, label=f"v = {v:g}")
        ax.plot(group.num_samples, group.paper_sigma, "--", color=color, lw=1)
    ax.plot(critical.num_samples, critical.collapse_sigma, "k:", label="collapse, ln N = I")
    _sizes_and_levels(ax)
    ax.set_title("solid: half retention, exact; dashed: the paper's t*", fontsize="small")
    ax.legend(frameon=False)


def plot_retention(retention: xr.Dataset, ax: Axes) -> None:
    r"""Retention along each direction against the noise level, with its error."""
    for size in retention.num_samples.values:
        for k in retention.direction.values:
            line = retention.sel(num_samples=size).isel(direction=int(k))
            ax.errorbar(
                line.sigma, line.retention, line.retention_stderr, lw=1, label=f"N = {size:g}, {k}"
            )
    ax.set(xscale="log", xlabel="noise level σ", ylabel="retention")
    ax.legend(frameon=False, fontsize="x-small")


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
    ax.set(xscale="log", xlabel="noise level σ", ylabel="direction")
    ax.invert_yaxis()
    _colorbar(ax, mesh, "missing dimension")


def plot_phase_diagram(phases: xr.Dataset, ax: Axes) -> None:
    r"""Where groups open, are lost, and the set collapses; shaded: lost without collapse."""
    x, y = phases.num_samples.values, phases.sigma.values
    for k, v in enumerate(phases.group.values):
        group, color = phases.isel(group=k), f"C{k}"
        shade = group.lost_without_collapse.transpose("sigma", "num_samples").values.astype(float)
        if shade.any():
            ax.contourf(x, y, shade, levels=[0.5, 1.5], colors=[color], alpha=0.25)
        ax.axhline(float(group.opening_sigma), color=color, lw=0.8, ls="-.")
        ax.plot(x, group.retention_sigma, color=color, label=f"v = {v:.3g}")
        ax.plot(x, group.paper_sigma, color=color, ls="--", lw=1)
    ax.plot(x, phases.two_points_sigma, "k-", lw=1.5, label="2 effective points")
    ax.plot(x, phases.collapse_sigma, "k:", lw=1, label="ln N = I")
    _sizes_and_levels(ax)
    ax.set_ylim(y.min(), y.max())
    lines = f"solid: retention {phases.attrs['kept']:g}; dashed: the paper's t*; dash-dotted: opens"
    ax.set_title(f"{lines}; shaded: lost, not collapsed", fontsize="x-small")
    if "reference_points" in phases:
        _hatch_unknown(phases, ax)
    ax.legend(frameon=False, fontsize="small")


def save_figure(figure: Figure, path: Path) -> None:
    r"""Saves a figure in the format of its name, or says which names would work."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path} has no known format; name it .png, .svg or .pdf")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, bbox_inches="tight")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another") from error


def new_figure() -> tuple[Figure, Axes]:
    r"""A figure that belongs to no window, and its axes."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    return figure, figure.subplots()


def _sizes_and_levels(ax: Axes) -> None:
    ax.set(xscale="log", yscale="log", xlabel="training points N", ylabel="noise level σ")


def _hatch_unknown(phases: xr.Dataset, ax: Axes) -> None:
    # Below 20 effective points the data set is too small a reference to say.
    few = phases.sigma.values[phases.reference_points.values < 20]
    if len(few):
        label = "reference too small"
        ax.axhspan(few.min(), few.max(), fill=False, hatch="//", edgecolor="0.8", lw=0, label=label)


def _edges(centres: np.ndarray) -> np.ndarray:
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


def _colorbar(ax: Axes, mesh: object, label: str) -> None:
    figure = ax.figure
    if figure is not None:
        figure.colorbar(mesh, ax=ax, label=label)  # type: ignore[arg-type]
