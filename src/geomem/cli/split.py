r"""``geomem split``: split a data set before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from geomem.cli.options import say_account
from geomem.compute.files import atomic_write_text
from geomem.data.images import duplicate_groups, load_data
from geomem.data.splits import make_split, split_text
from geomem.errors import InputError


@dataclass(frozen=True)
class SplitCommand:
    r"""Decide before training which images are trained on, held out, and reserved.

    Stratified by label; groups and exact duplicates stay together. The file names images by
    digest; `geomem sweep --split` takes it. All images are drawn from, official test images
    too: without a split, `sweep` keeps an official test part held out.

    Example: geomem split faces/ --groups subjects.csv --out split.json
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """digits, mnist, fashion-mnist, cifar10, olivetti, or PATH[:key]: .npy, .npz, idx, folder."""
    held_out: float = 0.15
    """Share of images to hold out and to compare with the training images."""
    reserved: float = 0.15
    """Share of images to reserve for the principal directions and the linear control."""
    groups: Path | None = None
    """CSV with header file,value: images with the same value show the same subject."""
    labels: Path | None = None
    """CSV with header file,value: the class of each image, to stratify by."""
    seed: int = 0
    """Seed of the draw."""
    out: Path = Path("split.json")
    """File to write; a different one that is already there is not overwritten."""

    def run(self) -> int:
        r"""Makes the split, writes it, and says so in one sentence; returns the exit status."""
        data = load_data(self.data, labels=self.labels, groups=self.groups)
        split = make_split(data, held_out=self.held_out, reserved=self.reserved, seed=self.seed)
        say_account(data)
        _write_once(self.out, split_text(split, data))
        duplicates = len(data) - len(set(data.digests()))
        groups = int(duplicate_groups(data).max()) + 1
        print(
            f"{len(data):,} images of {data.name} in {groups:,} groups "
            f"({duplicates:,} exact duplicates): {split}, written to {self.out}"
        )
        return 0


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise InputError(
            f"{path} is already there and is not this split; choose another --out, "
            "or remove it if no run needs it"
        )
    atomic_write_text(path, text)
