r"""Log-likelihoods against closed forms and against the probability-flow integral."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser
from geomem.likelihood import LogLikelihood, log_likelihood
from geomem.stats import Estimate
from tests.references import level, normal, rotation

SIGMAS = torch.logspace(-1, 2.5, 65, dtype=torch.float64)


def gaussian(seed: int, d: int) -> GaussianDenoiser:
    R, spread = rotation(seed, d), torch.logspace(-1, 0.5, d, dtype=torch.float64)
    return GaussianDenoiser(normal(seed + 1, d), R * spread @ R.T)


def mixture(d: int) -> MixtureDenoiser:
    near = GaussianDenoiser(torch.full((d,), 1.5).double(), 0.05 * torch.ones(d))
    return MixtureDenoiser(torch.tensor([0.3, 0.7]), [gaussian(0, d), near])


def noised_mean(denoiser: GaussianDenoiser | MixtureDenoiser, x: Tensor, sigma: Tensor) -> Tensor:
    r"""``E_z ln p(x_0 + sigma z)`` of points in the plane, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z = torch.from_numpy(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2))
    w = torch.from_numpy(np.outer(weights, weights).ravel() / math.tau)
    return torch.stack([w @ denoiser.log_density(p + sigma * z, sigma) for p in x])


def deviations(found: LogLikelihood, known: Tensor) -> np.ndarray:
    return np.array([p.z_score(float(k)) for p, k in zip(found.points, known, strict=True)])


@pytest.mark.parametrize("denoiser", [gaussian(3, 2), mixture(2)], ids=["gaussian", "mixture"])
def test_200_points_are_where_closed_forms_say_and_errors_are_honest(
    denoiser: GaussianDenoiser | MixtureDenoiser,
) -> None:
    x = normal(7, 200, 2)
    control = GaussianDenoiser(torch.zeros(2).double(), torch.ones(2))
    found = log_likelihood(denoiser, x, control=control, sigmas=SIGMAS)
    z = deviations(found, noised_mean(denoiser, x, SIGMAS[0]))
    assert abs(z.mean()) < 3 / math.sqrt(200)
    # Sums of squares are skewed: .6 % are beyond 3, for .3 % of normal ones.
    assert (np.abs(z) > 3).sum() <= 4
    assert 0.90 <= (np.abs(z) < 1.96).mean() <= 0.97
    assert abs(found.z_score(float(noised_mean(denoiser, x, SIGMAS[0]).mean()))) < 3


def test_coverage_of_intervals_over_seeds() -> None:
    denoiser, x = mixture(2), normal(8, 25, 2)
    control = GaussianDenoiser(torch.zeros(2).double(), torch.ones(2))
    known = noised_mean(denoiser, x, SIGMAS[0])
    z = np.concatenate(
        [
            deviations(log_likelihood(denoiser, x, control=control, sigmas=SIGMAS, seed=s), known)
            for s in range(20)
        ]
    )
    assert 0.92 <= (np.abs(z) < 1.96).mean() <= 0.97  # 500 cases: ± 1 %
    assert abs(z.mean()) < 4 / math.sqrt(len(z))


def test_few_levels_of_many_draws_have_no_bias_either() -> None:
    # One interval of eight e-folds: a quadrature on its two ends would be off by many nats.
    denoiser, x = mixture(2), normal(9, 40, 2)
    control = GaussianDenoiser(torch.zeros(2).double(), torch.ones(2))
    ends = SIGMAS[[0, -1]]
    found = log_likelihood(denoiser, x, control=control, sigmas=ends, draws=400)
    z = deviations(found, noised_mean(denoiser, x, SIGMAS[0]))
    assert abs(z.mean()) < 3 / math.sqrt(40)
    assert z.std() < 1.4


def test_the_control_itself_is_known_exactly_and_any_control_gives_the_same() -> None:
    a, b, x = gaussian(0, 5), gaussian(10, 5), normal(5, 3, 5)
    itself = log_likelihood(a, x, control=a, sigmas=SIGMAS)
    t = float(SIGMAS[0]) ** 2
    known = a.log_density(x, SIGMAS[0]) - (t / (a.variances + t)).sum() / 2
    for point, value in zip(itself.points, known, strict=True):
        assert point.stderr == 0
        assert point.value == pytest.approx(float(value), abs=1e-9)
    other = log_likelihood(a, x, control=b, sigmas=SIGMAS, draws=8)
    assert 0 < other.stderr < 5
    assert abs(other.z_score(float(known.mean()))) < 3


