r"""Files and names -> decoded arrays: idx, npy, npz, image folders, and a few public sets.

Everything is checked here, at the door, and nothing is ever unpickled: a pickle runs the code
of whoever wrote it. What leaves is raw: 8-bit images as uint8 with shape (N, C, H, W), real
numbers as float32 with shape (N, *). How raw becomes float stands in :mod:`geomem.data.images`.

The axes of uint8 arrays follow one rule: (N, H, W) is grey; of four axes, the channels are the
second or the last one, whichever has length 1 or 3. If both or neither have, the array is
refused, because a guess would transpose every image.

References:
    | LeCun, Cortes & Burges, the MNIST database: the idx format, http://yann.lecun.com/exdb/mnist/
    | Krizhevsky, Learning multiple layers of features from tiny images (2009): CIFAR-10
    | Samaria & Harter (1994): the Olivetti faces, credit AT&T Laboratories Cambridge
"""

from __future__ import annotations

import csv
import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geomem.compute.progress import Forecast
from geomem.errors import GeomemError, InputError

if TYPE_CHECKING:
    from PIL import Image

PixelArray = NDArray[Any]
IntArray = NDArray[np.int64]

FORMATS = ".npy, .npz[:key], idx, idx.gz or a folder of images"
IMAGE_SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)
PICKLE_SUFFIXES = frozenset([".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"])
PICKLED_BATCHES = frozenset([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class Decoded:
    r"""An array as its files hold it, with what else they say.

    Attributes:
        pixels: The raw values, with shape (N, C, H, W) for images, (N, *) else.
        labels: The class of each, with shape (N), if known.
        groups: The subject of each, with shape (N), if known.
        files: The relative path of each, for folders.
        num_train: How many, from the first on, are the official training part.
        levels: The grey level that becomes +1.
    """

    pixels: PixelArray
    labels: IntArray | None = None
    groups: IntArray | None = None
    files: tuple[str, ...] | None = None
    num_train: int | None = None
    levels: int = 255


def decode_path(path: Path, key: str | None) -> Decoded:
    if path.is_dir():
        pixels, files = _read_folder(path)
        return Decoded(pixels, files=files)
    refuse_pickle(path)
    with reading(path), path.open("rb") as stream:
        head = stream.read(6)
    if head.startswith(b"PK"):
        return Decoded(as_pixels(read_npz(path, key), str(path)))
    if key is not None:
        raise InputError(f"{path} is one array without keys; leave out :{key}")
    if head == b"\x93NUMPY":
        return Decoded(as_pixels(_read_npy(path), str(path)))
    if head.startswith(GZIP) or (head.startswith(b"\0\0") and head[2:3] in map(_byte, IDX_TYPES)):
        return Decoded(as_pixels(read_idx(path), str(path)))
    raise InputError(f"{path} is in no format that geomem reads; pass {FORMATS}")


def _byte(value: int) -> bytes:
    return bytes([value])


@contextmanager
def reading(path: Path) -> Iterator[None]:
    # Whatever a broken file makes a decoder raise, the user reads one sentence with its name.
    try:
        yield
    except GeomemError:
        raise
    except (
        *(OSError, EOFError, SyntaxError, ValueError, MemoryError, KeyError),
        *(struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError),
    ) as error:
        if "pickle" in str(error):
            raise InputError(
                f"{path} holds Python objects, which only unpickling could read and geomem never "
                "does; save the numbers themselves as uint8 or float32"
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path} cannot be read ({reason}); it may be truncated: get or write it again"
        ) from error


def refuse_pickle(path: Path) -> None:
    if path.suffix.lower() in PICKLE_SUFFIXES or path.name in PICKLED_BATCHES or _is_pickle(path):
        raise InputError(
            f"{path} is a pickle, and reading one would run the code inside it, which geomem never "
            "does; save its array with numpy.save (CIFAR-10: get the binary version)"
        )


def _is_pickle(path: Path) -> bool:
    with reading(path), path.open("rb") as stream:
        head = stream.read(2)
    if head == b"PK" and zipfile.is_zipfile(path):
        with reading(path), zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())  # torch.save
    return head[:1] == b"\x80" and head[1:] in map(_byte, range(2, 6))


