r"""Folders: what is read, what is left out, and that both are told."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from geomem.data import load_data
from tests.data.files import GREY, RGB, RNG, refuses, write_images


def test_folders_are_read_in_the_order_of_their_relative_paths(tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a/b.PNG", "c.bmp"]
    write_images(tmp_path, dict(zip(names, GREY, strict=False)))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".thumbnails").mkdir()
    write_images(tmp_path, {".thumbnails/a.png": GREY[5]})
    data = load_data(str(tmp_path))
    assert data.files == ("a/b.PNG", "a/z.png", "b.png", "c.bmp")
    assert np.array_equal(data.pixels[:, 0], GREY[[2, 1, 0, 3]])


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path) -> None:
    data = load_data(str(write_images(tmp_path, {"a.png": GREY[0], "b.png": RGB[1]})))
    assert np.array_equal(data.pixels[0], np.stack([GREY[0]] * 3))
    assert np.array_equal(data.pixels[1], RGB[1].transpose(2, 0, 1))


def test_mixed_sizes_name_both_files_and_sizes(tmp_path: Path) -> None:
    write_images(tmp_path, {"a.png": GREY[0], "b.png": GREY[1], "c.png": GREY[2, :4]})
    refuses(tmp_path, "a.png is 7x5 pixels", "c.png is 7x4")


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    refuses(tmp_path, "no images", "PNG")
    (tmp_path / "notes.txt").write_text("nothing")
    refuses(tmp_path, "1 other files")
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps([1]))
    refuses(tmp_path, "is a pickle")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
def test_truncated_images_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    big = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    write_images(tmp_path, {f"a.{suffix}": big, f"b.{suffix}": big.T.copy()})
    raw = (tmp_path / f"b.{suffix}").read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(raw[: int(share * len(raw))])
    refuses(tmp_path, f"b.{suffix}")
