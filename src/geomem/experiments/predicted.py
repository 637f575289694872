r"""The dimension that an exact denoiser of N images keeps, predicted from the pool alone.

What ``geomem plan`` says of single directions, here of all of them together: subsets of N of the
pool's images, averaged without drawing any (:mod:`geomem.theory.data_prior`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.compute.files import atomic_write_text
from geomem.data.source import Source
from geomem.stats import numpy_rng
from geomem.theory.data_prior import data_prior


@dataclass(frozen=True)
class PredictedDimension:
    r"""What is predicted: all that the numbers depend on but the images.

    Attributes:
        digest: The sha256 of the images.
        sizes: Training-set sizes N.
        sigmas: Noise levels, in the data's units.
        sources: At how many noised images of the pool.
        most: Of how many images of the pool at most.
        seed: The seed of their choice and of the noise.
    """

    digest: str
    sizes: tuple[int, ...]
    sigmas: tuple[float, ...]
    sources: int = 128
    most: int = 10_000
    seed: int = 0

    def run(self, path: Path, source: Source) -> dict[str, Any]:
        r"""Dimension by size and level; what a file holds is not done again.

        Arguments:
            path: The file.
            source: The images and their parts.

        Returns:
            ``predicted``: [value, standard error over sources] by size and level.
        """
        asked = json.loads(json.dumps(asdict(self)))
        if path.exists():
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if kept.get("asked") == asked:
                return kept
        rng = numpy_rng(self.seed, "predicted dimension")
        index = rng.permutation(np.asarray(source.split.pool))[: self.most]
        points = source.data.tensor(index).flatten(1).double().numpy()
        points = np.unique(points, axis=0)  # copies are no further images
        rng = numpy_rng(self.seed, "predicted dimension: noise")
        some = rng.permutation(len(points))[: self.sources]
        noise = rng.standard_normal((len(some), points.shape[1]))
        sizes = [min(n, len(points)) for n in self.sizes]
        raw = data_prior(points, list(self.sigmas), sizes, sources=some, noise=noise)
        values = raw.dimension.transpose("source", "num_samples", "sigma").values
        found = {
            "asked": asked,
            "predicted": {
                str(n): [_pair(values[:, k, s]) for s in range(len(self.sigmas))]
                for k, n in enumerate(self.sizes)
            },
        }
        atomic_write_text(path, json.dumps(found, indent=1) + "\n")
        return found


def _pair(values: Sequence[float] | np.ndarray) -> list[float]:
    array = np.asarray(values)
    error = float(array.std(ddof=1) / len(array) ** 0.5)
    return [float(f"{array.mean():.4g}"), float(f"{error:.3g}")]