# ---------------------------------------------------------------------------- arrays


def as_pixels(array: PixelArray, where: str) -> PixelArray:
    r"""Checks the type and puts the axes of images in order.

    Arguments:
        array: An array of N images or vectors.
        where: What to call it in errors.

    Returns:
        uint8 with shape (N, C, H, W), C being 1 or 3, or float32 with shape (N, *).

    Raises:
        InputError: For other types, and where the channel axis is ambiguous.

    Example:
        >>> as_pixels(np.zeros((5, 28, 28), np.uint8), "x").shape
        (5, 1, 28, 28)
        >>> as_pixels(np.zeros((5, 32, 32, 3), np.uint8), "x").shape
        (5, 3, 32, 32)
        >>> as_pixels(np.zeros((5, 7)), "x").dtype
        dtype('float32')
    """
    if array.dtype == np.uint8:
        return np.ascontiguousarray(_channels_first(array, where))
    if array.dtype.kind != "f":
        raise InputError(
            f"{where} has type {array.dtype}; save grey levels of 0 to 255 as uint8 "
            "(array.astype(numpy.uint8)) or real numbers as float32"
        )
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise InputError(
            f"{where} has shape {array.shape}; geomem needs (N, *), one row per image or vector"
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        return np.ascontiguousarray(array, dtype=np.float32)


def _channels_first(array: PixelArray, where: str) -> PixelArray:
    shape = array.shape
    if array.ndim == 3 and 0 not in shape[1:]:
        return array[:, None]
    if array.ndim != 4 or 0 in shape[1:]:
        raise InputError(
            f"{where} has shape {shape}; 8-bit images are (N, H, W), (N, H, W, C) or (N, C, H, W): "
            "reshape it, or save vectors as float32"
        )
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first and last:
        raise InputError(
            f"{where} has shape {shape}, where the channels could be the second or the last axis; "
            "save grey images as (N, H, W), or scaled as float32 with shape (N, C, H, W)"
        )
    if not (first or last):
        raise InputError(
            f"{where} has shape {shape}, and neither the second nor the last axis has length 1 or "
            "3; drop further channels (alpha: array[..., :3])"
        )
    return array if first else array.transpose(0, 3, 1, 2)


def _read_npy(path: Path) -> PixelArray:
    with reading(path):
        return np.asarray(np.load(path, allow_pickle=False))


def read_npz(path: Path, key: str | None) -> PixelArray:
    with reading(path), np.load(path, allow_pickle=False) as archive:
        keys = list(archive.files)
        if key is None and len(keys) == 1:
            key = keys[0]
        if key not in keys:
            asked = f"no array {key!r}" if key else f"{len(keys)} arrays"
            raise InputError(f"{path} holds {asked}; pass {path}:KEY with KEY among {keys}")
        array = archive[key]
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path} holds no NumPy array under {key!r}; write it with np.savez")
        return array


def read_idx(path: Path) -> PixelArray:
    with reading(path):
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(GZIP) else raw
    if not raw.startswith(b"\0\0") or len(raw) < 4 or raw[2] not in IDX_TYPES:
        raise InputError(f"{path} is not an idx file; pass {FORMATS}")
    start = 4 + 4 * raw[3]
    with reading(path):
        shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    dtype = np.dtype(IDX_TYPES[raw[2]])
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) - start != expected:
        raise InputError(
            f"{path} holds {len(raw) - start} of the {expected} bytes that its header announces; "
            "get or write it again"
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)


# ----------------------------------------------------------------------- image folders


