r"""Low-rank decompositions against dense ones, and whether their errors are errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.operators.linear import Matrix
from geomem.spectra.measures import Dense
from geomem.spectra.randomized import RandomizedSVD, leading_singular
from tests.references import normal, rotation


def symmetric(eigenvalues: Tensor, seed: int = 0) -> Matrix:
    Q = rotation(seed, len(eigenvalues))
    return Matrix(Q * eigenvalues @ Q.T)


DECAYING = 0.8 ** torch.arange(60, dtype=torch.float64)


def test_leading_eigenvalues_and_the_mass_of_the_rest() -> None:
    operator = symmetric(DECAYING)
    exact = Dense()(operator)
    method = RandomizedSVD(rank=12, probes=16)
    found = method(operator)
    assert found.quadrature is not None
    np.testing.assert_allclose(found.quadrature.found, exact.nodes[0, :12], atol=1e-10)
    assert abs(found.trace().z_score(exact.trace())) < 4
    assert found.trace().stderr < 0.1
    assert found.integrate(torch.ones_like).value == pytest.approx(60, abs=1e-9)
    assert method.products(60) == 3 * 22 - 6 + 16  # three blocks of 22, where 60 is all there is
    assert f"{method.products(60)} products" in found.how


def test_traces_are_unbiased_and_know_their_error() -> None:
    operator = symmetric(DECAYING)
    exact = float(DECAYING.sum())
    z = [
        RandomizedSVD(rank=3, oversample=2, power=0, probes=32, seed=s)(operator)
        .trace()
        .z_score(exact)
        for s in range(200)
    ]
    assert abs(np.mean(z)) < 0.2
    assert np.std(z, ddof=1) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("above", [0.5, 0.2, 0.05])
def test_counts_are_bounded(above: float) -> None:
    operator = symmetric(DECAYING)
    exact = Dense()(operator).count(above).value
    low, high = RandomizedSVD(rank=10, probes=64)(operator).count_bounds(above)
    assert low.value - 4 * low.stderr - 1e-9 <= exact <= high.value + 4 * high.stderr + 1e-9


@pytest.mark.parametrize("power", [0, 2])
@pytest.mark.parametrize("seed", range(5))
def test_singular_triples_and_their_error(power: int, seed: int) -> None:
    A = rotation(seed, 60) * DECAYING @ rotation(seed + 50, 60).T
    found = leading_singular(Matrix(A), 8, power=power, oversample=2, seed=seed)
    shortfall = DECAYING[:8] - found.values
    assert float(shortfall.min()) > -1e-12  # never larger than they are
    assert float(shortfall.max()) <= found.error
    assert found.error < 100 * float(DECAYING[10])
    approximation = found.left * found.values @ found.right.T
    best = float(DECAYING[8])
    assert float(torch.linalg.matrix_norm(A - approximation, 2)) <= best + found.error
    assert found.products == 10 + 10 + 10 * (2 * power + 1)
    if power == 2:
        np.testing.assert_allclose(found.values, DECAYING[:8], rtol=0.03)  # of ten directions


def test_low_rank_is_exact() -> None:
    A = normal(0, 50, 3) @ normal(1, 3, 50)
    found = leading_singular(Matrix(A), 6)
    expected = torch.linalg.svdvals(A)[:3]
    np.testing.assert_allclose(found.values[:3], expected, rtol=1e-10)
    assert found.error < 1e-9 * float(expected[0])


def test_zero_has_no_directions() -> None:
    zero = Matrix(torch.zeros(40, 40))
    assert leading_singular(zero, 5).values.sum() == 0
    found = RandomizedSVD(rank=5)(zero)
    assert found.trace().value == 0
    assert found.count(0.5).value == 0


@pytest.mark.parametrize("bad", [{"rank": 0}, {"rank": 1, "probes": 0}, {"rank": 1, "power": -1}])
def test_bad_settings(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"`(rank|probes|power)` is .*; pass a whole number"):
        RandomizedSVD(**bad)
    with pytest.raises(InputError, match="`rank` is 0"):
        leading_singular(Matrix(torch.eye(2)), 0)
