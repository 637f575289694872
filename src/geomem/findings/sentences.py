r"""Findings: what the numbers of a run say, in words. Pure functions of the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from geomem.arguments import checked
from geomem.errors import InputError
from geomem.findings.bases import basis_sentence
from geomem.findings.channels import channel_sentence
from geomem.findings.looks import look_sentence
from geomem.findings.numbers import numbers
from geomem.measure.copies import LEVEL
from geomem.measure.subject import NETWORKS
from geomem.stats import Estimate, Proportion

ALPHA = 0.05
UNALIKE = 0.01  # p-value from which two sets of images are said not to be drawn alike
ALLOWED_Z = 4.0  # of the identity check, over all levels and subjects
SHOWN = 6  # rows that a sentence lists, the first ones and the last ones


def estimate(row: xr.Dataset, name: str, **at: Any) -> Estimate:
    r"""One number of :func:`geomem.findings.numbers.numbers` with its standard error."""
    value, stderr = (float(row[k].sel(at)) for k in (name, f"{name}_stderr"))
    return Estimate(value, stderr)


def networks(known: xr.Dataset, *, early: bool = False) -> list[xr.Dataset]:
    r"""The rows of networks, in order: what pages and sentences speak of first.

    Arguments:
        known: What :func:`geomem.numbers` returns.
        early: Whether steps of a training before its last one are among them.
    """
    rows = [known.isel(subject=k) for k in range(known.sizes["subject"])]
    main = str(known.attrs.get("control", ""))
    kinds = {str(row["kind"].item()) for row in rows}
    # Beside a model under audit, its base and the reference are controls, whichever decided.
    spoken = ("model",) if "model" in kinds else [kind for kind in NETWORKS if kind != main]
    rows = [row for row in rows if row["kind"].item() in spoken]
    # Other parts of the pool are there to be compared with the first one, at new images alone.
    rows = [row for row in rows if not ("part" in row.coords and float(row["part"]) > 0)]
    last: dict[tuple[str, ...], float] = {}
    for row in rows:
        last[_recipe(row)] = max(last.get(_recipe(row), -1.0), np.nan_to_num(float(row.step)))
    return [r for r in rows if early or np.nan_to_num(float(r.step)) == last[_recipe(r)]]


def _recipe(row: xr.Dataset) -> tuple[str, ...]:
    labelled = str(row["label"].item()) if math.isnan(float(row.num_samples)) else ""
    return (*(str(row[name].item()) for name in ("kind", "num_samples", "width")), labelled)


@checked
def sentences(known: xr.Dataset) -> list[str]:
    r"""What a run says: how much, where, and what became of samples.

    Arguments:
        known: What :func:`geomem.numbers` returns.
    """
    rows = networks(known)
    if not rows:
        kinds = ", ".join(sorted({str(k) for k in known["kind"].values}))
        return [f"No network was measured, only {kinds}: nothing is said about memorization."]
    if "information" not in known:
        if "dimension" not in known:
            return ["Denoising errors were not measured, so nothing is said about memorization."]
        missing = "held-out images" if "held_out" not in known["at"].values else "a control"
        missing = "training images" if "training" not in known["at"].values else missing
        return [
            f"No {missing.removeprefix('a ')} was measured, so nothing is said about memorization; "
            f"add {missing}."
        ]
    found = [*faults(known), *_not_alike(known)]
    found += [look_sentence(known)] if "look_number" in known and drawn_alike(known) else []
    found += [_how_much(known, rows), _where(rows), *_controls(known, rows)]
    found += [*_pairs(known, rows), *_own_way(rows), *_images(rows)]
    found += [said for said in (basis_sentence(rows[0]), channel_sentence(rows[0])) if said]
    if "copies" not in known:
        return [*found, NO_SAMPLES]
    return [*found, _samples(rows), *_kinds(rows)]


NO_SAMPLES = "No samples were drawn, so nothing is said about copies."


def listed(rows: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    r"""Rows that a sentence names: all of a few, else the first and the last ones."""
    half = SHOWN // 2
    return list(rows) if len(rows) <= SHOWN else [*rows[:half], *rows[-half:]]


def window(known: xr.Dataset) -> str:
    r"""The window of noise levels in which nats are counted, in words."""
    low, high = known.attrs["window"]
    return f"{low / known.attrs['rms']:.2g} to {high / known.attrs['rms']:.2g} rms"


def state(row: xr.Dataset) -> str:
    r"""What can be said of a row: underfit, not alike, no test, not significant, or told apart.

    Underfit is a network that is worse than the linear control at its own training images.
    """
    name = "beside_linear" if "beside_linear" in row else "information"
    linear, p = estimate(row, name), float(row.p_value)
    if linear.value < -2 * linear.stderr:
        return "underfit"
    if not drawn_alike(row):
        return "not alike"
    return "no test" if math.isnan(p) else "told apart" if p <= ALPHA else "not significant"


def drawn_alike(known: xr.Dataset) -> bool:
    r"""Whether nothing speaks against training and held-out images being drawn alike."""
    return "alike_p_value" not in known or not float(known.alike_p_value) <= UNALIKE


def largest_identity_z(known: xr.Dataset) -> float:
    r"""The largest ``|z|`` of the identity of error and Jacobian; NaN if it was not checked."""
    z = np.abs(known.identity_z.values) if "identity_z" in known else np.array([np.nan])
    return float(np.nanmax(z)) if np.isfinite(z).any() else math.nan


def faults(known: xr.Dataset) -> list[str]:
    r"""What has to be said before all else: that the identity check failed, if it did."""
    largest = largest_identity_z(known)
    if not largest > ALLOWED_Z:
        return []
    return [
        f"The identity check FAILED (largest |z| = {largest:.1f}, at most {ALLOWED_Z:g} is "
        "allowed): schedule, code or model is at fault, and no number below can be trusted."
    ]


def _not_alike(known: xr.Dataset) -> list[str]:
    if drawn_alike(known):
        return []
    p = float(known.alike_p_value)
    return [
        f"Training and held-out images are not drawn alike (p = {p:.1g}, without any network): a "
        "difference between them is no evidence of memory; hold out images of the same kind."
    ]


def _how_much(known: xr.Dataset, rows: Sequence[xr.Dataset]) -> str:
    control = known.attrs["control"]
    what = "Missing" if control == "population" else "Memorized"
    parts = "; ".join(_one_row(row) for row in listed(rows))
    unfinished = known.attrs["subjects_done"] < known.attrs["subjects_planned"]
    note = " The run is unfinished, and these numbers will change." if unfinished else ""
    them = f"the {control} control"
    if control == "reference":
        sizes = known.num_samples.values[known["kind"].values == "reference"]
        known_size = len(sizes) and math.isfinite(float(sizes[0]))
        count = f"{int(sizes[0]):,} " if known_size else ""
        them = f"a reference network trained on {count}other images"
    return f"{what} information beside {them} ({window(known)}): {parts}.{note}"


def _one_row(row: xr.Dataset) -> str:
    name, nats = str(row.label.values), estimate(row, "information")
    if not math.isfinite(nats.value):
        return f"{name}: not measured"
    found, p = state(row), float(row.p_value)
    if found == "underfit":
        return (
            f"{name}: nothing can be said (undertrained: {nats} nats, and worse than the linear "
            "control at its own training images; train longer)"
        )
    if found == "not alike":
        return f"{name}: nothing can be said ({nats} nats, images not drawn alike)"
    if found == "no test":
        return f"{name}: nothing can be said ({nats} nats, fewer than 8 image groups a side)"
    if found == "not significant":
        return f"{name}: none beyond chance ({nats} nats, p = {p:.2g})"
    return (
        f"{name}: {nats} nats of the control's {float(row.control_information):.0f} (training and "
        f"held-out images are told apart, p = {p:.1g})"
    )


def _controls(known: xr.Dataset, rows: Sequence[xr.Dataset]) -> list[str]:
    # Two controls that differ beyond their joint error are a finding.
    if "disagreement" not in known:
        return []
    main = str(known.attrs["control"])
    parts = []
    for row in rows:
        if state(row) not in ("told apart", "not significant"):
            continue
        for name in map(str, known["control"].values):
            one = row.sel(control=name)
            gap = estimate(one, "disagreement")
            if name != main and abs(gap.value) > 2 * gap.stderr > 0:
                there = estimate(one, "information_beside")
                parts.append(f"{row.label.values}: {there} nats beside the {name} one")
    if not parts:
        return []
    return [f"Controls that disagree with the {main} one beyond error: {'; '.join(parts[:SHOWN])}."]


def _pairs(known: xr.Dataset, rows: Sequence[xr.Dataset]) -> list[str]:
    # Trainings on disjoint parts of the pool: what of the excess more images would mend.
    if "variance" not in known:
        return []
    paired = [row for row in rows if math.isfinite(float(row.variance))]
    parts = [f"{row.label.values}: {_one_pair(row)}" for row in listed(paired)]
    alone = [str(row.label.values) for row in rows if not math.isfinite(float(row.variance))]
    if alone:
        parts.append(f"no second part of the pool is measured for {', '.join(alone[:SHOWN])}")
    return [f"Networks trained on disjoint images, at new ones: {'; '.join(parts)}."]


def _one_pair(row: xr.Dataset) -> str:
    if state(row) == "underfit":
        return "nothing can be said (undertrained)"
    said = f"{estimate(row, 'variance')} nats of variance"
    if "bias" in row and math.isfinite(float(row.bias)):
        said += f" and {estimate(row, 'bias')} of bias"
    return f"{said}, they agree on {estimate(row, 'agreement')} of their error"


def _own_way(rows: Sequence[xr.Dataset]) -> list[str]:
    # Along trajectories of the network's own sampler, at the level of the largest lost share.
    said = [row for row in rows if state(row) in ("told apart", "not significant")]
    row = (said or rows)[0]
    share = row.lost_share.values if "lost_share" in row else np.array([np.nan])
    if "trajectory" not in row["at"].values or not np.isfinite(share).any():
        return []
    one = row.isel(sigma=int(np.nanargmax(share)))
    parts = []
    for name, text in (
        ("dimension", "{} directions are kept ({} at noised training images)"),
        ("nearest_distance", "the denoised point is {} rms from a training image ({})"),
    ):
        if name in one:
            pair = [estimate(one, name, at=at) for at in ("trajectory", "training")]
            parts += [text.format(*pair)] if all(math.isfinite(e.value) for e in pair) else []
    if not parts:
        return []
    sigma = float(one.sigma_relative)
    return [
        f"Along its own trajectories, at sigma = {sigma:.2g} rms, of {row.label.values}: "
        f"{'; '.join(parts)}."
    ]


def _images(rows: Sequence[xr.Dataset]) -> list[str]:
    if "auc" not in rows[0]:
        return []
    parts = []
    for row in listed(rows):
        auc, low, high = (float(row[f"auc{end}"][0]) for end in ("", "_low", "_high"))
        if math.isnan(auc) or state(row) not in ("told apart", "not significant"):
            continue
        total = int(np.isfinite(row.point_p_value).sum())
        others = int(np.isfinite(row.held_out_information).sum())
        # The least p-value is 1 / (others + 1): of fewer than 19 it is above 5 % for all images.
        one_by_one = f"{float(row.memorized_images):.0f} of {total} memorized one by one"
        if others < 19:
            one_by_one = f"too few held-out images ({others}) to name single ones"
        parts.append(
            f"{row.label.values}: {one_by_one}, AUC {auc:.3f} ({low:.3f} to {high:.3f}; plain loss "
            f"{float(row.auc[1]):.3f})"
        )
    return [f"Single images: {'; '.join(parts)}."] if parts else []


def _where(rows: Sequence[xr.Dataset]) -> str:
    said = [row for row in rows if state(row) in ("told apart", "not significant")]
    row = (said or rows)[0]
    share = row.lost_share
    if not np.isfinite(share.values).any():
        return f"No lost share is known of {row.label.values}."
    k = int(np.nanargmax(share.values))
    peak = Estimate(float(share[k]), float(row.lost_share_stderr[k]))
    if not peak.value > 2 * peak.stderr:
        return (
            f"At {row.label.values} no noise level shows a lost share beyond its error (largest "
            f"{peak})."
        )
    ends = rows if len(rows) < 2 else [rows[0], rows[-1]]
    kept = "; ".join(_dimension_at(one, k) for one in ends)
    return (
        f"At {row.label.values} the lost share peaks at sigma = {float(row.sigma_relative[k]):.2g} "
        f"rms: {peak} of the control's dimension is gone at training images; there the dimension "
        f"kept is {kept}."
    )


def _dimension_at(row: xr.Dataset, level: int) -> str:
    training, held_out = (
        estimate(row.isel(sigma=level), "dimension", at=at) for at in ("training", "held_out")
    )
    return f"{training} at training and {held_out} at held-out images for {row.label.values}"


def _samples(rows: Sequence[xr.Dataset]) -> str:
    shown = listed(rows)
    if all(math.isnan(float(row.copies)) for row in rows):
        ratios = ", ".join(f"{float(r.median_ratio):.2f} at {r.label.values}" for r in shown)
        return (
            "Copies among the samples: not calibrated, which takes at least 199 held-out images; "
            f"median distance ratio {ratios}."
        )
    parts = "; ".join(f"{row.label.values}: {copy_rate(row)}" for row in shown)
    unseen = "; ".join(f"{row.label.values}: {_unseen(row)}" for row in shown)
    return (
        f"Copies among the samples: {parts}; reserved images called copies, of which there should "
        f"be 1 %: {unseen}."
    )


def _kinds(rows: Sequence[xr.Dataset]) -> list[str]:
    # What is no copy: near another sample, or new.
    known = [r for r in rows if "spurious" in r and math.isfinite(float(r.spurious))]
    if not known:
        return []
    parts = [
        f"{row.label.values}: spurious {copy_rate(row, 'spurious')}, new {row.new_samples:.0f}"
        for row in listed(known)
    ]
    rates = [copy_rate(row, "unseen_spurious") for row in known]
    unseen = [rate for rate in rates if isinstance(rate, Proportion)]
    most = max(unseen, key=lambda rate: rate.value, default=None)
    check = f"; of reserved images, which should be 1 %, at most {most}" if most else ""
    return [f"Samples near another sample and no training image: {'; '.join(parts)}{check}."]


def _unseen(row: xr.Dataset) -> str:
    rate = copy_rate(row, "unseen_copies")
    if isinstance(rate, str):
        return rate
    low, high = rate.interval
    return f"{rate}" + ("" if low <= LEVEL <= high else ", beyond chance: so may the copies be")


def copy_rate(row: xr.Dataset, name: str = "copies") -> Proportion | str:
    r"""How many samples of a row are copies, with interval; "not calibrated" where unknown."""
    if math.isnan(float(row[name])):
        return "not calibrated"
    return Proportion(int(row[name]), int(row[f"{name}_of"]))


# ---------------------------------------------------------------------------------- summary

SCALARS = (
    "information",
    "control_information",
    "excess",
    "parts_excess",
    "variance",
    "bias",
    "agreement",
    "beside_linear",
    "exact_information",
    "p_value",
    "memorized_images",
    "copies",
    "copies_of",
    "unseen_copies",
    "unseen_copies_of",
    "spurious",
    "spurious_of",
    "new_samples",
    "new_samples_of",
    "unseen_spurious",
    "unseen_spurious_of",
    "median_ratio",
)
BY_LEVEL = (
    *("by_level", "by_level_stderr", "lost_share", "lost_share_stderr", "p_level"),
    *("agreement_by_level", "agreement_by_level_stderr"),
)


def summarize(dataset: xr.Dataset, known: xr.Dataset | None = None) -> dict[str, Any]:
    r"""The summary of a run: findings and the main numbers, as plain JSON values.

    The same study and seed give the same bytes: there is no time and no path in it.

    Arguments:
        dataset: What :func:`geomem.load` returns.
        known: Its numbers, if they have been computed.
    """
    common = {k: plain(v) for k, v in dataset.attrs.items() if k != "run"}
    try:
        known = numbers(dataset) if known is None else known
    except InputError as error:
        return {"schema_version": 2, "run": common, "findings": [str(error)], "subjects": []}
    return {
        "schema_version": 2,
        "run": common,
        "findings": sentences(known),
        "error_over": known.attrs["error_over"],
        "subjects": [_summary_of(known.isel(subject=k)) for k in range(known.sizes["subject"])],
    }


def _summary_of(row: xr.Dataset) -> dict[str, Any]:
    about: dict[str, Any] = {name: str(row[name].values) for name in ("kind", "label")}
    for name in ("num_samples", "step", "width", "part"):
        value = float(row[name])
        if not math.isnan(value):
            about[name] = int(value)
    seeds = [int(s) for s in str(row["seeds"].values).split()] if "seeds" in row.coords else []
    if seeds:
        about["seed"] = seeds[0] if len(seeds) == 1 else seeds
    about["trainings"] = int(row.trainings)
    names = [s for name in SCALARS for s in (name, f"{name}_stderr", f"{name}_low", f"{name}_high")]
    found = {name: plain(row[name].item()) for name in names if name in row}
    found |= {
        name: [plain(v) for v in row[name].values.tolist()] for name in BY_LEVEL if name in row
    }
    for name, attack in (("auc", "auc"), ("tpr_at_1_fpr", "tpr")):
        if attack in row:
            ends = ("", "_low", "_high")
            found |= {name + end: plain(row[attack + end].values[0]) for end in ends}
    if "information_beside" in row:
        for control in map(str, row["control"].values):
            one = row.sel(control=control)
            for end in ("", "_stderr"):
                number = plain(one[f"information_beside{end}"].item())
                found[f"information_beside_{control}{end}"] = number
    found |= _inside(row)
    if "alike_p_value" in row:
        found["alike_p_value"] = plain(row.alike_p_value.item())
    if "identity_z" in row:
        z = np.abs(row.identity_z.values)
        found["largest_identity_z"] = plain(float(np.nanmax(z, initial=0.0)))
    empty = (None, [None] * row.sizes.get("sigma", 0))
    return about | {name: value for name, value in found.items() if value not in empty}


def _inside(row: xr.Dataset) -> dict[str, Any]:
    # Lost directions beside the tangent space; a LoRA's update in its base's channels.
    found: dict[str, Any] = {}
    if "lost_direction_angle" in row:
        there = np.isfinite(row.lost_direction_share.values)
        if there.any():
            found["lost_direction_share"] = plain(row.lost_direction_share.values[there])
            for at in map(str, row["at"].values):
                angles = row.lost_direction_angle.sel(at=at).values[there]
                if np.isfinite(angles).any():
                    found[f"lost_direction_angle_{at}"] = plain(angles)
    if "alignment" in row and row.alignment.notnull().any():
        for side in map(str, row["side"].values):
            for name in ("alignment", "alignment_stderr", "alignment_chance"):
                found[f"{name}_{side}"] = plain(row[name].sel(side=side).item())
    return found


def plain(value: Any) -> Any:
    r"""Plain JSON values, to nine digits: more than any of it means, and stable to rounding."""
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return plain(value.item()) if isinstance(value, np.generic) else value
