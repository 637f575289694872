r"""Small pictures for the page: arrays to PNG, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating]


def is_picture(item_shape: tuple[int, ...]) -> bool:
    r"""Whether items of this shape can be looked at: (H, W), (1, H, W) or (3, H, W)."""
    return len(item_shape) == 2 or (len(item_shape) == 3 and item_shape[0] in (1, 3))


@dataclass(frozen=True)
class Painter:
    r"""Turns arrays into pictures with one range of brightness.

    Attributes:
        low: The value that is black.
        high: The value that is white.
        side: The longest side of a picture in pixels; larger ones are reduced.
    """

    low: float = -1.0
    high: float = 1.0
    side: int = 64

    @classmethod
    def of(cls, items: Floats, quantum: float, side: int = 64) -> Painter:
        r"""The range of 8-bit images is known; float arrays show their own."""
        finite = items[np.isfinite(items)]
        if quantum > 0 or not finite.size:
            return cls(side=side)
        low, high = (float(v) for v in np.quantile(finite, (0.005, 0.995)))
        return cls(low, max(high, low + 1e-12), side)

    def image(self, item: Floats) -> str:
        r"""A data URI of an image with shape (H, W), (1, H, W) or (3, H, W)."""
        return self._encode((item - self.low) / (self.high - self.low))

    def direction(self, vector: Floats, kept: float = 1.0) -> str:
        r"""A data URI of a direction: 0 is grey, its largest component black or white.

        Where a share of the variance along it is kept, it is fainter by the root of that.
        """
        top = max(float(np.abs(vector).max()), 1e-12)
        return self._encode(0.5 + vector * kept**0.5 / (2 * top))

    def _encode(self, unit: Floats) -> str:
        pixels = np.round(255 * np.clip(np.nan_to_num(unit, nan=0.5), 0, 1)).astype(np.uint8)
        colour = pixels.ndim == 3 and len(pixels) == 3
        picture = Image.fromarray(
            pixels.transpose(1, 2, 0) if colour else pixels.reshape(pixels.shape[-2:])
        )
        picture.thumbnail((self.side, self.side))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
