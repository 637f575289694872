"""Sampled priors against the Gaussian and the mixture that they sample."""

import numpy as np
import pytest

from geomem.errors import InputError
from geomem.theory.averages import Effort, planted_average
from geomem.theory.draws import Sampled
from geomem.theory.finite_size import predict
from geomem.theory.priors import Gaussian, GaussianMixture

V = np.array([1.0, 0.3, 0.09])
GAUSSIAN = Gaussian(V)
SAMPLED = Sampled(lambda u: GAUSSIAN.noisy(0.0, u), GAUSSIAN.num_uniforms, 3)


@pytest.mark.parametrize("planted", [None, [0.5, 0.2, 0.1]])
def test_agrees_with_the_contour(planted):
    x, sizes = [0.6, 0.1, 0.2], [2, 10, 100, 800]
    p = predict(SAMPLED, x, 0.3, sizes, planted=planted, bounded=True)
    q = predict(GAUSSIAN, x, 0.3, sizes, planted=planted, bounded=True)
    # 1e-3: draws with replacement from 8,192 points are not i.i.d. draws, by 1/8,192 or so
    assert (np.abs(p.retention - q.retention) < 5 * p.retention_stderr + 1e-3).all()
    assert (np.abs(p.participation - q.participation) < 5 * p.participation_stderr + 1e-3).all()
    assert p.bounded is not None
    assert p.bounded_stderr is not None
    assert q.bounded is not None
    assert (np.abs(p.bounded - q.bounded) < 5 * p.bounded_stderr + 1e-3).all()


def test_planted_average_of_a_mixture():
    prior = GaussianMixture(
        [0.3, 0.7], [[-1.0, 0, 0], [1, 0.5, 0]], [[0.1, 0.2, 0], [0.2, 0.05, 0.1]]
    )
    sampled = Sampled(lambda u: prior.noisy(0.0, u), prior.num_uniforms, 3)
    sizes = [10, 100]
    p = planted_average(sampled, 0.3, sizes, effort=Effort(points=4))
    q = planted_average(prior, 0.3, sizes, effort=Effort(points=16))
    z = (p.retention - q.retention) / np.hypot(p.retention_stderr, q.retention_stderr)
    assert np.abs(z).max() < 4.5


def test_full_matrix_along_rotated_directions():
    u = np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]) / 2**0.5
    p = predict(SAMPLED, [0.6, 0.1, 0.2], 0.3, 50, directions=u, matrix=True)
    q = predict(GAUSSIAN, [0.6, 0.1, 0.2], 0.3, 50, directions=u, matrix=True)
    np.testing.assert_allclose(p.covariance, q.covariance, rtol=5e-3, atol=1e-4)


def test_a_sphere_has_no_formula_and_needs_none():
    """A circle of radius 1, seen from a point on it: one dimension, along the tangent."""

    def circle(u):
        return np.stack([np.cos(2 * np.pi * u[:, 0]), np.sin(2 * np.pi * u[:, 0])], axis=1)

    p = predict(Sampled(circle, 1, 2), [1.0, 0.0], 0.1, [800])
    kept = p.covariance[0] / 0.01
    assert kept[1] == pytest.approx(1, abs=0.05)  # curvature takes sigma² of it
    assert kept[0] < 0.02


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="raise `num_draws`"):
        predict(SAMPLED, [0.0, 0.0, 0.0], 0.3, 1000)


def laplace_times_uniform(u):
    y = u[:, 0] - 0.5
    return np.stack(
        [-np.sign(y) * np.log1p(-2 * np.abs(y)) / 2**0.5, 3**0.5 * (2 * u[:, 1] - 1)], 1
    )


@pytest.mark.parametrize("sigma", [1e-4, 0.02, 0.2, 30.0])
@pytest.mark.parametrize("planted", [None, [0.7, -0.1]])
def test_draws_far_away_take_no_part(sigma, planted):
    """Laplace x uniform, where draws lie 37 sigma (and at the smallest level 70,000) away."""
    x = np.array([0.71, -0.10]) if planted is None else np.array(planted) + sigma
    prior = Sampled(laplace_times_uniform, 2, 2, num_draws=1024, replicates=4)
    found = predict(prior, x, sigma, [2, 10, 100], planted=planted, bounded=True)
    sets, rng = [], np.random.default_rng(0)
    points = prior.draw(0, 1024)
    for _ in range(4000):
        some = points[rng.integers(0, 1024, 10)]
        some[0] = some[0] if planted is None else planted
        energy = ((some - x) ** 2).sum(1) / (2 * sigma**2)
        w = np.exp(energy.min() - energy)
        sets.append((w**2).sum() / w.sum() ** 2)
    error = np.hypot(np.std(sets) / 4000**0.5, found.participation_stderr[1])
    # Draws of one replicate stand for those of four: 1 % on top.
    assert abs(found.participation[1] - np.mean(sets)) < 4.5 * error + 0.01
    for values in (found.covariance, found.participation, found.bounded):
        assert values is not None
        assert np.isfinite(values).all()
    assert found.identity_defect.max() < 1e-3


def test_a_wide_prior_takes_no_more_memory_than_its_draws():
    """Energies up to 10^16, where the nearest point of a set is picked."""
    prior = Sampled(lambda u: 1e3 * (2 * u - 1) ** 3, 1, 1, num_draws=256, replicates=2)
    found = predict(prior, [0.0], 1e-5, [2, 20])
    assert found.identity_defect.max() < 1e-5  # 3e-6: the step of the abscissas
    assert (found.participation > 0.95).all()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda u: u[:, :1], "has shape"),
        (lambda u: np.log(0 * u), "infinity"),
        (lambda u: np.full(u.shape, np.nan), "NaN"),
    ],
)
def test_draws_are_points(transform, message):
    with np.errstate(divide="ignore"), pytest.raises(InputError, match=message):
        predict(Sampled(transform, 2, 2), [0.0, 0.0], 0.3, [5])


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"num_draws": 0}, "num_draws"), ({"replicates": 1}, "replicates"), ({"seed": -1}, "seed")],
)
def test_what_a_sampled_prior_takes(changes, name):
    with pytest.raises(InputError, match=f"`{name}` is"):
        Sampled(lambda u: u, 1, 1, **changes)
