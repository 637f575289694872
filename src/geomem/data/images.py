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
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from geomem.arguments import Number, Whole, checked, shown
from geomem.compute.progress import Forecast
from geomem.data.arrays import ADVICE, grey_step, in_order
from geomem.data.framing import Framing
from geomem.data.reading import Decoded, IntArray, PixelArray, whole_numbers
from geomem.data.sets import decode
from geomem.data.tables import read_table
from geomem.errors import InputError


@checked
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
        classes: The names of the labels 0, 1, ..., where they have names.
        account: What was read, left out, and done to it, in one line, if there is anything to say.
        captions: The caption of each image, with length N, if known.

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
    scale: Annotated[float, Number(above=0)] = 1.0
    offset: float = 0.0
    labels: IntArray | None = None
    groups: IntArray | None = None
    files: tuple[str, ...] | None = None
    num_train: Annotated[int | None, Whole(least=1)] = None
    classes: tuple[str, ...] | None = None
    account: str | None = None
    captions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        name, pixels = self.name, self.pixels
        is_array = isinstance(pixels, np.ndarray) and pixels.ndim >= 2
        if not is_array or pixels.dtype not in (np.uint8, np.float32):
            raise InputError(
                f"`pixels` is {shown(pixels)}; pass it through ImageData.of, which converts it"
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
                f"all {len(pixels)} images of {name} are equal, so there is no variation to "
                "measure; check what was saved"
            )
        for what in ("labels", "groups", "files", "captions"):
            values = getattr(self, what)
            if values is not None and np.shape(values) != (len(pixels),):
                raise InputError(
                    f"{name} has {len(pixels)} images and {what} of shape {np.shape(values)}; "
                    "pass one for each image"
                )

    @staticmethod
    def of(
        name: str,
        array: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> ImageData:
        r"""Takes an array at hand, by the rules of :func:`geomem.data.arrays.in_order`.

        Arguments:
            name: What to call the set.
            array: The images, with shape :math:`(N, *)`: grey ones (N, H, W), colour with 3
                channels as second or last axis, or vectors (N, d).
            labels: The class of each, with shape (N): integers, or names.
            groups: Likewise the subject of each.

        Raises:
            InputError: If they are no images or vectors, or their labels hold no value.
        """
        raw = in_order(_as_array("array", array), name)
        found: dict[str, IntArray] = {}
        classes = None
        for what, values in (("labels", labels), ("groups", groups)):
            if values is None:
                continue
            given = _as_array(what, values)
            holes = given.dtype.kind == "f" and np.isnan(given).any()
            if given.dtype.kind not in "iufU" or holes:
                raise InputError(f"`{what}` holds NaN or no value; pass an integer or a name each")
            if given.dtype.kind in "iu":
                found[what] = given.astype(np.int64)
                continue
            names = np.unique(given)
            found[what] = np.searchsorted(names, given).astype(np.int64)
            classes = tuple(str(n) for n in names) if what == "labels" else classes
        raw = replace(raw, classes=classes, labels=found.get("labels"), groups=found.get("groups"))
        return _from_decoded(name, raw)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def item_shape(self) -> tuple[int, ...]:
        r"""The shape of one image, (C, H, W), or of one vector."""
        return tuple(self.pixels.shape[1:])

    @property
    def items(self) -> tuple[str, ...]:
        r"""What to call each image: its relative path, or its number in the array."""
        return self.files or tuple(str(i) for i in range(len(self)))

    @cached_property
    def quantum(self) -> float:
        r"""Distance of two adjacent grey levels in float units; 0 where there are none.

        It is looked for in the values, see :func:`geomem.data.arrays.grey_step`. Noise far
        below it sees the grid of grey levels and not the images.
        """
        return grey_step(self.pixels) / self.scale

    def tensor(self, indices: ArrayLike | Tensor) -> Tensor:
        r"""Images as floats, with shape (len(indices), \*), in the order of the indices.

        Raises:
            InputError: If an index is no whole number from 0 to N - 1, or the floats do not
                fit into the free memory.
        """
        index = whole_numbers("indices", indices, len(self))
        num_bytes = 12 * index.size * (self.pixels.size // len(self))
        if num_bytes > 2**26:
            Forecast(0, num_bytes).check_memory(ADVICE)
        raw = self.pixels[index].astype(np.float32)
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
        head = f"{self.pixels.dtype.name} {shape}\n".encode()
        portable = self.pixels.dtype.newbyteorder("<")
        return tuple(
            hashlib.sha256(head + row.astype(portable).tobytes()).hexdigest() for row in self.pixels
        )

    @cached_property
    def digest(self) -> str:
        r"""The sha256 of the whole set; another order is another digest."""
        return hashlib.sha256("\n".join(self._digests).encode()).hexdigest()

    @cached_property
    def labels_digest(self) -> str | None:
        r"""The sha256 of the labels and of the names of classes; None without labels."""
        return None if self.labels is None else _digest(self.labels, self.classes or ())

    @cached_property
    def groups_digest(self) -> str | None:
        r"""The sha256 of the declared groups, however they are numbered; None without groups."""
        return None if self.groups is None else _digest(_by_appearance(self.groups), ())


def _as_array(name: str, values: ArrayLike) -> PixelArray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"`{name}` is {shown(values)}; pass one array of numbers") from error


def _digest(values: IntArray, names: tuple[str, ...]) -> str:
    content = values.astype("<i8").tobytes() + "\n".join(names).encode()
    return hashlib.sha256(content).hexdigest()


@checked
def load_data(
    spec: str | Path,
    *,
    labels: Path | None = None,
    groups: Path | None = None,
    captions: Path | None = None,
    size: Annotated[int, Whole(least=1)] | None = None,
    crop: Literal["center", "random"] | None = None,
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bilinear",
) -> ImageData:
    r"""Loads a set of images by name or from a path.

    Arguments:
        spec: One of digits, mnist, fashion-mnist, cifar10, olivetti, or ``PATH[:key]`` of an
            .npy, .npz, idx or idx.gz file, a folder of images, or parquet files or tars of them.
        labels: A CSV file with header ``file,value``: the class of each image, to stratify by.
            The first column is a path relative to the folder, or the number in the array.
        groups: Likewise: images with the same value show the same subject.
        captions: Likewise the caption of each; else as ``metadata.csv``, the parquet or the tar
            tells.
        size: Pictures are resized, so that their shorter side is this long.
        crop: And cropped to a square: at the centre, also where a trainer crops at random.
        resample: How pixels are interpolated then.

    Raises:
        InputError: If anything in it cannot be used as it is.

    Example:
        >>> digits = load_data("digits")
        >>> len(digits), digits.item_shape, digits.quantum
        (1797, (1, 8, 8), 0.125)
    """
    if crop is not None and size is None:
        raise InputError("`crop` cuts a square of `size` pixels; pass `size`, too")
    framing = None if size is None else Framing(size, crop, resample)
    data = _from_decoded(*decode(str(spec), framing))
    if labels is not None:
        values, classes = read_table(labels, data.items)
        data = replace(data, labels=values, classes=classes)
    if groups is not None:
        data = replace(data, groups=read_table(groups, data.items)[0])
    if captions is not None:
        values, texts = read_table(captions, data.items)
        said = tuple(str(v) if texts is None else texts[v] for v in values)
        data = replace(data, captions=said)
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
        classes=raw.classes,
        account=raw.account,
        captions=raw.captions,
    )


@checked
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
