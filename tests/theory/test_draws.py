"""Sampled priors against the Gaussian and the mixture that they sample."""

import numpy as np
import pytest

from geomem.errors import InputError
from geomem.theory.averages import Effort, planted_average
from geomem.theory.draws import Sampled, planted_average_sampled, predict_sampled
from geomem.theory.finite_size import predict
from geomem.theory.priors import Gaussian, GaussianMixture

V = np.array([1.0, 0.3, 0.09])
GAUSSIAN = Gaussian(V)
SAMPLED = Sampled(lambda u: GAUSSIAN.noisy(0.0, u), GAUSSIAN.num_uniforms, 3)


@pytest.mark.parametrize("planted", [None, [0.5, 0.2, 0.1]])
def test_agrees_with_the_contour(planted):
    x, sizes = [0.6, 0.1, 0.2], [2, 10, 100, 800]
    p = predict_sampled(SAMPLED, x, 0.3, sizes, planted=planted, bounded=True)
    q = predict(GAUSSIAN, x, 0.3, sizes, planted=planted, bounded=True)
    # 1e-3: draws with replacement from 8,192 points are not i.i.d. draws, by 1/8,192 or so
    assert (np.abs(p.retention - q.retention) < 5 * p.retention_stderr + 1e-3).all()
    assert (np.abs(p.participation - q.participation) < 5 * p.participation_stderr + 1e-3).all()
    assert (np.abs(p.bounded - q.bounded) < 5 * p.bounded_stderr + 1e-3).all()


def test_planted_average_of_a_mixture():
    prior = GaussianMixture(
        [0.3, 0.7], [[-1, 0, 0], [1, 0.5, 0]], [[0.1, 0.2, 0], [0.2, 0.05, 0.1]]
    )
    sampled = Sampled(lambda u: prior.noisy(0.0, u), prior.num_uniforms, 3)
    sizes = [10, 100]
    p = planted_average_sampled(sampled, 0.3, sizes, points=32)
    q = planted_average(prior, 0.3, sizes, effort=Effort(points=16))
    z = (p.retention - q.retention) / np.hypot(p.retention_stderr, q.retention_stderr)
    assert np.abs(z).max() < 4.5


def test_full_matrix_along_rotated_directions():
    u = np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]) / 2**0.5
    p = predict_sampled(SAMPLED, [0.6, 0.1, 0.2], 0.3, 50, directions=u, matrix=True)
    q = predict(GAUSSIAN, [0.6, 0.1, 0.2], 0.3, 50, directions=u, matrix=True)
    np.testing.assert_allclose(p.covariance, q.covariance, rtol=5e-3, atol=1e-4)


def test_a_sphere_has_no_formula_and_needs_none():
    """A circle of radius 1, seen from a point on it: one dimension, along the tangent."""

    def circle(u):
        return np.stack([np.cos(2 * np.pi * u[:, 0]), np.sin(2 * np.pi * u[:, 0])], axis=1)

    p = predict_sampled(Sampled(circle, 1, 2), [1.0, 0.0], 0.1, [800])
    kept = p.covariance[0] / 0.01
    assert kept[1] == pytest.approx(1, abs=0.05)  # curvature takes sigma² of it
    assert kept[0] < 0.02


def test_too_few_draws_are_refused():
    with pytest.raises(InputError, match="raise num_draws"):
        predict_sampled(SAMPLED, [0.0, 0.0, 0.0], 0.3, 1000)
