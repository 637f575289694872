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

import numpy as np
import torch
from torch import Tensor, nn

from geomem.denoiser import expand
from geomem.errors import InputError
from geomem.models.doors.denoisers import CallableDenoiser, NetworkDenoiser, called, tensor_in
from geomem.models.doors.loaded import LoadedModel
from geomem.models.doors.modules import size_of
from geomem.models.doors.options import DoorOptions
from geomem.models.doors.schedules import resolve
from geomem.noise import level_of_each

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
    if _is_azula(thing) and options.schedule is None:
        return _load_azula(where, thing, shape, about, dtype, device)
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


# ---------------------------------------------------------------------------------- azula


def _is_azula(thing: Any) -> bool:
    schedule = getattr(thing, "schedule", None)
    return callable(schedule) and all(hasattr(schedule, name) for name in ("alpha", "sigma"))


class AzulaDenoiser:
    r"""A denoiser of azula: called with :math:`x_t` and t in [0, 1], it returns a posterior.

    Its schedule is any pair of :math:`\alpha_t` and :math:`\sigma_t`, so that the time of a level
    is looked up on a grid of times, by ln sigma, and the input is scaled by alpha there.

    Arguments:
        denoiser: The denoiser.
        name: What to call it in errors.

    Raises:
        InputError: If the level of its schedule does not rise with time.
    """

    def __init__(self, denoiser: Any, name: str) -> None:
        self.denoiser, self.name = denoiser, name
        self.times = torch.linspace(0, 1, 4097, dtype=torch.float64)
        with torch.no_grad():
            alpha, sigma = (v.double() for v in denoiser.schedule(self.times))
        level = (sigma / alpha).log()
        kept = torch.isfinite(level)
        self.times, self.level = self.times[kept], level[kept]
        if len(self.level) < 2 or not bool((self.level.diff() > 0).all()):
            raise InputError(
                f"the levels of the schedule of {name} do not rise with time in [0, 1]; name a "
                "function of (x, sigma) instead"
            )
        self.sigma_min, self.sigma_max = (float(self.level[k].exp()) for k in (0, -1))

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        log_level = level_of_each(sigma, x).log().cpu()
        t = np.interp(log_level.numpy(), self.level.numpy(), self.times.numpy())
        time = torch.as_tensor(t).to(x.device)
        with torch.no_grad():
            alpha = self.denoiser.schedule(time)[0].to(x)
        posterior = called(self.denoiser, self.name, expand(alpha, x) * x, time.to(x))
        return tensor_in(getattr(posterior, "mean", posterior), x).to(x.dtype)


def _load_azula(
    where: str, thing: Any, shape: Any, about: dict[str, Any], dtype: torch.dtype, device: str
) -> LoadedModel:
    denoiser = AzulaDenoiser(thing, where)
    ends = (denoiser.sigma_min, denoiser.sigma_max)
    name = f"azula's {type(thing.schedule).__name__}"
    about |= {"prediction": "sample", "schedule": {"name": name, "sigma": list(ends)}}
    item_shape = None if shape is None else tuple(int(n) for n in shape)
    return LoadedModel(denoiser, item_shape, ends, None, about, dtype, device)
