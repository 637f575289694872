r"""What a reviewer tried on the exact denoiser: each case was wrong once, or a test let it pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, Streamed, one_pass
from geomem.operators import Matrix
from tests import references as slow
from tests.references import level, normal

SIGMAS = torch.tensor([0.3, 1.0, 5.0], dtype=torch.float64)


# -------------------------------------------------------------------- the certified bound


def shell(n: int, tolerance: float) -> Tensor:
    r"""One point at the origin and n - 1 just beyond what is kept at sigma = 1."""
    directions = torch.nn.functional.normalize(normal(0, n - 1, 6), dim=1)
    radius = math.sqrt(2 * (math.log(n / tolerance) + 0.5))
    return torch.cat([torch.zeros(1, 6).double(), radius * directions])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_a_shell_attains_the_bound(tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass, "_CHEAP", 0)  # else more points are kept than needed
    data = shell(5000, tolerance)
    answer = EmpiricalDenoiser(data, tolerance=tolerance).posterior(data[:1], level(1.0)[None])
    logits = -data.square().sum(1) / 2
    lost = float((logits.logsumexp(0) - answer.log_partition[0, 0]).expm1())
    bound = float(answer.dropped[0, 0])
    assert lost > tolerance / 2  # the case is hard
    assert lost <= bound <= 1.01 * lost
    assert bound <= tolerance


def test_the_bound_of_a_union_is_that_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass, "_CHEAP", 0)
    data = shell(5000, 1e-2)
    denoiser = EmpiricalDenoiser(data, tolerance=1e-2, chunk_size=1000)
    answer = denoiser.posterior(data[:1], level(1.0)[None])
    logits = -data.square().sum(1) / 2
    lost = float((logits.logsumexp(0) - answer.log_partition[0, 0]).expm1())
    assert 0 < lost <= float(answer.dropped[0, 0])


def test_what_is_lifted_counts_as_left_out() -> None:
    # In float32 no weight is below 2^-62 of the largest: the bound says so.
    data = normal(0, 2000, 8).float()
    answer = EmpiricalDenoiser(data).posterior(data[:3], torch.tensor([3.0]))
    least = 2000 * 2.0**-62 / answer.log_partition.exp().max()
    assert bool((answer.dropped >= 0.5 * least).all())


# ------------------------------------------------- clusters far from the centre of the data


def clusters(sigma: float, d: int = 8) -> tuple[Tensor, Tensor]:
    r"""Two clusters, at +30 and -30, of 700 points 2 sigma apart; queries among them."""
    here = 30 * torch.nn.functional.normalize(normal(0, d), dim=0)
    steps = torch.nn.functional.normalize(normal(1, 700, d), dim=1)
    points = here + 2 * sigma * steps.cumsum(0)
    return torch.cat([points, -points]), (points[:3] + points[1:4]) / 2


def visible_rounding(data: Tensor, q: Tensor, sigma: float) -> float:
    r"""What float64 leaves in the exponents of points that can be seen."""
    energies = (data - q).square().sum(1) / (2 * sigma**2)
    return 8 * slow_eps() * float(energies[energies < energies.min() + 60].max())


def slow_eps() -> float:
    return float(torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("sigma", [1e-6, 1e-3])
def test_clusters_far_from_the_centre(sigma: float) -> None:
    # A product's rounding is 30² eps / sigma² = .2 in the exponents; differences leave nothing.
    data, x = clusters(sigma)
    denoiser = EmpiricalDenoiser(data)
    answers = [
        denoiser.posterior(x, level(sigma)[None]),
        denoiser.path(x, torch.zeros_like(x), level(sigma)[None]),
    ]
    for answer in answers:
        for b, q in enumerate(x):
            known = slow.posterior(data, q, sigma)
            r = visible_rounding(data, q, sigma)
            assert r < 1e-9
            for name in ("log_partition", "participation", "entropy"):
                assert abs(float(getattr(answer, name)[0, b]) - float(known[name])) < 1e-6 + r
    index, _ = denoiser.neighbours(x, 2)
    assert sorted(index[0].tolist()) == [0, 1]


def test_neighbours_of_float32_clusters_and_their_covariance() -> None:
    data, x = (t.float() for t in clusters(1e-3))
    sigma = 1e-3
    operator = EmpiricalDenoiser(data).covariance(x[0], level(sigma))
    expected = slow.weighted_covariance(data, x[0], sigma)
    torch.testing.assert_close(operator.dense(), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "spread", "far", "sigma"),
    [((900, 4), 1.0, 1e6, 1e6), ((50, 40), 1.0, 1e6, 1e6), ((900, 4), 1e-3, 1e3, 1.0)],
)
def test_covariance_at_a_query_that_is_far_away(
    shape: tuple[int, int], spread: float, far: float, sigma: float
) -> None:
    data, x = spread * normal(0, *shape), far * normal(1, shape[1])
    for chunk_size in (None, 7):
        operator = EmpiricalDenoiser(data, chunk_size).covariance(x, level(sigma))
        assert isinstance(operator, Matrix)
        expected = slow.weighted_covariance(data, x, sigma)
        error = float((operator.dense() - expected).abs().max() / expected.abs().max())
        assert error < 1e-6  # float64's own limit is 1e-9 here


# ---------------------------------------------------------------- what callers have switched on


def test_low_precision_around_us_stays_outside() -> None:
    data, x = normal(0, 600, 5).float(), normal(1, 9, 5).float()
    denoiser = EmpiricalDenoiser(data)
    calls: list[Callable[[], Tensor]] = [
        lambda: denoiser.posterior(x, SIGMAS).mean,
        lambda: denoiser.path(x, x, SIGMAS).mean,
        lambda: denoiser.neighbours(x, 5)[0],
        lambda: denoiser.covariance(x[0], level(0.5)).dense(),
        lambda: denoiser.weights(x, level(0.5), 3)[1],
    ]
    plain = [call() for call in calls]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [call() for call in calls]
    for a, b in zip(plain, inside, strict=True):
        assert torch.equal(a, b)


def test_queries_that_want_gradients_get_answers() -> None:
    data = normal(0, 300, 4).requires_grad_()
    x = normal(1, 3, 4).requires_grad_()
    denoiser = EmpiricalDenoiser(data)
    assert denoiser.neighbours(x, 2)[0].shape == (3, 2)
    assert denoiser.weights(x, level(0.5), 2)[1].shape == (3, 2)
    assert not denoiser.path(x, x, SIGMAS).mean.requires_grad
    assert denoiser.posterior(x, SIGMAS).mean.requires_grad


def test_forward_derivatives_are_the_covariance() -> None:
    data, x, v = normal(0, 300, 4), normal(1, 4), normal(2, 4)
    denoiser = EmpiricalDenoiser(data)
    expected = slow.weighted_covariance(data, x, 0.5) @ v / 0.25
    pushed = torch.func.jvp(lambda y: denoiser(y[None], level(0.5))[0], (x,), (v,))[1]
    torch.testing.assert_close(pushed, expected, rtol=0, atol=1e-9)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, v)
        answer = torch.autograd.forward_ad.unpack_dual(denoiser(dual[None], level(0.5))[0])
    torch.testing.assert_close(answer.tangent, expected, rtol=0, atol=1e-9)


# ----------------------------------------------------------------------------- extreme sizes


@pytest.mark.parametrize("size", [1e-18, 1e18])
def test_sizes_at_which_squares_are_no_float32(size: float) -> None:
    data, x = normal(0, 1000, 6), normal(1, 2, 6)
    denoiser = EmpiricalDenoiser((size * data).float())
    answer = denoiser.posterior((size * x).float(), size * SIGMAS)
    known = EmpiricalDenoiser(data).posterior(x, SIGMAS)
    # float32 data are rounded to 6e-8 of themselves, at most 30 of the smallest level.
    for name in ("participation", "entropy"):
        a, b = getattr(answer, name), getattr(known, name)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [1e-170, 1e170])
def test_levels_that_cannot_be_squared_are_refused(sigma: float) -> None:
    with pytest.raises(InputError, match="rescale"):
        EmpiricalDenoiser(normal(0, 5, 2)).posterior(normal(1, 1, 2), level(sigma)[None])


# --------------------------------------------------------------------------- shapes and files


def test_no_queries_get_no_answers() -> None:
    denoiser, nobody = EmpiricalDenoiser(normal(0, 5, 2, 3)), torch.empty(0, 2, 3).double()
    assert denoiser.posterior(nobody, SIGMAS).mean.shape == (3, 0, 2, 3)
    assert denoiser.path(nobody, nobody, SIGMAS).entropy.shape == (3, 0)
    assert denoiser(nobody, level(1.0)).shape == (0, 2, 3)
    assert denoiser.neighbours(nobody, 2)[0].shape == (0, 2)


def test_data_that_do_not_lie_in_a_row() -> None:
    data = normal(0, 6, 500).T
    whole = EmpiricalDenoiser(data.contiguous()).posterior(normal(1, 2, 6), SIGMAS)
    turned = EmpiricalDenoiser(data).posterior(normal(1, 2, 6), SIGMAS)
    torch.testing.assert_close(turned.mean, whole.mean, rtol=0, atol=1e-12)
    backwards = EmpiricalDenoiser(data.numpy()[::-1])
    torch.testing.assert_close(
        backwards.posterior(normal(1, 2, 6), SIGMAS).mean, whole.mean, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_is_one_file(kind: type, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", normal(0, 5, 3).numpy())
    assert EmpiricalDenoiser(kind(tmp_path / "a.npy")).num_samples == 5


def test_an_array_that_was_changed_in_memory_is_taken_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", normal(0, 50, 3).numpy())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    mapped += 5
    denoiser = EmpiricalDenoiser(mapped)
    assert float(denoiser(torch.full((1, 3), 5.0), level(1e3)).mean()) == pytest.approx(5, abs=0.5)
    from geomem.compute.local import LocalExecutor

    with pytest.raises(InputError, match="pass the path"):
        denoiser.posterior(torch.zeros(1, 3), SIGMAS, executor=LocalExecutor(2))


def test_empty_blocks_of_a_stream_are_skipped() -> None:
    data = normal(0, 9, 3)
    parts = [data[:4], data[4:4], data[4:]]
    stream = EmpiricalDenoiser(Streamed(lambda: iter(parts), 9))
    whole = EmpiricalDenoiser(data).posterior(normal(1, 2, 3), SIGMAS)
    answer = stream.posterior(normal(1, 2, 3), SIGMAS).mean
    torch.testing.assert_close(answer, whole.mean, rtol=0, atol=1e-12)


HOLE = normal(0, 60, 3)
HOLE[20, 1] = math.nan
ASKED: dict[str, Callable[[EmpiricalDenoiser, Tensor], object]] = {
    "posterior": lambda d, x: d.posterior(x, SIGMAS),
    "gradient": lambda d, x: d(x.clone().requires_grad_(), level(1.0)),
    "path": lambda d, x: d.path(x, x, SIGMAS),
    "log_weights": lambda d, x: d.log_weights(x, level(1.0)),
    "jacobian_diagonal": lambda d, x: d.jacobian_diagonal(x, level(1.0), torch.eye(3).double()),
    "neighbours": lambda d, x: d.neighbours(x, 2),
    "covariance": lambda d, x: d.covariance(x[0], level(1.0)),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_hole_in_a_file_is_found_whatever_is_asked(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "hole.npy", HOLE.numpy())
    denoiser = EmpiricalDenoiser(tmp_path / "hole.npy", chunk_size=10)
    with pytest.raises(InputError, match="NaN"):
        ASKED[name](denoiser, normal(1, 2, 3))


POINTS = normal(0, 5, 3)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "integers": (lambda: EmpiricalDenoiser(POINTS).posterior(POINTS.long(), SIGMAS), "floats"),
    "complex data": (lambda: EmpiricalDenoiser(torch.zeros(2, 2) + 1j), "complex"),
    "no chunk": (lambda: EmpiricalDenoiser(POINTS, 0), "chunk_size"),
    "negative chunk": (lambda: EmpiricalDenoiser(POINTS, -1), "chunk_size"),
    "half": (lambda: EmpiricalDenoiser(POINTS, dtype=torch.bfloat16), "float32 or torch.float64"),
    "two levels": (
        lambda: EmpiricalDenoiser(POINTS).covariance(POINTS[0], torch.ones(2)),
        "one level",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_is_refused(name: str) -> None:
    call, says = BAD[name]
    with pytest.raises(InputError, match=says):
        call()
