"""Population spectra, edges, information, and mixtures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomem.errors import Inconclusive, InputError
from geomem.theory import collapse, population
from geomem.theory.priors import Gaussian, GaussianMixture

spectra = st.lists(st.floats(1e-3, 10), min_size=1, max_size=8)
levels = st.floats(0.01, 10)


@given(spectra, levels)
def test_both_jacobians_carry_the_same_information(variances, sigma):
    d = len(variances) + 3
    denoiser = population.jacobian_spectrum(variances, sigma, d)
    score = population.score_spectrum(variances, sigma, d)
    # J = (dD/dx - 1) / sigma²
    np.testing.assert_allclose(score[::-1], (1 - denoiser) / sigma**2, rtol=1e-9)
    assert denoiser.sum() == pytest.approx(population.dimension(variances, sigma))
    assert (denoiser[-3:] == 0).all()


@given(spectra, levels)
def test_dimension_is_information_per_e_fold(variances, sigma):
    h = 1e-4
    slope = (
        population.information(variances, sigma * math.exp(-h))
        - population.information(variances, sigma * math.exp(h))
    ) / (2 * h)
    # central difference: its error is h² / 6 times a third derivative of order the dimension
    assert slope == pytest.approx(population.dimension(variances, sigma), rel=1e-6, abs=1e-9)


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_the_gap_is_largest_at_the_geometric_mean(a, b):
    high, low = max(a, b), min(a, b)
    sigma = (a * b) ** 0.25
    gaps = [
        -np.diff(population.jacobian_spectrum([low, high], s * sigma, 2))[0]
        for s in (0.99, 1, 1.01)
    ]
    assert gaps[1] >= max(gaps) - 1e-12


@pytest.mark.parametrize("normalisation", ["dim", "ambient", "none"])
def test_random_factors_have_the_edges_of_marchenko_and_pastur(normalisation):
    rng = np.random.default_rng(0)
    F = population.random_factor(600, 150, rng, scale=0.7, normalisation=normalisation)
    v = np.linalg.svd(F, compute_uv=False) ** 2
    low, high = population.marchenko_pastur_edges(600, 150, scale=0.7, normalisation=normalisation)
    # Edges fluctuate by m^(-2/3), 3.5 % here.
    assert v.min() == pytest.approx(low, rel=0.07)
    assert v.max() == pytest.approx(high, rel=0.07)


def test_two_groups_interact():
    rng = np.random.default_rng(1)
    F = np.hstack([rng.normal(size=(1000, 200)), 0.3 * rng.normal(size=(1000, 200))])
    v = np.linalg.svd(F, compute_uv=False) ** 2 / 200
    low = population.marchenko_pastur_edges(800, 200, scale=0.3)
    own = population.marchenko_pastur_edges(1000, 200, scale=0.3)
    assert low == pytest.approx((v[200:].min(), v[200:].max()), rel=0.07)
    assert abs(own[1] / v[200:].max() - 1) > 0.15  # what the correction is for


def test_openings_are_where_eigenvalues_pass_one_half():
    v = [1.0, 0.09]
    for k, sigma in enumerate(np.sqrt(v)):
        assert population.jacobian_spectrum(v, sigma, 2)[k] == pytest.approx(0.5)


def test_mixture_of_one_is_the_gaussian():
    information, dimension = population.mixture_information(Gaussian([1.0, 0.2]), 0.4)
    assert dimension.value == pytest.approx(float(population.dimension([1.0, 0.2], 0.4)))
    assert abs(information.z_score(float(population.information([1.0, 0.2], 0.4)))) < 4


def test_mixture_dimension_is_the_slope_of_its_information():
    prior = GaussianMixture([0.4, 0.6], [[-1.0, 0], [1.0, 0.5]], [[0.2, 0.1], [0.1, 0.3]])
    low, _ = population.mixture_information(prior, 0.5 * math.exp(-0.05))
    high, _ = population.mixture_information(prior, 0.5 * math.exp(0.05))
    slope = (low.value - high.value) / 0.1
    # the same draws on both sides; 1 % for the finite step
    assert slope == pytest.approx(population.mixture_information(prior, 0.5)[1].value, rel=0.01)


@given(spectra, st.floats(2, 1e12))
def test_collapse_is_where_the_population_has_spent_ln_n(variances, size):
    sigma = collapse.collapse_sigma(variances, size)
    assert population.information(variances, sigma) == pytest.approx(math.log(size), rel=1e-9)


@given(st.floats(0.01, 10), st.integers(1, 50), st.floats(2, 1e12))
def test_isotropic_collapse_is_closed(variance, dim, size):
    closed = math.sqrt(variance / math.expm1(2 * math.log(size) / dim))
    assert collapse.collapse_sigma([variance] * dim, size) == pytest.approx(closed, rel=1e-9)


def test_information_density_averages_to_the_information():
    prior, sigma, rng = Gaussian([1.0, 0.3]), 0.5, np.random.default_rng(2)
    y = rng.normal(size=(4000, 2)) * np.sqrt([1.0, 0.3])
    x = y + sigma * rng.normal(size=y.shape)
    density = [collapse.information_density(prior, a, b, sigma) for a, b in zip(y, x, strict=True)]
    error = np.std(density) / len(density) ** 0.5
    assert abs(np.mean(density) - population.information([1.0, 0.3], sigma)) < 4 * error


@pytest.mark.parametrize(
    "call",
    [
        lambda: population.jacobian_spectrum([1.0, -1.0], 0.1, 3),
        lambda: population.jacobian_spectrum([1.0, 1.0], 0.1, 1),
        lambda: population.jacobian_spectrum([1.0], 0.0, 1),
        lambda: population.information([1.0], [0.1, -1.0]),
        lambda: population.jacobian_spectrum([1.0], 1e-200, 1),
        lambda: population.jacobian_spectrum([1.0], 0.1, 10**13),
        lambda: population.jacobian_spectrum([], 0.1, 1),
        lambda: population.information([1.0], []),
        lambda: population.information([1.0], [1e300]),
        lambda: population.log_density(Gaussian([1.0]), [0.0, 0.0], 1.0),
        lambda: population.random_factor(10**8, 10**8, np.random.default_rng(0)),
        lambda: population.marchenko_pastur_edges(0, 3),
        lambda: population.marchenko_pastur_edges(3, 3, normalisation="none of them"),  # type: ignore[arg-type]
        lambda: collapse.collapse_sigma([1.0], 1),
        lambda: collapse.collapse_sigma([1.0], math.nan),
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError, match="`") as error:
        call()
    assert "\n" not in str(error.value)


def test_a_law_on_few_points_never_collapses_a_larger_set():
    with pytest.raises(Inconclusive, match="finitely many points"):
        collapse.collapse_sigma(lambda sigma: min(math.log(3), 1 / sigma), 10)
