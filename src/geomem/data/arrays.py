r"""Arrays: npy, npz and idx files, the order of their axes, and the step between grey levels.

Shape and type are read from the header and compared with the size of the file and with the free
memory before anything is unpacked, so that neither a broken header nor a small file that unpacks
to a huge one costs more than a look.

The axes of images follow one rule. (N, H, W) is grey; of four axes, the channels are the second
or the last one, whichever has length 1 or 3. If both have, the array is refused, because a guess
would transpose every image. If neither has, 8-bit arrays are refused; floats (latents of 4 or 16
channels) are channels-last where the two axes before the last are equal and it is not, or where
it is the shortest.

References:
    | LeCun, Cortes & Burges, the MNIST database: the idx format, http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from geomem.compute.progress import Forecast
from geomem.data.reading import Decoded, PixelArray, printable, reading, refuse_pickle
from geomem.errors import InputError

FORMATS = ".npy, .npz[:key], idx, idx.gz or a folder of images"
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"
ADVICE = "pass fewer or smaller images"
SAMPLE = 2**22  # values that are looked at for the step between grey levels


def read_array(path: Path, key: str | None) -> Decoded:
    r"""The array of an .npy, .npz, idx or idx.gz file, told apart by their first bytes."""
    refuse_pickle(path)
    with reading(path), path.open("rb") as stream:
        head = stream.read(6)
    if head.startswith(b"PK"):
        return in_order(read_npz(path, key), printable(path))
    if key is not None:
        raise InputError(f"{printable(path)} is one array without keys; leave out :{key}")
    if head == b"\x93NUMPY":
        with reading(path):  # the mapping compares the size of the file with its header
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            return in_order(mapped, printable(path))
    if head.startswith(GZIP) or (head[:2] == b"\0\0" and {*head[2:3]} & {*IDX_TYPES}):
        return in_order(read_idx(path), printable(path))
    raise InputError(f"{printable(path)} is in no format that geomem reads; pass {FORMATS}")


def in_order(array: PixelArray, where: str) -> Decoded:
    r"""Checks the type and puts the axes of images in order.

    Arguments:
        array: An array of N images or vectors.
        where: What to call it in errors.

    Returns:
        Pixels of uint8 with shape (N, C, H, W), C being 1 or 3, or of float32 with shape (N, *);
        they are a copy unless they are in memory and in order already.

    Raises:
        InputError: For other types, and where the channel axis is ambiguous.

    Example:
        >>> in_order(np.zeros((5, 28, 28), np.uint8), "x").pixels.shape
        (5, 1, 28, 28)
        >>> in_order(np.zeros((5, 32, 32, 3)), "x").pixels.shape
        (5, 3, 32, 32)
        >>> in_order(np.zeros((5, 7)), "x").pixels.dtype
        dtype('float32')
    """
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(
            f"{where} has type {array.dtype}; save grey levels of 0 to 255 as uint8 "
            "(array.astype(numpy.uint8)) or real numbers as float32"
        )
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise InputError(
            f"{where} has shape {array.shape}; geomem needs (N, *), one row per image or vector"
        )
    if array.dtype == np.uint8 and array.ndim not in (3, 4):
        raise InputError(
            f"{where} has shape {array.shape}; 8-bit images are (N, H, W), (N, H, W, C) or "
            "(N, C, H, W): reshape it, or save vectors as float32"
        )
    ordered, account = array, None
    if array.ndim == 3:
        ordered = array[:, None]
    elif array.ndim == 4 and _channels_last(array, where):
        ordered = array.transpose(0, 3, 1, 2)
        if array.dtype != np.uint8:
            account = f"{where} has shape {array.shape}, read as (N, H, W, C)"
    dtype = np.uint8 if array.dtype == np.uint8 else np.float32
    in_memory = not isinstance(array, np.memmap) and array.dtype == dtype
    if not (in_memory and ordered.flags.c_contiguous):
        Forecast(0, array.size * (np.dtype(dtype).itemsize + 1)).check_memory(ADVICE)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        pixels = np.asarray(ordered, dtype, order="C") if in_memory else np.array(ordered, dtype)
    return Decoded(np.ascontiguousarray(pixels), account=account)


def _channels_last(array: PixelArray, where: str) -> bool:
    _, first, middle, last = array.shape
    few = (first in (1, 3), last in (1, 3))
    if all(few):
        raise InputError(
            f"{where} has shape {array.shape}, where the channels could be the second or the last "
            "axis; save grey images as (N, H, W), colour with 3 as the second axis only"
        )
    if not any(few) and array.dtype == np.uint8:
        raise InputError(
            f"{where} has shape {array.shape}, and neither the second nor the last axis has "
            "length 1 or 3; drop further channels (alpha: array[..., :3])"
        )
    if any(few):
        return few[1]
    return bool(last != middle and (first == middle or last < min(first, middle)))


def read_npz(path: Path, key: str | None) -> PixelArray:
    r"""One array of an archive, unpacked only if it is as large as it says and fits."""
    where = printable(path)
    with reading(path), zipfile.ZipFile(path) as archive:
        arrays = [name for name in archive.namelist() if name.endswith(".npy")]
        if not arrays:
            raise InputError(
                f"{where} is an archive of other files than arrays; unpack it, and pass the folder"
            )
        members = {name.removesuffix(".npy"): name for name in arrays}
        if key is None and len(members) == 1:
            key = next(iter(members))
        if key not in members:
            asked = f"no array {key!r}" if key else f"{len(members)} arrays"
            raise InputError(f"{where} holds {asked}; pass {where}:KEY with KEY among {[*members]}")
        member = archive.getinfo(members[key])
        with archive.open(member) as stream:
            try:
                version = np.lib.format.read_magic(stream)
            except ValueError as error:
                raise InputError(
                    f"{where} holds no NumPy array under {key!r}; write it with np.savez"
                ) from error
            header: Any = {(1, 0): np.lib.format.read_array_header_1_0}
            read = header.get(version, np.lib.format.read_array_header_2_0)
            shape, _, dtype = read(stream)
            announced = math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and stream.tell() + announced != member.file_size:
                raise InputError(
                    f"{where} announces an array {key!r} of {announced:,} bytes and holds "
                    f"{member.file_size - stream.tell():,}; write it again with np.savez"
                )
        Forecast(0, announced).check_memory(ADVICE)
        with archive.open(member) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def read_idx(path: Path) -> PixelArray:
    r"""The array of an idx file, packed or not; no more than its header announces is unpacked."""
    with reading(path):
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            head = stream.read(4)
            if not head.startswith(b"\0\0") or len(head) < 4 or head[2] not in IDX_TYPES:
                raise InputError(f"{printable(path)} is not an idx file; pass {FORMATS}")
            shape = struct.unpack(f">{head[3]}I", stream.read(4 * head[3]))
            dtype = np.dtype(IDX_TYPES[head[2]])
            announced = math.prod(shape) * dtype.itemsize
            size = os.path.getsize(path)
            largest = 1032 * size if packed else size  # deflate packs no tighter
            if announced <= largest:
                Forecast(0, 2 * announced).check_memory(ADVICE)
            content = stream.read(min(announced, largest) + 1)
        if len(content) != announced:
            found = "more" if len(content) > announced else f"{len(content)}"
            raise InputError(
                f"{printable(path)} holds {found} of the {announced} bytes that its header "
                "announces; get or write it again"
            )
        return np.frombuffer(content, dtype).reshape(shape)


# -------------------------------------------------------------------------- grey levels


def grey_step(pixels: PixelArray) -> float:
    r"""The distance of adjacent grey levels in raw units, looked for in the values themselves.

    8-bit values: the smallest distance of two that occur. Floats have grey levels where they
    are multiples of one step, or where few values return again and again (a grid after a curve
    or a standardisation); each channel, or each coordinate, may have a grid of its own.

    Arguments:
        pixels: The raw values, with shape :math:`(N, *)`.

    Returns:
        The step, the smallest one over channels or coordinates; 0 where there is none.

    Example:
        >>> x = np.arange(17, dtype=np.float32)[:, None] / 16
        >>> grey_step(x), grey_step(np.sqrt(2 + x))
        (0.0625, 0.0)
    """
    some = pixels[:: -(-pixels.size // SAMPLE)]
    if pixels.dtype == np.uint8:
        used = [np.flatnonzero(np.bincount(some[:, c].ravel())) for c in range(some.shape[1])]
        return float(min((np.diff(u).min() for u in used if len(u) > 1), default=0))
    flat = some.reshape(len(some), -1)
    channels = np.split(flat, some.shape[1], axis=1) if some.ndim == 4 else [flat]
    columns = [flat[:, [j]] for j in range(0, flat.shape[1], -(-flat.shape[1] // 64))]
    for parts in ([flat], channels, columns):
        steps = [_grid_step(part)[0] for part in parts if (part != part.flat[0]).any()]
        if None not in steps:
            return min(step for step in steps if step is not None)
    return min(_grid_step(part)[1] for part in channels)


def _grid_step(values: PixelArray) -> tuple[float | None, float]:
    r"""The step if all values are multiples of one; the smallest gap if they return often, or 0."""
    levels, counts = np.unique(values.astype(np.float64), return_counts=True)
    rounding = float(np.abs(levels).max()) * 2.0**-23
    new = np.diff(levels, prepend=-np.inf) > 8 * rounding  # one level rounded in several ways
    levels = levels[new]
    counts = np.add.reduceat(counts, np.flatnonzero(new))
    few = len(levels) == 2 and counts.sum() < 16  # any two values lie on a grid
    if few or not 2 <= len(levels) <= 2**16:
        return None, 0.0
    gaps = np.diff(levels)
    smallest = float(gaps.min())
    if smallest < 64 * rounding:
        return None, 0.0
    often = (counts > 1).mean() > 0.9 and counts.sum() >= 8 * len(levels)
    multiples = np.round(gaps / smallest)
    step = float((levels[-1] - levels[0]) / multiples.sum())
    on_grid = bool((np.abs(gaps - multiples * step) <= 16 * rounding).all())
    return step if on_grid else None, smallest if often else 0.0
