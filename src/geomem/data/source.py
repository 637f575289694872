r"""A data set as every command takes it: its options, its images, the parts that they play.

What follows from the reserved images alone stands here, too: the unit of noise, the principal
directions, the linear control.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from geomem.arguments import Text, Whole, checked
from geomem.data.images import ImageData, duplicate_groups, load_data
from geomem.data.reading import IntArray
from geomem.data.sets import MANIFOLDS, same_spelling
from geomem.data.splits import Split, default_split, read_split
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact.gaussian import GaussianDenoiser
from geomem.manifolds import PAPER_VARIANCES, LinearManifold, NormalizedLinear
from geomem.manifolds.curved import Sphere
from geomem.stats import torch_rng
from geomem.subspaces import PrincipalDirections

KNOWN_NAMES = MANIFOLDS
LINEAR_NAMES = ("linear", "linear-sphere")  # of them, those whose theory is known
LINEAR_SPARE = 1000  # held-out and reserved points drawn from a known manifold


@checked
@dataclass(frozen=True)
class DataOptions:
    r"""The data of a command.

    Attributes:
        data: The images: digits, mnist, fashion-mnist, cifar10, olivetti, or PATH[:key] of an
            .npy, .npz or idx file, a folder of images, or parquet files or tars of them; linear
            and linear-sphere are drawn from a known plane, sphere from a sphere.
        split: A split file of ``geomem split``; the default split of the data if not given.
        groups: A CSV file with header file,value: images of equal value show the same subject
            and stay together.
        labels: Likewise the class of each image, to stratify by.
        variances: The variances of linear and linear-sphere, the paper's if not given; those of
            sphere are all equal, six of 1 if not given.
        ambient_dim: The dimension of the space around them.
        size: Pictures are resized, so that their shorter side is this long.
        crop: And cropped to a square: at the centre, also where a trainer crops at random.
        resample: How pixels are interpolated then; bilinear if not given.
    """

    data: Annotated[str, Text()] = "digits"
    split: Path | None = None
    groups: Path | None = None
    labels: Path | None = None
    variances: tuple[float, ...] = ()
    ambient_dim: Annotated[int, Whole(least=1)] = 30
    size: Annotated[int, Whole(least=1)] | None = None
    crop: Literal["center", "random"] | None = None
    resample: Literal["bilinear", "bicubic", "lanczos"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", same_spelling(self.data))  # one data set, one config


@checked
@dataclass(frozen=True)
class TrainedOnOptions(DataOptions):
    r"""The data that a stranger's model was trained on.

    Attributes:
        captions: A CSV file with header file,value: the caption of each image; else as
            metadata.csv, the parquet file or the tar tells.
        flip: Its trainer mirrored images at random, so that the mirror of each belongs to the
            training set.
    """

    captions: Path | None = None
    flip: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    r"""The data of a run and the parts that they play.

    Attributes:
        data: The images, or the vectors of a known manifold.
        split: Pool, held-out and reserved ones.
        manifold: The manifold, where it is known.
    """

    data: ImageData
    split: Split
    manifold: LinearManifold | Sphere | None = None

    @property
    def population(self) -> Denoiser | None:
        r"""The population denoiser, where it is known."""
        return self.manifold.population_denoiser() if self.manifold else None

    @cached_property
    def reserved(self) -> Tensor:
        r"""The reserved images as floats, with shape (R, \*)."""
        return self.data.tensor(self.split.reserved)

    @cached_property
    def linear_control(self) -> GaussianDenoiser:
        r"""The best linear denoiser of the reserved images."""
        return GaussianDenoiser.fit(self.reserved)

    @cached_property
    def directions(self) -> PrincipalDirections:
        r"""The principal directions of the reserved images, largest component positive."""
        directions = PrincipalDirections.of(self.linear_control)
        vectors = directions.vectors
        largest = vectors.abs().argmax(0)
        signs = vectors[largest, torch.arange(vectors.shape[1])].sign()
        return replace(directions, vectors=vectors * torch.where(signs == 0, 1, signs))

    @cached_property
    def rms(self) -> float:
        r"""Root-mean-square deviation per coordinate of the reserved images."""
        flat = self.reserved.flatten(1).double()
        return float((flat - flat.mean(0)).square().mean().sqrt())

    @cached_property
    def groups(self) -> IntArray:
        r"""Groups of images, with shape (N): exact duplicates and declared ones."""
        return duplicate_groups(self.data)

    @cached_property
    def digests(self) -> dict[str, str | None]:
        r"""What a study rests on: the sha256 of data, split, groups and labels."""
        data = self.data
        return {
            "data": data.digest,
            "split": self.split.digest(data),
            "groups": data.groups_digest,
            "labels": data.labels_digest,
        }


def load_images(options: DataOptions) -> ImageData:
    r"""The images that options name, framed and labelled as they say.

    Raises:
        InputError: If anything in them cannot be used as it is.
    """
    return load_data(
        options.data,
        labels=options.labels,
        groups=options.groups,
        captions=getattr(options, "captions", None),
        size=options.size,
        crop=options.crop,
        resample=options.resample or "bilinear",
    )


def load_source(options: DataOptions, *, seed: int = 0, largest: int = 0) -> Source:
    r"""Data by name or path, with their split; known manifolds are sampled.

    Arguments:
        options: The data and what is declared about them.
        seed: The seed of the default split, and of the points of a manifold.
        largest: How many training points a manifold must provide.

    Raises:
        InputError: If anything in them cannot be used as it is.
    """
    if options.data in KNOWN_NAMES:
        return _known_source(options, seed, largest)
    data = load_images(options)
    split = read_split(options.split, data) if options.split else default_split(data, seed)
    return Source(data, split)


Drawn = LinearManifold | NormalizedLinear | Sphere


def _known_source(options: DataOptions, seed: int, largest: int) -> Source:
    spec = options.data
    manifold: Drawn
    manifold, known = _sphere(options) if spec == "sphere" else _plane(options)
    rngs = [torch_rng(seed, f"{spec}/{part}") for part in ("pool", "held_out", "reserved")]
    counts = (largest, LINEAR_SPARE, LINEAR_SPARE)
    parts = [manifold.sample(n, rng) for n, rng in zip(counts, rngs, strict=True)]
    data = ImageData.of(spec, torch.cat(parts).float().numpy())
    edges = np.cumsum([0, *counts])
    pool, held_out, reserved = (np.arange(a, b) for a, b in pairwise(edges.tolist()))
    return Source(data, Split(pool, held_out, reserved, seed), known)


def _plane(options: DataOptions) -> tuple[Drawn, LinearManifold | None]:
    # Samples that are normalised have no population denoiser in closed form.
    values = torch.tensor(options.variances or PAPER_VARIANCES, dtype=torch.float64)
    plane = LinearManifold(values, max(options.ambient_dim, len(values)))
    if options.data == "linear":
        return plane, plane
    return NormalizedLinear(plane), None


def _sphere(options: DataOptions) -> tuple[Sphere, Sphere]:
    values = options.variances or (1.0,) * 6
    if len(values) < 2 or len(set(values)) > 1 or values[0] <= 0:
        raise InputError(
            f"`variances` is {list(values)}, and those of a sphere are all equal; pass m + 1 equal "
            "numbers above 0 for a sphere of dimension m"
        )
    p = len(values)
    sphere = Sphere(p - 1, max(options.ambient_dim, p), radius=(p * values[0]) ** 0.5)
    return sphere, sphere
