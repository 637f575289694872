r"""Experiments: resumed like any run, judged by rules that are checked on planted records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import geomem
from geomem.cli.main import run
from geomem.compute.local import LocalExecutor
from geomem.errors import InputError
from geomem.experiments import image_full, linear, linear_steps, spectra, subspaces
from geomem.experiments.exact import ExactRetention, beyond
from geomem.experiments.experiment import Scale, reproduce
from geomem.experiments.images import GROUPS
from geomem.experiments.linear import drop_at, stages
from geomem.experiments.names import EXPERIMENTS, experiment
from geomem.experiments.page import list_of, page_of
from geomem.experiments.publish import publish, publish_all
from geomem.experiments.questions import QUESTIONS, questions_page
from geomem.experiments.spectra import Times
from geomem.experiments.subspaces import retention_of
from geomem.findings.crossings import crossing
from geomem.findings.groups import group_numbers, with_error

PAGES = Path(__file__).parents[2] / "docs" / "results"


def tiny(kind: str, scale: Scale) -> geomem.Sweep:
    return geomem.Sweep(
        linear.KINDS[kind],
        sizes=(20, 40),
        steps=6,
        seeds=(0, 1),
        network="mlp",
        widths=(8,),
        blocks=1,
        levels=3,
        points=8,
        samples=0,
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduced")


@pytest.fixture(scope="module")
def small() -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (linear, spectra, subspaces):
            monkeypatch.setattr(module, "sweep_of", tiny)
        monkeypatch.setattr(linear, "SIGMAS", (0.05, 0.5))
        monkeypatch.setattr(linear, "SETS", 2)
        monkeypatch.setattr(spectra, "ONE", 40)
        monkeypatch.setattr(spectra, "SIDE", (40, 20))
        monkeypatch.setattr(subspaces, "LEVELS", (0.1, 0.5))

    return patch


@pytest.mark.parametrize(
    "name",
    [
        n if n == "linear-sizes" else pytest.param(n, marks=pytest.mark.slow)
        for n in EXPERIMENTS
        if n.startswith("linear")
    ],
)
def test_interrupted_and_resumed_it_gives_the_same_page(
    name: str,
    out: Path,
    small: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(monkeypatch)
    one = LocalExecutor(1)
    document = reproduce(experiment(name), out, "cpu", one)
    page = publish(document, out)
    text, pixels = page.read_bytes(), page.with_suffix(".png").read_bytes()
    # What an interruption leaves: some records are not there, nor is what follows from them.
    for record in sorted((out / "linear-gaussian" / "records").glob("*.nc"))[-1:]:
        record.unlink()
    again = reproduce(experiment(name), out, "cpu", one)
    publish(again, out)
    assert again == document
    assert page.read_bytes() == text
    assert page.with_suffix(".png").read_bytes() == pixels
    assert document["verdict"] in text.decode()
    assert all(len(row) == len(t["head"]) for t in document["tables"] for row in t["rows"])


def test_pages_of_a_folder_are_listed(
    out: Path, small: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    reproduce(experiment("linear-sizes"), out, "cpu", LocalExecutor(1))
    pages = publish_all(out)
    index = (out / "index.md").read_text()
    assert pages
    assert all(f"({page.name})" in index for page in pages)
    with pytest.raises(InputError, match="no document"):
        publish_all(out / "linear-gaussian")


def test_the_command_lists_experiments_and_refuses_unknown_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["reproduce"]) == 0
    assert all(name in capsys.readouterr().out for name in ["linear-panel"])
    assert run(["reproduce", "linear-pannel"]) == 2
    assert "the experiments are linear-times" in capsys.readouterr().err


# --- Rules of judgement ---------------------------------------------------------------------


def test_a_stage_is_where_trainings_agree_on_a_drop_that_is_one() -> None:
    row = xr.Dataset(
        {
            "drop_rank": (("estimator", "sigma"), [[25, 25, 23, 28]]),
            "drop_share": (("estimator", "sigma"), [[1.0, 0.4, 1.0, 1.0]]),
            "fall": (("estimator", "sigma"), [[0.5, 0.5, 0.05, 0.3]]),
        },
        {"estimator": ["paper"]},
    )
    drops = drop_at(row, "paper")
    assert drops == [25, None, None, 28]
    assert stages(drops, np.array([0.1, 0.2, 0.3, 0.4])) == {25: (0.1, 0.1), 28: (0.4, 0.4)}


def planted(high: float, low: float) -> xr.Dataset:
    r"""A sweep whose networks keep given shares of the population in each group at N = 50."""
    rng, variances = np.random.default_rng(0), np.array([1.0] * 2 + [0.09] * 5 + [1e-4] * 23)
    sigmas = np.array([0.1, 0.3])
    whole = variances / (variances + sigmas[:, None] ** 2)
    share = np.array([high] * 2 + [low] * 5 + [1.0] * 23)
    rows = [np.repeat(whole[:, None], 40, 1)]
    for kept in (share, np.ones(30)):
        rows += [whole[:, None] * kept + 0.05 * rng.normal(size=(2, 40, 30)) for _ in range(3)]
    return xr.Dataset(
        {"diagonal": (("subject", "at", "sigma", "point", "direction"), np.stack(rows)[:, None])},
        {
            "at": ["training"],
            "sigma": sigmas,
            "kind": ("subject", np.array(["population", *["learned"] * 6], dtype=object)),
            "num_samples": ("subject", [np.nan, 50, 50, 50, 5000, 5000, 5000]),
            "step": ("subject", [np.nan, *[10] * 6]),
            "measured": ("subject", [True] * 7),
        },
        {"control": "population"},
    )


def test_retention_is_what_was_planted_and_its_order_is_found() -> None:
    found = retention_of(planted(0.9, 0.5), 10).sel(num_samples=50)
    for group, kept in (("high", 0.9), ("low", 0.5)):
        one = found.sel(group=group)
        z = (one.retention - kept) / one.retention_stderr
        assert np.abs(z).max() < 4
    assert subspaces.sure_cells(retention_of(planted(0.9, 0.5), 10))[:3] == (2, 0, 2)
    assert subspaces.sure_cells(retention_of(planted(0.5, 0.9), 10))[:3] == (2, 2, 0)
    assert subspaces.sure_cells(retention_of(planted(1.0, 1.0), 10))[0] == 0
    counts = {"gaussian": (4, 0, 4, 0, 4), "normalised": (4, 0, 3, 0, 4)}
    assert subspaces._verdict(counts)[0] == "not seen"
    assert subspaces._verdict({**counts, "gaussian": (4, 4, 0, 4, 0)})[0].endswith("regime")


def test_measured_and_predicted_agree_and_a_wrong_prediction_does_not(tmp_path: Path) -> None:
    asked = ExactRetention((20, 60), (0.2, 0.5), total=1000)
    found = asked.run(tmp_path / "exact.json")
    known = beyond(found)
    assert known["cells"] == 8
    assert known["beyond"] == 0  # of 8 cells one in 40 runs would have one
    assert asked.run(tmp_path / "exact.json") == found
    found["predicted"]["20"]["high"][1][0] += 0.2
    assert beyond(found)["beyond"] == 1


def test_a_crossing_has_an_interval_and_may_lie_outside() -> None:
    middle, low, high = crossing([32, 128, 512], [0.9, 0.5, 0.1], [0.02, 0.02, 0.02])
    assert 110 < low < middle < high < 150
    assert crossing([32, 128], [0.2, 0.1], [0.01, 0.01])[0] == 0
    assert crossing([32, 128], [0.9, 0.8], [0.01, 0.01])[0] == np.inf


def test_shares_of_groups_add_up_to_the_share(tmp_path: Path) -> None:
    sweep = geomem.Sweep(
        "digits", sizes=(16, 32), steps=20, levels=3, points=8, samples=0, widths=(8,), draws=1,
        trajectories=0, jacobian_points=0,
    )  # fmt: skip
    dataset = sweep.run(tmp_path / "run", processes=1, quiet=True)
    whole = group_numbers(dataset, {"all": slice(None)}, replicates=20).isel(group=0)
    parts = group_numbers(dataset, GROUPS, replicates=20)
    assert parts.whole_share.shape == (2, 3)
    least, most = (parts.whole_share.reduce(f, "group") for f in (np.min, np.max))
    # A weighted mean lies between its parts, up to the rounding of records in float32.
    share = whole.whole_share
    assert bool(((least - 1e-4 <= share) & (share <= most + 1e-4)).all())
    assert np.allclose(parts.nats.sum("group"), whole.nats, atol=1e-3)
    # The same numbers as those of the run, whose errors are of images alone here.
    known = geomem.numbers(dataset, replicates=20, permutations=9)
    learned = known.isel(subject=known["kind"].values == "learned")
    assert np.allclose(whole.nats, learned.information)
    kept = learned.dimension.sel(at="training")
    assert np.allclose(whole.training_dimension, kept)


def test_errors_are_over_images_and_trainings_together() -> None:
    # Two trainings that agree at images that differ, and two that differ at equal ones.
    rng = np.random.default_rng(0)
    images = 0.3 * rng.normal(size=(1, 5001, 1)) + 1.0
    images[:, 0] = 1.0
    assert abs(with_error(np.concatenate([images, images]))[1][0] - 0.3) < 0.02
    apart = np.ones((2, 101, 1)) * np.array([1.0, 2.0])[:, None, None]
    assert abs(with_error(apart)[1][0] - 0.5) < 1e-12


# --- Pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.json")), ids=lambda p: p.stem)
def test_pages_of_the_docs_are_what_their_documents_say(path: Path) -> None:
    document = json.loads(path.read_text())
    assert page_of(document) == path.with_suffix(".md").read_text()
    assert path.with_suffix(".png").exists()


def test_the_list_of_the_docs_is_what_the_documents_say() -> None:
    documents = [json.loads(path.read_text()) for path in PAGES.glob("*.json")]
    assert list_of(documents) == (PAGES / "index.md").read_text()
    assert questions_page(documents) == (PAGES / "questions.md").read_text()


def test_questions_name_experiments_and_pages_that_there_are() -> None:
    asked = {name for question in QUESTIONS for name in question.experiments}
    assert asked <= set(EXPERIMENTS)
    files = [file for question in QUESTIONS for file in question.pages or {}]
    assert all((PAGES / file).exists() for file in files)
    assert "Not run yet: `geomem reproduce sphere`" in questions_page([])


def test_the_name_is_the_class() -> None:
    assert [experiment(name).name for name in EXPERIMENTS] == list(EXPERIMENTS)
    assert isinstance(experiment("linear-times"), Times)


@pytest.mark.parametrize(
    ("last", "verdict"),
    [((9, 1), "confirmed"), ((6, 4), "confirmed in this regime"), ((1, 9), "not seen")],
)
def test_an_order_turns_where_it_is_another_at_the_last_step(
    last: tuple[int, int], verdict: str
) -> None:
    counts = {("gaussian", 10): (12, 1, 4, 0, 0), ("gaussian", 100): (12, *last, 0, 0)}
    found, why = linear_steps._verdict(counts)
    assert found == verdict
    assert f"{last[0]} of 10 sure ones (12 cells) after 100" in why
    none, _ = linear_steps._verdict({("gaussian", 10): (2, 0, 0, 0, 0)})
    assert none == "undecided at this scale"


def test_on_full_pictures_the_share_must_fall_beyond_error() -> None:
    def one(few: float, many: float) -> dict[str, Any]:
        share = [[few, 0.01], [many, 0.01]]
        return {"sizes": [100, 1000], "small": None, "full": {"share": share}}

    assert image_full._verdict({"a": one(0.5, 0.02)})[0] == "confirmed"
    assert image_full._verdict({"a": one(0.5, 0.02), "b": one(0.5, 0.49)})[0] == (
        "confirmed in this regime"
    )
    assert image_full._verdict({"a": one(0.02, 0.01)})[0] == "not seen"
    assert image_full._verdict({"a": one(1.2, 0.5)})[0] == "not seen"  # all is no part of it
