"""The contour integrals against quadrature on the line, and the identity everywhere."""

import numpy as np
import pytest

from geomem.theory.contour import TiltedGaussian, contour_moments
from geomem.theory.grid import fresh_grid, planted_grid
from geomem.theory.moments import Source, average_fresh, average_planted

SIZES = np.array([2.0, 3, 10, 100, 1e4, 1e8, 1e12])


def gaussian(variances, offset):
    v = np.asarray(variances, float)
    return TiltedGaussian(v, np.asarray(offset, float), np.eye(len(v)), np.zeros(len(v)))


def on_the_line(a, h):
    """Places and weights of a fine rule for y ~ N(-h, a), seen from x = 0, sigma = 1."""
    wide = np.linspace(-12 * np.sqrt(a) - h, 12 * np.sqrt(a) - h, 200_001)
    y = np.unique(np.concatenate([wide, np.linspace(-30, 30, 20_001)]))
    return y, np.gradient(y) * np.exp(-((y + h) ** 2) / (2 * a)) / np.sqrt(2 * np.pi * a)


@pytest.mark.parametrize(("a", "h"), [(1000.0, 20.0), (10.0, 0.0), (1.0, 1.5), (0.01, 0.3)])
def test_moments_of_one_dimension(a, h):
    g = gaussian([a], [h])
    log_lambda, weights = fresh_grid([g], 1e4)
    m = contour_moments(g, log_lambda, weights, scale=np.array([0.7]))
    y, w = on_the_line(a, h)
    for j in range(0, len(log_lambda), 17):
        b = np.exp(np.minimum(log_lambda[j] - y**2 / 2, 700))
        kernel = w * b * np.exp(-b)
        # 1e-4: the rule on the line, not the contour, is the coarser of the two
        assert m.phi[j] == pytest.approx((w * np.exp(-b)).sum(), abs=1e-6)
        assert m.missing[j] == pytest.approx(-(w * np.expm1(-b)).sum(), rel=1e-4, abs=1e-12)
        if kernel.sum() < 1e-12:
            continue
        assert m.psi[j] == pytest.approx(kernel.sum(), rel=1e-4)
        assert m.first[j, 0] == pytest.approx((kernel * y).sum(), rel=1e-4, abs=1e-6 * m.psi[j])
        assert m.second[j, 0] == pytest.approx((kernel * y * y).sum(), rel=1e-4)
        assert m.square[j] == pytest.approx((kernel * b).sum(), rel=1e-4)


@pytest.mark.parametrize("dim", [1, 2, 7, 20, 200])
@pytest.mark.parametrize("t", [1e-3, 0.1, 10.0])
def test_identity_holds_for_all_sizes(dim, t):
    rng = np.random.default_rng(dim)
    v = np.arange(1, dim + 1.0) ** -1.0 / t
    y = rng.normal(size=dim) * np.sqrt(v)
    offset = y + rng.normal(size=dim)
    g = gaussian(v, offset)
    q = average_fresh(contour_moments(g, *fresh_grid([g], SIZES.max())), SIZES)
    assert q.identity_defect.max() < 2e-4  # 4e-5 is the largest seen in 72 other cases
    energy = np.array([((y - offset) ** 2).sum() / 2])
    log_lambda, weights = planted_grid([g], SIZES.max(), energy)
    moments = contour_moments(g, log_lambda, weights)
    q = average_planted(moments, Source((y - offset)[None], energy), SIZES)
    assert q.identity_defect.max() < 1e-4  # 3e-5 in 378 other cases
    assert (q.covariance > -1e-9).all()


def test_one_training_point_keeps_nothing():
    g = gaussian([4.0, 1.0], [0.5, 0.2])
    energy = np.array([1.3])
    log_lambda, weights = planted_grid([g], 1.0, energy)
    moments = contour_moments(g, log_lambda, weights)
    q = average_planted(moments, Source(np.array([[1.5, 0.6]]), energy), np.array([1.0]))
    assert np.abs(q.covariance).max() == 0
    assert q.participation[0, 0] == pytest.approx(1, abs=1e-8)


def test_full_matrix_has_the_variances_on_its_diagonal():
    g = gaussian([4.0, 1.0, 0.3], [0.5, -1.2, 0.1])
    log_lambda, weights = fresh_grid([g], 100.0)
    diagonal = average_fresh(contour_moments(g, log_lambda, weights), SIZES[:4])
    full = average_fresh(contour_moments(g, log_lambda, weights, matrix=True), SIZES[:4])
    np.testing.assert_allclose(
        np.diagonal(full.covariance, axis1=1, axis2=2), diagonal.covariance, rtol=1e-10
    )
    np.testing.assert_allclose(full.covariance, full.covariance.swapaxes(1, 2), rtol=1e-10)
