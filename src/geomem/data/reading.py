r"""What every reader of files shares: one sentence for whatever is wrong, and no unpickling.

A pickle runs the code of whoever wrote it, so none is ever opened.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomem.errors import GeomemError, InputError

PixelArray = NDArray[Any]
IntArray = NDArray[np.int64]

PICKLE_SUFFIXES = frozenset([".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"])
PICKLED_BATCHES = frozenset([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])


@dataclass(frozen=True, eq=False)
class Decoded:
    r"""An array as its files hold it, with what else they say.

    Attributes:
        pixels: The raw values, with shape (N, C, H, W) for images, (N, *) else.
        labels: The class of each, with shape (N), if known.
        classes: The names of the labels 0, 1, ..., if they have any.
        groups: The subject of each, with shape (N), if known.
        files: The relative path of each, for folders.
        num_train: How many, from the first on, are the official training part.
        levels: The grey level that becomes +1.
        account: What was read and what was left out, if there is anything to say.
        captions: The caption of each, with length N, if known.
    """

    pixels: PixelArray
    labels: IntArray | None = None
    classes: tuple[str, ...] | None = None
    groups: IntArray | None = None
    files: tuple[str, ...] | None = None
    num_train: int | None = None
    levels: int = 255
    account: str | None = None
    captions: tuple[str, ...] | None = None


def unicode_name(name: str) -> str:
    r"""The name of a file as Unicode: bytes that are none are written as ``\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(text: object) -> str:
    r"""A name as one line of Unicode: what cannot be shown of it is escaped.

    Example:
        >>> printable("caf\udce9 1\n.png")
        'caf\\xe9 1\\n.png'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in unicode_name(str(text)))


def whole_numbers(name: str, values: object, below: float = math.inf) -> IntArray:
    r"""The numbers of images, with shape (n); an InputError names the parameter.

    Example:
        >>> whole_numbers("pool", [3, 1])
        array([3, 1])
    """
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(
            f"`{name}` is {array.dtype} of shape {array.shape}; pass a list of whole numbers"
        )
    if array.size and not (array.min() >= 0 and array.max() < below):
        last = "" if below == math.inf else f" to {below - 1:g}"
        raise InputError(
            f"`{name}` reaches from {array.min()} to {array.max()}; pass numbers from 0{last}"
        )
    return array.astype(np.int64)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    r"""Whatever a broken file makes a decoder raise, the user reads one sentence with its name."""
    try:
        yield
    except GeomemError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {printable(path)}; check its name") from error
    except PermissionError as error:
        raise InputError(
            f"{printable(path)} may not be read; change its permissions, or run as its owner"
        ) from error
    except Exception as error:  # decoders raise what they like: a TokenError, a zlib.error
        if isinstance(error, OSError) and error.errno is not None:
            raise InputError(
                f"{printable(path)} cannot be read: {error.strerror}; the system says so, and "
                "not its content: try again, or from another disk"
            ) from error
        if "ickle" in str(error) or "Python objects" in str(error):
            raise InputError(
                f"{printable(path)} holds Python objects, which only unpickling could read and "
                "geomem never does; save the numbers themselves as uint8 or float32"
            ) from error
        reason = printable(str(error).partition("\n")[0]) or type(error).__name__
        raise InputError(
            f"{printable(path)} cannot be read ({reason}); it may be truncated: get or write it "
            "again"
        ) from error


def refuse_pickle(path: Path) -> None:
    r"""Refuses what only unpickling could read, by its name and by its first bytes."""
    with reading(path):
        if not path.is_file():  # opening a pipe would wait for ever
            raise InputError(f"{printable(path)} is no regular file; pass a file or a folder")
        with path.open("rb") as stream:
            head = stream.read(2)
        pickled = head[:1] == b"\x80" and head[1:] in (b"\2", b"\3", b"\4", b"\5")
        if head == b"PK" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickled = any(name.endswith(".pkl") for name in archive.namelist())  # torch.save
    if pickled or path.suffix.lower() in PICKLE_SUFFIXES or path.name in PICKLED_BATCHES:
        raise InputError(
            f"{printable(path)} is a pickle, and reading one would run the code inside it, which "
            "geomem never does; save its array with numpy.save (CIFAR-10: get the binary version)"
        )
