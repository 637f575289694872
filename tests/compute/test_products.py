r"""Full float32 while it is measured, and the user's choice given back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from geomem.compute.products import float32_products
from geomem.operators.jacobian import DenoiserJacobian

SAY = """
import torch
from geomem.compute.products import float32_products
b = torch.backends
{choice}
def state():
    return [b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision] if {new} else [
        torch.get_float32_matmul_precision(), b.cudnn.allow_tf32]
before = state()
try:
    with float32_products():
        print(state())
        raise ValueError
except ValueError:
    print(state() == before)
"""


@pytest.mark.parametrize(
    ("choice", "inside"),
    [
        ("", "['highest', False]"),
        ("torch.set_float32_matmul_precision('high')", "['highest', False]"),
        ("b.cuda.matmul.allow_tf32 = True", "['highest', False]"),
        (
            "b.cudnn.conv.fp32_precision = 'tf32'; b.cudnn.rnn.fp32_precision = 'ieee'",
            "['ieee', 'ieee']",
        ),
    ],
)
def test_it_holds_inside_and_is_given_back(choice: str, inside: str) -> None:
    new = "fp32_precision" in choice
    if new and not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this torch has the older interface only")
    code = SAY.format(choice=choice, new=new)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n")[:2] == [inside, "True"]


def test_a_convolution_on_a_card_has_all_its_bits(device: torch.device) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)
    x = torch.randn(1, 16, 8, 8)
    exact = conv.double()(x.double()).float()
    conv = conv.float().to(device)
    with float32_products():
        assert (conv(x.to(device)).cpu() - exact).abs().max() < 1e-5


def test_a_jacobian_is_computed_so() -> None:
    seen = []

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return 0.5 * x

    DenoiserJacobian(denoiser, torch.zeros(3), 1.0).matmat(torch.eye(3))
    assert seen[0]  # the first call only looks whether it can be measured
    assert not seen[-1]
    assert torch.backends.cudnn.allow_tf32
