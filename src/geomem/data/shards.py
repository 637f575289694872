r"""Pictures in archives: parquet as the Hugging Face hub keeps them, and WebDataset's tars.

What an archive holds is written to a private folder for the time of reading and goes through the
one door of pictures, :mod:`geomem.data.folders`; nothing of an archive is ever extracted by a name
of its own.
"""

from __future__ import annotations

import importlib
import json
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomem.compute.progress import Forecast
from geomem.data.folders import read_folder
from geomem.data.framing import Framing
from geomem.data.pictures import IMAGE_SUFFIXES
from geomem.data.reading import Decoded, printable, reading
from geomem.errors import InputError

SUFFIXES = (".parquet", ".tar")
CAPTIONS = ("text", "caption", "captions", "prompt", "sentence")
LABELS = ("label", "labels", "class", "cls")


@dataclass(frozen=True)
class _Sample:
    r"""A picture as an archive holds it."""

    name: str
    content: bytes
    caption: str | None = None
    label: int | None = None


def shards_of(path: Path) -> list[Path]:
    r"""The archives that a path names: itself, or those of a folder of nothing else to see."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    for suffix in SUFFIXES:
        found = sorted(path.glob(f"*{suffix}"))
        if found:
            return found
    return []


def read_shards(paths: list[Path], framing: Framing | None = None) -> Decoded:
    r"""All pictures of some archives, as one array, in the order in which they lie there.

    Arguments:
        paths: The archives, all of one kind.
        framing: How pictures are brought to one size.

    Raises:
        InputError: If an archive is damaged, holds no pictures, or needs a package that is not
            installed.
    """
    read = _parquet if paths[0].suffix.lower() == ".parquet" else _tar
    names, captions, labels = list[str](), list[str | None](), list[int | None]()
    with tempfile.TemporaryDirectory(prefix="geomem-") as folder:
        for path in paths:
            Forecast(0, path.stat().st_size).check_memory("pass fewer archives")
            for sample in read(path):
                suffix = Path(sample.name).suffix.lower()
                suffix = suffix if suffix in IMAGE_SUFFIXES else ""
                (Path(folder) / f"{len(names):09d}{suffix}").write_bytes(sample.content)
                names.append(sample.name)
                captions.append(sample.caption)
                labels.append(sample.label)
        if not names:
            raise InputError(f"there are no images in {printable(paths[0])}; check its columns")
        try:
            raw = read_folder(Path(folder), framing)
        except InputError as error:
            said = str(error).replace(f"{folder}/", f"{printable(paths[0].name)}, picture ")
            raise InputError(said) from error
    if len(raw.pixels) != len(names):
        raise InputError(
            f"{len(names) - len(raw.pixels)} of {len(names)} entries of {printable(paths[0])} are "
            "no pictures; remove them"
        )
    texts = [c for c in captions if c is not None]
    numbers = [k for k in labels if k is not None]
    return replace(
        raw,
        files=tuple(names) if len(set(names)) == len(names) else None,
        captions=tuple(texts) if len(texts) == len(names) else None,
        labels=np.array(numbers, dtype=np.int64) if len(numbers) == len(names) else None,
        classes=None,
    )


def _parquet(path: Path) -> Iterator[_Sample]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            f"{printable(path)} is parquet, which pyarrow reads; install it (pip install "
            "'geomem[parquet]'), or save the images as a folder"
        ) from error
    with reading(path):
        table: Any = parquet.ParquetFile(path)
        names = list(table.schema_arrow.names)
        column = next((n for n in ("image", "img", "images") if n in names), None)
        if column is None:
            raise InputError(
                f"{printable(path)} has the columns {names} and none named image; rename it"
            )
        caption = next((n for n in CAPTIONS if n in names), None)
        label = next((n for n in LABELS if n in names), None)
        wanted = [n for n in (column, caption, label) if n is not None]
        row = 0
        for batch in table.iter_batches(batch_size=256, columns=wanted):
            for entry in batch.to_pylist():
                yield _parquet_sample(path, row, entry[column], entry, caption, label)
                row += 1


def _parquet_sample(
    path: Path, row: int, image: Any, entry: Any, caption: str | None, label: str | None
) -> _Sample:
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes):
        raise InputError(
            f"row {row} of {printable(path)} holds no bytes of a picture; embed the pictures when "
            "the data set is saved"
        )
    given = image.get("path") if isinstance(image, dict) else None
    number = entry.get(label) if label else None
    text = entry.get(caption) if caption else None
    return _Sample(
        f"{path.stem}/{row:09d}{Path(given or '').suffix.lower()}",
        content,
        text if isinstance(text, str) else None,
        number if isinstance(number, int) and not isinstance(number, bool) else None,
    )


def _tar(path: Path) -> Iterator[_Sample]:
    r"""Samples of a tar: files of one name up to the first dot belong together."""
    with reading(path), tarfile.open(path) as archive:
        key, parts = "", dict[str, bytes]()
        for member in archive:
            folder, _, base = member.name.rpartition("/")
            if not member.isfile() or base.startswith("."):
                continue
            stem, _, suffix = base.partition(".")
            name = f"{folder}/{stem}" if folder else stem
            if name != key and parts:
                yield from _tar_sample(path, key, parts)
                parts = {}
            stream = archive.extractfile(member)
            assert stream is not None
            key, parts[suffix.lower()] = name, stream.read()
        if parts:
            yield from _tar_sample(path, key, parts)


def _tar_sample(path: Path, key: str, parts: dict[str, bytes]) -> Iterator[_Sample]:
    image = next((s for s in parts if f".{s.rpartition('.')[2]}" in IMAGE_SUFFIXES), None)
    if image is None:
        return
    text = next((parts[s] for s in ("txt", "caption", "text") if s in parts), None)
    caption = None if text is None else text.decode("utf-8", "replace").strip()
    label: int | None = None
    try:
        if caption is None and "json" in parts:
            said = json.loads(parts["json"])
            found = [said[n] for n in CAPTIONS if isinstance(said.get(n), str)]
            caption = found[0] if found else None
        if "cls" in parts:
            label = int(parts["cls"])
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"the texts of {printable(key)} in {printable(path)} cannot be read; check its .json "
            "and .cls"
        ) from error
    yield _Sample(f"{key}.{image}", parts[image], caption, label)
