r"""Files of weights: denoising-diffusion-pytorch, torchcfm, k-diffusion, and bare ones.

====================================  ==========================================================
``model-N.pt``                        of denoising-diffusion-pytorch: ``alphas_cumprod`` *is* the
                                      schedule, ``loss_weight`` tells the objective
``*.pt`` with ``net_model``           of torchcfm: straight paths, from noise at t = 0 to data
``*.safetensors`` with a ``config``   of k-diffusion, converted for inference
others                                bare weights: schedule and prediction are asked for
====================================  ==========================================================

A file of weights does not hold its network: that is built by the package that it belongs to, where
it is installed, or by a function of the user's, named as ``network``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.data.reading import printable
from geomem.errors import InputError
from geomem.models.doors.callables import found
from geomem.models.doors.conditions import Asked
from geomem.models.doors.denoisers import NetworkDenoiser, called
from geomem.models.doors.files import (
    RECIPE,
    read_header,
    read_json,
    read_state,
    read_weights,
    sha256_of,
)
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.modules import check_finite, size_of
from geomem.models.doors.options import DoorOptions
from geomem.models.doors.schedules import Labels, labels_named, of_alphas, resolve, told_sigma

State = dict[str, Tensor]
SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.", "net.")


def refuse_network_pickle(path: Path) -> None:
    r"""Refuses the pickled networks of NVlabs' EDM, and says how they come in.

    Raises:
        InputError: For every file that ends in .pkl or .pickle.
    """
    if path.suffix.lower() not in (".pkl", ".pickle"):
        return
    beside = path.with_name("training_options.json")
    told = ""
    if beside.is_file():
        options = read_json(beside).get("network_kwargs", {})
        told = f" (training_options.json says {str(options.get('class_name')).rpartition('.')[2]})"
    raise InputError(
        f"{printable(path)} is a pickle with code in it{told}, which geomem never runs; load it "
        "where you trust it, in a module of yours, and name a function of (x, sigma) that calls "
        "it: package.module:function"
    )


def load_checkpoint(path: Path, options: DoorOptions, device: str) -> LoadedModel:
    r"""A model from a file of weights.

    Arguments:
        path: The file.
        options: What it does not say.
        device: Where it works.

    Raises:
        InputError: If it cannot be read, or not without more said about it.
    """
    if path.suffix == ".safetensors":
        header = read_header(path)
        state: Any = read_weights(path)
        if "config" in header:
            return _k_diffusion(path, header["config"], state, options, device)
        return _bare(path, state, options, device)
    content = read_state(path)
    if not isinstance(content, dict):
        raise InputError(f"{printable(path)} holds a {type(content).__name__}; {RECIPE}")
    bars = _buffer(content, "alphas_cumprod")
    if bars is not None and "model" in content:
        return _ddpm(path, content, bars, options, device)
    if "net_model" in content:
        return _torchcfm(path, content, options, device)
    for name in ("state_dict", "model_ema" if options.weights == "ema" else "model", "model"):
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    return _bare(path, content, options, device)


# ------------------------------------------------------------- denoising-diffusion-pytorch


def _ddpm(
    path: Path, content: dict[str, Any], bars: Tensor, options: DoorOptions, device: str
) -> LoadedModel:
    averaged = options.weights == "ema" and isinstance(content.get("ema"), dict)
    whole = content["ema"] if averaged else content["model"]
    head = "ema_model.model." if averaged else "model."
    state = {k.removeprefix(head): v for k, v in whole.items() if k.startswith(head)}
    warnings = [
        "its trainer mirrors images unless told otherwise, and the file does not tell: taken as "
        "mirrored",
        "the file does not tell whether images of [0, 1] were brought to [-1, 1] "
        "(auto_normalize): taken as such",
    ]
    if not averaged and options.weights == "ema":
        warnings.append("there is no average in the file; these are the raw weights")
    network = _built(path, options, lambda: _ddpm_network(state, path), state)
    if options.schedule is None and options.prediction is None:
        weight = _buffer(content, "loss_weight")
        labels = of_alphas(bars, "alphas_cumprod of the file")
        prediction = _objective(path, bars, weight)
        told = _told(labels, prediction, "the file")
    else:
        labels, prediction, told = resolve([], options.prediction, options.schedule)
    about = {"weights": "ema" if averaged else "raw", **told, "step": int(content.get("step", 0))}
    return _loaded(path, network, labels, prediction, options, device, about, warnings, flips=True)


def _buffer(content: dict[str, Any], name: str) -> Tensor | None:
    model = content.get("model")
    found = model.get(name) if isinstance(model, dict) else None
    return found if isinstance(found, Tensor) else None


def _objective(path: Path, bars: Tensor, weight: Tensor | None) -> str:
    # Clipped (min-SNR) or not, weights agree where the signal is weaker than the noise; and where
    # it is not much weaker, the three differ.
    snr = bars.double() / (1 - bars.double())
    telling = (snr > 0.1) & (snr < 0.9)
    if weight is not None and bool(telling.any()):
        given, s = weight.double()[telling], snr[telling]
        for name, expected in (
            ("epsilon", torch.ones_like(s)),
            ("sample", s),
            ("v_prediction", s / (s + 1)),
        ):
            if torch.allclose(given, expected, rtol=1e-3):
                return name
    raise InputError(
        f"{printable(path)} does not tell what its network predicts; pass `prediction` and "
        "`schedule`"
    )


def _ddpm_network(state: State, path: Path) -> nn.Module:
    r"""The U-Net of the package, with sizes read from its weights."""
    if importlib.util.find_spec("denoising_diffusion_pytorch") is None:
        raise InputError(
            f"the network of {printable(path)} is built by denoising-diffusion-pytorch, which is "
            "not installed; install it, or pass `network`, package.module:function, which builds it"
        )
    package: Any = _package("denoising_diffusion_pytorch")
    try:
        dim = state["time_mlp.3.weight"].shape[0] // 4
        inside, outside = state["init_conv.weight"].shape[1], state["final_conv.weight"].shape[0]
        widths, full, heads = list[int](), list[bool](), list[tuple[int, int]]()
        while f"downs.{len(widths)}.2.to_qkv.weight" in state:
            k = len(widths)
            convolution = state.get(f"downs.{k}.3.1.weight", state.get(f"downs.{k}.3.weight"))
            assert convolution is not None
            widths.append(convolution.shape[0])
            full.append(f"downs.{k}.2.to_out.weight" in state)
            count = state[f"downs.{k}.2.mem_kv"].shape[1]
            heads.append((count, state[f"downs.{k}.2.to_qkv.weight"].shape[0] // 3 // count))
        network: nn.Module = package.Unet(
            dim=dim,
            init_dim=state["init_conv.weight"].shape[0],
            dim_mults=tuple(width // dim for width in widths),
            channels=min(inside, outside),
            self_condition=inside == 2 * outside,
            learned_variance=outside == 2 * inside,
            full_attn=tuple(full),
            attn_heads=tuple(h for h, _ in heads),
            attn_dim_head=tuple(d for _, d in heads),
        )
        return network
    except (KeyError, AssertionError, ZeroDivisionError, TypeError) as error:
        raise InputError(
            f"the sizes of the network cannot be read from the weights of {printable(path)}; pass "
            "`network`, package.module:function, which builds it"
        ) from error


# --------------------------------------------------------------------- torchcfm, k-diffusion


def _torchcfm(
    path: Path, content: dict[str, Any], options: DoorOptions, device: str
) -> LoadedModel:
    averaged = options.weights == "ema" and isinstance(content.get("ema_model"), dict)
    state = content["ema_model" if averaged else "net_model"]
    network = _built(path, options, None, state)

    def with_time_first(x: Tensor, label: Tensor) -> Any:
        return called(network, printable(path), label, x)

    labels = labels_named("flow-reversed")
    told = _told(labels, "flow_prediction", "the format")
    warnings = [
        "torchcfm may couple noise to images (otcfm), and the file does not tell: of a network "
        "trained so, the answer is no posterior mean, and nothing follows from its errors"
    ]
    about = {"weights": "ema" if averaged else "raw", **told, "step": int(content.get("step", 0))}
    return _loaded(
        path, network, labels, "flow_prediction", options, device, about, warnings, with_time_first
    )


def _k_diffusion(
    path: Path, raw: str, state: State, options: DoorOptions, device: str
) -> LoadedModel:
    try:
        config: dict[str, Any] = json.loads(raw)
        model = config["model"]
        data = float(model.get("sigma_data", 1.0))
        shape = (int(model["input_channels"]), *(int(n) for n in model["input_size"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the header of {printable(path)} is no config of k-diffusion; pass bare weights with "
            "`network`, `schedule` and `prediction`"
        ) from error
    low, high = float(model.get("sigma_min", 0.01)), float(model.get("sigma_max", 80.0))

    def by_package() -> nn.Module:
        if importlib.util.find_spec("k_diffusion") is None:
            raise InputError(
                f"the network of {printable(path)} is built by k-diffusion, which is not "
                "installed; install it, or pass `network`, package.module:function"
            )
        package: Any = _package("k_diffusion")
        built: nn.Module = package.config.make_model(config)
        return built

    network = _built(path, options, by_package, state)
    labels = told_sigma(data, low, high)
    classes = int(config.get("dataset", {}).get("num_classes") or 0)
    asked = Asked(network, "class_cond" if classes else None, torch.tensor([classes]))
    about = {"weights": "ema", **_told(labels, "epsilon", "its header")}
    return _loaded(
        path, network, labels, "epsilon", options, device, about, [], asked, item_shape=shape
    )


# ------------------------------------------------------------------------------ bare weights


def _bare(path: Path, state: Any, options: DoorOptions, device: str) -> LoadedModel:
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{printable(path)} holds no weights by name; {RECIPE}")
    if options.schedule is None or options.network is None:
        raise InputError(
            f"{printable(path)} holds bare weights; pass `network` (package.module:function, which "
            "builds their network), `schedule` and `prediction`"
        )
    network = _built(path, options, None, state)
    labels, prediction, told = resolve([], options.prediction, options.schedule)
    return _loaded(path, network, labels, prediction, options, device, told, [])


def _built(path: Path, options: DoorOptions, by_package: Any, state: State) -> nn.Module:
    r"""The network of weights, built by who is named, else by its package."""
    if options.network is not None:
        network = called(found(options.network), options.network)
    elif by_package is not None:
        network = by_package()
    else:
        raise InputError(
            f"{printable(path)} holds weights and no network; pass `network`, "
            "package.module:function, which builds it"
        )
    if not isinstance(network, nn.Module):
        raise InputError(f"`network` built a {type(network).__name__}; return a torch module")
    own = set(network.state_dict())
    for prefix in ("", *PREFIXES):  # of wrappers that the training had around it
        stripped = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if own <= set(stripped):
            try:
                network.load_state_dict({k: stripped[k] for k in own})
            except RuntimeError as error:
                first = str(error).partition("\n")[2].strip().partition("\n")[0]
                raise InputError(
                    f"the weights of {printable(path)} are not those of the network "
                    f"({printable(first[:160])}); build it with the sizes of its training"
                ) from error
            check_finite(network, printable(path))
            return network
    missing = sorted(own - set(state))
    raise InputError(
        f"{printable(path)} has no weights for {len(missing)} of {len(own)} tensors of the "
        f"network, the first of them {missing[0]}; build it with the sizes of its training"
    )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # packages fail on import as they like
        raise InputError(
            f"{name} is installed and cannot be imported ({printable(str(error)[:160])}); repair "
            "it, or pass `network`, package.module:function, which builds the network"
        ) from error


def _told(labels: Labels, prediction: str, source: str) -> dict[str, Any]:
    ends = [float(f"{level:.6g}") for level in (labels.low, labels.high)]
    schedule = {"name": labels.name, **labels.told, "from": source, "sigma": ends}
    return {"prediction": prediction, "prediction_from": source, "schedule": schedule}


def _loaded(
    path: Path,
    network: nn.Module,
    labels: Labels,
    prediction: str,
    options: DoorOptions,
    device: str,
    about: dict[str, Any],
    warnings: list[str],
    call: Any = None,
    *,
    item_shape: tuple[int, ...] | None = None,
    flips: bool | None = None,
) -> LoadedModel:
    dtype: torch.dtype = getattr(torch, options.dtype)
    network.to(device, dtype).eval().requires_grad_(requires_grad=False)
    said = {
        "source": printable(path),
        **size_of(network),
        "dtype": options.dtype,
        **about,
        "sha256": sha256_of([path]),
        "warnings": warnings,
    }
    denoiser = NetworkDenoiser(call or network, labels, prediction, dtype)
    ends = (labels.low, labels.high)
    return LoadedModel(denoiser, item_shape, ends, labels.levels, said, dtype, device, flips=flips)
