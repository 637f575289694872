r"""Were training and held-out images drawn alike? Asked of real runs, from split to sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from geomem.data.images import load_data
from geomem.data.splits import make_split, write_split
from geomem.findings.sentences import drawn_alike, sentences
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.runs.sweep import Sweep


def known_of(tmp_path: Path, share: float) -> xr.Dataset:
    r"""Numbers of a run whose held-out images hold this share of a class, the pool half of it."""
    rng = np.random.default_rng(0)
    # Two classes, bright at different ends, of 1,000 vectors; nothing else tells them apart.
    second = np.arange(1000) % 2 == 1
    x = rng.normal(size=(1000, 12)) + 4 * np.where(second[:, None], np.eye(12)[0], np.eye(12)[1])
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    data = load_data(str(tmp_path / "x.npy"))
    drawn = make_split(data, held_out=0.2, reserved=0.2, seed=0)
    many = rng.permutation(drawn.held_out[second[drawn.held_out]])
    few = rng.permutation(drawn.held_out[~second[drawn.held_out]])
    count = 60
    held_out = np.concatenate([many[: int(share * count)], few[: count - int(share * count)]])
    split = replace(drawn, held_out=np.sort(held_out), left_out=200 - count)
    write_split(split, data, tmp_path / "split.json")
    sweep = Sweep(
        data=str(tmp_path / "x.npy"),
        split=tmp_path / "split.json",
        sizes=(64,),
        steps=20,
        levels=4,
        points=60,
        samples=0,
        control="linear",
    )
    sweep.run(tmp_path / "run", processes=1, quiet=True)
    folder = RunFolder.open(tmp_path / "run")
    found = results(folder, load(folder.path)).numbers
    assert found is not None
    return found


@pytest.mark.parametrize(("share", "alike"), [(0.5, True), (0.05, False)])
def test_another_mix_of_classes_is_said_before_anything_else(
    tmp_path: Path, share: float, alike: bool
) -> None:
    known = known_of(tmp_path, share)
    assert 0 < float(known.alike_p_value) <= 1
    assert drawn_alike(known) is alike
    said = [k for k, s in enumerate(sentences(known)) if "not drawn alike" in s]
    assert said[:1] == ([] if alike else [0])
