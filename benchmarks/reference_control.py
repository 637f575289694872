r"""What a reference network buys: the same runs beside both controls, and without any.

Run:  python benchmarks/reference_control.py [--runs FOLDER] [--out PATH]

Sweeps of the digits and of Fashion-MNIST with the settings that `geomem sweep` has for them,
three seeds; all that is reported follows from their records, so a finished run is only read.
Errors are over images, averaged over the three trainings of a size; "spread" is between
trainings. Images need GEOMEM_DATA. About 15 minutes for the digits and an hour for Fashion-MNIST
on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from side_by_side import versions

from geomem.compute.files import atomic_write_text
from geomem.findings.measured import Measured
from geomem.findings.numbers import numbers
from geomem.findings.rows import rows_of
from geomem.information import integrate_log
from geomem.runs.sweep import Sweep

Array = NDArray[np.float64]
SWEEPS = {
    "digits": Sweep(data="digits", seeds=(0, 1, 2), jacobian_points=8, samples=0),
    "fashion-mnist": Sweep(
        data="fashion-mnist", sizes=(300, 1000), seeds=(0, 1, 2), jacobian_points=2, samples=0
    ),
}


def table(dataset: xr.Dataset) -> list[dict[str, Any]]:
    r"""One row a training-set size: means over trainings of what each of them says."""
    learned = dataset["kind"].values == "learned"
    rows = []
    for n in np.unique(dataset.num_samples.values[learned]):
        mine = learned & (dataset.num_samples.values == n)
        found = [
            one_training(dataset.isel(subject=np.flatnonzero(~learned | (mine & seed))))
            for seed in (dataset.seed.values == s for s in np.unique(dataset.seed.values[mine]))
        ]
        row: dict[str, Any] = {"num_samples": int(n), "trainings": len(found)}
        for name in found[0]:
            values = np.array([one[name] for one in found])
            row[name] = values.mean(0).tolist()
            if name in ("reference", "linear", "plain_gap", "excess"):
                row[f"{name}_spread"] = float(values[:, 0].std(ddof=1))
        rows.append(row)
    return rows


def one_training(dataset: xr.Dataset) -> dict[str, Any]:
    r"""Nats with errors over images beside each control, AUC, and what a control knows."""
    known = numbers(dataset)
    row = known.isel(subject=[str(k) for k in known["kind"].values].index("learned"))
    run = Measured(dataset, rows_of(dataset), 0, 0)
    member = next(r.members[0] for r in run.rows if r.kind == "learned")
    loss = {
        at: integrate_log(run.squares(member, at).sum(-1), run.sigmas)
        for at in ("training", "held_out")
    }
    gap = loss["held_out"].mean() - loss["training"].mean()
    error = np.sqrt(sum(one.var(ddof=1) / len(one) for one in loss.values()))
    found = {
        "reference": [float(row.information), float(row.information_stderr)],
        "plain_gap": [float(gap), float(error)],
        "excess": [float(row.excess), float(row.excess_stderr)],
    }
    linear = row.sel(control="linear")
    found["linear"] = [float(linear.information_beside), float(linear.information_beside_stderr)]
    names = [str(a) for a in known.attack.values]
    for short, name in (("auc", names[0]), ("auc_plain_loss", names[1])):
        one = row.sel(attack=name)
        found[short] = [float(one[f"auc{end}"]) for end in ("", "_low", "_high")]
    for control in ("reference", "linear"):
        squares = [known_by(run, member, run.controls[control], at) for at in loss]
        found[f"r2_{control}"] = [float(np.min(squares)), float(np.max(squares))]
    calls = sum(map(len, loss.values())) * dataset.sizes["draw"] * len(run.sigmas)
    # The error that 10,000 calls of networks would give: the reference takes half of them.
    for name, share in (("reference", 2), ("linear", 1), ("plain_gap", 1)):
        found[f"{name}_error_at_10000_calls"] = [found[name][1] * np.sqrt(share * calls / 1e4)]
    return found


def known_by(run: Measured, member: int, control: int, at: str) -> Array:
    r"""Squared correlation over images of the network's errors with a control's, by level."""
    own, theirs = (run.squares(k, at).sum(-1) for k in (member, control))
    return np.array(
        [np.corrcoef(a, b[: len(a)])[0, 1] ** 2 for a, b in zip(own, theirs, strict=True)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    document: dict[str, Any] = {
        "command": "python benchmarks/reference_control.py",
        "versions": versions(),
        "sweeps": {},
    }
    for name, sweep in SWEEPS.items():
        dataset = sweep.run(options.runs / name)
        document["sweeps"][name] = {
            "config": sweep.config(),
            "window_rms": [v / dataset.attrs["rms"] for v in dataset.attrs["window"]],
            "reference_images": int(
                dataset.num_samples.values[dataset["kind"].values == "reference"][0]
            ),
            "rows": table(dataset),
        }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    atomic_write_text(options.out / "reference_control.json", text)
    for name, found in document["sweeps"].items():
        for row in found["rows"]:
            both = ", ".join(
                f"{k} {row[k][0]:.1f} ± {row[k][1]:.1f}" for k in ("reference", "linear")
            )
            print(f"{name}, N = {row['num_samples']}: {both}, AUC {row['auc'][0]:.3f}")


if __name__ == "__main__":
    main()
