r"""What a look will take: as long as the last one; before the first, what a batch tells.

A look calls the denoiser batch by batch, so that one batch tells what all of them take. Not even
that is known beforehand: a batch of a large network may take longer than the training so far can
pay for. So a few rows are asked first, which tell what a batch takes at most.
"""

from __future__ import annotations

import math

import torch

from geomem.measure.study import Study
from geomem.monitor.rest import AtRest
from geomem.monitor.spacing import Spacing

FEW = 8  # rows of the first call


class Forecast:
    r"""What the next look of a training will take.

    Arguments:
        study: What a look asks.
        overhead: Seconds of a look that are not the denoiser's.
        spacing: What may be spent.

    Attributes:
        needs: Seconds that have to be there before there is anything to be done: what the next
            look takes; before the first, what it takes to find that out.
    """

    def __init__(self, study: Study, overhead: float, spacing: Spacing) -> None:
        self._overhead, self._spacing = overhead, spacing
        self._sigmas, images = study.sigmas, list(study.images.values())
        size = next(p["batch_size"] for p in study.content["probes"] if "batch_size" in p)
        counts = [len(x) * study.draws for x in images]
        rows = min(size, max(counts))
        self._rows = images[0][torch.arange(rows) % len(images[0])]
        self._batches = sum(math.ceil(n / size) for n in counts) * len(study.sigmas)
        # Before its batches, one point of each kind is asked twice at each level.
        self._singles = 2 * len(counts) * len(study.sigmas)
        self._few: float | None = None  # seconds of a call with few rows
        self._known = False
        self.needs = 0.0

    def allows(self, denoiser: AtRest) -> bool:
        r"""Whether there may be a look, where what it :attr:`needs` is there.

        Before the first look that is what it takes to find out more, which is done here.
        """
        if self._known or self._spacing.share == math.inf:
            return True
        if self._few is None:
            self._seconds(denoiser, FEW)  # what is asked for the first time takes longer
            self._few = self._seconds(denoiser, FEW)
            self.needs = self._overhead + self._few * max(1.0, len(self._rows) / FEW)
        if self._spacing.affords(self.needs):
            batch = self._seconds(denoiser, len(self._rows))
            self.needs = self._overhead + batch * self._batches + self._few * self._singles
            self._known = True
        return self._known and self._spacing.affords(self.needs)

    def took(self, seconds: float) -> None:
        r"""The last look took so long."""
        self.needs, self._known = seconds, True

    def _seconds(self, denoiser: AtRest, rows: int) -> float:
        x, before = self._rows[:rows].to(denoiser.device), self._spacing.clock()
        with torch.no_grad():
            denoiser(x, self._sigmas[0].to(x)).cpu()
        return self._spacing.clock() - before
