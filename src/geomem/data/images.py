r"""The data: one checked array of images, or of vectors, with their names and digests.

Exact duplicates and declared groups (the pictures of one person) are known here, because they
must never be torn apart: if a training image had a twin among the held-out ones, its memory
would count as generalization.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from geomem.data.loaders import Decoded, IntArray, PixelArray, as_pixels, read_table
from geomem.data.sets import decode
from geomem.errors import InputError


@dataclass(frozen=True, eq=False)
class ImageData:
    r"""A checked array of images, or of vectors, with their names.

    Raw values become floats as ``x / scale + offset``: 8-bit images as x/127.5 - 1, the
    17 grey levels of the digits as x/8 - 1, float arrays as they are.

    Attributes:
        name: What to call the set.
        pixels: The raw values: uint8 with shape (N, C, H, W), or float32 with shape :math:`(N, *)`.
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
        r"""Takes an array at hand, by the rules of :func:`geomem.data.loaders.as_pixels`."""
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
    ties = [codes(np.array(data.digests()))]
    ties += [] if data.groups is None else [ties[0].max() + 1 + codes(data.groups)]
    n, hubs = len(data), np.concatenate(ties)
    rows, size = np.tile(np.arange(n), len(ties)), n + int(hubs.max()) + 1
    graph = coo_array((np.ones(len(hubs)), (rows, n + hubs)), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    return _by_appearance(components[:n])


def codes(values: PixelArray) -> IntArray:
    r"""Numbers equal values alike, from 0 on, with shape (N)."""
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _by_appearance(values: PixelArray) -> IntArray:
    _, first, codes = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes].astype(np.int64)
