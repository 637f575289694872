r"""The page of a comparison: runs side by side, drawn from the compared numbers alone."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.compute.files import atomic_write_text
from geomem.errors import InputError
from geomem.findings.compare_sentences import (
    comparison_sentences,
    comparison_table,
    groups,
    headline,
)
from geomem.findings.sentences import window
from geomem.show.page.headlines import unbroken
from geomem.show.page.layout import drawn, render

MOST_PANELS = 4
TICKS = [m * 10.0**e for e in range(-4, 4) for m in (1, 2, 5)]


def comparison_page(compared: xr.Dataset) -> str:
    r"""The page, before it is written.

    Arguments:
        compared: What :func:`geomem.compare` returns.
    """
    head, rows = comparison_table(compared)
    columns = [compared.isel(column=k) for k in range(compared.sizes["column"])]
    return render(
        "compare.html",
        {
            "title": unbroken(headline(compared)),
            "file": "geomem-compare",
            "runs": compared.attrs["runs"],
            "findings": [unbroken(said) for said in comparison_sentences(compared)],
            "figure": drawn(lambda inks: by_level(compared, inks)),
            "hidden": max(0, len(groups(compared)) - MOST_PANELS),
            "window": window(compared),
            "control": compared.attrs["control"],
            "level": f"{float(columns[0].share_sigma):.2g}",
            "head": head,
            "rows": [[unbroken(cell) for cell in row] for row in rows],
        },
    )


def write_comparison(compared: xr.Dataset, out: Path, *, csv: bool = False) -> list[Path]:
    r"""Writes the page, and the numbers behind it.

    Arguments:
        compared: What :func:`geomem.compare` returns.
        out: The file of the page.
        csv: Whether to write its numbers beside it, as CSV files.

    Returns:
        The files.

    Raises:
        InputError: If there is a file that is no such page.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the file of the page in `out`")
    if out.exists() and b'content="geomem' not in out.read_bytes()[:4096]:
        raise InputError(f"{out} is no page of geomem; choose another `out`")
    atomic_write_text(out, comparison_page(compared), private=True)
    made = [out]
    if csv:
        for dims, suffix in ((("column",), ""), (("column", "sigma"), "-levels")):
            path = out.with_name(f"{out.stem}{suffix}.csv")
            atomic_write_text(path, _csv(compared, dims), private=True)
            made.append(path)
    return made


def by_level(compared: xr.Dataset, inks: Mapping[str, str]) -> Figure:
    r"""Memorized density and lost share against the noise level, counterparts in one panel.

    Arguments:
        compared: What :func:`geomem.compare` returns.
        inks: Colours of text and lines: ``ink``, ``muted``, ``grid``.
    """
    shown = groups(compared)[:MOST_PANELS]
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
    runs = compared.attrs["runs"]
    ends = (0.35, 0.97) if inks["ink"] > inks["paper"] else (0.0, 0.82)
    colours = colormaps["viridis"](np.linspace(*ends, max(2, len(runs))))
    names = (("by_level", "nats per e-fold"), ("lost_share", "lost share"))
    for (name, said), line in zip(names, axes, strict=True):
        for ax, members in zip(line, shown, strict=True):
            for k in members:
                run = int(compared.run_number[k])
                label = str(compared.run.values[k])
                _curve(compared.isel(column=k), name, ax, colours[run], run, label)
            ax.axhline(0, color=inks["muted"], lw=0.8)
            ax.grid(color=inks["grid"], lw=0.8)
            ax.set_axisbelow(True)
        line[0].set_ylabel(said)
    low, high = (float(compared.sigma_relative[k]) for k in (0, -1))
    inside = [s for s in TICKS if low <= s <= high]
    for ax, members in zip(axes[0], shown, strict=True):
        label = str(compared.label.values[members[0]])
        ax.set_title(label if len(label) <= 30 else f"{label[:29]}…", fontsize=11)
    for ax in axes[1]:
        ax.set(xscale="log", xlabel="noise level σ (rms)")
        ax.set_xticks(inside, [f"{s:g}" for s in inside])
        ax.minorticks_off()
    handles = {h.get_label(): h for ax in axes[0] for h in ax.get_lines() if h.get_gid() == "run"}
    figure.legend(list(handles.values()), list(map(str, handles)), frameon=False, fontsize=10,
                  ncols=min(4, len(handles)), loc="outside upper left")  # fmt: skip
    return figure


def _curve(column: xr.Dataset, name: str, ax: Axes, colour: object, run: int, label: str) -> None:
    x, y, error = (column[n].values for n in ("sigma_relative", name, f"{name}_stderr"))
    ax.fill_between(x, y - error, y + error, color=colour, alpha=0.22, lw=0)
    style = ("-", "--", "-.", ":")[run % 4]
    ax.plot(x, y, color=colour, lw=1.8, ls=style, label=label, gid="run")


def _csv(compared: xr.Dataset, dims: tuple[str, ...]) -> str:
    # A row for each place where something is known.
    names = [str(k) for k, v in compared.data_vars.items() if v.dims == dims]
    about = ["run", "label", "trainings", "partner", "share_sigma"]
    lines = [["column", *about, *(["sigma", "sigma_relative"] if "sigma" in dims else []), *names]]
    for index in np.ndindex(*(compared.sizes[d] for d in dims)):
        one = compared.isel(dict(zip(dims, index, strict=True)))
        lead = [str(index[0]), *(str(one[name].item()) for name in about)]
        if "sigma" in dims:
            lead += [f"{float(one[name]):.9g}" for name in ("sigma", "sigma_relative")]
        values = [float(one[name]) for name in names]
        lines.append([*lead, *("" if math.isnan(v) else f"{v:.9g}" for v in values)])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()
