r"""What follows from a config before anything is trained: points, levels, units of work.

The design is worked out once and written down. Every process, today's or next year's, reads
points and levels from it and recomputes only what has one answer: the principal directions
and the linear control of the reserved images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomem.data.images import ImageData, duplicate_groups, load_data
from geomem.data.splits import Split, default_split, nested_subsets, read_split
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact.gaussian import GaussianDenoiser
from geomem.manifolds import LinearManifold, NormalizedLinear
from geomem.noise import log_levels
from geomem.stats import numpy_rng, torch_rng
from geomem.subspaces import PrincipalDirections

LINEAR_NAMES = ("linear", "linear-sphere")
LINEAR_SPARE = 1000  # held-out and reserved points drawn from a known manifold


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
    manifold: LinearManifold | None = None

    @property
    def population(self) -> Denoiser | None:
        r"""The population denoiser, where it is known."""
        return self.manifold.population_denoiser() if self.manifold else None

    @cached_property
    def reserved(self) -> Tensor:
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
        object.__setattr__(directions, "vectors", vectors * torch.where(signs == 0, 1, signs))
        return directions

    @cached_property
    def rms(self) -> float:
        r"""Root-mean-square deviation per coordinate of the reserved images."""
        flat = self.reserved.flatten(1).double()
        return float((flat - flat.mean(0)).square().mean().sqrt())

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        r"""Groups of images: exact duplicates and declared ones."""
        return duplicate_groups(self.data)


def load_source(
    spec: str,
    *,
    split: Path | None = None,
    groups: Path | None = None,
    seed: int = 0,
    largest: int = 0,
    variances: Sequence[float] = (),
    ambient_dim: int = 30,
) -> Source:
    r"""Data by name or path, with their split; known manifolds are sampled.

    Arguments:
        spec: A name, a path, or ``linear`` or ``linear-sphere``.
        split: A split file; the default split of the data if not given.
        groups: A CSV file of the group of each image, see :func:`geomem.data.load_data`.
        seed: The seed of the default split, and of the points of a manifold.
        largest: How many training points a manifold must provide.
        variances: The variances of a linear manifold.
        ambient_dim: The dimension of the space around it.
    """
    if spec in LINEAR_NAMES:
        return _linear_source(spec, seed, largest, variances, ambient_dim)
    data = load_data(spec, groups=groups)
    return Source(data, read_split(split, data) if split else default_split(data, seed))


def _linear_source(
    spec: str, seed: int, largest: int, variances: Sequence[float], ambient_dim: int
) -> Source:
    values = torch.tensor(list(variances), dtype=torch.float64)
    plane = LinearManifold(values, max(ambient_dim, len(values)))
    manifold = plane if spec == "linear" else NormalizedLinear(plane)
    rngs = [torch_rng(seed, f"{spec}/{part}") for part in ("pool", "held_out", "reserved")]
    counts = (largest, LINEAR_SPARE, LINEAR_SPARE)
    parts = [manifold.sample(n, rng) for n, rng in zip(counts, rngs, strict=True)]
    data = ImageData.of(spec, torch.cat(parts).float().numpy())
    edges = np.cumsum([0, *counts])
    pool, held_out, reserved = (np.arange(a, b) for a, b in pairwise(edges.tolist()))
    split = Split(pool, held_out, reserved, seed)
    return Source(data, split, plane if spec == "linear" else None)


def default_window(source: Source) -> tuple[float, float]:
    r"""The default window of noise levels, in the data's units.

    From the larger of .03 rms and half a quantisation step (below it noise sees the grid of
    grey levels) to where the control's error is below 2 % of its maximum.
    """
    low = max(0.03 * source.rms, source.data.quantum / 2)
    grid = np.geomspace(low, 1e4 * source.rms, 2000)
    control = source.linear_control
    variances = torch.cat([control.variances, torch.full((control.complement,), control.rest)])
    errors = np.array([float((variances / (variances + s**2)).sum()) for s in grid])
    return low, float(grid[errors < 0.02 * errors[0]][0])


def choose_levels(
    source: Source, relative: Sequence[float] | None, count: int
) -> NDArray[np.float64]:
    r"""The noise levels in the data's units: those asked for, or a grid over the window."""
    if relative is None:
        return log_levels(*default_window(source), count).numpy()
    levels = np.array(sorted(set(relative)), dtype=float)
    if len(levels) < 2 or not np.isfinite(levels).all() or levels[0] <= 0:
        raise InputError(
            f"--sigmas {list(relative)}: pass at least two different levels, finite and above 0, "
            "in units of the data's rms"
        )
    return levels * source.rms


def choose_sizes(sizes: Sequence[int | str], pool: int) -> list[int]:
    r"""Training-set sizes, increasing; ``all`` is the whole pool."""
    numbers = sorted({pool if size == "all" else int(size) for size in sizes})
    if not numbers or numbers[0] < 2:
        raise InputError(f"--sizes {list(sizes)}: pass training-set sizes of at least 2")
    if numbers[-1] > pool:
        raise InputError(
            f"N = {numbers[-1]} is larger than the pool of {pool} images; "
            f"pass sizes up to {pool}, or `all`"
        )
    return numbers


def make_design(
    source: Source,
    units: Sequence[dict[str, Any]],
    *,
    sizes: Sequence[int],
    sigmas: NDArray[np.float64],
    num_points: int,
    seed: int,
) -> dict[str, Any]:
    r"""The design of a run, as plain JSON values."""
    order = nested_subsets(source.split.pool, [sizes[-1]], seed)[sizes[-1]]
    held_out = numpy_rng(seed, "held-out points").permutation(source.split.held_out)
    points = {"training": order[:num_points], "held_out": held_out[:num_points]}
    if min(len(source.split.held_out), len(source.split.reserved)) < 8:
        raise InputError(
            "fewer than 8 held-out or reserved images say nothing; hold out more of the data"
        )
    digests = source.data.digests()
    return {
        "units": list(units),
        "sizes": list(sizes),
        "sigmas": [float(s) for s in sigmas],
        "window": [float(sigmas[0]), float(sigmas[-1])],
        "rms": source.rms,
        "points": {at: [int(i) for i in index] for at, index in points.items()},
        "point_digests": {at: [digests[i] for i in index] for at, index in points.items()},
        "point_groups": {at: [int(g) for g in source.groups[i]] for at, i in points.items()},
        "order": [int(i) for i in order],
        "direction_counts": source.directions.counts,
        "direction_variances": source.directions.mean_variances,
        "control": "population" if source.population else "linear",
        "data": _describe(source),
    }


def _describe(source: Source) -> dict[str, Any]:
    split = source.split
    return {
        "name": source.data.name,
        "digest": source.data.digest,
        "item_shape": list(source.data.item_shape),
        "quantum": source.data.quantum,
        "pool": len(split.pool),
        "held_out": len(split.held_out),
        "reserved": len(split.reserved),
        "left_out": split.left_out,
        "ambient_dim": math.prod(source.data.item_shape),
    }
