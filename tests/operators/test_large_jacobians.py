r"""Jacobians that are never formed: a trained U-Net at d = 3072, and a latent's forecast."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState
from geomem.operators import DenoiserJacobian
from geomem.spectra.lanczos import LanczosQuadrature
from geomem.spectra.traces import AdaptiveTrace, trace


def smooth_images(num: int, size: int, modes: int = 16) -> Tensor:
    r"""A sum of so many cosine modes a channel, squashed, with shape (num, 3, size, size)."""
    rng = torch.Generator().manual_seed(0)
    k = sorted(
        ((i, j) for i in range(size) for j in range(size)), key=lambda p: p[0] ** 2 + p[1] ** 2
    )
    at = math.pi * (torch.arange(size) + 0.5) / size
    basis = torch.stack([torch.outer((i * at).cos(), (j * at).cos()) for i, j in k[:modes]])
    return torch.einsum(
        "nck,khw->nchw", torch.randn(num, 3, modes, generator=rng) / 3, basis
    ).tanh()


@pytest.mark.slow
def test_a_dimension_at_3072_without_the_jacobian() -> None:
    data = smooth_images(2048, 32)
    config = NetworkConfig("unet", (3, 32, 32), float(data.std()), channels=(16, 32, 32))
    state = TrainState(config, Training(steps=600, batch_size=32), data, seed=0)
    for _ in range(600):
        state.advance()
    sigma = torch.tensor(0.3)
    x = data[0] + sigma * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))
    J = DenoiserJacobian(state.average, x, sigma, max_bytes=2**28)
    exact = AdaptiveTrace(accuracy=0)(J)
    assert exact.stderr == 0
    found = [trace(J, 1.0, relative=0.02, seed=s) for s in range(20)]
    goal = max(1.0, 0.02 * exact.value)
    z = np.array([t.z_score(exact) for t in found])
    assert max(t.stderr for t in found) <= goal * 1.1  # relative to what each of them found
    # As in test_traces: the mean of 20 z-scores to 0.22, their spread to 16 %, four times that.
    assert abs(z.mean()) < 4 * 0.22
    assert np.std(z, ddof=1) == pytest.approx(1, abs=4 * 0.16)
    assert J.size / np.median([t.products for t in found]) > 15


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 32, 32), (3, 64, 64)], ids=["latent", "pixels"])
def test_a_forecast_is_within_a_factor_of_the_truth(shape: tuple[int, ...]) -> None:
    # On a machine that is otherwise quiet; what others do meanwhile is no part of a forecast.
    denoiser = NetworkConfig("unet", shape, 0.5).build(0).eval()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    J = DenoiserJacobian(denoiser, x, torch.tensor(0.3), max_bytes=2**28)
    method = LanczosQuadrature(depth=12, probes=8)
    forecast = J.cost(method)
    start = time.perf_counter()
    found = method(J.symmetric_part)
    took = time.perf_counter() - start
    assert 1 / 1.5 < forecast.seconds / took < 1.5
    assert took < 600
    assert math.isfinite(found.trace().stderr)
