r"""What follows from a config before anything is trained: sizes, levels, the study of images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomem.arguments import Whole, checked
from geomem.data.source import Source
from geomem.data.splits import split_text
from geomem.errors import InputError
from geomem.measure.study import Study, make_study
from geomem.noise import log_levels

Size = Annotated[int, Whole(least=2)] | Literal["all"]


def study_of(
    source: Source,
    index: Mapping[str, Sequence[int]],
    *,
    sigmas: NDArray[np.float64],
    probes: Sequence[Any],
    draws: int,
    seed: int,
    more: dict[str, Any],
    control: str = "linear",
    fixed: tuple[Tensor, list[str]] | None = None,
) -> Study:
    r"""A study of images of a source, with all that it rests on by digest.

    Arguments:
        source: The data and their parts.
        index: The numbers of the points of each kind in the data.
        sigmas: The noise levels in the data's units, increasing.
        probes: What is asked.
        draws: Noise draws for each image.
        seed: The seed of the noise.
        more: Further JSON values that belong to the study.
        control: The kind of the subject that others are compared with.
        fixed: Points that belong to nobody's data, with shape (P, \*), and their names.
    """
    data, split = source.data, source.split
    if min(len(split.held_out), len(split.reserved)) < 8:
        raise InputError(
            "fewer than 8 held-out or reserved images say nothing; hold out more of the data"
        )
    points = {at: [int(i) for i in numbers] for at, numbers in index.items()}
    digests = data.digests()
    names = data.files if data.files is not None else [str(i) for i in range(len(data))]
    images = {at: data.tensor(i) for at, i in points.items()}
    own = {} if fixed is None else {"fixed": fixed[0]}
    nobody = {at: [-1] * len(x) for at, x in own.items()}
    named = {} if fixed is None else {"fixed": fixed[1]}
    sums = {at: [_digest(x.numpy().tobytes()) for x in xs] for at, xs in own.items()}
    return make_study(
        images | own,
        directions=source.directions,
        sigmas=torch.from_numpy(sigmas),
        probes=probes,
        rms=source.rms,
        draws=draws,
        seed=seed,
        control=control,
        points=points | nobody,
        source=source,
        more={
            "data": about(source),
            "point_groups": nobody
            | {at: [int(g) for g in source.groups[i]] for at, i in points.items()},
            "point_names": named | {at: [names[k] for k in i] for at, i in points.items()},
            **({} if data.labels is None else _classes(source, points)),
            "point_digests": sums | {at: [digests[k] for k in i] for at, i in points.items()},
            **more,
        },
    )


def about(source: Source) -> dict[str, Any]:
    r"""What a study rests on, by digest: images, split, groups and labels."""
    data, split = source.data, source.split
    return {
        "name": data.name,
        "digest": data.digest,
        "item_shape": list(data.item_shape),
        "ambient_dim": math.prod(data.item_shape),
        "quantum": data.quantum,
        "pool": len(split.pool),
        "held_out": len(split.held_out),
        "reserved": len(split.reserved),
        "left_out": split.left_out,
        "split": _digest(split_text(split, data).encode()),
        "groups": _digest(source.groups.tobytes()),
        "labels": None if data.labels is None else _digest(data.labels.tobytes()),
    }


def _classes(source: Source, points: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    # The class of each point, and how many images and how much variance a class has.
    data, pool = source.data, source.split.pool
    if data.labels is None:
        return {}
    names = [str(c) for c in data.labels] if data.classes is None else data.classes
    label = (lambda i: names[i]) if data.classes is None else (lambda i: names[data.labels[i]])  # type: ignore[index]
    flat = data.tensor(pool).flatten(1).double()
    labels = data.labels[pool]
    about = []
    for c in np.unique(labels):
        mine = flat[torch.from_numpy(labels == c)]
        first = int(pool[np.flatnonzero(labels == c)[0]])
        variance = float((mine - mine.mean(0)).square().mean())
        about.append({"label": str(label(first)), "images": len(mine), "variance": variance})
    return {
        "point_labels": {at: [str(label(i)) for i in index] for at, index in points.items()},
        "classes": about,
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def default_window(source: Source) -> tuple[float, float]:
    r"""The default window of noise levels, in the data's units.

    From the larger of .03 rms and half a quantisation step (below it noise sees the grid of
    grey levels) to where the control's error is below 2 % of its maximum.
    """
    low = max(0.03 * source.rms, source.data.quantum / 2)
    grid = np.geomspace(low, 1e4 * source.rms, 2000)
    control = source.linear_control
    variances = torch.cat([control.variances, torch.full((control.complement,), control.rest)])
    errors = np.array([float((variances / (variances + s**2)).sum()) for s in grid])
    return low, float(grid[errors < 0.02 * errors[0]][0])


def choose_levels(
    source: Source, relative: Sequence[float] | None, count: int, least: int = 2
) -> NDArray[np.float64]:
    r"""The noise levels in the data's units: those asked for, or a grid over the window."""
    if relative is None:
        return log_levels(*default_window(source), count).numpy()
    levels = np.array(sorted(set(relative)), dtype=float)
    if len(levels) < least:
        raise InputError(
            f"`sigmas` is {list(relative)}; pass at least {least} different levels, in units of "
            "the data's rms"
        )
    if not (levels[0] >= 1e-6 and levels[-1] <= 1e6):
        raise InputError(f"`sigmas` is {list(relative)}; pass levels from 1e-6 to 1e6 rms")
    return levels * source.rms


@checked
def choose_sizes(sizes: tuple[Size, ...], pool: int) -> list[int]:
    r"""Training-set sizes, increasing; ``all`` is the whole pool.

    Raises:
        InputError: If one is below 2, or above the pool.
    """
    numbers = sorted({pool if size == "all" else int(size) for size in sizes})
    if numbers[-1] > pool:
        raise InputError(
            f"`sizes` has N = {numbers[-1]}, larger than the pool of {pool} images; pass sizes up "
            f"to {pool}, or `all`"
        )
    return numbers
