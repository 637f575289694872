r"""Pilots: a small sweep of their own, gone on with, and what a plan says with one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import geomem
from geomem.cli.main import run
from geomem.errors import InputError
from geomem.findings.pilot import pilot_of
from geomem.runs.kinds import open_run
from geomem.runs.pilot import Pilot, PilotOptions
from geomem.runs.records import RunFolder

QUICK = ["--sources", "16", "--levels", "3", "--directions", "2", "--sizes", "20", "5000"]
TRAINING = ["--pilot", "--widths", "16", "--blocks", "1", "--batch-size", "16", "--steps", "160"]
TRAINING += ["--pilot-sizes", "8", "16", "--processes", "1"]


def images(folder: Path, count: int = 240) -> str:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(16, 16)))[0][:3]
    values = 128 + (rng.normal(size=(count, 3)) * [120, 80, 50]) @ axes
    pixels = np.clip(values, 0, 255).round().astype(np.uint8).reshape(count, 4, 4)
    np.save(folder / "images.npy", pixels)
    return str(folder / "images.npy")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pilot")
    spec = images(folder)
    assert run(["plan", "--data", spec, "--out", str(folder / "run"), *QUICK, *TRAINING]) == 0
    return folder / "run"


def test_beside_every_width_and_moment_stands_a_reference(planned: Path) -> None:
    folder = RunFolder.open(planned / "pilot")
    kinds = [(s.kind, s.num_samples, s.step) for s in folder.subjects]
    rest = len(folder.study["reference"])
    assert kinds == [
        ("linear", None, None),
        *(("reference", rest, k) for k in (10, 20, 40)),
        *(("learned", n, k) for n in (8, 16) for k in (10, 20, 40)),
    ]
    measured = set(folder.study["points"]["training"])
    assert not measured & set(folder.study["reference"])


def test_the_sentence_comes_first_everywhere(planned: Path) -> None:
    document = json.loads((planned / "plan.json").read_text())
    summary = json.loads((planned / "summary.json").read_text())
    page = (planned / "plan.html").read_text()
    answer = document["pilot"]["answer"]
    assert summary["pilot"] == answer
    assert answer["num_samples"] == 5000
    assert answer["steps"] == 160
    assert 0 <= answer["share"]["value"] <= answer["share"]["high"] <= 1
    assert summary["headline"].startswith("images.npy: ")
    assert "160 steps on N = 5,000 images memorize" in summary["headline"]
    assert summary["headline"].split(" (90 %")[0] in page.partition("</h1>")[0]
    assert any("expect memorization" in line for line in summary["findings"])  # without a pilot
    rows = document["pilot"]["predictions"]
    assert {(r["num_samples"], r["steps"]) for r in rows} >= {(20, 40), (5000, 160), (5000, 640)}
    assert "What a training will memorize" in page


def test_shares_are_beside_the_reference_of_the_same_step(planned: Path) -> None:
    dataset = geomem.load(planned / "pilot")
    study = RunFolder.open(planned / "pilot").study
    cells = pilot_of(dataset, study).cells
    assert cells.time.values[:3] == pytest.approx([study["recipe"]["times"][k] for k in
                                                   ("10", "20", "40")])  # fmt: skip
    squares = (dataset.error.sel(at="training").astype(float) ** 2).mean("draw", skipna=False)
    nats = np.trapezoid(
        squares.sum("direction", skipna=False).transpose("subject", "point", "sigma").values,
        np.log(dataset.sigma.values),
    )
    learned = np.flatnonzero((dataset.kind == "learned") & (dataset.num_samples == 8))[-1]
    reference = np.flatnonzero(dataset.kind == "reference")[-1]
    share = 1 - nats[learned, :8].mean() / nats[reference, :8].mean()
    assert cells.share.values[2] == pytest.approx(share, rel=1e-6)


def test_a_pilot_goes_on_and_the_plan_stays_the_same(planned: Path) -> None:
    before = (planned / "summary.json").read_bytes()
    records = planned / "pilot" / "records"
    (records / "000003.nc").unlink()
    geomem.report(planned)  # what is not finished is left out, and the plan still drawn
    assert "What a training will memorize" not in (planned / "plan.html").read_text()
    pilot = open_run(planned / "pilot")
    assert isinstance(pilot, Pilot)
    pilot.run(planned / "pilot", processes=1, quiet=True)
    open_run(planned).run(planned, processes=1, quiet=True)
    assert (planned / "summary.json").read_bytes() == before


def test_bad_input_ends_in_one_sentence_and_begins_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, out = images(tmp_path), tmp_path / "run"
    few = ["plan", "--data", spec, "--out", str(out), *QUICK]
    assert run([*few, "--steps", "100"]) == 2
    assert "pass --pilot, too" in capsys.readouterr().err
    assert run([*few, "--pilot", "--pilot-sizes", "8", "120"]) == 2
    assert "--pilot-sizes has N = 120" in capsys.readouterr().err
    assert run([*few, "--pilot", "--network", "mlp", "--pilot-sizes", "16"]) == 2
    assert "two sizes or more" in capsys.readouterr().err
    assert not out.exists()


def test_a_pilot_trains_a_quarter_of_what_is_planned(tmp_path: Path) -> None:
    from geomem.data.source import DataOptions

    pilot = PilotOptions(steps=2000).pilot(DataOptions(images(tmp_path)), seed=0)
    assert (pilot.steps, pilot.measured_steps) == (500, (125, 250))
    assert pilot.planned.steps == 2000
    assert pilot.sizes == (8, 11, 33)
    with pytest.raises(InputError, match="says nothing"):
        replace(pilot, steps=20, measured_steps=())
