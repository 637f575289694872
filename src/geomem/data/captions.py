r"""Captions beside pictures: ``metadata.csv`` or ``metadata.jsonl`` with a ``file_name``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from geomem.compute.progress import Forecast
from geomem.data.reading import printable, reading
from geomem.errors import InputError

NAMES = ("metadata.csv", "metadata.jsonl")
COLUMNS = ("text", "caption", "captions", "prompt", "sentence", "additional_feature")


def read_captions(folder: Path, files: Sequence[str]) -> tuple[str, ...] | None:
    r"""The caption of each picture of a folder, if a file beside them tells it.

    Arguments:
        folder: The folder.
        files: The relative paths of its pictures.

    Returns:
        The captions in their order; None without such a file, or where it has no column of
        captions (text, caption, ...), or not all pictures have one.

    Raises:
        InputError: If the file cannot be read, or has no ``file_name``.
    """
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    with reading(path):
        Forecast(0, 5 * path.stat().st_size).check_memory("pass a smaller metadata file")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not rows or not all(isinstance(row, dict) and "file_name" in row for row in rows):
        raise InputError(
            f"{printable(path)} has rows without file_name; name the picture of each row so"
        )
    column = next((c for c in COLUMNS if isinstance(rows[0].get(c), str)), None)
    if column is None:
        return None
    captions = {str(row["file_name"]): row.get(column) for row in rows}
    found = [captions.get(file) for file in files]
    texts = [caption for caption in found if isinstance(caption, str)]
    return tuple(texts) if len(texts) == len(files) else None
