r"""Spectra: exact ones against NumPy, sampled ones against exact ones."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.operators import Factored, LinearOperator, Matrix
from geomem.spectra import (
    Dense,
    Gram,
    LanczosQuadrature,
    RandomizedSVD,
    Spectrum,
    SpectrumMethod,
    asymmetry,
    decompose,
    singular_values,
    spectrum,
)
from geomem.stats import Estimate
from tests.references import normal, rotation


def symmetric(eigenvalues: Tensor, seed: int = 0) -> Matrix:
    Q = rotation(seed, len(eigenvalues))
    return Matrix(Q * eigenvalues @ Q.T)


EIGENVALUES = torch.cat([torch.linspace(0.7, 1, 12), torch.linspace(0, 0.2, 28)]).double()


class Counting(LinearOperator):
    r"""Counts the products, which are what a method costs."""

    def __init__(self, inner: LinearOperator) -> None:
        self.inner, self.size, self.like, self.products = inner, inner.size, inner.like, 0

    def matmat(self, V: Tensor) -> Tensor:
        self.products += V.shape[1]
        return self.inner.matmat(V)

    def rmatmat(self, U: Tensor) -> Tensor:
        return self.inner.rmatmat(U)


def test_dense_spectrum_is_that_of_numpy() -> None:
    A = normal(0, 9, 9)
    found = spectrum(Matrix(A), Dense())
    expected = np.linalg.eigvalsh((A + A.T).numpy() / 2)[::-1]
    np.testing.assert_allclose(found.nodes[0].numpy(), expected, atol=1e-12)
    assert found.trace().value == pytest.approx(float(A.trace()), abs=1e-12)
    assert found.trace().stderr == 0
    assert found.count(0.5).value == (expected > 0.5).sum()
    assert torch.equal(spectrum(Matrix(A)).nodes, found.nodes)  # the default


@pytest.mark.parametrize(("n", "k"), [(40, 7), (40, 40), (7, 40), (5, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gram_is_the_dense_spectrum_of_a_factor(n: int, k: int, dtype: torch.dtype) -> None:
    F = normal(3, n, k).to(dtype)
    operator = Factored(F)
    found = spectrum(operator, Gram())
    expected = np.linalg.eigvalsh((F.double() @ F.double().T).numpy())[::-1]
    assert found.exact
    assert found.nodes.dtype == torch.float64
    # Sums are float64 whatever the factor, so float32 gets the same tolerance.
    top = max(expected[0], 1.0)
    np.testing.assert_allclose(found.nodes[0].numpy(), expected, atol=1e-12 * top, rtol=0)
    assert int((found.nodes[0] == 0).sum()) >= n - min(n, k)
    V = normal(4, n, 3).to(dtype)
    torch.testing.assert_close(operator.matmat(V), operator.dense() @ V)
    torch.testing.assert_close(operator.rmatmat(V), operator.dense() @ V)
    assert operator.symmetric_part is operator


def test_gram_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"pass Factored\(F\)"):
        spectrum(Matrix(normal(0, 4, 4)), Gram())
    with pytest.raises(InputError, match="finite matrix"):
        Factored(torch.full((3, 2), math.nan))
    with pytest.raises(InputError, match="one row a coordinate"):
        Factored(torch.zeros(3))


def test_singular_values_and_asymmetry() -> None:
    A = normal(0, 6, 6)
    expected = np.linalg.svd(A.numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(Matrix(A)).numpy(), expected, atol=1e-12)
    S, K = A + A.T, A - A.T
    assert asymmetry(Matrix(S)) == Estimate(0.0, 0.0)
    found = asymmetry(Matrix(S + 0.1 * K))
    assert found.value == pytest.approx(0.1 * float(K.norm() / S.norm()))
    assert found.stderr == 0
    assert asymmetry(Matrix(K)).value == math.inf  # nothing symmetric in it
    assert math.isnan(asymmetry(Matrix(torch.zeros(2, 2))).value)


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_asymmetry_by_probes(share: float) -> None:
    A = normal(0, 200, 200)
    operator = Matrix(A + A.T + share * (A - A.T))
    exact = asymmetry(operator).value
    found = [asymmetry(operator, probes=16, seed=s) for s in range(40)]
    values = np.array([e.value for e in found])
    if share == 0:  # to the rounding of two products
        assert values.max() < 1e-14
        return
    assert values == pytest.approx(exact, rel=0.2)
    z = np.array([e.z_score(exact) for e in found])
    # A t distribution with 15 degrees: 40 of them have a mean to 0.17 and a spread to 12 %.
    assert abs(z.mean()) < 4 * 0.17
    assert z.std(ddof=1) == pytest.approx(1.07, rel=0.5)
    assert asymmetry(Matrix(normal(1, 5, 5)), probes=1).stderr is not None
    assert math.isnan(asymmetry(Matrix(torch.zeros(4, 4)), probes=3).value)


def test_full_depth_gives_each_probe_its_exact_integral() -> None:
    # With depth n the Krylov space is everything: q^T f(A) q for each probe, to rounding.
    eigenvalues = torch.linspace(0.1, 1, 12, dtype=torch.float64)
    operator = symmetric(eigenvalues)
    found = LanczosQuadrature(depth=12, probes=5, seed=3)(operator)
    rng_free = found.integrate(torch.ones_like)
    assert rng_free.value == pytest.approx(12, abs=1e-10)  # weights: one an eigenvalue
    for fn in (torch.exp, torch.log, lambda v: v**7):
        exact = Dense()(operator).integrate(fn)
        assert abs(found.integrate(fn).z_score(exact)) < 4
    ends = float(found.nodes.min()), float(found.nodes.max())
    assert ends == pytest.approx((0.1, 1.0), abs=1e-8)


@pytest.mark.parametrize("depth", [2, 5])
def test_polynomials_are_integrated_exactly_up_to_degree_2k_minus_1(depth: int) -> None:
    # Gauss quadrature: the value of one probe is q^T A^p q to rounding for p < 2 depth.
    operator = symmetric(EIGENVALUES)
    deep = LanczosQuadrature(depth=40, probes=2)(operator)
    shallow = LanczosQuadrature(depth=depth, probes=2)(operator)
    for power in range(2 * depth):
        monomial = partial(torch.pow, exponent=power)
        exact = deep.integrate(monomial).value
        assert shallow.integrate(monomial).value == pytest.approx(exact, abs=1e-9)
    power = 2 * depth
    exact = deep.integrate(lambda v: v**power).value
    assert abs(shallow.integrate(lambda v: v**power).value - exact) > 1e-9  # and no further


def test_quadrature_is_unbiased_and_knows_its_error() -> None:
    # 40 seeds of 8 probes, fixed beforehand: z-scores of a t distribution with 7 degrees.
    operator = symmetric(EIGENVALUES)
    exact = Dense()(operator).trace().value
    found = [LanczosQuadrature(depth=6, probes=8, seed=s)(operator).trace() for s in range(40)]
    values = np.array([e.value for e in found])
    assert abs(values.mean() - exact) < 4 * values.std(ddof=1) / math.sqrt(40)
    # Errors are those seen: the spread of a spread of 40 is 11 %, four times that is allowed.
    assert np.mean([e.stderr**2 for e in found]) ** 0.5 == pytest.approx(values.std(), rel=0.45)


def test_quadrature_costs_depth_times_probes() -> None:
    operator = Counting(symmetric(EIGENVALUES))
    LanczosQuadrature(depth=7, probes=3)(operator)
    assert operator.products == 21


def test_the_seed_makes_the_spectrum() -> None:
    operator = symmetric(EIGENVALUES)
    once, again, other = (LanczosQuadrature(depth=4, probes=2, seed=s)(operator) for s in (0, 0, 1))
    assert torch.equal(once.nodes, again.nodes)
    assert torch.equal(once.weights, again.weights)
    assert not torch.equal(once.nodes, other.nodes)


@pytest.mark.parametrize(
    "eigenvalues", [[1.0] * 8, [0.0] * 8, [1.0] * 3 + [0.0] * 5, [2.0], [3.0, -1.0]]
)
def test_krylov_spaces_that_end_early(eigenvalues: list[float]) -> None:
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    found = LanczosQuadrature(depth=6, probes=64)(symmetric(values))
    assert bool(torch.isfinite(found.nodes).all())
    assert found.integrate(torch.ones_like).value == pytest.approx(len(values), abs=1e-10)
    exact, trace = float(values.sum()), found.trace()
    assert abs(trace.value - exact) <= 4 * trace.stderr + 1e-10
    # A gap in the middle: counting is exact up to the sampling of the probes.
    count = found.count(0.5)
    assert abs(count.value - int((values > 0.5).sum())) <= 4 * count.stderr + 1e-10


def test_float32_quadrature_stays_orthogonal() -> None:
    # Without reorthogonalisation ghosts of the largest eigenvalue appear at this depth.
    eigenvalues = torch.cat([torch.tensor([100.0]), torch.linspace(0, 1, 59)])
    Q = rotation(0, 60).float()
    operator = Matrix(Q * eigenvalues @ Q.T)
    found = LanczosQuadrature(depth=50, probes=4)(operator)
    assert (found.nodes > 50).sum(1).tolist() == [1] * 4


def test_one_probe_says_nothing_about_its_error() -> None:
    found = LanczosQuadrature(depth=4, probes=1)(symmetric(EIGENVALUES))
    assert math.isnan(found.trace().stderr)
    exact = Spectrum(torch.tensor([[2.0, 1.0]]), torch.ones(1, 2), exact=True)
    assert exact.trace().stderr == 0


@pytest.mark.parametrize(("depth", "probes"), [(0, 1), (1, 0)])
def test_bad_settings(depth: int, probes: int) -> None:
    with pytest.raises(InputError, match=r"`(depth|probes)` is 0; pass a whole number from 1"):
        LanczosQuadrature(depth=depth, probes=probes)


def test_three_outputs_of_one_matrix() -> None:
    A = normal(5, 8, 8).float()
    found = decompose(Matrix(A))
    exact = A.double()
    np.testing.assert_allclose(
        found.spectrum.nodes[0].numpy(), np.linalg.eigvalsh((exact + exact.T) / 2)[::-1], atol=1e-12
    )
    np.testing.assert_allclose(
        found.singular_values.numpy(), np.linalg.svd(exact, compute_uv=False), atol=1e-12
    )
    assert found.asymmetry == asymmetry(Matrix(exact))


# -------------------------------------------------------------------------- what auto takes


def projector(n: int, rank: int) -> Matrix:
    Q = rotation(1, n)[:, :rank]
    return Matrix(Q @ Q.T)


def test_auto_says_what_it_chose() -> None:
    few = spectrum(projector(40, 7), "auto")
    assert few.exact
    assert few.how == "dense: all 40 eigenvalues; chosen: 40 coordinates are few"
    factor = spectrum(Factored(normal(0, 30, 3)), "auto")
    assert factor.exact
    assert factor.how.endswith("chosen: there is a factor")
    exact = spectrum(projector(40, 7), "auto", accuracy=0)
    assert exact.how.endswith("chosen: exact is asked for")


def test_auto_samples_what_is_large() -> None:
    rank = 40
    operator = projector(1200, rank)
    rough = spectrum(operator, "auto", accuracy=5.0)
    assert not rough.exact
    assert "the trace is known to ±" in rough.how
    assert abs(rough.trace().z_score(rank)) < 4
    assert rough.trace().stderr <= 5
    # ± 1 takes 2 r = 80 probes of depth 24: more than all 1200 columns from one side.
    fine = spectrum(operator, "auto", accuracy=1.0)
    assert fine.exact
    assert "by sampling would take" in fine.how
    # Where the matrix is not allowed the probes are taken, and the error is about what was asked.
    small = spectrum(operator, "auto", accuracy=2.0, max_bytes=2**23)
    assert not small.exact
    assert "probes" in small.how
    assert small.trace().stderr < 3
    low, high = small.count_bounds(0.5)
    # The smear at depth 24 of a projector is nothing: what is left is that of the probes.
    assert high.value - low.value < 1e-6
    assert abs(low.z_score(rank)) < 4


def test_auto_samples_no_more_than_fits() -> None:
    # One probe of depth 24 holds 28 vectors: 13 of them fit, and ± 1 would take about 80.
    operator, one = projector(1200, 40), 8 * 1200 * 28
    found = spectrum(operator, "auto", accuracy=1.0, max_bytes=13.5 * one)
    assert len(found.nodes) == 13
    assert "3.5 MiB hold 13" in found.how
    assert found.trace().stderr > 1  # and says so
    with pytest.raises(InputError, match=r"8 probes .* raise `max_bytes`"):
        spectrum(operator, "auto", accuracy=1.0, max_bytes=7.5 * one)


def lopsided() -> Matrix:
    r"""Eigenvalues of the symmetric part: 3.5, -1.5 and 38 times .1; the rest is antisymmetric."""
    A = normal(0, 40, 40).triu(1)
    return Matrix(
        torch.diag(torch.cat([torch.tensor([3.5, -1.5]), 0.1 * torch.ones(38)])) + A - A.T
    )


@pytest.mark.parametrize(
    "method",
    [
        Dense(),
        LanczosQuadrature(depth=5, probes=2),
        LanczosQuadrature(depth=5, probes=2, deflate=2),
        RandomizedSVD(rank=2),
    ],
    ids=lambda m: type(m).__name__,
)
def test_methods_read_both_triangles(method: SpectrumMethod) -> None:
    # Three eigenvalues close every Krylov space after three steps, so all of them are found.
    nodes = method(lopsided()).nodes
    assert float(nodes.max()) == pytest.approx(3.5, abs=1e-8)
    assert float(nodes.min()) == pytest.approx(-1.5, abs=1e-8)


def test_auto_refuses_what_it_cannot() -> None:
    with pytest.raises(InputError, match="raise `max_bytes`"):
        spectrum(projector(40, 7), "auto", accuracy=0, max_bytes=1000)
    with pytest.raises(InputError, match="`accuracy` is -1"):
        spectrum(projector(40, 7), "auto", accuracy=-1)
    with pytest.raises(InputError, match="pass 'auto'"):
        spectrum(projector(40, 7), "all")  # type: ignore[arg-type]


def test_dense_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomem.compute.memory.available_memory", lambda: 1e4)
    with pytest.raises(InputError, match="never make the matrix"):
        Dense()(projector(40, 7))
