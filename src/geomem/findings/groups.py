r"""Groups of directions: what each has lost, with the error over images and trainings together.

The numbers of a run take either images or trainings for the unit. Two trainings say little of
how much trainings differ, and nothing of how much images do, so experiments add both:

.. math:: s^2 = s^2_{\text{images}}(\text{mean over trainings}) + s^2_{\text{trainings}} / n

Images are resampled once for all trainings, groups and levels, so that differences between
groups are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geomem.findings.measured import Measured
from geomem.findings.rows import Row, row_coordinates, rows_of
from geomem.information import integrate_log

Array = NDArray[np.float64]
LEAST = 0.05  # of the noise, what the control has of a direction: below it a share means nothing

# Dims and units of what is estimated; all but these of the difference are by group.
QUANTITIES: dict[str, tuple[tuple[str, ...], str]] = {
    "share": (("group", "sigma"), "1"),
    "density": (("group", "sigma"), "nats per e-fold of noise"),
    "control": (("group", "sigma"), "nats per e-fold of noise"),
    "whole_share": (("group",), "1"),
    "nats": (("group",), "nats"),
    "difference": (("sigma",), "1"),
    "whole_difference": ((), "1"),
    "nats_difference": ((), "nats per direction"),
    "training_dimension": (("group", "sigma"), "directions"),
    "held_out_dimension": (("group", "sigma"), "directions"),
}


def group_numbers(
    dataset: xr.Dataset,
    groups: Mapping[str, slice],
    *,
    kinds: Sequence[str] = ("learned",),
    replicates: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    r"""Shares, nats and dimension kept of groups of directions, by row of a run.

    Arguments:
        dataset: What :func:`geomem.load` returns, of a run with a control.
        groups: Entries of ``direction`` by the name of their group, the highest variance first.
        kinds: The kinds of subjects.
        replicates: How many resamplings of the images.
        seed: Their seed.

    Returns:
        Over ``subject``, with what is known of each row: ``share`` (group, sigma) of the
        control's error at training images that is gone, and ``density``, the same in nats per
        e-fold, of ``control``; over the window ``whole_share`` and ``nats`` (group);
        ``training_dimension`` and ``held_out_dimension`` (group, sigma), traces of the
        Jacobian; ``difference`` (sigma), the share of the first group minus that of the last,
        over the window ``whole_difference``, and ``nats_difference``, of nats per direction. Each
        with ``_stderr``. A share is NaN
        where the control's error is below .05 a direction, and below 1 in all.
    """
    rows = rows_of(dataset)
    run = Measured(dataset, rows, replicates, seed)
    counts = np.array(
        [dataset.direction_count.values[entries].sum() for entries in groups.values()], float
    )
    chosen = [row for row in rows if row.kind in kinds]
    found: dict[str, list[tuple[Array, Array]]] = {name: [] for name in QUANTITIES}
    for row in chosen:
        each = [_of_training(run, row, member, groups, counts) for member in row.members]
        for name in QUANTITIES:
            found[name].append(with_error(np.stack([one[name] for one in each])))
    columns: dict[str, Any] = {}
    for name, (dims, units) in QUANTITIES.items():
        if found[name]:
            for k, suffix in enumerate(("", "_stderr")):
                values = np.stack([pair[k] for pair in found[name]])
                columns[name + suffix] = (("subject", *dims), values, {"units": units})
    coords = {"group": list(groups), "group_count": ("group", counts)}
    levels = {k: dataset[k] for k in ("sigma", "sigma_relative")}
    return xr.Dataset(columns, {**coords, **levels, **row_coordinates(chosen)})


def with_error(values: Array) -> tuple[Array, Array]:
    r"""Mean over trainings of the sample itself, and its error over images and trainings.

    Arguments:
        values: By training and resampling, the sample itself first, with shape (n, 1 + R, \*).

    Returns:
        Mean and standard error, each with shape (\*).

    Example:
        >>> one = np.array([[[1.0], [0.9], [1.1]], [[3.0], [2.9], [3.1]]])
        >>> mean, error = with_error(one)
        >>> mean, error.round(3)
        (array([2.]), array([1.005]))
    """
    trainings = len(values)
    together = values.mean(0)
    square = np.square(together[1:] - together[0]).mean(0)
    if trainings > 1:
        square = square + values[:, 0].var(0, ddof=1) / trainings
    return together[0], np.sqrt(square)


def _of_training(
    run: Measured, row: Row, member: int, groups: Mapping[str, slice], counts: Array
) -> dict[str, Array]:
    # All quantities of one training, resampled, with shape (1 + R, *).
    shape = (run.replicates + 1, len(groups), len(run.sigmas))
    blank = np.full(shape, np.nan)
    pair = run.densities(member, row, run.main)
    them, own = blank, blank
    if pair is not None:
        them, own = (_by_group(part, groups) for part in pair)
    lost = them - own
    # The sample itself decides; of many directions together one is enough.
    known = them[:1] >= np.minimum(LEAST * counts, 1.0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(known, lost / them, np.nan)
        nats = integrate_log(lost, run.sigmas, axis=2)
        whole = nats / integrate_log(them, run.sigmas, axis=2)
    each = nats / counts
    found = {
        "share": share,
        "density": lost,
        "control": them,
        "whole_share": whole,
        "nats": nats,
        "difference": share[:, 0] - share[:, -1],
        "whole_difference": whole[:, 0] - whole[:, -1],
        "nats_difference": each[:, 0] - each[:, -1],
    }
    there = "forward_diagonal" in run.dataset
    for at in ("training", "held_out"):
        kept = run.mean_diagonal(member, row, at) if there and at in run.kinds else None
        found[f"{at}_dimension"] = blank if kept is None else _by_group(kept, groups)
    return found


def _by_group(values: Array, groups: Mapping[str, slice]) -> Array:
    # (R, T, u) to (R, group, T).
    return np.stack([values[:, :, entries].sum(2) for entries in groups.values()], axis=1)
