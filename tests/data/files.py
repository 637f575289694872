r"""Files for the tests of the data: written here, refused there."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geomem.data import load_data
from geomem.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def refuses(spec: object, *fragments: str, **tables: Any) -> None:
    r"""Loading fails with one sentence that holds all of the fragments."""
    with pytest.raises(InputError) as caught:
        load_data(str(spec), **tables)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def write_idx(path: Path, array: np.ndarray, code: int = 0x08) -> Path:
    raw = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    raw += array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def write_images(folder: Path, images: dict[str, np.ndarray]) -> Path:
    for name, pixels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder
