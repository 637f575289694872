r"""Solid balls against the noncentral chi-square law; the lollipop against its own sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.special import chndtr
from torch import Tensor

from geomem.dimension import LocalDimension, NoGap
from geomem.errors import InputError
from geomem.manifolds.balls import Ball, Lollipop
from geomem.manifolds.curved import Sphere
from geomem.manifolds.squiggles import Union
from geomem.operators import DenoiserJacobian, jacobian_diagonal
from tests.references import level, normal


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dim", [1, 2, 3, 16])
@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.5, 3.0])
def test_a_ball_is_a_noncentral_chi_square(dim: int, sigma: float) -> None:
    # P(|y + sigma z| < R) = F_m(R²/sigma²; |y|²/sigma²), and D = y F_{m+2} / F_m. The errors of
    # scipy's F are up to 5e-8, ours are 1e-13.
    ball = Ball(dim, dim + 3, 0.7, seed=1)
    x = ball.sample(5, rng_of(0)) + sigma * normal(1, 5, dim + 3)
    y = ball.embedding.inside(x)
    far = (y.norm(dim=1) / sigma).square().numpy()
    F, above = (torch.from_numpy(chndtr((0.7 / sigma) ** 2, m, far)) for m in (dim, dim + 2))
    denoiser, t = ball.population_denoiser(), level(sigma)
    found = denoiser(x, t) - ball.embedding.place((above / F)[:, None] * y)
    assert float(found.abs().max()) < 1e-7 * max(1.0, sigma)
    log_volume = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1) + dim * math.log(0.7)
    outside = ball.embedding.outside(x) / (2 * sigma**2) + 3 * math.log(sigma * math.tau**0.5)
    torch.testing.assert_close(
        denoiser.log_density(x, t), F.log() - log_volume - outside, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("dim", [1, 2, 200])
@pytest.mark.parametrize("sigma", [1e-6, 0.3, 1e3])
def test_it_is_finite_far_away_and_at_the_centre(dim: int, sigma: float) -> None:
    ball = Ball(dim, dim + 1)
    x = torch.zeros(3, dim + 1).double()
    x[1, 0], x[2, 0] = 1.0, 50.0
    found = ball.population_denoiser()(x, level(sigma))
    assert bool(torch.isfinite(found).all())
    assert float(found[0].norm()) == 0
    assert float(found.norm(dim=1).max()) <= 1 + 1e-12
    if sigma == 1e-6:  # what lies outside goes to the rim
        torch.testing.assert_close(found[2, 0], torch.tensor(1.0).double(), rtol=0, atol=1e-5)
    assert bool(torch.isfinite(ball.population_denoiser().log_density(x, level(sigma))).all())


@pytest.mark.filterwarnings("ignore:the denoiser gives the same answer")  # a point does
@pytest.mark.parametrize("dim", [0, 1, 2, 5])
def test_the_diagonal_is_that_of_derivatives(dim: int) -> None:
    ball = Ball(dim, 7, centre=normal(3, 1, 7)[0], seed=2)
    x, t, U = ball.sample(3, rng_of(0)) + 0.3 * normal(1, 3, 7), level(0.3), normal(2, 7, 4)
    denoiser = ball.population_denoiser()
    for point, found in zip(x, denoiser.jacobian_diagonal(x, t, U), strict=True):
        dense = DenoiserJacobian(lambda a, s: denoiser(a, s), point, t).dense()
        torch.testing.assert_close(found, (U * (dense @ U)).sum(0), rtol=0, atol=1e-10)
    assert jacobian_diagonal(denoiser, x, t, U).shape == (3, 4)


def test_a_ball_is_filled_evenly() -> None:
    ball = Ball(3, 5, 2.0, centre=torch.tensor([1.0, 0, 0, 0, 0]), seed=0)
    x = ball.sample(20_000, rng_of(0))
    share = (ball.embedding.inside(x).norm(dim=1) < 1).double().mean()  # (1/2)³
    assert float(share) == pytest.approx(1 / 8, abs=4 * (7 / 64 / 20_000) ** 0.5)
    spread = ball.embedding.inside(x).square().mean()
    assert float(spread) == pytest.approx(ball.variance, rel=0.02)
    assert float(ball.distance(x).max()) < 1e-12
    basis = ball.tangent(x[:2])
    torch.testing.assert_close(basis.mT @ basis, torch.eye(3).double().expand(2, -1, -1))


def test_distances_to_a_ball() -> None:
    ball = Ball(2, 3)
    x = torch.tensor([[0.5, 0, 0], [2.0, 0, 0], [0, 4.0, 4.0], [0, 0, 3.0]]).double()
    assert ball.distance(x).tolist() == pytest.approx([0, 1, 5, 3])
    assert Ball(0, 3).distance(x).tolist() == pytest.approx(x.norm(dim=1).tolist())


def test_a_thick_shell_of_balls_is_a_sphere() -> None:
    # In 400 dimensions all of a ball lies near its rim: both denoisers agree to 1/m.
    ball, sphere = Ball(400, 400), Sphere(399, 400)
    x = sphere.sample(3, rng_of(0)) + 0.1 * normal(1, 3, 400)
    found = [M.population_denoiser()(x, level(0.1)) for M in (ball, sphere)]
    torch.testing.assert_close(*found, rtol=0, atol=2e-3)


# --------------------------------------------------------------------------- the lollipop


def test_the_lollipop_has_three_dimensions() -> None:
    lollipop = Lollipop(5, seed=3)
    x = lollipop.sample(3500, rng_of(0))
    counts = lollipop.dimension_at(x).bincount() / 3500  # dot, stick, candy
    for found, share in zip(counts.tolist(), (1 / 7, 2 / 7, 4 / 7), strict=True):
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / 3500) ** 0.5)
    assert (lollipop.dim, lollipop.ambient_dim) == (2, 5)
    assert lollipop.tangent(x[lollipop.dimension_at(x) == 0]).shape[1:] == (5, 0)
    with pytest.raises(InputError, match="group them"):
        lollipop.tangent(x)


def test_it_lies_where_kamkari_put_it() -> None:
    x = Lollipop().sample(2000, rng_of(0))
    dims = Lollipop().dimension_at(x)
    candy, stick, dot = (x[dims == m] for m in (2, 1, 0))
    assert float((candy - 3).norm(dim=1).max()) <= 1
    assert float(dot.abs().max()) == 0
    torch.testing.assert_close(stick[:, 0], stick[:, 1])
    rim = 3 - 0.5**0.5
    assert 1.5 <= float(stick.min()) < 1.51
    assert rim - 0.01 < float(stick.max()) <= rim


def test_its_denoiser_is_the_posterior_mean() -> None:
    # 200,000 points; 5 standard errors, over 6 points and 2 coordinates.
    lollipop, sigma = Lollipop(), 0.4
    x = lollipop.sample(6, rng_of(1)) + sigma * normal(2, 6, 2)
    points = lollipop.sample(200_000, rng_of(3))
    for point, found in zip(x, lollipop.population_denoiser()(x, level(sigma)), strict=True):
        w = (-(point - points).square().sum(1) / (2 * sigma**2)).softmax(0)
        mean = w @ points
        stderr = (w.square() @ (points - mean).square()).sqrt()
        assert bool(((found - mean).abs() <= 5 * stderr + 1e-12).all())


def test_local_dimension_knows_candy_and_stick_and_that_a_dot_keeps_none() -> None:
    lollipop = Lollipop(12, seed=0)
    denoiser, t = lollipop.population_denoiser(), level(0.01)
    frame = lollipop.parts[0].tangent(torch.zeros(1, 12).double())[0]
    for place, kept in ((3.0, 2), (1.9, 1), (0.0, 0)):
        x = frame @ torch.tensor([place, place]).double() + 0.01 * normal(7, 12)
        found = LocalDimension()(denoiser, x, t)
        assert (found.kept if isinstance(found, NoGap) else found.value) == kept


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Ball(3, 2), "do not fit"),
        (lambda: Ball(-1, 2), "dim"),
        (lambda: Ball(1, 2, 0.0), "radius"),
        (lambda: Ball(1, 2, centre=torch.zeros(3)), "`centre` has shape"),
        (lambda: Ball(1, 2, basis=torch.ones(2, 1)), "orthonormal"),
        (lambda: Lollipop(1), "ambient_dim"),
        (lambda: Lollipop(radius=2.5), "radius"),
        (lambda: Lollipop(weights=(1.0, 2.0)), "one weight above 0 for each"),
        (lambda: Union([Ball(1, 2), Ball(1, 3)]), "one ambient"),
    ],
)
def test_what_is_no_ball(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.full((1, 2), math.nan)])
def test_what_is_no_point(bad: Tensor) -> None:
    with pytest.raises(InputError, match="point"):
        Lollipop().population_denoiser()(bad, level(1.0))
