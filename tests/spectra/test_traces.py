r"""Traces to a stated error: is it reached, is it the error, and what did it take."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.operators.linear import Matrix
from geomem.spectra.traces import AdaptiveTrace, trace
from tests.references import normal, rotation

N = 600


def kept(rank: int, asymmetry: float = 0.05) -> Matrix:
    r"""What a trained network's Jacobian looks like: a soft edge, a floor, not symmetric."""
    lost = 0.02 * normal(1, N - rank).abs()
    eigenvalues = torch.cat([torch.linspace(0.8, 1, rank).double(), lost])
    Q = rotation(0, N)
    K = normal(2, N, N)
    A = Q * eigenvalues @ Q.T
    return Matrix(A + asymmetry * float(A.norm()) * (K - K.T) / float((K - K.T).norm()))


MATRICES = {rank: kept(rank) for rank in (10, 60)}


class Counting(Matrix):
    r"""Counts products from one side, and refuses the other."""

    count = 0

    def rmatmat(self, U: Tensor) -> Tensor:
        self.count += U.shape[1]
        return super().rmatmat(U)

    def matmat(self, V: Tensor) -> Tensor:
        raise AssertionError("a trace needs the transpose alone")


# 20 seeds, as asked: the mean of 20 z-scores is known to 0.22 and their spread to 16 %, four
# times that is allowed. Errors are known from 32 samples at least, to 13 %.
@pytest.mark.parametrize("rank", [10, 60])
@pytest.mark.parametrize("accuracy", [2.0, 1.0, 0.3, 0.1])
def test_twenty_seeds_reach_the_error_they_state(rank: int, accuracy: float) -> None:
    operator = MATRICES[rank]
    exact = float(operator.matrix.trace())
    found = [trace(operator, accuracy, seed=s) for s in range(20)]
    assert max(t.stderr for t in found) <= accuracy
    if all(t.stderr == 0 for t in found):  # as many products as it has columns
        assert [t.value for t in found] == pytest.approx([exact] * 20, abs=1e-9)
        return
    errors = np.array([t.value - exact for t in found])
    assert float(np.sqrt(np.mean(errors**2))) < 1.65 * accuracy
    z = np.array([t.z_score(exact) for t in found if t.stderr > 0])
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert np.std(z) == pytest.approx(1, abs=4 * 0.16)


def test_products_are_counted_and_from_one_side() -> None:
    for accuracy in (1.0, 0.1):
        operator = Counting(MATRICES[10].matrix)
        found = trace(operator, accuracy)
        assert found.products == operator.count


def test_directions_are_taken_out_where_that_is_cheaper() -> None:
    plain, fine = trace(MATRICES[10], 1.0), trace(MATRICES[10], 0.1)
    assert plain.deflated == 0
    assert fine.deflated >= 10
    # Signs alone: 2 Σλ² / ε², here about 1,600; deflated, about two for each direction.
    assert fine.products < 300
    # The relative error counts where it is the larger one.
    loose = trace(MATRICES[60], 0.1, relative=0.05)
    assert loose.stderr <= 0.05 * loose.value
    assert loose.products < trace(MATRICES[60], 0.1).products


def test_what_signs_see_without_variance() -> None:
    diagonal = Matrix(torch.diag(normal(0, 300)))
    assert trace(diagonal).value == pytest.approx(float(diagonal.matrix.trace()))
    assert trace(diagonal).products == 32


def test_small_matrices_are_measured_whole() -> None:
    A = normal(0, 40, 40)
    found = trace(Matrix(A))
    assert found.value == pytest.approx(float(A.trace()), abs=1e-12)
    assert (found.stderr, found.products) == (0, 40)
    zero = trace(Matrix(torch.zeros(200, 200)))
    assert (zero.value, zero.stderr) == (0, 0)


def test_exactness_is_paid_with_every_column() -> None:
    found = AdaptiveTrace(accuracy=0)(MATRICES[60])
    assert found.stderr == 0
    assert found.value == pytest.approx(float(MATRICES[60].matrix.trace()), abs=1e-9)
    assert found.products <= AdaptiveTrace(accuracy=0).products(N)


def test_a_cap_is_kept_and_the_error_says_what_it_reached() -> None:
    found = AdaptiveTrace(accuracy=0.01, max_products=100)(MATRICES[60])
    assert found.products <= 100
    assert found.stderr > 0.01
    assert abs(found.z_score(float(MATRICES[60].matrix.trace()))) < 4


def test_the_seed_makes_the_trace() -> None:
    one, again, other = (trace(MATRICES[60], seed=s) for s in (0, 0, 1))
    assert one == again
    assert one.value != other.value
    assert "±" in repr(one)


@pytest.mark.parametrize("bad", [{"accuracy": -1.0}, {"block": 2}, {"max_products": 5}])
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(InputError):
        AdaptiveTrace(**bad)  # type: ignore[arg-type]
