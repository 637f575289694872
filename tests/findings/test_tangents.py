r"""Tangent spaces against matrices that are known, and angles against planted turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import geomem
from geomem.findings.tangents import angle, turns
from geomem.measure.tangents import TangentSpaces, jacobian_by_differences
from geomem.models.networks import NetworkConfig
from geomem.operators import DenoiserJacobian
from geomem.runs.tangents import Tangents
from geomem.testing import check_probe


def test_the_probe_is_one() -> None:
    check_probe(TangentSpaces(2))


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig("unet", (1, 8, 8), 0.5, channels=(8, 8)),
        NetworkConfig("mlp", (12,), 0.5, width=16),
    ],
)
def test_differences_agree_with_products(config: NetworkConfig) -> None:
    network = config.build(0).eval()
    rng = torch.Generator().manual_seed(0)
    for parameter in network.parameters():  # not the zeros that a last layer begins with
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=rng)
    x = torch.randn(config.item_shape, generator=rng)
    J = jacobian_by_differences(network, x, 0.2)
    exact = DenoiserJacobian(network, x, torch.tensor(0.2)).dense().detach().double().numpy()
    assert np.linalg.norm(J - exact, 2) < 2e-3 * np.linalg.norm(exact, 2)


def planted(turned: float, d: int = 40, m: int = 3) -> xr.Dataset:
    r"""Networks of two sizes and seeds whose spaces differ by a turn of each direction."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(d, 2 * m)))[0].T
    cos, sin = np.cos(turned), np.sin(turned)
    first, second = basis[:m], cos * basis[:m] + sin * basis[m:]
    spaces = np.full((4, 1, 1, 2, m + 1, d), np.nan)
    for k, space in enumerate((second, second, first, first)):
        spaces[k, ..., :m, :] = space
    values = np.broadcast_to([0.9, 0.8, 0.7, 0.2], (4, 1, 1, 2, 4))
    dims = ("subject", "at", "sigma", "point", "tangent")
    return xr.Dataset(
        {"tangent_vector": ((*dims, "coordinate"), spaces), "tangent_value": (dims, values)},
        {
            "kind": ("subject", np.array(["learned"] * 4, dtype=object)),
            "measured": ("subject", [True] * 4),
            "num_samples": ("subject", [30.0, 30, 300, 300]),
            "seed": ("subject", [0.0, 1, 0, 1]),
            "at": ["training"],
            "sigma": [0.1],
            "sigma_relative": ("sigma", [0.3]),
        },
    )


@pytest.mark.parametrize("degrees", [0.0, 20.0, 90.0])
def test_a_planted_turn_is_found_again(degrees: float) -> None:
    found = turns(planted(np.radians(degrees)), 3)
    one = found.sel(num_samples=30, at="training").isel(sigma=0)
    assert abs(angle(float(one.to_largest)).value - degrees) < 1e-3
    assert angle(float(one.between_seeds)).value < 1e-3
    assert abs(float(one.gap) - 0.5) < 1e-12
    assert found.attrs["unrelated"] == 3 / 40


def test_unrelated_spaces_overlap_as_they_should() -> None:
    rng = np.random.default_rng(1)
    q = []
    for _ in range(400):
        A, B = (np.linalg.qr(rng.normal(size=(30, 5)))[0] for _ in (0, 1))
        q.append(np.square(A.T @ B).sum() / 5)
    assert abs(np.mean(q) - 5 / 30) < 4 * np.std(q) / 20


def test_a_run_of_tangents_is_summarised(tmp_path: Path) -> None:
    sweep = geomem.Sweep(
        "linear", sizes=(16, 32), steps=4, seeds=(0, 1), widths=(8,), levels=3, points=8, draws=1,
        samples=0, trajectories=0, jacobian_points=0,
    )  # fmt: skip
    sweep.run(tmp_path / "sweep", processes=1, quiet=True)
    asked = Tangents(network=(tmp_path / "sweep",), sigmas=(0.3,), points=2, rank=4)
    dataset = asked.run(tmp_path / "tangents", processes=1, quiet=True)
    names = {str(n) for n in (*dataset.data_vars, *dataset.dims)}
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    assert not [name for name in names if f"`{name}`" not in text]
    summary = (tmp_path / "tangents" / "summary.json").read_text()
    assert "leading directions of networks on 16 images lie" in summary
    # The population of a plane keeps its own axes.
    row = dataset.isel(subject=int(np.flatnonzero(dataset["kind"].values == "population")[0]))
    vector = row.tangent_vector.sel(at="training").isel(sigma=0, point=0).values
    assert np.abs(vector[:2, :2]).max() > 0.7
    assert np.abs(vector[:2, 7:]).max() < 0.05
