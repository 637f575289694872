r"""Tables: every spelling of a spreadsheet is read, and a wrong row is named."""

from __future__ import annotations

import os
from pathlib import Path
from unicodedata import normalize

import pytest

from geomem.data import load_data
from geomem.data.tables import read_table
from geomem.errors import InputError
from tests.data.files import GREY, refuses, save, write_images


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["file{}value", "File{}Value", 'sep={0}\n"FILE"{0} "VALUE"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_spelling_of_a_table_is_read(
    tmp_path: Path, encoding: str, separator: str, header: str, end: str
) -> None:
    rows = [header.format(separator), *(f"{k}{separator}añ{k % 2}" for k in range(6)), ""]
    text = "\n".join(rows).replace("\n", end)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    values, names = read_table(tmp_path / "t.csv", [str(k) for k in range(6)])
    assert values.tolist() == [0, 1, 0, 1, 0, 1]
    assert names == ("añ0", "añ1")


def test_a_table_of_windows_is_read(tmp_path: Path) -> None:
    text = "file;value;\r\nsub\\café.png;1;\r\n./b.png;2;\r\n;;\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    assert read_table(tmp_path / "t.csv", ["b.png", "sub/café.png"])[0].tolist() == [2, 1]
    # The same name as it lies on the disk of one who unpacked it elsewhere.
    assert read_table(tmp_path / "t.csv", ["b.png", "sub/caf\\xe9.png"])[0].tolist() == [2, 1]
    (tmp_path / "t.csv").write_bytes(b"file,value\n0,\x81\n")
    with pytest.raises(InputError, match="save it as UTF-8"):
        read_table(tmp_path / "t.csv", ["0"])


@pytest.mark.parametrize(
    "values",
    [
        ["1_0", "10"],
        ["010", "10"],
        ["+1", "1"],
        ["１", "1"],
        ["-0", "0"],
        ["9223372036854775808", "0"],
        ["1.0", "1"],
    ],
)
def test_different_texts_are_different_values(tmp_path: Path, values: list[str]) -> None:
    rows = "".join(f"{k},{value}\n" for k, value in enumerate(values))
    (tmp_path / "t.csv").write_text(f"file,value\n{rows}", encoding="utf-8")
    found, names = read_table(tmp_path / "t.csv", [str(k) for k in range(len(values))])
    assert len(set(found)) == len(values)
    assert names is not None
    assert [names[k] for k in found] == values


def test_two_unicode_forms_of_a_name_are_one(tmp_path: Path) -> None:
    composed, apart = normalize("NFC", "é"), normalize("NFD", "é")
    assert composed != apart
    text = f"file,value\n{composed}.png,{apart}\nb.png,{composed}\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    values, names = read_table(tmp_path / "t.csv", [f"{apart}.png", "b.png"])
    assert (values.tolist(), names) == ([0, 0], (composed,))
    # Where both are files, each row means the one that it spells.
    text = f"file,value\n{composed},1\n{apart},2\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert read_table(tmp_path / "t.csv", [apart, composed])[0].tolist() == [2, 1]


def test_tables_that_are_none_are_named(tmp_path: Path) -> None:
    array = save(tmp_path / "x.npy", GREY[:3])
    refuses(array, "there is no file", labels=tmp_path / "none.csv")
    refuses(array, "pass a CSV file", labels=tmp_path)
    os.mkfifo(tmp_path / "pipe")
    refuses(array, "pass a CSV file", groups=tmp_path / "pipe")
