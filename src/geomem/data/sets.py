r"""The public sets by name, and where they lie; every other spelling is a path.

References:
    | LeCun, Cortes & Burges, the MNIST database
    | Krizhevsky, Learning multiple layers of features from tiny images (2009): CIFAR-10
    | Samaria & Harter (1994): the Olivetti faces, credit AT&T Laboratories Cambridge
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geomem.data.loaders import (
    FORMATS,
    PICKLED_BATCHES,
    Decoded,
    IntArray,
    PixelArray,
    as_ints,
    as_pixels,
    decode_path,
    read_idx,
    read_npz,
    reading,
    refuse_pickle,
)
from geomem.errors import InputError


def decode(spec: str) -> tuple[str, Decoded]:
    r"""Decodes ``NAME`` or ``PATH[:key]``.

    A name wins over a path of the same spelling; ``./mnist`` is the path.

    Returns:
        A short name, and the decoded array.

    Raises:
        InputError: If there is no such thing, or it cannot be used.
    """
    if spec in ("linear", "linear-sphere"):
        raise InputError(
            f"{spec} is a manifold to sample from and not a set of images; "
            "build it with geomem.manifolds, or pass a name or a path of images"
        )
    if spec in NAMES:
        return spec, NAMES[spec]()
    path, key = _split_key(spec)
    name = path.resolve().name
    return (f"{name}:{key}" if key else name), decode_path(path, key)


def _split_key(spec: str) -> tuple[Path, str | None]:
    path, key = Path(spec).expanduser(), None
    if not os.path.exists(path) and ":" in spec:
        head, _, key = spec.rpartition(":")
        path = Path(head).expanduser()
    if not spec or not os.path.exists(path):  # never raises, unlike Path.exists
        raise InputError(
            f"there is no data set {spec!r}; pass one of {', '.join(NAMES)}, or a path to {FORMATS}"
        )
    return path, key


def data_folder() -> Path:
    r"""Where the public sets lie: ``GEOMEM_DATA``, else ``shared/data`` here or further up.

    Raises:
        InputError: If there is no such folder.
    """
    named = os.environ.get("GEOMEM_DATA")
    here = Path.cwd()
    near = [parent / "shared" / "data" for parent in (here, *here.parents)]
    for folder in [Path(named).expanduser()] if named else near:
        if folder.is_dir():
            return folder
    raise InputError(
        f"GEOMEM_DATA is {named!r}, which is no folder; set it to the folder of the image sets"
        if named
        else "the folder of the image sets was not found; set GEOMEM_DATA to it, "
        "or use --data digits, which comes with geomem"
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
    pixels = as_pixels(bunch.images.astype(np.uint8), "digits")
    return Decoded(pixels, as_ints(bunch.target), levels=16)


def _mnist_like(folder: str) -> Decoded:
    parts = [_mnist_part(folder, part) for part in ("train", "t10k")]
    pixels, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
    return Decoded(pixels, labels, num_train=len(parts[0][0]))


def _mnist_part(folder: str, part: str) -> tuple[PixelArray, IntArray]:
    names = [f"{folder}/{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    paths = [_file(f"{name}.gz", name) for name in names]
    pixels, labels = as_pixels(read_idx(paths[0]), str(paths[0])), read_idx(paths[1])
    if labels.shape != (len(pixels),):
        raise InputError(
            f"{paths[1]} has shape {labels.shape} for {len(pixels)} images; get both files again"
        )
    return pixels, as_ints(labels)


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
    batches = [_cifar10_batch(folder / name) for name in names]
    records = np.concatenate(batches)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32)
    return Decoded(pixels, as_ints(records[:, 0]), num_train=len(records) - len(batches[-1]))


def _cifar10_batch(path: Path) -> PixelArray:
    with reading(path):
        raw = np.frombuffer(path.read_bytes(), np.uint8)
    if len(raw) == 0 or len(raw) % 3073:
        raise InputError(f"{path} is no whole number of images of 3073 bytes; get it again")
    return raw.reshape(-1, 3073)


CIFAR10_PIXELS = "74493c77aca7915c5811a5d387566a9b045abbdd45f6636b12a6590eb540193c"
CIFAR10_LABELS = "095e2e1dc3fa589cf7b94cd735dd043548910fb6559baae0d9fc751e56026644"


def _cifar10_recoded(path: Path) -> Decoded:
    # Planes (R-G, G, B-G), then differences to the pixel above and to the left, modulo 256.
    residual, labels = read_npz(path, "residual"), read_npz(path, "labels")
    with reading(path):
        planes = np.cumsum(np.cumsum(residual, 2, dtype=np.uint8), 3, dtype=np.uint8)
        planes[0::2] += planes[1]
        rows = np.ascontiguousarray(planes.transpose(1, 2, 3, 0))
    if (_sha256(rows), _sha256(labels)) != (CIFAR10_PIXELS, CIFAR10_LABELS):
        raise InputError(f"{path} does not decode to the published images; get it again")
    return Decoded(np.ascontiguousarray(planes.transpose(1, 0, 2, 3)), as_ints(labels))


def _olivetti() -> Decoded:
    path = _file("olivetti/olivetti_faces_64x64.npz")
    pixels = as_pixels(read_npz(path, "images"), str(path))
    return Decoded(pixels, groups=as_ints(read_npz(path, "subjects")))


def _sha256(array: PixelArray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


NAMES: dict[str, Callable[[], Decoded]] = {
    "digits": _digits,
    "mnist": lambda: _mnist_like("mnist"),
    "fashion-mnist": lambda: _mnist_like("fashion-mnist"),
    "cifar10": _cifar10,
    "olivetti": _olivetti,
}
