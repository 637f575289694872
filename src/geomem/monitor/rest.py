r"""At rest: what a look needs of a network and of images in training, and what it gives back.

A network in training draws dropout masks, updates running means and lives where it was put. A
look asks it in eval mode, in its own dtype and on its own device, without drawing from the
training's random numbers, and leaves every module in the mode in which it was. Images of a data
set that crops and mirrors them at random are read with random numbers of the monitor's own: the
training goes on with its own, and a resumed one finds the same images again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.models.doors.denoisers import NetworkDenoiser
from geomem.modules import networks

# Wrappers whose forward may wait for all processes, of which only one looks.
WRAPPERS = {
    "DistributedDataParallel": "pass one of the network inside it (`model.module`)",
    "DeepSpeedEngine": "pass one of the network inside it (`engine.module`)",
    "FullyShardedDataParallel": "a sharded network cannot be asked by one process",
    "FSDPModule": "a sharded network cannot be asked by one process",
}


def is_main() -> bool:
    r"""Whether this process is the one that looks: rank 0, or the only one."""
    return world() == 1 or torch.distributed.get_rank() == 0


def world() -> int:
    r"""How many processes train together."""
    parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if parallel else 1


@dataclass(frozen=True, eq=False)
class AtRest:
    r"""A denoiser that takes and gives float32, whatever its network works in.

    Attributes:
        denoiser: What is asked.
        dtype: The dtype of its network.
        device: Where its network lives.
    """

    denoiser: Denoiser
    dtype: torch.dtype
    device: torch.device

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        # What came through a door takes float32, and rounds nothing but its network's input.
        mine = isinstance(self.denoiser, NetworkDenoiser)
        answer = self.denoiser(x if mine else x.to(self.dtype), sigma)
        return answer.to(x.dtype) if isinstance(answer, Tensor) else answer


@contextmanager
def at_rest(denoiser: Denoiser) -> Iterator[AtRest]:
    r"""The denoiser with its networks in eval mode; all is as it was when this ends.

    Raises:
        InputError: If it is no function; where it is asked, if it calls a network that is
            wrapped so that all processes would have to be asked.
    """
    if not callable(denoiser):
        raise InputError(
            f"the denoiser is a {type(denoiser).__name__}; pass a function of x, sigma"
        )
    modules = [module for _, module in networks(denoiser)]
    parameters = (p for module in modules for p in module.parameters() if p.is_floating_point())
    first = next(parameters, torch.empty(0))
    modes = [(module, module.training) for module in modules]
    guards = [_guard(module) for module in modules if world() > 1 and _wrapper(module)]
    with torch.random.fork_rng(devices=[first.device] if first.device.type == "cuda" else []):
        try:
            for module in modules:
                module.training = False
            yield AtRest(denoiser, first.dtype, first.device)
        finally:
            for module, mode in modes:
                module.training = mode
            for guard in guards:
                guard.remove()


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    r"""Global random numbers of torch, numpy and Python from a seed, and as they were after it.

    Arguments:
        seed: The seed.
    """
    # Of torch's the CPU's alone: to seed those of a card would change what they draw next.
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _wrapper(module: nn.Module) -> str:
    return next((k.__name__ for k in type(module).__mro__ if k.__name__ in WRAPPERS), "")


def _guard(module: nn.Module) -> RemovableHandle:
    # A denoiser may well hold the wrapper, and ask the network inside: only calls are refused.
    name = _wrapper(module)

    def refuse(*call: object) -> None:
        raise InputError(
            f"the denoiser calls a {name}, which waits for other processes, and only rank 0 "
            f"looks; {WRAPPERS[name]}"
        )

    return module.register_forward_pre_hook(refuse, prepend=True)
