r"""The mirror: a model's own error at mirrored images, as a control that costs no training.

A model that has memorized an image has memorized it the way round in which it saw it, and knows
its mirror image no better than a new one. With ``M`` for mirroring, ``M D(M x)`` is as good a
denoiser of ``x`` as ``D`` is of the mirror image, with the noise mirrored, too: what it does
worse than ``D`` at training images, beyond what it does worse at held-out ones (images are not
drawn mirror-symmetrically), is memory. It sees nothing where the model was trained with mirrored
images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.modules import trained_range


@dataclass(frozen=True, eq=False)
class MirrorDenoiser:
    r"""A denoiser, asked at the mirror image of every point, its answer mirrored back.

    Arguments:
        denoiser: The denoiser :math:`D` of images.

    Example:
        >>> keeps_left = lambda x, sigma: x * torch.tensor([1.0, 0.0])
        >>> MirrorDenoiser(keeps_left)(torch.ones(1, 1, 1, 2), torch.tensor(1.0)).flatten()
        tensor([0., 1.])
    """

    denoiser: Denoiser

    def __post_init__(self) -> None:
        known = trained_range(self.denoiser)
        if known is not None:
            object.__setattr__(self, "sigma_min", known[0])
            object.__setattr__(self, "sigma_max", known[1])

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        found: Tensor = self.denoiser(torch.flip(x, [-1]), sigma)
        return torch.flip(found, [-1])
