"""A run folder in a second: records with errors of a known kind, no training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from geomem.measure.errors import Errors
from geomem.measure.study import Study, make_study
from geomem.measure.subject import Description
from geomem.runs.records import RunFolder
from geomem.subspaces import PrincipalDirections

LEVELS = np.geomspace(0.1, 5.0, 6)
VARIANCES = np.array([4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05])
COUNTS = [1, 1, 1, 1, 1, 1, 3]
DRAWS, ITEM, DIM = 2, (1, 3, 3), 9
NETWORKS = ("learned", "model", "base", "reference")


@dataclass(frozen=True)
class Asked:
    """What a method of local dimension was asked: the page reads `points` from the study."""

    methods: tuple[str, ...]
    points: int = 6

    def __call__(self, subject: object, study: Study, report: object) -> xr.Dataset:
        raise AssertionError("nothing is measured here")


def make_run(
    path: Path,
    *,
    sizes: tuple[int, ...] = (8, 16),
    subjects: Sequence[Description] | None = None,
    item: tuple[int, ...] = ITEM,
    points: int = 16,
    at: tuple[str, ...] = ("training", "held_out"),
    jacobian: bool = True,
    samples: int = 6,
    calibrated: bool = True,
    images: bool = True,
    seeds: tuple[int, ...] = (0,),
    control: str = "linear",
    name: str = "made up",
    files: tuple[str, ...] = (),
    finished: bool = True,
    methods: tuple[str, ...] = (),
    lost: float = 3.0,
    fault: float = 0.0,
    kind: str = "sweep",
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a run folder; ``finished=False`` leaves out the network of the largest size.

    Networks lose ``lost / N`` of each error at training images; ``fault`` is added to each
    diagonal of the Jacobian. ``subjects`` stands for those of a sweep; ``more`` goes into the
    study.
    """
    if subjects is None:
        subjects = [Description("linear")]
        subjects += [Description("population")] if control == "population" else []
        subjects += [Description("empirical", n) for n in sizes]
        subjects += [Description("learned", n, s, 5) for n in sizes for s in seeds]
    study = _study(at, item, points, control, name, files, methods, more or {})
    config = {"kind": kind, "show_images": images}
    folder = RunFolder.create(path, config, study.content, subjects)
    last = max((s.num_samples or 0 for s in subjects), default=0)
    for number, subject in enumerate(subjects):
        network = subject.kind in NETWORKS
        if not finished and network and subject.num_samples == last:
            continue
        record = _measured(subject, number, at, points, jacobian, lost, fault)
        if methods:
            record = record.merge(_local(subject, methods, at, points))
        if subject.kind == "linear":
            record = record.merge(_pictures(item, points, images))
        if subject.kind == "empirical":
            record = record.merge(_entropy(subject, points))
        if network and samples:
            record = record.merge(_samples(samples, item, calibrated, images))
        folder.write_record(number, record)
    if finished:
        write_session(path)
    return path


def _study(
    at: tuple[str, ...],
    item: tuple[int, ...],
    points: int,
    control: str,
    name: str,
    files: tuple[str, ...],
    methods: tuple[str, ...],
    also: Mapping[str, Any],
) -> Study:
    index = {kind: [100 * k + i for i in range(points)] for k, kind in enumerate(at)}
    directions = PrincipalDirections(
        torch.eye(DIM, dtype=torch.float64), torch.ones(DIM, dtype=torch.float64), 0.0, DIM, (DIM,)
    )
    more: dict[str, Any] = {
        "data": {
            "name": name, "digest": "0" * 64, "item_shape": list(item), "quantum": 0.1,
            "pool": 50, "held_out": 50, "reserved": 50, "ambient_dim": DIM,
        },
        "direction_counts": COUNTS,
        "direction_variances": VARIANCES.tolist(),
        **also,
    }  # fmt: skip
    if files:
        more["point_names"] = {kind: list(files[: len(index[kind])]) for kind in at}
    return make_study(
        {kind: torch.zeros(points, *item) for kind in at},
        directions=directions,
        sigmas=torch.from_numpy(LEVELS),
        probes=[Errors(), *([Asked(methods)] if methods else [])],
        rms=0.5,
        draws=DRAWS,
        seed=3,
        control=control,
        points=index,
        more=more,
    )


