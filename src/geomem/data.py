r"""The data: one checked array of images, their names, and which part each of them plays.

Three parts are fixed before anything is trained. The *pool* is what training sets are drawn
from; *held-out* images are compared with it; *reserved* images, never measured, give the
principal directions, the unit of noise and the linear control. If a training image had a twin
among the held-out ones, its memory would count as generalization. Exact duplicates and declared
groups (the pictures of one person) therefore stay together, and a part is stratified by label.

Training sets are nested: one seed is one order of the pool, and N images are its first N. A
difference between N = 50 and N = 500 is then never a difference between two draws.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import ArrayLike
from torch import Tensor

from geomem.errors import InputError
from geomem.loaders import Decoded, IntArray, PixelArray, as_pixels, decode, read_table
from geomem.stats import numpy_rng
from geomem.work import atomic_write_text

__all__ = [
    "ImageData",
    "Split",
    "SplitCommand",
    "default_split",
    "duplicate_groups",
    "load_data",
    "make_split",
    "nested_subsets",
    "read_split",
    "write_split",
]

SPLIT_VERSION = 1
DIGEST = re.compile("[0-9a-f]{64}")
DIGITS_COUNTS = (250, 250)  # of 1,797; leaves 1,297 in the pool


# ----------------------------------------------------------------------- checked data


@dataclass(frozen=True, eq=False)
class ImageData:
    r"""A checked array of images, or of vectors, with their names.

    Raw values become floats as ``x / scale + offset``: 8-bit images as x/127.5 - 1, the
    17 grey levels of the digits as x/8 - 1, float arrays as they are.

    Attributes:
        name: What to call the set.
        pixels: The raw values: uint8 with shape (N, C, H, W), or float32 with shape (N, *).
        scale: The divisor of the raw values.
        offset: What is added then.
        labels: The class of each image, with shape (N), if known.
        groups: The subject of each image, with shape (N), if known: same number, same subject.
        files: The relative path of each image, for folders.
        num_train: How many images, from the first on, are the official training part; the
            rest is the official test part. None where there is no official split.

    Raises:
        InputError: For fewer than two images, NaN or infinity, images that are all equal, or
            labels, groups and files of another number.

    Example:
        >>> data = ImageData.of("line", [[0.0], [1.0], [4.0]])
        >>> data.tensor([2, 0])
        tensor([[4.],
                [0.]])
    """

    name: str
    pixels: PixelArray
    scale: float = 1.0
    offset: float = 0.0
    labels: IntArray | None = None
    groups: IntArray | None = None
    files: tuple[str, ...] | None = None
    num_train: int | None = None

    def __post_init__(self) -> None:
        _check_pixels(self.name, self.pixels)
        for what in ("labels", "groups", "files"):
            values = getattr(self, what)
            if values is not None and np.shape(values) != (len(self.pixels),):
                raise InputError(
                    f"{self.name} has {len(self.pixels)} images and {what} of shape "
                    f"{np.shape(values)}; pass one for each image"
                )

    @staticmethod
    def of(
        name: str,
        array: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> ImageData:
        r"""Takes an array at hand, by the rules for files: see :func:`geomem.loaders.as_pixels`."""
        pixels = as_pixels(np.asarray(array), name)
        return _from_decoded(name, Decoded(pixels, _maybe_ints(labels), _maybe_ints(groups)))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def item_shape(self) -> tuple[int, ...]:
        r"""The shape of one image, (C, H, W), or of one vector."""
        return tuple(self.pixels.shape[1:])

    @property
    def quantum(self) -> float:
        r"""Distance of two adjacent grey levels in float units; 0 for float arrays.

        Noise far below it sees the grid of grey levels and not the images.
        """
        return 1 / self.scale if self.pixels.dtype == np.uint8 else 0.0

    def tensor(self, indices: ArrayLike | Tensor) -> Tensor:
        r"""Images as floats, with shape (len(indices), \*), in the order of the indices."""
        raw = self.pixels[np.asarray(indices, dtype=np.int64)].astype(np.float32)
        return torch.from_numpy(raw / np.float32(self.scale) + np.float32(self.offset))

    def digests(self) -> list[str]:
        r"""The sha256 of each image, over its type, shape and raw values.

        That is of ``"uint8 1x28x28\n"`` followed by the bytes in C order (floats little-endian),
        so that a digest names an image wherever it is stored and whatever it is called.
        """
        return list(self._digests)

    @cached_property
    def _digests(self) -> tuple[str, ...]:
        shape = "x".join(map(str, self.item_shape))
        head = hashlib.sha256(f"{self.pixels.dtype.name} {shape}\n".encode())
        portable = self.pixels.dtype.newbyteorder("<")
        return tuple(_digest(head, row.astype(portable).tobytes()) for row in self.pixels)

    @cached_property
    def digest(self) -> str:
        r"""The sha256 of the whole set; another order is another digest."""
        return hashlib.sha256("\n".join(self._digests).encode()).hexdigest()


def _maybe_ints(values: ArrayLike | None) -> IntArray | None:
    return None if values is None else np.asarray(values, np.int64)


def _digest(head: Any, content: bytes) -> str:
    state = head.copy()
    state.update(content)
    return str(state.hexdigest())


def _check_pixels(name: str, pixels: PixelArray) -> None:
    if pixels.dtype not in (np.uint8, np.float32) or pixels.ndim < 2:
        raise InputError(
            f"{name} has type {pixels.dtype} and shape {pixels.shape}; "
            "pass it through ImageData.of, which converts it"
        )
    if len(pixels) < 2:
        raise InputError(f"{name} holds {len(pixels)} image(s); at least 2 are needed")
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(pixels))[0])
        raise InputError(
            f"{name} holds NaN or infinity (in float32), first in image {where[0]} at index "
            f"{where}; remove these images or repair them"
        )
    if (pixels == pixels[0]).all():
        raise InputError(
            f"all {len(pixels)} images of {name} are equal, so there is no variation to measure; "
            "check what was saved"
        )


def load_data(spec: str, *, labels: Path | None = None, groups: Path | None = None) -> ImageData:
    r"""Loads a set of images by name or from a path.

    Arguments:
        spec: One of digits, mnist, fashion-mnist, cifar10, olivetti, or ``PATH[:key]`` of an
            .npy, .npz, idx or idx.gz file or a folder of images.
        labels: A CSV file with header ``file,value``: the class of each image, to stratify by.
            The first column is a path relative to the folder, or the number in the array.
        groups: Likewise: images with the same value show the same subject.

    Raises:
        InputError: If anything in it cannot be used as it is.

    Example:
        >>> digits = load_data("digits")
        >>> len(digits), digits.item_shape, digits.quantum
        (1797, (1, 8, 8), 0.125)
    """
    data = _from_decoded(*decode(spec))
    files = data.files or [str(i) for i in range(len(data))]
    if labels is not None:
        data = replace(data, labels=read_table(labels, files))
    if groups is not None:
        data = replace(data, groups=read_table(groups, files))
    return data


def _from_decoded(name: str, raw: Decoded) -> ImageData:
    is_image = raw.pixels.dtype == np.uint8
    return ImageData(
        name,
        raw.pixels,
        scale=raw.levels / 2 if is_image else 1.0,
        offset=-1.0 if is_image else 0.0,
        labels=raw.labels,
        groups=raw.groups,
        files=raw.files,
        num_train=raw.num_train,
    )


def duplicate_groups(data: ImageData) -> IntArray:
    r"""Numbers the groups of images that must not be torn apart.

    Two images belong together if they are exact duplicates, if they are declared to be of one
    group, or if a chain of such pairs joins them.

    Returns:
        The number of each image's group, with shape (N), in the order of first appearance.

    Example:
        >>> pairs = ImageData.of("x", [[0.0], [1.0], [0.0], [3.0]], groups=[0, 1, 2, 2])
        >>> duplicate_groups(pairs).tolist()
        [0, 1, 0, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # A graph with one node per image and one per digest (or group) that it is tied to.
    ties = [_codes(np.array(data.digests()))]
    ties += [] if data.groups is None else [ties[0].max() + 1 + _codes(data.groups)]
    n, hubs = len(data), np.concatenate(ties)
    rows, size = np.tile(np.arange(n), len(ties)), n + int(hubs.max()) + 1
    graph = coo_array((np.ones(len(hubs)), (rows, n + hubs)), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    return _by_appearance(components[:n])


def _codes(values: PixelArray) -> IntArray:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _by_appearance(values: PixelArray) -> IntArray:
    _, first, codes = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes].astype(np.int64)


# ----------------------------------------------------------------------------- splits


@dataclass(frozen=True, eq=False)
class Split:
    r"""Which images may be trained on, which are compared, and which are set aside.

    Attributes:
        pool: The numbers of the images that training sets are drawn from.
        held_out: Those of the images that are measured beside the training images.
        reserved: Those of the images that are never measured.
        seed: The seed of the draw.
        left_out: How many images of the data are in no part.
    """

    pool: IntArray
    held_out: IntArray
    reserved: IntArray
    seed: int
    left_out: int = 0

    def __repr__(self) -> str:
        parts = f"{len(self.pool):,} pool, {len(self.held_out):,} held out"
        return f"{parts}, {len(self.reserved):,} reserved"


def make_split(
    data: ImageData, *, held_out: float = 0.15, reserved: float = 0.15, seed: int = 0
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
        >>> make_split(load_data("digits"), held_out=0.1, reserved=0.2)
        1,258 pool, 180 held out, 359 reserved
    """
    shares = (held_out, reserved)
    if not (min(shares) >= 0 and sum(shares) < 1):
        raise InputError(
            f"--held-out {held_out:g} and --reserved {reserved:g} must be shares of all images, at "
            "least 0 and together less than 1; 0.15 and 0.15 are usual"
        )
    counts = [max(1, round(share * len(data))) if share > 0 else 0 for share in shares]
    return _draw_split(data, (counts[0], counts[1]), seed)


def default_split(data: ImageData, seed: int = 0) -> Split:
    r"""The split where none is given.

    The digits: 1,297 in the pool, 250 held out, 250 reserved. Where there is an official test
    part, the pool is the official training part, and the test part is halved (without images
    that share a group with a training image). Otherwise 15 % are held out and 15 % reserved.
    """
    if data.num_train is not None:
        return _halve_test_part(data, data.num_train, seed)
    if data.name == "digits" and len(data) == 1297 + sum(DIGITS_COUNTS):
        return _draw_split(data, DIGITS_COUNTS, seed)
    return make_split(data, seed=seed)


def _halve_test_part(data: ImageData, num_train: int, seed: int) -> Split:
    groups = duplicate_groups(data)
    test = num_train + np.flatnonzero(~np.isin(groups[num_train:], groups[:num_train]))
    if len(test) < 2:
        raise InputError(
            f"only {len(test)} test images of {data.name} share no group with a training image; "
            "make a split of all images with `geomem split`"
        )
    half = len(test) // 2
    parts = _draw_parts(_strata(data)[test], groups[test], (0, len(test) - half, half), seed)
    left_out = len(data) - num_train - len(test)
    return Split(np.arange(num_train), test[parts == 1], test[parts == 2], seed, left_out)


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
            "change --held-out and --reserved, or check --groups"
        )
    return split


def _strata(data: ImageData) -> IntArray:
    return np.zeros(len(data), np.int64) if data.labels is None else _codes(data.labels)


def _draw_parts(
    strata: IntArray, groups: IntArray, counts: tuple[int, int, int], seed: int
) -> IntArray:
    # Large groups first: single images then fill the seats that are left, exactly.
    rng = _rng(seed, "split")
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


def _rng(seed: int, purpose: str) -> np.random.Generator:
    if seed < 0:
        raise InputError(f"the seed is {seed}; pass 0 or a positive integer")
    return numpy_rng(seed, purpose)


def nested_subsets(pool: ArrayLike, sizes: Iterable[int], seed: int) -> dict[int, IntArray]:
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
    images, wanted = np.asarray(pool, np.int64), sorted(set(sizes))
    if not wanted:
        raise InputError("no sizes were given; pass at least one number of training images")
    if wanted[0] < 2:
        raise InputError(f"N = {wanted[0]} is no training set to compare; pass N of at least 2")
    if wanted[-1] > len(images):
        raise InputError(
            f"N = {wanted[-1]} is more than the {len(images)} images of the pool; "
            "lower N, or hold out fewer images"
        )
    order = _rng(seed, "nested subsets").permutation(images)
    return {int(n): order[:n] for n in wanted}


# ------------------------------------------------------------------------ split files


def split_text(split: Split, data: ImageData) -> str:
    r"""The split as JSON: the digests of the images of each part, one a line."""
    digests = data.digests()
    parts = {
        "pool": [digests[i] for i in split.pool],
        "held_out": [digests[i] for i in split.held_out],
        "reserved": [digests[i] for i in split.reserved],
    }
    return json.dumps({"version": SPLIT_VERSION, "seed": int(split.seed), **parts}, indent=0) + "\n"


def write_split(split: Split, data: ImageData, path: Path) -> None:
    r"""Writes a split as a file of digests, whole or not at all.

    It names images by what they look like, so it outlives renaming, reordering and moving.
    """
    atomic_write_text(Path(path), split_text(split, data))


def read_split(path: Path, data: ImageData) -> Split:
    r"""Finds the images of a split file in the data at hand.

    Every image that the file names must be there. Images of the data that it does not name
    are in no part, and counted in ``left_out``. The order is that of the file.

    Raises:
        InputError: If the file is no split, an image is missing, or in two parts.
    """
    content = _read_json(Path(path))
    parts = [content["pool"], content["held_out"], content["reserved"]]
    named = [set(part) for part in parts]
    twice = (named[0] & named[1]) | (named[0] & named[2]) | (named[1] & named[2])
    if twice:
        raise InputError(
            f"{len(twice)} image(s) are in two parts of {path}, the first of them "
            f"{min(twice)[:12]}...; make the split again with `geomem split`"
        )
    found, missing = _find(parts, data.digests())
    if missing:
        raise InputError(
            f"{missing} of {sum(map(len, parts)):,} images named in {path} are not in {data.name}; "
            "pass the data that the split was made from"
        )
    left_out = len(data) - sum(map(len, found))
    return Split(found[0], found[1], found[2], content["seed"], left_out)


def _find(parts: Sequence[Sequence[str]], digests: Sequence[str]) -> tuple[list[IntArray], int]:
    # Of several equal images each is found once, the first one first.
    places: dict[str, deque[int]] = defaultdict(deque)
    for i, digest in enumerate(digests):
        places[digest].append(i)
    found = [[places[d].popleft() if places[d] else -1 for d in part] for part in parts]
    arrays = [np.array(part, dtype=np.int64) for part in found]
    return arrays, sum(int((array < 0).sum()) for array in arrays)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as a split ({error}); make one with `geomem split`"
        ) from error
    problem = _schema_problem(content)
    if problem:
        raise InputError(f"{path} {problem}; make a split with `geomem split`")
    return dict(content)


def _schema_problem(content: Any) -> str | None:
    keys = {"version", "seed", "pool", "held_out", "reserved"}
    if not isinstance(content, dict) or "version" not in content:
        return "is no split file"
    if content["version"] != SPLIT_VERSION:
        return f"has version {content['version']!r} and this geomem reads {SPLIT_VERSION}"
    if set(content) != keys:
        return f"has the keys {sorted(content)} instead of {sorted(keys)}"
    if type(content["seed"]) is not int or content["seed"] < 0:
        return f"has the seed {content['seed']!r}, which is no positive integer"
    wrong = [part for part in ("pool", "held_out", "reserved") if not _are_digests(content[part])]
    return f"has something else than sha256 digests in {wrong[0]}" if wrong else None


def _are_digests(values: Any) -> bool:
    is_list = isinstance(values, list)
    return is_list and all(isinstance(v, str) and DIGEST.fullmatch(v) for v in values)


# ------------------------------------------------------------------------ the command


@dataclass(frozen=True)
class SplitCommand:
    r"""Decide before training which images are trained on, held out, and reserved.

    Stratified by label; groups and exact duplicates stay together. The file names images by
    digest; `geomem sweep --split` takes it. All images are drawn from, official test images
    too: without a split, `sweep` keeps an official test part held out.

    Example: geomem split faces/ --groups subjects.csv --out split.json
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """digits, mnist, fashion-mnist, cifar10, olivetti, or PATH[:key]: .npy, .npz, idx, folder."""
    held_out: float = 0.15
    """Share of images to hold out and to compare with the training images."""
    reserved: float = 0.15
    """Share of images to reserve for the principal directions and the linear control."""
    groups: Path | None = None
    """CSV with header file,value: images with the same value show the same subject."""
    labels: Path | None = None
    """CSV with header file,value: the class of each image, to stratify by."""
    seed: int = 0
    """Seed of the draw."""
    out: Path = Path("split.json")
    """File to write; a different one that is already there is not overwritten."""

    def run(self) -> int:
        r"""Makes the split, writes it, and says so in one sentence; returns the exit status."""
        data = load_data(self.data, labels=self.labels, groups=self.groups)
        split = make_split(data, held_out=self.held_out, reserved=self.reserved, seed=self.seed)
        _write_once(self.out, split_text(split, data))
        duplicates = len(data) - len(set(data.digests()))
        groups = int(duplicate_groups(data).max()) + 1
        print(
            f"{len(data):,} images of {data.name} in {groups:,} groups "
            f"({duplicates:,} exact duplicates): {split}, written to {self.out}"
        )
        return 0


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise InputError(
            f"{path} is already there and is not this split; choose another --out, "
            "or remove it if no run needs it"
        )
    atomic_write_text(path, text)
