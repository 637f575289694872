r"""Patches around pixels: which may be compared, how far they are apart, and what they hold.

A patch of side k = 2 r + 1 ends where the image ends. Two positions are of one class where the
border cuts their patches in the same way; an image of H x W pixels has (H - 2r)(W - 2r) positions
inside, which are one class, rows of positions along the edges, and corners, each by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from geomem.exact.blocks import Blocks

# Pairs of a position and a patch at a time: 1 MiB of float64 stays in a cache.
PAIRS = 2**17


@dataclass(frozen=True)
class Positions:
    r"""Rows ``top..bottom`` and columns ``left..right`` (the last ones included) of one class.

    Attributes:
        above: How many rows of the patch are above its middle; ``below`` and so on likewise.
    """

    top: int
    bottom: int
    left: int
    right: int
    above: int
    below: int
    before: int
    after: int

    def windows(self, images: Tensor) -> Tensor:
        r"""The patches of images ``(n, C, H, W)``, with shape (n, positions, coordinates)."""
        height, width = self.above + 1 + self.below, self.before + 1 + self.after
        part = images[
            :,
            :,
            self.top - self.above : self.bottom + self.below + 1,
            self.left - self.before : self.right + self.after + 1,
        ]
        windows = part.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)
        return windows.reshape(len(images), self.count, -1)

    @property
    def count(self) -> int:
        return (self.bottom - self.top + 1) * (self.right - self.left + 1)

    def index(self, width: int, device: torch.device) -> Tensor:
        r"""Their numbers in an image of that width."""
        rows = torch.arange(self.top, self.bottom + 1, device=device)
        columns = torch.arange(self.left, self.right + 1, device=device)
        return (rows[:, None] * width + columns).flatten()


def classes(H: int, W: int, side: int) -> list[Positions]:
    r"""The classes of all positions of an image."""
    rows, columns = _cuts(H, side // 2), _cuts(W, side // 2)
    return [Positions(a, b, c, d, *u, *v) for a, b, u in rows for c, d, v in columns]


def _cuts(size: int, radius: int) -> list[tuple[int, int, tuple[int, int]]]:
    # (first, last, (reach before, reach after)); what is cut alike is contiguous
    found: dict[tuple[int, int], list[int]] = {}
    for i in range(size):
        found.setdefault((min(i, radius), min(size - 1 - i, radius)), []).append(i)
    return [(at[0], at[-1], reach) for reach, at in found.items()]


class SamePlace:
    r"""Images whose patches are compared at the same position, for all positions.

    Arguments:
        images: Some images, with shape :math:`(m, C, H, W)`, in float64.
        side: The side of the patches.
        at: The positions that are wanted, with shape :math:`(R)`.
    """

    def __init__(self, images: Tensor, side: int, at: Tensor) -> None:
        self.images = images.permute(1, 2, 3, 0).contiguous()  # last axis long: vectors
        self.at, self.side = at, side

    def sums_over_patches(self, pixels: Tensor) -> Tensor:
        r"""Sums of pixels ``(H, W, m)`` over each patch, with shape (R, m)."""
        H, W = pixels.shape[:2]
        return (self._band(H) @ (self._band(W) @ pixels).flatten(1)).reshape(H * W, -1)[self.at]

    def _band(self, size: int) -> Tensor:
        r = self.side // 2  # a product with a band of ones: a box filter without a recurrence
        return self.images.new_ones(size, size).tril(r).triu(-r)

    def distances(self, x: Tensor) -> Tensor:
        r"""Squared distances to the patches of one image ``(C, H, W)``, with shape (R, m)."""
        return self.sums_over_patches((self.images - x[..., None]).square().sum(0))

    @cached_property
    def middles(self) -> Tensor:
        r"""The pixels in the middle, with shape (C, R, m)."""
        return self.images.flatten(1, 2)[:, self.at]

    def along(self, u: Tensor) -> Tensor:
        r"""Products of one direction ``(C, H, W)``, cut to each patch, with it, shape (R, m)."""
        return self.sums_over_patches((self.images * u[..., None]).sum(0))


class AnyPlace:
    r"""Images whose patches are compared at all positions of one class.

    Arguments:
        images: Some images, with shape :math:`(n, C, H, W)`, in float64.
        positions: The positions.
    """

    def __init__(self, images: Tensor, positions: Positions) -> None:
        self.positions = positions
        self.patches = positions.windows(images).flatten(0, 1)
        self.squares = self.patches.square().sum(1)
        self.middles = (
            images[
                :,
                :,
                positions.top : positions.bottom + 1,
                positions.left : positions.right + 1,
            ]
            .permute(1, 0, 2, 3)
            .flatten(1)[:, None]
        )

    def distances(self, x: Tensor) -> Tensor:
        r"""Squared distances, up to one number a row that no weight depends on: shape (R, m)."""
        return torch.addmm(
            self.squares, self.positions.windows(x[None])[0], self.patches.T, alpha=-2
        )

    def along(self, u: Tensor) -> Tensor:
        r"""Products of one direction ``(C, H, W)``, cut to each patch, with it, shape (R, m)."""
        return self.positions.windows(u[None])[0] @ self.patches.T


def groups(
    source: Blocks, middle: float, side: int, equivariant: bool, device: torch.device
) -> Iterator[tuple[Tensor, Iterator[SamePlace | AnyPlace]]]:
    r"""Positions that are answered together, with shape (R), and the patches they meet, in parts.

    Arguments:
        source: The images, with item shape :math:`(*, H, W)`.
        middle: What is subtracted from each pixel.
        side: The side of the patches.
        equivariant: Whether patches at other positions of the class count, too.
        device: Where to compute.
    """
    H, W = source.item_shape[-2:]

    def images(count: int) -> Iterator[Tensor]:
        for rows in source.blocks(max(1, count)):
            block = rows.to(device, torch.float64).reshape(len(rows), -1, H, W)
            yield block - middle

    alone = torch.arange(H * W, device=device)
    if equivariant:
        found = classes(H, W, side)
        for p in found:
            if p.count > 1:
                size = PAIRS // p.count**2
                yield p.index(W, device), (AnyPlace(block, p) for block in images(size))
        single = [p.index(W, device) for p in found if p.count == 1]
        alone = torch.cat(single) if single else alone[:0]
    if len(alone):
        size = PAIRS // (H * W)
        yield alone, (SamePlace(block, side, alone) for block in images(size))