def _measured(
    subject: Description,
    number: int,
    at: tuple[str, ...],
    points: int,
    jacobian: bool,
    lost: float,
    fault: float,
) -> xr.Dataset:
    # A linear denoiser's errors; a network's are smaller at training images, most at small N.
    rng = np.random.default_rng([7, number])
    shape = (len(at), len(LEVELS), points, DRAWS, len(COUNTS))
    kept = (VARIANCES / (VARIANCES + LEVELS[:, None] ** 2))[:, None, None, :]
    own = 1.0 - lost / (subject.num_samples or 8) if subject.kind in NETWORKS else 1.0
    factor = np.array([own if kind == "training" else 1.0 for kind in at])[
        :, None, None, None, None
    ]
    shared = np.random.default_rng(1).normal(size=shape)  # the same noise for every denoiser
    error = np.sqrt(kept * np.array(COUNTS)) * factor * shared
    diagonal = (kept * np.array(COUNTS) * factor)[:, :, :, 0] + 0.01 * rng.normal(
        size=(len(at), len(LEVELS), points, len(COUNTS))
    )
    dims = ("at", "sigma", "point", "direction")
    if subject.num_samples and "training" in at:
        error[at.index("training"), :, subject.num_samples :] = np.nan
        diagonal[at.index("training"), :, subject.num_samples :] = np.nan
    arrays = {
        "error": (("at", "sigma", "point", "draw", "direction"), error.astype(np.float32)),
        "forward_diagonal": (dims, diagonal.astype(np.float32)),
    }
    if jacobian:
        noise = 0.05 * rng.normal(size=diagonal.shape)
        arrays["diagonal"] = (dims, (diagonal + noise + fault).astype(np.float32))
    return xr.Dataset(arrays, coords={"at": list(at)})


def _local(
    subject: Description, methods: tuple[str, ...], at: tuple[str, ...], points: int
) -> xr.Dataset:
    """At level k image i keeps 5 - k + i % 2; none has a gap at the last, odd ones at the first."""
    i, k = np.arange(points), np.arange(len(LEVELS))[:, None]
    values = np.where(i < 6, 5.0 - k + i % 2, np.nan)
    values[0, 1::2], values[-1] = np.nan, np.nan
    shape = (len(methods), len(at), *values.shape)
    dims = ("dimension_method", "at", "sigma", "point")
    made = np.broadcast_to(values, shape).astype(np.float32).copy()
    made += np.arange(len(methods), dtype=np.float32)[:, None, None, None]
    if "training" in at:
        made[:, at.index("training")] -= subject.seed or 0
    reasons = np.where(np.isnan(made) & (i < 6), "no gap", "").astype(object)
    return xr.Dataset(
        {
            "local_dimension": (dims, made),
            "local_dimension_stderr": (dims, 0 * made),
            "no_gap": (dims, reasons),
        },
        coords={"at": list(at), "dimension_method": list(methods)},
    )


def _entropy(subject: Description, points: int) -> xr.Dataset:
    n = subject.num_samples or 1
    values = np.log(n) * np.linspace(0, 0.9, len(LEVELS))[:, None, None]
    spread = 1 + 0.01 * np.arange(points)[:, None]
    entropy = np.broadcast_to(values * spread, (len(LEVELS), points, DRAWS)).copy()
    entropy[:, n:] = np.nan
    return xr.Dataset({"entropy": (("sigma", "point", "draw"), entropy)})


def _axes(item: tuple[int, ...]) -> list[str]:
    return [f"axis_{k}" for k in range(len(item))]


def _pictures(item: tuple[int, ...], points: int, images: bool) -> xr.Dataset:
    rng = np.random.default_rng(2)
    singles = COUNTS.count(1)
    made = xr.Dataset({"vector": (("single", *_axes(item)), rng.normal(size=(singles, *item)))})
    if images:
        pixels = rng.uniform(-1, 1, size=(points, *item)).astype(np.float32)
        made["training_image"] = (("training_point", *_axes(item)), pixels)
    return made


def _samples(count: int, item: tuple[int, ...], calibrated: bool, images: bool) -> xr.Dataset:
    rng = np.random.default_rng(4)
    p = np.linspace(0.004, 0.9, count) if calibrated else np.full(count, np.nan)
    unseen = np.linspace(0.005, 1, 20) if calibrated else np.full(20, np.nan)
    made = xr.Dataset(
        {
            "sample_ratio": ("sample", np.linspace(0.02, 0.99, count)),
            "sample_distance": ("sample", rng.uniform(1, 2, count)),
            "sample_nearest": ("sample", np.arange(count)),
            "sample_p_value": ("sample", p),
            "unseen_p_value": ("unseen", unseen),
            "sibling_ratio": ("sample", np.linspace(0.9, 0.1, count)),
            "sibling": ("sample", np.arange(count)[::-1]),
            "sibling_p_value": ("sample", p[::-1]),  # the first is a copy, the last is spurious
            "unseen_sibling_p_value": ("unseen", unseen),
            "sample_image": (("gallery", *_axes(item)), rng.uniform(-1, 1, (count, *item))),
        }
    )
    if images:
        made["nearest_image"] = made.sample_image * 0.9
    return made


def write_session(run: Path) -> None:
    session = {
        "command": "geomem sweep <b>--data</b>",
        "started": "2026-01-01T00:00:00Z",
        "seconds": 65.0,
        "device": "cpu",
        "versions": {"geomem": "0.1.0"},
        "python": "3.11",
        "machine": "Linux",
    }
    (run / "provenance").mkdir()
    (run / "provenance" / "20260101T000000Z-0.json").write_text(json.dumps(session))
