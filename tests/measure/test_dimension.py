r"""Local dimensions in the records of a sweep: at its points and its noise, by any method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import geomem
from geomem.cli.main import run
from geomem.manifolds import PAPER_VARIANCES
from geomem.runs.kinds import open_run
from geomem.runs.sweep import Sweep

METHODS = ("soft-count", "largest-gap", "soft-count(spectrum=lanczos(depth=4, probes=3))")
SWEEP = Sweep(
    data="linear",
    sizes=(16, 64),
    steps=20,
    levels=3,
    points=8,
    draws=2,
    samples=0,
    dimension=METHODS,
    dimension_points=3,
)
OWN = """
import geomem

class Own:
    def __call__(self, denoiser, x, sigma):
        return geomem.Estimate(float(sigma), 0.5)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dimensions") / "run"
    SWEEP.run(out, processes=1, quiet=True)
    return out


@pytest.fixture(scope="module")
def dataset(finished: Path) -> xr.Dataset:
    return geomem.load(finished)


def test_every_denoiser_has_dimensions(dataset: xr.Dataset) -> None:
    found = dataset.local_dimension
    assert found.dims == ("subject", "dimension_method", "at", "sigma", "point")
    assert tuple(found.dimension_method.values) == METHODS
    soft = found.sel(dimension_method="soft-count")
    assert np.isfinite(soft.isel(point=slice(3))).all()  # all that were asked for
    assert np.isnan(soft.isel(point=slice(3, None))).all()  # and no others
    assert found.sizes["point"] == dataset.sizes["point"]


def test_the_soft_count_is_the_trace_of_the_recorded_diagonal(dataset: xr.Dataset) -> None:
    # Two ways to the same number: u.(dD/dx)u along all directions, and eigenvalues.
    soft = dataset.local_dimension.sel(dimension_method="soft-count").isel(point=slice(3))
    diagonal = dataset.diagonal.sum("direction").isel(point=slice(3))
    xr.testing.assert_allclose(
        soft.transpose(*diagonal.dims).drop_vars("dimension_method"), diagonal, rtol=2e-4, atol=2e-4
    )


def test_the_population_is_known_and_sampled_errors_are_recorded(dataset: xr.Dataset) -> None:
    (population,) = np.flatnonzero(dataset["kind"].values == "population")
    known = dataset.isel(subject=population, point=slice(3))
    variances = np.array(PAPER_VARIANCES)
    truth = [float((variances / (variances + s**2)).sum()) for s in dataset.sigma.values]
    soft = known.sel(dimension_method=METHODS[0])
    np.testing.assert_allclose(soft.local_dimension.mean(("at", "point")), truth, rtol=1e-5)
    assert (soft.local_dimension_stderr == 0).all()
    # Signs see this diagonal Jacobian without variance, but not the empirical one.
    (first, _) = np.flatnonzero(dataset["kind"].values == "empirical")
    empirical = dataset.local_dimension_stderr.isel(subject=first).sel(at="held_out")
    assert (empirical.sel(dimension_method=METHODS[2]).isel(point=0) > 0).any()
    gaps = known.sel(dimension_method="largest-gap").local_dimension
    assert set(np.unique(gaps.values[np.isfinite(gaps.values)])) <= {2.0, 7.0, 30.0}


def test_records_and_the_command_say_the_same(finished: Path, tmp_path: Path) -> None:
    data = geomem.load(finished)
    relative = data.sigma_relative.values[1]
    path, out = tmp_path / "out.json", tmp_path / "out"
    arguments = f"dimension --network {finished} --sigmas {relative:.17g} --points 3 --json {path}"
    assert run([*arguments.split(), "--dimension", "soft-count", "--out", str(out)]) == 0
    rows = [r for r in json.loads(path.read_text())["rows"] if r["kind"] == "learned"]
    assert len(rows) == 4
    for row in rows:
        place = {k: row[k] for k in ("num_samples", "seed", "step", "at")}
        recorded = geomem.grid(data).local_dimension.sel(place)
        recorded = recorded.sel(dimension_method="soft-count").isel(sigma=1, point=slice(3))
        answers = [a["dimension"] for a in row["answers"]]
        np.testing.assert_allclose(recorded, answers, rtol=1e-5)


def test_a_run_with_dimensions_is_gone_on_with_and_drawn(finished: Path) -> None:
    assert open_run(finished) == SWEEP
    record = finished / "records" / "000002.nc"
    before = record.read_bytes()
    record.unlink()
    SWEEP.run(finished, processes=1, quiet=True)
    assert record.read_bytes() == before
    assert run(["report", str(finished)]) == 0


def test_without_dimensions_config_and_records_are_what_they_were(tmp_path: Path) -> None:
    sweep = Sweep(data="linear", sizes=(16,), steps=2, levels=2, points=8, samples=0)
    assert "dimension" not in sweep.config()
    assert Sweep.from_config(sweep.config()) == sweep
    data = sweep.run(tmp_path / "run", processes=1, quiet=True)
    assert "local_dimension" not in data
    assert "dimension_method" not in data.coords


def test_a_strangers_method_in_worker_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_in_sweep.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    arguments = "sweep --data linear --sizes 16 --steps 2 --levels 2 --points 8 --samples 0"
    options = "--dimension own_in_sweep:Own --processes 2 --out run"
    assert run([*arguments.split(), *options.split()]) == 0
    found = geomem.load("run").local_dimension.isel(point=0, dimension_method=0)
    for sigma in found.sigma.values:
        assert np.allclose(found.sel(sigma=sigma).astype(float), sigma)


def test_a_method_that_is_none_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = f"sweep --data linear --sizes 16 --dimension treshold --out {tmp_path / 'run'}"
    assert run(arguments.split()) == 2
    assert "local-dimension" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
