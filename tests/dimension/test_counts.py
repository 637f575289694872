r"""Local dimension where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.dimension import (
    DimensionMethod,
    ForwardSoftCount,
    LargestGap,
    NoGap,
    SoftCount,
    Threshold,
    place_of,
)
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.manifolds import PAPER_VARIANCES, LinearManifold
from geomem.operators import LinearOperator, jacobian_diagonal
from geomem.spectra import LanczosQuadrature, Spectrum
from geomem.stats import Estimate
from tests import references as slow
from tests.references import estimate, level, normal, rotation

VARIANCES = torch.tensor(PAPER_VARIANCES, dtype=torch.float64)
PAPER = LinearManifold(VARIANCES, 30, rotation(0, 30))
POPULATION = PAPER.population_denoiser()
POINT = normal(1, 30)


# sigma² against variances 1 (2 directions), .09 (5) and 1e-4 (23).
@pytest.mark.parametrize(("sigma", "kept"), [(2.0, 0), (0.6, 2), (0.1, 7), (0.003, 30)])
def test_threshold_counts_variances_above_the_noise(sigma: float, kept: int) -> None:
    found = estimate(Threshold()(POPULATION, POINT, level(sigma)))
    assert (found.value, found.stderr) == (kept, 0)
    # At another threshold: v/(v + t) > a where v > a t/(1 - a).
    expected = int((sigma**2 * 0.8 / 0.2 < VARIANCES).sum())
    lower = estimate(Threshold(above=0.8)(POPULATION, POINT, level(sigma)))
    assert lower.value == expected


@pytest.mark.parametrize("depth", [3, 6, 12])
def test_a_sampled_threshold_says_what_its_steps_hide(depth: int) -> None:
    # 40 eigenvalues from 0 to 1, 20 above: few nodes know them badly, which no spread shows.
    values = torch.linspace(0, 1, 40).double()
    A = rotation(4, 40) * values @ rotation(4, 40).T
    for above in (0.3, 0.5, 0.62):
        truth = float((values > above).sum())
        for seed in range(5):
            method = Threshold(above, LanczosQuadrature(depth=depth, probes=8, seed=seed))
            found = estimate(method(lambda x, sigma: x @ A, torch.zeros(40).double(), level(1.0)))
            assert abs(found.z_score(truth)) < 4
            assert found.stderr > 0.5  # a node weighs as much as some eigenvalues


def test_a_sampled_threshold_without_bounds_is_a_count() -> None:
    class Bare:
        def __call__(self, operator: LinearOperator) -> Spectrum:
            nodes = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
            return Spectrum(nodes, torch.tensor([[2.0, 1.0], [1.0, 2.0]]))

    found = Threshold(spectrum=Bare())(POPULATION, POINT, level(0.1))
    assert found == Estimate(1.5, 0.5)


@pytest.mark.parametrize("sigma", [2.0, 0.3, 0.01])
def test_soft_count_is_the_population_dimension(sigma: float) -> None:
    expected = float((VARIANCES / (VARIANCES + sigma**2)).sum())
    found = estimate(SoftCount()(POPULATION, POINT, level(sigma)))
    assert found.value == pytest.approx(expected, abs=1e-10)
    method = SoftCount(LanczosQuadrature(depth=4, probes=32))
    sampled = estimate(method(POPULATION, POINT, level(sigma)))
    assert abs(sampled.z_score(expected)) < 4
    assert sampled.stderr > 0


def test_soft_count_of_memory_is_zero_at_its_points() -> None:
    data = normal(0, 20, 6)
    soft, hard = (
        estimate(method(EmpiricalDenoiser(data), data[3], level(1e-3)))
        for method in (SoftCount(), Threshold())
    )
    assert soft.value == pytest.approx(0)
    assert hard.value == 0


# --------------------------------------------------------------------- forward only


@pytest.mark.parametrize("x_0", [torch.zeros(30, dtype=torch.float64), 5 * POINT])
def test_forward_soft_count_is_unbiased_for_a_gaussian(x_0: Tensor) -> None:
    expected = float((VARIANCES / (VARIANCES + 0.09)).sum())
    found = estimate(ForwardSoftCount(pairs=4000)(POPULATION, x_0, level(0.3)))
    assert abs(found.z_score(expected)) < 4
    # z^T A z varies by sqrt(2 tr A²) a pair, wherever the point is: offsets cancel in pairs.
    spread = math.sqrt(2 * float((VARIANCES / (VARIANCES + 0.09)).square().sum()))
    assert found.stderr == pytest.approx(spread / math.sqrt(4000), rel=0.1)


def test_forward_soft_count_is_unbiased_for_a_network() -> None:
    network, x_0, sigma = slow.random_network(0, 2, width=32), normal(1, 2), 1.5
    z, weights = slow.noise_grid(2, 0.1)
    dimension = jacobian_diagonal(network, x_0 + sigma * z, level(sigma), torch.eye(2)).sum(1)
    # The trace of a random network is no dimension: what is found, before it is asked.
    found = ForwardSoftCount(pairs=20_000).at_point(network, x_0, level(sigma))
    assert abs(found.z_score(float(weights @ dimension))) < 4
    assert found.stderr < 0.02 * abs(float(weights @ dimension))  # so this says something


def test_forward_soft_count_knows_its_error() -> None:
    # 300 seeds of 32 pairs: the standard deviation of their z-scores is 1.03 (Student, 31
    # degrees), known to 4 %; four times that, and a bias of four errors, are allowed.
    expected = float((VARIANCES / (VARIANCES + 0.09)).sum())
    found = [
        estimate(ForwardSoftCount(pairs=32, seed=s)(POPULATION, POINT, level(0.3)))
        for s in range(300)
    ]
    z = np.array([e.z_score(expected) for e in found])
    assert z.std() == pytest.approx(1.03, abs=0.17)
    bias = np.array([e.value - expected for e in found])
    assert abs(bias.mean()) < 4 * bias.std() / math.sqrt(300)


def test_forward_soft_count_needs_two_pairs_for_an_error() -> None:
    found = estimate(ForwardSoftCount(pairs=1)(POPULATION, POINT, level(0.3)))
    assert math.isnan(found.stderr)


# ---------------------------------------------------------------------- largest gap


@pytest.mark.parametrize(("sigma", "dim"), [(1.0, 7), (0.1, 7), (0.03, 7)])
def test_the_gap_of_the_papers_manifold(sigma: float, dim: int) -> None:
    found = LargestGap()(POPULATION, POINT, level(sigma))
    assert isinstance(found, Estimate)
    assert (found.value, found.stderr) == (dim, 0)


@pytest.mark.parametrize("m", [1, 5, 29])
def test_the_gap_of_a_plane_at_every_level(m: int) -> None:
    plane = LinearManifold(torch.linspace(0.5, 2, m), 30, rotation(2, 30)[:, :m])
    for sigma in (1.0, 0.1, 0.01):
        found = LargestGap()(plane.population_denoiser(), POINT, level(sigma))
        assert isinstance(found, Estimate)
        assert found.value == m


def test_full_dimension_is_no_gap() -> None:
    found = LargestGap()(POPULATION, POINT, level(1e-4))  # all directions open: factor 1.0
    assert isinstance(found, NoGap)
    assert "within a factor 1" in found.reason


def test_isotropic_data_have_no_gap() -> None:
    # Spectra of the linear denoiser of 90 isotropic points in 30 dimensions (Wishart), at the
    # level of the data: variances within a factor 12, no gap. 100 spectra, fixed beforehand.
    gaps = 0
    for seed in range(100):
        data = normal(seed, 90, 30)
        denoiser = GaussianDenoiser(torch.zeros(30), data.T @ data / 90)
        gaps += isinstance(LargestGap()(denoiser, torch.zeros(30).double(), level(1.0)), Estimate)
    assert gaps <= 5


def test_no_gap_also_where_eigenvalues_are_proportional_to_variances() -> None:
    # Twice as many points as dimensions, noise far above them: a factor 30 from end to end.
    gaps = 0
    for seed in range(100):
        data = normal(1000 + seed, 60, 30)
        variances = torch.linalg.eigvalsh(data.T @ data / 60)
        gaps += isinstance(LargestGap().of(variances / (variances + 100)), Estimate)
    assert gaps <= 5


@pytest.mark.parametrize("num_samples", [30, 31, 40, 60])
def test_square_wishart_spectra_have_no_gap(num_samples: int) -> None:
    # The hard edge: about as many points as dimensions, at 100 seeds fixed beforehand. Level 1 %
    # for each of the tests; 5 allowed.
    for t in (0.01, 1.0):
        gaps = 0
        for seed in range(100):
            data = normal(2000 + seed, num_samples, 30)
            v = torch.linalg.eigvalsh(data.T @ data / num_samples)
            gaps += isinstance(LargestGap().of(v / (v + t)), Estimate)
        assert gaps <= 5


@pytest.mark.parametrize("sigma", [2.0, 1.1, 1.0, 0.9, 0.5])
def test_exact_denoisers_of_white_noise_have_no_gap(sigma: float) -> None:
    # Through condensation, where few points share the noisy one: their differences are kept.
    gaps = 0
    for seed in range(100):
        data, z = normal(3000 + seed, 60, 30), normal(4000 + seed, 30)
        x = data[0] + sigma * z
        eigenvalues = torch.linalg.eigvalsh(slow.weighted_covariance(data, x, sigma)) / sigma**2
        gaps += isinstance(LargestGap().of(eigenvalues), Estimate)
    assert gaps <= 5


def test_separate_points_are_no_tangent_space() -> None:
    few = torch.tensor([12.0, 1e-5, 1e-5, 1e-6], dtype=torch.float64)
    found = LargestGap().of(few)
    assert isinstance(found, NoGap)
    assert "separate points" in found.reason
    below = LargestGap().of(torch.tensor([0.01] * 8 + [1e-6] * 8, dtype=torch.float64))
    assert isinstance(below, NoGap)
    assert "nothing is kept" in below.reason


def test_random_spacings_have_no_gap() -> None:
    # Twenty eigenvalues thrown over six decades: neighbours differ by factors of ten, and that
    # means nothing. Called a gap in at most alpha = 1 % of 1,000 spectra, plus 4 errors.
    rng = torch.Generator().manual_seed(0)
    logs = -6 * math.log(10) * torch.rand(1000, 20, generator=rng, dtype=torch.float64)
    gaps = sum(isinstance(LargestGap(floor=1e-9).of(row.exp()), Estimate) for row in logs)
    assert gaps <= 23


def test_a_significant_step_may_be_too_small_to_be_a_gap() -> None:
    steps = torch.cat([torch.full((20,), 2.0**-k) for k in range(3)])  # factors of 2, twice
    found = LargestGap().of(steps)
    assert isinstance(found, NoGap)
    assert "factor 2" in found.reason
    assert LargestGap(ratio=1.9).of(steps) == Estimate(20.0)


def test_gaps_below_the_floor_are_not_seen() -> None:
    noise = torch.tensor([1e-7] * 5 + [1e-20] * 5, dtype=torch.float64)
    found = LargestGap().of(torch.cat([torch.linspace(0.8, 1, 5).double(), noise]))
    assert found == Estimate(5.0)  # not 10, where thirteen decades of noise lie
    assert isinstance(LargestGap().of(-noise), NoGap)  # negative: noise, too


def test_the_order_of_eigenvalues_does_not_matter() -> None:
    values = torch.cat([torch.linspace(0.5, 1, 4), torch.linspace(1e-3, 2e-3, 9)])
    found = LargestGap().of(values)
    assert found == LargestGap().of(values.flip(0))
    assert isinstance(found, Estimate)
    assert found.value == 4


def test_a_gap_needs_every_eigenvalue() -> None:
    sampled = LargestGap(spectrum=LanczosQuadrature(depth=4, probes=2))
    with pytest.raises(InputError, match="Dense"):
        sampled(POPULATION, POINT, level(1.0))


METHODS = [Threshold(), SoftCount(), LargestGap(), ForwardSoftCount()]


@pytest.mark.parametrize("method", METHODS)
def test_bad_levels_points_and_denoisers(method: DimensionMethod) -> None:
    with pytest.raises(InputError, match="above 0"):
        method(POPULATION, POINT, level(0.0))
    with pytest.raises(InputError, match="NaN"):
        method(POPULATION, POINT * math.nan, level(1.0))
    with pytest.raises(InputError, match="NaN"):
        method(lambda x, sigma: x * math.nan, POINT, level(1.0))
    with pytest.raises(InputError, match="shape"):
        method(lambda x, sigma: x[:, :3], POINT, level(1.0))


def test_nan_away_from_the_point_is_told() -> None:
    edge = lambda x, sigma: torch.where(x.norm(dim=1, keepdim=True) > 1, math.nan, x / 2)  # noqa: E731
    with pytest.raises(InputError, match="NaN or infinity at noise"):
        ForwardSoftCount()(edge, torch.zeros(30).double(), level(1.0))


@pytest.mark.parametrize("pairs", [0, -3, 2.5])
def test_bad_pairs(pairs: int) -> None:
    with pytest.raises(InputError, match=r"`pairs` is .*; pass a whole number from 1"):
        ForwardSoftCount(pairs=pairs)


@pytest.mark.parametrize("wrong", [{"ratio": 0}, {"ratio": 1}, {"floor": 0}, {"alpha": 1}])
def test_bad_gaps(wrong: dict[str, float]) -> None:
    with pytest.raises(
        InputError, match=r"`(ratio|alpha|floor)` is [01]; pass a finite number above"
    ):
        LargestGap(**wrong)  # type: ignore[arg-type]


def test_a_method_says_where_it_is_called() -> None:
    assert [place_of(m) for m in METHODS] == ["noisy", "noisy", "noisy", "clean"]
    assert place_of(lambda denoiser, x, sigma: Estimate(1.0)) == "noisy"


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension(method: DimensionMethod) -> None:
    found = method(lambda x, sigma: 0.9 * x, torch.zeros(1).double(), level(0.1))
    if isinstance(method, LargestGap):
        assert isinstance(found, NoGap)  # a single eigenvalue has no neighbour
    else:
        assert isinstance(found, Estimate)
        assert abs(found.z_score(1.0 if isinstance(method, Threshold) else 0.9)) < 4
