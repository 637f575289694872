r"""The leading directions of matrices that are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.dimension.ritz import leading_pairs
from geomem.errors import InputError
from geomem.operators import LinearOperator, Matrix
from geomem.stats import torch_rng
from tests.references import normal, rotation


def turned(values: Tensor, seed: int = 0) -> Tensor:
    Q = rotation(seed, len(values))
    return Q * values.double() @ Q.T


class Counting(LinearOperator):
    def __init__(self, A: Tensor) -> None:
        self.A, self.size, self.like, self.products = A, len(A), A.new_empty(0), 0

    def matmat(self, V: Tensor) -> Tensor:
        raise AssertionError("only the transpose may be asked")

    def rmatmat(self, U: Tensor) -> Tensor:
        self.products += U.shape[1]
        return self.A.T @ U


@settings(max_examples=40, deadline=None)
@given(m=st.integers(0, 40), seed=st.integers(0, 10**6))
def test_every_direction_of_a_projector_is_found(m: int, seed: int) -> None:
    A = Counting(turned((torch.arange(40) < m).double(), seed))
    found = leading_pairs(A, torch_rng(seed, "test"))
    assert int((found.values > 0.5).sum()) == m
    assert found.complete
    assert found.products == A.products <= min(40, 3 * m + 6)
    kept = found.vectors[:, :m]
    assert torch.allclose(kept.T @ kept, torch.eye(m).double(), atol=1e-10)
    # They are the range itself: what A does to them is nothing.
    assert torch.allclose(A.A @ kept, kept, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), d=st.integers(3, 30))
def test_ritz_values_never_exceed_eigenvalues(seed: int, d: int) -> None:
    A = normal(seed, d, d) / math.sqrt(d)
    exact = torch.linalg.eigvalsh((A + A.T) / 2).flip(0)
    found = leading_pairs(Matrix(A), torch_rng(seed, "test"), products=max(3, d // 2))
    # Interlacing: the k-th Ritz value is at most the k-th eigenvalue; 1e-12 is rounding.
    assert bool((found.values <= exact[: len(found.values)] + 1e-12).all())


@pytest.mark.parametrize("noise", [0.02, 0.05])
@pytest.mark.parametrize("m", [1, 3, 12, 40])
def test_directions_are_found_among_noisy_lost_ones(noise: float, m: int) -> None:
    # As networks are: kept .8 to 1, lost spread by a few percent, a matrix not symmetric.
    d, wrong = 600, 0
    values = torch.cat([torch.linspace(0.8, 1, m).double(), noise * normal(1, d - m)])
    for seed in range(5):
        asymmetric = normal(seed + 10, d, d)
        A = turned(values, 3) + noise * (asymmetric - asymmetric.T) / math.sqrt(8 * d)
        found = leading_pairs(Matrix(A), torch_rng(seed, "test"))
        wrong += int((found.values > 0.5).sum()) != m
        assert found.products < 4 * m + 40
    assert wrong == 0


class Diagonal(LinearOperator):
    def __init__(self, values: Tensor) -> None:
        self.values, self.size, self.like = values, len(values), values.new_empty(0)

    def matmat(self, V: Tensor) -> Tensor:
        return self.values[:, None] * V

    def rmatmat(self, U: Tensor) -> Tensor:
        return self.matmat(U)


@pytest.mark.parametrize(("block", "d"), [(4, 2000), (8, 3072)])
@pytest.mark.parametrize(("m", "kept", "lost"), [(10, 0.7, 0.2), (6, 0.95, 0.3), (10, 0.7, 0.1)])
def test_kept_directions_outgrow_large_lost_ones(
    m: int, kept: float, lost: float, block: int, d: int
) -> None:
    # One image of a random block holds so much of the lost that the last kept ones are unseen.
    values = torch.cat([torch.full((m,), kept), torch.linspace(0, lost, d - m)])
    for seed in range(10):
        found = leading_pairs(Diagonal(values), torch_rng(seed, "local dimension"), block=block)
        assert int((found.values > 0.5).sum()) == m
        assert found.complete
        assert found.products < 100  # 2 m and a dozen blocks' images


@pytest.mark.parametrize("m", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_short_image_of_a_kept_direction_is_looked_at(m: int, dtype: torch.dtype) -> None:
    # A block of b - 1 kept directions has a short last image in one of ten cases.
    values = (torch.arange(3072) < m).to(dtype)
    found = [leading_pairs(Diagonal(values), torch_rng(s, "rate")) for s in range(60)]
    assert [int((f.values > 0.5).sum()) for f in found] == [m] * 60
    assert max(f.products for f in found) <= 2 * m + 10


def test_residuals_say_how_near_an_eigenvalue_is() -> None:
    exact = torch.cat([torch.ones(5), torch.linspace(0, 0.3, 55)]).double()
    found = leading_pairs(Matrix(turned(exact)), torch_rng(0, "test"))
    distance = (found.values[:, None] - exact).abs().min(1).values
    assert bool((distance <= found.residuals + 1e-10).all())
    assert int((found.values > 0.5).sum()) == 5


def test_the_whole_matrix_is_exact() -> None:
    A = turned(torch.linspace(0.4, 1, 12))
    found = leading_pairs(Matrix(A), torch_rng(0, "test"))
    assert found.products == 12
    assert torch.allclose(found.values, torch.linspace(0.4, 1, 12).double().flip(0), atol=1e-12)
    assert float(found.residuals.max()) < 1e-12


@pytest.mark.parametrize("products", [1, 2, 5, 30, 60, 200])
def test_products_that_run_out_bound_from_below(products: int) -> None:
    values = (torch.arange(400) < 200).double()
    found = leading_pairs(Matrix(turned(values)), torch_rng(0, "test"), products=products)
    assert not found.complete
    assert found.products == products
    assert int((found.values > 0.5).sum()) <= 200


@settings(max_examples=30, deadline=None)
@given(m=st.integers(0, 12), products=st.integers(1, 120), seed=st.integers(0, 10**6))
def test_complete_is_all_of_them(m: int, products: int, seed: int) -> None:
    # Lost directions up to .2: wherever a few products stop, "complete" is no smaller number.
    values = torch.cat([torch.full((m,), 0.9), torch.linspace(0, 0.2, 300 - m)])
    found = leading_pairs(Diagonal(values), torch_rng(seed, "test"), products=products)
    seen = int((found.values > 0.5).sum())
    assert seen == m if found.complete else seen <= m


def test_a_seed_is_an_answer() -> None:
    A = Matrix(turned(torch.linspace(0, 1, 50)))
    one, two = (leading_pairs(A, torch_rng(3, "test")) for _ in range(2))
    assert torch.equal(one.values, two.values)


def test_float32() -> None:
    A = Matrix(turned((torch.arange(50) < 6).double()).float())
    found = leading_pairs(A, torch_rng(0, "test"))
    assert int((found.values > 0.5).sum()) == 6
    assert found.values.dtype == torch.float64


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_matrices(size: int) -> None:
    found = leading_pairs(Matrix(torch.eye(size).double()), torch_rng(0, "test"))
    assert found.values.tolist() == pytest.approx([1.0] * size)


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="`products` is 0"):
        leading_pairs(Matrix(torch.eye(3)), torch_rng(0, "test"), products=0)
    with pytest.raises(InputError, match="`block` is 2"):
        leading_pairs(Matrix(torch.eye(3)), torch_rng(0, "test"), block=2)
