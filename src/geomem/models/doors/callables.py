r"""A function of the user's own, by name: ``package.module:function``.

Code is run only when it is named so. Called with ``(x, sigma)`` it is a denoiser; where a
prediction or a schedule is named, it is a network, called with ``(x_t, t)``.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.models.doors.denoisers import CallableDenoiser, NetworkDenoiser, called
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.modules import size_of
from geomem.models.doors.options import DoorOptions
from geomem.models.doors.schedules import resolve

NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_named(where: str) -> bool:
    r"""Whether a text names something in a module."""
    return bool(NAMED.fullmatch(where))


def found(where: str) -> Any:
    r"""What ``package.module:name`` names; modules of the working folder are found, too.

    Raises:
        InputError: If there is no such module, it fails, or it has no such name.
    """
    module, _, name = where.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        thing: Any = import_module(module)
    except Exception as error:
        raise InputError(
            f"{module} cannot be imported ({type(error).__name__}: {str(error)[:200]}); pass "
            "package.module:function, found from here or installed"
        ) from error
    for part in name.split("."):
        if not hasattr(thing, part):
            raise InputError(f"{module} has no {name}; check its name")
        thing = getattr(thing, part)
    return thing


def load_callable(where: str, options: DoorOptions, device: str) -> LoadedModel:
    r"""A function of the user's own.

    It may say what it knows as attributes: ``sigma_min`` and ``sigma_max``, ``item_shape``, and
    ``bind``, a function from conditions to a function of ``(x, sigma)``.

    Arguments:
        where: ``package.module:function``.
        options: A prediction and a schedule, where it is a network.
        device: Where it works.

    Raises:
        InputError: If it cannot be found or called.
    """
    thing = found(where)
    if not callable(thing):
        raise InputError(f"{where} is a {type(thing).__name__}; name a function of (x, sigma)")
    dtype: torch.dtype = getattr(torch, options.dtype)
    about: dict[str, Any] = {"source": where, "dtype": options.dtype, "warnings": []}
    if isinstance(thing, nn.Module):
        thing = thing.to(device).eval()
        about |= size_of(thing)
    shape = getattr(thing, "item_shape", None)
    item_shape = None if shape is None else tuple(int(n) for n in shape)
    if options.prediction is None and options.schedule is None:
        denoiser = CallableDenoiser(thing, where)
        low, high = denoiser.sigma_min, denoiser.sigma_max
        if low is None or high is None:
            about["warnings"].append(
                f"{where} does not say which levels it was trained on; give it attributes "
                "sigma_min and sigma_max"
            )
        about |= {"prediction": "sample", "schedule": {"name": "called with (x, sigma)"}}
        binding = getattr(thing, "bind", None)

        def bind(given: Any) -> CallableDenoiser:
            assert binding is not None
            return CallableDenoiser(called(binding, f"{where}.bind", given), where)

        ends = (1e-3 if low is None else float(low), 1e3 if high is None else float(high))
        return LoadedModel(
            denoiser, item_shape, ends, None, about, dtype, device, bind if binding else None
        )
    labels, prediction, told = resolve([], options.prediction, options.schedule)
    about |= told

    def network(x: Tensor, label: Tensor) -> Any:
        return called(thing, where, x, label)

    return LoadedModel(
        NetworkDenoiser(network, labels, prediction, dtype),
        item_shape,
        (labels.low, labels.high),
        labels.levels,
        about,
        dtype,
        device,
    )
