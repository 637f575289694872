r"""Effective model memorization: the most images of which nine samples of ten are copies.

Run:  python benchmarks/published/effective.py RUN [RUN ...] [--out PATH]

Gu et al. (2023): a sample is memorized if its nearest training image is less than 1/3 as far as
the next; the effective model memorization (EMM) is the largest N at which the share of memorized
samples is 90 % or more, at the best snapshot of a training, on CIFAR-10 with U-Nets of EDM,
10,000 samples each. Here: the samples in the records of `geomem sweep`, at every measured step.
The share is that of all trainings of a size, with its exact 95 % interval; the noise of a
sample is the same for all trainings, so it is one unit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from row import Found, publish_of_runs

from geomem import load
from geomem.models.networks import load_network
from geomem.runs.records import RunFolder
from geomem.stats import Proportion

MEMORIZED, SHARE = 1 / 3, 0.9
SETTING = ("size", "network", "channels", "width", "steps", "batch_size", "learning_rate")


def of_run(path: Path) -> Found:
    r"""The share of memorized samples at the best step of each size."""
    data, config = load(path), RunFolder.open(path).config
    learned = data.isel(subject=(data.kind == "learned").values)
    learned = learned.isel(subject=learned.sample_ratio.notnull().any("sample").values)
    rows = []
    for N in np.unique(learned.num_samples):
        of_size = learned.isel(subject=(learned.num_samples == N).values)
        rows.append({"N": int(N)} | max(_steps(of_size), key=lambda row: float(row["share"][0])))
    enough = [row["N"] for row in rows if row["share"][0] >= SHARE]
    return {
        "run": path.name,
        "data": str(data.attrs["data"]),
        "setting": {name: config[name] for name in SETTING if name in config},
        "parameters": parameters(path),
        "samples": int(learned.sizes["sample"]),
        "rows": rows,
        "emm": max(enough) if enough else None,
        "largest": max(row["N"] for row in rows),
    }


def parameters(path: Path) -> int:
    r"""How many numbers a network of the run has learned."""
    one = next(iter(sorted((path / "networks").glob("N*.safetensors"))))
    return sum(p.numel() for p in load_network(one).parameters())


def _steps(of_size: xr.Dataset) -> list[Found]:
    r"""A row a step: all trainings of a size at it."""
    rows = []
    for step in np.unique(of_size.step):
        at = of_size.isel(subject=(of_size.step == step).values)
        copied = (at.sample_ratio < MEMORIZED).mean("subject").values  # of each noise
        n, share = len(copied), float(copied.mean())
        low, high = Proportion(round(share * n), n).interval
        row = {"step": int(step), "trainings": at.sizes["subject"], "share": [share, low, high]}
        rows.append(row)
    return rows


def measure(runs: list[Path]) -> Found:
    return {"memorized_below": MEMORIZED, "share": SHARE, "runs": [of_run(run) for run in runs]}


if __name__ == "__main__":
    sys.exit(publish_of_runs(measure, __doc__, "effective"))
