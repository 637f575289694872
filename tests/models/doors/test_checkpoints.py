r"""Files of weights, functions by name, and networks of geomem's own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from geomem.errors import InputError
from geomem.models.doors import check_model, load_model
from geomem.models.networks import NetworkConfig, save_network
from tests.models.doors.strangers import Shrinking, images, population

HERE = "tests.models.doors.strangers"
LEVEL = torch.tensor(0.5)


def ddpm_file(path: Path, objective: str, *, clipped: bool = False, averaged: bool = True) -> Path:
    r"""A ``model-N.pt`` as the trainer of denoising-diffusion-pytorch writes it."""
    bars = torch.linspace(0.999, 0.001, 100)
    snr = bars / (1 - bars)
    weight = snr.clamp(max=5) if clipped else snr
    weight = {"epsilon": weight / snr, "sample": weight, "v": weight / (snr + 1)}[objective]
    state = Shrinking().state_dict()
    model = {f"model.{k}": v for k, v in state.items()}
    model |= {"alphas_cumprod": bars, "loss_weight": weight}
    ema = {f"ema_model.model.{k}": 2 * v for k, v in state.items()}
    ema |= {"initted": torch.tensor(data=True), "step": torch.tensor(7)}
    content = {"step": 700, "model": model, "opt": {"state": {}}, "scaler": None, "version": "2"}
    torch.save(content | ({"ema": ema} if averaged else {"ema": None}), path)
    return path


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("objective", ["epsilon", "sample", "v"])
def test_a_file_of_ddpm_tells_schedule_and_objective(
    objective: str, clipped: bool, tmp_path: Path
) -> None:
    path = ddpm_file(tmp_path / "model-7.pt", objective, clipped=clipped)
    model = load_model(path, network=f"{HERE}:Shrinking")
    assert model.about["prediction"] == {"v": "v_prediction"}.get(objective, objective)
    assert model.about["step"] == 700
    assert model.flips is True
    assert "mirrored" in model.about["warnings"][0]
    bars = torch.linspace(0.999, 0.001, 100).double()
    torch.testing.assert_close(
        torch.tensor(model.levels), (1 / bars - 1).sqrt(), rtol=1e-4, atol=1e-6
    )
    raw = load_model(path, network=f"{HERE}:Shrinking", weights="raw")
    assert not torch.equal(*(m.denoiser(images(1), LEVEL) for m in (model, raw)))


def test_a_file_of_ddpm_says_what_it_lacks(tmp_path: Path) -> None:
    path = ddpm_file(tmp_path / "model-7.pt", "v", averaged=False)
    model = load_model(path, network=f"{HERE}:Shrinking")
    assert "raw weights" in model.about["warnings"][-1]
    with pytest.raises(InputError, match=r"no weights for .* sizes of its training"):
        load_model(path, network=f"{HERE}:tiny_unet")
    if importlib.util.find_spec("denoising_diffusion_pytorch") is None:
        with pytest.raises(InputError, match="which is not installed; install it, or pass"):
            load_model(path)
    content = torch.load(path, weights_only=True)
    content["model"]["loss_weight"] = torch.rand(100)
    torch.save(content, path)
    with pytest.raises(InputError, match="does not tell what its network predicts"):
        load_model(path, network=f"{HERE}:Shrinking")


def test_a_file_of_torchcfm_runs_from_noise_to_data(tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in Shrinking().state_dict().items()}
    torch.save({"net_model": state, "ema_model": state, "step": 9}, tmp_path / "it.pt")
    model = load_model(tmp_path / "it.pt", network=f"{HERE}:TimeFirst")
    x, t = images(2), 1 / 1.5  # sigma = (1 - t)/t
    flow = 0.5 * (t * x) + 0.1 * t  # x_0 - e at x_t = t x
    torch.testing.assert_close(model.denoiser(x, LEVEL), t * x + (1 - t) * flow)
    assert "no posterior mean" in model.about["warnings"][0]


def test_a_file_of_k_diffusion_has_its_config_in_the_header(tmp_path: Path) -> None:
    config = {
        "model": {"input_channels": 1, "input_size": [8, 8], "sigma_data": 0.7, "sigma_max": 50},
        "dataset": {"num_classes": 0},
    }
    path = tmp_path / "it.safetensors"
    save_file(Shrinking().state_dict(), path, {"config": json.dumps(config)})
    model = load_model(path, network=f"{HERE}:Shrinking")
    assert (model.item_shape, model.sigma_range) == ((1, 8, 8), (0.01, 50.0))
    x, total = images(2), 0.5**2 + 0.7**2
    inner = 0.5 * x / total**0.5 + 0.1 * 0.5  # told sigma itself
    expected = 0.7**2 / total * x + 0.5 * 0.7 / total**0.5 * inner
    torch.testing.assert_close(model.denoiser(x, LEVEL), expected)
    save_file(Shrinking().state_dict(), path, {"config": "{}"})
    with pytest.raises(InputError, match="no config of k-diffusion"):
        load_model(path, network=f"{HERE}:Shrinking")


def test_bare_weights_are_asked_for_all_else(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    save_file(Shrinking().state_dict(), path)
    with pytest.raises(InputError, match="bare weights; pass `network`"):
        load_model(path)
    with pytest.raises(InputError, match="pass `prediction`"):
        load_model(path, network=f"{HERE}:Shrinking", schedule="cosine")
    named: dict[str, Any] = {"schedule": "cosine", "prediction": "v"}
    model = load_model(path, network=f"{HERE}:Shrinking", **named)
    assert model.denoiser(images(2), LEVEL).shape == (2, 1, 8, 8)
    with pytest.raises(InputError, match="built a int; return a torch module"):
        load_model(path, network=f"{HERE}:not_a_network", **named)
    save_file({"other": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="no weights for 2 of 2 tensors"):
        load_model(path, network=f"{HERE}:Shrinking", **named)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never be printed",))


def test_pickles_are_refused_with_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": Code()}, tmp_path / "it.pt")
    with pytest.raises(InputError, match=r"holds more than tensors.*package.module:function"):
        load_model(tmp_path / "it.pt")
    (tmp_path / "network-snapshot-1.pkl").write_bytes(b"\x80\x04.")
    options = {"network_kwargs": {"class_name": "training.networks.EDMPrecond"}}
    (tmp_path / "training_options.json").write_text(json.dumps(options))
    with pytest.raises(InputError, match=r"says EDMPrecond.*a function of"):
        load_model(tmp_path / "network-snapshot-1.pkl")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"broken\.pt"):
        load_model(tmp_path / "broken.pt")
    assert "never be printed" not in capsys.readouterr().out


# -------------------------------------------------------------------------------- functions


def test_a_function_is_called_with_points_and_levels() -> None:
    model = load_model(f"{HERE}:halving")
    torch.testing.assert_close(model.denoiser(images(2), LEVEL), images(2) / 2)
    assert "which levels it was trained on" in model.about["warnings"][0]
    knowing = load_model(f"{HERE}:knowing")
    assert (knowing.sigma_range, knowing.item_shape) == ((0.1, 9.0), (1, 8, 8))
    assert knowing.about["warnings"] == []
    assert knowing.bind is not None
    bound = knowing.bind([1.0, 3.0])(images(2), LEVEL)
    torch.testing.assert_close(bound[1], 3 * images(2)[1])


def test_a_function_with_a_prediction_is_a_network() -> None:
    model = load_model(f"{HERE}:network_of_noise", prediction="epsilon", schedule="linear")
    x = images(2)
    expected = x - 0.5 * 0.1 * x / 1.25**0.5
    torch.testing.assert_close(model.denoiser(x, LEVEL), expected)
    with pytest.raises(InputError, match="pass `schedule`"):
        load_model(f"{HERE}:network_of_noise", prediction="epsilon")


def test_a_denoiser_of_azula_is_asked_at_its_own_times() -> None:
    model = load_model(f"{HERE}:azula_like")
    assert model.sigma_range[0] < 0.01 < 100 < model.sigma_range[1]
    x = images(3).double()
    for sigma in (0.05, 0.5, 3.0):
        level = torch.tensor(sigma, dtype=torch.float64)
        torch.testing.assert_close(
            model.denoiser(x, level), population()(x, level), rtol=1e-4, atol=1e-5
        )
    assert all(c.passed for c in check_model(model, images(24, seed=5)))


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("nowhere.at_all:it", "cannot be imported"),
        (f"{HERE}:nothing", "has no nothing"),
        (f"{HERE}:math", "name a function of"),
    ],
)
def test_what_is_no_function_is_refused(where: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_model(where)


# -------------------------------------------------------------------------------- our own


def test_networks_of_geomem_come_in_by_file_or_folder(tmp_path: Path) -> None:
    config = NetworkConfig("mlp", (1, 8, 8), 0.3, width=16, blocks=1)
    network = config.build(seed=1).eval()
    stem = tmp_path / "N000032-0"
    save_network(network, config, stem)
    places = (tmp_path, stem, stem.with_suffix(".json"), stem.with_suffix(".safetensors"))
    for place in places:
        model = load_model(place)
        assert torch.equal(model.denoiser(images(2), LEVEL), network(images(2), LEVEL))
    assert model.sigma_range == (network.sigma_min, network.sigma_max)
    assert model.flips is False
    save_network(network, config, tmp_path / "N000064-0")
    with pytest.raises(InputError, match="holds 2 networks; pass one of them"):
        load_model(tmp_path)


def test_a_function_that_fails_in_the_middle_is_one_sentence() -> None:
    def fails(x: Tensor, sigma: Tensor) -> Tensor:
        raise RuntimeError("out of memory\nin kernel 3")

    from geomem.models.doors.denoisers import CallableDenoiser

    with pytest.raises(InputError, match="mine failed with RuntimeError: out of memory; call"):
        CallableDenoiser(fails, "mine")(images(1), LEVEL)
