r"""Pictures: what a viewer shows is what arrives, and what needs a choice is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from geomem.data import load_data
from tests.data.files import GREY, RGB, refuses, write_images


def test_palettes_and_opaque_alpha_are_colour(tmp_path: Path) -> None:
    opaque = np.concatenate([RGB[0], np.full((5, 7, 1), 255, np.uint8)], axis=2)
    write_images(tmp_path, {"a.png": opaque})
    Image.fromarray(RGB[1]).quantize(64).save(tmp_path / "b.png")
    data = load_data(str(tmp_path))
    assert np.array_equal(data.pixels[0], RGB[0].transpose(2, 0, 1))
    assert np.array_equal(data.pixels[1], RGB[1].transpose(2, 0, 1))


def test_transparent_and_16_bit_images_are_refused(tmp_path: Path) -> None:
    clear = np.concatenate([RGB[0], RGB[1, ..., :1]], axis=2)
    refuses(write_images(tmp_path / "a", {"a.png": clear, "b.png": RGB[1]}), "a.png", "transparent")
    deep = GREY.astype(np.uint16) * 200
    refuses(write_images(tmp_path / "b", {"a.png": deep[0], "b.png": deep[1]}), "a.png", "8 bits")
