r"""What is inside a denoiser: its networks, by name, their mode, and what they were trained on.

A denoiser is any callable, and its networks may hide in an attribute, in the variables of a
function, behind a method or a partial. What is found here is only ever looked at: whether an
answer is good is decided by asking, see :mod:`geomem.checks`.
"""

from __future__ import annotations

import dis
import functools
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.noise import VariancePreserving

# How far networks are looked for behind a callable: pipelines nest a few wrappers, not more.
_DEPTH, _WIDTH, _PARTS = 6, 256, 10_000
_LEAVES = (str, bytes, int, float, complex, type(None), Tensor, np.ndarray, ModuleType, type)
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def networks(denoiser: object) -> Iterator[tuple[str, nn.Module]]:
    r"""The networks behind a callable and all their parts, by name.

    They are looked for in the callable itself, its attributes, the variables that a function
    uses, what a method is bound to and what ``functools.partial`` holds.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
        >>> [name for name, module in networks(lambda x, sigma: network(x))]
        ['network', 'network.0', 'network.1']
    """
    seen: set[int] = set()
    queue: deque[tuple[str, object, int]] = deque([("denoiser", denoiser, 0)])
    while queue and len(seen) < _PARTS:
        name, thing, depth = queue.popleft()
        if id(thing) in seen or isinstance(thing, _LEAVES):
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            yield name, thing
        if depth < _DEPTH or isinstance(thing, nn.Module):
            queue.extend((label, part, depth + 1) for label, part in _parts(name, thing))


def _parts(name: str, thing: Any) -> Iterator[tuple[str, object]]:
    if isinstance(thing, MethodType):
        yield name, thing.__self__
    elif isinstance(thing, FunctionType):
        cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        yield from ((variable, cell.cell_contents) for variable, cell in cells if _is_filled(cell))
        found = thing.__globals__
        yield from ((g, found[g]) for g in _globals_of(thing.__code__) if g in found)
    elif isinstance(thing, functools.partial):
        yield name, thing.func
        yield from ((name, part) for part in thing.args)
        yield from thing.keywords.items()
    elif isinstance(thing, (list, tuple)):
        yield from ((f"{name}[{i}]", part) for i, part in enumerate(islice(thing, _WIDTH)))
    elif isinstance(thing, dict):
        yield from ((f"{name}[{key!r}]", part) for key, part in islice(thing.items(), _WIDTH))
    elif isinstance(thing, nn.Module):
        yield from ((f"{name}.{child}", part) for child, part in thing.named_children())
        # What a module keeps for itself starts with an underscore; the rest may wrap another.
        own = ((k, v) for k, v in vars(thing).items() if not k.startswith("_"))
        yield from ((f"{name}.{key}", part) for key, part in own)
    else:
        attributes = getattr(thing, "__dict__", {})
        yield from ((f"{name}.{key}", part) for key, part in islice(attributes.items(), _WIDTH))


@functools.lru_cache(maxsize=1024)
def _globals_of(code: CodeType) -> list[str]:
    # Not inspect.getclosurevars, which takes an attribute for a global of the same name.
    return sorted({i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"})


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def depends_on_mode(module: nn.Module) -> bool:
    r"""Whether a module answers otherwise in train mode than at rest."""
    return draws(module) or isinstance(module, BATCH_NORMS)


def draws(module: nn.Module) -> bool:
    r"""Whether a module draws random numbers in train mode, at a rate above 0."""
    # torch's dropouts hold p, attention and recurrent nets `dropout`, DropPath `drop_prob`.
    if isinstance(module, nn.RReLU):
        return True
    attention = isinstance(module, (nn.MultiheadAttention, nn.RNNBase))
    is_drop = attention or "drop" in type(module).__name__.lower()
    values = (getattr(module, key, 0) for key in ("p", "dropout", "drop_prob"))
    return is_drop and any(isinstance(v, (int, float)) and v > 0 for v in values)


def describe(module: nn.Module) -> str:
    r"""A module as torch prints it: its class and its options."""
    extra = module.extra_repr()
    return f"{type(module).__name__}, {extra}" if extra else type(module).__name__


def owner(denoiser: Any) -> Any:
    r"""What a callable belongs to: a bound method is a new object at each access, a partial a
    wrapper.
    """
    if isinstance(denoiser, MethodType):
        return owner(denoiser.__self__)
    return owner(denoiser.func) if isinstance(denoiser, functools.partial) else denoiser


def trained_range(denoiser: object) -> tuple[float, float] | None:
    r"""The noise levels that a denoiser was trained on, as far as it says.

    A denoiser says so by attributes ``sigma_min`` and ``sigma_max``, or through its schedule:
    the levels of discrete betas, the ends of an exploding or preserving variance. Flow
    matching and EDM's "level is the time" have no ends of their own.

    Example:
        >>> from geomem.denoiser import ScheduledDenoiser
        >>> from geomem.noise import VarianceExploding
        >>> backbone = lambda x, t: x
        >>> trained_range(ScheduledDenoiser(backbone, VarianceExploding(0.1, 9.0), "clean"))
        (0.1, 9.0)
    """
    holder: Any = owner(denoiser)
    for carrier in (holder, getattr(holder, "schedule", None)):
        ends = getattr(carrier, "sigma_min", None), getattr(carrier, "sigma_max", None)
        if all(isinstance(end, (int, float)) for end in ends):
            return float(ends[0]), float(ends[1])  # type: ignore[arg-type]
        levels = getattr(carrier, "levels", None)
        if isinstance(levels, Tensor) and levels.numel():
            return float(levels.min()), float(levels.max())
        if isinstance(carrier, VariancePreserving):
            return 0.0, float(carrier.level(torch.ones((), dtype=torch.float64)))
    return None
