r"""The paper's figure: singular values by rank, a row an estimator, the theory below."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from geomem.errors import InputError
from geomem.findings.spectrum import Spectra

Panels = Literal["levels", "denoisers"]
NAMES = {
    "paper": "paper's estimator",
    "steps": "steps of one σ",
    "jacobian": "Jacobian (ours)",
    "as plotted": "theory, as plotted",
    "consistent": "theory, consistent",
}
MOST = 6  # panels side by side, and lines in one
FLOOR, CEILING = 3e-3, 30.0


def spectrum_figure(found: Spectra, *, panels: Panels = "levels", at: str | None = None) -> Figure:
    r"""Draws the spectra of one kind of points.

    Arguments:
        found: The numbers of a run.
        panels: What stands side by side: ``levels``, with a line a denoiser, or ``denoisers``,
            with a line a level.
        at: The kind of points; the first one if not given.

    Raises:
        InputError: If no spectrum was measured at such points.
    """
    kinds = [str(k) for k in found.measured["at"].values]
    if at is not None and at not in kinds:
        raise InputError(f"`at` is {at!r}; the run has {', '.join(kinds)}")
    measured = found.measured.sel(at=at or kinds[0])
    measured = measured.isel(subject=~np.isnan(measured.kept).all("sigma").values)
    axes = ("sigma", "subject") if panels == "levels" else ("subject", "sigma")
    across, lines = (_some(measured.sizes[name]) for name in axes)
    rows = [*(str(e) for e in measured.estimator.values), *map(str, found.theory.form.values)]
    figure = Figure(figsize=(1.2 + 2.3 * len(across), 1.75 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(across), squeeze=False, sharex=True, sharey=True)
    colors = _shades(len(lines))
    for r, name in enumerate(rows):
        for c, column in enumerate(across):
            ax = grid[r, c]
            for color, line in zip(colors, lines, strict=True):
                places = dict(zip(axes, (column, line), strict=True))
                _line(ax, found, measured.isel(places), name, color)
            _prepare(ax, found)
            if c == 0:
                ax.set_ylabel(NAMES[name], fontsize=8)
            if r == 0:
                ax.set_title(_title(measured, axes[0], column), fontsize=9)
            if r == len(rows) - 1:
                ax.set_xlabel("rank", fontsize=8)
    labels = [_title(measured, axes[1], line) for line in lines]
    handles: list[Any] = [
        Line2D([], [], color=color, label=label)
        for color, label in zip(colors, labels, strict=True)
    ]
    whose = "population" if found.study["theory"]["gaussian"] else "plane"
    handles.append(Line2D([], [], color="k", lw=0.8, ls=":", label=f"{whose}, t/(t + v)"))
    if found.guides:
        names = ", ".join(map(str, found.guides))
        handles.append(Line2D([], [], color="0.75", lw=0.8, label=f"ranks {names}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _line(ax: Axes, found: Spectra, one: xr.Dataset, name: str, color: Any) -> None:
    rank = found.theory["rank"].values
    if name in found.theory.form.values:
        size = float(one.num_samples)
        if np.isnan(size):
            return
        value = found.theory.value.sel(form=name, num_samples=int(size), sigma=float(one.sigma))
        ax.plot(rank, value, ".-", color=color, lw=0.9, ms=3)
        return
    one = one.sel(estimator=name)
    ax.plot(rank, found.theory.population.sel(sigma=float(one.sigma)), "k:", lw=0.8)
    error = np.nan_to_num(one.value_stderr.values)
    ax.errorbar(rank, one.value, error, fmt=".-", color=color, lw=0.9, ms=3)


def _prepare(ax: Axes, found: Spectra) -> None:
    for guide in found.guides:
        ax.axvline(guide + 0.5, color="0.75", lw=0.8, zorder=0)
    ax.set(yscale="log", ylim=(FLOOR, CEILING))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)


def _title(measured: xr.Dataset, axis: str, place: int) -> str:
    if axis == "sigma":
        return f"σ = {float(measured.sigma[place]):.3g}"
    row = measured.isel(subject=place)
    label = str(row.label.item())
    kind = str(row.kind.item())
    return label if label.startswith(kind) else f"{kind}, {label}"


def _some(count: int) -> list[int]:
    # The first, the last, and some between: more cannot be told apart.
    return sorted({int(k) for k in np.linspace(0, count - 1, min(count, MOST)).round()})


def _shades(count: int) -> list[Any]:
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.0, 0.85, count)))
