r"""Trainings together, as a sweep does them: networks first, each measured as it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomem.errors import InputError
from geomem.runs.sweep import Sweep

SWEEP = Sweep(
    data="linear",
    ambient_dim=12,
    sizes=(20, 40),
    steps=6,
    measured_steps=(3,),
    seeds=(0, 1),
    network="mlp",
    widths=(8, 16),
    blocks=1,
    levels=3,
    points=8,
    samples=0,
    trajectories=0,
    jacobian_points=0,
    together=True,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_networks_are_trained_at_once_and_measured_one_by_one(tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = SWEEP.run(out, processes=1, quiet=True)
    assert found.measured.all()
    assert int((found["kind"] == "learned").sum()) == 16
    networks = contents(out / "networks")
    assert len(networks) == 2 * 16
    assert SWEEP.config()["together"] is True
    assert SWEEP.study().content["together"] is True
    assert not list(out.glob("claims/together*"))
    before = np.asarray(found.error.values)

    # What stands is not trained again; what is missing is, to the same weights.
    stamp = (out / "networks" / "N000020-width0016-seed0-step6.json").stat().st_mtime_ns
    next((out / "records").glob("*9.nc")).unlink()
    again = SWEEP.run(out, processes=1, quiet=True)
    np.testing.assert_array_equal(again.error.values, before)
    assert (out / "networks" / "N000020-width0016-seed0-step6.json").stat().st_mtime_ns == stamp
    (out / "networks" / "N000020-width0016-seed0-step6.json").unlink()
    (out / "records" / "000009.nc").unlink()
    third = SWEEP.run(out, processes=1, quiet=True)
    np.testing.assert_array_equal(third.error.values, before)
    assert contents(out / "networks") == networks


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": None, "measured_steps": (), "epochs": 2.0}, "same number of steps"),
        ({"mixed_precision": "bf16"}, "in float32"),
    ],
)
def test_what_makes_no_stack_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(SWEEP, **change)


def test_a_unet_makes_no_stack(tmp_path: Path) -> None:
    unet = Sweep(data="digits", sizes=(32,), network="unet", together=True)
    with pytest.raises(InputError, match="`together` stacks MLPs"):
        unet.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
