r"""Tables of one value for each image: CSV as spreadsheets of any country write it.

UTF-8, UTF-16 or cp1252; commas, semicolons or tabs; the header ``file,value`` in any case. Names
and values are compared in one form of Unicode (NFC): an accent may be a character of its own.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np

from geomem.compute.progress import Forecast
from geomem.data.reading import IntArray, printable, reading
from geomem.errors import InputError

INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")  # int() takes 1_0, 010 and other alphabets, too
HEADER = re.compile(r'\s*"?file"? *([,;\t]) *"?value"?[ ,;\t]*(?:[\r\n]|$)', re.IGNORECASE)
ROW = (
    "write one line per image, its relative path (for arrays its number from 0), a comma and "
    "the value"
)


def read_table(path: Path, files: Sequence[str]) -> tuple[IntArray, tuple[str, ...] | None]:
    r"""Reads one value per image from a CSV file with header ``file,value``.

    Arguments:
        path: The table, with one row per image in any order.
        files: What the first column calls each image.

    Returns:
        The values, with shape (N), and their names. Integers stay as they are and have none;
        other texts are numbered in their order.

    Raises:
        InputError: Naming the row, if one is wrong, doubled, or missing.
    """
    where = printable(path)
    with reading(path):
        if not path.is_file():
            raise InputError(f"there is no file {where}; pass a CSV file with header file,value")
        Forecast(0, 20 * path.stat().st_size).check_memory("pass a table of these images alone")
        try:
            text = _decode(path.read_bytes()).replace("\0", "")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{where} is neither UTF-8, UTF-16 nor cp1252; save it as UTF-8"
            ) from error
        first, _, rest = text.partition("\n")
        if re.fullmatch("sep=.\r?", first):  # as Excel marks its own
            text = rest
        header = HEADER.match(text)
        if header is None:
            raise InputError(f"{where} must begin with the line file,value; add this header")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=header[1])
        rows = [row for row in enumerate(reader, start=1) if any(cell.strip() for cell in row[1])]
    places = _places(files)
    values: dict[int, str] = {}
    for number, row in rows[1:]:
        while not row[-1].strip():  # a spreadsheet writes its empty columns, too
            row.pop()
        at = places.get(row[0], places.get(_form(row[0])))
        if len(row) != 2:
            problem = "is not file,value"
        elif at is None:
            problem = f"names {row[0]!r}, which is not in the data"
        elif at in values:
            problem = f"names {row[0]!r} a second time"
        else:
            values[at] = normalize("NFC", row[1].strip())
            continue
        raise InputError(f"row {number} of {where} {problem}; {ROW}")
    missing = [file for k, file in enumerate(files) if k not in values]
    if missing:
        raise InputError(
            f"{where} has no row for {len(missing)} of {len(files)} images, the first of them "
            f"{missing[0]!r}; add one row for each"
        )
    texts = [values[k] for k in range(len(files))]
    if all(INTEGER.fullmatch(text) for text in texts):
        try:
            return np.array([int(text) for text in texts], dtype=np.int64), None
        except OverflowError:
            pass
    names = {text: k for k, text in enumerate(sorted(set(texts)))}
    return np.array([names[text] for text in texts], dtype=np.int64), tuple(names)


def _decode(raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    if raw[1:2] == b"\0" or raw[:1] == b"\0":  # no mark, and the header is ASCII
        return raw.decode("utf-16-le" if raw[1:2] == b"\0" else "utf-16-be")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252")


def _places(files: Sequence[str]) -> dict[str, int]:
    r"""The number of each image by every spelling of its name that is its alone."""
    places: dict[str, int] = {}
    twice = set()
    for k, file in enumerate(files):
        spellings = {_form(file)}
        if "\\x" in file:  # bytes that are no UTF-8, see printable
            raw = re.sub(r"\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1]).decode("cp1252"), file)
            spellings.add(_form(raw))
        for spelling in spellings:
            if places.setdefault(spelling, k) != k:
                twice.add(spelling)
    exact = {file: k for k, file in enumerate(files)}
    return {**{s: k for s, k in places.items() if s not in twice}, **exact}


def _form(name: str) -> str:
    return normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))
