r"""Numbers that others published: each row is measured, small, as its script does, and judged."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geomem.exact import EmpiricalDenoiser
from geomem.manifolds import LinearManifold, Sphere
from tests.references import normal

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ROWS = ("spheres", "crossover", "two_denoisers", "onset", "flipd_sets", "yeats_sets")


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.syspath_prepend(str(BENCHMARKS / "published"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:  # `row` and `dimensions` are no names for others
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def row(name: str) -> Any:
    return import_module(name)


def test_a_limit_is_that_of_marchenko_and_pastur() -> None:
    limit = row("two_denoisers").limit
    # At N = d the law is that of x² with x on a quarter circle of radius 2: mean 8 / (3 pi).
    assert limit(1.0) == pytest.approx((8 / (3 * math.pi)) ** 2, abs=1e-6)
    assert limit(1e4) == pytest.approx(1 - 1 / 4 * 1e-4 * 1, abs=1e-4)
    # For few points C^(1/2) has N eigenvalues of sqrt(d/N), so that q is N/d.
    assert limit(1e-3) == pytest.approx(1e-3, rel=1e-3)


def test_two_models_overlap_as_the_limit_says() -> None:
    found = row("two_denoisers").measure(1, quick=True)
    for one in found["rows"]:  # the limit is off by 1/d, d = 60; 24 steps add 5 %
        q = one["q"][0] / (1 + found["sampler"])
        assert abs(q - one["theirs"]) < 4 * one["q"][1] + 1 / 60
    assert 0 < row("two_denoisers").sampler(200) < 1e-3


def test_excess_losses_are_theirs_for_points_and_means() -> None:
    found = row("crossover").measure(2, quick=True)
    for one in found["rows"]:
        assert one["generalizing"][0] == pytest.approx(one["theirs, generalizing"], rel=0.1)
        # M components are M - 4 points and 4 means: d v (1 - (M - 4)/N), ten components a row.
        shifted = [theirs + 30 * 0.04 for theirs in found["theirs, excess"]]
        excess = [pair[0] for pair in one["excess, points and means"]]
        assert excess == pytest.approx(shifted, rel=0.15, abs=1.2)
        assert found["theirs, excess"][-1] == pytest.approx(0)
        assert one["excess, points"][-1][0] == pytest.approx(0, abs=1e-9)


def test_crossings_are_interpolated_or_missing() -> None:
    crossing = row("crossover").crossing
    falling = [10.0 - k for k in range(10)]
    assert crossing(5.5, falling) == pytest.approx(0.55)
    assert math.isnan(crossing(20.0, falling))
    assert math.isnan(crossing(0.5, falling))


def test_spheres_say_k_where_resolved_and_k_plus_1_where_not() -> None:
    spheres = row("spheres")
    sphere = Sphere(5, spheres.D, seed=0)
    x_0 = sphere.sample(1, torch.Generator().manual_seed(0))
    low, high = (spheres.asked(sphere.population_denoiser(), x_0, 5, s, 0) for s in (0.01, 0.5))
    assert low["as they draw"] == low["orthogonal draws"] == low["LocalDimension"] == [1, 0, 0]
    assert high["orthogonal draws"] == [0, 1, 0]
    assert low["kept along the radius"][0] < 0.01 < high["kept along the radius"][0]


def test_copies_are_told_by_a_third() -> None:
    onset = row("onset")
    data = 10 * normal(0, 4, onset.DIM).float()
    network = EmpiricalDenoiser(data)
    z = torch.randn(16, onset.DIM, generator=torch.Generator().manual_seed(0))
    assert onset.copies(network, data, z, 10.0) == 1.0
    assert onset.copies(lambda x, sigma: 0 * x, data, z, 10.0) == 0.0


def test_the_exponent_of_a_power_is_its_own() -> None:
    onset = row("onset")
    sizes = [16, 16, 32, 32, 64, 64]
    steps = [100 * n**1.5 * f for n, f in zip(sizes, (0.9, 1.1) * 3, strict=True)]
    slope, error = onset.exponent(sizes, [*steps[:-1], float("nan")], 0)
    assert slope == pytest.approx(1.5, abs=0.1)
    assert 0 < error < 0.3
    assert math.isnan(onset.exponent([4, 4], [1.0, 2.0], 0)[0])
    assert onset.passes([1, 10, 100], [0.0, 0.25, 0.75], 0.5) == pytest.approx(10**1.5)
    assert math.isnan(onset.passes([1, 10], [0.0, 0.1], 0.5))


def test_a_short_training_is_looked_at() -> None:
    found = row("onset").measure(0, quick=True)
    assert [one["N"] for one in found["rows"]] == [4, 6]
    for one in found["rows"]:
        assert len(one["steps"]) == len(one["copies"]) == len(one["fresh_error"]) > 0
        assert all(0 <= share <= 1 for share in one["copies"])


def test_concordance_counts_pairs_of_unequal_dimension() -> None:
    dimensions = row("dimensions")
    m = np.array([0.0, 1, 2, 2])
    assert dimensions.concordance(m, np.array([0.1, 0.9, 1.5, 7]), 0)[0] == 1
    assert dimensions.concordance(m, -m, 0)[0] == 0
    assert dimensions.concordance(m, np.array([1.0, 1, 1, 1]), 0)[0] == 0.5
    assert dimensions.concordance(m, np.array([np.nan, 1, 2, 2]), 0)[0] == pytest.approx(3.5 / 5)
    assert dimensions.concordance(np.ones(3), np.arange(3.0), 0) is None
    # As Kamkari et al. count, one number everywhere is never wrong: 6 pairs, none in disorder.
    assert dimensions.concordance_of_all_pairs(m, np.ones(4)) == 1
    assert dimensions.concordance_of_all_pairs(m, np.array([3.0, 1, 2, 4])) == pytest.approx(
        1 / 2 + 1 / 6
    )


def test_the_denoising_loss_of_a_plane_is_its_dimension() -> None:
    # At levels far below its width, |D - x_0|²/sigma² is chi-square with m degrees of freedom.
    dimensions = row("dimensions")
    plane = LinearManifold(torch.ones(3), 8)
    x_0 = plane.sample(4000, torch.Generator().manual_seed(0))
    own = dimensions.denoising_loss(
        plane.population_denoiser(), x_0, 1e-3, normal(1, 4000, 8)[None].expand(2, -1, -1)
    )
    assert float(own.mean()) == pytest.approx(3, abs=4 * (6 / 4000) ** 0.5)
    shared = dimensions.denoising_loss(
        plane.population_denoiser(), x_0[:50], 1e-3, normal(2, 2, 8)[:, None]
    )
    assert shared.std() < 0.02 < abs(shared.mean() - 3)  # all points of a plane err alike


def test_quick_sets_judge_every_method() -> None:
    for name in ("flipd_sets", "yeats_sets"):
        for one in row(name).measure(0, quick=True)["sets"].values():
            for levels in one["methods"].values():
                assert len(levels) == 1
                assert levels[0]["error"][0] >= 0
                assert 0 <= levels[0]["answered"] <= one["points"]


def test_standardised_subspaces_keep_their_dimension() -> None:
    sets = row("flipd_sets")
    mixture, parts = sets.affine((2, 5), 12, 10.0, 0)
    x, dims = sets.of_affine(parts, 2000, 0)
    assert dims.bincount().tolist() == [0, 0, 2000, 0, 0, 2000]
    assert x.mean(0).abs().max() < 0.1
    torch.testing.assert_close(x.std(0), torch.ones(12).double(), rtol=0.06, atol=0)
    assert len(mixture.components) == 2


@pytest.mark.parametrize("name", [*ROWS, "effective", "agreement"])
def test_rows_are_kept_with_versions_and_seed(name: str) -> None:
    path = BENCHMARKS / "results" / "published" / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["versions"]["torch"]
    assert f"published/{name}.py" in found["command"]
    assert "--quick" not in found["command"]
    assert name not in ROWS or (found["seed"] == 0 and found["cpu_seconds"] > 0)
