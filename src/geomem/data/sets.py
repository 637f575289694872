r"""The public sets by name, and where they lie; every other spelling is a path.

References:
    | LeCun, Cortes & Burges, the MNIST database
    | Krizhevsky, Learning multiple layers of features from tiny images (2009): CIFAR-10
    | Samaria & Harter (1994): the Olivetti faces, credit AT&T Laboratories Cambridge
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from geomem.arguments import near, shown
from geomem.compute.progress import Forecast
from geomem.data.arrays import ADVICE, FORMATS, in_order, read_array, read_idx, read_npz
from geomem.data.folders import read_folder
from geomem.data.framing import Framing, framed
from geomem.data.reading import (
    PICKLED_BATCHES,
    Decoded,
    IntArray,
    PixelArray,
    printable,
    reading,
    refuse_pickle,
    unicode_name,
)
from geomem.data.shards import read_shards, shards_of
from geomem.errors import InputError

MANIFOLDS = ("linear", "linear-sphere", "sphere")


def decode(spec: str, framing: Framing | None = None) -> tuple[str, Decoded]:
    r"""Decodes ``NAME`` or ``PATH[:key]``.

    A name wins over a path of the same spelling; ``./mnist`` is the path.

    Arguments:
        spec: The name or the path.
        framing: How pictures are brought to one size.

    Returns:
        A short name, and the decoded array.

    Raises:
        InputError: If there is no such thing, or it cannot be used.
    """
    if spec in MANIFOLDS:
        raise InputError(
            f"{spec} is a manifold to sample from and not a set of images; "
            "build it with geomem.manifolds, or pass a name or a path of images"
        )
    if spec in NAMES:
        return spec, _as_framed(NAMES[spec](), framing)
    path, key = _split_key(spec)
    name = printable(path.resolve().name)
    shards = [] if key else shards_of(path)
    if shards:
        return name, read_shards(shards, framing)
    if path.is_dir():
        if key is not None:
            raise InputError(f"{printable(path)} is a folder without keys; leave out :{key}")
        return name, read_folder(path, framing)
    raw = _as_framed(read_array(path, key), framing)
    return (f"{name}:{key}" if key else name), raw


def _as_framed(raw: Decoded, framing: Framing | None) -> Decoded:
    if framing is None:
        return raw
    said = "; ".join(filter(None, [raw.account, str(framing)]))
    return replace(raw, pixels=framed(raw.pixels, framing), account=said)


def same_spelling(spec: str) -> str:
    r"""One spelling of a data set: ``photos/`` and ``./photos`` are ``photos``.

    It is Unicode: bytes that are none are written as ``\xe9``, and found again.

    Example:
        >>> [same_spelling(s) for s in ("photos/", "./photos//a.npz:key", "digits", "./digits")]
        ['photos', 'photos/a.npz:key', 'digits', './digits']
    """
    if not spec or spec in (*NAMES, *MANIFOLDS):
        return spec
    plain = unicode_name(str(Path(spec)))
    return f"./{plain}" if plain in (*NAMES, *MANIFOLDS) else plain


def _split_key(spec: str) -> tuple[Path, str | None]:
    # Bytes that are no Unicode may be written as \xe9, as unicode_name does.
    raw = re.sub(r"\\x([89a-f][0-9a-f])", lambda m: os.fsdecode(bytes.fromhex(m[1])), spec)
    for head, _, key in ((spec, "", ""), spec.rpartition(":"), (raw, "", ""), raw.rpartition(":")):
        path = Path(os.path.expanduser(head))  # never raises, unlike Path.expanduser
        if head and os.path.exists(path):  # never raises, unlike Path.exists
            return path, key or None
    parent, name = os.path.split(spec)
    here: list[str] = []
    with suppress(OSError):
        here = os.listdir(parent or ".")
    like = get_close_matches(name, here, n=1, cutoff=0.7) if name else []
    named = get_close_matches(spec, [*NAMES, *MANIFOLDS], n=1, cutoff=0.5)
    if like and not named:
        raise InputError(
            f"there is no data set {shown(spec)}; did you mean "
            f"{printable(os.path.join(parent, like[0]))!r}?"
        )
    advice = near(spec, [*NAMES, *MANIFOLDS])
    raise InputError(
        f"there is no data set {shown(spec)}; {advice}, or pass a path to {FORMATS} (a relative "
        "one holds in the folder in which it was typed)"
    )


def data_folder() -> Path:
    r"""Where the public sets lie: ``GEOMEM_DATA``, else ``shared/data`` here or further up.

    Raises:
        InputError: If there is no such folder.
    """
    named = os.environ.get("GEOMEM_DATA")
    with reading(Path()):  # the working folder may have been removed
        here = Path.cwd()
    beside = [parent / "shared" / "data" for parent in (here, *here.parents)]
    for folder in [Path(os.path.expanduser(named))] if named else beside:
        if os.path.isdir(folder):
            return folder
    raise InputError(
        f"GEOMEM_DATA is {shown(named)}, which is no folder; set it to the folder of the image sets"
        if named
        else "the folder of the image sets was not found; set GEOMEM_DATA to it, "
        "or use the digits, which come with geomem"
    )


def _file(*names: str) -> Path:
    folder = data_folder()
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} has no {names[0]}; put the file there, or set GEOMEM_DATA to a folder with it"
    )


def _digits() -> Decoded:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = bunch.images.astype(np.uint8)[:, None]
    return Decoded(pixels, bunch.target.astype(np.int64), levels=16)


def _mnist_like(folder: str) -> Decoded:
    pixels, labels = list[PixelArray](), list[IntArray]()
    for part in ("train", "t10k"):
        names = [f"{folder}/{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        paths = [_file(f"{name}.gz", name) for name in names]
        pixels.append(in_order(read_idx(paths[0]), str(paths[0])).pixels)
        labels.append(read_idx(paths[1]).astype(np.int64))
        if labels[-1].shape != (len(pixels[-1]),):
            raise InputError(
                f"{paths[1]} has shape {labels[-1].shape} for {len(pixels[-1])} images; "
                "get both files again"
            )
    return Decoded(np.concatenate(pixels), np.concatenate(labels), num_train=len(pixels[0]))


def _cifar10() -> Decoded:
    # The complete set where it lies; else the first 20,000 images, losslessly recoded.
    root = data_folder() / "cifar10"
    for folder in (root, root / "cifar-10-batches-bin"):
        if (folder / "data_batch_1.bin").is_file():
            return _cifar10_binary(folder)
    if not (root / "cifar10_train_first20000.npz").is_file():
        for name in sorted(PICKLED_BATCHES):
            for path in (root / name, root / "cifar-10-batches-py" / name):
                if path.is_file():
                    refuse_pickle(path)
    return _cifar10_recoded(_file("cifar10/cifar10_train_first20000.npz"))


def _cifar10_binary(folder: Path) -> Decoded:
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    batches = []
    for path in (folder / name for name in names):
        with reading(path):
            Forecast(0, 3 * path.stat().st_size).check_memory(ADVICE)
            raw = np.frombuffer(path.read_bytes(), np.uint8)
        if len(raw) == 0 or len(raw) % 3073:
            raise InputError(f"{path} is no whole number of images of 3073 bytes; get it again")
        batches.append(raw.reshape(-1, 3073))
    records = np.concatenate(batches)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32)
    labels = records[:, 0].astype(np.int64)
    return Decoded(pixels, labels, num_train=len(records) - len(batches[-1]))


CIFAR10_PIXELS = "74493c77aca7915c5811a5d387566a9b045abbdd45f6636b12a6590eb540193c"
CIFAR10_LABELS = "095e2e1dc3fa589cf7b94cd735dd043548910fb6559baae0d9fc751e56026644"


def _cifar10_recoded(path: Path) -> Decoded:
    # Planes (R-G, G, B-G), then differences to the pixel above and to the left, modulo 256.
    residual, labels = read_npz(path, "residual"), read_npz(path, "labels")
    with reading(path):
        planes = np.cumsum(np.cumsum(residual, 2, dtype=np.uint8), 3, dtype=np.uint8)
        planes[0::2] += planes[1]
        rows = np.ascontiguousarray(planes.transpose(1, 2, 3, 0))
    found = [hashlib.sha256(array.tobytes()).hexdigest() for array in (rows, labels)]
    if found != [CIFAR10_PIXELS, CIFAR10_LABELS]:
        raise InputError(f"{path} does not decode to the published images; get it again")
    pixels = np.ascontiguousarray(planes.transpose(1, 0, 2, 3))
    return Decoded(pixels, labels.astype(np.int64))


def _olivetti() -> Decoded:
    path = _file("olivetti/olivetti_faces_64x64.npz")
    pixels = in_order(read_npz(path, "images"), str(path)).pixels
    return Decoded(pixels, groups=read_npz(path, "subjects").astype(np.int64))


NAMES: dict[str, Callable[[], Decoded]] = {
    "digits": _digits,
    "mnist": lambda: _mnist_like("mnist"),
    "fashion-mnist": lambda: _mnist_like("fashion-mnist"),
    "cifar10": _cifar10,
    "olivetti": _olivetti,
}
