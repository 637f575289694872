r"""Splits: which part each image plays, decided before anything is trained.

The *pool* is what training sets are drawn from; *held-out* images are compared with it;
*reserved* images, never measured, give the principal directions, the unit of noise and the
linear control. Exact duplicates and declared groups stay together, and a part is stratified by
label.

Training sets are nested: one seed is one order of the pool, and N images are its first N. A
difference between N = 50 and N = 500 is then never a difference between two draws.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from geomem.arguments import Number, Whole, check, checked, shown
from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Forecast
from geomem.data.images import ImageData, codes, duplicate_groups
from geomem.data.reading import IntArray, printable, whole_numbers
from geomem.errors import InputError
from geomem.stats import numpy_rng

SPLIT_VERSION = 1
PARTS = ("pool", "held_out", "reserved")
DIGEST = re.compile("[0-9a-f]{64}")
DIGITS_COUNTS = (250, 250)  # of 1,797; leaves 1,297 in the pool


@checked
@dataclass(frozen=True, eq=False)
class Split:
    r"""Which images may be trained on, which are compared, and which are set aside.

    Attributes:
        pool: The numbers of the images that training sets are drawn from.
        held_out: Those of the images that are measured beside the training images.
        reserved: Those of the images that are never measured.
        seed: The seed of the draw.
        left_out: How many images of the data are in no part.

    Raises:
        InputError: If an image is in two parts.
    """

    pool: IntArray
    held_out: IntArray
    reserved: IntArray
    seed: Annotated[int, Whole(least=0)]
    left_out: Annotated[int, Whole(least=0)] = 0

    def __post_init__(self) -> None:
        parts = [whole_numbers(part, getattr(self, part)) for part in PARTS]
        if len(np.unique(np.concatenate(parts))) < sum(map(len, parts)):
            raise InputError("an image is in two parts, or twice in one; pass each number once")

    def digest(self, data: ImageData) -> str:
        r"""The sha256 over the digests of the images of each part, in order, and the seed."""
        return hashlib.sha256(split_text(self, data).encode()).hexdigest()

    def __repr__(self) -> str:
        parts = f"{len(self.pool):,} pool, {len(self.held_out):,} held out"
        return f"{parts}, {len(self.reserved):,} reserved"


@checked
def make_split(
    data: ImageData,
    *,
    held_out: Annotated[float, Number(least=0, below=1)] = 0.15,
    reserved: Annotated[float, Number(least=0, below=1)] = 0.15,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> Split:
    r"""Draws a split, stratified by label, with groups and exact duplicates kept together.

    Every label gives each part its share of images, rounded up or down, where groups do not
    forbid it. A group draws its part with the probability of the seats that are left there,
    among parts where all of it fits, so that duplicates are as likely held out as others.

    Arguments:
        data: The images.
        held_out: The share of images to hold out, of all.
        reserved: The share of images to reserve, of all.
        seed: The seed of the draw.

    Raises:
        InputError: If a share is not in [0, 1), or a part that was asked for stays empty.

    Example:
        >>> from geomem.data import load_data
        >>> make_split(load_data("digits"), held_out=0.1, reserved=0.2)
        1,258 pool, 180 held out, 359 reserved
    """
    if held_out + reserved >= 1:
        raise InputError(
            f"`held_out` {held_out:g} and `reserved` {reserved:g} must be together less than 1; "
            "0.15 and 0.15 are usual"
        )
    shares = (held_out, reserved)
    counts = [max(1, round(share * len(data))) if share > 0 else 0 for share in shares]
    return _draw_split(data, (counts[0], counts[1]), seed)


@checked
def default_split(data: ImageData, seed: Annotated[int, Whole(least=0)] = 0) -> Split:
    r"""The split where none is given.

    The digits: 1,297 in the pool, 250 held out, 250 reserved. Where there is an official test
    part, the pool is the official training part, and the test part is halved (without images
    that share a group with a training image). Otherwise 15 % are held out and 15 % reserved.
    """
    if data.num_train is None:
        if data.name == "digits" and len(data) == 1297 + sum(DIGITS_COUNTS):
            return _draw_split(data, DIGITS_COUNTS, seed)
        return make_split(data, seed=seed)
    train, groups = data.num_train, duplicate_groups(data)
    test = train + np.flatnonzero(~np.isin(groups[train:], groups[:train]))
    if len(test) < 2:
        raise InputError(
            f"only {len(test)} test images of {data.name} share no group with a training image; "
            "make a split of all images with `geomem split`"
        )
    half = len(test) // 2
    parts = _draw_parts(_strata(data)[test], groups[test], (0, len(test) - half, half), seed)
    left_out = len(data) - train - len(test)
    return Split(np.arange(train), test[parts == 1], test[parts == 2], seed, left_out)


def _draw_split(data: ImageData, counts: tuple[int, int], seed: int) -> Split:
    pool = len(data) - sum(counts)
    if pool < 2:
        raise InputError(
            f"{data.name} holds {len(data)} images, too few to hold out {counts[0]}, to reserve "
            f"{counts[1]} and to keep 2 to train on; get more images or lower the shares"
        )
    parts = _draw_parts(_strata(data), duplicate_groups(data), (pool, *counts), seed)
    pooled, held, kept = (np.flatnonzero(parts == part) for part in range(3))
    split = Split(pooled, held, kept, seed)
    if len(pooled) < 2 or len(held) < min(1, counts[0]) or len(kept) < min(1, counts[1]):
        raise InputError(
            f"the groups of {data.name} are too large to fill all parts ({split}); "
            "change `held_out` and `reserved`, or check the groups"
        )
    return split


def _strata(data: ImageData) -> IntArray:
    return np.zeros(len(data), np.int64) if data.labels is None else codes(data.labels)


def _draw_parts(
    strata: IntArray, groups: IntArray, counts: tuple[int, int, int], seed: int
) -> IntArray:
    # Large groups first: single images then fill the seats that are left, exactly.
    rng = numpy_rng(seed, "split")
    room = _quotas(np.bincount(strata), counts)
    parts = np.full(len(strata), -1)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    large = [rows for rows in members if len(rows) > 1]
    for i in rng.permutation(len(large)):
        per_stratum = np.bincount(strata[large[i]], minlength=room.shape[1])
        part = _draw_part(room, per_stratum, rng)
        room[part] -= per_stratum
        parts[large[i]] = part
    for stratum in range(room.shape[1]):
        rows = np.flatnonzero((strata == stratum) & (parts < 0))
        seats = np.repeat(np.arange(3), np.maximum(room[:, stratum], 0))
        parts[rows] = rng.permutation(seats)[: len(rows)]
    return parts


def _draw_part(room: IntArray, per_stratum: IntArray, rng: np.random.Generator) -> int:
    left = room.sum(1)
    chance = (np.maximum(room, 0) @ per_stratum) * (left >= per_stratum.sum())
    if not chance.any():
        return int(left.argmax())
    return int(rng.choice(3, p=chance / chance.sum()))


def _quotas(sizes: IntArray, counts: tuple[int, int, int]) -> IntArray:
    r"""Seats of each part in each stratum, with shape (3, S).

    Largest remainders, in integers. Reserved seats go first to the strata that were rounded
    down for the held-out ones.

    Example:
        >>> _quotas(np.array([5, 5, 10]), (14, 3, 3))
        array([[3, 4, 7],
               [1, 1, 1],
               [1, 0, 2]])
    """
    n, (_, held_out, reserved) = sizes.sum(), counts
    floor = held_out * sizes // n
    held = _round_up(floor, held_out, held_out * sizes - floor * n, sizes)
    floor = reserved * sizes // n
    short = (held_out + reserved) * sizes - (held + floor) * n
    kept = _round_up(floor, reserved, short, sizes - held)
    return np.stack([sizes - held - kept, held, kept])


def _round_up(floor: IntArray, total: int, remainder: IntArray, room: IntArray) -> IntArray:
    # One more to the largest remainders until the total is reached, where there is room.
    order = np.lexsort((-remainder, floor + 1 > room))
    quota = floor.copy()
    quota[order[: total - floor.sum()]] += 1
    return quota


@checked
def nested_subsets(
    pool: ArrayLike, sizes: Iterable[int], seed: Annotated[int, Whole(least=0)]
) -> dict[int, IntArray]:
    r"""The training sets: 50 in 500 in 5,000, the first of one order of the pool.

    Exact duplicates in the pool stay as they come, each with a place of its own in the order:
    a training set drawn from such a pool has them too.

    Arguments:
        pool: The numbers of the images to draw from, with shape (P).
        sizes: The sizes N, in any order.
        seed: The seed of the order.

    Returns:
        For each size, from small to large, the numbers of its images in the order drawn.

    Raises:
        InputError: If no size is given, or one is below 2 or above P.

    Example:
        >>> sets = nested_subsets(range(100), [5, 2], seed=0)
        >>> list(sets), set(sets[2]) <= set(sets[5])
        ([2, 5], True)
    """
    images = whole_numbers("pool", pool)
    wanted = sorted({check("sizes", n, Annotated[int, Whole(least=2)]) for n in sizes})
    if not wanted:
        raise InputError("`sizes` is empty; pass at least one number of training images")
    if wanted[-1] > len(images):
        raise InputError(
            f"N = {wanted[-1]} is more than the {len(images)} images of the pool; "
            "lower N, or hold out fewer images"
        )
    order = numpy_rng(seed, "nested subsets").permutation(images)
    return {n: order[:n] for n in wanted}


# ------------------------------------------------------------------------ split files


def split_text(split: Split, data: ImageData) -> str:
    r"""The split as JSON: the digests of the images of each part, one a line."""
    digests = data.digests()
    indices = {part: whole_numbers(part, getattr(split, part), len(data)) for part in PARTS}
    parts = {part: [digests[i] for i in index] for part, index in indices.items()}
    return json.dumps({"version": SPLIT_VERSION, "seed": int(split.seed), **parts}, indent=0) + "\n"


@checked
def write_split(split: Split, data: ImageData, path: Path) -> None:
    r"""Writes a split as a file of digests, whole or not at all.

    It names images by what they look like, so it outlives renaming, reordering and moving.
    """
    atomic_write_text(path, split_text(split, data))


@checked
def read_split(path: Path, data: ImageData) -> Split:
    r"""Finds the images of a split file in the data at hand.

    Every image that the file names must be there. Images of the data that it does not name
    are in no part, and counted in ``left_out``. The order is that of the file.

    Raises:
        InputError: If the file is no split, or an image is missing, or an image or a declared group
            is in two parts.
    """
    where = printable(path)
    try:
        Forecast(0, 5 * path.stat().st_size).check_memory("pass a file of `geomem split`")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{where} cannot be read as a split ({printable(error)}); make one with `geomem split`"
        ) from error
    problem = _schema_problem(content)
    if problem:
        raise InputError(f"{where} {problem}; make a split with `geomem split`")
    parts = [content[part] for part in PARTS]
    named = [set(part) for part in parts]
    twice = (named[0] & named[1]) | (named[0] & named[2]) | (named[1] & named[2])
    if twice:
        raise InputError(
            f"{len(twice)} image(s) are in two parts of {where}, the first of them "
            f"{min(twice)[:12]}...; make the split again with `geomem split`"
        )
    # Of several equal images each is found once, the first one first.
    places: dict[str, deque[int]] = defaultdict(deque)
    for i, digest in enumerate(data.digests()):
        places[digest].append(i)
    found = [
        np.array([places[d].popleft() if places[d] else -1 for d in part], dtype=np.int64)
        for part in parts
    ]
    missing = sum(int((part < 0).sum()) for part in found)
    if missing:
        raise InputError(
            f"{missing} of {sum(map(len, parts)):,} images named in {where} are not in "
            f"{data.name}; pass the data that the split was made from"
        )
    if data.groups is not None:
        groups = [set(data.groups[part].tolist()) for part in found]
        torn = (groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2])
        if torn:
            raise InputError(
                f"{len(torn)} declared group(s) of images are in two parts of {where}; make the "
                "split again with the same groups"
            )
    left_out = len(data) - sum(map(len, found))
    return Split(found[0], found[1], found[2], content["seed"], left_out)


def _schema_problem(content: Any) -> str | None:
    keys = {"version", "seed", *PARTS}
    if not isinstance(content, dict) or "version" not in content:
        return "is no split file"
    if content["version"] != SPLIT_VERSION:
        return f"has version {shown(content['version'])} and this geomem reads {SPLIT_VERSION}"
    if set(content) != keys:
        return f"has the keys {shown(sorted(content))} instead of {sorted(keys)}"
    if type(content["seed"]) is not int or content["seed"] < 0:
        return f"has the seed {shown(content['seed'])}, which is no positive integer"
    for part in PARTS:
        values = content[part]
        texts = isinstance(values, list) and all(isinstance(v, str) for v in values)
        if not texts or not all(DIGEST.fullmatch(v) for v in values):
            return f"has something else than sha256 digests in {part}"
    return None
