r"""The bottleneck: paired noise, whole records, and numbers that do not depend on the way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.measure.errors import Errors
from geomem.measure.jacobian import Jacobian
from geomem.measure.probes import measure
from geomem.measure.study import Probe, Study, make_study
from geomem.measure.subject import Description, Subject
from geomem.noise import log_levels
from geomem.operators import jacobian_diagonal
from geomem.subspaces import PrincipalDirections
from tests import references as slow
from tests.references import normal

D = 12
CONTROL = GaussianDenoiser.fit(normal(0, 9, 3, 2, 2))  # fewer points than dimensions: bands
DIRECTIONS = PrincipalDirections.of(CONTROL, singles=4, max_bands=3)
SIGMAS = log_levels(0.1, 3.0, 4)
POINTS = {"training": normal(1, 7, 3, 2, 2), "held_out": normal(2, 5, 3, 2, 2)}
MEMORY = EmpiricalDenoiser(POINTS["training"])


class Spy:
    r"""Passes on, and keeps what it was asked."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.asked: list[tuple[Tensor, float]] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        if len(x) > 2:  # one or two points are what the door asks
            self.asked.append((x.clone(), float(sigma)))
        return self.denoiser(x, sigma)


def how(
    *,
    batch_size: int = 512,
    jacobian_points: int = 0,
    draws: int = 3,
    seed: int = 4,
    sigmas: Tensor = SIGMAS,
) -> Study:
    probes: list[Probe] = [Errors(batch_size)]
    if jacobian_points:
        probes.append(Jacobian(jacobian_points))
    return make_study(
        POINTS,
        directions=DIRECTIONS,
        sigmas=sigmas,
        probes=probes,
        rms=1.0,
        draws=draws,
        seed=seed,
    )


def subject(denoiser: Denoiser, dtype: torch.dtype = torch.float64) -> Subject:
    return Subject(Description("model"), denoiser, dtype)


def record(denoiser: Denoiser, **options: int) -> xr.Dataset:
    return measure(subject(denoiser), how(**options))  # type: ignore[arg-type]


def test_the_record_has_every_number_asked_for() -> None:
    network = slow.random_network(0, D)
    found = record(network, jacobian_points=2)
    assert found.error.dims == ("at", "sigma", "point", "draw", "direction")
    assert found.error.shape == (2, 4, 7, 3, len(DIRECTIONS.counts))
    assert found["at"].values.tolist() == ["training", "held_out"]
    assert {v.dtype for v in found.data_vars.values()} == {np.dtype("float32")}
    assert "diagonal" not in record(network)
    # Fewer points are padded, and only they: five of seven held-out, two of seven Jacobians.
    finite = np.isfinite(found.error.values).all((1, 3, 4))
    assert finite.sum(1).tolist() == [7, 5]
    assert np.isfinite(found.forward_diagonal.values).all((1, 3)).sum(1).tolist() == [7, 5]
    assert np.isfinite(found.diagonal.values).all((1, 3)).sum(1).tolist() == [2, 2]
    assert np.isnan(found.error.values[1, :, 5:]).all()
    assert np.isnan(found.diagonal.values[:, :, 2:]).all()


def test_numbers_are_those_of_a_loop() -> None:
    found = record(MEMORY)
    for a, (at, x_0) in enumerate(POINTS.items()):
        z = how().noise(at, len(x_0)).double()
        for k, p, n in np.ndindex(4, len(x_0), 3):
            sigma = float(SIGMAS[k])
            x = x_0[p] + sigma * z[p, n]
            mean = torch.from_numpy(slow.posterior(POINTS["training"], x, sigma)["mean"])
            error = (mean - x_0[p].flatten()) / sigma
            coordinates = error @ DIRECTIONS.vectors
            got = found.error.values[a, k, p, n].astype(float)
            # Recorded in float32: a relative 6e-8.
            np.testing.assert_allclose(got[:4], coordinates[:4].numpy(), rtol=1e-6, atol=1e-6)
            assert (got**2).sum() == pytest.approx(float(error.square().sum()), rel=1e-6)


def test_the_forward_diagonal_is_noise_times_error() -> None:
    found = record(MEMORY)
    z = how().noise("training", 7).double().flatten(2) @ DIRECTIONS.vectors[:, :4]
    assert np.abs(found.error.values[0, 3, ..., :4]).max() > 0.1  # it errs at sigma = 3
    product = z.numpy() * found.error.values[0, 3, ..., :4]
    np.testing.assert_allclose(
        found.forward_diagonal.values[0, 3, :, :4], product.mean(1), rtol=1e-4, atol=1e-5
    )


