r"""From how many images on is the error on new images that on training images? Do two agree?

Run:  python benchmarks/published/agreement.py RUN [RUN ...] [--out PATH]

Kadkhodaie et al. (2024) train bias-free U-Nets on faces of 80 x 80: at N of about 100,000 the error
on training and on new images is the same, and networks of disjoint images draw the same image
from the same noise. Here the same curves from the records of `geomem sweep`: at the last step,
the mean of the squared errors, training over held-out images, at levels up to the data's own
scale, each divided by that of the control; and the correlation of images that two trainings draw
from the same noise. The trainings of a sweep share their images, so that small N agree by copying.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import xarray as xr
from row import Found, publish_of_runs, with_error

from geomem import load
from geomem.runs.records import RunFolder

SETTING = ("size", "network", "channels", "width", "steps", "batch_size", "learning_rate")


def of_run(path: Path) -> Found:
    r"""A row a size: the ratio of errors and the agreement at the last step."""
    data, config = load(path), RunFolder.open(path).config
    learned = data.isel(subject=(data.kind == "learned").values & data.measured.values)
    rows = []
    for N in np.unique(learned.num_samples):
        at = learned.isel(subject=(learned.num_samples == N).values)
        at = at.isel(subject=(at.step == at.step.max()).values)
        rows.append(
            {
                "N": int(N),
                "step": int(at.step.max()),
                "trainings": at.sizes["subject"],
                "levels": levels(at),
                "agreement": agreement(at),
            }
        )
    return {
        "run": path.name,
        "data": str(data.attrs["data"]),
        "rms": float(data.attrs["rms"]),
        "setting": {name: config[name] for name in SETTING if name in config},
        "rows": rows,
    }


def levels(at: xr.Dataset) -> list[Found]:
    r"""Training over held-out error, by level, ± over images: of their means, by the delta rule."""
    squares = (at.error**2).sum("direction").mean(["draw", "subject"])  # (at, sigma, point)
    found = []
    for sigma in squares.sigma.values:
        of = {name: with_error(squares.sel(sigma=sigma, at=name).values) for name in
              ("training", "held_out")}  # fmt: skip
        (a, a_error), (b, b_error) = of["training"], of["held_out"]
        error = a / b * ((a_error / a) ** 2 + (b_error / b) ** 2) ** 0.5
        found.append({"sigma": float(sigma), "ratio": [a / b, error]})
    return found


def agreement(at: xr.Dataset) -> list[float] | None:
    r"""Mean correlation of what two trainings draw from the same noise, ± over noises."""
    if "sample_image" not in at or at.sizes["subject"] < 2:
        return None
    images = at.sample_image.stack(pixel=["axis_0", "axis_1", "axis_2"]).values
    images = images - images.mean(axis=(0, 1))  # what all samples share is no agreement
    pairs = [
        (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1)) for a, b in combinations(images, 2)
    ]
    return with_error(np.mean(pairs, axis=0))


def measure(runs: list[Path]) -> Found:
    return {"runs": [of_run(run) for run in runs]}


if __name__ == "__main__":
    sys.exit(publish_of_runs(measure, __doc__, "agreement"))
