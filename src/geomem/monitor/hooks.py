r"""The monitor as a callback of Lightning's ``Trainer``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.monitor.monitor import MemorizationMonitor

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


class OfModule:
    r"""The denoiser of a module, made where it is asked, so that a failure is one of the look.

    Arguments:
        make: From the module to its denoiser.
        module: The module.
    """

    def __init__(self, make: Callable[[Any], Denoiser], module: Any) -> None:
        self.make, self.module = make, module

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.make(self.module)(x, sigma)


class _Hooks:
    # What a trainer calls; mixed into the class of callbacks that is installed.
    monitor: MemorizationMonitor
    denoiser: Callable[[Any], Denoiser]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.monitor.step(OfModule(self.denoiser, pl_module), int(trainer.global_step))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.monitor.close()

    def state_dict(self) -> dict[str, Any]:
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.monitor.load_state_dict(state_dict)


def lightning_callback(
    monitor: MemorizationMonitor, denoiser: Callable[[Any], Denoiser], base: type | None = None
) -> Any:
    r"""A callback of Lightning that steps a monitor after each batch.

    Arguments:
        monitor: The monitor.
        denoiser: From the ``LightningModule`` to its denoiser.
        base: The class of callbacks; that of ``lightning`` or ``pytorch_lightning``,
            whichever is installed, if not given.

    Returns:
        A callback for ``Trainer(callbacks=[...])``.

    Raises:
        InputError: If neither package is installed.
    """
    kind = base or _callback_class()
    callback = type("MemorizationCallback", (_Hooks, kind), {})()
    callback.monitor, callback.denoiser = monitor, denoiser
    return callback


def _callback_class() -> type:
    for package in PACKAGES:
        try:
            found: type = import_module(package).Callback
        except ImportError:
            continue
        return found
    raise InputError("Lightning is not installed: pip install lightning, or call `monitor.step`")
