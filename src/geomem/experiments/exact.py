r"""Exact denoisers of many data sets, averaged over planted points, beside the exact prediction.

One data set's points share that data set, so errors are over data sets: each is drawn anew, and
the mean over some of its points is one number.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomem.compute.files import atomic_write_text
from geomem.compute.progress import Progress
from geomem.exact import EmpiricalDenoiser
from geomem.manifolds import PAPER_VARIANCES, LinearManifold
from geomem.stats import torch_rng
from geomem.theory.averages import Effort, planted_average
from geomem.theory.priors import Gaussian

GROUPS = {"high": slice(0, 2), "low": slice(2, 7)}  # of the paper's variances
EFFORT = Effort(points=16)  # standard errors of about .01
MOST = 5000  # the largest size: each of its points costs as many products


@dataclass(frozen=True)
class ExactRetention:
    r"""What is averaged: all that the numbers depend on.

    Attributes:
        sizes: Training-set sizes N.
        sigmas: Noise levels, in the data's units.
        total: How many planted points of each size; fewer above N = 1,000, where retention
            varies less from point to point and each costs N products.
        points: How many of them a data set has, if it has so many: all others are other sets.
        seed: The seed of data sets and noise.
    """

    sizes: tuple[int, ...]
    sigmas: tuple[float, ...]
    total: int = 10_000
    points: int = 40
    seed: int = 0

    def run(self, path: Path) -> dict[str, Any]:
        r"""Measured and predicted retention, size by size; what a file holds is not done again.

        Returns:
            ``measured`` and ``predicted`` by group: [value, standard error] by size and level.
        """
        asked = json.loads(json.dumps(asdict(self)))
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found = kept if kept.get("asked") == asked else {"asked": asked, "measured": {}}
        progress = Progress(len(self.sizes) + 1, "exact denoisers")
        for done, size in enumerate(self.sizes):
            if str(size) not in found["measured"]:
                found["measured"][str(size)] = self._measure(size)
                atomic_write_text(path, json.dumps(found, indent=1) + "\n")
            progress.update(done + 1, f"N = {size}")
        if "predicted" not in found:
            found["predicted"] = self._predict()
            atomic_write_text(path, json.dumps(found, indent=1) + "\n")
        progress.finish()
        return found

    def points_of(self, size: int) -> int:
        r"""How many planted points of a size are averaged.

        Example:
            >>> [ExactRetention((), ()).points_of(n) for n in (10, 1000, 5000, 20_000)]
            [10000, 10000, 4472, 2236]
        """
        return int(self.total * min(1.0, (1000 / size) ** 0.5))

    def _measure(self, size: int) -> dict[str, list[list[float]]]:
        v = torch.tensor(PAPER_VARIANCES, dtype=torch.float64)
        plane, count = LinearManifold(v, len(v)), min(self.points, size)
        axes = torch.eye(len(v), dtype=torch.float64)[:, :7]
        sets = self.points_of(size) // count
        values = np.empty((sets, len(self.sigmas), 7))
        for s in range(sets):
            rng = torch_rng(self.seed, f"exact retention/{size}", s)
            data = plane.sample(size, rng)
            noise = torch.randn(count, len(v), generator=rng, dtype=torch.float64)
            denoiser = EmpiricalDenoiser(data)
            for k, sigma in enumerate(self.sigmas):
                level = torch.tensor(sigma, dtype=torch.float64)
                kept = denoiser.jacobian_diagonal(data[:count] + sigma * noise, level, axes)
                values[s, k] = kept.mean(0).numpy()
        t = np.array(self.sigmas)[:, None] ** 2
        v7 = v[:7].numpy()
        retention = values / (v7 / (v7 + t))
        return {
            name: [_pair(retention[:, k, group].mean(1)) for k in range(len(self.sigmas))]
            for name, group in GROUPS.items()
        }

    def _predict(self) -> dict[str, dict[str, list[list[float]]]]:
        found: dict[str, dict[str, list[list[float]]]] = {
            str(n): {name: [] for name in GROUPS} for n in self.sizes
        }
        for sigma in self.sigmas:
            p = planted_average(Gaussian(PAPER_VARIANCES), sigma, self.sizes, effort=EFFORT)
            for n, size in enumerate(self.sizes):
                for name, group in GROUPS.items():
                    # Axes of equal variance share their mean, and so its error.
                    pair = [p.retention[n, group.start], p.retention_stderr[n, group.start]]
                    found[str(size)][name].append([float(x) for x in pair])
        return found


def _pair(values: np.ndarray) -> list[float]:
    return [float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)]


def beyond(found: dict[str, Any], limit: float = 3.0, most: float = 0.01) -> dict[str, Any]:
    r"""In how many cells measured and predicted differ by more joint errors than a limit.

    Arguments:
        found: What :meth:`ExactRetention.run` returns.
        limit: The number of joint standard errors.
        most: The joint standard error up to which a cell counts as known.
    """
    z, errors = [], []
    for size, groups in found["measured"].items():
        for name, cells in groups.items():
            for (a, e), (b, f) in zip(cells, found["predicted"][size][name], strict=True):
                # Where nothing was kept at n points, an n-th may be kept all the same.
                joint = float(np.hypot(max(e, 1 / found["asked"]["total"]), f))
                z.append((a - b) / joint)
                errors.append(joint)
    score = np.array(z)
    return {
        "cells": len(z),
        "beyond": int((np.abs(score) > limit).sum()),
        "largest": float(np.abs(score).max()),
        "rms_z": float(np.sqrt(np.mean(score**2))),
        "known": int(sum(e <= most for e in errors)),
        "largest_error": float(max(errors)),
    }


# From where all is lost to where nothing is.
LEVELS = tuple(float(f"{s:.3g}") for s in np.geomspace(0.05, 1.0, 8))
