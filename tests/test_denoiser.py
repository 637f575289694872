r"""Every parametrization of one known denoiser is that denoiser; blocks are independent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geomem.denoiser import Prediction, ProductDenoiser, ScheduledDenoiser, expand, score
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.noise import (
    EDM,
    DiscreteBetas,
    FlowMatching,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)
from tests import references as slow
from tests.references import level, normal, rotation

D = 4
FACTOR = normal(0, D, D)
MEAN = normal(1, D)
GAUSSIAN = GaussianDenoiser(MEAN, FACTOR @ FACTOR.T)


def backbone(schedule: Schedule, prediction: Prediction) -> Callable[[Tensor, Tensor], Tensor]:
    r"""The perfect network of a prediction, from E[x_0 | x_t] and E[z | x_t] alone.

    x_t = alpha_t x_0 + sigma_t z is Gaussian; both means by linear algebra in x_t itself, so
    that nothing here divides by alpha as the library does.
    """

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        rows = []
        for x, time in zip(x_t, t, strict=True):
            alpha, sigma = schedule.alpha(time), schedule.alpha(time) * schedule.level(time)
            cov = alpha**2 * FACTOR @ FACTOR.T + sigma**2 * torch.eye(D, dtype=torch.float64)
            whitened = torch.linalg.solve(cov, x - alpha * MEAN)
            clean, noise = MEAN + alpha * FACTOR @ FACTOR.T @ whitened, sigma * whitened
            rows.append(
                {
                    "clean": clean,
                    "noise": noise,
                    "score": -whitened,  # gradient of the Gaussian log-density of x_t
                    "velocity": alpha * noise - sigma * clean,
                    "flow": noise - clean,
                }[prediction]
            )
        return torch.stack(rows)

    return predict


VP = [VariancePreserving(), DiscreteBetas.linear(), DiscreteBetas.scaled_linear()]
ALL: list[Schedule] = [*VP, VarianceExploding(0.01, 50.0), EDM(), FlowMatching()]
CASES: list[tuple[Schedule, Prediction]] = [
    *((s, p) for s in ALL for p in ("clean", "noise", "score")),
    *((s, "velocity") for s in VP),
    (FlowMatching(), "flow"),
]


@pytest.mark.parametrize(
    ("schedule", "prediction"), CASES, ids=[f"{type(s).__name__}-{p}" for s, p in CASES]
)
def test_every_parametrization_is_the_same_denoiser(
    schedule: Schedule, prediction: Prediction
) -> None:
    denoiser = ScheduledDenoiser(backbone(schedule, prediction), schedule, prediction)
    x = 3 * normal(2, 3, D)
    for sigma in (0.05, 0.5, 5.0):
        expected = GAUSSIAN(x, level(sigma))
        torch.testing.assert_close(denoiser(x, level(sigma)), expected, rtol=0, atol=1e-10)
    # A level for each point, in one call.
    sigmas = torch.tensor([0.05, 0.5, 5.0], dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, sigmas), GAUSSIAN(x, sigmas), rtol=0, atol=1e-10)


def test_the_network_is_told_its_own_time_and_scale() -> None:
    seen = {}

    def spy(x_t: Tensor, t: Tensor) -> Tensor:
        seen["x"], seen["t"] = x_t, t
        return torch.zeros_like(x_t)

    x = torch.ones(2, 1, 3, 3)
    ScheduledDenoiser(spy, DiscreteBetas.linear(), "noise")(x, DiscreteBetas.linear().levels[400])
    assert seen["t"].tolist() == pytest.approx([400, 400], abs=1e-3)
    expected = float((1 + DiscreteBetas.linear().levels[400] ** 2) ** -0.5)
    assert seen["x"].flatten().tolist() == pytest.approx([expected] * 18)
    assert seen["x"].dtype == torch.float32


def test_score_by_tweedie() -> None:
    x, sigma = normal(2, 3, D), 0.7
    cov = FACTOR @ FACTOR.T + sigma**2 * torch.eye(D, dtype=torch.float64)
    expected = -torch.linalg.solve(cov, (x - MEAN).T).T
    torch.testing.assert_close(score(GAUSSIAN, x, level(sigma)), expected, rtol=0, atol=1e-10)
    sigmas = torch.tensor([0.7, 0.7, 0.7], dtype=torch.float64)
    torch.testing.assert_close(score(GAUSSIAN, x, sigmas), expected, rtol=0, atol=1e-10)


def test_expand() -> None:
    x = torch.zeros(3, 2, 4, 4)
    assert expand(torch.tensor(1.0), x).shape == (1, 1, 1, 1)
    assert expand(torch.ones(3), x).shape == (3, 1, 1, 1)


# --------------------------------------------------------------------------- blocks

BLOCKS = [[3, 0], [2], [5, 1, 4]]  # scrambled on purpose


def variances(index: list[int]) -> Tensor:
    return torch.tensor([2.0, 1.0, 0.5, 0.1, 1e-3, 0.0], dtype=torch.float64)[index]


def product(basis: Tensor | None) -> ProductDenoiser:
    parts = [(i, GaussianDenoiser(torch.zeros(len(i)), variances(i))) for i in BLOCKS]
    return ProductDenoiser(parts, basis)


@pytest.mark.parametrize("rotated", [False, True])
def test_gaussian_blocks_are_one_gaussian(rotated: bool) -> None:
    Q = rotation(0, 6) if rotated else torch.eye(6, dtype=torch.float64)
    whole = GaussianDenoiser(torch.zeros(6), Q * variances(list(range(6))) @ Q.T)
    x = normal(1, 5, 6)
    denoised = product(Q if rotated else None)(x, level(0.4))
    torch.testing.assert_close(denoised, whole(x, level(0.4)), rtol=0, atol=1e-12)
    images = product(Q if rotated else None)(x.reshape(5, 1, 2, 3), level(0.4))
    torch.testing.assert_close(images.flatten(1), denoised, rtol=0, atol=0)


@pytest.mark.parametrize("rotated", [False, True])
def test_only_one_block_remembers(rotated: bool) -> None:
    Q = rotation(0, 6) if rotated else torch.eye(6, dtype=torch.float64)
    data = normal(2, 8, 6) @ Q  # in the coordinates of the basis
    memory = EmpiricalDenoiser(data[:, [3, 0]])
    population = GaussianDenoiser(torch.zeros(4), torch.ones(4))
    denoiser = ProductDenoiser([([3, 0], memory), ([1, 2, 4, 5], population)], Q)
    x, sigma = normal(3, 6), level(0.3)
    J = Q.T @ slow.jacobian(denoiser, x, sigma) @ Q
    expected = torch.eye(6, dtype=torch.float64) / 1.09
    block = slow.weighted_covariance(data[:, [3, 0]], (x @ Q)[[3, 0]], 0.3) / 0.09
    expected[[[3], [0]], [3, 0]] = block
    torch.testing.assert_close(J, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("blocks", [[[0, 1], [1, 2]], [[0], [2]], [[0, 1], [3]], [[1, 2]]])
def test_blocks_must_be_a_partition(blocks: list[list[int]]) -> None:
    with pytest.raises(InputError, match="exactly once"):
        ProductDenoiser([(i, lambda x, sigma: x) for i in blocks])


def test_a_product_refuses_what_it_cannot_multiply() -> None:
    keep = lambda x, sigma: x  # noqa: E731
    with pytest.raises(InputError, match="orthonormal"):
        ProductDenoiser([([0, 1], keep)], basis=2 * torch.eye(2))
    with pytest.raises(InputError, match="3 coordinates and the blocks hold 2"):
        ProductDenoiser([([0, 1], keep)])(torch.zeros(1, 3), torch.tensor(1.0))
