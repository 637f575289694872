r"""Names and paths: which data they mean, and what is said where there are none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomem.data import ImageData, duplicate_groups, load_data
from geomem.data.sets import data_folder
from geomem.data.source import DataOptions
from geomem.errors import InputError
from tests.data.files import GREY, RNG, refuses, save, write_idx, write_images


def test_a_colon_may_be_part_of_the_path(tmp_path: Path) -> None:
    assert len(load_data(str(save(tmp_path / "a:b.npy", GREY)))) == 6


def test_what_does_not_exist_is_answered_with_what_does(tmp_path: Path) -> None:
    for spec in ("", "minst", tmp_path / "none.npy", tmp_path / "none.npz:x", "x" * 5000):
        refuses(spec, "there is no data set", "fashion-mnist", ".npy")
    refuses("linear", "manifold")


def public_set(name: str) -> ImageData:
    r"""A public set, or a skipped test that says why."""
    try:
        data_folder()
    except InputError as reason:
        pytest.skip(str(reason))
    return load_data(name)


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


# ------------------------------------------------------------------- what a spelling means


@pytest.mark.parametrize("name", ["", "~", "~nosuchuser/x", "\0", "x" * 300, "a:b:c", ":", "~:"])
def test_odd_names_end_in_one_sentence(name: str) -> None:
    refuses(name)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_ends_in_one_sentence(text: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "empty").mkdir()
        with contextlib.chdir(f"{folder}/empty"):
            refuses(text)


def test_near_names_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses("minst", "did you mean 'mnist'?")
    refuses("Digits", "did you mean 'digits'?")
    write_images(tmp_path / "photos", {"a.png": GREY[0], "b.png": GREY[1]})
    monkeypatch.chdir(tmp_path)
    refuses("photo", "did you mean 'photos'?")
    refuses(tmp_path / "fotos", "did you mean", "photos")


def test_a_path_is_taken_as_text_or_as_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "digits", {"a.png": GREY[0], "b.png": GREY[1]})
    monkeypatch.chdir(tmp_path)
    assert len(load_data("./digits")) == 2
    assert len(load_data(Path("digits"))) == 2  # a path is never a name
    assert len(load_data("digits")) == 1797
    (tmp_path / "g.csv").write_text("file,value\na.png,1\nb.png,1\n")
    data = load_data("./digits", groups="g.csv")  # type: ignore[arg-type]
    assert data.groups is not None
    assert data.groups.tolist() == [1, 1]


def test_one_data_set_has_one_spelling() -> None:
    for spec in ("photos", "photos/", "./photos", ".//photos//", Path("photos")):
        assert DataOptions(spec).data == "photos"  # type: ignore[arg-type]
    assert DataOptions("./digits/").data == "./digits"
    assert DataOptions("../x.npz:key").data == "../x.npz:key"
    assert DataOptions("linear").data == "linear"


def test_a_path_that_is_not_unicode_is_written_as_unicode(tmp_path: Path) -> None:
    write_images(tmp_path / "x", {"a.png": GREY[0], "b.png": GREY[1]})
    os.rename(tmp_path / "x", os.fsencode(tmp_path) + b"/Stra\xdfe")
    options = DataOptions(os.fsdecode(os.fsencode(tmp_path) + b"/Stra\xdfe/"))
    assert options.data.endswith("/Stra\\xdfe")
    data = load_data(options.data)
    assert (len(data), data.name) == (2, "Stra\\xdfe")


def test_the_name_of_a_data_set_is_one_line(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a\nb", {"a.png": GREY[0], "b.png": GREY[1]})
    assert load_data(folder).name == "a\\nb"
    refuses(f"{folder}:key", "without keys")
