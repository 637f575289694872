r"""Rendered shapes: known factors, exact tangents, and metrics that order what was taken away."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.manifolds.shapes import FACTORS, RenderedShapes, Spreads
from geomem.manifolds.squiggles import reference_denoiser
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState, train
from geomem.operators import DenoiserJacobian, jacobian_diagonal
from geomem.stats import Estimate, torch_rng
from geomem.subspaces import principal_angles, retention
from geomem.tangents import angle_to_space, tangent_basis
from tests.references import level, normal

SHAPES = RenderedShapes(12)
SHARES = (1.0, 0.5, 0.0)  # full, half, collapsed


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ----------------------------------------------------------------------------- images


def test_images_are_smooth_and_bounded() -> None:
    x = SHAPES.sample(50, rng_of(0))
    assert (x.dtype, x.shape) == (torch.float64, (50, 144))
    assert float(x.abs().max()) <= 1
    assert float(x.max()) > 0.5  # inside the ellipse it is bright
    assert float(x.mean()) < -0.4  # outside it is dark


def test_the_mass_of_an_image_knows_its_factors() -> None:
    # Moments of the bright pixels: position, angle and area, without the library's tangents.
    shapes = RenderedShapes(32, edge=0.5)
    factors = torch.tensor([[2.0, -1.0, 0.4, 0.1]], dtype=torch.float64)
    mass = (shapes.render(factors).reshape(32, 32) + 1) / 2
    line = torch.arange(32).double() - 15.5
    total = mass.sum()
    x, y = (mass * line).sum() / total, (mass * line[:, None]).sum() / total
    assert (float(x), float(y)) == pytest.approx((2.0, -1.0), abs=0.02)
    u, v = line - x, line[:, None] - y
    xx, yy, xy = ((mass * p).sum() for p in (u * u + 0 * v, v * v + 0 * u, u * v))
    angle = 0.5 * math.atan2(2 * float(xy), float(xx - yy))
    assert angle == pytest.approx(0.4, abs=0.02)
    area = math.pi / 2 * (0.25 * 32 * math.exp(0.1)) ** 2  # short half-axis: half the long one
    assert float(total) == pytest.approx(area, rel=0.03)


def test_factors_and_parameters() -> None:
    z = SHAPES.sample_parameters(20_000, rng_of(0))
    spread = SHAPES.factors(z).std(0)
    expected = torch.tensor([1.5, 1.5, 0.5, 0.25]).double()
    assert bool(((spread / expected - 1).abs() < 4 / math.sqrt(2 * 20_000)).all())
    fixed = RenderedShapes(12, Spreads().scaled("angle", 0))
    assert (fixed.dim, fixed.spreads.varying) == (3, ("x", "y", "log_size"))
    assert float(fixed.factors(fixed.sample_parameters(9, rng_of(0)))[:, 2].abs().max()) == 0


def test_an_image_tells_its_factors() -> None:
    # Up to half a turn, which an ellipse does not know.
    z = SHAPES.sample_parameters(20, rng_of(3))
    found = SHAPES.factors(SHAPES.parameters(SHAPES.points(z))) - SHAPES.factors(z)
    found[:, 2] = torch.remainder(found[:, 2] + math.pi / 2, math.pi) - math.pi / 2
    assert float(found.abs().max()) < 1e-6


def test_tangents_are_finite_differences() -> None:
    factors = SHAPES.factors(SHAPES.sample_parameters(3, rng_of(0)))
    found = SHAPES.directions(factors)
    for k in range(4):
        step = 1e-5 * torch.eye(4).double()[k]
        moved = SHAPES.render(factors + step) - SHAPES.render(factors - step)
        expected = moved / moved.norm(dim=1, keepdim=True)
        torch.testing.assert_close(found[..., k], expected, rtol=0, atol=1e-7)
    z = SHAPES.sample_parameters(3, rng_of(0))
    spaces = torch.linalg.qr(found).Q, SHAPES.tangent(SHAPES.points(z))
    for first, second in zip(*spaces, strict=True):
        assert float(principal_angles(first, second).max()) < 1e-6


def test_the_population_by_quadrature() -> None:
    shapes, sigma = RenderedShapes(8, Spreads(y=0, angle=0)), level(0.5)
    denoiser = shapes.population_denoiser()
    x_0 = shapes.sample(3, rng_of(0))
    x = x_0 + 0.5 * normal(1, 3, 64)
    assert float(denoiser.error(x, sigma).max()) < 1e-5
    reference, error = reference_denoiser(shapes, 40_000, rng_of(1))
    away = (denoiser(x, sigma) - reference(x, sigma)).norm(dim=1) / sigma
    assert bool((away < 5 * error(x, sigma) + 1e-3).all())
    small = x_0[0] + 0.01 * normal(2, 64)
    values, vectors = torch.linalg.eigh(DenoiserJacobian(denoiser, small, level(0.01)).dense())
    assert int((values > 0.5).sum()) == 2
    angles = principal_angles(vectors[:, -2:], shapes.tangent(x_0[:1])[0])
    assert float(angles.max()) < 0.1


# ------------------------------------- metrics order full, half and collapsed variation


@dataclass(frozen=True)
class Case:
    r"""What each metric says at noised training points, along one factor's tangent.

    The memorized density is that of all directions together. Along a direction that depends
    on the clean point a better prior need not make a smaller error: no theorem, and for the
    angle it is not so.
    """

    diagonal: Estimate
    retention: Estimate
    memorized: Estimate  # density in nats per e-fold: the control's error minus its own
    angle: Estimate  # of the tangent to the leading two directions


Train = Callable[[Tensor, int], Denoiser]
POINTS = 256
SIGMA = 1.5  # about half variation, in the length of an image's change


def training_set(factor: str, share: float, size: int, unit: int) -> tuple[Tensor, Tensor]:
    shapes = RenderedShapes(12, Spreads().scaled(factor, share))
    z = shapes.sample_parameters(size, torch_rng(0, "training set", unit))
    factors = shapes.factors(z)
    return factors, shapes.render(factors)


def measure(factor: str, share: float, fit: Train, size: int, angles_at: int) -> Case:
    unit = 10 * FACTORS.index(factor) + int(2 * share)
    factors, data = training_set(factor, share, size, unit)
    denoiser, control = fit(data, unit), EmpiricalDenoiser(SHAPES.sample(6000, rng_of(99)))
    k, sigma = FACTORS.index(factor), level(SIGMA)
    # Of each set the images nearest to the factor's mean: there its own width decides.
    order = factors[:, k].abs().argsort(stable=True)
    factors, data = factors[order], data[order]
    z = torch.randn(data.shape, generator=torch_rng(0, "noise", unit), dtype=torch.float64)
    own, wide = (_errors(d, data, z) for d in (denoiser, control))
    x, u = (data + SIGMA * z)[:POINTS], SHAPES.directions(factors[:POINTS])[..., k : k + 1]
    kept = retention(denoiser, control, x, sigma, u)[0]
    assert kept is not None
    angles = [
        float(angle_to_space(v, tangent_basis(denoiser, point, sigma, 2).vectors))
        for v, point in zip(u[:angles_at], x, strict=False)
    ]
    return Case(
        Estimate.of_mean(jacobian_diagonal(denoiser, x, sigma, u)[:, 0].numpy(force=True)),
        kept,
        Estimate.of_mean(wide - own),
        Estimate.of_mean(angles),
    )


def _errors(denoiser: Denoiser, x_0: Tensor, z: Tensor) -> np.ndarray:
    # |D - x_0|²/sigma²
    with torch.no_grad():
        errors = (denoiser(x_0 + SIGMA * z, level(SIGMA)) - x_0) / SIGMA
    return errors.square().sum(1).numpy()


def check_order(cases: list[Case], names: tuple[str, ...]) -> None:
    for name in names:
        full, half, collapsed = (getattr(case, name) for case in cases)
        sign = 1 if name in ("memorized", "angle") else -1
        assert sign * half.z_score(full) > 1, (name, full, half)
        assert sign * collapsed.z_score(half) > 1, (name, half, collapsed)
        assert sign * collapsed.z_score(full) > 5, (name, full, collapsed)


METRICS = ("diagonal", "retention", "memorized", "angle")


@pytest.mark.parametrize(
    "factor", [FACTORS[0], *(pytest.param(f, marks=pytest.mark.slow) for f in FACTORS[1:])]
)
def test_exact_denoisers_order_variation(factor: str) -> None:
    # Angles differ least: full and half are told apart by hundreds of points, as in the slow test.
    cases = [measure(factor, s, lambda data, _: EmpiricalDenoiser(data), 3000, 24) for s in SHARES]
    check_order(cases, METRICS[:3])
    assert cases[2].angle.z_score(cases[0].angle) > 3
    assert cases[0].retention.value == pytest.approx(1, abs=0.1)
    assert cases[2].retention.value < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("factor", FACTORS)
def test_exact_denoisers_order_variation_by_angles_too(factor: str) -> None:
    cases = [measure(factor, s, lambda data, _: EmpiricalDenoiser(data), 3000, 256) for s in SHARES]
    check_order(cases, METRICS)


def fit_network(data: Tensor, unit: int) -> Denoiser:
    rms = float((data - data.mean(0)).square().mean().sqrt())
    config = NetworkConfig("mlp", (144,), sigma_data=rms)
    state = TrainState(config, Training(steps=2500), data.float(), seed=0, unit=unit)
    for _ in train(state, every=2500):
        pass
    return state.average.double()


@pytest.mark.slow
@pytest.mark.parametrize("factor", FACTORS)
def test_networks_order_variation(factor: str) -> None:
    # Of networks the leading two directions hold none of a factor of half variation either.
    cases = [measure(factor, s, fit_network, 3000, 256) for s in SHARES]
    check_order(cases, METRICS[:3])
    assert cases[1].angle.z_score(cases[0].angle) > 1
    assert cases[2].angle.z_score(cases[0].angle) > 3


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RenderedShapes(12, Spreads(x=0, y=0, angle=0, log_size=0)), "no factor varies"),
        (lambda: RenderedShapes(3), "4 pixels"),
        (lambda: RenderedShapes(12, aspect=1.0), "circle"),
        (lambda: RenderedShapes(12, radius=0.0), "above 0"),
        (lambda: Spreads(x=-1.0), "not negative"),
        (lambda: Spreads(x=math.nan), "finite"),
        (lambda: Spreads().scaled("colour", 0.5), "no factor 'colour'"),
        (lambda: SHAPES.population_denoiser(), "reference_denoiser"),
    ],
)
def test_bad_input(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()
