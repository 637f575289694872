r"""What a pilot says: what its trainings memorized, the law of it, and what a longer one will.

A function of its records and its study. Beside each network stands the reference of the same
width and step, at the very images that the network was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.errors import InputError
from geomem.findings.law import GROWTH, Ceiling, Law, Share, fit_law, nats_of
from geomem.findings.measured import group_means
from geomem.information import integrate_log
from geomem.models.train import Training

Array = NDArray[np.float64]
TIMES = (0.25, 0.5, 1.0, 2.0, 4.0)  # the planned steps, for which a table is made
MOST = 0.1  # a share that is small enough, unless another is asked for


@dataclass(frozen=True, eq=False)
class Pilot:
    r"""What a pilot knows.

    Attributes:
        law: What is memorized, as a share.
        ceiling: What there is to memorize, in nats.
        cells: What was measured, over ``cell``: ``num_samples, step, width, time, share,
            share_stderr, nats``.
        undertrained: Whether its networks denoise new images worse than the linear control.
    """

    law: Law
    ceiling: Ceiling
    cells: xr.Dataset
    undertrained: bool

    def predict(self, training: Training, num_samples: int, width: float) -> tuple[Share, Share]:
        r"""What a whole training memorizes: as a share, and in nats; with 90 % intervals."""
        time = training.time(training.steps)
        share = self.law.share(time, num_samples, width)
        return share, nats_of(share, self.ceiling.at(time, width))


def pilot_of(dataset: xr.Dataset, study: Mapping[str, Any]) -> Pilot:
    r"""Fits the law to the records of a pilot.

    Arguments:
        dataset: What :func:`geomem.load` returns of it.
        study: The content of its study.

    Raises:
        InputError: If it is not finished.
    """
    done = dataset.isel(subject=np.flatnonzero(dataset["measured"].values))
    if done.sizes["subject"] < dataset.sizes["subject"]:
        raise InputError("the pilot is not finished; run the same command again, and it goes on")
    cells = cells_of(done, study)
    times = np.unique(cells.time.values)
    widths = np.unique(cells.width.values)
    nats = np.array([
        [float(cells.ceiling.values[(cells.width == w) & (cells.time == t)][0]) for t in times]
        for w in widths
    ])  # fmt: skip
    law = fit_law(*(cells[name].values for name in
                    ("time", "num_samples", "width", "share", "share_stderr")))  # fmt: skip
    held_out = _errors(done, "held_out")
    kind, step = done["kind"].values, done["step"].values
    last = (kind == "reference") & (step == np.nanmax(step))
    best = min(float(np.nanmean(held_out[k])) for k in np.flatnonzero(last))
    linear = float(np.nanmean(held_out[np.flatnonzero(kind == "linear")[0]]))
    return Pilot(law, Ceiling(times, widths, nats), cells, best >= linear)


def cells_of(dataset: xr.Dataset, study: Mapping[str, Any]) -> xr.Dataset:
    r"""What each recipe memorized beside its reference, seeds together.

    Arguments:
        dataset: The records, all of them.
        study: The content of the study, whose ``recipe`` holds the time of each step.

    Returns:
        Over ``cell``: ``num_samples, step, width, time``; ``share`` and ``share_stderr`` over
        groups of images, ``nats``, and ``ceiling``, the reference's error at all images (nats).
    """
    errors = _errors(dataset, "training")
    groups = dataset.point_group.sel(at="training").values
    known = {name: dataset[name].values for name in ("num_samples", "step", "width")}
    known["width"] = np.nan_to_num(known["width"], nan=1.0)  # a U-Net has none to compare
    places: dict[tuple[int, int, int], list[int]] = {}
    beside: dict[tuple[int, int], int] = {}
    for k, kind in enumerate(dataset["kind"].values):
        if kind == "reference":
            beside[int(known["width"][k]), int(known["step"][k])] = k
        elif kind == "learned":
            key = tuple(int(known[name][k]) for name in ("num_samples", "width", "step"))
            places.setdefault(key, []).append(k)  # type: ignore[arg-type]
    rows = []
    for (n, width, step), members in sorted(places.items()):
        reference = errors[beside[width, step]]
        own = np.mean([errors[k] for k in members], axis=0)
        there = np.isfinite(own)
        pairs = group_means(np.stack([own, reference], axis=1)[there], groups[there])
        mine, theirs = pairs.mean(0)
        off = (pairs[:, 0] - mine / theirs * pairs[:, 1]) / theirs
        error = float(off.std(ddof=1) / math.sqrt(len(off)))
        time = study["recipe"]["times"][str(step)]
        ceiling = float(np.nanmean(reference))
        rows.append((n, step, width, time, 1 - mine / theirs, error, theirs - mine, ceiling))
    names = "num_samples step width time share share_stderr nats ceiling".split()
    columns = zip(*rows, strict=True)
    return xr.Dataset({k: ("cell", np.array(v)) for k, v in zip(names, columns, strict=True)})


def _errors(dataset: xr.Dataset, at: str) -> Array:
    # Squared errors over the window, in nats, of each subject and image; NaN if not measured.
    error = dataset.error.sel(at=at).transpose("subject", "point", "sigma", "direction", "draw")
    squares = np.square(error.values.astype(float)).mean(-1).sum(-1)
    return np.asarray(integrate_log(squares, dataset.sigma.values, axis=2))


def pilot_document(
    pilot: Pilot, recipe: Mapping[str, Any], sizes: Sequence[int], most: float = MOST
) -> dict[str, Any]:
    r"""What a pilot predicts, as plain JSON values.

    Arguments:
        pilot: What it knows.
        recipe: What its study says of the trainings.
        sizes: The numbers of images asked for.
        most: The share that is small enough.
    """
    planned = Training(recipe["planned_steps"], recipe["batch_size"], recipe["learning_rate"])
    widths = [float(w) for w in pilot.ceiling.widths]
    rows = []
    for width in widths:
        for n in sizes:
            for factor in TIMES:
                steps = max(1, round(factor * planned.steps))
                training = Training(steps, planned.batch_size, planned.learning_rate)
                share, nats = pilot.predict(training, n, width)
                rows.append({
                    "num_samples": n, "steps": steps, "width": None if widths == [1.0] else width,
                    "epochs": steps * planned.batch_size / n,
                    "share": asdict(share), "nats": asdict(nats),
                })  # fmt: skip
    law = pilot.law
    cells = {str(k): v.values.tolist() for k, v in pilot.cells.data_vars.items()}
    return {
        "recipe": dict(recipe),
        "undertrained": pilot.undertrained,
        "most": most,
        "law": {
            "p": [law.power, float(np.sqrt(law.covariance[-1, -1]))],
            "times": law.times.tolist(),
            "widths": law.widths.tolist(),
            "log_k": law.log_k.tolist(),
            "log_k_stderr": np.sqrt(np.diag(law.covariance)[:-1]).reshape(law.log_k.shape).tolist(),
            "growth": list(GROWTH),
            "drift": law.drift,
            "left": law.left,
        },
        "trainings": cells,
        "predictions": rows,
        "answer": _answer(pilot, planned, max(sizes), widths[-1], most),
    }


def _answer(
    pilot: Pilot, planned: Training, num_samples: int, width: float, most: float
) -> dict[str, Any]:
    # Of the largest size and the widest network: what comes, and what would be enough.
    time = planned.time(planned.steps)
    share, nats = pilot.predict(planned, num_samples, width)
    enough = pilot.law.enough(most, time=time, width=width)
    until = pilot.law.until(most, num_samples=num_samples, width=width)
    # A whole training of other length: its time is the same part of its steps.
    steps = [None if t is None else t * planned.steps / time for t in until]
    ends = ("value", "low", "high")
    return {
        "num_samples": num_samples,
        "steps": planned.steps,
        "width": None if width == 1.0 else width,
        "share": asdict(share),
        "nats": asdict(nats),
        "half": math.exp(pilot.law.images(time, width)[0]),
        "enough": dict(zip(ends, enough, strict=True)),
        "stop": dict(zip(ends, steps, strict=True)),
    }
