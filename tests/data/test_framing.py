r"""Pictures as a trainer frames them, and in the archives that trainers read."""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geomem import load_data
from geomem.data.framing import Framing
from geomem.data.source import DataOptions, load_images
from geomem.errors import InputError

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (30 + k, 40, 3), dtype=np.uint8) for k in range(6)]


def folder_of(where: Path) -> Path:
    where.mkdir(exist_ok=True)
    for k, pixels in enumerate(PICTURES):
        Image.fromarray(pixels).save(where / f"{k}.png")
    return where


def encoded(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


# ---------------------------------------------------------------------------------- framing


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_pictures_are_resized_and_cropped_as_trainers_do(resample: Any, tmp_path: Path) -> None:
    data = load_data(folder_of(tmp_path / "it"), size=16, crop="center", resample=resample)
    assert data.item_shape == (3, 16, 16)
    method = Image.Resampling[resample.upper()]
    for k, pixels in enumerate(PICTURES):
        height, width = pixels.shape[:2]
        target = (int(16 * width / height), 16)
        left = round((target[0] - 16) / 2)
        own = Image.fromarray(pixels).resize(target, method).crop((left, 0, left + 16, 16))
        # Channels are resized one by one, with the same whole numbers.
        np.testing.assert_array_equal(data.pixels[k], np.asarray(own).transpose(2, 0, 1))
    assert data.account is not None
    assert f"resized to 16 pixels ({resample}), cropped at the centre" in data.account


def test_what_is_framed_already_stays_as_it_is() -> None:
    pixels = RNG.integers(0, 256, (1, 12, 12), dtype=np.uint8)
    np.testing.assert_array_equal(Framing(12, "center")(pixels), pixels)


def test_a_random_crop_is_looked_at_in_the_centre_and_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "it")
    centre, random = (load_data(folder, size=16, crop=c) for c in ("center", "random"))
    assert centre.digest == random.digest
    assert "its trainer cropped at random" in str(random.account)


def test_arrays_and_named_sets_are_framed_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RNG.integers(0, 256, (5, 20, 24), dtype=np.uint8))
    assert load_data(tmp_path / "a.npy", size=10).item_shape == (1, 10, 12)
    assert load_images(DataOptions("digits", size=4)).item_shape == (1, 4, 4)
    np.save(tmp_path / "b.npy", RNG.random((5, 3, 8, 8), dtype=np.float32))
    with pytest.raises(InputError, match="only 8-bit pictures are resized"):
        load_data(tmp_path / "b.npy", size=4)


def test_pictures_that_still_differ_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "it")
    with pytest.raises(InputError, match="as `size` and `crop` do"):
        load_data(folder)
    with pytest.raises(InputError, match=r"is 21x16 pixels and .* is 20x16"):
        load_data(folder, size=16)
    with pytest.raises(InputError, match="pass `size`, too"):
        load_data(folder, crop="center")


# --------------------------------------------------------------------------------- captions


def test_captions_come_from_metadata_beside_the_pictures(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "it")
    rows = [{"file_name": f"{k}.png", "text": f"picture {k}"} for k in range(6)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    wanted = tuple(f"picture {k}" for k in range(6))
    assert load_data(folder, size=16, crop="center").captions == wanted
    (folder / "metadata.jsonl").unlink()
    lines = [f'{r["file_name"]},"{r["text"]}"' for r in rows]
    (folder / "metadata.csv").write_text("file_name,caption\n" + "\n".join(lines))
    assert load_data(folder, size=16, crop="center").captions == wanted
    table = tmp_path / "captions.csv"
    table.write_text("file,value\n" + "\n".join(f"{k}.png,other {k}" for k in range(6)))
    own = load_data(folder, size=16, crop="center", captions=table)
    assert own.captions == tuple(f"other {k}" for k in range(6))
    (folder / "metadata.csv").write_text("name,caption\n0.png,x\n")
    with pytest.raises(InputError, match="rows without file_name"):
        load_data(folder, size=16, crop="center")


# --------------------------------------------------------------------------------- archives


def tar_of(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for key, parts in samples.items():
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def test_files_of_one_prefix_are_one_sample_of_a_tar(tmp_path: Path) -> None:
    samples = {
        f"{k:04d}": {"png": encoded(p), "txt": f"picture {k}".encode(), "cls": b"%d" % (k % 2)}
        for k, p in enumerate(PICTURES)
    }
    path = tar_of(tmp_path / "it.tar", samples)
    data = load_data(path, size=16, crop="center")
    folder = load_data(folder_of(tmp_path / "folder"), size=16, crop="center")
    assert data.digests() == folder.digests()
    assert data.captions == tuple(f"picture {k}" for k in range(6))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1] * 3
    assert data.items[0] == "0000.png"
    several = tmp_path / "several"
    several.mkdir()
    halves = list(samples.items())
    for name, half in (("00.tar", halves[:3]), ("01.tar", halves[3:])):
        tar_of(several / name, dict(half))
    assert load_data(several, size=16, crop="center").digests() == data.digests()


def test_nothing_of_a_tar_is_written_by_its_own_name(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    samples = {f"../evil{k}": {"png": encoded(p)} for k, p in enumerate(PICTURES)}
    data = load_data(tar_of(inner / "it.tar", samples), size=16, crop="center")
    assert len(data) == 6
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inner", "it.tar"]


def test_damaged_tars_are_one_sentence(tmp_path: Path) -> None:
    samples = {"a": {"png": encoded(PICTURES[0])}, "b": {"png": b"no picture"}}
    with pytest.raises(InputError, match=r"it\.tar, picture 000000001\.png cannot be read"):
        load_data(tar_of(tmp_path / "it.tar", samples), size=16)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "it.tar").read_bytes()[:700])
    with pytest.raises(InputError, match="may be truncated"):
        load_data(tmp_path / "cut.tar", size=16)
    with pytest.raises(InputError, match="there are no images in"):
        load_data(tar_of(tmp_path / "texts.tar", {"a": {"txt": b"words"}}))


HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None


@pytest.mark.skipif(not HAS_PYARROW, reason="parquet needs pyarrow")
def test_parquet_holds_bytes_labels_and_captions(tmp_path: Path) -> None:
    import pyarrow as arrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]

    rows = [
        {"image": {"bytes": encoded(p), "path": f"{k}.png"}, "text": f"t{k}", "label": k % 3}
        for k, p in enumerate(PICTURES)
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "it.parquet")
    data = load_data(tmp_path / "it.parquet", size=16, crop="center")
    folder = load_data(folder_of(tmp_path / "folder"), size=16, crop="center")
    assert data.digests() == folder.digests()
    assert data.captions == tuple(f"t{k}" for k in range(6))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2] * 2
    bare = [{"image": {"bytes": None, "path": "x.png"}}]
    parquet.write_table(arrow.Table.from_pylist(bare), tmp_path / "bare.parquet")
    with pytest.raises(InputError, match="embed the pictures"):
        load_data(tmp_path / "bare.parquet")
    parquet.write_table(arrow.Table.from_pylist([{"x": 1}]), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="none named image"):
        load_data(tmp_path / "other.parquet")


@pytest.mark.skipif(HAS_PYARROW, reason="pyarrow is there")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "it.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="install it"):
        load_data(tmp_path / "it.parquet")
