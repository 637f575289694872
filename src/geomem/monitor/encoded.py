r"""Images as a latent model sees them: encoded one by one, when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.monitor.images import image_of


class EncodedImages:
    r"""A data set of encoded images: what a monitor of a latent model is given.

    Nothing is encoded before it is asked for, so that a monitor can pay for one image at a time.

    Arguments:
        images: A data set of images: tensors, tuples that begin with one, or dictionaries with
            ``pixel_values`` or another of the usual keys.
        encode: From images of shape :math:`(B, *)` to what the denoiser is trained on, scaled as it
            is, of shape :math:`(B, *)`; drawn randomness is not wanted: take a mean.

    Raises:
        InputError: When an item is asked for in which no image is found, or whose code is no
            tensor.

    Example:
        >>> halves = EncodedImages(torch.ones(3, 1, 2, 2), lambda pixels: pixels / 2)
        >>> len(halves), halves[0].mean()
        (3, tensor(0.5000))
    """

    def __init__(self, images: Any, encode: Callable[[Tensor], Tensor]) -> None:
        self.images, self.encode = images, encode

    def __len__(self) -> int:
        return len(self.images)

    @torch.no_grad()
    def __getitem__(self, k: int) -> Tensor:
        pixels = torch.as_tensor(image_of("images", self.images[k]))
        code: Any = self.encode(pixels[None])
        if not isinstance(code, Tensor):
            raise InputError(
                f"`encode` returned a {type(code).__name__}; let it return a tensor, such as "
                "vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor"
            )
        return code[0].float()
