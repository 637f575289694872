r"""What a network of a stranger is told instead of sigma, and how its input is scaled.

Three families of paths, which differ in the scale of the clean point alone: with
:math:`x_t = \alpha x` and :math:`x = x_0 + \sigma z`,

====================  ==============================  ================================
preserving            :math:`(1 + \sigma^2)^{-1/2}`   DDPM, Stable Diffusion, k-diffusion's v
straight              :math:`1 / (1 + \sigma)`        flow matching: :math:`s = \sigma/(1 + \sigma)`
exploding             1                               score_sde_ve, EDM
====================  ==============================  ================================

so that within a family a wrong schedule is a wrong *label*, and nothing else: the network is
told another time than that of its noise. The label scan of :mod:`geomem.models.doors.checks`
turns on that.

Between two discrete levels the label is fractional, by ln sigma: sinusoidal embeddings take it.
Embeddings that are a table take the nearest.

References:
    | Lin et al., Common diffusion noise schedules are flawed, arXiv 2305.08891 (zero terminal SNR)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomem.arguments import near
from geomem.data.reading import printable
from geomem.errors import InputError
from geomem.models.doors.files import read_json
from geomem.noise import DiscreteBetas, VariancePreserving

Family = Literal["preserving", "straight", "exploding"]

# What diffusers calls predictions, and what others call them.
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction", "score")
# What is predicted in a family: elsewhere, a velocity or a flow is another one with a scale.
PREDICTIONS_OF: dict[Family, tuple[str, ...]] = {
    "preserving": ("epsilon", "v_prediction", "sample", "score"),
    "straight": ("flow_prediction", "epsilon", "sample"),
    "exploding": ("epsilon", "sample", "score"),
}
SYNONYMS = {
    "eps": "epsilon",
    "noise": "epsilon",
    "v": "v_prediction",
    "velocity": "v_prediction",
    "x0": "sample",
    "x_0": "sample",
    "clean": "sample",
    "flow": "flow_prediction",
}
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
# Schedulers of diffusers that are about sampling alone: betas and a type are all they hold.
OF_BETAS = (
    "DDPM DDPMParallel DDIM DDIMParallel DDIMInverse PNDM DPMSolverMultistep "
    "DPMSolverMultistepInverse DPMSolverSinglestep DPMSolverSDE DEISMultistep UniPCMultistep "
    "EulerDiscrete EulerAncestralDiscrete HeunDiscrete LMSDiscrete KDPM2Discrete "
    "KDPM2AncestralDiscrete LCM TCD SASolver RePaint UnCLIP"
).split()
OF_FLOWS = ("FlowMatchEulerDiscrete FlowMatchHeunDiscrete FlowMatchLCM LTXEulerAncestralRF").split()
OF_EDM = ("EDMEuler", "EDMDPMSolverMultistep")
CONFIG = "scheduler_config.json"
NAMES = (
    "linear",
    "scaled_linear",
    "cosine",
    "sigmoid",
    "flow",
    "flow-unit",
    "flow-reversed",
    "edm",
    "ve",
    "vp",
)


@dataclass(frozen=True, eq=False)
class Labels:
    r"""How a network is called at a noise level.

    Attributes:
        family: The scale of its input.
        time: From levels in float64 to what the network is told, both with shape (B).
        low: The least level that it was trained on.
        high: The highest.
        levels: Its discrete levels, increasing, with shape (K), if it has them.
        name: The schedule in a few words.
        told: All that was resolved, as plain JSON.
        sigma_data: For EDM's preconditioning, the rms of the data; None without one.
        sign: -1 where the network returns the negative of its prediction: its time runs from
            noise to data.
    """

    family: Family
    time: Callable[[Tensor], Tensor]
    low: float
    high: float
    levels: NDArray[np.float64] | None
    name: str
    told: dict[str, Any] = field(default_factory=dict)
    sigma_data: float | None = None
    sign: int = 1

    def scale(self, sigma: Tensor) -> Tensor:
        r""":math:`\alpha` at levels :math:`\sigma`, both with shape (B)."""
        if self.family == "preserving":
            return (1 + sigma**2).rsqrt()
        return 1 / (1 + sigma) if self.family == "straight" else torch.ones_like(sigma)

    def rounded(self) -> Labels:
        r"""The same for a network that knows whole times alone."""
        time = self.time
        return replace(self, time=lambda level: time(level).round())


def predictions_of(labels: Labels) -> tuple[str, ...]:
    r"""What a network with such labels may predict."""
    if labels.sigma_data is not None:
        return ("epsilon", "v_prediction")
    return PREDICTIONS_OF[labels.family]


def prediction_named(name: str) -> str:
    r"""A prediction by one of its names.

    Raises:
        InputError: If there is none of that name.

    Example:
        >>> prediction_named("v")
        'v_prediction'
    """
    found = SYNONYMS.get(name, name)
    if found not in PREDICTIONS:
        raise InputError(f"`prediction` is {name!r}; {near(name, PREDICTIONS)}")
    return found


# --------------------------------------------------------------------------- discrete betas


def of_betas(betas: Tensor, name: str, told: dict[str, Any] | None = None) -> Labels:
    r"""Labels 0, 1, ... of discrete betas, with shape (K).

    A last level without any signal (zero terminal SNR) is infinite in sigma, and is left out.

    Raises:
        InputError: If they are no betas.
    """
    betas = betas.double()
    told = {"schedule": name, "num_train_timesteps": len(betas), **(told or {})}
    if len(betas) > 2 and float(betas[-1]) >= 1 - 1e-7:
        betas = betas[:-1]
        told["dropped"] = "the last level, which holds no signal"
    if not (len(betas) >= 2 and bool(torch.isfinite(betas).all())) or not (
        float(betas.min()) > 0 and float(betas.max()) < 1
    ):
        raise InputError("the betas of the schedule are not between 0 and 1; check its config")
    schedule = DiscreteBetas(betas)
    levels = schedule.levels.numpy()
    return Labels(
        "preserving", schedule.time, float(levels[0]), float(levels[-1]), levels, name, told
    )


def of_alphas(alphas_cumprod: Tensor, name: str) -> Labels:
    r"""Labels of :math:`\bar\alpha_t` with shape (K), as some checkpoints hold them."""
    bars = alphas_cumprod.double()
    previous = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]])
    return of_betas(1 - bars / previous, name)


def betas_named(name: str, steps: int, start: float, end: float) -> Tensor:
    r"""Betas of a schedule of diffusers by its name, with shape (K), in float64.

    Raises:
        InputError: If there is none of that name.
    """
    if name == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    if name == "sigmoid":
        ramp = torch.linspace(-6, 6, steps, dtype=torch.float64)
        return ramp.sigmoid() * (end - start) + start
    bars = {"squaredcos_cap_v2": _cosine_bar, "laplace": _laplace_bar, "exp": _exponential_bar}
    if name not in bars:
        raise InputError(f"beta_schedule is {name!r}; {near(name, BETAS)}")
    bar = bars[name]
    ratios = [1 - bar((k + 1) / steps) / bar(k / steps) for k in range(steps)]
    return torch.tensor([min(ratio, 0.999) for ratio in ratios], dtype=torch.float64)


def _cosine_bar(t: float) -> float:
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace_bar(t: float) -> float:
    side = math.copysign(1, 0.5 - t)
    log_snr = -0.5 * side * math.log(1 - 2 * abs(0.5 - t) + 1e-6)
    return math.sqrt(1 / (1 + math.exp(-log_snr)))


def _exponential_bar(t: float) -> float:
    return math.exp(-12 * t)


def _without_signal(betas: Tensor) -> Tensor:
    # Shifted and stretched in sqrt(alpha_bar), so that the last one is 0 and the first stays.
    roots = torch.log1p(-betas).cumsum(0).div(2).exp()
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    bars = roots**2
    return 1 - torch.cat([bars[:1], bars[1:] / bars[:-1]])


# ------------------------------------------------------------------------- from config files


def labels_of(config: dict[str, Any], where: str) -> tuple[Labels, str | None]:
    r"""Labels and the prediction that a scheduler's config tells.

    What is about sampling alone is not looked at: timestep_spacing, steps_offset,
    set_alpha_to_one, use_karras_sigmas and kin, clip_sample, thresholding.

    Arguments:
        config: The content of ``scheduler_config.json``.
        where: What to call it in errors.

    Returns:
        The labels; the prediction by diffusers' name, None where the config does not tell it.

    Raises:
        InputError: If it is no schedule that geomem can resolve.
    """
    cls = str(config.get("_class_name", "")).removesuffix("Scheduler")
    config = {**_defaults_of(cls), **config}
    prediction = config.get("prediction_type")
    if cls in OF_FLOWS or prediction == "flow_prediction" or config.get("use_flow_sigmas"):
        steps = float(config.get("num_train_timesteps", 1000))
        inverted = bool(config.get("invert_sigmas"))  # as in Mochi: time runs from noise to data
        return _flow(steps, "1 - s" if inverted else "s", -1 if inverted else 1), "flow_prediction"
    if cls in OF_EDM or cls == "EDM":
        return _edm(config), prediction or "epsilon"
    if cls in ("ScoreSdeVe", "VE"):
        return _exploding(config), prediction or "score"
    if cls in ("ScoreSdeVp", "VP"):
        return _continuous(config), prediction or "epsilon"
    if cls == "EulerDiscrete" and config.get("timestep_type") == "continuous":
        return _log_levels(config), prediction
    if cls in OF_BETAS or (not cls and ("beta_schedule" in config or "trained_betas" in config)):
        return _of_config(config, cls), "epsilon" if cls == "RePaint" else prediction
    named = f"the scheduler {cls}" if cls else "no scheduler by its class"
    raise InputError(
        f"{where} names {named}, whose levels geomem does not know; pass `schedule`: one of "
        f"{', '.join(NAMES)}, or a scheduler_config.json of {', '.join(OF_BETAS[:3])} or the like"
    )


def _defaults_of(cls: str) -> dict[str, Any]:
    # What an older config leaves out is the default of its class, and these differ.
    import diffusers

    scheduler: Any = getattr(diffusers, f"{cls}Scheduler", None) if cls else None
    parameters = inspect.signature(scheduler).parameters.values() if scheduler else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def labels_named(name: str) -> Labels:
    r"""Labels of a schedule by its name, with the ends that are usual.

    Raises:
        InputError: If there is none of that name.
    """
    made: dict[str, Callable[[], Labels]] = {
        "linear": lambda: of_betas(betas_named("linear", 1000, 1e-4, 0.02), "linear betas"),
        "scaled_linear": lambda: of_betas(
            betas_named("scaled_linear", 1000, 0.00085, 0.012), "scaled_linear betas"
        ),
        "cosine": lambda: of_betas(
            betas_named("squaredcos_cap_v2", 1000, 0, 0), "squaredcos_cap_v2 betas"
        ),
        "sigmoid": lambda: of_betas(betas_named("sigmoid", 1000, 1e-4, 0.02), "sigmoid betas"),
        "flow": lambda: _flow(1000, "s", 1),
        "flow-unit": lambda: _flow(1, "s", 1),
        "flow-reversed": lambda: _flow(1, "1 - s", -1),
        "edm": lambda: _edm({}),
        "ve": lambda: _exploding({}),
        "vp": lambda: _continuous({}),
    }
    if name not in made:
        raise InputError(
            f"`schedule` is {name!r}; {near(name, NAMES)}, or pass a scheduler_config.json"
        )
    return made[name]()


def _of_config(config: dict[str, Any], cls: str) -> Labels:
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    name = str(config.get("beta_schedule", "squaredcos_cap_v2" if cls == "UnCLIP" else "linear"))
    told: dict[str, Any] = {}
    given = config.get("trained_betas")
    if given is not None:
        betas, name = torch.tensor(given, dtype=torch.float64), "trained_betas"
    else:
        betas = betas_named(name, steps, start, end)
        if name not in ("squaredcos_cap_v2", "laplace", "exp"):
            told = {"beta_start": start, "beta_end": end}
    if config.get("rescale_betas_zero_snr"):
        betas, told["rescale_betas_zero_snr"] = _without_signal(betas), True
    return of_betas(betas, f"{name} betas", told)


def _flow(scale: float, time: Literal["s", "1 - s"], sign: int) -> Labels:
    # How fine the grid is, and its shift, tell which s are visited, not what t means.
    low, high = 5e-4, 1 - 5e-4
    told = {"schedule": "flow", "told": f"{scale:g} ({time})" if scale != 1 else time}

    def label(level: Tensor) -> Tensor:
        return scale * (level if time == "s" else torch.ones_like(level)) / (1 + level)

    name = f"straight paths, told {told['told']}"
    ends = low / (1 - low), high / (1 - high)
    return Labels("straight", label, *ends, None, name, told, sign=sign)


def _edm(config: dict[str, Any]) -> Labels:
    data = float(config.get("sigma_data", 0.5))
    low, high = float(config.get("sigma_min", 0.002)), float(config.get("sigma_max", 80.0))
    told = {"schedule": "edm", "sigma_data": data, "sigma_min": low, "sigma_max": high}
    name = f"EDM's preconditioning, sigma_data {data:g}"
    return Labels(
        "exploding", lambda level: level.log() / 4, low, high, None, name, told, sigma_data=data
    )


def told_sigma(sigma_data: float, low: float, high: float) -> Labels:
    r"""EDM's preconditioning around a network that takes sigma itself, as k-diffusion's."""
    told = {"schedule": "edm", "told": "sigma", "sigma_data": sigma_data}
    name = f"EDM's preconditioning, told sigma, sigma_data {sigma_data:g}"
    return Labels(
        "exploding", lambda level: level, low, high, None, name, told, sigma_data=sigma_data
    )


def _exploding(config: dict[str, Any]) -> Labels:
    low, high = float(config.get("sigma_min", 0.01)), float(config.get("sigma_max", 1348.0))
    told = {"schedule": "ve", "sigma_min": low, "sigma_max": high}
    name = "exploding variance, told sigma"
    return Labels("exploding", lambda level: level, low, high, None, name, told)


def _continuous(config: dict[str, Any]) -> Labels:
    low, high = float(config.get("beta_min", 0.1)), float(config.get("beta_max", 20.0))
    schedule = VariancePreserving(low, high)
    ends = schedule.level(torch.tensor([1e-3, 1.0], dtype=torch.float64)).tolist()
    told = {"schedule": "vp", "beta_min": low, "beta_max": high}
    name = "preserving variance, told t in [0, 1]"
    return Labels("preserving", schedule.time, ends[0], ends[1], None, name, told)


def _log_levels(config: dict[str, Any]) -> Labels:
    low, high = float(config.get("sigma_min") or 0.002), float(config.get("sigma_max") or 700.0)
    told = {"schedule": "continuous", "sigma_min": low, "sigma_max": high}
    name = "preserving variance, told ln(sigma)/4"
    return Labels("preserving", lambda level: level.log() / 4, low, high, None, name, told)


# ------------------------------------------------------------------------------- resolved


def resolve(
    places: Sequence[Path], prediction: str | None, schedule: str | None
) -> tuple[Labels, str, dict[str, Any]]:
    r"""The labels and the prediction of a model, from its files or from what was named.

    Arguments:
        places: Folders where ``scheduler/scheduler_config.json`` may lie, the nearest first.
        prediction: The prediction, if named.
        schedule: The schedule, if named: a file, its folder, or one of :data:`NAMES`.

    Returns:
        The labels, the prediction by diffusers' name, and what is said of both.

    Raises:
        InputError: If one of them is neither in the files nor named.
    """
    if schedule is not None:
        labels, said, source = _given(schedule)
    else:
        files = [p / name for p in places for name in ("scheduler/" + CONFIG, CONFIG)]
        file = next((f for f in files if f.is_file()), None)
        if file is None:
            raise InputError(
                f"there is no {CONFIG} with the model or above it; pass `schedule` (a file, or one "
                f"of {', '.join(NAMES)}) or the pipeline that it belongs to as `base`"
            )
        labels, said = labels_of(read_json(file), printable(file))
        source = "/".join(file.parts[-3:])
    chosen = said if prediction is None else prediction_named(prediction)
    if chosen is None:
        raise InputError(
            f"{source} does not tell what the network predicts; pass `prediction`: one of "
            f"{', '.join(PREDICTIONS)}"
        )
    chosen = prediction_named(chosen)
    if chosen not in predictions_of(labels):
        raise InputError(
            f"`prediction` {chosen} does not go with {labels.name}, where a network predicts one "
            f"of {', '.join(predictions_of(labels))}; check `schedule` and `prediction`"
        )
    levels = [float(f"{level:.6g}") for level in (labels.low, labels.high)]
    told = {
        "prediction": chosen,
        "prediction_from": source if prediction is None else "named",
        "schedule": {"name": labels.name, **labels.told, "from": source, "sigma": levels},
    }
    return labels, chosen, told


def _given(schedule: str) -> tuple[Labels, str | None, str]:
    path = Path(schedule)
    for file in (path, path / CONFIG, path / "scheduler" / CONFIG):
        if file.is_file():
            labels, said = labels_of(read_json(file), printable(file))
            return labels, said, printable(file)
    labels = labels_named(schedule)
    own = {"straight": "flow_prediction"}.get(labels.family)
    own = "epsilon" if labels.sigma_data is not None else own
    return labels, own, schedule
