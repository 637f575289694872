r"""The paper's differences of scores: what their singular values must be."""

from __future__ import annotations

import math

import pytest
import torch

from geomem.dimension.differences import (
    OrthogonalDifferences,
    haar_blocks,
    haar_rows,
    image_directions,
)
from geomem.dimension.scores import NormalBundle
from geomem.errors import InputError
from geomem.stats import torch_rng
from tests.references import level, normal, rotation

VALUES = torch.cat([torch.tensor([0.9, 0.7, 0.4]), torch.zeros(5)]).double()
FRAME = rotation(0, 8)


def linear(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(1)
    return ((flat @ FRAME * VALUES) @ FRAME.T).reshape(x.shape)


def test_a_linear_denoiser_at_the_centre() -> None:
    # S = sigma Z (D - 1)/sigma², Z orthogonal: the singular values are (1 - lambda)/sigma.
    for symmetrised in (False, True):
        s = OrthogonalDifferences(symmetrised=symmetrised)(
            linear, torch.zeros(8).double(), level(0.1)
        )
        assert torch.allclose(s, ((1 - VALUES) / 0.1).sort(descending=True).values, atol=1e-5)


def test_symmetrised_differences_see_no_offset() -> None:
    x_0 = 5 * normal(1, 8)
    method = OrthogonalDifferences(symmetrised=True)
    expected = ((1 - VALUES) / 0.1).sort(descending=True).values
    assert torch.allclose(method(linear, x_0, level(0.1)), expected, atol=1e-8)
    raw = OrthogonalDifferences()(linear, x_0, level(0.1))
    assert float(raw[0]) > 3 * float(expected[0])  # the offset: one leading value
    # By a rank-one term, all values interlace (Weyl).
    assert bool((raw[1:] <= expected[:-1] + 1e-8).all())
    assert bool((raw[:-1] >= expected[1:] - 1e-8).all())


def test_by_a_loop() -> None:
    x_0, sigma = normal(2, 8), 0.3
    z = haar_rows(8, 8, torch_rng(5, "differences"))
    rows = [(linear((x_0 + sigma * v)[None], level(sigma))[0] - x_0 - sigma * v) / 0.09 for v in z]
    s = OrthogonalDifferences(seed=5)(linear, x_0, level(sigma))
    assert torch.allclose(s, torch.linalg.svdvals(torch.stack(rows)), atol=1e-10)


def test_haar_rows_are_orthogonal_and_uniform() -> None:
    blocks = haar_blocks(4000, 3, torch_rng(0, "test"))
    identity = torch.eye(3).double()
    assert torch.allclose(blocks @ blocks.mT, identity.expand_as(blocks), atol=1e-12)
    # Haar: the trace has mean 0 and variance 1 (QR alone gives a mean of -1.2 or so).
    traces = blocks.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(traces.mean())) < 4 / math.sqrt(4000)
    assert float(traces.var()) == pytest.approx(1, abs=0.15)
    rows = haar_rows(20, 8, torch_rng(0, "test"))
    assert rows.shape == (20, 8)
    assert torch.allclose(rows[8:16] @ rows[8:16].T, torch.eye(8).double(), atol=1e-12)


def test_images_have_one_block_per_channel() -> None:
    z = image_directions(7, (3, 4, 4), torch_rng(0, "test"))
    assert z.shape == (7, 3, 4, 4)
    assert torch.allclose(z @ z.mT, torch.eye(4).double().expand_as(z), atol=1e-12)
    assert torch.allclose(z.flatten(1).norm(dim=1), torch.full((7,), 12.0).double().sqrt())


def test_images_take_four_times_as_many() -> None:
    sizes: list[int] = []

    def counted(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x / 2

    method, x = OrthogonalDifferences(), torch.zeros(2, 3, 3)
    s = method(counted, x, level(0.1))
    assert sum(sizes[-2:]) >= method.num_calls((2, 3, 3)) == 4 * 18
    assert s.shape == (18,)
    # 4 d independent directions of length sqrt(2 * 3), (1 - 1/2)/sigma each: the mean square is
    # fixed, sum of s² = K |z|² 25.
    assert float(s.square().sum()) == pytest.approx(72 * 6 * 25, rel=1e-5)
    assert OrthogonalDifferences(directions="vectors", factor=1).num_calls((2, 3, 3)) == 18
    assert OrthogonalDifferences(symmetrised=True).num_calls((9,)) == 18


def test_chunks_change_nothing() -> None:
    x = normal(3, 8)
    one, two = (OrthogonalDifferences(chunk_size=c)(linear, x, level(0.2)) for c in (3, 100))
    assert torch.allclose(one, two, atol=1e-12)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="square images"):
        OrthogonalDifferences(directions="images")(linear, torch.zeros(8).double(), level(0.1))
    with pytest.raises(InputError, match="factor"):
        OrthogonalDifferences(factor=0)
    with pytest.raises(InputError, match="vectors"):
        OrthogonalDifferences(directions="rows")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="above 0"):
        OrthogonalDifferences()(linear, torch.zeros(8).double(), level(0.0))
    with pytest.raises(InputError, match="NaN"):
        OrthogonalDifferences()(linear, torch.full((8,), math.nan), level(0.1))


def test_nan_away_from_the_point_is_told() -> None:
    def edge(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1] > 0.001, math.nan, x / 2)

    for symmetrised in (False, True):
        with pytest.raises(InputError, match="NaN or infinity at noise"):
            OrthogonalDifferences(symmetrised=symmetrised)(edge, torch.zeros(8), level(0.1))
    with pytest.raises(InputError, match="NaN or infinity at noise"):
        NormalBundle()(edge, torch.zeros(8), level(0.1))
