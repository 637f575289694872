r"""``geomem split``: one sentence, one file, and nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomem.cli.main import run
from geomem.cli.split import SplitCommand
from geomem.data import load_data, read_split
from geomem.errors import InputError
from tests.data.test_splits import is_partition


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.arange(100.0)
    values[50] = values[51]
    np.save(tmp_path / "x.npy", values[:, None])
    (tmp_path / "groups.csv").write_text(
        "file,value\n" + "".join(f"{i},{i // 2}\n" for i in range(100))
    )
    out = tmp_path / "new" / "split.json"
    command = SplitCommand(str(tmp_path / "x.npy"), groups=tmp_path / "groups.csv", out=out)
    assert command.run() == 0
    said = capsys.readouterr().out
    assert said.startswith("100 images of x.npy in 50 groups (1 exact duplicates): ")
    assert said.endswith(f"reserved, written to {out}\n")
    assert said.count("\n") == 1
    data = load_data(command.data)
    assert is_partition(read_split(out, data), 100)


def test_the_command_overwrites_nothing_but_its_own(tmp_path: Path) -> None:
    out = tmp_path / "split.json"
    assert SplitCommand("digits", out=out).run() == 0
    before = out.read_bytes()
    assert SplitCommand("digits", out=out).run() == 0
    with pytest.raises(InputError, match="choose another --out"):
        SplitCommand("digits", seed=1, out=out).run()
    assert out.read_bytes() == before
    with pytest.raises(InputError, match="choose another --out"):
        SplitCommand("digits", out=tmp_path).run()


def test_the_command_line_takes_the_data_as_its_argument() -> None:
    import tyro

    command = tyro.cli(SplitCommand, args=["digits", "--held-out", "0.2", "--out", "a.json"])
    assert command == SplitCommand("digits", held_out=0.2, out=Path("a.json"))


def test_what_a_folder_held_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(60):
        pixels = rng.integers(0, 255, (6, 6), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    (folder / "notes.txt").write_text("of the day")
    out = ["--out", str(tmp_path / "split.json")]
    assert run(["split", str(folder), *out]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "left out 1 files" in line]
    assert len(said) == 1
    few = ["--sizes", "16", "--points", "2", "--sigmas", ".5", "--dimension", "soft-count"]
    out = ["--processes", "1", "--out", str(tmp_path / "run"), "--json", str(tmp_path / "d.json")]
    assert run(["dimension", "--data", str(folder), *few, *out]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "left out 1 files" in line]
    assert len(said) == 1
    assert json.loads((tmp_path / "d.json").read_text())["ambient_dim"] == 36
