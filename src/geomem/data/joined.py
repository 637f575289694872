r"""Several sources as one: training, held-out and reserved images that lie in different places.

An audit gets the images that a model was trained on from one place and images that it was not
from another. Joined, they are one set with a split: the pool is all training images, and where
no reserved images are given, half of the held-out ones are reserved. An image that is on both
sides is no control; it is found by its pixels, by its nearest neighbour, and by its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from geomem.arguments import Whole, checked
from geomem.data.images import ImageData, duplicate_groups, load_data
from geomem.data.reading import IntArray
from geomem.data.sets import NAMES, same_spelling
from geomem.data.splits import Split
from geomem.data.tables import read_table
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.stats import numpy_rng

PARTS = ("training", "held_out", "reserved")


@checked
@dataclass(frozen=True)
class PartsOptions:
    r"""The images of an audit, and what is declared about them.

    Attributes:
        data: The images that the model was trained on: PATH[:key] of an .npy, .npz or idx file
            or a folder, or the official part of a named set, such as fashion-mnist:train.
        held_out: Images of the same kind that it was not trained on.
        reserved: Further ones, which are never measured; half of the held-out ones if not given.
        groups: CSV files with header file,value, one for each of the places above: images of
            equal value show the same subject and stay together.
        labels: Likewise the class of each image.
        captions: Likewise the text that each image was trained with; else as metadata.csv, the
            parquet file or the tar tells.
        size: Pictures are resized, so that their shorter side is this long, as the trainer did.
        crop: And cropped to a square: at the centre, also where a trainer crops at random.
        resample: How pixels are interpolated then; bilinear if not given.
    """

    data: str = ""
    held_out: str | None = None
    reserved: str | None = None
    groups: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    captions: tuple[Path, ...] = ()
    size: Annotated[int, Whole(least=1)] | None = None
    crop: Literal["center", "random"] | None = None
    resample: Literal["bilinear", "bicubic", "lanczos"] | None = None

    def __post_init__(self) -> None:
        for name in ("data", "held_out", "reserved"):
            value = getattr(self, name)
            if value:
                object.__setattr__(self, name, _spelled(value))


@dataclass(frozen=True, eq=False)
class Joined:
    r"""Images of several places as one set.

    Attributes:
        data: All of them, training images first.
        split: The pool (all training images), held-out and reserved ones.
        parts: How many images came from each place.
    """

    data: ImageData
    split: Split
    parts: tuple[int, ...]


def _spelled(spec: str) -> str:
    name, _, part = spec.partition(":")
    return spec if name in NAMES and part else same_spelling(spec)


def load_part(spec: str, options: PartsOptions) -> ImageData:
    r"""Images of one place, or of the official part of a named set: ``mnist:train``, ``:test``.

    Arguments:
        spec: The place.
        options: How pictures are framed.

    Raises:
        InputError: If there is no such place or part, or its images cannot be used.
    """
    name, _, part = spec.partition(":")
    named = name in NAMES and part
    data = load_data(
        name if named else spec,
        size=options.size,
        crop=options.crop,
        resample=options.resample or "bilinear",
    )
    if not named:
        return data
    if part not in ("train", "test") or data.num_train is None:
        have = "parts train and test" if data.num_train is not None else "no parts"
        raise InputError(f"{spec!r} is no part of a set; {name} has {have}: pass arrays or folders")
    rows = np.arange(len(data))
    rows = rows[: data.num_train] if part == "train" else rows[data.num_train :]
    return replace(
        data,
        name=spec,
        pixels=data.pixels[rows],
        labels=None if data.labels is None else data.labels[rows],
        groups=None if data.groups is None else data.groups[rows],
        num_train=None,
    )


@checked
def join(options: PartsOptions, seed: Annotated[int, Whole(least=0)] = 0) -> Joined:
    r"""Reads and joins the images of an audit.

    Arguments:
        options: Where they are, and what is declared.
        seed: The seed of the draw of reserved images.

    Raises:
        InputError: If they cannot be used, or differ in size, channels or kind.
    """
    places = (options.data, options.held_out, options.reserved)
    specs = [spec for spec in places if spec]
    found = [load_part(spec, options) for spec in specs]
    first = found[0]
    for name, other in zip(PARTS[1:], found[1:], strict=False):
        said = (other.item_shape, other.pixels.dtype.name, other.scale)
        if said != (first.item_shape, first.pixels.dtype.name, first.scale):
            raise InputError(
                f"`{name}` has images of shape {other.item_shape} ({other.pixels.dtype}) and "
                f"`data` of {first.item_shape} ({first.pixels.dtype}); bring them to one size and "
                "one kind, as the model was trained on"
            )
    tables = {
        name: _tables(name, getattr(options, name), found)
        for name in ("groups", "labels", "captions")
    }
    labels = tables["labels"] or _known([_named_labels(part) for part in found])
    groups = tables["groups"] or _known([_named_groups(part) for part in found])
    captions = tables["captions"] or _known(
        [None if part.captions is None else list(part.captions) for part in found]
    )
    files = [
        f"{name}/{item}" for name, part in zip(PARTS, found, strict=False) for item in part.items
    ]
    accounts = dict.fromkeys(f"{part.name}: {part.account}" for part in found if part.account)
    classes = None if labels is None else tuple(sorted(set(labels), key=_natural))
    data = ImageData(
        found[0].name,
        np.concatenate([part.pixels for part in found]),
        scale=first.scale,
        offset=first.offset,
        labels=None if classes is None else _codes(labels or (), classes),
        groups=None if groups is None else _codes(groups, tuple(dict.fromkeys(groups))),
        files=tuple(files),
        classes=classes,
        account="; ".join(accounts) or None,
        captions=captions,
    )
    counts = tuple(len(part) for part in found)
    return Joined(data, _split(data, counts, seed), counts)


def _split(data: ImageData, counts: Sequence[int], seed: int) -> Split:
    edges = np.cumsum([0, *counts])
    pool, held_out = np.arange(edges[1]), np.arange(edges[1], edges[2])
    if len(counts) == 3:
        return Split(pool, held_out, np.arange(edges[2], edges[3]), seed)
    # Half of the held-out images, with twins and declared groups kept together.
    groups = duplicate_groups(data)[held_out]
    names = numpy_rng(seed, "reserved images").permutation(np.unique(groups))
    sizes = np.array([(groups == name).sum() for name in names])
    taken = names[np.cumsum(sizes) <= len(held_out) // 2]
    there = np.isin(groups, taken)
    return Split(pool, held_out[~there], held_out[there], seed)


def overlap(joined: Joined) -> list[str]:
    r"""Held-out or reserved images that are training images, too: by pixels, nearness or group.

    Near is what differs by less than half a grey level a pixel in the mean square: the same
    image, read or scaled another way.

    Returns:
        Their names, in order.
    """
    data, split = joined.data, joined.split
    groups = duplicate_groups(data)
    others = np.concatenate([split.held_out, split.reserved])
    shared = np.isin(groups[others], groups[split.pool])
    rest = others[~shared]
    if len(rest):
        exact = EmpiricalDenoiser(data.tensor(split.pool))
        images = data.tensor(rest)
        _, distance = exact.neighbours(images, 1)
        spread = float(images.flatten(1).double().var(0).mean().sqrt())
        least = max(data.quantum / 2, 1e-3 * spread) * images[0].numel() ** 0.5
        shared[~shared] = (distance[:, 0] < least).numpy()
    return [data.items[i] for i in np.sort(others[shared])]


def in_space(data: ImageData, latents: torch.Tensor) -> ImageData:
    r"""The same images as points of another space, such as a model's latents.

    They keep their digests: an image is named by its pixels, wherever its latent was made.

    Arguments:
        data: The images.
        latents: Their points, with shape :math:`(N, *)`.
    """
    points = latents.detach().cpu().float().numpy()
    there = replace(data, pixels=points, scale=1.0, offset=0.0)
    there.__dict__["_digests"] = tuple(data.digests())
    return there


# ------------------------------------------------------------------------- what is declared


def _tables(name: str, paths: Sequence[Path], found: Sequence[ImageData]) -> tuple[str, ...] | None:
    if not paths:
        return None
    if len(paths) != len(found):
        raise InputError(
            f"`{name}` names {len(paths)} table(s) for {len(found)} places of images; pass one for "
            "each of `data`, `held_out` and, if given, `reserved`, in this order"
        )
    values: list[str] = []
    for path, part in zip(paths, found, strict=True):
        numbers, texts = read_table(path, part.items)
        values += [str(n) if texts is None else texts[n] for n in numbers.tolist()]
    return tuple(values)


def _named_labels(part: ImageData) -> list[str] | None:
    if part.labels is None:
        return None
    return [str(c) if part.classes is None else part.classes[c] for c in part.labels.tolist()]


def _named_groups(part: ImageData) -> list[str] | None:
    return None if part.groups is None else [str(g) for g in part.groups.tolist()]


def _known(parts: Sequence[list[str] | None]) -> tuple[str, ...] | None:
    if any(part is None for part in parts):
        return None
    return tuple(value for part in parts for value in part or ())


def _codes(values: Sequence[str], names: Sequence[str]) -> IntArray:
    number = {name: k for k, name in enumerate(names)}
    return np.array([number[value] for value in values], dtype=np.int64)


def _natural(text: str) -> tuple[int, int, str]:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)
