r"""Tangent bases: leading eigenvectors where they are known, bounds that hold, angles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.manifolds.curved import Sphere
from geomem.operators import DenoiserJacobian
from geomem.subspaces import principal_angles, retention
from geomem.tangents import (
    angle_to_space,
    angles_between_denoisers,
    angles_between_points,
    tangent_basis,
    turning,
)
from tests import references as slow
from tests.references import level, normal, rotation


def linear(values: Tensor, seed: int = 0) -> tuple[GaussianDenoiser, Tensor]:
    r"""A linear denoiser with known eigenvalues at sigma = 1, and its eigenvectors."""
    Q = rotation(seed, len(values))
    variances = values / (1 - values)
    return GaussianDenoiser(torch.zeros(len(values)).double(), Q * variances @ Q.T), Q


@pytest.mark.parametrize("m", [1, 3, 7])
@pytest.mark.parametrize("d", [12, 60])
def test_it_finds_known_eigenvectors(m: int, d: int) -> None:
    values = torch.cat([torch.linspace(0.95, 0.7, m), torch.linspace(0.3, 0, d - m)]).double()
    denoiser, Q = linear(values)
    found = tangent_basis(denoiser, normal(1, d), level(1.0), m, tolerance=1e-6)
    angle = float(principal_angles(found.vectors, Q[:, :m]).max())
    assert angle <= found.turned + 1e-12 <= 1e-6 + 1e-12
    torch.testing.assert_close(found.values, values[:m], rtol=0, atol=1e-10)
    assert found.gap >= 0.4 - 1e-3  # the next Ritz value is from below


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_holds_before_it_has_converged(seed: int) -> None:
    values = torch.linspace(0.95, 0, 60).double()
    denoiser, Q = linear(values, seed)
    for blocks in (1, 2, 3, 4):
        found = tangent_basis(
            denoiser, normal(1, 60), level(1.0), 5, tolerance=0, max_blocks=blocks, seed=seed
        )
        angle = float(principal_angles(found.vectors, Q[:, :5]).max())
        # The gap is taken from Ritz values, so early on the bound is an estimate: factor 2.
        assert angle <= 2 * found.turned + 1e-9


def test_networks_are_symmetrised() -> None:
    network, x, sigma = slow.random_network(0, 60), normal(0, 60), level(0.8)
    J = slow.jacobian(network, x, sigma)
    _, vectors = torch.linalg.eigh((J + J.T) / 2)
    found = tangent_basis(network, x, sigma, 3, tolerance=1e-7, max_blocks=5)
    assert float(principal_angles(found.vectors, vectors[:, -3:]).max()) < 1e-6


def test_images_and_all_directions() -> None:
    denoiser = EmpiricalDenoiser(normal(0, 30, 1, 3, 4))
    found = tangent_basis(denoiser, normal(1, 1, 3, 4), level(2.0), 12)
    dense = DenoiserJacobian(denoiser, normal(1, 1, 3, 4), level(2.0)).dense()
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(dense).flip(0))
    assert found.turned < 1e-6


def test_no_gap_is_no_space() -> None:
    found = tangent_basis(lambda x, sigma: 0.5 * x, normal(0, 6), level(1.0), 2)
    assert found.turned == math.pi / 2 or found.gap < 1e-12


def test_the_seed_changes_nothing_but_rounding() -> None:
    denoiser, _ = linear(torch.cat([torch.full((3,), 0.9), torch.zeros(20)]).double())
    bases = [tangent_basis(denoiser, normal(0, 23), level(1.0), 3, seed=s) for s in (0, 1)]
    assert float(principal_angles(bases[0].vectors, bases[1].vectors).max()) < 1e-3


@pytest.mark.parametrize("d", [30, 784, 3072])
def test_the_sphere_in_many_dimensions(d: int) -> None:
    sphere, sigma = Sphere(4, d, seed=0), level(0.01)
    x_0 = sphere.sample(1, torch.Generator().manual_seed(0))
    x = x_0[0] + sigma * normal(1, d)
    found = tangent_basis(sphere.population_denoiser(), x, sigma, 4)
    angles = principal_angles(found.vectors, sphere.tangent(x_0)[0])
    assert float(angles.max()) < 0.05  # the tangent at the noisy point: sigma sqrt(m) / r off
    assert found.gap > 0.9


# ------------------------------------------------------------------------------ angles


def test_tangent_spaces_turn_with_the_point() -> None:
    # On a circle the tangents at two points differ by the arc between them.
    circle, arcs = Sphere(1, 6, seed=0), torch.tensor([0.0, 0.3, 1.2]).double()
    y = torch.stack([arcs.cos(), arcs.sin()], dim=1)
    x = circle.embedding.place(y)
    angles = angles_between_points(circle.population_denoiser(), x, level(0.01), 1)[..., 0]
    expected = (arcs[:, None] - arcs).abs()
    torch.testing.assert_close(angles, expected, rtol=0, atol=2e-3)


def test_spaces_turn_with_the_number_of_points() -> None:
    sphere, sigma = Sphere(2, 10, seed=0), level(0.3)
    data = sphere.sample(3000, torch.Generator().manual_seed(0))
    denoisers: dict[str, Denoiser] = {
        "20": EmpiricalDenoiser(data[:20]),
        "3000": EmpiricalDenoiser(data),
        "population": sphere.population_denoiser(),
    }
    x = data[0] + 0.3 * normal(1, 10)
    angles = angles_between_denoisers(denoisers, x, sigma, 2)
    assert angles.shape == (3, 3, 2)
    torch.testing.assert_close(angles, angles.transpose(0, 1), rtol=0, atol=1e-7)
    assert float(angles.diagonal().max()) < 1e-7
    points = data[:40] + 0.3 * normal(2, 40, 10)
    far, near = (
        turning(denoisers[n], denoisers["population"], points, sigma, 2)[-1] for n in ("20", "3000")
    )
    assert far.z_score(near) > 4


def test_a_denoiser_does_not_turn_from_itself() -> None:
    memory = EmpiricalDenoiser(normal(0, 30, 5))
    for angle in turning(memory, memory, normal(1, 4, 5), level(1.0), 2):
        assert angle.value < 1e-7


def test_angles_of_directions() -> None:
    Q = rotation(0, 6)
    tilted = math.cos(0.4) * Q[:, 0] + math.sin(0.4) * Q[:, 4]
    found = angle_to_space(torch.stack([Q[:, 1], tilted, Q[:, 5]], dim=1), Q[:, :3])
    assert found.tolist() == pytest.approx([0, 0.4, math.pi / 2], abs=1e-12)


def test_retention_along_tangents_of_each_point() -> None:
    sphere, sigma = Sphere(2, 6, seed=0), level(0.1)
    data = sphere.sample(40, torch.Generator().manual_seed(0))
    population, memory = sphere.population_denoiser(), EmpiricalDenoiser(data)
    x, bases = data + sigma * normal(1, 40, 6), sphere.tangent(data)
    kept = retention(memory, population, x, sigma, bases)
    assert len(kept) == 2
    for along in kept:
        assert along is not None
        assert along.z_score(1.0) < -3
    for along in retention(population, population, x, sigma, bases):
        assert along is not None
        assert along.value == pytest.approx(1, abs=1e-12)
    with pytest.raises(InputError, match="norm"):
        retention(memory, population, x, sigma, 2 * bases)


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("x", "sigma", "m", "says"),
    [
        (torch.zeros(3), 1.0, 0, "`m` is 0"),
        (torch.zeros(3), 1.0, 4, "1 to 3 vectors; `m` is 4"),
        (torch.zeros(3), 0.0, 1, "above 0"),
        (torch.tensor([0.0, math.nan, 0.0]), 1.0, 1, "NaN"),
    ],
)
def test_what_is_no_question(x: Tensor, sigma: float, m: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        tangent_basis(lambda x, sigma: 0.5 * x, x, level(sigma), m)


def test_a_denoiser_that_returns_nan() -> None:
    with pytest.raises(InputError, match="NaN"):
        tangent_basis(lambda x, sigma: x * math.nan, torch.zeros(3), level(1.0), 1)


def test_a_network_in_train_mode_has_no_tangents() -> None:
    net = nn.Sequential(nn.Linear(3, 32), nn.Dropout(0.5), nn.Linear(32, 3))
    with pytest.raises(InputError, match=r"net\.1 \(Dropout"):
        tangent_basis(lambda x, sigma: net(x), torch.zeros(3), torch.tensor(1.0), 1)


def test_the_basis_is_where_the_point_is(device: torch.device) -> None:
    # On the CPU this cannot fail; `--device cuda` asks an accelerator.
    x = normal(0, 1, 3, 4).to(device)
    found = tangent_basis(
        EmpiricalDenoiser(normal(0, 30, 1, 3, 4).to(device)), x, level(2.0).to(device), 3
    )
    assert found.vectors.device.type == found.values.device.type == device.type
