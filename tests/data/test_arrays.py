r"""Arrays: what a file holds is what arrives, and what cannot be used is refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from geomem.data import ImageData, load_data
from tests.data.files import GREY, RGB, RNG, refuses, save, write_idx, write_images


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 5, 7, 1), (6, 1, 5, 7)])
def test_grey_images_come_in_three_layouts(shape: tuple[int, ...]) -> None:
    assert np.array_equal(ImageData.of("x", GREY.reshape(shape)).pixels, GREY[:, None])


def test_colour_images_come_in_two_layouts() -> None:
    first = RGB.transpose(0, 3, 1, 2)
    assert np.array_equal(ImageData.of("x", RGB).pixels, first)
    assert np.array_equal(ImageData.of("x", first).pixels, first)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 3, 8, 3), np.uint8), "could be the second or the last"),
        (np.zeros((4, 1, 8, 1), np.uint8), "could be the second or the last"),
        (np.zeros((4, 8, 8, 4), np.uint8), "alpha"),
        (np.zeros((4, 8), np.uint8), "save vectors as float32"),
        (np.zeros((4, 0, 8), np.uint8), "shape (4, 0, 8)"),
        (np.zeros((4, 8, 8), np.int64), "numpy.uint8"),
        (np.zeros((4, 8, 8), bool), "type bool"),
        (np.zeros((4, 8), complex), "type complex128"),
        (np.zeros(4), "(N, *)"),
        (np.zeros((4, 0)), "(N, *)"),
        (np.zeros((1, 8)), "at least 2"),
        (np.zeros((0, 8)), "at least 2"),
        (np.ones((4, 8)), "all 4 images"),
        (np.full((4, 8, 8), 7, np.uint8), "all 4 images"),
        (np.array([[0.0, 1.0], [1.0, np.nan]]), "image 1 at index (1, 1)"),
        (np.array([[0.0, np.inf], [1.0, np.nan]]), "image 0 at index (0, 1)"),
        (np.array([[0.0], [1e300]]), "in float32"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    refuses(save(tmp_path / "x.npy", array), "x.npy", reason)


def test_npy_npz_idx_and_folders_hold_the_same_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", GREY)
    np.savez(tmp_path / "two.npz", grey=GREY, rgb=RGB)
    write_images(tmp_path / "folder", {f"{i}.png": image for i, image in enumerate(GREY)})
    specs = [
        save(tmp_path / "x.npy", GREY),
        tmp_path / "one.npz",
        f"{tmp_path / 'two.npz'}:grey",
        write_idx(tmp_path / "x-idx3-ubyte", GREY),
        write_idx(tmp_path / "x.gz", GREY),
        tmp_path / "folder",
    ]
    loaded = [load_data(str(spec)) for spec in specs]
    assert {data.digest for data in loaded} == {ImageData.of("x", GREY).digest}
    assert [data.name for data in loaded[:3]] == ["x.npy", "one.npz", "two.npz:grey"]


def test_idx_floats_are_big_endian(tmp_path: Path) -> None:
    array = RNG.normal(size=(3, 4)).astype(">f4")
    data = load_data(str(write_idx(tmp_path / "x.idx", array, code=0x0D)))
    assert torch.equal(data.tensor(range(3)), torch.from_numpy(array.astype(np.float32)))


def test_big_endian_arrays_have_the_digests_of_little_endian_ones(tmp_path: Path) -> None:
    array = RNG.normal(size=(3, 4)).astype(np.float32)
    big = load_data(str(save(tmp_path / "x.npy", array.astype(">f4"))))
    assert big.digest == ImageData.of("x", array).digest


def test_keys_are_asked_for_and_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", grey=GREY, rgb=RGB)
    refuses(tmp_path / "x.npz", "2 arrays", "grey", "rgb")
    refuses(f"{tmp_path / 'x.npz'}:blue", "'blue'", "grey")
    refuses(f"{save(tmp_path / 'x.npy', GREY)}:grey", "leave out :grey")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.gz", "x.idx"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_truncated_files_are_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, GREY)
    elif path.suffix == ".npz":
        np.savez(path, GREY)
    else:
        write_idx(path, GREY)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    refuses(path, name)


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0", b"hello", b"\0\0\x08", b"\0\0\x08\xff"])
def test_unknown_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    refuses(tmp_path / "x")


class Bomb:
    r"""Says that it was unpickled by making a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["x.pkl", "data_batch_1", "x.npy", "unnamed"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, protocol: int, name: str) -> None:
    exploded = tmp_path / "exploded"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(exploded), protocol))
    refuses(tmp_path / name, name)
    assert not exploded.exists()


def test_pickles_inside_other_files_are_refused_and_never_run(tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    objects = np.array([Bomb(exploded), 1], dtype=object)
    refuses(save(tmp_path / "x.npy", objects), "x.npy", "Python objects")
    np.savez(tmp_path / "x.npz", objects)
    refuses(tmp_path / "x.npz", "x.npz", "Python objects")
    torch.save({"x": torch.eye(2)}, tmp_path / "x.pt")
    refuses(tmp_path / "x.pt", "is a pickle")
    (tmp_path / "x.pt").rename(tmp_path / "renamed.npz")
    refuses(tmp_path / "renamed.npz", "is a pickle")
    assert not exploded.exists()


def test_only_the_array_that_was_asked_for_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", good=GREY, bad=np.array([{}], dtype=object))
    assert len(load_data(f"{tmp_path / 'x.npz'}:good")) == 6
    refuses(f"{tmp_path / 'x.npz'}:bad", "Python objects")
