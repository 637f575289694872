r"""A dimension that holds over a range of levels, or none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.dimension import NoGap, Place, SoftCount, Threshold
from geomem.dimension.plateau import Plateau, PlateauEstimate
from geomem.dimension.scores import FLIPD
from geomem.errors import InputError
from geomem.manifolds import PAPER_VARIANCES, LinearManifold
from geomem.noise import log_levels
from geomem.stats import Estimate
from tests.references import level, normal, rotation

VARIANCES = torch.tensor(PAPER_VARIANCES, dtype=torch.float64)
PAPER = LinearManifold(VARIANCES, 30, rotation(0, 30))
POPULATION = PAPER.population_denoiser()
X_0 = PAPER.sample(1, torch.Generator().manual_seed(0))[0]
PLANE = LinearManifold(torch.ones(7), 30, PAPER.basis[:, :7])
LEVELS = log_levels(1e-3, 10, 41)


def test_the_plateaus_of_the_papers_manifold() -> None:
    # Thresholds at sigma = .01, .3, 1: 30 below, 7 between .01 and .3, 2 up to 1, then 0.
    method = Plateau(Threshold(), sigmas=LEVELS, e_folds=0.9)
    found = method(POPULATION, X_0, level(1.0))
    assert isinstance(found, PlateauEstimate)
    assert (found.value, found.stderr) == (7, 0)
    inside = LEVELS[(LEVELS > 0.0101) & (LEVELS < 0.3)]
    assert (found.low, found.high) == (float(inside[0]), float(inside[-1]))
    measured = method.measure(POPULATION, X_0, LEVELS)
    every = list(method.plateaus(LEVELS, measured, 30))
    assert [p.value for p in every] == [7, 2]  # 30 is no plateau: everything is kept


def test_soft_counts_have_plateaus_with_a_height() -> None:
    found = Plateau(SoftCount(), sigmas=LEVELS)(PLANE.population_denoiser(), X_0, level(1.0))
    assert isinstance(found, PlateauEstimate)
    assert abs(found.value - 7) < 0.5
    assert 0 < found.stderr <= 0.25  # half of a height of at most .5
    # 7/(1 + t) falls by .5 at sigma = .28; on the paper's own manifold it falls all the way.
    assert found.high == float(LEVELS[LEVELS < 0.28][-1])
    assert isinstance(Plateau(SoftCount(), sigmas=LEVELS)(POPULATION, X_0, level(1.0)), NoGap)


def test_levels_are_in_units_of_the_call() -> None:
    scaled = LinearManifold(100 * VARIANCES, 30, rotation(0, 30)).population_denoiser()
    one = Plateau()(POPULATION, X_0, level(1.0))
    ten = Plateau()(scaled, 10 * X_0, level(10.0))
    assert isinstance(one, PlateauEstimate)
    assert isinstance(ten, PlateauEstimate)
    assert (one.value, ten.value) == (7, 7)
    assert ten.low == pytest.approx(10 * one.low)
    assert "7 ± 0 for sigma from" in repr(one)


def test_a_power_law_has_no_plateau() -> None:
    # Variances of 1/k^2: the count above sigma is 1/sigma, at no two levels the same.
    law = torch.arange(1, 31, dtype=torch.float64) ** -2
    denoiser = LinearManifold(law, 30, rotation(0, 30)).population_denoiser()
    for method in (Threshold(), SoftCount()):
        found = Plateau(method, sigmas=log_levels(0.04, 0.4, 21))(denoiser, X_0, level(1.0))
        assert isinstance(found, NoGap)
        assert "no plateau" in found.reason


@pytest.mark.parametrize("seed", range(5))
def test_white_noise_has_no_plateau(seed: int) -> None:
    white = LinearManifold(torch.ones(30), 30).population_denoiser()
    for method in (Threshold(), Plateau().method):
        found = Plateau(method, sigmas=LEVELS)(white, normal(seed, 30), level(1.0))
        assert isinstance(found, NoGap)


@dataclass(frozen=True)
class Scripted:
    r"""Answers by level, and remembers where it was asked."""

    answers: dict[float, Estimate | NoGap]
    asked: list[Tensor]
    at: ClassVar[Place] = "noisy"

    def __call__(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
        self.asked.append(x)
        return self.answers[round(float(sigma), 6)]


def scripted(*found: Estimate | NoGap) -> tuple[Plateau, Scripted]:
    levels = [math.exp(k) for k in range(len(found))]
    answers = dict(zip((round(s, 6) for s in levels), found, strict=True))
    method = Scripted(answers, [])
    return Plateau(method, sigmas=torch.tensor(levels, dtype=torch.float64)), method


def test_a_level_without_a_gap_ends_a_plateau() -> None:
    five = Estimate(5.0)
    plateau, _ = scripted(five, five, NoGap("no"), five, five, five)
    found = plateau(POPULATION, X_0, level(1.0))
    assert isinstance(found, PlateauEstimate)
    assert found.low == pytest.approx(math.exp(3))
    assert found.high == pytest.approx(math.exp(5))


def test_errors_widen_a_plateau() -> None:
    near = [Estimate(5.0, 0.5), Estimate(5.8, 0.5), Estimate(5.2, 0.4)]
    plateau, _ = scripted(*near)
    found = plateau(POPULATION, X_0, level(1.0))
    assert isinstance(found, PlateauEstimate)
    assert found.value == pytest.approx(16 / 3)
    assert found.stderr == pytest.approx(math.hypot(0.4, 0.5))
    exact, _ = scripted(*(Estimate(e.value) for e in near))
    assert isinstance(exact(POPULATION, X_0, level(1.0)), NoGap)


def test_noise_is_shared_by_levels_and_its_errors_unknown_stay_unknown() -> None:
    one = Estimate(5.0, math.nan)
    plateau, method = scripted(one, one)
    found = plateau(POPULATION, X_0, level(1.0))
    assert isinstance(found, PlateauEstimate)
    assert math.isnan(found.stderr)
    z = [(x - X_0) / s for x, s in zip(method.asked, (1, math.e), strict=True)]
    assert torch.allclose(z[0], z[1])
    assert float(z[0].norm()) > 2


def test_methods_of_clean_points_get_clean_points() -> None:
    plateau = Plateau(FLIPD(), sigmas=log_levels(0.02, 0.1, 9))
    on_it = PLANE.sample(1, torch.Generator().manual_seed(0))[0]
    found = plateau(PLANE.population_denoiser(), on_it, level(1.0))
    assert isinstance(found, PlateauEstimate)
    assert found.value == pytest.approx(7, abs=0.1)  # at noisy points it would be 30


def test_bad_input() -> None:
    with pytest.raises(InputError, match="`sigmas` is one level"):
        Plateau(sigmas=torch.tensor([1.0]))
    with pytest.raises(InputError, match="e_folds"):
        Plateau(e_folds=-1)
    with pytest.raises(InputError, match="above 0"):
        Plateau()(POPULATION, X_0, level(0.0))
    with pytest.raises(InputError, match="above 0"):
        Plateau(sigmas=torch.tensor([0.0, 1.0]))(POPULATION, X_0, level(1.0))
    with pytest.raises(InputError, match="NaN"):
        Plateau()(POPULATION, X_0 * math.nan, level(1.0))


@pytest.mark.parametrize("errors", [(math.nan, 0.1), (0.1, math.nan)])
def test_one_unknown_error_is_unknown_wherever_it_stands(errors: tuple[float, float]) -> None:
    found = [Estimate(7.0, error) for error in errors]
    (plateau,) = Plateau(e_folds=0).plateaus(torch.tensor([0.1, 0.2]), found, 30)
    assert math.isnan(plateau.stderr)