def test_the_density_meant_is_the_mean_over_the_noise_and_not_that_of_the_point() -> None:
    # All 50 coordinates are lost at sigma = 1, so the point itself is likelier by 25 nats.
    flat = GaussianDenoiser(torch.zeros(50).double(), 1e-6 * torch.ones(50))
    control = GaussianDenoiser(torch.zeros(50).double(), torch.ones(50))
    x, sigmas = torch.zeros(50).double(), torch.logspace(0, 2.5, 65)
    found = log_likelihood(flat, x, control=control, sigmas=sigmas, draws=8)
    at_x = float(flat.log_density(x[None], level(1.0)))
    assert abs(found.z_score(at_x - 25)) < 3
    assert found.stderr < 2


def test_a_factor_of_the_data_moves_the_density_by_its_logarithm() -> None:
    data = normal(0, 30, 4)
    control = GaussianDenoiser.fit(data)
    one = log_likelihood(EmpiricalDenoiser(data), data[:2], control=control, sigmas=SIGMAS)
    control = GaussianDenoiser.fit(10 * data)
    ten = log_likelihood(
        EmpiricalDenoiser(10 * data), 10 * data[:2], control=control, sigmas=10 * SIGMAS
    )
    assert ten.value == pytest.approx(one.value - 4 * math.log(10), abs=1e-4)
    assert ten.stderr == pytest.approx(one.stderr, rel=1e-4)


def test_a_memorized_point_is_likelier_than_a_new_one() -> None:
    data = normal(0, 40, 8)
    control = GaussianDenoiser.fit(data)
    sigmas = torch.logspace(-1.5, 2, 65)
    found = log_likelihood(EmpiricalDenoiser(data[:20]), data, control=control, sigmas=sigmas)
    values = [p.value for p in found.points]
    assert min(values[:20]) > max(values[20:])


def test_neither_batches_nor_company_change_a_point_and_seeds_do() -> None:
    denoiser, x = mixture(3), normal(2, 3, 3)
    control = gaussian(4, 3)
    whole = log_likelihood(denoiser, x, control=control, sigmas=SIGMAS)
    parts = log_likelihood(denoiser, x, control=control, sigmas=SIGMAS, batch_size=7)
    first = log_likelihood(denoiser, x[0], control=control, sigmas=SIGMAS)
    for a, b in zip(whole.points, parts.points, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-12)
        assert a.stderr == pytest.approx(b.stderr, rel=1e-9)
    assert first.points[0].value == pytest.approx(whole.points[0].value, rel=1e-12)
    assert len(first.points) == 1
    other = log_likelihood(denoiser, x, control=control, sigmas=SIGMAS, seed=1)
    assert other.value != whole.value


def test_bits_and_the_mean_are_of_the_points() -> None:
    found = log_likelihood(mixture(3), normal(2, 4, 3), control=gaussian(4, 3), sigmas=SIGMAS)
    assert found.value == pytest.approx(np.mean([p.value for p in found.points]))
    errors = [p.stderr for p in found.points]
    assert found.stderr == pytest.approx(np.sqrt(np.square(errors).sum()) / 4)
    bits = found.bits_per_dimension
    assert bits.value == pytest.approx(-found.value / 3 / math.log(2))
    assert bits.stderr == pytest.approx(found.stderr / 3 / math.log(2))
    assert isinstance(found, Estimate)


def test_what_lies_above_the_highest_level_is_told() -> None:
    # The means differ by 2 in each of 2 coordinates: 8/sigma² at most, and half of it is missed.
    shifted = GaussianDenoiser(2 * torch.ones(2).double(), torch.ones(2))
    control = GaussianDenoiser(torch.zeros(2).double(), torch.ones(2))
    x, sigmas = torch.zeros(2).double(), torch.logspace(-1, 1, 65)
    found = log_likelihood(shifted, x, control=control, sigmas=sigmas, draws=200)
    t = 0.01
    known = float(shifted.log_density(x[None], level(0.1))) - t / (1 + t)
    assert found.top is not None
    assert found.top.value / 2 == pytest.approx(-8 / 100 / 2, rel=0.15)
    assert found.value - known == pytest.approx(-found.top.value / 2, abs=4 * found.stderr + 0.01)


def test_one_draw_says_nothing_about_its_error() -> None:
    found = log_likelihood(mixture(2), normal(2, 2, 2), control=gaussian(4, 2), draws=1)
    assert math.isfinite(found.value)
    assert math.isnan(found.stderr)


