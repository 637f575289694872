r"""Products with Jacobians against dense ones, also through attention."""

from __future__ import annotations

import copy
import gc
import math
import time
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.operators import DenoiserJacobian, Matrix, Strategy, jacobian_diagonal
from geomem.operators.linear import Need
from geomem.spectra import Dense, spectrum
from geomem.spectra.lanczos import LanczosQuadrature
from geomem.spectra.traces import AdaptiveTrace, trace
from tests import references as slow
from tests.references import level, normal


class AttentionUNet(nn.Module):
    r"""diffusers' U-Net with attention at both ends, as a denoiser of 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet: Any = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=4,
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self.unet(x, sigma.log().expand(len(x))).sample
        return out


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return AttentionUNet().eval()


@pytest.fixture(scope="module")
def dense(network: nn.Module, device: torch.device) -> Tensor:
    r"""The dense Jacobian in float64 at one point, by plain autograd, row by row.

    On the same device as what is compared: the U-Net embeds times in float32, and sine and
    cosine are not the same floats everywhere.
    """
    own = copy.deepcopy(network).to(device, torch.float64)
    return slow.jacobian(own, normal(0, 1, 8, 8).to(device), level(0.5).to(device)).cpu()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().double() - b).norm() / b.norm())


# Float64 leaves 1e-13 after a few hundred sums; float32 about 1e-6: ten times that is asked.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk_size", [3, None])
@pytest.mark.parametrize("strategy", ["shared", "repeated"])
def test_products_through_attention(
    network: nn.Module,
    dense: Tensor,
    dtype: torch.dtype,
    tolerance: float,
    chunk_size: int | None,
    strategy: Strategy,
    device: torch.device,
) -> None:
    network = copy.deepcopy(network).to(device, dtype)
    assert any("attentions" in name for name, _ in network.named_modules())
    x, sigma = normal(0, 1, 8, 8).to(device, dtype), torch.tensor(0.5).to(device, dtype)
    V = normal(1, 64, 5)
    J = DenoiserJacobian(network, x, sigma, chunk_size, strategy=strategy)
    assert relative(J.matmat(V.to(device, dtype)), dense @ V) < tolerance
    assert relative(J.rmatmat(V.to(device, dtype)), dense.T @ V) < tolerance
    assert relative(J.dense(), dense) < tolerance
    pushed, pulled = J.both(V.to(device, dtype))
    assert relative(pushed, dense @ V) < tolerance
    assert relative(pulled, dense.T @ V) < tolerance
    symmetric = J.symmetric_part
    expected = (dense + dense.T) / 2
    assert relative(symmetric.matmat(V.to(device, dtype)), expected @ V) < tolerance
    assert relative(symmetric.rmatmat(V.to(device, dtype)), expected @ V) < tolerance
    assert relative(symmetric.dense(), expected) < tolerance
    assert relative(dense.T @ V, dense @ V) > 0.1  # so J and its transpose are told apart


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_diagonals_through_attention(
    network: nn.Module, dense: Tensor, dtype: torch.dtype, tolerance: float, device: torch.device
) -> None:
    network = copy.deepcopy(network).to(device, dtype)
    x = torch.cat([normal(0, 1, 8, 8)[None], normal(5, 2, 1, 8, 8)]).to(device, dtype)
    U = normal(1, 64, 4)
    sigma = torch.tensor(0.5, dtype=dtype, device=device)
    diagonal = jacobian_diagonal(network, x, sigma, U).cpu()
    assert diagonal.dtype == torch.float64
    expected = (U * (dense @ U)).sum(0)
    scale = float(dense.norm() * U.square().sum(0).max())  # the sum cancels, its terms do not
    assert float((diagonal[0] - expected).abs().max()) < tolerance * scale
    own = torch.stack([U, normal(2, 64, 4), normal(3, 64, 4)])  # a set of directions a point
    each = jacobian_diagonal(network, x, sigma, own).cpu()
    torch.testing.assert_close(each[0], diagonal[0], rtol=0, atol=tolerance * scale)
    other = jacobian_diagonal(network, x[1:2], sigma, own[1]).cpu()
    torch.testing.assert_close(each[1], other[0], rtol=0, atol=tolerance * scale)


def test_asking_does_not_leave_gradients_behind(network: nn.Module) -> None:
    x = normal(0, 1, 8, 8).float()
    with torch.no_grad():  # and it works where gradients are switched off
        diagonal = jacobian_diagonal(network, x[None], torch.tensor(0.5), torch.eye(64)[:, :2])
        product = DenoiserJacobian(network, x, torch.tensor(0.5)).matmat(torch.eye(64)[:, :2])
    assert not diagonal.requires_grad
    assert not product.requires_grad
    assert all(p.grad is None for p in network.parameters())
    torch.testing.assert_close(product.diagonal().double(), diagonal[0], rtol=0, atol=1e-4)


def constant(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.ones_like(x)


@pytest.mark.filterwarnings("ignore:the denoiser gives the same answer")
def test_a_constant_denoiser_has_no_directions() -> None:
    x = normal(0, 3, 2)
    assert not jacobian_diagonal(constant, x, level(1.0), torch.eye(2)).any()
    J = DenoiserJacobian(constant, x[0], level(1.0))
    assert not J.dense().any()
    assert not J.matmat(torch.eye(2, dtype=torch.float64)).any()
    # Half of the batch constant, half not: only the first is zero.
    half = jacobian_diagonal(lambda x, s: x * torch.tensor([0.0, 1.0]), x, level(1.0), torch.eye(2))
    assert half.tolist() == [[0.0, 1.0]] * 3


@pytest.mark.filterwarnings("ignore:the denoiser gives the same answer")
@pytest.mark.parametrize("strategy", ["shared", "repeated"])
def test_what_is_wrong_with_a_denoiser_is_said(strategy: Strategy) -> None:
    x, V = normal(0, 2), torch.eye(2, dtype=torch.float64)

    def product(denoiser: Denoiser) -> Tensor:
        return DenoiserJacobian(denoiser, x, level(0.5), strategy=strategy).rmatmat(V)

    with pytest.raises(InputError, match=r"NaN or infinity at sigma = 0\.5"):
        product(lambda x, s: x * math.nan)
    with pytest.raises(InputError, match="one clean point for each"):
        product(lambda x, s: x[:, :1])
    with pytest.raises(InputError, match="derivative is NaN"):
        product(lambda x, s: (x - x.detach()).abs().sqrt())
    with pytest.raises(InputError, match=r"remove its torch\.no_grad"):
        product(lambda x, s: torch.tanh(x.detach()))
    assert not product(lambda x, s: torch.ones_like(x)).any()
    constant_spectrum = spectrum(DenoiserJacobian(constant, x, level(1.0), strategy=strategy))
    assert constant_spectrum.nodes.tolist() == [[0.0, 0.0]]
    with pytest.raises(InputError, match="2 rows"):
        DenoiserJacobian(constant, x, level(1.0)).matmat(torch.eye(3))
    with pytest.raises(InputError, match="`chunk_size` is 0"):
        DenoiserJacobian(constant, x, level(1.0), 0)


DROPS = nn.Sequential(nn.Linear(2, 64), nn.Dropout(0.5), nn.Linear(64, 2)).double()

UNMEASURABLE: dict[str, tuple[Denoiser, float, str]] = {
    "without gradients": (torch.no_grad()(lambda x, s: torch.tanh(x)), 1.0, "detached"),
    "detached before weights": (lambda x, s: DROPS[0](x.detach())[:, :2], 1.0, "detached"),
    "rounded to bytes": (lambda x, s: (x * 127).round() / 127, 1.0, "detached"),
    "NaN": (lambda x, s: x * math.nan, 1.0, "NaN"),
    "NaN at the second point": (lambda x, s: (2.5 - x).sqrt(), 1.0, "derivative is NaN"),
    "another shape": (lambda x, s: x[:, :1], 1.0, "one clean point for each"),
    "a negative level": (lambda x, s: x, -1.0, "above 0"),
    "dropout": (lambda x, s: DROPS(x), 1.0, r"DROPS\.1 \(Dropout"),
}


@pytest.mark.parametrize("case", sorted(UNMEASURABLE))
def test_a_diagonal_says_what_is_wrong(case: str) -> None:
    denoiser, sigma, says = UNMEASURABLE[case]
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
    with pytest.raises(InputError, match=says):
        jacobian_diagonal(denoiser, x, level(sigma), torch.eye(2))


@pytest.mark.parametrize("case", sorted(set(UNMEASURABLE) - {"NaN at the second point"}))
@pytest.mark.parametrize("strategy", ["shared", "repeated"])
def test_products_say_what_is_wrong(case: str, strategy: Strategy) -> None:
    denoiser, sigma, says = UNMEASURABLE[case]
    x = torch.tensor([1.0, 2.0]).double()
    for measure in (spectrum, trace):
        with pytest.raises(InputError, match=says):
            measure(DenoiserJacobian(denoiser, x, level(sigma), strategy=strategy))


@pytest.mark.filterwarnings("ignore:the denoiser gives the same answer")
def test_a_posterior_that_has_collapsed_is_not_detached() -> None:
    # Just beside the middle of two points the nearer one has all weight, at a small level; a
    # level further the other one has it.
    memory = EmpiricalDenoiser(torch.tensor([[0.0], [1.0]]))
    x, sigma = torch.tensor([0.5008]), torch.tensor(1e-3)
    own = torch.ones(1, 1, 1)  # a set of directions a point: by derivatives
    for denoiser in (memory, lambda x, sigma: memory(x, sigma)):  # also where it cannot be seen
        assert DenoiserJacobian(denoiser, x, sigma).dense().tolist() == [[0.0]]
        assert jacobian_diagonal(denoiser, x[None], sigma, own).tolist() == [[0.0]]


@pytest.mark.filterwarnings("ignore:the denoiser gives the same answer")
def test_a_diagonal_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    jacobian_diagonal(slow.random_network(0, 3), normal(0, 2, 3), level(1.0), torch.eye(3))
    jacobian_diagonal(constant, normal(0, 2, 3), level(1.0), torch.eye(3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("strategy", ["shared", "repeated"])
def test_no_columns_and_no_points(strategy: Strategy) -> None:
    J = DenoiserJacobian(slow.random_network(0, 3), normal(0, 3), level(1.0), strategy=strategy)
    none = torch.zeros(3, 0).double()
    assert J.matmat(none).shape == J.rmatmat(none).shape == (3, 0)
    assert [part.shape for part in J.both(none)] == [(3, 0)] * 2
    assert J.symmetric_part.matmat(none).shape == (3, 0)
    found = jacobian_diagonal(J.denoiser, normal(0, 0, 3), level(1.0), torch.eye(3))
    assert found.shape == (0, 3)


def test_dense_agrees_with_differences_of_order_four() -> None:
    # Step h = 1e-3: h⁴ times a fifth derivative of about 10, and eps / h, are both 1e-11 to 1e-13.
    network, x, h = slow.random_network(0, 6), normal(1, 6), 1e-3
    D = lambda shift: network((x + shift)[None], level(0.5))[0].detach()  # noqa: E731
    steps = h * torch.eye(6, dtype=torch.float64)
    columns = [(8 * (D(s) - D(-s)) - (D(2 * s) - D(-2 * s))) / (12 * h) for s in steps]
    expected = torch.stack(columns, dim=1)
    for strategy in ("shared", "repeated"):
        J = DenoiserJacobian(network, x, level(0.5), strategy=strategy)
        torch.testing.assert_close(J.dense(), expected, rtol=0, atol=1e-8)
        eigenvalues = torch.linalg.eigvalsh((expected + expected.T) / 2).flip(0)
        torch.testing.assert_close(
            Dense()(J.symmetric_part).nodes[0], eigenvalues, rtol=0, atol=1e-8
        )


def test_any_callable_is_a_denoiser() -> None:
    # No module, no torch.func: a method of an object that loops and writes in place.
    class Odd:
        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            y = torch.zeros_like(x)
            for b in range(len(x)):
                y[b] = x[b].square() if float(x[b].sum().detach()) > 0 else 2 * x[b]
            return y

    x = torch.tensor([1.0, 3.0])
    for strategy in ("shared", "repeated"):
        J = DenoiserJacobian(Odd(), x, torch.tensor(1.0), strategy=strategy)
        assert J.dense().tolist() == [[2.0, 0.0], [0.0, 6.0]]
        assert J.symmetric_part.matmat(torch.eye(2)).tolist() == [[2.0, 0.0], [0.0, 6.0]]

    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match="of the user"):
        DenoiserJacobian(broken, x, torch.tensor(1.0)).dense()


# ------------------------------------------------------------------------- float64 and cost


def test_the_check_in_float64(network: nn.Module) -> None:
    network = network.float()
    x, sigma = normal(0, 1, 8, 8).float(), torch.tensor(0.5)
    found = DenoiserJacobian(network, x, sigma).check()
    assert 1e-8 < found.value < 1e-5  # rounding of float32
    assert all(p.dtype == torch.float32 for p in network.parameters())  # a copy was converted

    class Half(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            weight = torch.linspace(0.1, 1, x.shape[-1], dtype=x.dtype)
            return x * (weight if x.dtype == torch.float64 else weight.half().to(x))

    coarse = DenoiserJacobian(Half(), torch.ones(64), sigma).check()
    assert 1e-5 < coarse.value < 1e-3  # half precision has 11 bits
    exact = GaussianDenoiser(torch.zeros(3), torch.tensor([1.0, 0.5, 0.0]))
    assert DenoiserJacobian(exact, torch.ones(3), sigma).check().value < 1e-6


def test_networks_are_found_behind_a_denoiser(network: nn.Module) -> None:
    network = network.float()

    @dataclass(frozen=True)
    class Scaled:
        inner: nn.Module
        by: float = 0.5

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            out: Tensor = self.by * self.inner(x, sigma)
            return out

    x, sigma = normal(0, 1, 8, 8).float(), torch.tensor(0.5)
    assert DenoiserJacobian(Scaled(network), x, sigma).check().value < 1e-5
    hidden = lambda x, sigma: network(x, sigma)  # noqa: E731
    with pytest.raises(InputError, match=r"no float64 copy; pass an nn\.Module"):
        DenoiserJacobian(hidden, x, sigma).check()


def test_chunks_come_from_the_budget(network: nn.Module) -> None:
    network = network.float()
    x, sigma, V = normal(0, 1, 8, 8).float(), torch.tensor(0.5), normal(1, 64, 5)
    roomy = DenoiserJacobian(network, x, sigma)
    assert roomy.columns_at_a_time() == 98
    # What one point keeps: at least each of the two attention blocks' 64 x 64 weights a head.
    assert roomy.column_bytes() > 4 * 64 * 64 * 2
    tight = DenoiserJacobian(network, x, sigma, max_bytes=2.5 * roomy.column_bytes())
    assert tight.columns_at_a_time() == 2
    assert relative(tight.matmat(V.float()), roomy.matmat(V.float()).double()) < 1e-5
    starved = DenoiserJacobian(network, x, sigma, max_bytes=1)
    assert starved.columns_at_a_time() == 1


def test_an_operator_leaves_nothing_behind() -> None:
    # A graph that holds its own output is never freed; it cost 7 MB a point, and 20 GB an hour.
    # Arrays tell: a tensor's wrapper in Python is gone long before its memory.
    left: list[weakref.ref[np.ndarray]] = []

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        factors = np.ones(6)
        left.append(weakref.ref(factors))
        return (x * torch.from_numpy(factors)).tanh()  # whose derivative is its own output

    J = DenoiserJacobian(watched, normal(1, 6), level(1.0))
    J.matmat(normal(2, 6, 2))
    del J
    gc.collect()
    assert len(left) > 2
    assert all(ref() is None for ref in left)


def test_a_denoiser_may_differentiate_inside() -> None:
    # A score as the gradient of a log-density: counting what a pass keeps must not disturb it.
    def from_density(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x if x.requires_grad else x.detach().requires_grad_()
            energy = -(point.square() + 0.1 * point.tanh().exp()).sum() / (2 * (1 + sigma**2))
            (s,) = torch.autograd.grad(energy, point, create_graph=True)
        return x + sigma**2 * s

    x, sigma = normal(0, 5), level(0.7)
    J = DenoiserJacobian(from_density, x, sigma, strategy="repeated")
    u, t = x.tanh(), x.tanh().exp()
    second = 2 + 0.1 * t * ((1 - u**2) ** 2 - 2 * u * (1 - u**2))
    expected = 1 - sigma**2 * second / (2 * (1 + sigma**2))
    torch.testing.assert_close(J.dense(), torch.diag(expected))
    assert J.column_bytes() > 0


def test_the_faster_strategy_gives_the_same(network: nn.Module) -> None:
    network = network.float()
    J = DenoiserJacobian(network, normal(0, 1, 8, 8).float(), torch.tensor(0.5))
    tuned, V = J.tuned(), normal(1, 64, 3).float()
    assert tuned.strategy in ("shared", "repeated")
    assert relative(tuned.rmatmat(V), J.rmatmat(V).double()) < 1e-5


def test_costs_are_said_before(network: nn.Module) -> None:
    network = network.float()
    J = DenoiserJacobian(network, normal(0, 1, 8, 8).float(), torch.tensor(0.5))
    full = J.cost(Dense())
    assert full.products == 64
    assert 0 < full.seconds < 60
    assert full.num_bytes > 64 * J.column_bytes()
    assert repr(full).startswith("64 products, about ")
    sampled = J.symmetric_part.cost(LanczosQuadrature(depth=5, probes=3))
    assert sampled.products == 15
    assert J.cost(AdaptiveTrace()).products >= trace(J).products

    class Own:
        def products(self, n: int) -> int:
            return 2 * n

    assert Matrix(torch.eye(3)).cost(Own()).products == 6


def test_a_forecast_is_products_times_the_time_of_one() -> None:
    class Slow(Matrix):
        def rmatmat(self, U: Tensor) -> Tensor:
            time.sleep(0.002 * U.shape[1])  # 2 ms a column
            return super().rmatmat(U)

    class Two:
        def need(self, n: int) -> Need:
            return Need(products=600, columns=10, one_sided=True)

        def products(self, n: int) -> int:
            return 600

    # Sleeping takes longer on a busy machine, never less.
    assert 1.2 <= Slow(torch.eye(20)).cost(Two()).seconds < 3


def test_the_jacobian_against_differences() -> None:
    network, x = slow.random_network(0, 5), normal(1, 5)

    def fn(p: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = network(p[None], level(0.5))[0]
        return out

    expected = slow.difference_jacobian(fn, x)  # central differences: 1e-10 of third derivatives
    torch.testing.assert_close(
        DenoiserJacobian(network, x, level(0.5)).dense(), expected, rtol=0, atol=1e-8
    )


def test_a_matrix_as_an_operator() -> None:
    A, V = normal(0, 4, 4), normal(1, 4, 2)
    operator = Matrix(A)
    torch.testing.assert_close(operator.matmat(V), A @ V)
    torch.testing.assert_close(operator.rmatmat(V), A.T @ V)
    torch.testing.assert_close(operator.symmetric_part.dense(), (A + A.T) / 2)
    part = operator.symmetric_part
    assert part.symmetric_part is part
    with pytest.raises(InputError, match="square"):
        Matrix(normal(0, 4, 3))
