r"""Networks of diffusers from their config and their safetensors, and how big they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomem.data.reading import printable
from geomem.errors import InputError
from geomem.models.doors.files import read_weights, weight_files


def built(
    folder: Path, config: dict[str, Any], dtype: torch.dtype, device: str
) -> tuple[nn.Module, list[Path]]:
    r"""A network of diffusers, in evaluation mode, and the files of its weights.

    Arguments:
        folder: Where its weights are.
        config: Its config.
        dtype: The dtype that it works in.
        device: Where it works.

    Raises:
        InputError: If diffusers has no such class, or the weights are not those of the config.
    """
    import diffusers

    name = str(config.get("_class_name"))
    cls: Any = getattr(diffusers, name, None)
    if cls is None or not issubclass(cls, nn.Module):
        raise InputError(
            f"{printable(folder)} is a {name}, which this diffusers ({diffusers.__version__}) does "
            "not have; install the version that saved it, or name a function of yours, "
            "package.module:function"
        )
    files, _ = weight_files(folder)
    known = {k: v for k, v in config.items() if k not in EMA_KEYS}
    state = {k: v for file in files for k, v in read_weights(file).items()}
    try:
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = cls.from_config(known)
        network.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        first = str(error).partition("\n")[2].strip().partition("\n")[0] or str(error)
        raise InputError(
            f"the weights of {printable(folder)} are not those of its config.json "
            f"({printable(first[:160])}); get both files again"
        ) from error
    check_finite(network, printable(folder))
    return network.to(device, dtype).eval().requires_grad_(requires_grad=False), files


# diffusers' EMAModel writes these of itself into the config of the network.
EMA_KEYS = frozenset(
    "decay inv_gamma min_decay optimization_step power update_after_step use_ema_warmup".split()
)


def check_finite(network: nn.Module, where: str) -> None:
    r"""Whether all weights are numbers.

    Raises:
        InputError: Naming the first that is not.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"the weights of {where} hold NaN or infinity, first in {name}; the training "
                "diverged: take an earlier checkpoint"
            )


def size_of(network: nn.Module) -> dict[str, Any]:
    r"""How many parameters a network has, and of which class it is."""
    return {
        "class": type(network).__name__,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
