r"""A model as it came in, and what was read of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomem.denoiser import Denoiser


@dataclass(frozen=True, eq=False)
class LoadedModel:
    r"""A model of a stranger behind the one protocol, with all that its files say.

    Attributes:
        denoiser: The unguided, unconditional denoiser, in units of the data (alpha = 1). Where
            the network knows no "without condition", calling it ends in an
            :class:`~geomem.errors.InputError` that says so; see ``bind``.
        item_shape: The shape of a point, of its latent where the model is one of latents; None
            where it is not known.
        sigma_range: The levels that it was trained on, from and to.
        levels: Its own discrete levels, increasing, with shape (K), where it has them.
        about: What was read and resolved, as plain JSON: source, prediction, schedule, digests of
            the files of weights, dtype, parameters, scales, what the files tell of the training;
            ``warnings`` are sentences.
        dtype: The dtype that the network works in.
        device: Where it works.
        bind: From conditions (captions, labels, or embeddings), one a point, to the denoiser of
            exactly these points, in this order; a single condition serves any number of points.
            None where there is nothing to bind.
        encode: From images in [-1, 1] with shape (B, C, H, W) to the model's space: the mean of
            its encoder, scaled as in training. None where the model is one of pixels.
        flips: Whether it was trained with mirrored images; None where the files do not tell.
        updates: Of a LoRA: called, it gives of each updated module of the network its name, the
            base's weights and what was added, both with shape (out, in). None of other models.
    """

    denoiser: Denoiser
    item_shape: tuple[int, ...] | None
    sigma_range: tuple[float, float]
    levels: NDArray[np.float64] | None
    about: dict[str, Any]
    dtype: torch.dtype
    device: str
    bind: Callable[[Sequence[Any]], Denoiser] | None = None
    encode: Callable[[Tensor], Tensor] | None = None
    flips: bool | None = None
    updates: Callable[[], Iterable[tuple[str, Tensor, Tensor]]] | None = None


@dataclass(frozen=True)
class ModelCheck:
    r"""One check of a loaded model.

    Attributes:
        name: What was checked.
        passed: Whether it holds.
        value: The number that it turns on, in the units that the sentence says; NaN if none.
        sentence: What was found; where it does not hold, what would fit.
    """

    name: str
    passed: bool
    value: float
    sentence: str
