r"""Data of known geometry: samples, tangents, dimension and information agree."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from geomem.errors import InputError
from geomem.manifolds import PAPER_VARIANCES, LinearManifold, Manifold, NormalizedLinear
from geomem.manifolds.charts import HiddenManifold, RingTorus, SwissRoll
from geomem.manifolds.curved import Sphere, Torus
from geomem.manifolds.shapes import RenderedShapes, Spreads
from geomem.manifolds.squiggles import Squiggle, Union
from geomem.operators import DenoiserJacobian, jacobian_diagonal
from geomem.subspaces import principal_angles
from tests.references import level, normal, rotation

VARIANCES = torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64)
BASIS = rotation(0, 6)[:, :3]
PLANE = LinearManifold(VARIANCES, 6, BASIS)


def test_samples_have_the_covariance(rng: torch.Generator) -> None:
    # Entries of a covariance of n Gaussian points vary by sqrt(v_i v_j (1 + [i = j]) / n).
    n = 20_000
    x = PLANE.sample(n, rng)
    assert x.dtype == torch.float64
    inside = x @ BASIS
    covariance = inside.T @ inside / n
    stderr = (torch.outer(VARIANCES, VARIANCES) * (1 + torch.eye(3)) / n).sqrt()
    assert bool(((covariance - VARIANCES.diag()).abs() <= 4 * stderr + 1e-12).all())
    assert float((x - inside @ BASIS.T).abs().max()) < 1e-12  # nothing leaves the plane


def test_the_seed_makes_the_sample() -> None:
    draws = [PLANE.sample(5, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_tangent_leaves_out_directions_without_variance() -> None:
    assert (PLANE.dim, PLANE.ambient_dim) == (2, 6)
    tangent = PLANE.tangent(normal(1, 4, 6))
    assert tangent.shape == (4, 6, 2)
    torch.testing.assert_close(tangent[0], BASIS[:, :2])


@given(st.floats(-4, 3).map(math.exp))
def test_dimension_is_information_per_e_fold_of_noise(sigma: float) -> None:
    u = torch.tensor(math.log(sigma), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(PLANE.mutual_information(u.exp()), u)
    assert float(PLANE.dimension(level(sigma))) == pytest.approx(-float(slope), abs=1e-12)
    denoiser, x = PLANE.population_denoiser(), normal(1, 1, 6)
    trace = jacobian_diagonal(denoiser, x, level(sigma), torch.eye(6).double()).sum()
    assert float(trace) == pytest.approx(-float(slope), abs=1e-12)


def test_curves_take_any_shape() -> None:
    sigmas = torch.tensor([[0.1, 1.0], [2.0, 5.0]])
    for curve in (PLANE.dimension, PLANE.mutual_information):
        each = torch.stack([curve(s) for s in sigmas.flatten()]).reshape(2, 2)
        torch.testing.assert_close(curve(sigmas), each, rtol=0, atol=0)


def test_the_population_denoiser_projects_at_small_noise() -> None:
    x = normal(2, 5, 6)
    projected = x @ BASIS[:, :2] @ BASIS[:, :2].T
    denoised = PLANE.population_denoiser()(x, level(1e-6))
    torch.testing.assert_close(denoised, projected, rtol=0, atol=1e-10)  # off by sigma²/v


def test_the_papers_manifold() -> None:
    paper = LinearManifold(torch.tensor(PAPER_VARIANCES), 30)
    assert paper.dim == paper.ambient_dim == 30
    assert float(paper.dimension(level(0.1))) == pytest.approx(2 / 1.01 + 5 * 9 / 10 + 23 / 101)


def test_normalised_points_have_length_one(rng: torch.Generator) -> None:
    sphere = NormalizedLinear(PLANE)
    x = sphere.sample(50, rng)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(50).double(), rtol=0, atol=1e-14)
    assert (sphere.dim, sphere.ambient_dim) == (1, 6)


# ------------------------------------------------------ what every manifold promises

ZOO: dict[str, Manifold] = {
    "linear": LinearManifold(torch.ones(3), 30),
    "sphere": Sphere(4, 30, seed=0),
    "flat torus": Torus([1.0, 0.5], 30, seed=0),
    "ring torus": RingTorus(30, seed=0),
    "swiss roll": SwissRoll(30, seed=0),
    "hidden manifold": HiddenManifold(2, 30),
    "curve": Squiggle(1, 30),
    "surface": Squiggle(2, 30),
    "union": Union([Squiggle(2, 30), Squiggle(2, 30, seed=5, centre=3.0)]),
    "shapes": RenderedShapes(8, Spreads(y=0, log_size=0)),
    "sphere in images' dimension": Sphere(10, 3072, seed=0),
    "swiss roll in images' dimension": SwissRoll(3072, seed=0),
}


@pytest.mark.parametrize("manifold", ZOO.values(), ids=ZOO.keys())
def test_every_manifold_keeps_its_promises(manifold: Manifold, rng: torch.Generator) -> None:
    x_0 = manifold.sample(3, rng)
    assert (x_0.dtype, x_0.shape) == (torch.float64, (3, manifold.ambient_dim))
    basis = manifold.tangent(x_0)
    assert basis.shape == (3, manifold.ambient_dim, manifold.dim)
    identity = torch.eye(manifold.dim).double().expand(3, -1, -1)
    torch.testing.assert_close(basis.mT @ basis, identity, rtol=0, atol=1e-10)
    # At small noise the denoiser returns the point, and its Jacobian projects on the tangent.
    denoiser, sigma = manifold.population_denoiser(), level(1e-4)
    x = x_0 + 1e-4 * normal(1, *x_0.shape)
    assert float((denoiser(x, sigma) - x_0).norm(dim=1).max()) < 1e-4 * 4 * manifold.dim**0.5
    image = DenoiserJacobian(denoiser, x[0], sigma).symmetric_part.matmat(basis[0])
    torch.testing.assert_close(basis[0].T @ image, identity[0], rtol=0, atol=0.01)
    angles = principal_angles(torch.linalg.qr(image).Q, basis[0])
    assert float(angles.max()) < 0.01


@pytest.mark.parametrize(
    ("variances", "d", "basis", "says"),
    [
        (torch.ones(3), 2, None, "do not fit"),
        (torch.ones(0), 2, None, "do not fit"),
        (torch.ones(2, 2), 4, None, "do not fit"),
        (torch.tensor([1.0, -1.0]), 2, None, "not negative"),
        (torch.tensor([1.0, math.nan]), 2, None, "finite"),
        (torch.ones(2), 3, torch.ones(3, 2), "orthonormal"),
        (torch.ones(2), 3, torch.eye(3), "2 orthonormal columns of length 3"),
    ],
)
def test_bad_input(variances: Tensor, d: int, basis: Tensor | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        LinearManifold(variances, d, basis)
