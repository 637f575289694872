r"""``geomem dimension``: known dimensions, the records' own points and noise, and bad input."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import geomem
from geomem.cli.dimension import Answers, answers
from geomem.cli.main import run
from geomem.dimension import NoGap
from geomem.errors import InputError
from geomem.manifolds import PAPER_VARIANCES
from geomem.measure.dimension import LocalDimensions
from geomem.measure.probes import measure
from geomem.measure.study import Study, make_study
from geomem.measure.subject import Description, Subject
from geomem.models.networks import NetworkConfig, save_network
from geomem.runs.sweep import Sweep
from geomem.stats import Estimate
from tests.references import normal

OWN = """
from dataclasses import dataclass
import geomem

@dataclass(frozen=True)
class Own:
    add: float = 0.0
    def __call__(self, denoiser, x, sigma):
        found = geomem.SoftCount()(denoiser, x, sigma)
        return geomem.Estimate(found.value + self.add)

def number(denoiser, x, sigma):
    return 3.0

def shy(denoiser, x, sigma):
    return geomem.NoGap("shy") if float(x[0, 0, 0]) > -1 else geomem.Estimate(1.0, 0.25)
"""


def document(arguments: list[str], folder: Path) -> dict[str, Any]:
    path, out = folder / "out.json", folder / f"run{len(list(folder.glob('run*')))}"
    assert run(["dimension", *arguments, "--json", str(path), "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def sweep_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dimension") / "run"
    small = {"levels": 3, "points": 8, "draws": 3, "samples": 0}
    sweep = Sweep("digits", sizes=(16, 32), steps=30, control="linear", **small)  # type: ignore[arg-type]
    sweep.run(out, processes=1, quiet=True)
    return out


# ------------------------------------------------------------------------- known answers


def test_the_population_keeps_what_it_must(tmp_path: Path) -> None:
    arguments = ["--data", "linear", "--sizes", "50", "--sigmas", "0.5", "1", "--points", "3"]
    found = document([*arguments, "--dimension", "soft-count", "threshold"], tmp_path)
    rows = [r for r in found["rows"] if r["kind"] == "population"]
    variances = np.array(PAPER_VARIANCES)
    assert len(rows) == 8  # two methods, two kinds of points, two levels
    for row in rows:
        kept = variances / (variances + row["sigma"] ** 2)
        truth = kept.sum() if row["method"] == "soft-count" else (kept > 0.5).sum()
        assert row["dimension"] == pytest.approx(truth, abs=1e-9)
        assert row["stderr"] == pytest.approx(0, abs=1e-9)
        assert row["sigma"] == pytest.approx(row["sigma_relative"] * found["rms"])


def test_points_and_noise_are_those_of_the_records(sweep_run: Path, tmp_path: Path) -> None:
    # The diagonal in a record, over all directions, is the trace at the same noised points.
    data = geomem.load(sweep_run)
    relative = data.sigma_relative.values[1]
    found = document(
        f"--network {sweep_run} --sizes 16 --sigmas {relative:.17g} "
        "--dimension soft-count --points 8".split(),
        tmp_path,
    )
    assert len(found["rows"]) == 6
    for row in found["rows"]:
        record = geomem.grid(data, row["kind"]).diagonal.sel(at=row["at"]).isel(sigma=1)
        record = record.sel(num_samples=row["num_samples"])
        record = record.isel({k: 0 for k in ("seed", "step") if k in record.dims})
        expected = record.sum("direction").values[:8].ravel()
        answers = [a["dimension"] for a in row["answers"]]
        # Records are float32, and so are networks and their Jacobians.
        np.testing.assert_allclose(answers, expected, rtol=2e-4, atol=2e-4)


def test_one_network_is_one_subject(sweep_run: Path, tmp_path: Path) -> None:
    stem = sweep_run / "networks" / "N000016-seed0-step30"
    arguments = ["--sigmas", "0.3", "--points", "2", "--dimension", "threshold"]
    by_stem = document(["--network", str(stem), *arguments], tmp_path)
    for path in (stem.with_suffix(".safetensors"), stem.with_suffix(".json")):
        assert document(["--network", str(path), *arguments], tmp_path) == by_stem
    first, second = by_stem["rows"]
    assert (first["num_samples"], first["step"], first["at"]) == (16, 30, "training")
    assert second["at"] == "held_out"


# ---------------------------------------------------------------------------- own methods


def test_a_strangers_method_in_a_real_process(tmp_path: Path) -> None:
    (tmp_path / "own_method.py").write_text(OWN)
    script = Path(sys.executable).with_name("geomem")
    done = subprocess.run(
        f"{script} dimension --data linear --sizes 50 --sigmas 1 --points 2 "
        "--dimension own_method:Own(add=10) --csv out.csv".split(),
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "own_method:Own(add=10)" in done.stdout
    assert "subjects to measure, about" in done.stderr  # said beforehand
    assert "of memory" in done.stderr
    with (tmp_path / "out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 2  # empirical and population, two kinds, two points
    assert all(float(line["dimension"]) >= 10 for line in lines)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["out.csv", "own_method.py"]
    (made,) = (tmp_path / "runs").iterdir()  # a run like all others
    assert made.name.startswith("dimension-")
    assert (made / "report.html").exists()


def test_no_gap_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_shy.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--data", "digits", "--sizes", "32", "--sigmas", "0.2", "--points", "12"]
    found = document([*arguments, "--dimension", "own_shy:shy", "largest-gap"], tmp_path)
    out = capsys.readouterr().out
    assert re.search(
        r"- no gap by own_shy:shy at \d+ of 24 points, for instance empirical, N = 32, "
        "(training|held-out), 0.2 rms: shy",
        out,
    )
    assert "- own_shy:shy: ± over 12 points, ± 0.25 each" in out
    for row in found["rows"]:
        gaps = [a for a in row["answers"] if "no_gap" in a]
        known = [a["dimension"] for a in row["answers"] if "no_gap" not in a]
        assert len(gaps) + len(known) == 12
        if row["method"] == "own_shy:shy":
            assert (row["dimension"], row["stderr"]) == (1.0, 0.25)  # which points share
            assert row["how"] == f"12 points, no gap at {len(gaps)}, ± 0.25 each"
            assert f"({len(known)} of 12)" in out
        elif not known:
            assert row["dimension"] is None
            assert row["how"].startswith("no gap at all 12 points")


def test_the_same_command_gives_the_same_files(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        arguments = ["dimension", "--data", "digits", "--sizes", "20", "--sigmas", "0.5"]
        files = ["--json", str(tmp_path / f"{name}.json"), "--csv", str(tmp_path / f"{name}.csv")]
        methods = ["--dimension", "soft-count", "forward-soft-count", "--points", "2"]
        assert run([*arguments, *methods, *files, "--out", str(tmp_path / f"run-{name}")]) == 0
        contents.append([(tmp_path / f"{name}.{kind}").read_bytes() for kind in ("json", "csv")])
    assert contents[0] == contents[1]


# ------------------------------------------------------------------------------ means, ±


def row(*found: Estimate | NoGap) -> Answers:
    points = torch.zeros(len(found), 1).double()
    study = study_of(points, ("soft-count",), 1.0)
    subject = Subject(Description("empirical", num_samples=3), lambda x, s: x)
    record = measure(subject, study)
    for k, one in enumerate(found):
        no_gap = one.reason if isinstance(one, NoGap) else ""
        known = Estimate(math.nan, math.nan) if isinstance(one, NoGap) else one
        record.local_dimension.values[..., k] = known.value
        record.local_dimension_stderr.values[..., k] = known.stderr
        record.no_gap.values[..., k] = no_gap
    dataset = record.expand_dims("subject").assign_coords(
        sigma_relative=("sigma", [1.0]),
        sigma=[1.0],
        point_group=(("at", "point"), np.arange(len(found))[None]),
        kind=("subject", ["empirical"]),
        num_samples=("subject", [3.0]),
        seed=("subject", [math.nan]),
        step=("subject", [math.nan]),
    )
    (made,) = answers(dataset)
    return made


def study_of(points: torch.Tensor, methods: tuple[str, ...], sigma: float, seed: int = 0) -> Study:
    from geomem.subspaces import PrincipalDirections

    d = points.shape[1]
    eye = torch.eye(d).double()
    return make_study(
        {"training": points},
        directions=PrincipalDirections(eye, torch.ones(d).double(), 0.0, d, (d,)),
        sigmas=torch.tensor([sigma]).double(),
        probes=[LocalDimensions(methods, len(points))],
        rms=1.0,
        seed=seed,
    )


def test_the_mean_and_how_it_was_obtained() -> None:
    assert row(Estimate(2.0, 0.5)).mean == Estimate(2.0, 0.5)  # one point speaks for itself
    assert row(Estimate(2.0, 0.5)).how == "1 point, ± 0.5 each"
    both = row(Estimate(1.0), Estimate(3.0))
    assert both.mean == Estimate(2.0, 1.0)  # over points, though each of them is exact
    assert both.how == "2 points, each exact"
    # What is stated and not seen in the spread is common to the points; the rest averages.
    assert row(*[Estimate(1.0, 0.25)] * 9).mean == Estimate(1.0, 0.25)
    assert row(Estimate(1.0, 0.5), Estimate(3.0, 1.0)).mean == Estimate(2.0, 1.0)
    assert row(Estimate(1.0, math.nan), Estimate(3.0, math.nan)).mean == Estimate(2.0, 1.0)
    assert row(NoGap("a"), NoGap("b")).mean is None
    assert row(NoGap("a"), NoGap("b")).how == "no gap at all 2 points"
    assert row(NoGap("a")).how == "no gap at 1 point"
    assert row(Estimate(1.0, math.nan)).how == "1 point, each of one draw"
    assert both.name == "empirical, N = 3"


A = normal(7, 40, 40) / 12 + torch.eye(40).double() / 2
SAMPLED = {
    "quadrature": "soft-count(lanczos(depth=4, probes=2))",
    "forward": "forward-soft-count(pairs=2)",
    "flipd": "flipd(probes=2)",
}


def asked(name: str, seed: int) -> list[Estimate]:
    study = study_of(torch.zeros(60, 40).double(), (SAMPLED[name],), 1e-3, seed)
    record = measure(Subject(Description("model"), lambda x, s: x @ A.T), study)
    values, errors = record.local_dimension, record.local_dimension_stderr
    return [
        Estimate(float(v), float(e)) for v, e in zip(values[0, 0, 0], errors[0, 0, 0], strict=True)
    ]


@pytest.mark.parametrize("name", SAMPLED)
def test_every_point_is_asked_with_probes_of_its_own(name: str) -> None:
    # A linear denoiser has the same trace everywhere: only probes differ, and 60 points average.
    found = asked(name, 0)
    assert len({round(a.value, 4) for a in found}) == 60
    mean = Estimate.of_mean([a.value for a in found])
    assert abs(mean.z_score(float(A.trace()))) < 4
    assert asked(name, 0) == found
    assert not {a.value for a in asked(name, 1)} & {a.value for a in found}


def test_clean_methods_get_clean_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_places.py").write_text(PLACES)
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_places  # type: ignore[import-not-found]

    points = normal(0, 2, 5)
    study = study_of(points, ("own_places:Clean", "own_places:Noisy"), 2.0)
    measure(Subject(Description("model"), lambda x, s: x / 2), study)
    seen = own_places.SEEN
    assert {tuple(x.tolist()) for x in seen["clean"]} == {tuple(x.tolist()) for x in points}
    off = torch.stack(seen["noisy"])[:, None] - points  # some multiple of 2 away from every point
    assert float(off.norm(dim=2).min()) > 1


PLACES = """
import geomem

