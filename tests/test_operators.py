r"""Products with Jacobians against dense ones, also through attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.operators import DenoiserJacobian, Matrix, jacobian_diagonal
from tests import references as slow
from tests.references import level, normal


class AttentionUNet(nn.Module):
    r"""diffusers' U-Net with attention at both ends, as a denoiser of 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet = UNet2DModel(
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
def dense(network: nn.Module) -> Tensor:
    r"""The dense Jacobian in float64 at one point, by plain autograd, row by row."""
    J = slow.jacobian(network.double(), normal(0, 1, 8, 8), level(0.5))
    network.float()
    return J


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.cpu().double() - b).norm() / b.norm())


# Float64 leaves 1e-13 after a few hundred sums; float32 about 1e-6: ten times that is asked.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk_size", [3, None])
def test_products_through_attention(
    network: nn.Module,
    dense: Tensor,
    dtype: torch.dtype,
    tolerance: float,
    chunk_size: int | None,
    device: torch.device,
) -> None:
    network = network.to(device, dtype)
    assert any("attentions" in name for name, _ in network.named_modules())
    x, sigma = normal(0, 1, 8, 8).to(device, dtype), torch.tensor(0.5).to(device, dtype)
    V = normal(1, 64, 5)
    J = DenoiserJacobian(network, x, sigma, chunk_size)
    assert relative(J.matmat(V.to(device, dtype)), dense @ V) < tolerance
    assert relative(J.rmatmat(V.to(device, dtype)), dense.T @ V) < tolerance
    assert relative(J.dense(), dense) < tolerance
    symmetric = J.symmetric_part
    expected = (dense + dense.T) / 2
    assert relative(symmetric.matmat(V.to(device, dtype)), expected @ V) < tolerance
    assert relative(symmetric.rmatmat(V.to(device, dtype)), expected @ V) < tolerance
    assert relative(symmetric.dense(), expected) < tolerance
    assert relative(dense.T @ V, dense @ V) > 0.1  # so J and its transpose are told apart


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_diagonals_through_attention(
    network: nn.Module, dense: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    network = network.to(dtype)
    x = torch.cat([normal(0, 1, 8, 8)[None], normal(5, 2, 1, 8, 8)]).to(dtype)
    U = normal(1, 64, 4)
    sigma = torch.tensor(0.5, dtype=dtype)
    diagonal = jacobian_diagonal(network, x, sigma, U)
    assert diagonal.dtype == torch.float64
    expected = (U * (dense @ U)).sum(0)
    scale = float(dense.norm() * U.square().sum(0).max())  # the sum cancels, its terms do not
    assert float((diagonal[0] - expected).abs().max()) < tolerance * scale
    own = torch.stack([U, normal(2, 64, 4), normal(3, 64, 4)])  # a set of directions a point
    each = jacobian_diagonal(network, x, sigma, own)
    torch.testing.assert_close(each[0], diagonal[0], rtol=0, atol=tolerance * scale)
    other = jacobian_diagonal(network, x[1:2], sigma, own[1])
    torch.testing.assert_close(each[1], other[0], rtol=0, atol=tolerance * scale)


def test_asking_does_not_leave_gradients_behind(network: nn.Module) -> None:
    network = network.float()
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


def test_a_constant_denoiser_has_no_directions() -> None:
    x = normal(0, 3, 2)
    assert not jacobian_diagonal(constant, x, level(1.0), torch.eye(2)).any()
    J = DenoiserJacobian(constant, x[0], level(1.0))
    assert not J.dense().any()
    assert not J.matmat(torch.eye(2, dtype=torch.float64)).any()
    # Half of the batch constant, half not: only the first is zero.
    half = jacobian_diagonal(lambda x, s: x * torch.tensor([0.0, 1.0]), x, level(1.0), torch.eye(2))
    assert half.tolist() == [[0.0, 1.0]] * 3


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
