r"""Folders: what is read, what is left out, and that both are told."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomem.data import duplicate_groups, load_data
from geomem.data.splits import default_split
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
    refuses(tmp_path, "no images", ".txt 1")
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


# --------------------------------------------------------------------- what is a picture


@pytest.mark.parametrize(
    ("suffix", "form", "mode"),
    [
        ("jfif", "JPEG", "L"),
        ("jpe", "JPEG", "L"),
        ("JPG", "JPEG", "L"),
        ("jp2", "JPEG2000", "L"),
        ("tga", "TGA", "L"),
        ("pbm", "PPM", "1"),
        ("pcx", "PCX", "L"),
        ("sgi", "SGI", "L"),
        ("dib", "DIB", "L"),
        ("avif", "AVIF", "RGB"),
        ("", "PNG", "L"),
        ("dat", "BMP", "L"),
        ("png", "JPEG", "L"),
    ],
)
def test_pictures_of_any_suffix_are_read(tmp_path: Path, suffix: str, form: str, mode: str) -> None:
    write_images(tmp_path, {"0.png": GREY[0]})
    name = f"1.{suffix}" if suffix else "1"
    Image.fromarray(GREY[1]).convert(mode).save(tmp_path / name, format=form)
    data = load_data(str(tmp_path))
    assert data.files == ("0.png", name) if suffix else ("1", "0.png")
    assert str(data.account) == "2 pictures read"


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    write_images(tmp_path, {"a.png": GREY[0], "b.png": GREY[1], ".hidden/c.png": GREY[2]})
    for name in ("notes.txt", "more.txt", "raw.dng", "Thumbs.db", "._a.png", "broken"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7junk")
    Image.fromarray(GREY[3]).save(tmp_path / "thumbnail.nef", format="TIFF")
    (tmp_path / "__MACOSX").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    data = load_data(str(tmp_path))
    assert data.files == ("a.png", "b.png")
    for said in (
        "2 pictures read",
        "gone.png and 1 more: broken links",
        "left out 7 files that are no pictures (.txt 2, ",
        ".nef 1",
        "3 hidden files or folders",
    ):
        assert said in str(data.account)


def test_all_that_is_wrong_is_counted(tmp_path: Path) -> None:
    write_images(tmp_path, {"a.png": GREY[0], "b.png": GREY[1]})
    (tmp_path / "c.png").write_bytes(b"<html>404</html>")
    refuses(tmp_path, "c.png cannot be read as a picture")
    (tmp_path / "d.jpg").write_bytes(b"")
    (tmp_path / "e.tif").write_bytes(b"II*\0")
    refuses(tmp_path, "c.png cannot be read as a picture", "(2 other pictures cannot be used")


def test_what_does_not_fit_is_refused_undecoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, {"a.png": GREY[0], "b.png": GREY[1]})
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda: 100.0)
    refuses(tmp_path, "of memory", "shrink the pictures")


def test_equal_pictures_of_other_formats_are_duplicates(tmp_path: Path) -> None:
    images = {f"{k}.{suffix}": GREY[k] for k in range(3) for suffix in ("png", "bmp", "tif")}
    images |= {f"{k} colour.png": np.stack([GREY[k]] * 3, -1) for k in range(3)}
    groups = duplicate_groups(load_data(str(write_images(tmp_path, images))))
    assert groups.max() == 2


# --------------------------------------------------------------------------------- links


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path: Path) -> None:
    outside = write_images(tmp_path / "outside", {"x.png": GREY[2], "deep/y.png": GREY[3]})
    photos = write_images(tmp_path / "photos", {"b/0.png": GREY[0], "b/1.png": GREY[1]})
    (photos / "linked.png").symlink_to(outside / "x.png")
    (photos / "a").symlink_to(outside)
    (photos / "again").symlink_to(outside)
    (photos / "b" / "up").symlink_to(photos)
    (outside / "deep" / "round").symlink_to(outside)
    data = load_data(str(photos))
    assert data.files == ("a/deep/y.png", "a/x.png", "b/0.png", "b/1.png", "linked.png")
    assert "a folder that was read already" in str(data.account)
    (tmp_path / "link").symlink_to(photos)
    assert load_data(str(tmp_path / "link")).digest == data.digest


def test_a_real_folder_keeps_its_name_beside_a_link_to_it(tmp_path: Path) -> None:
    write_images(tmp_path, {"z/0.png": GREY[0], "z/1.png": GREY[1]})
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert load_data(str(tmp_path)).files == ("z/0.png", "z/1.png")


# -------------------------------------------------------------------------------- parts


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train/{}.png", "test/{}.png"),
        ("train/cats/{}.png", "val/cats/{}.png"),
        ("Training/{}.png", "Validation/{}.png"),
        ("images/train/{}.png", "images/valid/{}.png"),
        ("cats/train/{}.png", "cats/test/{}.png"),
        ("{}.png", "test/{}.png"),
        ("cats/{}.png", "test/{}.png"),
    ],
)
def test_test_folders_are_held_out(tmp_path: Path, train: str, test: str) -> None:
    images = RNG.integers(0, 256, (20, 4, 4), dtype=np.uint8)
    names = [(train if k < 8 else test).format(k) for k in range(20)]
    data = load_data(str(write_images(tmp_path, dict(zip(names, images, strict=True)))))
    assert data.num_train == 8
    assert data.files is not None
    assert set(data.files[:8]) == set(names[:8])
    split = default_split(data)
    assert set(split.pool) == set(range(8))
    assert {*split.held_out, *split.reserved} == set(range(8, 20))
    assert "8 of the training part, 12 of test or validation folders" in str(data.account)


@pytest.mark.parametrize("folders", [["test"], ["test", "val"], ["train"], ["train", "more"]])
def test_without_a_training_and_a_test_part_there_are_no_parts(
    tmp_path: Path, folders: list[str]
) -> None:
    names = [f"{folder}/{k}.png" for folder in folders for k in range(3)]
    data = load_data(str(write_images(tmp_path, dict(zip(names, GREY, strict=False)))))
    assert data.num_train is None


# ------------------------------------------------------------------------------- classes


def test_folders_are_classes(tmp_path: Path) -> None:
    names = ["train/b é/0.png", "train/a/deep/1.png", "test/b é/2.png", "test/a/3.png"]
    data = load_data(str(write_images(tmp_path, dict(zip(names, GREY, strict=False)))))
    assert data.classes == ("a", "b é")
    assert data.labels is not None
    assert data.files is not None
    assert [data.classes[k] for k in data.labels] == [n.split("/")[1] for n in data.files]
    table = tmp_path / "labels.csv"
    table.write_text("file,value\n" + "".join(f"{n},{k}\n" for k, n in enumerate(data.files)))
    relabelled = load_data(str(tmp_path), labels=table)
    assert relabelled.labels is not None
    assert (relabelled.labels.tolist(), relabelled.classes) == ([0, 1, 2, 3], None)


@pytest.mark.parametrize(
    "names",
    [["a/0.png", "a/1.png"], ["a/0.png", "b/1.png", "2.png"], ["a/0.png", "b/1.png", "c/2.png"]],
)
def test_other_folders_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    data = load_data(str(write_images(tmp_path, dict(zip(names, GREY, strict=False)))))
    assert (data.labels, data.classes) == (None, None)


# --------------------------------------------------------------------------------- names


def test_names_of_any_kind_become_unicode(tmp_path: Path) -> None:
    write_images(tmp_path, {"n" * 240 + ".png": GREY[0], "日本 é\nñ #%.png": GREY[1]})
    write_images(tmp_path, {"a.png": GREY[2]})
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    data = load_data(str(tmp_path))
    assert data.files == ("caf\\xe9.png", "n" * 240 + ".png", "日本 é\nñ #%.png")
    " ".join(data.files).encode()
    os.truncate(os.fsencode(tmp_path) + b"/caf\xe9.png", 20)
    refuses(tmp_path, "caf\\xe9.png")
    (tmp_path / "日本 é\nñ #%.png").write_bytes(b"")
    os.remove(os.fsencode(tmp_path) + b"/caf\xe9.png")
    refuses(tmp_path, "日本 é\\nñ #%.png")


def test_the_whole_file_system_is_no_data_set() -> None:
    refuses("/", "whole file system")