SEEN = {"clean": [], "noisy": []}

class Clean:
    at = "clean"

    def __call__(self, denoiser, x, sigma):
        SEEN[self.at].append(x)
        return geomem.Estimate(1.0)

class Noisy(Clean):
    at = "noisy"
"""


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda: 1e6)
    study = study_of(normal(0, 1, 2000), ("soft-count",), 1.0)
    with pytest.raises(InputError, match="for soft-count: use local-dimension"):
        measure(Subject(Description("model"), lambda x, s: x / 2), study)


# ------------------------------------------------------------------------------ bad input


def test_levels_outside_training_are_told(
    sweep_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--sigmas", "0.001", "0.002", "--points", "1", "--dimension", "forward-soft-count"]
    arguments += ["--processes", "1"]
    stem = sweep_run / "networks" / "N000016-seed0-step30"
    out = str(sweep_run.with_name("levels"))
    assert run(["dimension", "--network", str(stem), *arguments, "--out", out]) == 0
    error = capsys.readouterr().err
    assert error.count("note: sigma = ") == 1  # once, not at every level
    assert "below the levels that the denoiser was trained on" in error
    assert "UserWarning" not in error


DIGITS = ["--data", "digits", "--sizes", "32", "--points", "1"]
BAD = {
    "nothing to measure": ([], "pass --data, or --network"),
    "no such data": (["--data", "nowhere"], "nowhere"),
    "no such method": ([*DIGITS, "--dimension", "treshold"], "did you mean 'threshold'?"),
    "no such module": ([*DIGITS, "--dimension", "own_missing:A"], "cannot be imported"),
    "bad arguments": (
        [*DIGITS, "--dimension", "threshold(below=1)"],
        "no argument 'below'; pass one of",
    ),
    "a bad answer": ([*DIGITS, "--dimension", "own_bad:number"], "answered 3.0"),
    "sigma 0": ([*DIGITS, "--sigmas", "0"], "--sigmas"),
    "sigma nan": ([*DIGITS, "--sigmas", "nan"], "--sigmas"),
    "no points": ([*DIGITS, "--points", "0"], "--points"),
    "too many": (["--data", "digits", "--sizes", "10000000"], "larger than the pool"),
    "a manifold without size": (["--data", "linear"], "--sizes"),
    "all of a manifold": (["--data", "linear", "--sizes", "all"], "--sizes"),
    "no network": (["--network", "nowhere"], "nowhere does not exist"),
    **{
        text: ([*DIGITS, "--dimension", text], named)
        for text, named in {
            "threshold(above='a')": "above is 'a'; pass a finite number",
            "threshold(above=2)": "pass a finite number above 0 below 1",
            "threshold(above=0)": "pass a finite number above 0 below 1",
            "threshold(spectrum=3)": "spectrum is 3; pass a SpectrumMethod",
            "flipd(probes=2.5)": "probes is 2.5; pass a whole number",
            "soft-count(spectrum=lanczos(depth=2.5, probes=8))": "depth is 2.5",
            "normal-bundle(draws=4.5)": "draws is 4.5; pass a whole number",
            "local-dimension(block=4.5)": "block is 4.5; pass a whole number",
            "local-dimension(products=0)": "products is 0",
            "spike-rule(differences=3)": "differences is 3",
            "os:getcwd": "cannot answer",
            "geomem.dimension:Place": "cannot answer",
            "largest-gap(ratio=0)": "ratio is 0; pass a finite number above 1",
            "forward-soft-count(pairs=-3)": "pairs is -3; pass a whole number from 1",
            "forward-soft-count(seed=-1)": "seed is -1; pass a whole number from 0",
            "soft-count(lanczos(depth=2, probes=2, seed=-1))": "seed is -1",
        }.items()
    },
    "a negative seed": ([*DIGITS, "--seed", "-1"], "--seed"),
    "no place": ([*DIGITS, "--json", "own_bad.py/x.json"], "cannot be written"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_is_one_sentence_and_status_2(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own_bad.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    arguments, named = BAD[case]
    assert run(["dimension", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert named in error
    assert error.startswith("geomem dimension: ")


def test_networks_and_data_must_fit(
    sweep_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = NetworkConfig("mlp", (5,), 1.0, width=8, blocks=1)
    save_network(config.build(0), config, tmp_path / "mine")
    mine = ["--network", str(tmp_path / "mine")]
    assert run(["dimension", *mine]) == 2  # of no run: it does not know its data
    assert "pass --data" in capsys.readouterr().err
    assert run(["dimension", *mine, "--data", "digits"]) == 2
    assert "takes points of shape (5,)" in capsys.readouterr().err
    assert run(["dimension", "--network", str(sweep_run), "--data", "digits"]) == 2
    assert "leave --data out" in capsys.readouterr().err


def test_a_network_of_no_run_is_measured_at_held_out_points(tmp_path: Path) -> None:
    config = NetworkConfig("mlp", (1, 8, 8), 0.54, width=8, blocks=1)
    save_network(config.build(0), config, tmp_path / "mine")
    found = document(
        f"--network {tmp_path / 'mine'} --data digits --points 1 --sigmas 1 "
        "--dimension forward-soft-count".split(),
        tmp_path,
    )
    assert [r["at"] for r in found["rows"]] == ["held_out"]
