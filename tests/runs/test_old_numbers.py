r"""The numbers of runs that were made before the house was rebuilt: equal to rounding today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geomem.models.train import TrainState
from geomem.runs.sweep import Sweep

DATA = Path(__file__).parents[1] / "data"
SMALL = Sweep(
    "digits",
    sizes=(16, 64),
    steps=200,
    levels=5,
    points=24,
    draws=2,
    samples=32,
    control="linear",
)


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    if isinstance(old, dict):
        # Damage, cut at 0, has become the signed excess on new images; a t-statistic of few
        # images the normal score of the same probability. Both are other numbers on purpose.
        keys = [k for k in old if not k.startswith(("damage", "largest_identity_z"))]
        found = [differences(old[k], new.get(k), f"{place} {k}") for k in keys]
        return [text for part in found for text in part]
    if isinstance(old, list):
        found = [
            differences(a, b, f"{place} {k}") for k, (a, b) in enumerate(zip(old, new, strict=True))
        ]
        return [text for part in found for text in part]
    if old is None:
        return []  # what is not known may be left out
    if isinstance(old, (int, float)) and new is not None:
        return [] if old == pytest.approx(new, rel=1e-6, abs=1e-8) else [f"{place}: {old}, {new}"]
    return [] if old == new else [f"{place}: {old}, {new}"]


def check(run: Path, kept: str) -> None:
    old = json.loads((DATA / kept).read_text())["sizes"]
    summary = json.loads((run / "summary.json").read_text())
    new = {r["num_samples"]: r for r in summary["subjects"] if r["kind"] == "learned"}
    assert len(old) == len(new) > 1
    assert sum(len(json.dumps(row)) for row in old) > 1000
    for row in old:
        assert not differences(row, new[row["num_samples"]])


def test_by_two_processes(tmp_path: Path) -> None:
    SMALL.run(tmp_path / "run", processes=2, quiet=True)
    check(tmp_path / "run", "summary_small_schema1.json")


def test_interrupted_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, calls = TrainState.advance, 0

    def interrupted(self: TrainState) -> None:
        nonlocal calls
        calls += len(self.data) == 64
        if calls == 150:
            calls += 1
            raise KeyboardInterrupt
        advance(self)

    monkeypatch.setattr("geomem.models.train.SECONDS", 0.0)  # each checkpoint is written
    monkeypatch.setattr(TrainState, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SMALL.run(tmp_path / "run", processes=1, quiet=True)
    SMALL.run(tmp_path / "run", processes=1, quiet=True)
    check(tmp_path / "run", "summary_small_schema1.json")


@pytest.mark.slow
def test_of_the_demo(tmp_path: Path) -> None:
    sizes = (32, 128, 512, 1297)
    sweep = Sweep("digits", sizes=sizes, steps=6000, show_images=True, control="linear")
    sweep.run(tmp_path / "run", processes=2, quiet=True)
    check(tmp_path / "run", "summary_demo_schema1.json")
