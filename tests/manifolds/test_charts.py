r"""Charted manifolds: quadrature against Monte Carlo, itself and closed forms; tangents."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.manifolds.charts import ChartManifold, HiddenManifold, RingTorus, SwissRoll
from geomem.manifolds.curved import Sphere
from geomem.manifolds.quadrature import Axis, ChartDenoiser, Embedding, QuadratureDenoiser
from geomem.manifolds.squiggles import Squiggle, Union, reference_denoiser
from geomem.operators import DenoiserJacobian
from geomem.subspaces import principal_angles
from tests.references import level, normal

ZOO: dict[str, ChartManifold] = {
    "ring": RingTorus(6, seed=1),
    "roll": SwissRoll(5, seed=1),
    "hidden 1": HiddenManifold(1, 8),
    "hidden 2": HiddenManifold(2, 8, features=6),
    "curve": Squiggle(1, 9, features=5),
    "surface": Squiggle(2, 9, features=6),
}
each = pytest.mark.parametrize("manifold", ZOO.values(), ids=ZOO.keys())


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(manifold: ChartManifold | Union, sigma: float, count: int = 3) -> tuple[Tensor, Tensor]:
    x_0 = manifold.sample(count, rng_of(1))
    return x_0, x_0 + sigma * normal(2, count, manifold.ambient_dim)


# ----------------------------------------------------------------- weights on few nodes


def test_equal_weights_are_the_empirical_denoiser() -> None:
    data, x = normal(0, 20, 3), normal(1, 5, 3)
    ours, theirs = QuadratureDenoiser(data, torch.ones(20)), EmpiricalDenoiser(data)
    for sigma in (1e-3, 0.5, 20.0):
        torch.testing.assert_close(ours(x, level(sigma)), theirs(x, level(sigma)))
        logs = ours.log_density(x, level(sigma)), theirs.log_density(x, level(sigma))
        torch.testing.assert_close(*logs, rtol=1e-9, atol=1e-9)


def test_a_weight_is_so_many_copies() -> None:
    data, x = normal(0, 4, 3), normal(1, 5, 3)
    counts = torch.tensor([1, 3, 2, 0])
    ours = QuadratureDenoiser(data, counts.double())
    copies = EmpiricalDenoiser(data.repeat_interleave(counts, dim=0))
    torch.testing.assert_close(ours(x, level(0.7)), copies(x, level(0.7)))


def test_gauss_hermite_nodes_are_a_gaussian() -> None:
    import numpy as np

    # 60 nodes of exp(-t²): D of a Gaussian of variance v is v x / (v + sigma²).
    t, w = np.polynomial.hermite.hermgauss(60)
    v, x = 0.5, torch.linspace(-1, 1, 7).double()[:, None]
    nodes = torch.from_numpy(t)[:, None] * (2 * v) ** 0.5
    found = QuadratureDenoiser(nodes, torch.from_numpy(w))(x, level(1.0))
    torch.testing.assert_close(found, v * x / (v + 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("nodes", "weights", "says"),
    [
        (torch.zeros(0, 2), torch.zeros(0), "one weight each"),
        (torch.zeros(3, 2), torch.ones(2), "one weight each"),
        (torch.zeros(3, 2), torch.zeros(3), "all 0"),
        (torch.zeros(3, 2), torch.tensor([1.0, -1, 1]), "negative"),
        (torch.full((3, 2), math.nan), torch.ones(3), "finite"),
    ],
)
def test_what_are_no_nodes(nodes: Tensor, weights: Tensor, says: str) -> None:
    with pytest.raises(InputError, match=says):
        QuadratureDenoiser(nodes, weights)


# ---------------------------------------------------------- quadrature over a chart


def test_a_line_of_a_normal_parameter_is_gaussian() -> None:
    # y = (z, 2 z): the one chart whose denoiser is known, to the quadrature's accuracy.
    axis, F = Axis(-8.5, 8.5, 64), torch.tensor([[1.0, 2.0]]).double()
    line = ChartDenoiser(
        lambda z: z @ F, lambda z: -(z[:, 0] ** 2) / 2, [axis], Embedding.of(2, 5, seed=0)
    )
    exact = GaussianDenoiser.from_factor(torch.zeros(5).double(), line.embedding.frame @ F.T)
    for sigma in (1e-4, 0.1, 1.0, 30.0):
        x = sigma * normal(0, 4, 5) + line.embedding.place(normal(1, 4, 1) @ F)
        found, t = line(x, level(sigma)), level(sigma)
        assert float((found - exact(x, t)).abs().max()) < 1e-7 * sigma  # e^(-2 pi²) = 3e-9
        torch.testing.assert_close(
            line.log_density(x, t), exact.log_density(x, t), rtol=0, atol=1e-6
        )


def test_a_circle_by_quadrature_is_the_closed_form() -> None:
    circle = Sphere(1, 2)
    chart = ChartDenoiser(
        lambda t: torch.cat([t.cos(), t.sin()], dim=1),
        lambda t: 0 * t[:, 0],
        [Axis(0, math.tau, 64)],
        circle.embedding,
    )
    for sigma in (1e-5, 0.05, 0.5, 10.0):
        x, t = circle.sample(5, rng_of(0)) + sigma * normal(1, 5, 2), level(sigma)
        exact = circle.population_denoiser()
        assert float((chart(x, t) - exact(x, t)).abs().max()) < 1e-6 * sigma
        torch.testing.assert_close(
            chart.log_density(x, t), exact.log_density(x, t), rtol=0, atol=1e-6
        )


@each
@pytest.mark.parametrize("sigma", [1e-5, 0.03, 0.3, 3.0])
def test_the_stated_accuracy(manifold: ChartManifold, sigma: float) -> None:
    _, x = noisy(manifold, sigma, 2)
    assert float(manifold.population_denoiser().error(x, level(sigma)).max()) < 1e-6


@each
def test_it_is_the_posterior_mean(manifold: ChartManifold) -> None:
    # 100,000 points; 5 standard errors, over 3 points and up to 9 coordinates.
    sigma = 0.4
    _, x = noisy(manifold, sigma)
    points = manifold.sample(100_000, rng_of(3))
    for point, found in zip(x, manifold.population_denoiser()(x, level(sigma)), strict=True):
        w = (-(point - points).square().sum(1) / (2 * sigma**2)).softmax(0)
        mean = w @ points
        stderr = (w.square() @ (points - mean).square()).sqrt()
        assert bool(((found - mean).abs() <= 5 * stderr + 1e-12).all())


@each
@pytest.mark.parametrize("sigma", [1e-4, 0.2, 1.0])
def test_the_jacobian_is_a_covariance(manifold: ChartManifold, sigma: float) -> None:
    x_0, x = noisy(manifold, sigma, 1)
    J = DenoiserJacobian(manifold.population_denoiser(), x[0], level(sigma))
    dense = J.dense()
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-8)
    torch.testing.assert_close(J.matmat(torch.eye(J.size).double()), dense, rtol=0, atol=1e-8)
    values, vectors = torch.linalg.eigh(dense)
    assert float(values.min()) > -1e-8
    if sigma == 1e-4:
        m = manifold.dim
        assert int((values > 0.5).sum()) == m
        angles = principal_angles(vectors[:, -m:], manifold.tangent(x_0)[0])
        assert float(angles.max()) < 100 * sigma  # curvature turns it by about sigma / radius


# ---------------------------------------------------------------------------- geometry


@each
def test_tangents_are_finite_differences(manifold: ChartManifold) -> None:
    theta = manifold.sample_parameters(3, rng_of(4))
    steps = 1e-5 * torch.eye(manifold.dim).double()
    moved = [(manifold.points(theta + s) - manifold.points(theta - s)) / 2e-5 for s in steps]
    torch.testing.assert_close(
        manifold.derivatives(theta), torch.stack(moved, dim=2), rtol=1e-6, atol=1e-8
    )
    basis = manifold.tangent_at(theta)
    identity = torch.eye(manifold.dim).double().expand(3, -1, -1)
    torch.testing.assert_close(basis.mT @ basis, identity, rtol=0, atol=1e-12)


@each
def test_points_know_their_parameters(manifold: ChartManifold) -> None:
    x_0 = manifold.sample(50, rng_of(5))
    assert x_0.dtype == torch.float64
    assert float(manifold.distance(x_0).max()) < 1e-6
    again = manifold.tangent(x_0)
    assert again.shape == (50, manifold.ambient_dim, manifold.dim)


def test_the_ring_is_uniform_in_area() -> None:
    # Mean of cos v under (R + r cos v): r / 2R; its variance is below 1/2.
    ring = RingTorus(3, 1.0, 0.4)
    v = ring.sample_parameters(20_000, rng_of(0))[:, 1]
    assert float(v.cos().mean()) == pytest.approx(0.2, abs=4 * (0.5 / 20_000) ** 0.5)


def test_the_roll_ends() -> None:
    x = SwissRoll(3).sample(1000, rng_of(0))
    radius = x[:, [0, 2]].norm(dim=1)
    assert 1 / 3 <= float(radius.min()) <= float(radius.max()) <= 1
    assert float(x[:, 1].abs().max()) <= 1


def test_high_dimension_by_a_reference_sample() -> None:
    hidden = HiddenManifold(6, 20)
    with pytest.raises(InputError, match="reference_denoiser"):
        hidden.population_denoiser()
    basis = hidden.tangent(hidden.sample(2, rng_of(1)))
    assert basis.shape == (2, 20, 6)
    # Where quadrature is in reach, the reference's stated accuracy covers the distance to it.
    small, sigma = HiddenManifold(2, 8, features=6), level(0.5)
    denoiser, error = reference_denoiser(small, 40_000, rng_of(0))
    _, x = noisy(small, 0.5, 8)
    away = (denoiser(x, sigma) - small.population_denoiser()(x, sigma)).norm(dim=1) / sigma
    assert 0.3 < float(away.mean() / error(x, sigma).mean()) < 3
    assert float(away.max()) < 0.05


# ----------------------------------------------------------------- unequal dimension


def test_a_union_has_a_dimension_at_each_point() -> None:
    curve, surface = Squiggle(1, 9, features=5), Squiggle(2, 9, features=5, centre=2.0, seed=9)
    union = Union([curve, surface], [1.0, 3.0])
    x_0 = union.sample(400, rng_of(0))
    which = union.part_at(x_0)
    assert float(which.double().mean()) == pytest.approx(0.75, abs=4 * (0.1875 / 400) ** 0.5)
    assert torch.equal(union.dimension_at(x_0), which + 1)
    with pytest.raises(InputError, match="group them"):
        union.tangent(x_0)
    on_curve = x_0[which == 0]
    torch.testing.assert_close(union.tangent(on_curve), curve.tangent(on_curve))
    denoiser, sigma = union.population_denoiser(), level(1e-3)
    for k, dim in ((0, 1), (1, 2)):
        x = x_0[which == k][0] + 1e-3 * normal(k, 9)
        values = torch.linalg.eigvalsh(DenoiserJacobian(denoiser, x, sigma).dense())
        assert int((values > 0.5).sum()) == dim
    # Far away, at large noise, the mixture returns the mean of both: .75 of the second centre.
    far = denoiser(torch.zeros(1, 9).double(), level(1e4))
    mean = union.sample(20_000, rng_of(2)).mean(0)
    torch.testing.assert_close(far[0], mean, rtol=0, atol=4 * (2 / 20_000) ** 0.5)


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RingTorus(5, 1.0, 1.0), "tube < ring"),
        (lambda: RingTorus(2), "do not fit"),
        (lambda: SwissRoll(2), "do not fit"),
        (lambda: HiddenManifold(9, 8), "dim <= 8"),
        (lambda: HiddenManifold(0, 8), "1 <= dim"),
        (lambda: Squiggle(3, 9), "dim 1 or 2"),
        (lambda: Squiggle(2, 9, features=4), "features"),
        (lambda: Squiggle(1, 4, features=5), "do not fit"),
        (lambda: Union([]), "at least one"),
        (lambda: Union([Squiggle(1, 9), Squiggle(1, 8)]), "one ambient"),
        (lambda: Union([Squiggle(1, 9)], [0.0]), "weight above 0"),
        (lambda: reference_denoiser(Sphere(1, 2), 1, rng_of(0)), "two halves"),
    ],
)
def test_what_is_no_manifold(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.full((1, 5), math.nan)])
def test_what_is_no_point(bad: Tensor) -> None:
    roll = SwissRoll(5)
    with pytest.raises(InputError, match="point"):
        roll.population_denoiser()(bad, level(1.0))
    with pytest.raises(InputError, match="point"):
        roll.tangent(bad)
