r"""Angles: between the model's own tangent space, principal directions, and what was lost.

The tangent space of a model at a noised image is spanned by the eigenvectors of its Jacobian
along which it keeps more than half, the leading 16 at most. A direction u stands at the angle
:math:`\arccos \|P u\|` to it, P its projector: 90 degrees where it keeps nothing at all. A
direction of no account stands at about :math:`\arccos \sqrt{k / d}` to a space of k directions;
that is said beside the angles. Lost directions come from denoising errors alone
(:mod:`geomem.findings.lost`), the tangent space from derivatives: that a lost direction lies
nearer to the space at new images than at training images is a second witness.
"""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.findings.measured import Measured
from geomem.measure.subject import NETWORKS
from geomem.stats import Estimate

Array = NDArray[np.float64]
KEPT = 0.5  # of the noise along a direction, from which on the direction is kept


def basis_numbers(run: Measured, lost: xr.Dataset) -> xr.Dataset:
    r"""Angles in degrees, mean over images, each with its standard error.

    Arguments:
        run: The records.
        lost: What :func:`geomem.findings.lost.lost_numbers` returns of them.

    Returns:
        ``tangent_dimension`` (subject, at, basis_level), how many of the leading directions
        are kept; ``tangent_angle`` (subject, at, basis_level), the largest angle between the
        tangent space and as many leading principal directions, NaN where no image has one;
        ``principal_angle`` (subject, at, basis_level, direction), of single principal
        directions to the tangent space, NaN along bands; ``lost_direction_angle`` (subject, at,
        lost), of each lost direction of the row, or of the model under audit where the row has
        none, at the level nearest to where it is lost, and ``lost_direction_chance`` (subject,
        at) of a random one.
    """
    if "basis_component" not in run.dataset:
        return xr.Dataset()
    dims = ("subject", "at", "basis_level", "basis_point", "basis")
    component = run.dataset.basis_component.transpose(*dims, "single").values.astype(float)
    values = run.dataset.basis_value.transpose(*dims).values.astype(float)
    sigmas = run.dataset.basis_sigma.transpose("subject", "basis_level").values
    own = np.nanmax(sigmas, 0)
    _, kinds, levels, _, _, singles = component.shape
    rows, d = len(run.rows), int(run.dataset.attrs["ambient_dim"])
    dimension, between = (np.full((2, rows, kinds, levels), np.nan) for _ in range(2))
    principal = np.full((2, rows, kinds, levels, run.dataset.sizes["direction"]), np.nan)
    gone = np.full((2, rows, kinds, lost.sizes.get("lost", 0)), np.nan)
    chance = np.full((rows, kinds), np.nan)
    for k, row in enumerate(run.rows):
        if row.kind not in NETWORKS:
            continue
        axes, sigma = _lost_of(run, lost, k)
        place = int(np.abs(np.log(own / sigma)).argmin()) if len(axes) else -1
        for a, t in np.ndindex(kinds, levels):
            there = ~np.isnan(component[row.members[0], a, t]).any((1, 2))
            if not there.any():
                continue
            kept = values[row.members[0], a, t][there] > KEPT
            bases = component[row.members[0], a, t][there] * kept[..., None]
            dimension[:, k, a, t] = _mean(kept.sum(1).astype(float))
            principal[:, k, a, t, :singles] = _mean(_angle(np.square(bases).sum(1)))
            widest = [_widest(b[:n]) for b, n in zip(bases, kept.sum(1), strict=True) if n]
            if widest:
                between[:, k, a, t] = _mean(np.array(widest))
            if t == place:
                inside = np.square(bases @ axes[:, :singles].T).sum(1)
                gone[:, k, a, : len(axes)] = _mean(_angle(inside))
                chance[k, a] = float(_angle(kept.sum(1) / d).mean())
    degrees, at = {"units": "degrees"}, ("subject", "at", "basis_level")
    random = {"long_name": "angle of a random direction to the tangent space"}
    columns: dict[str, object] = {
        "lost_direction_chance": (("subject", "at"), chance, degrees | random)
    }
    for name, axis, found, text in (
        ("tangent_dimension", at, dimension, "leading directions that the model keeps"),
        ("tangent_angle", at, between, "largest angle to as many principal directions"),
        ("principal_angle", (*at, "direction"), principal, "angle to the tangent space"),
        ("lost_direction_angle", ("subject", "at", "lost"), gone, "angle to the tangent space"),
    ):
        units = {"units": "1"} if name == "tangent_dimension" else degrees
        for end, array in zip(("", "_stderr"), found, strict=True):
            more = ", standard error over images" if end else ""
            columns[name + end] = (axis, array, units | {"long_name": text + more})
    known = {"at": run.dataset["at"].values, "basis_sigma": ("basis_level", own)}
    return xr.Dataset(columns, coords=known)


def basis_sentence(row: xr.Dataset) -> str:
    r"""How the direction that is lost most stands to the model's tangent space; "" if not known.

    Arguments:
        row: One row of the numbers.
    """
    if "lost_direction_angle" not in row or not row.sizes.get("lost"):
        return ""
    first, parts = row.isel(lost=0), []
    for at, where in (("training", "training"), ("held_out", "held-out")):
        if at in row["at"].values and math.isfinite(float(first.lost_direction_angle.sel(at=at))):
            one = first.sel(at=at)
            value, stderr = (float(one[f"lost_direction_angle{end}"]) for end in ("", "_stderr"))
            parts.append(
                f"{Estimate(value, stderr)} degrees at {where} images "
                f"({float(one.lost_direction_chance):.0f} by chance)"
            )
    if not parts:
        return ""
    return (
        f"The direction that is lost most ({100 * float(first.lost_direction_share):.0f} % gone) "
        f"stands to the tangent space that the model keeps at {' and '.join(parts)}."
    )


def _lost_of(run: Measured, lost: xr.Dataset, k: int) -> tuple[Array, float]:
    # Lost directions, one a row, and the level at which they are lost.
    nothing = np.empty((0, 0)), math.nan
    if "lost_direction" not in lost:
        return nothing
    mine = np.isfinite(lost.lost_direction_share.values).any(1)
    models = [j for j, row in enumerate(run.rows) if row.kind == "model" and mine[j]]
    place = k if mine[k] else next(iter(models), None)
    if place is None:
        return nothing
    axes = lost.lost_direction.values[place]
    level = int(np.nanargmax(lost.worst_share_low.values[place]))
    return np.nan_to_num(axes[np.isfinite(axes).any(1)]), float(run.sigmas[level])


def _angle(square: Array) -> Array:
    # Of the squared cosine, in degrees: rounding may leave it above 1.
    return np.asarray(np.degrees(np.arccos(np.sqrt(np.clip(square, 0.0, 1.0)))))


def _widest(basis: Array) -> float:
    # The largest principal angle between a basis and as many leading principal directions.
    cosines = np.linalg.svd(basis[:, : len(basis)], compute_uv=False)
    return float(_angle(np.square(cosines)).max())


def _mean(values: Array) -> Array:
    # Mean over images and its standard error, NaN of a single one.
    blank = np.full(values.shape[1:], np.nan)
    error = values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else blank
    return np.stack([values.mean(0), error])
