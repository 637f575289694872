r"""Evidence: are training and held-out images told apart, were they drawn alike?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from geomem.findings.measured import MIN_UNITS, SIDES, Measured
from geomem.findings.rows import Row
from geomem.measure.subject import NETWORKS
from geomem.stats import PermutationTest, numpy_rng, permutation_test

Array = NDArray[np.float64]


def test_numbers(run: Measured) -> xr.Dataset:
    r"""P-values of each network, and the check of the run on its own figures.

    Beside a control that networks are paired with, image by image, what is permuted are the
    differences to it; beside the linear one the errors themselves.

    Returns:
        ``p_value`` (subject), ``p_level`` (subject, sigma), adjusted for all levels, and
        ``identity_z`` (subject, at, sigma), NaN where fewer than 8 images have a Jacobian;
        ``jacobian_images`` (subject, at), how many have one.
    """
    levels = len(run.sigmas)
    p_value = np.full(len(run.rows), np.nan)
    adjusted = np.full((len(run.rows), levels), np.nan)
    identity = np.full((len(run.rows), len(run.kinds), levels), np.nan)
    there = np.zeros((len(run.rows), len(run.kinds)))
    for k, row in enumerate(run.rows):
        if row.kind not in NETWORKS or "error" not in run.dataset:
            continue
        found = _permutation(run, row)
        if found is not None:
            p_value[k], adjusted[k] = found.p_value, found.adjusted[:levels]
        for a, at in enumerate(run.kinds):
            identity[k, a] = _identity(run, row.members[0], at)
            if "diagonal" in run.dataset:
                one = run.dataset.diagonal.isel(subject=row.members[0], sigma=0, direction=0)
                there[k, a] = int(one.sel(at=at).notnull().sum())
    chance = {"units": "1", "long_name": "p-value, training against held-out images"}
    level = {"units": "1", "long_name": "p-value at a level, adjusted for all levels"}
    z = {"units": "1", "long_name": "identity of error and Jacobian, z-score"}
    images = {"units": "1", "long_name": "images that have a Jacobian"}
    return xr.Dataset(
        {
            "p_value": ("subject", p_value, chance),
            "p_level": (("subject", "sigma"), adjusted, level),
            "identity_z": (("subject", "at", "sigma"), identity, z),
            "jacobian_images": (("subject", "at"), there, images),
        },
        coords={"at": run.kinds},
    )


def _permutation(run: Measured, row: Row) -> PermutationTest | None:
    # One row a group: errors at each level, and the dimension where it is measured. A network
    # that remembers has the smaller errors at training images, so a control has more than it.
    if not set(SIDES) <= set(run.kinds):
        return None
    member, name = row.members[0], run.main
    if run.audit:
        return _audited(run, row)
    control = run.controls.get(name) if name != "linear" else None
    if control == member:
        return None
    sides = []
    for at in ("held_out", "training"):
        errors = run.squares(member, at).sum(-1).T
        looks = [errors]
        if control is not None:
            looks = [run.squares(control, at)[:, : len(errors)].sum(-1).T - errors]
        if run.has_jacobian(member) and (control is None or run.has_jacobian(control)):
            diagonal = run.diagonal(member, at)[0].sum(-1).T
            if control is not None:
                theirs = run.diagonal(control, at)[0].sum(-1).T[: len(diagonal)]
                diagonal = theirs - diagonal if len(theirs) == len(diagonal) else diagonal[:0]
            if len(diagonal) == len(errors):
                looks.append(diagonal)
        sides.append(run.by_group(at, np.hstack(looks)))
    if control is not None:
        sides.reverse()  # what is gained beside the control is larger at training images
    if min(map(len, sides)) < MIN_UNITS or sides[0].shape[1] != sides[1].shape[1]:
        return None  # too few units to say anything
    rng = numpy_rng(run.seed, "permutation", row.unit)
    return permutation_test(*sides, rng=rng, permutations=run.permutations)


def _audited(run: Measured, row: Row) -> PermutationTest | None:
    # Paired with whatever control there is. What a control knows of an image's difficulty is
    # taken out by its slope over all images, training and held-out: it does not depend on the
    # labels, so that the permutation test stays exact, and no slope is better than the best.
    member, name = row.members[0], run.main
    control = run.controls.get(name)
    if control is None or control == member or (name == "mirror" and row.kind != "model"):
        return None
    looks = []
    for ours, theirs in _looks(run, member, control):
        both, other = (np.concatenate([side[at] for at in SIDES]) for side in (ours, theirs))
        spread = other - other.mean(0)
        squares = np.square(spread).sum(0)
        slope = (spread * both).sum(0) / np.where(squares > 0, squares, np.inf)
        if name == "population":
            slope = np.ones_like(slope)
        looks.append({at: slope * theirs[at] - ours[at] for at in SIDES})
    if not looks:
        return None
    sides = [np.hstack([look[at] for look in looks]) for at in SIDES]
    if min(map(len, sides)) < MIN_UNITS:
        return None
    rng = numpy_rng(run.seed, "permutation", row.unit)
    return permutation_test(*sides, rng=rng, permutations=run.permutations)


def _looks(
    run: Measured, member: int, control: int
) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    # Of subject and control, by side, one row a group: errors by level, then dimension.
    found = []
    errors = [
        {at: run.by_group(at, run.squares(m, at).sum(-1).T) for at in SIDES}
        for m in (member, control)
    ]
    if all(len(errors[0][at]) == len(errors[1][at]) > 0 for at in SIDES):
        found.append((errors[0], errors[1]))
    if run.has_jacobian(member) and run.has_jacobian(control):
        traces = [{at: run.diagonal(m, at)[0].sum(-1).T for at in SIDES} for m in (member, control)]
        whole = {at: run.squares(member, at).shape[1] for at in SIDES}
        if all(len(t[at]) == whole[at] for t in traces for at in SIDES):
            grouped = [{at: run.by_group(at, t[at]) for at in SIDES} for t in traces]
            found.append((grouped[0], grouped[1]))
    return found


def _identity(run: Measured, member: int, at: str) -> Array:
    # Error gap = residual gap + 2 sigma² dimension gap, an identity for every denoiser:
    # z·(D - x_0)/sigma minus the trace has mean 0, or schedule, code or model is wrong.
    blank = np.full(len(run.sigmas), np.nan)
    if "diagonal" not in run.dataset:
        return blank
    picked = run.dataset.isel(subject=member).sel(at=at)
    difference = (picked.forward_diagonal - picked.diagonal).sum("direction", skipna=False)
    values = difference.transpose("sigma", "point").values.astype(float)
    values = values[:, ~np.isnan(values).any(0)]
    if values.shape[1] < MIN_UNITS:
        return blank  # a standard error of two images is no measure of chance
    # A t-statistic of few images has long tails: as the normal score of the same probability.
    error = values.std(1, ddof=1) / np.sqrt(values.shape[1])
    t = values.mean(1) / np.where(error > 0, error, np.inf)
    tail = student.logsf(np.abs(t), values.shape[1] - 1)
    return np.asarray(np.sign(t) * -norm.ppf(np.exp(np.maximum(tail, -700.0))))


def alike_numbers(run: Measured) -> xr.Dataset:
    r"""Were training and held-out images drawn alike? One test before all others.

    Compared are what is known of an image without any network (:mod:`geomem.measure.alike`)
    and the linear control's errors by level, two-sided, the largest difference of all.

    Returns:
        ``alike_p_value``; nothing where it was not recorded, or groups are too few.
    """
    linear = run.controls.get("linear")
    if "look" not in run.dataset or linear is None:
        return xr.Dataset()
    sides = []
    for at in SIDES:
        looks = run.dataset.look.isel(subject=linear).sel(at=at)
        values = looks.transpose("point", "feature").values.astype(float)
        values = values[~np.isnan(values).any(1)]
        errors = np.log(run.squares(linear, at).sum(-1).T[: len(values)])
        sides.append(run.by_group(at, np.hstack([values, errors])))
    if min(map(len, sides)) < MIN_UNITS:
        return xr.Dataset()
    both = [np.hstack([side, -side]) for side in sides]
    rng = numpy_rng(run.seed, "drawn alike")
    found = permutation_test(both[0], both[1], rng=rng, permutations=run.permutations)
    named = {"units": "1", "long_name": "p-value, training and held-out images were drawn alike"}
    return xr.Dataset({"alike_p_value": ((), found.p_value, named)})


def exact_numbers(run: Measured) -> xr.Dataset:
    r"""What the exact denoiser of as many images spends of its budget ln N in the window.

    Returns:
        ``exact_information`` (subject) in nats, and its standard error over images.
    """
    if "entropy" not in run.dataset:
        return xr.Dataset()
    budget = {}
    for row in run.rows:
        if row.kind == "empirical":
            entropy = run.dataset.entropy.isel(subject=row.members[0])
            points = (entropy.isel(sigma=-1) - entropy.isel(sigma=0)).mean("draw").values
            budget[row.unit] = points[~np.isnan(points)]
    values = np.full((2, len(run.rows)), np.nan)
    for k, row in enumerate(run.rows):
        points = budget.get(row.unit, np.array([])) if row.unit else np.array([])
        if len(points):
            values[0, k] = points.mean()
        if len(points) > 1:
            values[1, k] = points.std(ddof=1) / np.sqrt(len(points))
    said = {"units": "nats", "long_name": "ln N spent by the exact denoiser of as many images"}
    also = {"units": "nats", "long_name": "its standard error, over images"}
    return xr.Dataset(
        {
            "exact_information": ("subject", values[0], said),
            "exact_information_stderr": ("subject", values[1], also),
        }
    )
