r"""Backbones, and the preconditioning that makes them denoisers in sigma.

.. math:: D(x, \sigma) = c_{skip} x + c_{out} F(c_{in} x, c_{noise})

keeps input and output of the backbone F at unit variance at every level. Two backbones: an
MLP with residual blocks for small vectors, and diffusers' ``UNet2DModel`` for images.

References:
    | Karras et al., Elucidating the design space, arXiv 2206.00364 (table 1, EDM)
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geomem.compute.files import atomic_write, atomic_write_text
from geomem.denoiser import expand
from geomem.errors import InputError

# Training draws ln(sigma / rms) from a normal with this mean and standard deviation.
LEVEL_MEAN, LEVEL_SPREAD = -1.0, 1.4
# Half a percent of the draws lie below, and half a percent above, so many deviations.
_OUTERMOST = 2.576


@dataclass(frozen=True)
class NetworkConfig:
    r"""What a network is, enough to build it again.

    Arguments:
        kind: ``mlp`` for vectors and small images, ``unet`` for images.
        item_shape: The shape of one data point.
        sigma_data: The root-mean-square deviation of the data, per coordinate.
        width: The width of the MLP.
        blocks: How many residual blocks the MLP has.
        channels: The channels of the U-Net at each resolution.
    """

    kind: Literal["mlp", "unet"]
    item_shape: tuple[int, ...]
    sigma_data: float
    width: int = 256
    blocks: int = 3
    channels: tuple[int, ...] = (32, 64, 64)

    def build(self, seed: int) -> PreconditionedDenoiser:
        r"""A freshly initialised network; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = self._mlp() if self.kind == "mlp" else self._unet()
        ends = (math.exp(LEVEL_MEAN + side * LEVEL_SPREAD) for side in (-_OUTERMOST, _OUTERMOST))
        low, high = (end * self.sigma_data for end in ends)
        return PreconditionedDenoiser(backbone, self.sigma_data, low, high)

    def _mlp(self) -> nn.Module:
        return ResidualMLP(math.prod(self.item_shape), self.width, self.blocks)

    def _unet(self) -> nn.Module:
        return UNet(self.item_shape, self.channels)


class PreconditionedDenoiser(nn.Module):
    r"""A backbone as a denoiser in sigma, by EDM's preconditioning.

    Arguments:
        backbone: Called with scaled points ``(B, *)`` and ``ln(sigma)/4`` of shape ``(B)``.
        sigma_data: The root-mean-square deviation of the data, per coordinate.
        sigma_min: The lowest level of training, if it is known: our recipe's is the level below
            which .5 % of its draws lie, .010 rms. Measuring outside warns.
        sigma_max: Likewise the highest, 13.6 rms.
    """

    def __init__(
        self,
        backbone: nn.Module,
        sigma_data: float,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.sigma_data = backbone, sigma_data
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.to(x).expand(len(x))
        s = expand(level, x)
        total = (s**2 + self.sigma_data**2).sqrt()
        c_skip, c_out = (self.sigma_data / total) ** 2, s * self.sigma_data / total
        output: Tensor = self.backbone(x / total, level.log() / 4)
        return c_skip * x + c_out * output


class ResidualMLP(nn.Module):
    r"""Multilayer perceptron with residual SiLU blocks, told the level by random features.

    Arguments:
        size: The number of coordinates of a point.
        width: The width.
        blocks: The number of residual blocks.
    """

    def __init__(self, size: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(size, width), nn.Linear(width, size)
        self.level = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
            )
            for _ in range(blocks)
        )
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        h = self.enter(x.flatten(1)) + self.level(_features(c_noise))
        for block in self.blocks:
            h = h + block(h)
        output: Tensor = self.leave(nn.functional.silu(h))
        return output.reshape(x.shape)


def _features(c_noise: Tensor) -> Tensor:
    frequencies = torch.arange(1, 17, device=c_noise.device, dtype=c_noise.dtype)
    angles = c_noise[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class UNet(nn.Module):
    r"""diffusers' ``UNet2DModel``, called like every other backbone.

    Sizes that the strides do not divide are padded at the door and cropped behind it.

    Arguments:
        item_shape: Channels, height and width of an image.
        channels: The channels at each resolution.
    """

    def __init__(self, item_shape: tuple[int, ...], channels: tuple[int, ...]) -> None:
        super().__init__()
        if len(item_shape) != 3:
            raise InputError(f"a U-Net needs images (C, H, W), got {item_shape}; use an mlp")
        shared = math.gcd(*channels)
        groups = max((k for k in range(1, 9) if shared and shared % k == 0), default=1)
        if groups < 2:
            raise InputError(
                f"`channels` is {list(channels)}; pass numbers with a common divisor, such as 32 64"
            )
        from diffusers import UNet2DModel

        build: Any = UNet2DModel  # untyped in diffusers
        depth = len(channels)
        self.stride = 2 ** (depth - 1)
        self.unet: nn.Module = build(
            sample_size=item_shape[1:],
            in_channels=item_shape[0],
            out_channels=item_shape[0],
            layers_per_block=1,
            block_out_channels=channels,
            norm_num_groups=groups,
            down_block_types=("DownBlock2D",) * depth,
            up_block_types=("UpBlock2D",) * depth,
            add_attention=False,
        )

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        padding = (0, -w % self.stride, 0, -h % self.stride)
        output: Tensor = self.unet(nn.functional.pad(x, padding), c_noise).sample
        return output[..., :h, :w]


def save_network(denoiser: PreconditionedDenoiser, config: NetworkConfig, path: Path) -> None:
    r"""Writes weights (safetensors) and config (JSON) of a network as ``path.*``."""
    state = {k: v.contiguous().cpu() for k, v in denoiser.backbone.state_dict().items()}
    atomic_write(path.with_suffix(".safetensors"), lambda p: save_file(state, p))
    atomic_write_text(path.with_suffix(".json"), json.dumps(asdict(config), indent=1) + "\n")


def load_network(path: Path) -> PreconditionedDenoiser:
    r"""Reads a network that :func:`save_network` wrote, in evaluation mode.

    Raises:
        InputError: If a file is missing or damaged; nothing is ever unpickled.
    """
    try:
        raw: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        denoiser = NetworkConfig(**fields).build(seed=0)
        denoiser.backbone.load_state_dict(load_file(path.with_suffix(".safetensors")))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{path} is not a network of geomem ({error}); train it again") from error
    return denoiser.eval()
