"""Exact predictions at one point: brute force, symmetries, and refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, ortho_group

from geomem.errors import Inconclusive, InputError
from geomem.theory import finite_size
from geomem.theory.finite_size import predict
from geomem.theory.moments import Quenched
from geomem.theory.priors import Gaussian, GaussianMixture
from geomem.theory.simulate import simulate
from tests.theory import brute_force

A = np.array([1.0, 1.0, 0.09, 0.09, 0.09, 0.09, 0.09])
spectra = st.lists(st.floats(0.01, 3), min_size=1, max_size=5)


def pooled(z):
    """Two-sided p-value of the sum of squares of z-scores."""
    z = np.ravel(z)
    return min(chi2.sf((z**2).sum(), z.size), chi2.cdf((z**2).sum(), z.size)) * 2


@pytest.mark.parametrize(("kind", "N", "t"), [("planted", 30, 0.1), ("fresh", 200, 0.03)])
def test_agrees_with_drawn_training_sets(kind, N, t):
    rng = np.random.default_rng(N)
    y, sigma = rng.normal(size=7) * np.sqrt(A), t**0.5
    x = y + sigma * rng.normal(size=7)
    planted = y if kind == "planted" else None
    b = brute_force.measure(A, N, sigma, rng, sets=3000, x=x, planted=planted, waves=True)
    p = predict(Gaussian(A), x, sigma, N, planted=planted, bounded=True)
    r, error = brute_force.retention(b, A, sigma)
    share = 1 - np.exp(-1)
    z = np.concatenate(
        [
            (p.retention - r) / error,
            [(p.participation - b.participation) / b.participation_stderr],
            (p.bounded - (1 - b.coherence) / share) / (b.coherence_stderr / share),
        ]
    )
    # Entries share their training sets, so that only the largest is tested as independent.
    assert np.abs(z).max() < 4.5


def test_the_paper_scale_case_of_twenty_thousand_points():
    """N = 20,000 at t = .002 in three dimensions, far from what the checks file covers."""
    v, sigma = np.array([1.0, 0.5, 0.2]), 0.002**0.5
    rng = np.random.default_rng(7)
    y = rng.normal(size=3) * np.sqrt(v)
    x = y + sigma * rng.normal(size=3)
    b = brute_force.measure(v, 20_000, sigma, rng, sets=600, x=x, planted=y)
    p = predict(Gaussian(v), x, sigma, 20_000, planted=y)
    r, error = brute_force.retention(b, v, sigma)
    assert np.abs((p.retention - r) / error).max() < 4.5
    assert abs(p.participation - b.participation) < 4.5 * b.participation_stderr


@given(spectra, st.integers(0, 1000), st.sampled_from([2.0, 7.0, 300.0, 1e9]))
@settings(max_examples=15, deadline=None)
def test_rotation_scale_shift_and_normal_directions(variances, seed, size):
    rng = np.random.default_rng(seed)
    m = len(variances)
    v = np.array(variances)
    y = rng.normal(size=m) * np.sqrt(v)
    x = y + 0.3 * rng.normal(size=m)
    plain = predict(Gaussian(v), x, 0.3, size, planted=y)

    padded = predict(Gaussian([*v, 0.0]), [*x, 5.0], 0.3, size, planted=[*y, 0.0])
    np.testing.assert_allclose(padded.retention[:m], plain.retention, rtol=1e-9)
    assert np.isnan(padded.retention[m])

    scaled = predict(Gaussian(100 * v), 10 * x, 3.0, size, planted=10 * y)
    np.testing.assert_allclose(scaled.retention, plain.retention, rtol=1e-9)
    np.testing.assert_allclose(scaled.covariance, 100 * plain.covariance, rtol=1e-9)

    Q = ortho_group.rvs(m + 1, random_state=seed) if m else np.eye(1)
    F = Q[:, :m] * np.sqrt(v)
    rotated = predict(
        Gaussian.from_factor(F, mean=Q[0]),
        Q[:, :m] @ x + Q[0],
        0.3,
        size,
        planted=Q[:, :m] @ y + Q[0],
        directions=Q[:, :m].T,
    )
    # 1e-6: what eigh leaves of exact degeneracies and zeros
    np.testing.assert_allclose(rotated.retention, plain.retention, rtol=1e-6)


def test_infinitely_many_points_are_the_population():
    p = predict(Gaussian(A), 0.2 * np.ones(7), 0.3, 1e12)
    np.testing.assert_allclose(p.retention, 1, atol=1e-4)
    assert p.dimension == pytest.approx((A / (A + 0.09)).sum(), rel=1e-4)
    assert p.participation < 1e-5


def test_one_component_twice_is_one_component():
    one = Gaussian([1.0, 0.2])
    two = GaussianMixture([0.3, 0.7], np.zeros((2, 2)), [[1.0, 0.2], [1.0, 0.2]])
    x, sizes = [0.3, -0.4], [2, 50, 1e6]
    p, q = (predict(g, x, 0.2, sizes, bounded=True) for g in (one, two))
    np.testing.assert_allclose(p.retention, q.retention, rtol=1e-8)
    assert p.bounded is not None
    assert q.bounded is not None
    np.testing.assert_allclose(p.bounded, q.bounded, rtol=1e-8)


def test_mixture_agrees_with_simulation():
    rng = np.random.default_rng(0)
    Q = ortho_group.rvs(3, random_state=1)
    thin = Q @ np.diag([1.0, 0.3, 0.0]) @ Q.T
    prior = GaussianMixture([0.3, 0.7], [[-1.0, 0, 0], [1, 0.5, 0]], [np.diag([0.1, 0.2, 0]), thin])
    x, sizes = rng.normal(size=3) * 0.3, np.array([2.0, 20.0])
    p = predict(prior, x, 0.3, sizes, matrix=True)
    q = simulate(prior, x, None, 0.3, sizes, np.eye(3), matrix=True)
    assert q.errors is not None
    z = (p.covariance / 0.09 - q.covariance) / q.errors.covariance
    assert np.abs(z).max() < 4.5
    assert np.abs((p.participation - q.participation) / q.errors.participation).max() < 4


def test_bounded_retention_vanishes_where_the_mean_stays_up():
    p = predict(Gaussian(A), np.zeros(7), 0.001**0.5, 1000, bounded=True)
    assert p.retention[0] > 0.9  # rare sets with x on a border: their spread is the whole sum
    assert p.bounded is not None
    assert p.bounded.max() < 0.1


def test_a_failed_identity_is_simulated_or_refused(monkeypatch):
    def broken(*args, **kwargs):
        zero = np.zeros((1, 2))
        return Quenched(zero, np.array([0.5]), np.array([0.2]))

    monkeypatch.setattr(finite_size, "average_point", broken)
    small = predict(Gaussian([1.0, 0.1]), [0.1, 0.0], 0.3, 5)
    assert small.route == "simulation"
    assert (small.retention_stderr > 1e-4).all()
    with pytest.raises(Inconclusive, match="no method reaches its accuracy"):
        predict(Gaussian([1.0, 0.1]), [0.1, 0.0], 0.3, 1e6)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1.0, 0.1], 0.3, 5), {"directions": [[1.0, 1.0]]}, "direction 1 has length 1.41"),
        (([1.0, 0.1], -0.3, 5), {}, "`sigma` is -0.3"),
        (([1.0, 0.1], 1e-200, 5), {}, "`sigma` is 1e-200"),
        (([1.0, 0.1], 0.3, 0), {}, "`num_samples` holds 0"),
        (([1.0, 0.1], 0.3, 1.5), {}, "N >= 2"),
        (([1.0, 0.1], 0.3, 1e13), {}, "`num_samples` holds 1e[+]13"),
        (([1.0, 0.1], 0.3, []), {}, "`num_samples` has shape"),
        (([1.0, 0.1], 0.3, 5), {"matrix": 2}, "`matrix` is 2"),
        (([1.0], 0.3, 5), {}, "`x` has shape"),
        (([1.0, np.nan], 0.3, 5), {}, "NaN"),
        (([1.0, 0.1], 0.3, 5), {"directions": [[1.0]]}, "`directions` has shape"),
    ],
)
def test_bad_input_is_one_sentence(arguments, options, message):
    x, sigma, size = arguments
    with pytest.raises(InputError, match=message) as error:
        predict(Gaussian([1.0, 0.1]), x, sigma, size, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gaussian([1.0, -1.0]), "`variances` has -1 at place 2"),
        (lambda: Gaussian([0.0]), "above zero"),
        (lambda: Gaussian.from_covariance([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (lambda: Gaussian.from_covariance([[1.0, 2.0], [2.0, 1.0]]), "eigenvalue"),
        (lambda: GaussianMixture([0.5, 0.6], [[0.0], [1.0]], [[1.0], [1.0]]), "sum to 1"),
        (lambda: GaussianMixture([1.0], [[0.0]], [[1.0], [1.0]]), "mixture needs"),
        (lambda: GaussianMixture([1.0], [[0.0]], [[-1.0]]), "never negative"),
    ],
)
def test_bad_priors_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