def test_levels_stay_inside_what_the_denoiser_was_trained_on() -> None:
    class Trained:
        sigma_min, sigma_max = 0.2, 5.0
        seen: tuple[float, float] = (math.inf, 0.0)

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            low, high = float(sigma.min()), float(sigma.max())
            self.seen = min(low, self.seen[0]), max(high, self.seen[1])
            return x / 2

    denoiser = Trained()
    log_likelihood(denoiser, normal(0, 2, 3), control=gaussian(0, 3))
    assert 0.19 < denoiser.seen[0] < 0.25
    assert 4.0 < denoiser.seen[1] < 5.1


def test_float32_points_have_float32_calls_and_the_same_answer() -> None:
    x, control = normal(2, 3, 3), gaussian(4, 3)
    dtypes = set()

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        dtypes.add(x.dtype)
        return mixture(3)(x, sigma)

    double = log_likelihood(mixture(3), x, control=control, sigmas=SIGMAS)
    single = log_likelihood(denoiser, x.float(), control=control, sigmas=SIGMAS)
    assert dtypes == {torch.float32}
    assert single.value == pytest.approx(double.value, abs=1e-3)


def test_images_keep_their_shape() -> None:
    data = normal(0, 50, 1, 4, 4)
    control = GaussianDenoiser.fit(data)
    one = log_likelihood(EmpiricalDenoiser(data), data[0], control=control)
    two = log_likelihood(EmpiricalDenoiser(data), data[:2], control=control)
    assert one.points[0].value == pytest.approx(two.points[0].value)
    assert one.ambient_dim == 16


# ------------------------------------------------------------------- the probability flow


def flow_log_density(denoiser: MixtureDenoiser, x: Tensor, prior: GaussianDenoiser) -> Tensor:
    r"""``ln p(x)`` at the lowest level, carried along dx/d ln sigma = x - D by RK4 steps."""
    d = x.shape[1]

    def slope(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        trace = denoiser.jacobian_diagonal(x, sigma, torch.eye(d).double()).sum(1)
        return x - denoiser(x, sigma), d - trace

    total = x.new_zeros(len(x))
    # Its end is off by mean/sigma, ours by (mean/sigma)²/2: it has to go further up.
    levels = torch.logspace(-1, 4, 129, dtype=torch.float64)
    for low, high in pairwise(levels):
        h, middle = (high / low).log(), (low * high).sqrt()
        a, p = slope(x, low)
        b, q = slope(x + h / 2 * a, middle)
        c, r = slope(x + h / 2 * b, middle)
        e, s = slope(x + h * c, high)
        x = x + h / 6 * (a + 2 * b + 2 * c + e)
        total = total + h / 6 * (p + 2 * q + 2 * r + s)
    return prior.log_density(x, levels[-1]) + total


def test_the_probability_flow_says_the_same() -> None:
    denoiser, x_0 = mixture(3), normal(2, 3)
    control = GaussianDenoiser(torch.zeros(3).double(), torch.ones(3))
    z = normal(3, 100, 3)
    x = x_0 + SIGMAS[0] * torch.cat([z, -z])
    flow = flow_log_density(denoiser, x, control)
    torch.testing.assert_close(flow, denoiser.log_density(x, SIGMAS[0]), atol=2e-3, rtol=0)
    found = log_likelihood(denoiser, x_0, control=control, sigmas=SIGMAS, draws=16)
    both = flow.reshape(2, -1).mean(0)
    assert abs(found.z_score(Estimate.of_mean(both.numpy()))) < 3


# ------------------------------------------------------------------------- what is refused


def test_bad_input_is_told_what_to_do() -> None:
    control, x = gaussian(0, 3), normal(0, 2, 3)
    with pytest.raises(InputError, match="`x` has shape"):
        log_likelihood(control, normal(0, 2, 4), control=control)
    with pytest.raises(InputError, match="pass a GaussianDenoiser"):
        log_likelihood(control, x, control=mixture(3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`sigmas` must be at least two"):
        log_likelihood(control, x, control=control, sigmas=torch.tensor([1.0, 0.5]))
    with pytest.raises(InputError, match="`sigmas` must be at least two"):
        log_likelihood(control, x, control=control, sigmas=torch.tensor([1.0]))
    with pytest.raises(InputError, match="`sigmas`"):
        log_likelihood(control, x, control=control, sigmas=torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="`draws`"):
        log_likelihood(control, x, control=control, draws=0)
    with pytest.raises(InputError, match="`x` holds NaN"):
        log_likelihood(control, x * math.nan, control=control)
    with pytest.raises(InputError, match="returned shape"):
        log_likelihood(lambda x, s: x[..., :2], x, control=control)
    with pytest.raises(InputError, match="NaN or infinity at sigma"):
        log_likelihood(
            lambda x, s: torch.where(s.reshape(-1, 1).log().abs() < 1, math.nan, x),
            x,
            control=control,
        )
