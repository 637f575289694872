r"""Quadrature against dense spectra: unbiased, with errors that are seen, and rigorous bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from geomem.errors import InputError
from geomem.operators.linear import Matrix
from geomem.spectra.krylov import leading, orthonormal
from geomem.spectra.lanczos import LanczosQuadrature, quadrature
from geomem.spectra.measures import Dense, Spectrum
from tests.references import normal, rotation


def symmetric(eigenvalues: Tensor, seed: int = 0) -> Matrix:
    Q = rotation(seed, len(eigenvalues))
    return Matrix(Q * eigenvalues @ Q.T)


KEPT = torch.cat([torch.linspace(0.7, 1, 12), torch.linspace(0, 0.2, 28)]).double()
SMOOTH = torch.linspace(0, 1, 40, dtype=torch.float64) ** 2


# 200 seeds of 32 probes, as fixed beforehand: the mean of 200 z-scores is known to 0.07 and
# their spread to 5 %; 0.2 and 0.25 are about three of those, and five.
@pytest.mark.parametrize("power", [1, 2, 5])
@pytest.mark.parametrize("deflate", [0, 3])
def test_z_scores_of_polynomials_below_twice_the_depth(power: int, deflate: int) -> None:
    operator = symmetric(SMOOTH)
    exact = Dense()(operator).integrate(lambda v: v**power)
    z = []
    for seed in range(200):
        method = LanczosQuadrature(depth=3, probes=32, seed=seed, deflate=deflate)
        z.append(method(operator).integrate(lambda v: v**power).z_score(exact))
    assert abs(np.mean(z)) < 0.2
    assert np.std(z, ddof=1) == pytest.approx(1, abs=0.25)


def test_one_call_of_the_operator_a_step() -> None:
    calls = []

    class Noting(Matrix):
        def matmat(self, V: Tensor) -> Tensor:
            calls.append(V.shape[1])
            return super().matmat(V)

    LanczosQuadrature(depth=5, probes=7)(Noting(symmetric(KEPT).matrix))
    assert calls == [7] * 5


def test_probes_are_the_same_however_many_there_are() -> None:
    operator = symmetric(KEPT)
    few, many = (LanczosQuadrature(depth=4, probes=p)(operator) for p in (3, 9))
    torch.testing.assert_close(few.nodes, many.nodes[:3], rtol=0, atol=1e-13)


@pytest.mark.parametrize("depth", [2, 5, 10])
@given(seed=st.integers(0, 10_000), above=st.floats(-0.2, 1.2))
def test_bounds_hold_for_every_probe_and_threshold(depth: int, seed: int, above: float) -> None:
    # Not a matter of chance: the inequalities hold for the very measure that a probe sees.
    eigenvalues = normal(seed, 25).sigmoid()
    Q = rotation(seed, 25)
    q = normal(seed + 1, 25, 1).sign()
    truth = float(((Q.T @ q)[:, 0].square() * (eigenvalues > above)).sum())
    measured = quadrature(Matrix(Q * eigenvalues @ Q.T), q, depth)
    low, high = measured.beyond(above)
    assert low.value - 1e-9 <= truth <= high.value + 1e-9
    assert high.value - low.value <= 25 + 1e-9


def test_bounds_are_sharp_where_there_is_a_gap_and_say_so_where_there_is_none() -> None:
    low, high = LanczosQuadrature(depth=12, probes=8)(symmetric(KEPT)).count_bounds(0.45)
    assert high.value - low.value < 1e-3  # a gap of a third of the spectrum, depth 12
    assert abs(low.z_score(12)) < 4
    smeared = LanczosQuadrature(depth=4, probes=8)(symmetric(SMOOTH)).count_bounds(0.3)
    assert smeared[1].value - smeared[0].value > 2
    count = LanczosQuadrature(depth=4, probes=8)(symmetric(SMOOTH)).count(0.3)
    assert smeared[0].value <= count.value <= smeared[1].value
    plain = Spectrum(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(InputError, match="does not bound its counts"):
        plain.count_bounds(0.5)


@pytest.mark.parametrize("above", [0.45, 0.7, 0.75])
def test_deflated_eigenvalues_are_counted_one_by_one(above: float) -> None:
    operator = symmetric(KEPT)
    found = LanczosQuadrature(depth=8, probes=8, deflate=12)(operator)
    exact = Dense()(operator)
    assert found.quadrature is not None
    np.testing.assert_allclose(
        found.quadrature.found.numpy(), exact.nodes[0, :12].numpy(), atol=1e-8
    )
    assert found.quadrature.blur < 1e-6
    shifted = above + 1e-4  # an eigenvalue at the threshold itself is on both sides of it
    low, high = found.count_bounds(shifted)
    assert (low.value, high.value) == pytest.approx((exact.count(shifted).value,) * 2, abs=1e-6)
    # The rest has no large eigenvalue left, so its probes agree.
    plain = LanczosQuadrature(depth=8, probes=8)(operator)
    assert found.trace().stderr < 0.3 * plain.trace().stderr
    assert abs(found.trace().z_score(exact.trace())) < 4


def test_a_trace_is_unbiased_also_where_vectors_are_poor() -> None:
    # tr A = tr UᵀAU + tr PAP for any orthonormal U: half-converged vectors cost no bias.
    operator = symmetric(SMOOTH)
    z = [
        LanczosQuadrature(depth=2, probes=16, seed=s, deflate=2)(operator)
        .trace()
        .z_score(float(SMOOTH.sum()))
        for s in range(60)
    ]
    assert abs(np.mean(z)) < 4 / 60**0.5
    poor = LanczosQuadrature(depth=2, probes=4, deflate=2)(symmetric(SMOOTH))
    assert poor.quadrature is not None
    assert poor.quadrature.blur > 0


def test_blur_widens_the_bounds() -> None:
    # Weyl: shifting the threshold by the residual's norm covers whatever the vectors miss.
    eigenvalues = torch.linspace(0, 1, 300, dtype=torch.float64)
    operator = symmetric(eigenvalues)
    found = LanczosQuadrature(depth=10, probes=200, deflate=20)(operator)
    low, high = found.count_bounds(0.96)
    exact = int((eigenvalues > 0.96).sum())
    assert low.value - 4 * low.stderr <= exact <= high.value + 4 * high.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_pairs(dtype: torch.dtype) -> None:
    eigenvalues = torch.cat([torch.tensor([-2.0, 1.5, 1.0]), torch.linspace(0, 0.1, 57)]).double()
    operator = Matrix(symmetric(eigenvalues).matrix.to(dtype))
    found = leading(operator, 3)
    error = np.abs(found.values.numpy() - [-2.0, 1.5, 1.0])
    # Eigenvalues are wrong by the square of the residual over the gap of 0.9, plus rounding.
    rounding = 10 * torch.finfo(dtype).eps
    assert (error <= found.residuals.square().numpy() / 0.9 + rounding).all()
    assert float(found.residuals.max()) <= found.blur * (1 + 1e-9)
    assert found.blur < 1e-2
    gram = found.vectors.T @ found.vectors
    torch.testing.assert_close(gram, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found.products == 39


@pytest.mark.parametrize("eigenvalues", [[0.0] * 30, [1.0] * 30, [1.0] * 4 + [0.0] * 26])
def test_leading_pairs_of_what_is_degenerate(eigenvalues: list[float]) -> None:
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    found = leading(symmetric(values), 6)
    np.testing.assert_allclose(found.values.numpy(), eigenvalues[:6], atol=1e-10)
    deflated = LanczosQuadrature(depth=5, probes=4, deflate=6)(symmetric(values))
    assert deflated.count(0.5).value == pytest.approx(sum(eigenvalues), abs=1e-8)
    assert bool(torch.isfinite(deflated.nodes).all())


def test_more_is_deflated_than_there_is() -> None:
    operator = symmetric(KEPT[:5])
    found = LanczosQuadrature(depth=4, probes=3, deflate=9)(operator)
    exact = Dense()(operator).trace().value
    assert found.trace().value == pytest.approx(exact, abs=1e-10)
    assert found.trace().stderr < 1e-10
    assert LanczosQuadrature(depth=4, probes=3, deflate=9).products(5) == 4 * 3 + 5


def test_orthonormal_columns_leave_the_basis() -> None:
    basis = rotation(2, 20)[:, :5]
    block = torch.cat([normal(3, 20, 3), basis[:, :2], normal(3, 20, 3)], 1)  # five depend
    found = orthonormal(block, basis)
    assert found.shape == (20, 3)
    assert float((basis.T @ found).abs().max()) < 1e-13
    torch.testing.assert_close(found.T @ found, torch.eye(3).double(), rtol=0, atol=1e-13)


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="`deflate` is -1"):
        LanczosQuadrature(depth=2, probes=2, deflate=-1)
    with pytest.raises(InputError, match="`rank` is 0"):
        leading(symmetric(KEPT), 0)
