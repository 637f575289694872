r"""A scheduler's config becomes the levels that its own class would make of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.models.doors.denoisers import NetworkDenoiser
from geomem.models.doors.schedules import (
    OF_BETAS,
    labels_named,
    labels_of,
    predictions_of,
    resolve,
)
from tests.models.doors.strangers import images, network_of, population, scheduler_of


def config_of(name: str, **config: Any) -> dict[str, Any]:
    scheduler = scheduler_of(name, **config)
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # of diffusers
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")


@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("zero_snr", [False, True])
def test_levels_are_those_of_diffusers(name: str, zero_snr: bool) -> None:
    options = {"beta_schedule": name, "rescale_betas_zero_snr": zero_snr}
    scheduler = scheduler_of("DDPM", **options)
    labels, prediction = labels_of(config_of("DDPM", **options), "it")
    bars = scheduler.alphas_cumprod.double().numpy()
    levels = np.sqrt(1 / bars[: len(bars) - zero_snr] - 1)
    assert labels.levels is not None
    assert prediction == "epsilon"
    # diffusers multiplies 1000 alphas in float32, and sums levels near 0 from 1 - bar.
    kept = levels < 1e3
    np.testing.assert_allclose(labels.levels[: len(levels)][kept], levels[kept], rtol=3e-3)
    assert ("dropped" in labels.told) == zero_snr


@pytest.mark.parametrize("name", OF_BETAS)
def test_every_scheduler_of_betas_is_read(name: str) -> None:
    if name == "DPMSolverSDE":
        pytest.importorskip("torchsde")
    scheduler = scheduler_of(name)  # whose defaults differ from class to class
    bars = scheduler.alphas_cumprod.double().numpy()
    for config in (config_of(name), {"_class_name": f"{name}Scheduler"}):
        labels, prediction = labels_of(config, "it")
        assert labels.levels is not None
        np.testing.assert_allclose(labels.levels, np.sqrt(1 / bars - 1), rtol=3e-3)
        assert prediction == scheduler.config.get("prediction_type", "epsilon")


def test_what_is_about_sampling_alone_is_not_looked_at() -> None:
    plain = config_of("DDIM")
    other = {
        **plain,
        "timestep_spacing": "trailing",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "use_karras_sigmas": True,
        "clip_sample": True,
        "thresholding": True,
    }
    first, second = (labels_of(c, "it")[0].levels for c in (plain, other))
    np.testing.assert_array_equal(first, second)


# --------------------------------------------------- one denoiser, however it is wrapped

WRAPS = [
    *(
        (s, p)
        for s in ("linear", "scaled_linear", "cosine", "sigmoid", "vp")
        for p in ("epsilon", "v_prediction", "sample", "score")
    ),
    *(
        (s, p)
        for s in ("flow", "flow-unit", "flow-reversed")
        for p in predictions_of(labels_named("flow"))
    ),
    *(("edm", p) for p in ("epsilon", "v_prediction")),
    *(("ve", p) for p in ("epsilon", "sample", "score")),
]


@pytest.mark.parametrize(("schedule", "prediction"), WRAPS)
def test_one_denoiser_however_it_is_wrapped(schedule: str, prediction: str) -> None:
    exact, labels = population(), labels_named(schedule)
    denoiser = NetworkDenoiser(
        network_of(exact, labels, prediction), labels, prediction, torch.float64
    )
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    for sigma in (0.05, 0.37, 2.2):  # between the discrete levels, too
        level = torch.tensor(sigma, dtype=torch.float64)
        x = images(3).double() + level * noise
        torch.testing.assert_close(denoiser(x, level), exact(x, level), rtol=1e-5, atol=1e-5)
        each = torch.tensor([sigma, 2 * sigma, sigma / 2], dtype=torch.float64)
        torch.testing.assert_close(denoiser(x, each)[:1], exact(x[:1], level), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_clean_point_is_that_of_diffusers_own_step(prediction: str, betas: str) -> None:
    options: dict[str, Any] = {"prediction_type": prediction, "beta_schedule": betas}
    scheduler = scheduler_of("DDPM", clip_sample=False, **options)
    labels, said = labels_of(config_of("DDPM", **options), "it")
    assert said == prediction
    output = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    denoiser = NetworkDenoiser(lambda x, t: output, labels, prediction)
    assert labels.levels is not None
    for step in (20, 400, 900):
        noisy = scheduler.add_noise(images(1), output.flip(3), torch.tensor([step]))
        own = scheduler.step(output, step, noisy).pred_original_sample
        alpha = scheduler.alphas_cumprod[step] ** 0.5
        ours = denoiser(noisy / alpha, torch.tensor(labels.levels[step]))
        torch.testing.assert_close(ours, own, rtol=2e-4, atol=2e-5 * float(own.abs().max()))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_is_preconditioned_as_diffusers_does(prediction: str) -> None:
    options = {"prediction_type": prediction, "sigma_data": 0.7}
    scheduler = scheduler_of("EDMEuler", **options)
    labels, said = labels_of(config_of("EDMEuler", **options), "it")
    assert said == prediction

    def network(x: Tensor, label: Tensor) -> Tensor:
        return x.tanh() + label[:, None, None, None]

    x, sigma = images(2), torch.tensor(0.4)
    own = scheduler.precondition_outputs(
        x, network(scheduler.precondition_inputs(x, sigma), sigma.log().expand(2) / 4), sigma
    )
    ours = NetworkDenoiser(network, labels, prediction)(x, sigma)
    torch.testing.assert_close(ours, own)


def test_flow_is_read_as_diffusers_noises() -> None:
    scheduler = scheduler_of("FlowMatchEulerDiscrete", shift=3.0)
    labels, prediction = labels_of(config_of("FlowMatchEulerDiscrete", shift=3.0), "it")
    step = int(len(scheduler.timesteps) * 0.6)
    told, s = scheduler.timesteps[step], scheduler.sigmas[step]
    level = (s / (1 - s)).double()
    assert float(labels.time(level)) == pytest.approx(float(told), rel=1e-5)
    x_0, noise = images(1), images(1, seed=2)
    noisy = scheduler.scale_noise(x_0, told[None], noise)
    assert prediction == "flow_prediction"
    denoiser = NetworkDenoiser(lambda x, t: noise - x_0, labels, "flow_prediction")
    torch.testing.assert_close(denoiser(noisy / (1 - s), level), x_0, rtol=1e-4, atol=1e-5)


def test_time_that_runs_from_noise_to_data() -> None:
    # torchcfm: x_t = (1 - t) e + t x_0 and v = x_0 - e, with t in [0, 1].
    x_0, noise, t = images(1), images(1, seed=2), 0.8
    asked = []

    def network(x: Tensor, label: Tensor) -> Tensor:
        asked.append((x, float(label)))
        return x_0 - noise

    denoiser = NetworkDenoiser(network, labels_named("flow-reversed"), "flow_prediction")
    x_t = (1 - t) * noise + t * x_0
    level = torch.tensor((1 - t) / t)
    torch.testing.assert_close(denoiser(x_t / t, level), x_0, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(asked[0][0], x_t, rtol=1e-5, atol=1e-6)
    assert asked[0][1] == pytest.approx(t)


# ------------------------------------------------------------------------------- refusals

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a scheduler without levels": ({"_class_name": "VQDiffusionScheduler"}, "pass `schedule`"),
    "unknown betas": ({"_class_name": "DDPMScheduler", "beta_schedule": "cubic"}, "beta_schedule"),
    "no betas": (
        {"_class_name": "DDPMScheduler", "trained_betas": [0.1, 1.5, 0.2]},
        "not between 0 and 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_schedule_is_refused(case: str) -> None:
    config, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence):
        labels_of(config, "it")


def test_what_files_do_not_tell_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass `schedule`"):
        resolve([tmp_path], None, None)
    with pytest.raises(InputError, match="does not tell what the network predicts"):
        resolve([tmp_path], None, "linear")
    with pytest.raises(InputError, match="did you mean 'epsilon'"):
        resolve([tmp_path], "epsilo", "linear")
    with pytest.raises(InputError, match="does not go with straight paths"):
        resolve([tmp_path], "v", "flow")
    assert resolve([tmp_path], "v", "cosine")[1] == "v_prediction"
    assert math.isclose(resolve([tmp_path], None, "flow")[0].low, 5e-4 / (1 - 5e-4))
