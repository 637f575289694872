r"""Arrays: what a file holds is what arrives, and what cannot be used is refused."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geomem.data import ImageData, load_data
from geomem.data.arrays import grey_step
from geomem.data.reading import reading
from geomem.errors import InputError
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


# ------------------------------------------------------------------------- axes of floats


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 5, 7, 1), (6, 5, 7, 3), (6, 3, 5, 7)])
def test_floats_have_the_axes_of_8_bit_images(shape: tuple[int, ...]) -> None:
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    expected = ImageData.of("x", images).pixels
    data = ImageData.of("x", images.astype(np.float32))
    assert np.array_equal(data.pixels, expected)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 4, 8, 8), (4, 8, 8)),
        ((6, 8, 8, 4), (4, 8, 8)),
        ((6, 16, 8, 8), (16, 8, 8)),
        ((6, 8, 8, 16), (16, 8, 8)),
        ((6, 4, 8, 9), (4, 8, 9)),
        ((6, 8, 9, 4), (4, 8, 9)),
        ((6, 5, 5, 5), (5, 5, 5)),
        ((6, 2, 3, 4, 5), (2, 3, 4, 5)),
        ((6, 9), (9,)),
    ],
)
def test_the_channels_of_latents_are_found(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    data = ImageData.of("x", RNG.normal(size=shape))
    assert data.item_shape == expected
    moved = len(shape) == 4 and shape[1:] != expected
    assert (data.account is not None) == moved


def test_floats_with_two_axes_of_channels_are_refused() -> None:
    with pytest.raises(InputError, match="second or the last axis"):
        ImageData.of("x", RNG.normal(size=(6, 3, 8, 3)))


# ---------------------------------------------------------------------------- grey levels

DIGITS = RNG.integers(0, 17, (300, 8, 8)).astype(float)
PHOTOS = RNG.integers(0, 256, (60, 3, 16, 16)) / 255
DEVIATIONS = np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (DIGITS / 8 - 1, 1 / 8),
        (DIGITS, 1),
        ((DIGITS - DIGITS.mean()) / DIGITS.std(), 1 / DIGITS.std()),
        ((DIGITS / DIGITS.std(0)).reshape(300, 64), 1 / DIGITS.std(0).max()),
        (PHOTOS * 2 - 1, 2 / 255),
        ((PHOTOS - 0.45) / DEVIATIONS[:, None, None], 1 / 255 / 0.229),
        ((DIGITS // 4) ** 2 / 16, 1 / 16),
        (np.sqrt(1 + DIGITS // 4), 5**0.5 - 2),
        ((DIGITS > 7) * 2.0 - 1, 2),
        (((DIGITS > 7) * 255).astype(np.uint8), 255),
        ((DIGITS // 4 * 63).astype(np.uint8), 63),
        (np.round(DIGITS // 4 * 63.75).astype(np.uint8), 63),
        ((PHOTOS * 255).astype(np.uint8), 1),
    ],
)
def test_the_step_between_grey_levels_is_found(values: np.ndarray, step: float) -> None:
    assert grey_step(ImageData.of("x", values).pixels) == pytest.approx(step, rel=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=(500, 20)),
        RNG.normal(size=(2, 2)),
        RNG.normal(size=(3, 3, 8, 8)),
        RNG.normal(size=(500, 20)) * (RNG.random((500, 20)) < 0.1),  # sparse
        RNG.normal(size=(500, 20)).astype(np.float16),
        np.concatenate([DIGITS.reshape(300, 64), RNG.normal(size=(300, 1))], axis=1),
    ],
)
def test_values_without_a_grid_have_no_step(values: np.ndarray) -> None:
    assert grey_step(ImageData.of("x", values).pixels) == 0


@given(
    st.floats(1e-3, 1e3),
    st.integers(-50, 50),
    st.lists(st.integers(0, 40), min_size=20, max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_any_grid_is_found(step: float, start: int, levels: list[int]) -> None:
    levels = [0, 1, *levels]
    values = (step * (np.array(levels) + start))[:, None].astype(np.float32)
    assert grey_step(values) == pytest.approx(step, rel=1e-3)


def test_the_step_of_floats_is_that_of_the_same_images_in_8_bits() -> None:
    data = ImageData.of("x", GREY)
    floats = ImageData.of("x", data.tensor(range(6)).numpy())
    assert floats.quantum == pytest.approx(data.quantum, rel=1e-4)


# --------------------------------------------------------------------------------- memory


def write(path: Path) -> Path:
    if path.suffix == ".npy":
        return save(path, GREY)
    if path.suffix == ".npz":
        np.savez_compressed(path, GREY)
        return path
    return write_idx(path, GREY)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.gz", "x.idx"])
def test_what_does_not_fit_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path / name)
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda: 100.0)
    refuses(path, "of memory", "fewer or smaller")


def test_a_small_archive_of_a_huge_array_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "x.npz", np.zeros((4000, 100, 100), np.uint8))
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda: 3e7)
    tracemalloc.start()
    refuses(tmp_path / "x.npz", "38.1 MiB of memory")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_a_packed_file_is_unpacked_no_further_than_it_announces(tmp_path: Path) -> None:
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 3)
    (tmp_path / "x.gz").write_bytes(gzip.compress(head + bytes(50_000_000)))
    tracemalloc.start()
    refuses(tmp_path / "x.gz", "holds more of the 18 bytes")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("packed", [True, False])
def test_a_header_that_announces_too_much_costs_nothing(tmp_path: Path, packed: bool) -> None:
    raw = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**31, 2**31) + bytes(90)
    (tmp_path / "x").write_bytes(gzip.compress(raw) if packed else raw)
    refuses(tmp_path / "x", "90 of the 9903520314283042199192993792 bytes")


@pytest.mark.parametrize("shape", [(2**40,), (2, 2**40, 3), (7, 5)])
def test_an_archive_whose_arrays_are_not_as_large_as_they_say(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    content = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("arr_0.npy", content.getvalue() + bytes(64))
    refuses(tmp_path / "x.npz", "announces an array 'arr_0'", "holds 64")


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    refuses(tmp_path / "pipe", "no regular file")
    refuses("/dev/zero", "no regular file")
    refuses(f"{tmp_path}:key", "folder without keys")


def test_a_file_that_changes_later_changes_no_data(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", GREY.astype(np.float32))
    data = load_data(str(path))
    before = data.digest
    save(path, np.zeros_like(GREY, np.float32))
    assert ImageData.of("x", data.pixels).digest == before


def test_archives_of_other_things_are_told_from_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    refuses(tmp_path / "photos.zip", "unpack it")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"no array")
    refuses(tmp_path / "x.npz", "no NumPy array under 'a'")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "may not be read"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "the system says so"),
        (OSError(5, "Input/output error"), "the system says so"),
        (OSError("broken data stream"), "truncated"),
        (RuntimeError("encrypted"), "truncated"),
    ],
)
def test_locks_and_permissions_are_told_from_damage(error: Exception, reason: str) -> None:
    with pytest.raises(InputError, match=reason), reading(Path("x.npy")):
        raise error


@pytest.mark.parametrize("dims", [0, 1, 100, 255])
def test_idx_files_of_any_number_of_axes_end_in_one_sentence(tmp_path: Path, dims: int) -> None:
    raw = bytes([0, 0, 8, dims]) + struct.pack(f">{dims}I", *[1] * dims) + b"x"
    (tmp_path / "x").write_bytes(raw)
    refuses(tmp_path / "x")