def _read_folder(folder: Path) -> tuple[PixelArray, tuple[str, ...]]:
    paths = _image_paths(folder)
    channels, (width, height) = _common_form(paths)
    shape = (len(paths), channels, height, width)
    Forecast(0, 2 * math.prod(shape)).check_memory("shrink the images, or use fewer of them")
    pixels = np.empty(shape, np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[...] = _read_image(path, channels)
    return pixels, tuple(path.relative_to(folder).as_posix() for path in paths)


def _image_paths(folder: Path) -> list[Path]:
    with reading(folder):
        files = [path for path in folder.rglob("*") if path.is_file()]
    seen = [f for f in files if not any(p.startswith(".") for p in f.relative_to(folder).parts)]
    images = [path for path in seen if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        for path in files:
            refuse_pickle(path)
        others = f" ({len(files)} other files)" if files else ""
        raise InputError(f"there are no images in {folder}{others}; pass a folder of PNG or JPEG")
    return sorted(images, key=lambda path: path.relative_to(folder).as_posix())


def _common_form(paths: Sequence[Path]) -> tuple[int, tuple[int, int]]:
    # Headers only: sizes are compared before anything large is decoded.
    channels, sizes = 1, []
    for path in paths:
        with _open_image(path) as image:
            sizes.append(image.size)
            channels = max(channels, 1 if image.mode in ("1", "L", "LA") else 3)
        if sizes[-1] != sizes[0]:
            raise InputError(
                f"{paths[0]} is {_by(sizes[0])} pixels and {path} is {_by(sizes[-1])}; "
                "bring all images to one size"
            )
    return channels, sizes[0]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


@contextmanager
def _open_image(path: Path) -> Iterator[Image.Image]:
    from PIL import Image

    try:
        with reading(path), Image.open(path) as image:
            if image.mode in ("F", "I") or image.mode.startswith("I;"):
                raise InputError(
                    f"{path} has more than 8 bits a channel, which Pillow would clip; convert the "
                    "images to 8 bits, or save them all as one float32 .npy"
                )
            yield image
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large an image to open; shrink it") from error


def _read_image(path: Path, channels: int) -> PixelArray:
    with _open_image(path) as image:
        if _is_transparent(image):
            raise InputError(f"{path} has transparent pixels; flatten it onto a background first")
        decoded = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return decoded[None] if channels == 1 else decoded.transpose(2, 0, 1)


def _is_transparent(image: Image.Image) -> bool:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    return bool(np.asarray(image.convert("RGBA"))[..., 3].min() < 255)


# ---------------------------------------------------------------------------- tables


def read_table(path: Path, files: Sequence[str]) -> IntArray:
    r"""Reads one value per image from a CSV file with header ``file,value``.

    Arguments:
        path: The table, with one row per image in any order.
        files: What the first column calls each image.

    Returns:
        The values, with shape (N): as they are if all are integers, else numbered in the
        order of their text.

    Raises:
        InputError: Naming the row, if one is wrong, doubled, or missing.
    """
    with reading(path), path.open(encoding="utf-8-sig", newline="") as stream:
        rows = [row for row in enumerate(csv.reader(stream), start=1) if row[1]]
    if not rows or rows[0][1] != ["file", "value"]:
        raise InputError(f"{path} must begin with the line file,value; add this header")
    values: dict[str, str] = {}
    known = set(files)
    for number, row in rows[1:]:
        _check_row(path, number, row, known, values)
        values[row[0]] = row[1].strip()
    missing = [file for file in files if file not in values]
    if missing:
        raise InputError(
            f"{path} has no row for {len(missing)} of {len(files)} images, the first of them "
            f"{missing[0]!r}; add one row for each"
        )
    return _numbered([values[file] for file in files])


def _check_row(
    path: Path, number: int, row: list[str], known: set[str], values: dict[str, str]
) -> None:
    if len(row) != 2 or not row[1].strip():
        problem = "is not file,value"
    elif row[0] not in known:
        problem = f"names {row[0]!r}, which is not in the data"
    elif row[0] in values:
        problem = f"names {row[0]!r} a second time"
    else:
        return
    raise InputError(
        f"row {number} of {path} {problem}; write one line per image, its relative path "
        "(for arrays its number from 0), a comma and the value"
    )


def _numbered(texts: Sequence[str]) -> IntArray:
    try:
        return np.array([int(text) for text in texts], dtype=np.int64)
    except (ValueError, OverflowError):
        return as_ints(np.unique(np.array(texts), return_inverse=True)[1])


def as_ints(array: PixelArray) -> IntArray:
    return np.asarray(array, dtype=np.int64)
