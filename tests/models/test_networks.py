r"""Backbones and what turns them into denoisers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.models.networks import (
    NetworkConfig,
    PreconditionedDenoiser,
    load_network,
    save_network,
)
from geomem.operators import jacobian_diagonal
from tests.references import level, normal

MLP = NetworkConfig("mlp", (1, 3, 4), sigma_data=0.5, width=32, blocks=2)
UNET = NetworkConfig("unet", (2, 9, 7), sigma_data=0.5, channels=(8, 16))
BOTH = pytest.mark.parametrize("config", [MLP, UNET], ids=["mlp", "unet"])


def moved(config: NetworkConfig, seed: int = 0) -> PreconditionedDenoiser:
    r"""A network away from its start, where its output is no longer zero."""
    denoiser = config.build(seed).eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return denoiser


def points(config: NetworkConfig, count: int = 3) -> Tensor:
    return normal(5, count, *config.item_shape).float()


@BOTH
def test_the_same_seed_is_the_same_network(config: NetworkConfig) -> None:
    before = torch.get_rng_state()
    states = [config.build(seed).state_dict() for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's randomness is touched
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


@BOTH
def test_shapes_dtypes_and_levels(config: NetworkConfig) -> None:
    denoiser, x = moved(config), points(config)
    for sigma in (torch.tensor(0.3), torch.tensor([0.1, 0.3, 2.0]), level(0.3)):
        denoised = denoiser(x, sigma)
        assert denoised.shape == x.shape
        assert denoised.dtype == torch.float32
        assert bool(torch.isfinite(denoised).all())
    together = denoiser(x, torch.tensor([0.1, 0.3, 2.0]))
    # Points do not see each other, and each sees its own level; float32 rounding.
    for k, own in enumerate((0.1, 0.3, 2.0)):
        alone = denoiser(x[k : k + 1], torch.tensor(own))[0]
        torch.testing.assert_close(together[k], alone, rtol=0, atol=1e-5)
    low, high = (denoiser(x, torch.tensor(s)).detach() for s in (0.1, 2.0))
    assert float((low - high).abs().max()) > 0.1


@BOTH
def test_derivatives_exist(config: NetworkConfig) -> None:
    denoiser, x = moved(config).double(), points(config, 1).double()
    d = x.numel()
    u = torch.nn.functional.normalize(normal(1, d, 1), dim=0)
    found = float(jacobian_diagonal(denoiser, x, level(0.3), u))
    step = 1e-5 * u.T.reshape(x.shape)
    with torch.no_grad():
        change = denoiser(x + step, level(0.3)) - denoiser(x - step, level(0.3))
    assert found == pytest.approx(float(change.flatten() @ u[:, 0]) / 2e-5, abs=1e-7)


class Ones(nn.Module):
    r"""A backbone that returns ones and remembers what it saw."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.x, self.c_noise = x, c_noise
        return torch.ones_like(x)


def test_preconditioning_keeps_variances_at_one() -> None:
    backbone, n = Ones(), 200_000
    denoiser = PreconditionedDenoiser(backbone, sigma_data=0.5)
    for sigma in (0.02, 0.5, 10.0):
        x_0, z = 0.5 * normal(0, n, 1), normal(1, n, 1)
        x = x_0 + sigma * z
        skip = denoiser(0 * x, level(sigma))[0]  # c_out, since c_skip meets 0
        c_out = sigma * 0.5 / (sigma**2 + 0.25) ** 0.5
        assert float(skip) == pytest.approx(c_out)
        denoised = denoiser(x, level(sigma))
        # What is left for the network to predict, and what it is shown, have variance 1;
        # variances of n draws are known to sqrt(2/n) = .3 %.
        target = (x_0 - (denoised - c_out)) / c_out
        assert float(target.var()) == pytest.approx(1, abs=0.013)
        assert float(backbone.x.var()) == pytest.approx(1, abs=0.013)
        expected = torch.full((n,), sigma).double().log() / 4
        torch.testing.assert_close(backbone.c_noise, expected, rtol=0, atol=1e-6)


def test_an_untrained_mlp_is_the_best_linear_denoiser() -> None:
    x = points(MLP)
    expected = x * 0.25 / (0.25 + 0.09)  # its last layer starts at zero
    torch.testing.assert_close(MLP.build(0)(x, torch.tensor(0.3)), expected)


def test_images_that_strides_do_not_divide() -> None:
    # Padded at the bottom and the right: the content of the image decides, not its size.
    denoiser = moved(NetworkConfig("unet", (1, 5, 6), 0.5, channels=(8, 8, 16)))
    x = normal(0, 2, 1, 5, 6).float()
    assert denoiser(x, torch.tensor(0.5)).shape == x.shape


def test_a_unet_needs_images() -> None:
    with pytest.raises(InputError, match="use an mlp"):
        NetworkConfig("unet", (12,), 0.5).build(0)


@BOTH
def test_networks_survive_the_disk(config: NetworkConfig, tmp_path: Path) -> None:
    denoiser, x = moved(config), points(config)
    save_network(denoiser, config, tmp_path / "network")
    again = load_network(tmp_path / "network")
    assert torch.equal(again(x, torch.tensor(0.3)), denoiser(x, torch.tensor(0.3)))  # bitwise
    assert not again.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["network.json", "network.safetensors"]


@pytest.mark.parametrize("damage", ["weights", "json", "other", "missing", "unknown"])
def test_damaged_networks(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "network"
    save_network(moved(MLP), MLP, path)
    if damage == "weights":
        path.with_suffix(".safetensors").write_bytes(b"not weights")
    elif damage == "json":
        path.with_suffix(".json").write_text("{")
    elif damage == "missing":
        path.with_suffix(".safetensors").unlink()
    else:
        config = json.loads(path.with_suffix(".json").read_text())
        config["width" if damage == "other" else "depth"] = 64
        path.with_suffix(".json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="train it again"):
        load_network(path)


@pytest.mark.parametrize("channels", [(12, 30), (7,), (6, 12), (32, 64)])
def test_the_groups_of_the_norms_divide_any_channels(channels: tuple[int, ...]) -> None:
    network = NetworkConfig("unet", (1, 4, 4), 0.5, channels=channels).build(0)
    assert network(torch.zeros(1, 1, 4, 4), torch.tensor(1.0)).shape == (1, 1, 4, 4)
