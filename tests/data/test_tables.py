r"""Tables: every spelling of a spreadsheet is read, and a wrong row is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from geomem.data import load_data
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
