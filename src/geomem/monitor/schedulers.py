r"""Denoisers of a training script: a model, and the noise scheduler that it is trained with.

Scripts in the manner of diffusers train a model that is called with noisy images and times, and
keep the schedule and the kind of its prediction in a scheduler. Together they are a denoiser, by
the same doors as models from disk (:mod:`geomem.models.doors`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from geomem.errors import InputError
from geomem.models.doors.denoisers import NetworkDenoiser
from geomem.models.doors.schedules import labels_of, prediction_named
from geomem.monitor.rest import WRAPPERS


def scheduled_denoiser(
    model: nn.Module, scheduler: Any, prediction: str | None = None, **conditions: Any
) -> NetworkDenoiser:
    r"""The denoiser of a model in training with its noise scheduler.

    Arguments:
        model: Called with noisy images (B, \*) and times (B); a network wrapped for several
            processes is asked without its wrapper.
        scheduler: A noise scheduler of diffusers, of which only the training schedule counts.
        prediction: What the model returns (``epsilon``, ``v_prediction``, ``sample``,
            ``flow_prediction``), where that is an option of the script and not its scheduler's.
        conditions: What the model is told beside, for one image, with shape (1, \*) each: such as
            ``encoder_hidden_states`` of the empty caption. They are repeated for every image.

    Raises:
        InputError: If the scheduler has no config, or its schedule cannot be resolved.
    """
    config = getattr(scheduler, "config", None)
    if config is None:
        raise InputError(
            f"`scheduler` is a {type(scheduler).__name__} without a config; pass the noise "
            "scheduler of the training"
        )
    bare = model
    while type(bare).__name__ in WRAPPERS:
        inner = getattr(bare, "module", None)
        if not isinstance(inner, nn.Module):
            break
        bare = inner
    named = {"_class_name": type(scheduler).__name__, **dict(config)}
    labels, told = labels_of(named, "the scheduler")

    def network(x: Tensor, time: Tensor) -> Any:
        beside = {
            name: value.expand(len(x), *value.shape[1:]) if isinstance(value, Tensor) else value
            for name, value in conditions.items()
        }
        return bare(x, time, **beside)

    first = next((p for p in bare.parameters() if p.is_floating_point()), torch.empty(0))
    return NetworkDenoiser(
        network, labels, prediction_named(prediction or told or "epsilon"), first.dtype
    )
