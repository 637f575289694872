r"""``geomem export``: a network of a run as a folder of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from geomem.models.export import export_diffusers
from geomem.models.networks import load_network


@dataclass(frozen=True)
class ExportCommand:
    r"""Write a U-Net that a sweep trained as a folder of diffusers: unet/ and scheduler/.

    UNet2DModel and EDMEulerScheduler load and sample from it; so does geomem audit.

    Example:

      geomem export runs/fashion/networks/N001000-seed0-step1500 --out fashion-1000
    """

    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """A network of a run: the path of its .safetensors, with or without the ending."""
    out: Path = Path("exported")
    """The folder to write."""

    def run(self) -> int:
        r"""Writes the folder, prints where; returns the exit status."""
        ending = self.network.suffix == ".safetensors"
        export_diffusers(load_network(self.network if ending else _named(self.network)), self.out)
        print(f"{self.out / 'unet'} and {self.out / 'scheduler'}")
        return 0


def _named(path: Path) -> Path:
    # A name with a dot in it is no ending.
    return path.with_name(f"{path.name}.safetensors")
