r"""Pictures brought to one size as a trainer does it: resized, then cropped.

The shorter side becomes ``size`` and the longer one follows, cut to whole pixels; the crop is a
square at the centre. Of a trainer that crops at random the centre is what is looked at, and said.
Resizing is Pillow's, with antialiasing, as in torchvision's ``Resize`` of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from geomem.arguments import Whole, checked
from geomem.data.reading import PixelArray
from geomem.errors import InputError

Resampling = Literal["bilinear", "bicubic", "lanczos"]


@checked
@dataclass(frozen=True)
class Framing:
    r"""How a trainer framed its pictures.

    Attributes:
        size: The shorter side after resizing, in pixels.
        crop: A square of that size at the centre, or at random; as resized if not given.
        resample: How pixels are interpolated.
    """

    size: Annotated[int, Whole(least=1)]
    crop: Literal["center", "random"] | None = None
    resample: Resampling = "bilinear"

    def resized(self, width: int, height: int) -> tuple[int, int]:
        r"""Width and height after resizing.

        Example:
            >>> Framing(16).resized(40, 30), Framing(16).resized(30, 41)
            ((21, 16), (16, 21))
        """
        short = min(width, height)
        return int(self.size * width / short), int(self.size * height / short)

    def framed(self, width: int, height: int) -> tuple[int, int]:
        r"""Width and height in the end."""
        return (self.size, self.size) if self.crop else self.resized(width, height)

    def __call__(self, pixels: PixelArray) -> PixelArray:
        r"""A picture, framed.

        Arguments:
            pixels: uint8 with shape (C, H, W).

        Returns:
            uint8 with shape (C, size, size), or as resized.

        Raises:
            InputError: If they are no 8-bit picture.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3:
            raise InputError(
                "only 8-bit pictures are resized; leave out `size`, or bring the array to it before"
            )
        from PIL import Image

        height, width = pixels.shape[1:]
        target = self.resized(width, height)
        if target != (width, height):
            method = getattr(Image.Resampling, self.resample.upper())
            planes = [np.asarray(Image.fromarray(p).resize(target, method)) for p in pixels]
            pixels = np.stack(planes)
        if self.crop is None:
            return pixels
        left, top = (round((side - self.size) / 2) for side in target)
        return pixels[:, top : top + self.size, left : left + self.size]

    def __str__(self) -> str:
        cropped = {
            None: "",
            "center": ", cropped at the centre",
            "random": ", cropped at the centre, where its trainer cropped at random",
        }[self.crop]
        return f"resized to {self.size} pixels ({self.resample}){cropped}"


def framed(pixels: PixelArray, framing: Framing) -> PixelArray:
    r"""An array of pictures, framed.

    Arguments:
        pixels: uint8 with shape (N, C, H, W).
        framing: How.

    Returns:
        uint8 with shape (N, C, H', W').

    Raises:
        InputError: If they are no 8-bit pictures.
    """
    return np.stack([framing(picture) for picture in pixels])
