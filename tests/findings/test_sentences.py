r"""Findings say what the numbers say, and what they do not say they leave out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import geomem
from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.findings.sentences import sentences, summarize
from geomem.runs.records import RunFolder
from tests.runs.planted import draw, gaussian, planted_run

VARIANCES = torch.tensor([1.0, 0.5, 0.25, 0.25], dtype=torch.float64)


def run_of(
    path: Path, model: Denoiser | None, control: str = "population", count: int = 32
) -> xr.Dataset:
    training = draw(VARIANCES, count, 1)
    return planted_run(
        path,
        model=EmpiricalDenoiser(training) if model is None else model,
        control=gaussian(VARIANCES)
        if control == "population"
        else GaussianDenoiser.fit(draw(VARIANCES, 300, 3)),
        control_name=control,
        training=training,
        held_out=draw(VARIANCES, 32, 2),
        window=(0.1, 4.0),
        levels=8,
    )


def test_a_memorizing_denoiser_is_found_out(tmp_path: Path) -> None:
    dataset = run_of(tmp_path / "run", None)
    known = geomem.numbers(dataset, replicates=200)
    how_much, where, *_, samples = sentences(known)
    nats = geomem.Estimate(float(known.information[0]), float(known.information_stderr[0]))
    assert how_much.startswith("Missing information beside the population control")
    assert f"N = 32: {nats} nats" in how_much
    assert "(training and held-out images are told apart, p = 0.0001)" in how_much
    assert "peaks at sigma" in where
    assert samples == "No samples were drawn, so nothing is said about copies."


def test_a_population_is_not_accused(tmp_path: Path) -> None:
    dataset = run_of(tmp_path / "run", gaussian(VARIANCES))
    how_much, where, *_ = sentences(geomem.numbers(dataset, replicates=200))
    assert "none beyond chance" in how_much
    assert "no noise level shows a lost share beyond its error" in where


def test_an_underfit_network_is_called_that(tmp_path: Path) -> None:
    dataset = run_of(tmp_path / "run", GaussianDenoiser(torch.zeros(4), VARIANCES / 100))
    assert (
        "nothing can be said (undertrained" in sentences(geomem.numbers(dataset, replicates=50))[0]
    )


def test_the_linear_control_speaks_of_memorized_information(tmp_path: Path) -> None:
    dataset = run_of(tmp_path / "run", gaussian(VARIANCES), control="linear")
    assert sentences(geomem.numbers(dataset, replicates=50))[0].startswith("Memorized information")


def test_few_units_get_no_test(tmp_path: Path) -> None:
    dataset = run_of(tmp_path / "run", None, count=6)
    known = geomem.numbers(dataset, replicates=50)
    assert np.isnan(known.p_value).all()
    assert "nothing can be said" in sentences(known)[0]


def test_the_summary_is_strict_json_and_repeats_itself(tmp_path: Path) -> None:
    dataset = run_of(tmp_path / "run", None, count=6)
    summary = summarize(dataset)
    text = json.dumps(summary, allow_nan=False, sort_keys=True)
    assert text == json.dumps(summarize(dataset), allow_nan=False, sort_keys=True)
    assert "p_value" not in summary["subjects"][0]  # unknown is absent and not 0
    assert str(tmp_path) not in text


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run_of(tmp_path / "run", None)
    folder = RunFolder.open(tmp_path / "run")
    folder.record_path(1).unlink()
    dataset = geomem.load(tmp_path / "run")
    assert "No network was measured, only population" in summarize(dataset)["findings"][0]
    folder.record_path(0).unlink()
    dataset = geomem.load(tmp_path / "run")
    with pytest.raises(InputError, match="no finished subject"):
        geomem.numbers(dataset)
    assert "no finished subject" in summarize(dataset)["findings"][0]


def test_each_number_is_reproducible_from_the_errors_alone(tmp_path: Path) -> None:
    dataset = run_of(tmp_path / "run", None)
    known = geomem.numbers(dataset, replicates=50).isel(subject=0)
    e = dataset.error.astype(float).sel(at="training") ** 2
    density = e.sel(subject=0) - e.sel(subject=1)
    density = density.mean(["draw", "point"]).transpose("sigma", "direction").values
    np.testing.assert_allclose(known.density.values, density, rtol=1e-9, atol=1e-12)
    nats = np.trapezoid(density.sum(1), np.log(known.sigma.values))
    assert float(known.information) == pytest.approx(nats)
    control = e.sel(subject=0).mean(["draw", "point"]).sum("direction").values
    np.testing.assert_allclose(known.lost_share.values, density.sum(1) / control)


def test_the_bootstrap_error_is_the_spread_of_independent_runs(tmp_path: Path) -> None:
    # 16 independent runs; a chi-squared quantile says how far 16 may be off: .55 to 1.55.
    nats, errors = [], []
    for k in range(16):
        training = draw(VARIANCES, 32, 100 + k)
        dataset = planted_run(
            tmp_path / f"run{k}",
            model=GaussianDenoiser(torch.zeros(4, dtype=torch.float64), VARIANCES / 2),
            control=gaussian(VARIANCES),
            control_name="population",
            training=training,
            held_out=draw(VARIANCES, 32, 200 + k),
            window=(0.3, 3.0),
            levels=4,
            seed=k,
        )
        known = geomem.numbers(dataset, replicates=100).isel(subject=0)
        nats.append(float(known.information))
        errors.append(float(known.information_stderr))
    ratio = np.std(nats, ddof=1) / np.sqrt(np.mean(np.square(errors)))
    assert 0.55 < ratio < 1.55
