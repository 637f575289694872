r"""What the experiments on images share: which sets, the trainings on them, and what is there.

One sweep a set serves all of them: small U-Nets of equal steps on nested subsets, looked at on
the way, beside a reference network that never saw the measured images. Sets of one's own are
taken by their path; their sizes follow from how many images there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geomem.data.source import DataOptions, load_images, load_source
from geomem.errors import InputError
from geomem.experiments.experiment import Runs, Scale, networks_left
from geomem.runs.load import load
from geomem.runs.sweep import Sweep

SETS = ("fashion-mnist", "mnist", "olivetti", "cifar10")
# Side of the pictures, and sizes N, where many networks are wanted on two cores.
SMALL: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "fashion-mnist": (14, (30, 100, 300, 1000, 3000)),
    "mnist": (14, (30, 100, 300, 1000)),
    "olivetti": (16, (30, 100, 200)),
    "cifar10": (16, (30, 100, 300, 1000)),
}
SIDE = 16  # of the pictures of other sets
USUAL = (30, 100, 300, 1000)
LONG = (30, 100, 300, 1000, 3000, 10_000, 30_000)
BATCH = {"cpu": 32, "gpu": 128}
LIMITS = (
    "U-Nets of .26 million parameters, pictures of 14 x 14 or 16 x 16 pixels and 2,000 steps of "
    "32, two trainings each: at the largest N an image has been seen 21 to 64 times, where the "
    "paper's has been seen thousands of times. What larger networks, full pictures or longer "
    "training would lose is not seen here. `--scale gpu` trains 100,000 steps of 128 on full "
    "pictures."
)
# Where noise is, in rms of the data, called small and large: fixed before any of it was seen.
SMALL_NOISE, LARGE_NOISE = 0.2, 0.5
LEVEL = 0.3  # rms, where the digits lose most
GROUPS = {"1 to 4": slice(0, 4), "5 to 16": slice(4, 16), "17 to 64": slice(16, 64)}
WHOLE = {"all": slice(None)}


def sweep_of(data: str, scale: Scale) -> Sweep:
    r"""The trainings on one set of images, frozen.

    Arguments:
        data: A name, or a path as ``geomem sweep --data`` takes it.
        scale: ``cpu``, or full pictures for 100,000 steps.

    Raises:
        InputError: If the set has too few images for two sizes.
    """
    long, known = scale == "gpu", data in SMALL
    framing, sizes = _framing(data), SMALL[data][1] if known else USUAL
    if long or not known:
        sizes = _fitting(data, LONG if long else USUAL)
    if long and known:
        framing = {}
    return Sweep(
        data,
        **framing,
        sizes=sizes,
        steps=100_000 if long else 2000,
        measured_steps=(6000, 25_000, 50_000) if long else (500, 1000),
        batch_size=BATCH[scale],
        learning_rate=1e-4 if long else 1e-3,
        seeds=(0, 1),
        network="unet",
        channels=(128, 256, 256) if long else (16, 32, 32),
        levels=10,
        jacobian_points=2,
        samples=1024 if long else 128,
        trajectories=0,
    )


def _framing(data: str) -> dict[str, Any]:
    # Floats are taken as they are: only pictures of 8 bits are resized.
    if data in SMALL:
        return {"size": SMALL[data][0]}
    array = re.sub(r":\w+$", "", data).endswith((".npy", ".npz"))
    if array and load_images(DataOptions(data)).pixels.dtype != np.uint8:
        return {}
    return {"size": SIDE, "crop": "center"}


@cache
def _fitting(data: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    # Half of the pool at most: the reference is trained on the rest.
    source = load_source(DataOptions(data, **_framing(data)))
    most = len(source.split.pool) // 2
    found = tuple(n for n in sizes if n <= most)
    if len(found) < 2:
        raise InputError(
            f"`data` has {data}, whose pool of {len(source.split.pool)} images is too small for "
            f"networks on {sizes[0]} and {sizes[1]}; pass a set of at least {2 * sizes[1]} images "
            "beside those that are held out and reserved"
        )
    return found


def full_of(data: str) -> Sweep:
    r"""The trainings on full pictures of a set: the small recipe, two sizes, one seed.

    Arguments:
        data: One of :data:`SETS`.
    """
    whole = sweep_of(data, "cpu")
    few, many = 100, 200 if data == "olivetti" else 1000
    return replace(whole, size=None, sizes=(few, many), measured_steps=(), seeds=(0,))


def folder_of(data: str) -> str:
    r"""The name of a set's run folder.

    Example:
        >>> folder_of("cifar10"), folder_of("/data/My Faces/train.npy:images")
        ('images-cifar10', 'images-train')
    """
    stem = Path(re.sub(r":\w+$", "", data)).stem
    return "images-" + (re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "own")


def trainings(sets: Iterable[str], scale: Scale) -> Runs:
    r"""The sweeps of these sets, by the name of their folder."""
    return {folder_of(data): sweep_of(data, scale) for data in sets}


def finished(
    out: Path, sets: Iterable[str], scale: Scale, *, least: int = 1
) -> dict[str, xr.Dataset]:
    r"""The records of each set that can be judged: control and last step of two sizes.

    Raises:
        InputError: If there are fewer sets than at least.
    """
    found = {}
    for data in sets:
        path = out / folder_of(data)
        if not (path / "config.json").exists():
            continue
        dataset = load(path)
        last = sweep_of(data, scale).training.steps
        measured = dataset.measured.values
        kinds, control = dataset["kind"].values, dataset.attrs["control"]
        there = measured & (kinds == "learned") & (dataset.step.values == last)
        sizes = {float(n) for n in dataset.num_samples.values[there]}
        if len(sizes) > 1 and (measured & (kinds == control)).any():
            found[data] = dataset
    if len(found) < least:
        raise InputError(
            f"in {out} no set of images has networks of two sizes yet ({', '.join(sets)}); run "
            "the same command again, and let it finish"
        )
    return found


def missing(out: Path, sets: Iterable[str], scale: Scale) -> list[str]:
    r"""A sentence for each set of which networks are missing: a page says so."""
    said = []
    for data in sets:
        path = out / folder_of(data)
        if not (path / "config.json").exists():
            said.append(f"Nothing is there yet of {data}; the same command goes on.")
            continue
        left, learned = networks_left(path)
        if left:
            said.append(
                f"On {data} {left} of {learned} networks are not there yet; the same command "
                "goes on."
            )
    return said


def ran(found: Mapping[str, xr.Dataset], scale: Scale) -> list[str]:
    r"""What was run, in sentences."""
    said = []
    for data, dataset in found.items():
        sweep = sweep_of(data, scale)
        last = sweep.training.steps
        there = (
            dataset.measured.values
            & (dataset["kind"].values == "learned")
            & (dataset.step.values == last)
        )
        sizes = dataset.num_samples.values[there]
        counts = ", ".join(f"{int(n):,} ({int((sizes == n).sum())})" for n in sorted({*sizes}))
        side = f" at {sweep.size} x {sweep.size}" if sweep.size else ""
        beside = f"beside the {dataset.attrs['control']} control"
        said.append(f"{data}{side}: N = {counts}, {beside}.")
    if not found:
        return []
    sweep = sweep_of(next(iter(found)), scale)
    channels = ", ".join(map(str, sweep.channels))
    return [
        "Nested subsets and, in brackets, how many trainings each. " + " ".join(said),
        f"U-Nets with {channels} channels, EDM's loss and preconditioning, Adam at "
        f"{sweep.learning_rate:g} falling to 0 in the second half, {sweep.training.steps:,} steps "
        f"of {sweep.training.batch_size} whatever N, looked at after "
        f"{' and '.join(f'{s:,}' for s in sweep.measured_steps)} steps, too; {sweep.points} "
        f"training and {sweep.points} held-out images, {sweep.levels} levels. ± is over images "
        "and trainings together.",
    ]


def groups_of(dataset: xr.Dataset) -> dict[str, slice]:
    r"""The groups of single directions; of sets that span fewer, the last one ends with them."""
    counts = dataset.direction_count.values
    singles = int(np.argmax(counts > 1)) if (counts > 1).any() else len(counts)
    return {name: slice(part.start, min(part.stop, singles)) for name, part in GROUPS.items()}


def stretches(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    r"""The levels that are called small and large noise, by their places."""
    relative = dataset.sigma_relative.values
    return {
        "small": np.flatnonzero(relative <= SMALL_NOISE),
        "large": np.flatnonzero(relative >= LARGE_NOISE),
    }


def networks(data: str, known: xr.Dataset) -> dict[str, np.ndarray]:
    r"""The rows of each kind of network of a set: by its width, where there are several."""
    widths = known.width.values
    if np.isnan(widths).all():
        return {data: np.arange(len(widths))}
    return {
        f"{data}, width {int(w)}": np.flatnonzero(widths == w)
        for w in np.unique(widths[~np.isnan(widths)])
    }


def sizes_axis(ax: Any, sizes: Iterable[int]) -> None:
    r"""A logarithmic axis that names the sizes themselves: few as they are, no power of ten is."""
    known = sorted({int(n) for n in sizes})
    ax.set_xscale("log")
    ax.set_xticks(known, [f"{n:,}" for n in known])
    ax.set_xticks([], minor=True)
