r"""Sections about the model itself: its own tangent space, and where a LoRA changed its weights."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from geomem.findings.bases import basis_sentence
from geomem.findings.channels import channel_sentence
from geomem.findings.sentences import networks
from geomem.measure.bases import DIRECTIONS
from geomem.measure.subject import NETWORKS
from geomem.show.figures.data import PLACES
from geomem.show.page.headlines import unbroken
from geomem.show.page.plots import Plot, Series
from geomem.show.page.sections import Section
from geomem.stats import Estimate

LINES = {"training": "dashed", "held_out": "dotted"}
DRAWN = 32  # principal directions: further ones are in the records


def inside_sections(known: xr.Dataset) -> list[Section]:
    r"""What is known of a model's tangent space and of its update, a section each.

    Arguments:
        known: What :func:`geomem.numbers` returns.
    """
    rows = networks(known)
    if not rows:
        return []
    found = [_tangents(known, rows[0]), _channels(rows[0])]
    return [section for section in found if section is not None]


def _tangents(known: xr.Dataset, row: xr.Dataset) -> Section | None:
    if "tangent_dimension" not in row or not row.tangent_dimension.notnull().any():
        return None
    kinds = [at for at in LINES if at in row["at"].values]
    depth = int(min(DRAWN, np.isfinite(row.principal_angle.values).any((0, 1)).sum()))
    x = np.arange(1, depth + 1)
    plots = []
    for level, sigma in enumerate(row.basis_sigma.values / row.attrs["rms"]):
        one = row.isel(basis_level=level, direction=slice(depth))
        lines = [
            Series(
                f"{row.label.values}, {PLACES[at]}",
                "var(--row-0)",
                x,
                one.principal_angle.sel(at=at).values,
                one.principal_angle_stderr.sel(at=at).values,
                LINES[at],
            )
            for at in kinds
        ]
        title = f"angle to the tangent space at σ = {sigma:.2g} rms"
        plots.append(Plot(title, "principal direction", "degrees", lines, log_x=False))
    text = (
        "The tangent space that the model keeps at a noised image: the eigenvectors of its "
        "Jacobian along which its answer follows more than half of what the image does, the "
        f"leading {DIRECTIONS} at most. Plotted is the angle of each principal direction of the "
        "reserved images to that space, mean over images: 0 degrees lie in it, 90 stand across, or "
        "nothing is kept. A direction that was lost stands nearer to the space at new images "
        "(dotted) than at training images (dashed). Bands are ± one standard error over images."
    )
    columns, table = _lost(known, row)
    title, more = _kept(row, kinds)
    text += more
    title = basis_sentence(row) or title
    labels = [(str(row.label.values), 0)]
    kinds_of_line = [(PLACES[at], LINES[at]) for at in kinds]
    return Section(
        "tangents",
        unbroken(title.rstrip(".")),
        text,
        plots,
        labels,
        kinds_of_line,
        columns,
        table,
    )


def _kept(row: xr.Dataset, kinds: list[str]) -> tuple[str, str]:
    # How many directions are kept in the middle of the window, and how they lie.
    one = row.isel(basis_level=row.sizes["basis_level"] // 2)
    counts, angles = [], []
    for at in kinds:
        value, stderr = (float(one[f"tangent_dimension{e}"].sel(at=at)) for e in ("", "_stderr"))
        counts.append(f"{Estimate(value, stderr)} at {PLACES[at]}")
        if math.isfinite(float(one.tangent_angle.sel(at=at))):
            angles.append(f"{_degrees(one, 'tangent_angle', at)} at {PLACES[at]}")
    sigma = f"σ = {float(one.basis_sigma) / row.attrs['rms']:.2g} rms"
    title = f"At {sigma} the model keeps {' and '.join(counts)} of {DIRECTIONS} directions"
    text = (
        f" The largest angle between that space and as many leading principal directions is, at "
        f"{sigma}, {' and '.join(angles)}."
        if angles
        else ""
    )
    return title, text


def _lost(known: xr.Dataset, row: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    # Lost directions, the most lost first: their angles at both kinds of images, and to others.
    if "lost_direction_angle" not in row or not row.lost_direction_angle.notnull().any():
        return [], []
    others = [known.isel(subject=k) for k in range(known.sizes["subject"])]
    others = [
        o
        for o in others
        if o["kind"].item() in NETWORKS
        and int(o.subject) != int(row.subject)
        and o.lost_direction_angle.notnull().any()
    ]
    asked = [(o, at) for o in (row, *others) for at in LINES if at in row["at"].values]
    columns = ["lost direction", "gone"]
    columns += [f"{o.label.values}, {PLACES[at]}" for o, at in asked]
    table = []
    for k, share in enumerate(row.lost_direction_share.values):
        if math.isfinite(share):
            cells = [_degrees(o.isel(lost=k), "lost_direction_angle", at) for o, at in asked]
            table.append([f"{k + 1}", f"{100 * share:.0f} %", *cells])
    return columns, table


def _degrees(one: xr.Dataset, name: str, at: str) -> str:
    value, stderr = (float(one[f"{name}{end}"].sel(at=at)) for end in ("", "_stderr"))
    return f"{Estimate(value, stderr)}°" if math.isfinite(value) else "not measured"


def _channels(row: xr.Dataset) -> Section | None:
    said = channel_sentence(row)
    if said is None:
        return None
    text = (
        "A LoRA adds to the weights of its base. Principal channels of a module are its leading "
        "singular directions, as few as hold half of its squared weights; the table says which "
        "share of the squared update lies in them, and what share would by chance. Modules weigh "
        "by their squared update; ± is over modules. It says where training wrote, not what."
    )
    table = []
    for side in map(str, row["side"].values):
        one = row.sel(side=side)
        share = Estimate(100 * float(one.alignment), 100 * float(one.alignment_stderr))
        chance = float(one.alignment_chance)
        table.append(
            [
                f"{side}s",
                f"{share} %",
                f"{100 * chance:.1f} %",
                f"{float(one.alignment) / chance:.2f}",
            ]
        )
    columns = ["side", "in principal channels", "by chance", "times chance"]
    labels = [(str(row.label.values), 0)]
    return Section("update", unbroken(said.rstrip(".")), text, [], labels, [], columns, table)
