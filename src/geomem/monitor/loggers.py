r"""Where the numbers of looks go: anything with ``log(numbers, step=...)``.

That is what a run of wandb or trackio, these modules themselves, and accelerate's
``Accelerator`` have; TensorBoard's writer and Lightning's loggers say it otherwise, and are
adapted here. Nothing is imported that is not asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from geomem.errors import InputError
from geomem.findings.looks import Look

Write = Callable[[Mapping[str, float], int], Any]
SERVICES = ("wandb", "trackio")


def numbers_of(look: Look, warned: bool) -> dict[str, float]:
    r"""The numbers of a look by the names under which they are logged, without those not known.

    Arguments:
        look: The look.
        warned: Whether there was a warning, at it or before.
    """
    found = {
        "p_value": look.p_value,
        "p_level": look.level,
        "warning": float(warned),
        "training_error": look.training.value,
        "held_out_error": look.held_out.value,
    }
    for beside, gain in look.gains.items():
        found |= {f"beside_{beside}": gain.value, f"beside_{beside}_stderr": gain.stderr}
    return {f"geomem/{k}": v for k, v in found.items() if not math.isnan(v)}


class Logger(Protocol):
    r"""Anything that takes named numbers at a step."""

    def log(self, numbers: Mapping[str, float], *, step: int) -> Any:
        r"""
        Arguments:
            numbers: Numbers by name.
            step: The step of the training.
        """


def writer_of(target: Any) -> Write:
    r"""A function that writes the numbers of a look to a logger.

    Arguments:
        target: A :class:`Logger`; a ``SummaryWriter`` of TensorBoard; a logger of Lightning;
            the texts ``wandb`` and ``trackio``, for the run that is open there, or
            ``tensorboard:FOLDER``.

    Raises:
        InputError: If it is none of these, or the package that it names is not installed.

    Example:
        >>> class Printed:
        ...     def log(self, numbers, *, step):
        ...         print(step, numbers)
        >>> writer_of(Printed())({"geomem/p_value": 0.5}, 100)
        100 {'geomem/p_value': 0.5}
    """
    if isinstance(target, str):
        name, _, folder = target.partition(":")
        if name == "tensorboard":
            module = _imported("torch.utils.tensorboard", "tensorboard")
            return writer_of(module.SummaryWriter(folder or None))
        if name in SERVICES:
            return writer_of(_imported(name, name))
        raise InputError(
            f"`log` names {target!r}; pass tensorboard:FOLDER, wandb, trackio or an object with "
            "`log(numbers, step=...)`"
        )
    if callable(getattr(target, "add_scalar", None)):

        def scalars(numbers: Mapping[str, float], step: int) -> None:
            for name, value in numbers.items():
                target.add_scalar(name, value, step)
            # Looks are rare: a training that is killed before the next one leaves this one's.
            if callable(getattr(target, "flush", None)):
                target.flush()

        return scalars
    if callable(getattr(target, "log_metrics", None)):
        return lambda numbers, step: target.log_metrics(dict(numbers), step)
    if callable(getattr(target, "log", None)):
        return lambda numbers, step: target.log(dict(numbers), step=step)
    raise InputError(
        f"`log` is a {type(target).__name__}; pass an object with `log(numbers, step=...)`, a "
        "SummaryWriter, or a text such as wandb"
    )


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(f"`log` names {package}, which is not installed; install it") from error
