"""Averages over planted points: their laws, brute force, critical values, the budget."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomem.errors import Inconclusive, InputError
from geomem.theory.averages import Effort, planted_average
from geomem.theory.collapse import collapse_sigma
from geomem.theory.critical import critical_sigma, critical_sizes
from geomem.theory.maps import information_budget, retention_map
from geomem.theory.priors import Gaussian, GaussianMixture
from tests.theory import brute_force

SMALL = Effort(points=2, sources=4)
POWER_LAW = np.arange(1, 21.0) ** -1.5


@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=5),
    st.floats(0.03, 3),
    st.integers(0, 99),
)
@settings(max_examples=12, deadline=None)
def test_retention_is_a_share_that_grows_with_the_size(variances, sigma, seed):
    sizes = np.array([1.0, 2, 3, 5, 30, 1e3, 1e6, 1e12])
    p = planted_average(
        Gaussian(variances), sigma, sizes, effort=Effort(points=2, sources=4, seed=seed)
    )
    slack = 5 * p.retention_stderr + 1e-6  # five: 16 replicates have fat tails
    assert (p.retention[0] == 0).all()
    assert p.participation[0] == pytest.approx(1, abs=1e-6)
    assert (p.retention > -slack).all()
    assert (p.retention < 1 + slack).all()
    assert (np.diff(p.retention, axis=0) > -slack[1:] - slack[:-1]).all()
    slack = 5 * p.participation_stderr + 1e-6
    assert (np.diff(p.participation) < slack[1:] + slack[:-1]).all()


def test_large_noise_keeps_all_but_one_in_n():
    sizes = np.array([2.0, 10, 1000])
    p = planted_average(Gaussian([1.0, 0.1]), 300.0, sizes, effort=SMALL)
    # 1e-4: the first correction is of order v / sigma².
    far = np.abs(p.retention - (1 - 1 / sizes)[:, None])
    assert (far < 5 * p.retention_stderr + 1e-4).all()
    np.testing.assert_allclose(p.participation, 1 / sizes, atol=1e-4)


def test_agrees_with_drawn_training_sets_in_twenty_dimensions():
    sigma, size = 0.25, 100
    b = brute_force.measure(POWER_LAW, size, sigma, np.random.default_rng(3), sets=6000)
    p = planted_average(Gaussian(POWER_LAW), sigma, size, accuracy=0.02)
    r, error = brute_force.retention(b, POWER_LAW, sigma)
    z = (p.retention - r) / np.hypot(error, p.retention_stderr)
    assert np.abs(z).max() < 4.5
    joint = math.hypot(b.participation_stderr, p.participation_stderr)
    assert abs(p.participation - b.participation) < 4 * joint


def test_small_sets_at_small_noise():
    """Where integrating the source out goes wrong: m = 1, N = 3, t = .003."""
    sigma = 0.003**0.5
    p = planted_average(Gaussian([1.0]), sigma, 3, accuracy=0.02)
    b = brute_force.measure([1.0], 3, sigma, np.random.default_rng(4), sets=100_000)
    r, error = brute_force.retention(b, [1.0], sigma)
    assert abs(p.retention[0] - r[0]) < 4 * math.hypot(error[0], p.retention_stderr[0])


def test_bounded_retention_of_planted_points():
    v, sigma = np.array([1.0, 0.09]), 0.2
    b = brute_force.measure(v, 20, sigma, np.random.default_rng(5), sets=20_000, waves=True)
    p = planted_average(Gaussian(v), sigma, 20, bounded=True, effort=Effort(points=16))
    assert p.bounded is not None
    assert p.bounded_stderr is not None
    share = 1 - math.exp(-1)
    z = (p.bounded - (1 - b.coherence) / share) / np.hypot(
        b.coherence_stderr / share, p.bounded_stderr
    )
    assert np.abs(z).max() < 4


def test_same_seed_same_number_and_another_seed_within_error():
    prior = Gaussian([1.0, 0.3])
    p, again = (planted_average(prior, 0.3, 50, effort=SMALL) for _ in range(2))
    assert (p.retention == again.retention).all()
    other = planted_average(prior, 0.3, 50, effort=Effort(points=2, sources=4, seed=9))
    z = (p.retention - other.retention) / np.hypot(p.retention_stderr, other.retention_stderr)
    assert 0 < np.abs(z).max() < 4.5


def test_a_size_does_not_depend_on_the_others():
    prior = Gaussian([1.0, 0.3])
    alone = planted_average(prior, 0.3, 50, effort=SMALL)
    among = planted_average(prior, 0.3, [2, 50, 1e9], effort=SMALL)
    # The grid of abscissas is longer: quadrature errors only.
    np.testing.assert_allclose(among.retention[1], alone.retention, rtol=1e-6)


def test_mixture_averages_are_ratios_of_means():
    """Two far, equal clusters of one dimension: a set of N is two sets of about N / 2."""
    prior = GaussianMixture([0.5, 0.5], [[-50.0], [50.0]], [[1.0], [1.0]])
    p = planted_average(prior, 0.3, 1000, effort=Effort(points=8))
    half = planted_average(Gaussian([1.0]), 0.3, 500, effort=Effort(points=8))
    joint = np.hypot(p.retention_stderr, half.retention_stderr)
    assert np.abs(p.retention - half.retention).max() < 4 * joint.max() + 2e-3


def test_accuracy_that_is_not_reached_is_said():
    with pytest.raises(Inconclusive, match="ask for less accuracy"):
        planted_average(
            Gaussian([1.0]), 0.05, 100, accuracy=1e-6, effort=Effort(points=1, sources=1)
        )


def test_critical_size_is_where_half_is_kept():
    prior = Gaussian([1.0, 0.09])
    high, low = critical_sizes(prior, 0.2, effort=Effort(points=16))
    assert high is not None
    assert low is not None
    p = planted_average(prior, 0.2, np.exp([high.value, low.value]), effort=Effort(points=16))
    assert abs(p.retention[0, 0] - 0.5) < 4 * p.retention_stderr[0, 0]
    assert abs(p.retention[1, 1] - 0.5) < 4 * p.retention_stderr[1, 1]
    # The population has spent ln N there, within the width of the crossover (a factor 2.5).
    assert 0.4 < collapse_sigma([1.0, 0.09], math.exp(high.value)) / 0.2 < 2.5


def test_no_critical_value_is_an_answer():
    # At N = 2 a half is kept at large noise, which is more than .4 already.
    assert critical_sizes(Gaussian([1.0]), 9.0, level=0.4, effort=SMALL)[0] is None
    assert critical_sigma([0.1, 1.0], [0.6, 0.9], [0.0, 0.0]) is None
    half = critical_sigma([0.1, 1.0, np.e], [np.nan, 0.4, 0.6], [0.0, 0.02, 0.02])
    assert half is not None
    assert half.value == pytest.approx(0.5)


def test_lower_variance_has_the_lower_retention_and_less_missing():
    """The library's sharpest statement about the paper, at its own numbers."""
    v = np.array([1.0, 1.0, 0.09, 0.09, 0.09, 0.09, 0.09])
    p = planted_average(Gaussian(v), 0.1**0.5, 50, effort=Effort(points=32))
    assert p.retention[0] == pytest.approx(0.49, abs=0.02)
    assert p.retention[-1] == pytest.approx(0.43, abs=0.02)
    assert p.missing_dimension[0] == pytest.approx(0.46, abs=0.02)
    assert p.missing_dimension[-1] == pytest.approx(0.27, abs=0.02)


