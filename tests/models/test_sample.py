r"""Sampling where the flow is known in closed form."""

from __future__ import annotations

import pytest
import torch

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.models.sample import heun, sigma_steps
from tests.references import normal


def test_levels_fall_to_zero() -> None:
    sigmas = sigma_steps(0.01, 50.0, 18)
    assert sigmas.shape == (19,)
    assert sigmas.dtype == torch.float64
    assert float(sigmas[0]) == pytest.approx(50)
    assert float(sigmas[-2]) == pytest.approx(0.01)
    assert float(sigmas[-1]) == 0
    assert bool((sigmas.diff() < 0).all())
    # rho = 7: equal steps of the seventh root.
    roots = sigmas[:-1] ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[0].expand(17), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("low", "high", "steps"), [(0, 1, 9), (2, 1, 9), (1, 1, 9), (0.1, 1, 1)])
def test_bad_levels(low: float, high: float, steps: int) -> None:
    with pytest.raises(InputError, match="sigma_min < sigma_max"):
        sigma_steps(low, high, steps)


def flow_error(steps: int) -> float:
    r"""Largest error of the map from noise to data, for a Gaussian where it is linear."""
    variances = torch.tensor([4.0, 1.0, 0.01], dtype=torch.float64)
    noise = normal(0, 5, 3)
    denoiser = GaussianDenoiser(torch.ones(3).double(), variances)
    found = heun(denoiser, noise, sigma_steps(0.002, 80.0, steps))
    # d(x - mean)/d sigma = sigma (x - mean)/(v + sigma²): (x - mean) goes as sqrt(v + sigma²).
    shrink = (variances / (variances + 80.0**2)).sqrt()
    expected = 1 + (80.0 * noise - 1) * shrink
    return float((found - expected).abs().max())


def test_the_flow_of_a_gaussian_to_second_order() -> None:
    errors = [flow_error(steps) for steps in (25, 50, 100, 200)]
    assert errors[-1] < 1e-3
    # Twice the steps, a quarter of the error (Euler: half of it). The last step, to 0, is a
    # fixed sigma_min and leaves sigma_min² / 2v = 2e-4 of the narrowest direction.
    assert 3 < errors[0] / errors[1] < 6
    assert 3 < errors[1] / errors[2] < 6


def test_samples_of_memory_are_its_points() -> None:
    data = normal(1, 12, 6)
    found = heun(EmpiricalDenoiser(data), normal(2, 40, 6), sigma_steps(1e-3, 40.0, 40))
    distances = torch.cdist(found, data).min(1)
    assert float(distances.values.max()) < 1e-6
    assert len(distances.indices.unique()) > 6  # not all of them at one


def test_samples_keep_shape_and_dtype_and_no_gradients() -> None:
    weight = torch.ones((), requires_grad=True)
    noise = normal(0, 3, 1, 4, 4).float()
    found = heun(lambda x, sigma: x * weight / 2, noise, sigma_steps(0.01, 10.0, 5))
    assert found.shape == noise.shape
    assert found.dtype == torch.float32
    assert not found.requires_grad
    again = heun(lambda x, sigma: x * weight / 2, noise, sigma_steps(0.01, 10.0, 5))
    assert torch.equal(found, again)  # randomness comes in by the signature only
