r"""Accelerators: waited for, and shared by processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geomem.compute.executor import Executor
from geomem.compute.local import LocalExecutor
from geomem.errors import InputError

SHARED = 2  # 12 trainings of a small U-Net on one H200 advanced 2.3 times as fast as one


def is_accelerator(device: str) -> bool:
    r"""Whether a device is another one than the processors.

    Example:
        >>> [is_accelerator(device) for device in ("cpu", "cpu:0", "cuda", "cuda:1")]
        [False, False, True, True]
    """
    return device.partition(":")[0] != "cpu"


def check_device(device: str) -> None:
    r"""Refuses a device that is not there.

    Raises:
        InputError: If torch cannot compute on it.
    """
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"`device` is {device!r}, which is not there ({reason}); pass cpu"
        ) from error


def wait_for(device: str) -> None:
    r"""Waits until a device has done what it was given: a launch is not yet the work."""
    import torch

    if is_accelerator(device):
        torch.accelerator.synchronize(torch.device(device))


def seconds_once(action: Callable[[], Any], device: str) -> float:
    r"""Seconds that an action takes, done once; on an accelerator after a first time.

    The first call there loads what all later ones use.
    """
    if is_accelerator(device):
        action()
        wait_for(device)
    start = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - start


def pace(executor: Executor, device: str) -> int:
    r"""How many units advance at a time as if each of them were alone.

    Processes of this machine share its accelerator; workers of a cluster have one each.

    Example:
        >>> pace(LocalExecutor(12), "cpu"), pace(LocalExecutor(12), "cuda")
        (12, 2)
    """
    workers = executor.workers()
    shared = is_accelerator(device) and isinstance(executor, LocalExecutor)
    return min(workers, SHARED) if shared else workers
