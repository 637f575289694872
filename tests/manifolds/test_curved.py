r"""Spheres and flat tori: closed forms against Bessel functions, Monte Carlo and each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ive
from torch import Tensor

from geomem.denoiser import ProductDenoiser
from geomem.errors import InputError
from geomem.manifolds.curved import Sphere, SphereDenoiser, Torus, bessel_ratio
from geomem.manifolds.quadrature import Embedding
from geomem.operators import DenoiserJacobian
from geomem.subspaces import principal_angles
from tests import references as slow
from tests.references import level, normal, rotation

sizes = st.sampled_from([2, 3, 5, 20, 300])
sigmas = st.floats(-4, 3).map(math.exp)


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -------------------------------------------------------------------- Bessel functions


@given(sizes, st.floats(-5, 11).map(math.exp))
def test_the_ratio_is_that_of_bessel_functions(size: int, kappa: float) -> None:
    below = ive(size / 2 - 1, kappa)
    if below < 1e-250:  # SciPy's underflow
        return
    expected = ive(size / 2, kappa) / below / kappa
    # SciPy's own Bessel functions are good to 1e-11 in the worst corner seen here.
    assert float(bessel_ratio(level(kappa), size)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", [2, 3, 100, 5000])
@pytest.mark.parametrize("kappa", [1e-9, 1e-2, 1.0, 30.0, 3e3, 1e6, 1e10, 1e13])
def test_the_ratio_solves_its_differential_equation(size: int, kappa: float) -> None:
    # A' = 1 - A² - (p - 1) A / kappa: it names the function together with A(0) = 0.
    point = level(kappa).requires_grad_()
    ratio = bessel_ratio(point, size)
    (slope,) = torch.autograd.grad(ratio, point)
    A = kappa * float(ratio.detach())
    left = float(ratio.detach()) + kappa * float(slope)
    # 1 - A² cancels at large kappa: a few eps, and A loses digits like p's sums do.
    assert left == pytest.approx(1 - A**2 - (size - 1) / kappa * A, abs=3e-14)


def test_on_the_sphere_in_three_dimensions_it_is_langevins_function() -> None:
    kappa = torch.logspace(-1, 8, 30, dtype=torch.float64)
    expected = 1 / kappa.tanh() - 1 / kappa
    torch.testing.assert_close(kappa * bessel_ratio(kappa, 3), expected, rtol=1e-13, atol=0)


# ------------------------------------------------------------------------ the denoiser


def monte_carlo(points: Tensor, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    r"""Posterior mean by self-normalised importance sampling, and its standard error."""
    log_w = -(x - points).square().sum(1) / (2 * sigma**2)
    w = log_w.softmax(0)
    mean = w @ points
    return mean, (w.square() @ (points - mean).square()).sqrt()


CASES = [Sphere(1, 4, 2.0, seed=0), Sphere(4, 6, 1.0), Torus([1.0, 0.5], 6, seed=1)]


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("manifold", CASES, ids=["circle", "sphere", "torus"])
def test_it_is_the_posterior_mean(manifold: Sphere | Torus, sigma: float) -> None:
    # 200,000 points; 4 standard errors (5 for the 30 coordinates looked at together).
    points = manifold.sample(200_000, rng_of(0))
    x = manifold.sample(3, rng_of(1)) + sigma * normal(2, 3, manifold.ambient_dim)
    denoised = manifold.population_denoiser()(x, level(sigma))
    for point, found in zip(x, denoised, strict=True):
        mean, stderr = monte_carlo(points, point, sigma)
        assert bool(((found - mean).abs() <= 5 * stderr + 1e-12).all())


@pytest.mark.parametrize("manifold", CASES, ids=["circle", "sphere", "torus"])
def test_the_density_is_the_mean_of_gaussians(manifold: Sphere | Torus) -> None:
    sigma, d = 0.7, manifold.ambient_dim
    points = manifold.sample(200_000, rng_of(0))
    x = manifold.sample(1, rng_of(1)) + sigma * normal(2, 1, d)
    logs = -(x - points).square().sum(1) / (2 * sigma**2) - d / 2 * math.log(math.tau * sigma**2)
    terms = logs.exp()
    found = float(manifold.population_denoiser().log_density(x, level(sigma)).exp())
    assert found == pytest.approx(float(terms.mean()), abs=4 * float(terms.std()) / 200_000**0.5)


@given(st.integers(0, 99), sigmas)
def test_the_score_is_the_gradient_of_the_density(seed: int, sigma: float) -> None:
    denoiser = Sphere(3, 6, 1.5, seed=seed).population_denoiser()
    x = normal(seed, 2, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.log_density(x, level(sigma)).sum(), x)
    # D = x + sigma² score; both have an error of eps x / sigma² here.
    tweedie = (x + sigma**2 * gradient).detach()
    torch.testing.assert_close(denoiser(x, level(sigma)).detach(), tweedie, rtol=0, atol=1e-11)


@given(st.integers(0, 99), sigmas)
def test_the_sphere_turns_with_its_points(seed: int, sigma: float) -> None:
    Q, x = rotation(seed, 5), normal(seed, 4, 5)
    denoiser = Sphere(4, 5, 1.3).population_denoiser()
    turned = denoiser(x @ Q, level(sigma))
    torch.testing.assert_close(turned, denoiser(x, level(sigma)) @ Q, rtol=0, atol=1e-13)


@given(st.sampled_from([0.5, 3.0, 1e4]), sigmas)
def test_a_sphere_scales(scale: float, sigma: float) -> None:
    x = normal(0, 4, 5)
    one = Sphere(3, 5, 1.0).population_denoiser()(x, level(sigma))
    large = Sphere(3, 5, scale).population_denoiser()(scale * x, level(scale * sigma))
    torch.testing.assert_close(large, scale * one, rtol=1e-12, atol=1e-12 * scale)


def test_a_torus_is_a_product_of_circles() -> None:
    torus, sigma, x = Torus([1.0, 0.3], 4), level(0.3), normal(0, 6, 4)
    plane = Embedding.of(2, 2)
    circles = [SphereDenoiser(level(r)[None], 2, plane) for r in (1.0, 0.3)]
    product = ProductDenoiser([([0, 1], circles[0]), ([2, 3], circles[1])])
    torch.testing.assert_close(
        torus.population_denoiser()(x, sigma), product(x, sigma), rtol=0, atol=1e-14
    )


# ------------------------------------------------------------------------- its Jacobian


@given(st.integers(0, 99), sigmas)
def test_the_jacobian_is_a_covariance(seed: int, sigma: float) -> None:
    sphere = Sphere(3, 6, 1.2, seed=seed)
    x = sphere.sample(1, rng_of(seed))[0] + sigma * normal(seed + 1, 6)
    J = DenoiserJacobian(sphere.population_denoiser(), x, level(sigma))
    dense, scale = J.dense(), max(1.0, (1.2 / sigma) ** 2)
    torch.testing.assert_close(dense, dense.T, rtol=0, atol=1e-13 * scale)
    assert float(torch.linalg.eigvalsh(dense).min()) > -1e-13 * scale
    # No point of the sphere is farther than r from the centre: tr Cov <= r².
    assert float(dense.trace()) * sigma**2 <= 1.2**2 + 1e-9
    # the vjp of the vjp
    torch.testing.assert_close(J.matmat(torch.eye(6).double()), dense, rtol=0, atol=1e-12 * scale)
    differences = slow.difference_jacobian(
        lambda p: sphere.population_denoiser()(p[None], level(sigma))[0], x, 1e-4 * sigma
    )
    # Central differences: eps/step rounding and step² of the third derivative.
    torch.testing.assert_close(dense, differences, rtol=1e-5, atol=1e-7 + 1e-11 / sigma)


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 1e-2])
@pytest.mark.parametrize(
    "manifold",
    [Sphere(2, 30, seed=0), Sphere(9, 784, 3.0, seed=1), Torus([1.0, 0.7, 0.4], 30, seed=2)],
    ids=["sphere in 30", "sphere in 784", "torus"],
)
def test_small_noise_keeps_the_tangent_space(manifold: Sphere | Torus, sigma: float) -> None:
    x_0 = manifold.sample(1, rng_of(3))
    x = x_0[0] + sigma * normal(4, manifold.ambient_dim)
    dense = DenoiserJacobian(manifold.population_denoiser(), x, level(sigma)).dense()
    values, vectors = torch.linalg.eigh(dense)
    assert int((values > 0.5).sum()) == manifold.dim
    angles = principal_angles(vectors[:, -manifold.dim :], manifold.tangent(x_0)[0])
    # The tangent at x is that of a point which lies about sigma sqrt(m) / r away.
    assert float(angles.max()) < 10 * sigma


def test_spheres_of_a_thousand_dimensions() -> None:
    sphere = Sphere(1500, 3072, 1.0, seed=0)
    sigma = level(1e-3)
    x = sphere.sample(1, rng_of(0))
    x = x + sigma * normal(1, 1, 3072)
    y = sphere.embedding.inside(x)
    kappa = y.norm() / sigma**2
    # A lies between kappa / (v + sqrt(v² + kappa²)) with v = (p - 1)/2 and p/2 (Amos 1974).
    v = sphere.dim / 2
    amos = kappa / (v + (v**2 + kappa**2).sqrt())
    denoised = sphere.population_denoiser()(x, sigma)
    assert float(denoised.norm()) == pytest.approx(float(amos), rel=1e-6)
    direction = sphere.embedding.place(y / y.norm())
    torch.testing.assert_close(denoised / denoised.norm(), direction, rtol=0, atol=1e-13)


def test_at_the_centre_the_denoiser_is_linear() -> None:
    # y = 0: D' = r² / (p sigma²), and no NaN from the length of 0.
    sphere, sigma = Sphere(2, 4, 1.5), level(0.8)
    dense = DenoiserJacobian(sphere.population_denoiser(), torch.zeros(4).double(), sigma).dense()
    expected = torch.diag(torch.tensor([1.0, 1, 1, 0]).double()) * 1.5**2 / (3 * 0.8**2)
    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sigma", [1e-6, 1e6])
@pytest.mark.parametrize("manifold", CASES, ids=["circle", "sphere", "torus"])
def test_tiny_and_huge_noise(manifold: Sphere | Torus, sigma: float) -> None:
    x_0 = manifold.sample(5, rng_of(0))
    denoised = manifold.population_denoiser()(x_0, level(sigma))
    nothing = torch.zeros_like(x_0)
    expected = x_0 if sigma < 1 else nothing
    torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-10)


# ---------------------------------------------------------------------------- geometry


def test_samples_lie_on_the_sphere_and_fill_it() -> None:
    sphere = Sphere(3, 10, 2.0, seed=0)
    x = sphere.sample(20_000, rng_of(0))
    assert (x.dtype, x.shape) == (torch.float64, (20_000, 10))
    torch.testing.assert_close(x.norm(dim=1), 2 * torch.ones(20_000).double())
    assert float(sphere.embedding.outside(x).max()) < 1e-25
    inside = sphere.embedding.inside(x)
    covariance = inside.T @ inside / len(x)
    # Var(u_i²) = 2 (p-1) / (p² (p+2)); off the diagonal it is smaller.
    stderr = 4 * (2 * 3 / (16 * 6) / len(x)) ** 0.5
    expected = sphere.variance * torch.eye(4).double()
    torch.testing.assert_close(covariance, expected, rtol=0, atol=4 * stderr)


def test_samples_lie_on_the_torus() -> None:
    torus = Torus([1.0, 0.5, 2.0], 9, seed=0)
    x = torus.sample(100, rng_of(0))
    circles = torus.embedding.inside(x).reshape(100, 3, 2)
    torch.testing.assert_close(circles.norm(dim=2), torus.radii.expand(100, 3))


@pytest.mark.parametrize("manifold", CASES, ids=["circle", "sphere", "torus"])
def test_tangents_are_orthonormal_and_touch(manifold: Sphere | Torus) -> None:
    x_0 = manifold.sample(3, rng_of(0))
    basis = manifold.tangent(x_0)
    assert basis.shape == (3, manifold.ambient_dim, manifold.dim)
    identity = torch.eye(manifold.dim).double().expand(3, -1, -1)
    torch.testing.assert_close(basis.mT @ basis, identity, rtol=0, atol=1e-14)
    # A small step along a tangent leaves the manifold by its square: D at tiny sigma projects.
    step = 1e-4
    project = manifold.population_denoiser()
    for k in range(manifold.dim):
        moved = x_0 + step * basis[..., k]
        gone = (project(moved, level(1e-7)) - moved).norm(dim=1)
        assert float(gone.max()) < 2 * step**2


def test_the_seed_makes_the_frame() -> None:
    frames = [Sphere(2, 9, seed=s).embedding.frame for s in (1, 1, 2)]
    assert torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[0], frames[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_come_in_the_dtype_of_the_question(dtype: torch.dtype) -> None:
    x = normal(0, 3, 5).to(dtype)
    assert Sphere(2, 5).population_denoiser()(x, torch.tensor(0.1)).dtype == dtype


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Sphere(0, 5), "dim >= 1"),
        (lambda: Sphere(5, 5), "do not fit"),
        (lambda: Sphere(2, 5, 0.0), "above 0"),
        (lambda: Sphere(2, 5, math.nan), "finite"),
        (lambda: Torus([], 5), "at least one"),
        (lambda: Torus([1.0, -1.0], 5), "above 0"),
        (lambda: Torus([1.0, 1.0, 1.0], 5), "do not fit"),
    ],
)
def test_what_is_no_manifold(make: object, says: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("x", "sigma", "says"),
    [
        (torch.zeros(2, 4), 1.0, "shape"),
        (torch.zeros(5), 1.0, "shape"),
        (torch.full((1, 5), math.nan), 1.0, "NaN"),
        (torch.zeros(1, 5), 0.0, "above 0"),
        (torch.zeros(1, 5), math.nan, "finite"),
    ],
)
def test_what_is_no_question(x: Tensor, sigma: float, says: str) -> None:
    for manifold in (Sphere(2, 5), Torus([1.0], 5)):
        with pytest.raises(InputError, match=says):
            manifold.population_denoiser()(x, level(sigma))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Sphere(2.5, 30), "`dim` is 2.5"),  # type: ignore[arg-type]
        (lambda: Sphere(2, "a"), "`ambient_dim` is 'a'"),  # type: ignore[arg-type]
        (lambda: Sphere(2, 30, math.nan), "`radius` is nan"),
        (lambda: Sphere(2, 30, seed=1.5), "`seed` is 1.5"),  # type: ignore[arg-type]
        (lambda: Sphere(10**6, 10**8), "of memory"),
    ],
)
def test_what_is_no_sphere_is_named(build: Callable[[], Sphere], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build()
