r"""Single images: what a subject has memorized of each, and how well members are told apart.

Integrated at one image, control minus subject is a mean log-likelihood ratio (pointwise I-MMSE):
how many nats likelier the subject finds this image than the control does. Held-out images, new
to both, say what that is worth: a training image counts as memorized only by its place among
them. The plain loss and the norm of the predicted noise are the same calls without a control.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.findings.measured import SIDES, Measured
from geomem.findings.rows import Row
from geomem.information import integrate_log
from geomem.measure.subject import NETWORKS
from geomem.stats import Proportion, benjamini_hochberg, conformal_p_values

Array = NDArray[np.float64]
ATTACKS = ("control difference", "plain loss", "predicted noise")
FALSE_POSITIVES = 0.01
DISCOVERIES = 0.05


def image_numbers(run: Measured) -> xr.Dataset:
    r"""Nats of each image, its place among held-out ones, and membership by three scores.

    Returns:
        ``point_information`` and ``held_out_information`` (subject, point), each with its
        ``_stderr`` over draws of noise; ``point_p_value`` (conformal, among held-out images)
        and ``point_q_value`` (Benjamini-Hochberg); ``memorized_images`` (subject), how many
        have one of at most 5 %; ``auc`` and ``tpr`` at 1 % false positives (attack, subject)
        with their intervals.
    """
    main = run.main
    if main not in run.controls:
        return xr.Dataset()
    width, rows = run.dataset.sizes["point"], len(run.rows)
    nats = {at: np.full((2, rows, width), np.nan) for at in SIDES}
    chance = np.full((2, rows, width), np.nan)
    memorized = np.full(rows, np.nan)
    attacks = np.full((2, 3, len(ATTACKS), rows), np.nan)
    for k, row in enumerate(run.rows):
        members = [m for m in row.members if m != run.controls[main]]
        if not members or row.kind not in (*NETWORKS, "empirical"):
            continue
        if main == "mirror" and row.kind != "model":
            continue
        scores = {}
        for at in SIDES:
            per_draw = nats_by_draw(run, row, members, at)
            count = len(per_draw)
            scores[at] = per_draw.mean(1)
            nats[at][0, k, :count] = scores[at]
            if per_draw.shape[1] > 1:
                error = per_draw.std(1, ddof=1) / np.sqrt(per_draw.shape[1])
                nats[at][1, k, :count] = error
        if row.kind not in NETWORKS or not all(map(len, scores.values())):
            continue
        p = conformal_p_values(-scores["training"], -scores["held_out"])
        chance[0, k, : len(p)], chance[1, k, : len(p)] = p, benjamini_hochberg(p)
        memorized[k] = float((chance[1, k, : len(p)] <= DISCOVERIES).sum())
        for a, pair in enumerate(_scores(run, members, scores)):
            attacks[:, :, a, k] = _attack(run, row, *pair)
    nat = {"units": "nats"}
    one = {"units": "1"}
    place = ("subject", "point")
    texts = {"training": "point", "held_out": "held_out"}
    columns: dict[str, object] = {}
    for at, name in texts.items():
        said = f"memorized information of a {at.replace('_', '-')} image"
        columns[f"{name}_information"] = (place, nats[at][0], nat | {"long_name": said})
        error_text = {"long_name": "its standard error, over draws of noise"}
        columns[f"{name}_information_stderr"] = (place, nats[at][1], nat | error_text)
    p_text = {"long_name": "conformal p-value of an image's nats among held-out images"}
    q_text = {"long_name": "the same, adjusted for all images (Benjamini-Hochberg)"}
    columns["point_p_value"] = (place, chance[0], one | p_text)
    columns["point_q_value"] = (place, chance[1], one | q_text)
    count_text = {"long_name": "training images memorized one by one, at most 5 % of them falsely"}
    columns["memorized_images"] = ("subject", memorized, one | count_text)
    for values, name, text in zip(
        attacks, ("auc", "tpr"), ("AUC of members", "true positives at 1 % false ones"), strict=True
    ):
        for row_of, suffix in zip(values, ("", "_low", "_high"), strict=True):
            about = one | {"long_name": text + suffix.replace("_", ", 95 % ")}
            columns[name + suffix] = (("attack", "subject"), row_of, about)
    return xr.Dataset(columns, coords={"attack": list(ATTACKS)})


def nats_by_draw(run: Measured, row: Row, members: list[int], at: str) -> Array:
    r"""Control minus subject, over all levels and directions, with shape (n, draws)."""
    control = run.taken(members[0], row, run.main, at)
    own = np.mean([run.errors(m, at) ** 2 for m in members], axis=0)
    return integrate_log((control - own).sum(-1), run.sigmas)


def _scores(run: Measured, members: list[int], nats: dict[str, Array]) -> list[tuple[Array, Array]]:
    # Scores of training and held-out images that are larger for members.
    found = [(nats["training"], nats["held_out"])]
    losses = [
        -integrate_log(np.mean([run.squares(m, at).sum(-1) for m in members], axis=0), run.sigmas)
        for at in SIDES
    ]
    found.append((losses[0], losses[1]))
    if "predicted_noise" in run.dataset:
        norms = []
        for at, score in nats.items():
            array = run.dataset.predicted_noise.isel(subject=members).sel(at=at)
            values = array.transpose("subject", "sigma", "point").values.astype(float)
            norms.append(integrate_log(values.mean(0)[:, : len(score)], run.sigmas))
        found.append((norms[0], norms[1]))
    return found


def ranked_above(run: Measured, row: Row, members: Array, others: Array) -> Array:
    r"""How often a member's score is above another image's, resampled, with shape (R)."""
    above = (members[:, None] > others[None]) + 0.5 * (members[:, None] == others[None])
    left = run.weights("training", row, len(members))
    right = run.weights("held_out", row, len(others))
    return np.asarray(np.einsum("rn,nm,rm->r", left, above, right, optimize=True))


def _attack(run: Measured, row: Row, members: Array, others: Array) -> Array:
    # AUC and true positives at 1 % false ones, each with the ends of its 95 % interval.
    replicates = ranked_above(run, row, members, others)
    low, high = np.quantile(replicates[1:], (0.025, 0.975))
    threshold = np.quantile(others, 1 - FALSE_POSITIVES, method="higher")
    caught = Proportion(int((members > threshold).sum()), len(members))
    return np.array([[replicates[0], low, high], [caught.value, *caught.interval]])


def class_numbers(run: Measured) -> xr.Dataset:
    r"""Memorized information by class, where labels are known.

    Returns:
        ``class_information`` (subject, class) in nats, mean over measured training images of a
        class, its ``_stderr`` over images, and ``class_images``, how many these are.
    """
    if "point_label" not in run.dataset.coords or "training" not in run.kinds:
        return xr.Dataset()
    main = run.main
    if main not in run.controls:
        return xr.Dataset()
    labels = run.dataset.point_label.sel(at="training").values
    classes = sorted({str(label) for label in labels if str(label)})
    values = np.full((3, len(run.rows), len(classes)), np.nan)
    for k, row in enumerate(run.rows):
        members = [m for m in row.members if m != run.controls[main]]
        if row.kind not in NETWORKS or not members or (main == "mirror" and row.kind != "model"):
            continue
        nats = nats_by_draw(run, row, members, "training").mean(1)
        for c, name in enumerate(classes):
            mine = nats[labels[: len(nats)].astype(str) == name]
            values[2, k, c] = len(mine)
            if len(mine):
                values[0, k, c] = mine.mean()
            if len(mine) > 1:
                values[1, k, c] = mine.std(ddof=1) / np.sqrt(len(mine))
    dims = ("subject", "class")
    nat = {"units": "nats"}
    said = {"long_name": "memorized information of a training image of a class, mean"}
    error = {"long_name": "its standard error, over images"}
    count = {"units": "1", "long_name": "measured training images of a class"}
    return xr.Dataset(
        {
            "class_information": (dims, values[0], nat | said),
            "class_information_stderr": (dims, values[1], nat | error),
            "class_images": (dims, values[2], count),
        },
        coords={"class": classes},
    )
