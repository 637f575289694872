r"""The identities that everything else rests on, in float64, on cases drawn by hypothesis.

Tolerances: 1e-10 is what is promised; float64 with numbers of order one, and Jacobians of at
most 10^4 (spread over noise, squared), leaves 1e-12 or so. Quadratures state their own.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser, Posterior
from geomem.exact.mixture import MixtureDenoiser
from geomem.manifolds import LinearManifold
from geomem.operators import DenoiserJacobian, jacobian_diagonal
from geomem.spectra import Dense, spectrum
from tests import references as slow
from tests.references import level, normal, rotation

pytestmark = pytest.mark.usefixtures("double")

seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 12)
dims = st.integers(1, 5)
# From deep in the condensed phase (points are about 1 apart) to where all points look alike.
sigmas = st.floats(math.log(0.05), math.log(20.0)).map(math.exp)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    scale = max(1.0, float(b.abs().max()))
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale, check_dtype=False)


def points(seed: int, n: int, d: int, sigma: float) -> tuple[Tensor, Tensor]:
    r"""Training points, and one noisy point of the first."""
    data = normal(seed, n, d)
    return data, data[0] + sigma * normal(seed + 1, d)


def covariance(seed: int, d: int, rank: int) -> Tensor:
    factor = normal(seed, d, rank)
    return factor @ factor.T / rank


# ------------------------------------------------------- dD/dx = Cov[x_0 | x] / sigma²


@given(seeds, sizes, dims, sigmas)
def test_the_jacobian_of_points_is_their_weighted_covariance(
    seed: int, n: int, d: int, sigma: float
) -> None:
    data, x = points(seed, n, d, sigma)
    denoiser = EmpiricalDenoiser(data)
    expected = slow.weighted_covariance(data, x, sigma) / sigma**2
    close(slow.jacobian(denoiser, x, level(sigma)), expected)
    close(DenoiserJacobian(denoiser, x, level(sigma)).dense(), expected)
    close(
        denoiser(x[None], level(sigma))[0], torch.from_numpy(slow.posterior(data, x, sigma)["mean"])
    )


@given(seeds, dims, st.booleans(), sigmas)
def test_the_jacobian_of_a_gaussian_is_its_posterior_covariance(
    seed: int, d: int, singular: bool, sigma: float
) -> None:
    mean, cov = normal(seed, d), covariance(seed + 1, d, max(1, d - 2) if singular else d)
    x = normal(seed + 2, d)
    denoiser = GaussianDenoiser(mean, cov)
    expected_mean, expected_cov = slow.gaussian_posterior(mean, cov, x, sigma)
    close(denoiser(x[None], level(sigma))[0], expected_mean)
    close(slow.jacobian(denoiser, x, level(sigma)), expected_cov / sigma**2)


@given(seeds, st.integers(1, 4), dims, sigmas)
def test_the_jacobian_of_a_mixture_is_its_posterior_covariance(
    seed: int, k: int, d: int, sigma: float
) -> None:
    weights = normal(seed, k).exp()
    means = [2 * normal(seed + 1 + i, d) for i in range(k)]
    covs = [covariance(seed + 10 + i, d, d) for i in range(k)]
    x = means[0] + normal(seed + 20, d)
    denoiser = MixtureDenoiser(
        weights, [GaussianDenoiser(m, c) for m, c in zip(means, covs, strict=True)]
    )
    mean, cov = slow.mixture_posterior(weights, means, covs, x, sigma)
    close(denoiser(x[None], level(sigma))[0], mean)
    close(slow.jacobian(denoiser, x, level(sigma)), cov / sigma**2)


@given(seeds, sizes, dims, sigmas, st.integers(1, 7))
def test_diagonals_without_derivatives_are_those_of_autodiff(
    seed: int, n: int, d: int, sigma: float, chunk_size: int
) -> None:
    data, _ = points(seed, n, d, sigma)
    x = data[torch.zeros(3, dtype=torch.long)] + sigma * normal(seed + 1, 3, d)
    gaussian = GaussianDenoiser(normal(seed + 2, d), covariance(seed + 3, d, d))
    empirical = EmpiricalDenoiser(data, chunk_size)
    mixture = MixtureDenoiser(torch.tensor([1.0, 2.0]), [gaussian, empirical])
    U = normal(seed + 4, d, 4)
    for denoiser in (empirical, gaussian, mixture):
        dense = torch.stack([slow.jacobian(denoiser, p, level(sigma)) for p in x])
        expected = torch.einsum("dn,bde,en->bn", U, dense, U)
        close(denoiser.jacobian_diagonal(x, level(sigma), U), expected)
        # One level a point is the same as one level for all of them.
        close(denoiser.jacobian_diagonal(x, level(sigma).expand(3), U), expected)

        def plain(x: Tensor, sigma: Tensor, denoiser: Denoiser = denoiser) -> Tensor:
            return denoiser(x, sigma)  # without the shortcut: derivatives

        close(jacobian_diagonal(plain, x, level(sigma), U), expected)


@given(seeds, sizes, dims, sigmas)
def test_the_score_is_the_gradient_of_the_log_density(
    seed: int, n: int, d: int, sigma: float
) -> None:
    data, x = points(seed, n, d, sigma)
    gaussian = GaussianDenoiser(normal(seed + 2, d), covariance(seed + 3, d, d))
    mixture = MixtureDenoiser(torch.tensor([1.0, 2.0]), [gaussian, EmpiricalDenoiser(data)])
    for denoiser in (EmpiricalDenoiser(data), gaussian, mixture):
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            denoiser.log_density(point[None], level(sigma)).sum(), point
        )
        close(gradient, (denoiser(x[None], level(sigma))[0] - x) / sigma**2)


@given(seeds, dims, sigmas)
def test_densities_are_normalised(seed: int, d: int, sigma: float) -> None:
    mean, cov = normal(seed, d), covariance(seed + 1, d, d)
    x, data = normal(seed + 2, 4, d), normal(seed + 3, 3, d)
    close(
        GaussianDenoiser(mean, cov).log_density(x, level(sigma)),
        slow.gaussian_log_density(mean, cov, x, sigma),
    )
    zero = torch.zeros(d, d)
    parts = torch.stack([slow.gaussian_log_density(y, zero, x, sigma) for y in data])
    expected = parts.logsumexp(0) - math.log(3)
    close(EmpiricalDenoiser(data).log_density(x, level(sigma)), expected)


@given(st.integers(1, 8), seeds, sigmas)
def test_population_spectrum_in_closed_form(m: int, seed: int, sigma: float) -> None:
    variances = normal(seed, m).exp()
    plane = LinearManifold(variances, 8, rotation(seed + 1, 8)[:, :m])
    J = DenoiserJacobian(plane.population_denoiser(), normal(seed + 2, 8), level(sigma))
    known = (variances / (variances + sigma**2)).sort(descending=True).values
    expected = torch.cat([known, torch.zeros(8 - m)])
    close(spectrum(J, Dense()).nodes[0], expected)
    assert spectrum(J, Dense()).trace().value == pytest.approx(float(expected.sum()), abs=1e-10)


# --------------------------------------- E|D - x_0|²/sigma² = E tr dD/dx, by direction


def averaged(
    denoiser: Denoiser, data: Tensor, sigma: float, U: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    r"""E (u·(D - x_0))²/sigma² and E u·(dD/dx)u over noised points, by quadrature."""
    z, weights = slow.noise_grid(data.shape[1], step)
    errors, dimensions = torch.zeros(U.shape[1]), torch.zeros(U.shape[1])
    for x_0 in data:
        x = x_0 + sigma * z
        errors += weights @ ((denoiser(x, level(sigma)) - x_0) @ U).square() / sigma**2
        dimensions += weights @ jacobian_diagonal(denoiser, x, level(sigma), U)
    return errors / len(data), dimensions / len(data)


# Nodes .1 apart against poles pi sigma / (4 max |x_i|) or further away: below 1e-10.
@settings(max_examples=8)
@given(seeds, st.integers(1, 6), st.floats(0.5, 3.0))
def test_errors_are_dimensions_direction_by_direction(seed: int, n: int, sigma: float) -> None:
    data = normal(seed, n, 2).clamp(-2, 2)
    U = torch.cat([rotation(seed + 1, 2), normal(seed + 2, 2, 1)], dim=1)
    errors, dimensions = averaged(EmpiricalDenoiser(data), data, sigma, U, step=0.1)
    close(errors, dimensions, 1e-9)


@settings(max_examples=10)
@given(seeds, st.floats(0.1, 3.0))
def test_errors_are_dimensions_for_a_mixture(seed: int, sigma: float) -> None:
    means, deviations = 2 * normal(seed, 3), normal(seed + 1, 3).abs() + 0.2
    prior = normal(seed + 2, 3).softmax(0)
    denoiser = MixtureDenoiser(
        prior,
        [GaussianDenoiser(m[None], v[None]) for m, v in zip(means, deviations**2, strict=True)],
    )
    z, weights = slow.noise_grid(2, 0.1)  # one axis for the clean point, one for the noise
    error, dimension = torch.zeros(()), torch.zeros(())
    for p, m, s in zip(prior, means, deviations, strict=True):
        x_0 = m + s * z[:, :1]
        x = x_0 + sigma * z[:, 1:]
        error += p * weights @ (denoiser(x, level(sigma)) - x_0).square()[:, 0] / sigma**2
        dimension += p * weights @ denoiser.jacobian_diagonal(x, level(sigma), torch.eye(1))[:, 0]
    close(error, dimension, 1e-8)


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_errors_are_dimensions_in_eight_dimensions(sigma: float) -> None:
    # No quadrature in 8 dimensions: 20,000 draws, fixed beforehand; the two sides are paired
    # at each draw, and 8 differences of 4 standard errors fail by chance once in 2,000.
    d, draws = 8, 20_000
    factors = [normal(k, d, d) / d**0.5 for k in range(3)]
    means = [2 * normal(10 + k, d) for k in range(3)]
    parts = [GaussianDenoiser(m, f @ f.T) for m, f in zip(means, factors, strict=True)]
    denoiser = MixtureDenoiser(torch.ones(3), parts)
    which = torch.arange(draws) % 3
    x_0 = torch.stack(means)[which]
    x_0 = x_0 + torch.einsum("bde,be->bd", torch.stack(factors)[which], normal(20, draws, d))
    x = x_0 + sigma * normal(21, draws, d)
    errors = ((denoiser(x, level(sigma)) - x_0) / sigma).square()
    difference = errors - denoiser.jacobian_diagonal(x, level(sigma), torch.eye(d))
    stderr = difference.std(0) / math.sqrt(draws)
    assert float((difference.mean(0) / stderr).abs().max()) < 4
    assert float((stderr / errors.mean(0)).max()) < 0.05  # the comparison says something


# ----------------------------------------------------- the budget of N points is ln N

# One dimension: neighbours are 1 to 2 apart, N at most 5. Below sigma = 1/14 a wrong
# neighbour has 7 standard deviations against it (1e-11); D's poles are then .22 from the
# axis, and nodes .03 apart are exact to exp(-47).
LOWEST, HIGHEST = 1 / 14, 1e3


def line_of_points(gaps: list[float]) -> tuple[Tensor, EmpiricalDenoiser]:
    data = torch.tensor([0.0, *gaps]).cumsum(0)[:, None]
    return data, EmpiricalDenoiser(data)


def mean_error(data: Tensor, denoiser: Denoiser, sigma: float) -> float:
    z, weights = slow.noise_grid(1, 0.03)
    x_0 = data.repeat_interleave(len(z), 0)
    errors = (denoiser(x_0 + sigma * z.repeat(len(data), 1), level(sigma)) - x_0).square()
    return float(weights.repeat(len(data)) @ errors[:, 0]) / len(data) / sigma**2


def mean_entropy(data: Tensor, denoiser: EmpiricalDenoiser, sigma: float) -> float:
    z, weights = slow.noise_grid(1, 0.03)
    x = data.repeat_interleave(len(z), 0) + sigma * z.repeat(len(data), 1)
    return float(
        weights.repeat(len(data)) @ denoiser.posterior(x, level(sigma)[None]).entropy[0]
    ) / len(data)


@settings(max_examples=4)
@given(st.lists(st.floats(1.0, 2.0), min_size=1, max_size=4))
def test_n_points_have_ln_n_nats(gaps: list[float]) -> None:
    data, denoiser = line_of_points(gaps)
    spent = slow.integrate(
        lambda u: mean_error(data, denoiser, math.exp(u)), math.log(LOWEST), math.log(HIGHEST)
    )
    # Above the highest level the error is the variance, up to a relative variance/sigma².
    spent += float(data.var(correction=0)) / (2 * HIGHEST**2)
    assert spent == pytest.approx(math.log(len(data)), abs=1e-8)


@settings(max_examples=4)
@given(
    st.lists(st.floats(1.0, 2.0), min_size=1, max_size=4),
    st.floats(math.log(LOWEST), 0.5),
    st.floats(0.5, 2.0),
)
def test_down_to_a_level_the_budget_is_ln_n_minus_entropy(
    gaps: list[float], low: float, width: float
) -> None:
    data, denoiser = line_of_points(gaps)
    spent = slow.integrate(
        lambda u: mean_error(data, denoiser, math.exp(u)), low, low + width, 0.25
    )
    left = [mean_entropy(data, denoiser, math.exp(u)) for u in (low, low + width)]
    assert spent == pytest.approx(left[1] - left[0], abs=1e-8)
    assert mean_entropy(data, denoiser, HIGHEST) == pytest.approx(math.log(len(data)), abs=1e-4)
    assert mean_entropy(data, denoiser, LOWEST) < 1e-8


def test_points_in_a_plane_have_ln_n_nats() -> None:
    data = torch.tensor([[0.0, 0.0], [1.5, 0.2], [-0.3, 1.4], [1.2, 1.7]])
    denoiser, directions = EmpiricalDenoiser(data), torch.eye(2)

    def density(u: float) -> float:
        return float(averaged(denoiser, data, math.exp(u), directions, 0.2)[0].sum())

    # From .25 upwards, where nodes .2 apart are good to 1e-7 (poles .35 or further away).
    z, weights = slow.noise_grid(2, 0.2)
    x = (data[:, None] + 0.25 * z).reshape(-1, 2)
    entropy = denoiser.posterior(x, level(0.25)[None]).entropy[0].reshape(4, -1) @ weights
    spent = slow.integrate(density, math.log(0.25), math.log(100.0), 1.0)
    spent += float(data.var(0, correction=0).sum()) / (2 * 100.0**2)
    assert spent == pytest.approx(math.log(4) - float(entropy.mean()), abs=1e-6)


# ------------------------------------------- the error identity, for any denoiser at all


@settings(max_examples=10)
@given(seeds, st.floats(0.05, 3.0))
def test_error_residual_and_dimension_for_any_denoiser(seed: int, sigma: float) -> None:
    d = 2
    network, x_0 = slow.random_network(seed, d), normal(seed + 1, d)
    U = rotation(seed + 2, d)
    z, weights = slow.noise_grid(d, 0.25)  # tanh of order one: entire enough for 1e-9
    x = x_0 + sigma * z
    with torch.no_grad():
        D = network(x, level(sigma))
    error = weights @ ((D - x_0) @ U).square()
    residual = weights @ ((D - x) @ U).square()
    dimension = weights @ jacobian_diagonal(network, x, level(sigma), U)
    close(error, residual + 2 * sigma**2 * dimension - sigma**2, 1e-8)
    close(weights @ ((z @ U) * ((D - x_0) @ U)), sigma * dimension, 1e-8)  # Stein
    assert float((dimension.sum() - 1).abs()) > 1e-6  # and it is not trivially 1 or 0


# ---------------------------------------------------- what symmetries of the data must do


def answers(data: Tensor, x: Tensor, sigma: float) -> Posterior:
    return EmpiricalDenoiser(data).posterior(x[None], level(sigma)[None])


def same_counts(one: Posterior, other: Posterior) -> None:
    close(one.participation, other.participation)
    close(one.entropy, other.entropy)


@given(seeds, sizes, dims, sigmas)
def test_rotating_the_data_rotates_the_denoiser(seed: int, n: int, d: int, sigma: float) -> None:
    data, x = points(seed, n, d, sigma)
    Q = rotation(seed + 2, d)
    before, after = answers(data, x, sigma), answers(data @ Q.T, Q @ x, sigma)
    close(after.mean, before.mean @ Q.T)
    close(after.log_partition, before.log_partition)
    same_counts(before, after)


@given(seeds, sizes, dims, sigmas, st.floats(-3, 3).map(math.exp), st.floats(-5, 5))
def test_rescaling_and_moving_the_data(
    seed: int, n: int, d: int, sigma: float, scale: float, shift: float
) -> None:
    data, x = points(seed, n, d, sigma)
    before = answers(data, x, sigma)
    after = answers(scale * data + shift, scale * x + shift, scale * sigma)
    close(after.mean, scale * before.mean + shift)
    close(after.log_partition, before.log_partition)  # distances in units of the noise
    same_counts(before, after)


@given(seeds, sizes, dims, sigmas)
def test_the_order_of_the_data_does_not_matter(seed: int, n: int, d: int, sigma: float) -> None:
    data, x = points(seed, n, d, sigma)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    before, after = answers(data, x, sigma), answers(data[order], x, sigma)
    close(after.mean, before.mean)
    close(after.log_partition, before.log_partition)
    same_counts(before, after)
    weights = [EmpiricalDenoiser(y).log_weights(x[None], level(sigma)) for y in (data, data[order])]
    close(weights[1].exp(), weights[0][:, order].exp())


@given(seeds, sizes, dims, sigmas, st.integers(2, 4))
def test_duplicating_all_points_adds_nothing_but_ln_k(
    seed: int, n: int, d: int, sigma: float, k: int
) -> None:
    data, x = points(seed, n, d, sigma)
    before, after = answers(data, x, sigma), answers(data.repeat(k, 1), x, sigma)
    close(after.mean, before.mean)
    close(after.log_partition, before.log_partition + math.log(k))
    close(after.participation, before.participation / k)
    close(after.effective_points, before.effective_points * k)
    close(after.entropy, before.entropy + math.log(k))


# ------------------------------------------------------------------------------- limits


@given(seeds, sizes, dims)
def test_far_above_the_data_only_the_mean_is_left(seed: int, n: int, d: int) -> None:
    data, x = normal(seed, n, d), normal(seed + 1, d)
    # D - mean = Cov (x - mean) / sigma² + ...: below 1e-12 at sigma = 1e7.
    far = answers(data, x, 1e7)
    close(far.mean[0, 0], data.mean(0), 1e-12)
    close(far.entropy, torch.full((1, 1), math.log(n)), 1e-12)
    close(far.effective_points, torch.full((1, 1), float(n)), 1e-12)


@given(seeds, sizes, dims)
def test_far_below_the_data_a_training_point_is_itself(seed: int, n: int, d: int) -> None:
    # Points of a lattice, so that none is nearer than 1: the next weight is exp(-5000).
    data = (10 * normal(seed, n, d)).round().unique(dim=0)
    for sigma in (1e-2, 1e-6):
        for k in range(min(len(data), 3)):
            here = answers(data, data[k], sigma)
            close(here.mean[0, 0], data[k], 1e-14)
            assert float(here.entropy) == 0
            assert float(here.participation) == 1
            J = DenoiserJacobian(EmpiricalDenoiser(data), data[k], level(sigma))
            # Cov_w vanishes; centring leaves an ulp of the mean, over sigma² where derived.
            close(spectrum(J, Dense()).nodes[0], torch.zeros(d), 1e-12)


# --------------------------------------- batches, chunks and parts: to rounding, not bits

# BLAS sums in another order when a matrix has another shape, so results agree to rounding
# and not bit for bit: a few eps times distance²/2sigma², which is below 1e-12 here.
ROUNDING = 1e-11


@given(seeds, st.integers(2, 40), dims, sigmas, st.integers(1, 40))
def test_the_chunk_size_changes_rounding_only(
    seed: int, n: int, d: int, sigma: float, chunk_size: int
) -> None:
    data = normal(seed, n, d)
    x = data[:2] + sigma * normal(seed + 1, 2, d)
    levels = level(sigma) * torch.tensor([0.5, 1.0, 3.0])
    whole = EmpiricalDenoiser(data, n).posterior(x, levels)
    parts = EmpiricalDenoiser(data, chunk_size).posterior(x, levels)
    for name in ("mean", "log_partition", "participation", "entropy"):
        close(getattr(parts, name), getattr(whole, name), ROUNDING)
    indices = [EmpiricalDenoiser(data, c).weights(x, level(sigma), 2)[0] for c in (n, chunk_size)]
    assert torch.equal(*indices)


@given(seeds, sizes, dims, sigmas)
def test_the_batch_and_the_levels_change_rounding_only(
    seed: int, n: int, d: int, sigma: float
) -> None:
    data = normal(seed, n, d)
    x = normal(seed + 1, 5, d)
    levels = level(sigma) * torch.tensor([0.5, 1.0, 3.0])
    denoiser = EmpiricalDenoiser(data)
    together = denoiser.posterior(x, levels)
    gaussian = GaussianDenoiser(normal(seed + 2, d), covariance(seed + 3, d, d))
    mixture = MixtureDenoiser(torch.ones(2), [gaussian, denoiser])
    for k, s in enumerate(levels):
        for b in range(len(x)):
            alone = denoiser.posterior(x[b : b + 1], s[None])
            close(together.mean[k, b], alone.mean[0, 0], ROUNDING)
            close(together.log_partition[k, b], alone.log_partition[0, 0], ROUNDING)
        for exact in (denoiser, gaussian, mixture):
            close(exact(x, s), torch.cat([exact(p[None], s) for p in x]), ROUNDING)
            close(exact(x, s.expand(5)), exact(x, s), ROUNDING)
    columns = levels[:, None] * torch.linspace(1, 2, 5)  # (T, B): one level a query
    each = denoiser.posterior(x, columns)
    for k, b in np.ndindex(3, 5):
        close(each.mean[k, b], denoiser(x[b : b + 1], columns[k, b])[0], ROUNDING)


@given(seeds, dims, sigmas, st.integers(1, 3))
def test_chunks_of_columns_change_rounding_only(
    seed: int, d: int, sigma: float, chunk_size: int
) -> None:
    network, x, V = slow.random_network(seed, d), normal(seed + 1, d), normal(seed + 2, d, 4)
    all_at_once = DenoiserJacobian(network, x, level(sigma), chunk_size=None)
    in_chunks = DenoiserJacobian(network, x, level(sigma), chunk_size=chunk_size)
    close(in_chunks.matmat(V), all_at_once.matmat(V), ROUNDING)
    close(in_chunks.rmatmat(V), all_at_once.rmatmat(V), ROUNDING)


@given(seeds, dims, sigmas)
def test_posteriors_merge_in_any_order_and_grouping(seed: int, d: int, sigma: float) -> None:
    data, x = normal(seed, 9, d), normal(seed + 1, 2, d)
    levels = level(sigma) * torch.tensor([0.3, 2.0])
    a, b, c = (
        EmpiricalDenoiser(part).posterior(x, levels) for part in torch.split(data, [1, 3, 5])
    )
    whole = EmpiricalDenoiser(data).posterior(x, levels)
    ways = [a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b), b.merge(a.merge(c))]
    for way in ways:
        for name in ("mean", "log_partition", "participation", "entropy"):
            close(getattr(way, name), getattr(whole, name), ROUNDING)
    singles = [EmpiricalDenoiser(y[None]).posterior(x, levels) for y in data]
    close(reduce(Posterior.merge, singles).entropy, whole.entropy, ROUNDING)
