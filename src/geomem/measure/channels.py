r"""Where a low-rank update lies in the weights that it updates.

A LoRA adds :math:`\Delta W` to the weights W of a base. Published work finds that updates which
lie along the base's own principal channels go with memorization (arXiv 2605.10439), so that is
measured beside the nats. The *principal channels* of a module are its leading singular
directions, as few as hold half of its squared weights; the alignment is the share of the squared
update that lies in them, on the side of its inputs and on that of its outputs. By chance it is
the share of channels that are principal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from geomem.arguments import Number, checked
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject

SIDES = ("input", "output")


@checked
@dataclass(frozen=True)
class Channels:
    r"""Gives ``update_share`` (module, side): of a squared update, what lies in principal channels.

    Besides ``update_chance`` (module, side), what would by chance; ``update_size`` (module), the
    Frobenius norm of the update over that of the weights; ``update_weight`` (module), its square
    alone; and ``update_module``, the name. Nothing of a subject whose weights were not updated.

    Attributes:
        held: Of the squared weights, what principal channels hold.
    """

    held: Annotated[float, Number(above=0.0, below=1.0)] = 0.5

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        if subject.updates is None:
            return xr.Dataset()
        names, rows = [], []
        for name, weight, update in subject.updates():
            names.append(name)
            rows.append(aligned(weight, update, self.held))
        if not rows:
            return xr.Dataset()
        found = np.array(rows)
        one = {"units": "1"}
        share = {"long_name": "share of the squared update in the base's principal channels"}
        chance = {"long_name": "share of channels that are principal"}
        size = {"long_name": "norm of the update over that of the weights"}
        square = {"units": "squared weights", "long_name": "squared norm of the update"}
        known = {"units": "", "long_name": "name of an updated module"}
        both = ("module", "side")
        return xr.Dataset(
            {
                "update_share": (both, found[:, :2], one | share),
                "update_chance": (both, found[:, 2:4], one | chance),
                "update_size": ("module", found[:, 4], one | size),
                "update_weight": ("module", found[:, 5], square),
                "update_module": ("module", np.array(names), known),
            }
        )


def aligned(weight: Tensor, update: Tensor, held: float) -> list[float]:
    r"""Shares of a squared update in the principal channels of the weights that it updates.

    Arguments:
        weight: The weights before, with shape (out, in).
        update: What was added, with shape (out, in).
        held: Of the squared weights, what the channels hold.

    Returns:
        The shares on the side of inputs and outputs, both by chance, norm over norm, and the
        squared norm of the update.
    """
    w, delta = weight.double(), update.double()
    left, values, right = torch.linalg.svd(w, full_matrices=False)
    squares = values.square()
    count = int((squares.cumsum(0) < held * squares.sum()).sum()) + 1
    total = float(delta.square().sum())
    inside = (delta @ right[:count].T, left[:, :count].T @ delta)
    shares = [float(part.square().sum()) / total if total else float("nan") for part in inside]
    chance = [count / w.shape[1], count / w.shape[0]]
    size = float(delta.norm() / w.norm()) if float(w.norm()) else float("nan")
    return [*shares, *chance, size, total]
