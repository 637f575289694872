r"""Every parametrization of one known denoiser is that denoiser; blocks are independent."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.checks import admit
from geomem.denoiser import (
    Denoiser,
    ExactDenoiser,
    Prediction,
    ProductDenoiser,
    ScheduledDenoiser,
    expand,
    is_exact,
    score,
)
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser
from geomem.manifolds import QuadratureDenoiser, Sphere
from geomem.manifolds.squiggles import Squiggle
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


VP: list[Schedule] = [VariancePreserving(), DiscreteBetas.linear(), DiscreteBetas.scaled_linear()]
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


# ------------------------------------------------------------- what networks return


class Output(dict):  # type: ignore[type-arg]
    r"""As the outputs of diffusers: a dictionary, an object and a tuple in one."""

    @property
    def sample(self) -> Tensor:
        found: Tensor = self["sample"]
        return found


RETURNED: dict[str, Callable[[Tensor], object]] = {
    "an output object": lambda y: Output(sample=y),
    "an object": lambda y: SimpleNamespace(sample=y),
    "a tuple": lambda y: (y,),
    "a longer tuple": lambda y: (y, None),
    "a list": lambda y: [y],
}


@pytest.mark.parametrize("kind", RETURNED)
def test_what_a_network_returns_is_unwrapped(kind: str) -> None:
    x, sigma = normal(0, 3, D), level(0.7)
    network = backbone(FlowMatching(), "flow")
    plain = ScheduledDenoiser(network, FlowMatching(), "flow")
    wrapped = ScheduledDenoiser(lambda x, t: RETURNED[kind](network(x, t)), FlowMatching(), "flow")
    assert torch.equal(wrapped(x, sigma), plain(x, sigma))


@pytest.mark.parametrize("output", [None, (), ("text",), {}, SimpleNamespace(sample=None), 3.0])
def test_what_is_no_prediction(output: object) -> None:
    denoiser = ScheduledDenoiser(lambda x, t: output, EDM(), "clean")
    with pytest.raises(InputError, match=r"the network returned a .* `sample`"):
        denoiser(torch.zeros(1, 2), level(1.0))


def test_a_unet_of_diffusers_is_a_backbone() -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet: Any = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    unet.eval()
    x, betas = torch.randn(2, 1, 8, 8), DiscreteBetas.linear()
    with torch.no_grad():
        denoised = ScheduledDenoiser(unet, betas, "noise")(x, 1.5)
        by_hand = ScheduledDenoiser(lambda x, t: unet(x, t).sample, betas, "noise")(x, 1.5)
    assert torch.equal(denoised, by_hand)
    assert denoised.shape == x.shape


# ---------------------------------------------------------------- levels as they come

MIXED = MixtureDenoiser(torch.ones(2), [GAUSSIAN, EmpiricalDenoiser(normal(5, 9, D))])
DENOISERS: dict[str, Denoiser] = {
    "scheduled": ScheduledDenoiser(backbone(EDM(), "noise"), EDM(), "noise"),
    "Gaussian": GAUSSIAN,
    "empirical": EmpiricalDenoiser(normal(5, 9, D)),
    "mixture": MIXED,
    "quadrature": QuadratureDenoiser(normal(5, 9, D), torch.ones(9)),
    "sphere": Sphere(2, D).population_denoiser(),
}


@pytest.mark.parametrize("name", DENOISERS)
def test_a_level_may_be_a_number(name: str) -> None:
    x, denoiser = normal(2, 3, D), DENOISERS[name]
    expected = denoiser(x, level(0.7))
    for sigma in (0.7, [0.7] * 3, np.float64(0.7), level(0.7)[None], level(0.7).expand(3)):
        close = denoiser(x, sigma)  # type: ignore[arg-type]
        torch.testing.assert_close(close, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize(
    "sigma", [-1.0, 0.0, math.nan, math.inf, [0.7, 0.7], None, "a", 1j, [0.7, -1.0, 0.7]]
)
def test_what_is_no_level_of_a_denoiser(name: str, sigma: object) -> None:
    for asked in (sigma, torch.tensor(sigma) if isinstance(sigma, float) else sigma):
        with pytest.raises(InputError, match=r"sigma|noise levels"):
            DENOISERS[name](normal(2, 3, D), asked)  # type: ignore[arg-type]


# ---------------------------------------------------------------- who is exact


class Flow(torch.nn.Module):
    r"""A normalizing flow: it knows its density, and is a network all the same."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x.flatten(1).sum(1)

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor, directions: Tensor) -> Tensor:
        return torch.zeros(len(x), directions.shape[1])


def test_what_can_answer_is_not_exact_for_that() -> None:
    flow = Flow()
    assert not is_exact(flow)
    with pytest.raises(InputError, match="component 0 is a Flow and no exact denoiser"):
        MixtureDenoiser(torch.ones(1), [flow])  # type: ignore[list-item]
    with pytest.warns(UserWarning, match="same answer at two points"):  # so it is checked, too
        admit(flow, torch.zeros(3), torch.tensor(1.0))
    flow.exact = True  # type: ignore[assignment]
    assert is_exact(flow)
    assert not is_exact(SimpleNamespace(exact=True))  # who says so must answer


@pytest.mark.parametrize("name", [n for n in DENOISERS if n != "scheduled"])
def test_exact_denoisers_say_so_and_know_their_derivative(name: str) -> None:
    denoiser = DENOISERS[name]
    assert isinstance(denoiser, ExactDenoiser)
    assert is_exact(denoiser)
    x, U = 0.5 * normal(2, 3, D), normal(3, D, 2)
    for sigma in (0.3, 1.0):
        found = denoiser.jacobian_diagonal(x, level(sigma), U)
        J = torch.stack([slow.jacobian(denoiser, q, level(sigma)) for q in x])
        expected = torch.einsum("dn,bde,en->bn", U, J, U)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
        # and Tweedie's formula: the density is that of the same law
        q = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(denoiser.log_density(q, level(sigma)).sum(), q)
        torch.testing.assert_close(slope, score(denoiser, x, sigma), rtol=1e-7, atol=1e-8)


def test_a_sphere_and_a_chart_know_their_derivative_far_and_near() -> None:
    sphere, x = Sphere(3, 9, radius=2.0).population_denoiser(), torch.zeros(2, 9).double()
    x[1, 0] = 2.1
    chart = Squiggle(1, 9).population_denoiser()
    for sigma in (0.01, 0.4, 5.0):
        for denoiser in (sphere, chart):
            found = denoiser.jacobian_diagonal(x, level(sigma), torch.eye(9).double())
            expected = [slow.jacobian(denoiser, q, level(sigma)).diagonal() for q in x]
            torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["Gaussian", "empirical", "mixture"])
def test_directions_have_a_row_for_each_coordinate(name: str) -> None:
    for bad in (torch.eye(D + 1), torch.ones(D), None):
        with pytest.raises(InputError, match=rf"`directions` is .* of shape \({D}, n\)"):
            DENOISERS[name].jacobian_diagonal(normal(2, 3, D), 0.7, bad)  # type: ignore[attr-defined]
