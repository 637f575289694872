r"""Exact denoisers where numbers are hardest: float32, large d, tiny sigma, bad data.

The bound on weights: float64 leaves a few eps of the largest squared distance in each
exponent, so r = 8 eps max|x - x_i|² / 2 sigma² is what no float64 code can avoid, brute force
included; weights must be within 1e-6 + r in total variation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser, gaussian
from geomem.exact.mixture import MixtureDenoiser
from geomem.operators import DenoiserJacobian
from geomem.spectra import singular_values
from tests import references as slow
from tests.references import level, normal

EPS = torch.finfo(torch.float64).eps


def total_variation(weights: Tensor, known: slow.Array) -> float:
    return float((weights.cpu() - torch.from_numpy(known)).abs().sum()) / 2


# ------------------------------------------------------- float32 images at small noise


def midpoints(n: int, d: int, sigma: float) -> tuple[Tensor, Tensor]:
    r"""A chain of points 2 sigma apart, far from the origin, and the points half-way."""
    start, step = normal(0, d).clamp(-1, 1), normal(1, n, d)
    step = 2 * sigma * step / step.norm(dim=1, keepdim=True)
    chain = (start + step.cumsum(0)).float()
    middle = (chain[:-1].double() + chain[1:].double()) / 2
    return chain, middle.float()


def plain_weights(data: Tensor, x: Tensor, sigma: float) -> Tensor:
    r"""What everybody writes first: one matrix product, in the dtype of the data."""
    squares = x.square().sum(1, keepdim=True) + data.square().sum(1) - 2 * x @ data.T
    return (-squares / (2 * sigma**2)).softmax(1)


def test_float32_images_at_small_noise(device: torch.device) -> None:
    data, x = (t.to(device) for t in midpoints(n=64, d=3072, sigma=1e-3))
    weights = EmpiricalDenoiser(data).log_weights(x, torch.tensor(1e-3, device=device)).exp()
    known = [slow.posterior(data.cpu(), q.cpu(), float(torch.tensor(1e-3))) for q in x]
    ours = [total_variation(w, k["weights"]) for w, k in zip(weights, known, strict=True)]
    assert max(ours) < 1e-6
    plain = plain_weights(data, x, 1e-3)
    theirs = [total_variation(w, k["weights"]) for w, k in zip(plain, known, strict=True)]
    assert max(theirs) > 0.1  # the case is hard: the usual way is lost here
    largest = torch.tensor([k["weights"].max() for k in known])
    assert 0.3 < float(largest.median()) < 0.7  # and it is a case of shared weights


@pytest.mark.parametrize("name", ["mean", "participation", "entropy", "log_partition"])
def test_float32_posterior_at_small_noise(name: str) -> None:
    data, x = midpoints(n=16, d=3072, sigma=1e-3)
    sigmas = torch.tensor([1e-3, 2e-3, 1.0])
    answer = getattr(EmpiricalDenoiser(data, chunk_size=5).posterior(x, sigmas), name)
    for k, sigma in enumerate(sigmas):
        known = np.stack([slow.posterior(data, q, float(sigma))[name] for q in x])
        # The mean comes back in float32, correctly rounded: half an ulp of numbers up to 2.
        tolerance = 2**-24 if name == "mean" else 1e-6
        assert np.abs(answer[k].double().numpy() - known).max() <= tolerance * 1.01
        assert answer.dtype == (torch.float32 if name == "mean" else torch.float64)


# ---------------------------------------------------------------- ugly sets of points


def clustered(n: int, d: int) -> Tensor:
    return 10 * normal(0, 2, d).repeat(n, 1)[:n] + 1e-3 * normal(1, n, d)


def near_duplicates(n: int, d: int) -> Tensor:
    return normal(0, 1, d) + 1e-9 * normal(1, n, d)


SETS: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: normal(0, 20, 6),
    "clustered": lambda: clustered(20, 6),
    "near duplicates": lambda: near_duplicates(20, 6),
    "duplicates": lambda: normal(0, 5, 6).repeat(4, 1),
    "offset": lambda: normal(0, 20, 6) + 1000,
    "offset float32": lambda: (normal(0, 20, 6) + 1000).float(),
    "constant": lambda: torch.full((7, 6), 3.0, dtype=torch.float64),
    "one point": lambda: normal(0, 1, 6),
    "one coordinate": lambda: normal(0, 20, 1),
    "one of each": lambda: normal(0, 1, 1),
    "an outlier": lambda: torch.cat([normal(0, 19, 6), torch.full((1, 6), 1e6)]),
    "images": lambda: normal(0, 9, 3, 2, 2),
}
LEVELS = [10.0**k for k in range(-6, 7)]


def queries(data: Tensor, sigma: float) -> Tensor:
    r"""Noised points, a point itself, one half-way, one nowhere near."""
    noised = data[:3] + sigma * normal(7, *data[:3].shape).to(data)
    half_way = (data[:1] + data[-1:]) / 2
    return torch.cat([noised, data[:1], half_way, data[:1] + 1e3])


@pytest.mark.parametrize("name", SETS)
def test_weights_of_ugly_sets_at_all_levels(name: str) -> None:
    data = SETS[name]()
    denoiser = EmpiricalDenoiser(data, chunk_size=8)
    for sigma in LEVELS:
        x = queries(data, sigma)
        weights = denoiser.log_weights(x, level(sigma)).exp()
        answer = denoiser.posterior(x, level(sigma)[None])
        for b, q in enumerate(x):
            known = slow.posterior(data, q, sigma)
            largest = float((data - q).double().flatten(1).square().sum(1).max())
            r = 8 * EPS * largest / (2 * sigma**2)
            assert total_variation(weights[b], known["weights"]) < 1e-6 + r
            assert abs(float(answer.participation[0, b]) - known["participation"]) < 2e-6 + 4 * r
        for part in (answer.mean, answer.log_partition, answer.participation, answer.entropy):
            assert bool(torch.isfinite(part).all())  # never NaN, not even far away
        assert bool((answer.entropy >= 0).all())
        assert bool((answer.entropy <= math.log(len(data)) + 1e-12).all())
        ulp = EPS if data.dtype == torch.float64 else float(torch.finfo(torch.float32).eps)
        slack = 8 * ulp * float(data.abs().max())
        inside = (answer.mean <= data.amax(0) + slack) & (answer.mean >= data.amin(0) - slack)
        assert bool(inside.all())  # a mean of points lies among them


@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 20),
    st.integers(1, 8),
    st.floats(-6, 6),
    st.floats(-4, 4),
    st.floats(-3, 3),
)
def test_weights_of_drawn_sets(
    seed: int, n: int, d: int, log_sigma: float, log_scale: float, log_offset: float
) -> None:
    sigma, scale = 10**log_sigma, 10**log_scale
    data = scale * normal(seed, n, d) + 10**log_offset
    x = data[:1] + sigma * normal(seed + 1, 1, d)
    known = slow.posterior(data, x[0], sigma)
    r = 8 * EPS * float((data - x).square().sum(1).max()) / (2 * sigma**2)
    weights = EmpiricalDenoiser(data).log_weights(x, level(sigma)).exp()
    assert total_variation(weights[0], known["weights"]) < 1e-6 + r


@pytest.mark.parametrize("name", SETS)
def test_jacobians_of_ugly_sets_are_finite_and_not_negative(name: str) -> None:
    data = SETS[name]().double()
    denoiser, d = EmpiricalDenoiser(data, chunk_size=8), data[0].numel()
    for sigma in LEVELS:
        x = queries(data, sigma)
        diagonal = denoiser.jacobian_diagonal(x, level(sigma), torch.eye(d))
        assert bool(torch.isfinite(diagonal).all())
        assert bool((diagonal >= 0).all())
        for b, q in enumerate(x):
            expected = slow.weighted_covariance(data, q, sigma).diagonal() / sigma**2
            largest = float((data - q).flatten(1).square().sum(1).max()) / (2 * sigma**2)
            # Weights are off by 1e-9 + r at most, and spreads by eps of the coordinates; both
            # enter a covariance of at most the squared spread of the data.
            spread = float((data - data[0]).flatten(1).square().sum(1).max()) / sigma**2
            tolerance = (1e-8 + 32 * EPS * largest) * spread
            assert float((diagonal[b] - expected).abs().max()) <= 1e-9 + tolerance


def test_neighbours_in_a_cluster_far_from_another_one() -> None:
    # Points 2 sigma apart at a distance of 30 from the mean, sigma = 1e-6: one product of
    # matrices, even in float64, leaves eps 30² / sigma² = .2 in the exponents, and E p² - (E p)²
    # as much in the variances. Explicit differences leave eps 30 / sigma = 7e-9 of them.
    sigma, d = 1e-6, 8
    u = torch.nn.functional.normalize(normal(1, d), dim=0)
    here = 30 * torch.nn.functional.normalize(normal(0, d), dim=0)
    pair = torch.stack([here - sigma * u, here + sigma * u])
    data = torch.cat([pair, -pair])
    x = here + sigma * torch.linspace(-0.5, 0.5, 5).double()[:, None] * u
    denoiser = EmpiricalDenoiser(data)
    weights = denoiser.log_weights(x, level(sigma)).exp()
    answer = denoiser.posterior(x, level(sigma)[None])
    diagonal = denoiser.jacobian_diagonal(x, level(sigma), u[:, None])
    for b, q in enumerate(x):
        known = slow.posterior(data, q, sigma)
        assert total_variation(weights[b], known["weights"]) < 1e-6
        assert float(answer.entropy[0, b]) == pytest.approx(float(known["entropy"]), abs=1e-6)
        expected = u @ slow.weighted_covariance(data, q, sigma) @ u / sigma**2
        assert float(diagonal[b, 0]) == pytest.approx(float(expected), abs=1e-6)


def test_duplicates_share_the_weight_of_their_point() -> None:
    data = normal(0, 5, 6).repeat(4, 1)
    weights = EmpiricalDenoiser(data).log_weights(data[:1], level(1e-4)).exp()[0]
    expected = torch.zeros(20, dtype=torch.float64)
    expected[::5] = 0.25
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-12)


def test_the_heaviest_points_come_first() -> None:
    data, x = normal(0, 30, 4), normal(1, 3, 4)
    denoiser = EmpiricalDenoiser(data, chunk_size=7)
    index, weights = denoiser.weights(x, level(0.7), k=5)
    for b, q in enumerate(x):
        known = slow.posterior(data, q, 0.7)["weights"]
        order = np.argsort(-known)[:5]
        assert index[b].tolist() == order.tolist()
        np.testing.assert_allclose(weights[b].numpy(), known[order], rtol=0, atol=1e-12)


def test_one_level_for_each_query() -> None:
    data, x, sigmas = normal(0, 9, 3), normal(1, 4, 3), torch.linspace(0.5, 2, 4)
    denoiser = EmpiricalDenoiser(data)
    for b, sigma in enumerate(sigmas):
        known = slow.posterior(data, x[b], float(sigma))["mean"]
        np.testing.assert_allclose(denoiser(x, sigmas)[b].numpy(), known, atol=1e-12)


# ------------------------------------------------------------------------ bad input


def one_sentence(text: str) -> bool:
    r"""One line, without a full stop in the middle; a semicolon leads to the next step."""
    return "\n" not in text and not re.search(r"\.\s+[A-Z]", text) and not text.endswith(".")


POINTS = normal(0, 3, 2)
NAN = torch.tensor([[math.nan, 0.0]], dtype=torch.float64)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "no points": (lambda: EmpiricalDenoiser(torch.empty(0, 2)), "empty"),
    "no coordinates": (lambda: EmpiricalDenoiser(torch.empty(3, 0)), "empty"),
    "NaN in the data": (lambda: EmpiricalDenoiser(NAN), "NaN"),
    "inf in the data": (lambda: EmpiricalDenoiser(POINTS / 0), "infinite"),
    "NaN in a query": (lambda: EmpiricalDenoiser(POINTS)(NAN, level(1.0)), "query"),
    "other shape": (lambda: EmpiricalDenoiser(POINTS)(normal(0, 1, 3), level(1.0)), "shape"),
    "sigma = 0": (lambda: EmpiricalDenoiser(POINTS)(POINTS, level(0.0)), "above 0"),
    "sigma < 0": (lambda: EmpiricalDenoiser(POINTS)(POINTS, level(-1.0)), "above 0"),
    "sigma NaN": (lambda: EmpiricalDenoiser(POINTS)(POINTS, level(math.nan)), "above 0"),
    "no level": (lambda: EmpiricalDenoiser(POINTS).posterior(POINTS, torch.empty(0)), "level"),
    "wrong columns": (
        lambda: EmpiricalDenoiser(POINTS).posterior(POINTS, torch.ones(2, 2)),
        "one column for each query",
    ),
    "k = 0": (lambda: EmpiricalDenoiser(POINTS).weights(POINTS, level(1.0), 0), "`k` is 0"),
    "k > N": (
        lambda: EmpiricalDenoiser(POINTS).weights(POINTS, level(1.0), 4),
        "`k` is 4; .* to 3",
    ),
    "covariance shape": (lambda: GaussianDenoiser(torch.zeros(2), torch.ones(3)), "shape"),
    "negative variance": (
        lambda: GaussianDenoiser(torch.zeros(2), torch.tensor([1.0, -1.0])),
        "positive semi-definite",
    ),
    "NaN variance": (
        lambda: GaussianDenoiser(torch.zeros(2), torch.tensor([1.0, math.nan])),
        "`covariance` holds NaN",
    ),
    "no symmetry": (
        lambda: GaussianDenoiser(torch.zeros(2), torch.tensor([[1.0, 5.0], [0.0, 1.0]])),
        "not symmetric",
    ),
    "NaN mean": (lambda: GaussianDenoiser(NAN[0], torch.eye(2)), "`mean` holds NaN"),
    "no Gaussian points": (
        lambda: GaussianDenoiser(torch.zeros(2), torch.eye(2))(torch.zeros(1, 3), 1.0),
        "2 coordinates a point",
    ),
    "factor of other length": (
        lambda: GaussianDenoiser.from_factor(torch.zeros(2), torch.ones(3, 1)),
        "3 rows for 2 coordinates",
    ),
    "negative weight": (
        lambda: MixtureDenoiser(torch.tensor([-1.0]), [EmpiricalDenoiser(POINTS)]),
        "`weights` holds -1",
    ),
    "no shards": (
        lambda: EmpiricalDenoiser(POINTS).posterior(POINTS, 1.0, shards=0),
        "`shards` is 0",
    ),
    "one point as a batch": (lambda: EmpiricalDenoiser(POINTS)(POINTS[0], 1.0), r"x\[None\]"),
    "a batch as one point": (
        lambda: EmpiricalDenoiser(POINTS).covariance(POINTS, 1.0),
        "pass one point of shape",
    ),
    "no tensor": (
        lambda: EmpiricalDenoiser(POINTS).posterior([1.0], 1.0),  # type: ignore[arg-type]
        "pass queries of shape",
    ),
    "one point to fit": (lambda: GaussianDenoiser.fit(POINTS[:1]), "two points"),
    "equal points to fit": (lambda: GaussianDenoiser.fit(torch.ones(5, 2)), "equal"),
    "NaN to fit": (lambda: GaussianDenoiser.fit(torch.cat([POINTS, NAN])), "`data` holds NaN"),
    "empty mixture": (lambda: MixtureDenoiser(torch.empty(0), []), "`weights` has shape"),
    "zero weight": (
        lambda: MixtureDenoiser(torch.tensor([0.0]), [EmpiricalDenoiser(POINTS)]),
        "above 0",
    ),
    "weight too many": (
        lambda: MixtureDenoiser(torch.ones(2), [EmpiricalDenoiser(POINTS)]),
        "one weight",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered_with_one_sentence(name: str) -> None:
    call, says = BAD[name]
    with pytest.raises(InputError, match=says) as raised:
        call()
    assert one_sentence(str(raised.value))
    assert raised.value.exit_status == 2


# -------------------------------------------------------------------------- Gaussians


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (2, 3)])
def test_the_linear_control_is_ledoit_wolf(n: int, d: int) -> None:
    from sklearn.covariance import LedoitWolf

    data = normal(0, n, d) * torch.linspace(0.2, 3, d) + 5
    fitted = LedoitWolf().fit(data.numpy())
    x, sigma = normal(1, 4, d) + 5, 0.7
    mean, cov = torch.from_numpy(fitted.location_), torch.from_numpy(fitted.covariance_)
    control = GaussianDenoiser.fit(data)
    for q, ours in zip(x, control(x, level(sigma)), strict=True):
        expected, _ = slow.gaussian_posterior(mean, cov, q, sigma)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    expected = slow.gaussian_log_density(mean, cov, x, sigma)
    torch.testing.assert_close(control.log_density(x, level(sigma)), expected, rtol=0, atol=1e-8)
    U = normal(2, d, 3)
    _, posterior = slow.gaussian_posterior(mean, cov, x[0], sigma)
    expected = (U * (posterior @ U)).sum(0).expand(4, -1) / sigma**2
    diagonal = control.jacobian_diagonal(x, level(sigma), U)
    torch.testing.assert_close(diagonal, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("low_rank", [False, True])
def test_of_wide_images_it_is_so_too_at_a_fraction_of_the_time(low_rank: bool) -> None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    n, d = 12, gaussian.WIDE + 100
    data = normal(0, n, 3) @ normal(1, 3, d) if low_rank else normal(0, n, d)
    flat = (data - data.mean(0)).numpy()
    shrinkage, mean_variance = ledoit_wolf_shrinkage(flat, assume_centered=True), (flat**2).mean()
    control = GaussianDenoiser.fit(data)
    # A direction that no image has keeps the share of the identity alone.
    assert control.rest == pytest.approx(shrinkage * mean_variance, rel=1e-9, abs=1e-12)
    total = float(control.variances.sum()) + control.complement * control.rest
    assert total == pytest.approx(d * mean_variance)


def test_a_factor_and_its_covariance_are_the_same_gaussian() -> None:
    F, mean, x = normal(0, 6, 2), normal(1, 6), normal(2, 4, 6)
    one, other = GaussianDenoiser.from_factor(mean, F), GaussianDenoiser(mean, F @ F.T)
    torch.testing.assert_close(one(x, level(0.3)), other(x, level(0.3)), rtol=0, atol=1e-12)
    J = DenoiserJacobian(one, x[0], level(1e-6))
    # A singular covariance stays singular: normal directions are gone at every level.
    assert float((singular_values(J) - torch.tensor([1.0] * 2 + [0.0] * 4)).abs().max()) < 1e-9


def test_items_keep_their_shape_and_dtype() -> None:
    data = normal(0, 9, 3, 2, 2).float()
    for denoiser in (EmpiricalDenoiser(data), GaussianDenoiser.fit(data)):
        denoised = denoiser(data, torch.tensor(0.5))
        assert denoised.shape == data.shape
        assert denoised.dtype == torch.float32
