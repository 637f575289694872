r"""``geomem sweep``: a budget of time becomes steps, once; a long forecast says what is cheaper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geomem.cli.main import run
from geomem.cli.sweep import seconds_of
from geomem.errors import InputError
from geomem.runs import run as runs
from geomem.runs.sweep import Sweep

TINY = "sweep --data linear --sizes 16 --levels 2 --points 8 --draws 1 --samples 0 --processes 1"


def test_a_budget_decides_the_steps_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run([*TINY.split(), "--budget", "2s", "--out", str(out)]) == 0
    assert "2s allow --steps" in capsys.readouterr().err
    steps = json.loads((out / "config.json").read_text())["steps"]
    assert steps >= 100
    assert run([*TINY.split(), "--budget", "2s", "--out", str(out)]) == 0  # goes on: the same
    assert json.loads((out / "config.json").read_text())["steps"] == steps
    assert run([*TINY.split(), "--budget", "2s", "--steps", "5", "--out", str(out)]) == 2
    assert "not both" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "m", "-3m", "0", "30x", "nan", "inf", "1e12h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="`budget` is"):
        seconds_of(text)


def test_a_long_forecast_names_cheaper_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "LONG", 0.0)
    assert run([*TINY.split(), "--steps", "2", "--out", str(tmp_path / "run")]) == 0
    assert "cheaper: `steps` 1 takes about half as long" in capsys.readouterr().err


def test_images_get_a_recipe_that_finishes() -> None:
    assert Sweep("digits").training.steps == 6000
    assert Sweep("digits", network="unet").training.steps == 1500
    assert Sweep("digits", network="unet").training.batch_size == 64
