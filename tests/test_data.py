r"""Decoding: what a file holds is what a tensor shows, and what cannot be used is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geomem.data import ImageData, duplicate_groups, load_data
from geomem.data.sets import data_folder
from geomem.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def public_set(name: str) -> ImageData:
    r"""A public set, or a skipped test that says why."""
    try:
        data_folder()
    except InputError as reason:
        pytest.skip(str(reason))
    return load_data(name)


def refuses(spec: object, *fragments: str, **tables: Path) -> None:
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


# ------------------------------------------------------------------------ conversion


def test_digits_are_the_bundled_ones() -> None:
    digits = load_data("digits")
    assert len(digits) == 1797
    assert digits.item_shape == (1, 8, 8)
    assert digits.quantum == 1 / 8
    assert digits.labels is not None
    assert set(digits.labels) == set(range(10))
    x = digits.tensor(range(len(digits)))
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(x * 8 + 8, torch.from_numpy(digits.pixels).float())


def test_8_bit_images_go_from_minus_one_to_one() -> None:
    data = ImageData.of("x", GREY)
    expected = GREY[[4, 0], None].astype(np.float32) / 127.5 - 1
    assert torch.equal(data.tensor([4, 0]), torch.from_numpy(expected))
    assert torch.equal(data.tensor(torch.tensor([4, 0])), data.tensor(np.array([4, 0])))
    assert data.quantum == pytest.approx(2 / 255)


def test_float_arrays_stay_as_they_are() -> None:
    array = RNG.normal(size=(4, 3, 2))
    data = ImageData.of("x", array)
    assert torch.equal(data.tensor(range(4)), torch.from_numpy(array.astype(np.float32)))
    assert data.quantum == 0


def test_tensors_do_not_share_memory_with_the_data() -> None:
    data = ImageData.of("x", np.eye(3))
    data.tensor(range(3)).zero_()
    assert data.tensor([0])[0, 0] == 1


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


def test_labels_and_groups_must_be_one_for_each_image() -> None:
    with pytest.raises(InputError, match="one for each image"):
        ImageData.of("x", np.eye(3), labels=[0, 1])
    with pytest.raises(InputError, match=r"ImageData\.of"):
        ImageData("x", np.eye(3))


# --------------------------------------------------------------------------- digests


def test_a_digest_is_over_type_shape_and_pixels() -> None:
    data = ImageData.of("x", GREY)
    assert data.digests()[2] == hashlib.sha256(b"uint8 1x5x7\n" + GREY[2].tobytes()).hexdigest()
    assert data.digests() != ImageData.of("x", GREY.reshape(6, 7, 5)).digests()
    assert data.digests() != ImageData.of("x", GREY.astype(np.float32)).digests()


def test_the_digest_of_a_set_depends_on_its_order_and_not_on_its_name() -> None:
    data = ImageData.of("x", GREY)
    assert data.digest == ImageData.of("y", GREY).digest
    assert data.digest != ImageData.of("x", GREY[::-1]).digest


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.data())
@settings(max_examples=50, deadline=None)
def test_groups_are_the_finest_partition_that_joins_twins_and_subjects(
    values: list[int], draw: st.DataObject
) -> None:
    subjects = draw.draw(st.lists(st.integers(0, 5), min_size=len(values), max_size=len(values)))
    values[0] = 9  # never all equal
    data = ImageData.of("x", np.array(values, float)[:, None], groups=subjects)
    joined = np.eye(len(values), dtype=bool)
    for ties in (values, subjects):
        joined |= np.equal.outer(ties, ties)
    for _ in values:  # the transitive closure, slowly
        joined = (joined.astype(int) @ joined) > 0
    groups = duplicate_groups(data)
    assert np.array_equal(np.equal.outer(groups, groups), joined)
    assert set(groups) == set(range(len(set(groups))))


# ----------------------------------------------------------------------------- files


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


def test_a_colon_may_be_part_of_the_path(tmp_path: Path) -> None:
    assert len(load_data(str(save(tmp_path / "a:b.npy", GREY)))) == 6


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


def test_what_does_not_exist_is_answered_with_what_does(tmp_path: Path) -> None:
    for spec in ("", "minst", tmp_path / "none.npy", tmp_path / "none.npz:x", "x" * 5000):
        refuses(spec, "there is no data set", "fashion-mnist", ".npy")
    refuses("linear", "manifold")


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


# --------------------------------------------------------------------- image folders


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


# ---------------------------------------------------------------------------- tables


def test_tables_are_matched_by_file_or_number(tmp_path: Path) -> None:
    write_images(tmp_path / "x", {"a.png": GREY[0], "b/c.png": GREY[1], "d.png": GREY[2]})
    table = tmp_path / "groups.csv"
    table.write_text("file,value\nd.png,anna\n\na.png,anna\nb/c.png,ben\n")
    data = load_data(str(tmp_path / "x"), groups=table)
    assert data.groups is not None
    assert data.groups.tolist() == [0, 1, 0]
    table.write_text("\ufefffile,value\r\n2,7\r\n0, 5\r\n1,-1\r\n", encoding="utf-8")
    data = load_data(str(save(tmp_path / "x.npy", GREY[:3])), labels=table)
    assert data.labels is not None
    assert data.labels.tolist() == [5, -1, 7]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must begin with the line file,value"),
        ("0,1\n1,1\n2,1\n", "must begin with the line file,value"),
        ("file,value\n0,1\n1,1\n", "no row for 1 of 3 images, the first of them '2'"),
        ("file,value\n0,1\n1,1\n2,1\n3,1\n", "row 5 of"),
        ("file,value\n0,1\n0,2\n", "row 3 of"),
        ("file,value\n0,1,2\n", "row 2 of"),
        ("file,value\n0,\n", "row 2 of"),
        ("file,value\n0\n", "row 2 of"),
        ("file,value\n\xff\0", "table.csv"),
    ],
)
def test_wrong_tables_name_the_row(tmp_path: Path, text: str, reason: str) -> None:
    array = save(tmp_path / "x.npy", GREY[:3])
    (tmp_path / "table.csv").write_bytes(text.encode("latin-1"))
    refuses(array, "table.csv", reason, labels=tmp_path / "table.csv")
    refuses(array, "none.csv", groups=tmp_path / "none.csv")


# ------------------------------------------------------------------------ named sets


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEOMEM_DATA", str(tmp_path))
    return tmp_path


def test_the_data_folder_is_named_or_further_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEOMEM_DATA", raising=False)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "repository" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repository" / "deep")
    assert data_folder() == tmp_path / "shared" / "data"
    monkeypatch.setenv("GEOMEM_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("GEOMEM_DATA", str(tmp_path / "none"))
    refuses("mnist", "GEOMEM_DATA", "no folder")


def test_a_missing_set_names_the_file_and_the_variable(sets: Path) -> None:
    refuses("fashion-mnist", "fashion-mnist/train-images-idx3-ubyte.gz", "GEOMEM_DATA")
    refuses("cifar10", "cifar10_train_first20000.npz", "GEOMEM_DATA")
    refuses("olivetti", "olivetti_faces_64x64.npz", "GEOMEM_DATA")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_train_then_test(sets: Path, suffix: str) -> None:
    for part, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        write_idx(sets / f"mnist/{part}-images-idx3-ubyte{suffix}", GREY[rows])
        labels = np.arange(6, dtype=np.uint8)[rows]
        write_idx(sets / f"mnist/{part}-labels-idx1-ubyte{suffix}", labels)
    data = load_data("mnist")
    assert np.array_equal(data.pixels[:, 0], GREY)
    assert data.num_train == 4
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5]
    write_idx(sets / f"mnist/t10k-labels-idx1-ubyte{suffix}", np.zeros(3, np.uint8))
    refuses("mnist", "t10k-labels", "2 images")


def test_the_binary_cifar10_is_read_and_its_pickles_are_not(sets: Path) -> None:
    folder = sets / "cifar10"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": 0}))
    refuses("cifar10", "data_batch_1 is a pickle", "binary version")
    records = RNG.integers(0, 256, (12, 3073), dtype=np.uint8)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for i, name in enumerate(names):
        (folder / name).write_bytes(records[2 * i : 2 * i + 2].tobytes())
    data = load_data("cifar10")
    assert data.num_train == 10
    assert data.labels is not None
    assert np.array_equal(data.labels, records[:, 0])
    assert np.array_equal(data.pixels[11, 1].ravel(), records[11, 1 + 1024 : 1 + 2048])
    (folder / "data_batch_3.bin").write_bytes(b"short")
    refuses("cifar10", "data_batch_3.bin", "3073")
    (folder / "data_batch_3.bin").unlink()
    refuses("cifar10", "data_batch_3.bin")


def test_a_damaged_recoded_cifar10_is_noticed(sets: Path) -> None:
    (sets / "cifar10").mkdir()
    residual = RNG.integers(0, 256, (3, 2, 32, 32), dtype=np.uint8)
    path = sets / "cifar10" / "cifar10_train_first20000.npz"
    np.savez(path, residual=residual, labels=np.zeros(2, np.uint8))
    refuses("cifar10", "does not decode to the published images")


def test_cifar10_is_the_published_one() -> None:
    data = public_set("cifar10")
    if data.num_train is not None:
        pytest.skip("the complete binary version lies in the data folder")
    assert data.item_shape == (3, 32, 32)
    assert data.labels is not None
    assert np.bincount(data.labels).tolist()[:3] == [1989, 1981, 2042]
    assert int(duplicate_groups(data).max()) + 1 == 20_000


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_mnists_are_complete(name: str) -> None:
    data = public_set(name)
    assert (len(data), data.num_train, data.item_shape) == (70_000, 60_000, (1, 28, 28))
    assert data.labels is not None
    expected = 5923 if name == "mnist" else 6000
    assert int((data.labels[:60_000] == 0).sum()) == expected


def test_olivetti_faces_are_grouped_by_subject() -> None:
    data = public_set("olivetti")
    assert data.item_shape == (1, 64, 64)
    assert data.groups is not None
    assert np.array_equal(data.groups, np.arange(400) // 10)
    assert hashlib.sha256(data.pixels.tobytes()).hexdigest().startswith("a3f75007cc103363")


def test_only_the_array_that_was_asked_for_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", good=GREY, bad=np.array([{}], dtype=object))
    assert len(load_data(f"{tmp_path / 'x.npz'}:good")) == 6
    refuses(f"{tmp_path / 'x.npz'}:bad", "Python objects")