def test_the_diagonal_is_the_jacobian_at_the_first_draw() -> None:
    found = record(MEMORY, jacobian_points=3)
    z = how().noise("held_out", 3).double()
    x = POINTS["held_out"][:3] + SIGMAS[2] * z[:, 0]
    expected = jacobian_diagonal(MEMORY, x, SIGMAS[2], DIRECTIONS.vectors[:, :4])
    np.testing.assert_allclose(found.diagonal.values[1, 2, :3, :4], expected.numpy(), rtol=1e-5)
    trace = jacobian_diagonal(MEMORY, x, SIGMAS[2], torch.eye(D).double()).sum(1)
    np.testing.assert_allclose(found.diagonal.values[1, 2, :3].sum(-1), trace.numpy(), rtol=1e-5)


def test_draws_are_the_same_for_every_denoiser_and_level() -> None:
    spies = [Spy(MEMORY), Spy(CONTROL)]
    for spy in spies:
        record(spy)
    noises = []
    for first, second in zip(spies[0].asked, spies[1].asked, strict=True):
        assert torch.equal(first[0], second[0])
        assert first[1] == second[1]
    for x, sigma in spies[0].asked[:4]:  # the training points at four levels
        clean = POINTS["training"].repeat_interleave(3, 0)
        noises.append((x - clean) / sigma)
    for z in noises[1:]:  # undoing the noise at sigma = .1 costs a digit
        torch.testing.assert_close(z, noises[0], rtol=0, atol=1e-13)


def test_noise_belongs_to_its_image_and_its_kind() -> None:
    noise = how().noise("training", 6)
    assert noise.shape == (6, 3, 3, 2, 2)
    assert torch.equal(how().noise("training", 2), noise[:2])  # whatever the count
    others = [
        how().noise("held_out", 6),
        how(seed=5).noise("training", 6),
        noise.roll(1, 0),
    ]
    for other in others:  # images and kinds are independent: nothing is shared
        assert float((other - noise).abs().min()) > 0
    # Standard normal: 864 numbers, mean 0 and variance 1 within 4 standard errors.
    wide = how(draws=12).noise("training", 6)
    assert abs(float(wide.mean())) < 4 / math.sqrt(wide.numel())
    assert abs(float(wide.var()) - 1) < 4 * math.sqrt(2 / wide.numel())


@pytest.mark.parametrize("batch_size", [1, 5, 21])
def test_the_batch_size_changes_rounding_only(batch_size: int) -> None:
    # Matrix products of other shapes sum in another order: to rounding, not bit for bit.
    # Float64 inside, then float32 in the record, so one ulp of float32 may flip.
    network = slow.random_network(0, D)
    for denoiser in (MEMORY, CONTROL, network):
        whole, parts = record(denoiser), record(denoiser, batch_size=batch_size)
        for name in ("error", "forward_diagonal"):
            np.testing.assert_allclose(
                parts[name].values, whole[name].values, rtol=2e-7, atol=1e-7, equal_nan=True
            )


def test_the_same_record_twice_is_the_same_bytes() -> None:
    network = slow.random_network(0, D)
    once, again = (record(network, jacobian_points=3) for _ in range(2))
    assert once.identical(again)
    other = record(network, jacobian_points=3, seed=5)
    assert not once.equals(other)


def test_shares_of_the_work_are_reported() -> None:
    shares: list[float] = []
    measure(subject(MEMORY), how(), shares.append)
    assert shares == pytest.approx([*(k / 8 for k in range(1, 9)), 1.0])


def test_the_dtype_is_the_networks_own() -> None:
    spy = Spy(CONTROL)
    measure(subject(spy, torch.float32), how())
    assert {x.dtype for x, _ in spy.asked} == {torch.float32}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_denoiser_that_returns_nan_is_refused(bad: float) -> None:
    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        y = CONTROL(x, sigma)
        if float(sigma) > 1:
            y[0, 0, 0, 0] = bad  # one number among all of them
        return y

    with pytest.raises(InputError, match=r"NaN or infinity at sigma = 3"):
        measure(subject(broken), how(sigmas=SIGMAS[[0, 3]]))


def test_levels_must_be_above_zero() -> None:
    with pytest.raises(InputError, match="above 0"):
        how(sigmas=torch.tensor([0.0, 1.0]))


def test_a_denoiser_that_returns_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        measure(subject(lambda x, sigma: x[..., :1]), how())
