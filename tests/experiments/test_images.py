r"""Experiments on images and on the sphere: frozen trainings, planted answers, pages of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import geomem
from geomem.cli.main import run
from geomem.compute.local import LocalExecutor
from geomem.errors import InputError
from geomem.experiments import (
    epochs,
    image_dimension,
    image_subspaces,
    images,
    regimes,
    rotation,
    sphere,
)
from geomem.experiments.experiment import Scale, judged, reproduce
from geomem.experiments.images import folder_of, sweep_of
from geomem.experiments.names import experiment
from geomem.experiments.predicted import PredictedDimension
from geomem.experiments.publish import publish

Patch = Callable[[pytest.MonkeyPatch], None]
WITH_SWEEPS = (images, image_dimension, image_subspaces, epochs, rotation)


def small_sweep(data: str, scale: Scale) -> geomem.Sweep:
    return geomem.Sweep(
        data,
        sizes=(10, 24),
        steps=6,
        measured_steps=(3,),
        seeds=(0, 1),
        network="mlp",
        widths=(),
        levels=10,
        points=8,
        draws=1,
        samples=16,
        jacobian_points=2,
        trajectories=0,
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(6, 25)) * np.array([4, 3, 2, 1, 1, 1])[:, None]
    pixels = rng.normal(size=(400, 6)) @ shapes + 0.3 * rng.normal(size=(400, 25))
    path = tmp_path_factory.mktemp("data") / "My Pictures.npy"
    np.save(path, pixels.reshape(400, 1, 5, 5).astype(np.float32))
    return str(path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in WITH_SWEEPS:
        monkeypatch.setattr(module, "sweep_of", small_sweep)
    tiny = geomem.Sweep(
        "digits", sizes=(16, 32, 64), steps=12, measured_steps=(4, 8), widths=(8,), levels=10,
        points=8, draws=1, jacobian_points=0, samples=16, trajectories=0, network="mlp",
    )  # fmt: skip
    plane = geomem.Sweep(
        "linear", sizes=(16, 32), steps=4, widths=(8,), levels=10, points=8, draws=1, samples=16
    )
    for module in (epochs, regimes):
        monkeypatch.setattr(module, "digits_sweep", lambda scale: tiny)
    monkeypatch.setattr(regimes, "linear_sweep", lambda kind, scale: plane)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


def test_the_trainings_are_frozen() -> None:
    # What the queue of 2026 was started with: a changed config would train all of it anew.
    common = {
        "kind": "sweep", "network": "unet", "channels": [16, 32, 32], "steps": 2000,
        "measured_steps": [500, 1000], "batch_size": 32, "seeds": [0, 1], "levels": 10,
        "jacobian_points": 2, "samples": 128, "trajectories": 0, "ambient_dim": 30,
        "control": "auto", "dimension_points": 8, "disjoint": 1, "draws": 4,
        "learning_rate": 0.001, "points": 64,
    }  # fmt: skip
    sizes = {
        "fashion-mnist": (14, [30, 100, 300, 1000, 3000]),
        "mnist": (14, [30, 100, 300, 1000]),
        "olivetti": (16, [30, 100, 200]),
        "cifar10": (16, [30, 100, 300, 1000]),
    }
    for data, (side, counts) in sizes.items():
        config = json.loads(json.dumps(sweep_of(data, "cpu").config()))
        known = {**common, "data": data, "size": side, "sizes": counts}
        assert {key: config.get(key) for key in known} == known
        assert not {k for k in config if k not in known and config[k] not in (0, None, False)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("images-dimension", "images-subspaces", "epochs", "regimes", "rotation")
    ],
)
@pytest.mark.usefixtures("small")
def test_a_set_of_ones_own_is_judged(name: str, out: Path, pictures: str) -> None:
    chosen = experiment(name, [pictures])
    document = reproduce(chosen, out, "cpu", LocalExecutor(1))
    text = publish(document, out).read_text()
    assert document["verdict"] in text
    assert "nan" not in text
    assert all(len(row) == len(t["head"]) for t in document["tables"] for row in t["rows"])
    assert document["tables"][0]["rows"]
    # What was measured is not measured again, and the same records give the same page.
    assert judged(chosen, out, "cpu") == document
    if name == "images-dimension":
        theirs = document["tables"][2]["rows"]
        assert len(theirs) == 4
        assert all("not asked" not in row for row in theirs)
        # A second set of which nothing is there is named, and does not stop the page.
        more = judged(experiment(name, [pictures, "mnist"]), out, "cpu")
        assert any("Nothing is there yet of mnist" in said for said in more["ran"])
    if name == "epochs":
        assert set(document["curves"]) == {"digits, width 8", pictures}


@pytest.mark.usefixtures("small")
def test_without_networks_the_page_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no set of images has networks of two sizes"):
        judged(experiment("images-dimension", ["mnist"]), tmp_path, "cpu")


def test_only_experiments_on_images_take_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", "linear-panel", "--data", "mnist"]) == 2
    assert "leave --data out" in capsys.readouterr().err


def test_folders_of_sets_have_plain_names() -> None:
    assert folder_of("fashion-mnist") == "images-fashion-mnist"
    assert folder_of("/somewhere/My Pictures.npy") == "images-my-pictures"


def test_sizes_of_a_set_of_ones_own_follow_from_its_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "few.npy", rng.random((40, 1, 5, 5)))
    with pytest.raises(InputError, match="too small for networks on 30 and 100"):
        sweep_of(str(tmp_path / "few.npy"), "cpu")
    np.save(tmp_path / "some.npy", rng.random((900, 1, 5, 5)))
    floats = sweep_of(str(tmp_path / "some.npy"), "cpu")
    assert (floats.sizes, floats.size, floats.crop) == ((30, 100, 300), None, None)
    np.save(tmp_path / "grey.npy", rng.integers(0, 255, (900, 20, 24)).astype(np.uint8))
    grey = sweep_of(str(tmp_path / "grey.npy"), "cpu")
    assert (grey.sizes, grey.size, grey.crop) == ((30, 100, 300), 16, "center")


def test_the_predicted_dimension_is_that_of_exact_denoisers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    np.save(tmp_path / "plane.npy", rng.normal(size=(300, 4)).astype(np.float32))
    sweep = geomem.Sweep(str(tmp_path / "plane.npy"), sizes=(20,))
    source = sweep.source
    asked = PredictedDimension(source.data.digest, (20, 60), (0.3, 2.0), sources=200)
    found = asked.run(tmp_path / "predicted.json", source)["predicted"]
    pool = source.data.tensor(source.split.pool).double()
    for n in (20, 60):
        for k, sigma in enumerate((0.3, 2.0)):
            kept = []
            for s in range(60):
                index = np.random.default_rng([n, s]).permutation(len(pool))[:n]
                exact = geomem.EmpiricalDenoiser(pool[index])
                noise = np.random.default_rng([k, s]).normal(size=(8, 4))
                x = pool[index[:8]] + sigma * torch.from_numpy(noise)
                level = pool.new_tensor(sigma)
                eye = pool.new_tensor(np.eye(4))
                kept.append(float(exact.jacobian_diagonal(x, level, eye).sum(1).mean()))
            mean, error = found[str(n)][k]
            spread = np.std(kept, ddof=1) / 60**0.5
            assert abs(mean - np.mean(kept)) < 4 * np.hypot(error, spread)


# --- Rules of judgement ---------------------------------------------------------------------


def cells(share: list[float], difference: float, nats: float) -> xr.Dataset:
    return xr.Dataset(
        {
            "whole_share": (("subject", "group"), [share]),
            "whole_share_stderr": (("subject", "group"), [[0.01] * len(share)]),
            "whole_difference": ("subject", [difference]),
            "whole_difference_stderr": ("subject", [0.02]),
            "nats_difference": ("subject", [nats]),
            "nats_difference_stderr": ("subject", [0.02]),
        }
    )


def test_an_order_counts_only_where_something_is_lost_and_groups_differ() -> None:
    assert image_subspaces.order(cells([0.5, 0.4, 0.2], 0.3, 0.3)) == (1, 1, 0, 1, 0)
    assert image_subspaces.order(cells([0.2, 0.4, 0.5], -0.3, 0.3)) == (1, 0, 1, 1, 0)
    assert image_subspaces.order(cells([0.05, 0.05, 0.05], 0.3, -0.3)) == (0, 0, 0, 0, 0)
    assert image_subspaces.order(cells([0.3, 0.3, 0.3], 0.05, 0.0)) == (1, 0, 0, 0, 0)
    high, low = (4, 4, 0, 4, 0), (4, 0, 4, 0, 4)
    assert image_subspaces._verdict({("a", "small"): high, ("a", "large"): high})[0] == "confirmed"
    mixed = {("a", "small"): low, ("a", "large"): high}
    assert image_subspaces._verdict(mixed)[0] == "confirmed in this regime"
    assert image_subspaces._verdict({("a", "small"): low, ("a", "large"): low})[0] == "not seen"
    assert image_subspaces._verdict({("a", "small"): (4, 0, 0, 0, 0)})[0].startswith("undecided")


@pytest.mark.parametrize(
    ("copies", "lost", "word"),
    [
        ((0.0, 0.0, 0.02), 0.02, "generalization"),
        ((0.0, 0.0, 0.02), 0.5, "geometric, no copies"),
        ((0.2, 0.15, 0.3), 0.5, "geometric"),
        ((0.8, 0.7, 0.9), 0.9, "full"),
        ((0.5, 0.45, 0.55), 0.9, "undecided"),
        ((0.2, 0.15, 0.3), 0.1, "undecided"),
    ],
)
def test_regimes_are_named_by_the_ends_of_intervals(
    copies: tuple[float, float, float], lost: float, word: str
) -> None:
    names = ("copies", "copies_low", "copies_high", "lost", "lost_stderr")
    cell = xr.Dataset(dict(zip(names, (*copies, lost, 0.01), strict=True)))
    assert regimes.word_of(cell) == word


def test_law_of_one_width_is_found_again() -> None:
    n, step = np.meshgrid([32.0, 128, 512], [500.0, 1000, 2000, 4000])
    columns = {"num_samples": n.ravel(), "step": step.ravel()}
    for b, verdict in ((1.0, "confirmed"), (0.5, "not seen")):
        share = epochs._law(np.stack([step.ravel(), n.ravel()]), 1.5, b, 2.0 + 3 * (1 - b), 0.9)
        noise = 0.01 * np.random.default_rng(0).normal(size=share.size)
        known = {"whole_share": share + noise, "whole_share_stderr": 0.01 + 0 * share}
        table = xr.Dataset({k: ("subject", v) for k, v in {**columns, **known}.items()})
        law = epochs.law_of(table)
        assert abs(law["b"][0] - b) < 4 * law["b"][1] + 0.02
        assert epochs._of_laws({"one": law})[0] == verdict


def test_slopes_of_the_law_are_its_derivatives() -> None:
    x, at = np.array([[500.0, 1000, 2000], [30, 300, 100]]), np.array([1.3, 0.9, 2.0, 0.8])
    for k, column in enumerate(epochs._slopes(x, *at).T):
        step = np.zeros(4)
        step[k] = 1e-6
        apart = epochs._law(x, *(at + step)) - epochs._law(x, *(at - step))
        assert np.allclose(apart / 2e-6, column, atol=1e-8)


def test_groups_end_with_the_single_directions() -> None:
    counts = [1] * 60 + [196]  # as of a set whose reserved images span 60 directions
    found = images.groups_of(xr.Dataset({}, {"direction_count": ("direction", counts)}))
    assert found["17 to 64"] == slice(16, 60)
    whole = xr.Dataset({}, {"direction_count": ("direction", [1] * 64 + [5, 9])})
    assert images.groups_of(whole) == images.GROUPS


def test_sphere_and_plane_are_compared_by_size() -> None:
    one = xr.Dataset(
        {
            "whole_share": ("num_samples", [0.5, 0.1]),
            "whole_share_stderr": ("num_samples", [0.01, 0.01]),
        },
        {"num_samples": [10, 100]},
    )
    known = {"plane": one, "sphere": one}
    assert sphere._verdict({10: 0.1, 100: -2.0}, known)[0] == "confirmed"
    assert sphere._verdict({10: 5.0, 100: -2.0}, known)[0] == "confirmed in this regime"
    assert sphere._verdict({10: 5.0, 100: -4.0}, known)[0] == "not seen"


def test_networks_on_a_sphere_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(name: str, scale: Scale) -> geomem.Sweep:
        return geomem.Sweep(
            sphere.NAMES[name], variances=(1.0,) * 3, ambient_dim=4, sizes=(16, 32), steps=4,
            seeds=(0, 1), widths=(8,), levels=4, points=8, draws=1, samples=0, trajectories=0,
        )  # fmt: skip

    monkeypatch.setattr(sphere, "sphere_sweep", tiny)
    document = reproduce(experiment("sphere"), tmp_path, "cpu", LocalExecutor(1))
    assert document["verdict"] in publish(document, tmp_path).read_text()
    rows = document["tables"][0]["rows"]
    assert [row[0] for row in rows] == ["16", "32", "population"]
    # The population of the sphere keeps less than that of the plane: its dimension is lower.
    plane, curved = (float(cell.split(" ")[0]) for cell in rows[-1][-2:])
    assert curved < plane