def test_a_direction_without_variance_keeps_one_minus_the_participation():
    """The weights know nothing of it; directions of higher variance keep more."""
    p = planted_average(Gaussian([1.0, 0.3, 1e-8]), 0.3, [3, 30, 300])
    alone = 1 - p.participation
    joint = 4 * np.hypot(p.retention_stderr[:, 2], p.participation_stderr)
    assert (np.abs(p.retention[:, 2] - alone) < joint).all()
    assert (p.retention[:, 0] > alone).all()


def test_the_budget_is_ln_n():
    wide = np.geomspace(0.003, 200, 36)
    sizes = [2, 10]
    spent = information_budget(retention_map(Gaussian([1.0, 0.2]), wide, sizes, effort=SMALL))
    error = spent.missing_stderr.sum("direction")
    # .01: the trapezoid rule on 36 levels
    assert (abs(spent.kept.sum("direction") - spent.log_size) < 4 * error + 0.01).all()
    assert spent.attrs["window"] == [wide[0], wide[-1]]


def test_the_budget_needs_planted_points():
    central = retention_map(Gaussian([1.0]), [0.1, 1.0], [10], kind="centre")
    with pytest.raises(InputError, match="planted"):
        information_budget(central)


def test_map_of_fresh_points_is_the_mean_over_them():
    fresh = retention_map(
        Gaussian([1.0, 0.2]), [0.3], [20], kind="fresh", effort=Effort(points=32), bounded=True
    )
    rng = np.random.default_rng(0)
    v, rows = np.array([1.0, 0.2]), []
    for _ in range(4000):
        x = rng.normal(size=2) * np.sqrt(v + 0.09)
        points = rng.normal(size=(20, 2)) * np.sqrt(v)
        rows.append(brute_force.posterior(points, x, 0.3)[0] / (v / (v + 0.09)))
    error = np.hypot(np.std(rows, axis=0) / 4000**0.5, fresh.retention_stderr[0, 0])
    assert (abs(fresh.retention[0, 0] - np.mean(rows, axis=0)) < 4 * error).all()


@pytest.mark.slow
def test_a_map_of_forty_levels_thirty_sizes_twenty_directions_in_a_minute():
    import time

    start = time.monotonic()
    map_ = retention_map(Gaussian(POWER_LAW), np.geomspace(0.02, 5, 40), np.geomspace(2, 1e12, 30))
    assert time.monotonic() - start < 60
    assert map_.identity_defect.max() < 1e-4
