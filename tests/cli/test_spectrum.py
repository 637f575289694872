r"""``geomem spectrum``: the paper's figure, of denoisers whose spectrum is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import geomem
from geomem.cli.main import run
from geomem.errors import InputError
from geomem.findings.spectrum import Spectra
from geomem.manifolds import PAPER_VARIANCES
from geomem.runs.records import RunFolder
from geomem.runs.spectrum import ScoreSpectra


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Spectra:
    out = tmp_path_factory.mktemp("spectra") / "run"
    spectra = ScoreSpectra(
        "linear", sizes=(40,), sets=3, points=3, sigmas=(0.5, 4.0), at=("origin", "training")
    )
    dataset = spectra.run(out, processes=1, quiet=True)
    assert spectra.run(out, processes=1, quiet=True).identical(dataset)  # nothing is done again
    return Spectra.of(dataset, RunFolder.open(out).study)


def test_a_linear_denoiser_has_the_spectrum_of_its_formula_by_every_estimator(
    found: Spectra,
) -> None:
    population = found.measured.isel(subject=found.measured.kind.values == "population").squeeze(
        "subject"
    )
    variances = np.sort(PAPER_VARIANCES)
    for sigma in population.sigma.values:
        t = float(sigma) ** 2
        one = population.sel(sigma=sigma, at="fixed")
        for estimator in ("paper", "steps", "jacobian"):
            # Scores are linear: no step is too long. Rounding of 30 products.
            value = one.value.sel(estimator=estimator)
            np.testing.assert_allclose(value, t / (t + variances), rtol=1e-9)
        assert float(one.trace) == pytest.approx((variances / (variances + t)).sum())
        assert float(one.kept) == (variances > t).sum()
        # Around a training point the score is not 0: the paper's rows share an offset.
        beside = population.sel(sigma=sigma, at="training").value
        np.testing.assert_allclose(beside.sel(estimator="steps"), one.value.sel(estimator="steps"))
        assert float(beside.sel(estimator="paper")[0]) > 1.01


def test_errors_are_over_data_sets_or_over_points(found: Spectra) -> None:
    exact = found.measured.isel(subject=found.measured.kind.values == "empirical")
    assert exact.trainings.values.tolist() == [3]
    origin, training = (exact.sel(at=at).isel(subject=0, sigma=0) for at in ("fixed", "training"))
    assert 0 < float(origin.trace_stderr) < float(origin.trace)
    # Of three sets one holds the training points: the error is over them.
    assert 0 < float(training.trace_stderr) < 1


def test_the_theory_is_the_papers(found: Spectra) -> None:
    theory = found.theory.sel(num_samples=40)
    assert found.guides == [23, 25, 28]
    # At t = 1.3, above t_c = .37, nothing has condensed in either form.
    np.testing.assert_array_equal(theory.form, ["as plotted", "consistent"])
    far = theory.sel(sigma=theory.sigma[-1])
    np.testing.assert_allclose(far.value.sel(form="consistent"), far.population, rtol=1e-9)
    assert far.drop_rank.values.tolist() == [28, 28]


def test_the_command_prints_draws_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", np.ones((2, 30)))
    command = "spectrum --data linear-sphere --sizes 20 40 --sigmas 1 --points 2 --processes 1"
    status = run(f"{command} --given mine.npy --at origin held_out --figure new.svg".split())
    assert status == 0
    said = capsys.readouterr().out
    assert "N = 40" in said
    assert "consistent" in said
    assert Path("new.svg").stat().st_size > 10_000
    assert Path("new-held_out.svg").exists() or Path("new-fixed.svg").exists()
    (out,) = Path("runs").iterdir()
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "values fall most behind rank" in page
    summary = json.loads((out / "summary.json").read_text())
    assert summary["window"] == [20, 29]
    assert {row["at"] for row in summary["rows"]} == {"fixed", "held_out"}
    dataset = geomem.load(out)
    assert dataset.point_name.sel(at="fixed").values.tolist() == [
        "origin",
        "mine.npy, row 0",
        "mine.npy, row 1",
    ]


def test_networks_of_a_sweep_are_asked(tmp_path: Path) -> None:
    sweep = geomem.Sweep(
        data="linear",
        sizes=(16,),
        steps=4,
        seeds=(0, 1),
        widths=(8, 16),
        blocks=1,
        levels=2,
        points=8,
        samples=0,
    )
    sweep.run(tmp_path / "run", processes=1, quiet=True)
    spectra = ScoreSpectra(network=(tmp_path / "run",), sigmas=(1.0,))
    found = spectra.run(tmp_path / "spectra", processes=1, quiet=True)
    learned = found.isel(subject=found.kind.values == "learned")
    assert sorted(learned.width.values.tolist()) == [8, 8, 16, 16]
    assert not np.isnan(learned.jacobian_value.sel(at="fixed").isel(point=0)).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"given": Path("no.npy")}, "`given` is no.npy"),
        ({"sets": 2, "sizes": ("all",), "data": "digits"}, "fewer `sets`"),
        ({"at": ()}, "at least one entry"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    options: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        ScoreSpectra(**{"data": "linear", "sizes": (8,)} | options).run(tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
