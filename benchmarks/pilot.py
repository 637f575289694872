r"""Do a pilot's 90 % intervals hold what longer trainings on more images memorize?

Run:  python benchmarks/pilot.py [--runs DIR] [--only NAME ...] [--out PATH]

Each case is a pilot (`geomem plan --pilot`) and a sweep that it predicts: other sizes, steps,
seeds, and in one case a width that is left out of the fit. What the sweep's page says (share of
the control's nats, and nats) must lie in the interval of the prediction. Both are runs in DIR,
gone on with where they are there, made where they are not: the pilots take minutes, the sweeps
of images half an hour each on one core. Planes have no pilots (their law is known): there a
sweep's own small sizes predict its large ones, at the same steps. The constants of the law were
chosen on the digits; nothing was chosen on images and planes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from side_by_side import versions

from geomem.compute.files import atomic_write_text
from geomem.findings.law import Ceiling, beside, fit_law, nats_of
from geomem.findings.pilot import Pilot, cells_of, pilot_of
from geomem.information import integrate_log
from geomem.models.train import Training
from geomem.runs.load import load
from geomem.runs.pilot import Pilot as PilotRun
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep
from geomem.stats import Proportion

QUIET: dict[str, Any] = {"levels": 10, "jacobian_points": 0, "samples": 0, "trajectories": 0}
DIGITS: dict[str, Any] = {"data": "digits", "network": "mlp", **QUIET}
UNET: dict[str, Any] = {"network": "unet", "batch_size": 32}
# As the sweeps of the experiments with images are: they are the ones that are predicted.
SWEPT: dict[str, Any] = {
    **UNET, "levels": 10, "jacobian_points": 2, "samples": 128, "trajectories": 0,
    "steps": 2000, "measured_steps": (500, 1000), "seeds": (0, 1),
}  # fmt: skip
DIGITS_PILOT = PilotRun(
    **DIGITS, widths=(64, 128, 256), sizes=(32, 64, 128), steps=1000, measured_steps=(250, 500),
    planned_steps=4000, control="reference",
)  # fmt: skip


def _pilot(data: str, size: int, sizes: tuple[int, ...]) -> PilotRun:
    return PilotRun(
        data, size=size, **UNET, **QUIET, sizes=sizes, steps=500, measured_steps=(125, 250),
        planned_steps=2000, most=0.1, control="reference",
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    r"""A pilot, or None of planes; the sweep; a width that is left out of the fit."""

    pilot: PilotRun | None
    sweep: Sweep
    without: int | None = None
    folder: str = ""  # of the pilot, where it serves two


CASES = {
    "digits": Case(
        DIGITS_PILOT,
        Sweep(
            **{**DIGITS, "samples": 256}, sizes=(32, 64, 128, 256, 512), steps=4000,
            measured_steps=(500, 1000, 2000), seeds=(0, 1), widths=(16, 64, 256),
        ),
        folder="digits-pilot",
    ),
    "digits, width left out": Case(
        DIGITS_PILOT,
        Sweep(
            **DIGITS, sizes=(32, 64, 128, 256, 512, 1024), steps=2000,
            measured_steps=(250, 500, 1000), widths=(128,),
        ),
        without=128,
        folder="digits-pilot",
    ),
    "fashion-mnist": Case(
        _pilot("fashion-mnist", 14, (30, 100, 300)),
        Sweep("fashion-mnist", size=14, sizes=(30, 100, 300, 1000, 3000), **SWEPT),
    ),
    "mnist": Case(
        _pilot("mnist", 14, (30, 100, 300)),
        Sweep("mnist", size=14, sizes=(30, 100, 300, 1000), **SWEPT),
    ),
    "plane": Case(
        None,
        Sweep(
            "linear", network="mlp", widths=(128,), blocks=2, levels=16, seeds=(0, 1, 2),
            sizes=(10, 50, 100, 250, 500, 1000, 5000, 20_000), steps=10_000,
            measured_steps=(3000,),
        ),
    ),
    "plane, normalised": Case(
        None,
        Sweep(
            "linear-sphere", network="mlp", widths=(128,), blocks=2, levels=16, seeds=(0, 1, 2),
            sizes=(10, 50, 100, 250, 500, 1000, 5000, 20_000), steps=10_000,
            measured_steps=(3000,),
        ),
    ),
}  # fmt: skip
EARLIEST = 0.2  # of the steps: before, the averaged weights still hold the first ones
PLANE_PILOT = 100  # sizes up to it are a plane's pilot


def measured(dataset: xr.Dataset) -> tuple[list[dict[str, float]], int]:
    r"""Share and nats of each recipe of a sweep, seeds together; and which subject is control."""
    done = dataset.isel(subject=np.flatnonzero(dataset["measured"].values))
    error = done.error.sel(at="training").transpose(
        "subject", "point", "sigma", "direction", "draw"
    )
    squares = np.square(error.values.astype(float)).mean(-1).sum(-1)
    nats = integrate_log(squares, done.sigma.values, axis=2)
    control = int(np.flatnonzero(done["kind"].values == done.attrs["control"])[-1])
    rows: dict[tuple[int, int, int], list[tuple[float, float]]] = {}
    for k in np.flatnonzero(done["kind"].values == "learned"):
        n, step = int(done.num_samples[k]), int(done.step[k])
        width = 1 if np.isnan(done.width[k]) else int(done.width[k])
        there = np.isfinite(nats[k])
        mine, theirs = float(nats[k, there].mean()), float(nats[control, there].mean())
        rows.setdefault((n, step, width), []).append((1 - mine / theirs, theirs - mine))
    return [
        {"num_samples": n, "step": step, "width": width,
         "share": float(np.mean([s for s, _ in found])),
         "nats": float(np.mean([v for _, v in found]))}
        for (n, step, width), found in sorted(rows.items())
    ], control  # fmt: skip


def judge(
    pilot: Pilot, rows: list[dict[str, float]], training: Training, control_width: float | None
) -> list[dict[str, Any]]:
    r"""Each recipe beside its prediction; the control is a reference, or the population."""
    found = []
    for row in rows:
        step, width = int(row["step"]), row["width"]
        if step < EARLIEST * training.steps:
            continue
        time, whole = training.time(step), step == training.steps
        share = pilot.law.share(time, row["num_samples"], width)
        ceiling = pilot.ceiling.at(time, width, whole=whole)
        control = ceiling
        if control_width is not None:
            control = pilot.ceiling.at(training.time(training.steps), control_width)
        said = beside(share, ceiling, control)
        nats = nats_of(said, control)
        found.append({
            **row, "whole": whole, "predicted": asdict(said), "predicted_nats": asdict(nats),
            "holds": said.low <= row["share"] <= said.high,
            "nats_hold": nats.low <= row["nats"] <= nats.high,
        })  # fmt: skip
    return found


def on_a_plane(dataset: xr.Dataset, training: Training) -> tuple[Pilot, list[dict[str, float]]]:
    r"""The small sizes of a sweep as a pilot, its largest size as what never saw the images."""
    sizes = dataset.num_samples.values
    learned = dataset["kind"].values == "learned"
    largest = learned & (sizes == np.nanmax(sizes)) & (dataset.seed.values == 0)
    kind = dataset["kind"].values.copy()
    kind[largest] = "reference"
    kind[learned & ~largest & ~(sizes <= PLANE_PILOT)] = "later"
    times = {str(k): training.time(k) for k in {int(s) for s in dataset.step.values[learned]}}
    cells = cells_of(dataset.assign_coords(kind=("subject", kind)), {"recipe": {"times": times}})
    names = ("time", "num_samples", "width", "share", "share_stderr")
    law = fit_law(*(cells[name].values for name in names))
    moments = np.unique(cells.time.values)
    nats = [float(cells.ceiling.values[cells.time.values == t][0]) for t in moments]
    pilot = Pilot(law, Ceiling(moments, np.array([128.0]), np.array([nats])), cells, False)
    later = [
        {"num_samples": float(n), "step": float(s), "width": 128.0}
        for n in np.unique(sizes[kind == "later"])
        for s in np.unique(dataset.step.values[kind == "later"])
    ]
    errors = cells_of(
        dataset.assign_coords(kind=("subject", np.where(kind == "later", "learned", np.where(
            kind == "learned", "pilot", kind)))),
        {"recipe": {"times": times}},
    )  # fmt: skip
    for row in later:
        here = (errors.num_samples.values == row["num_samples"]) & (
            errors.step.values == row["step"]
        )
        row["share"], row["nats"] = (float(errors[k].values[here][0]) for k in ("share", "nats"))
    return pilot, [row for row in later if row["num_samples"] < np.nanmax(sizes)]


def case(name: str, runs: Path) -> dict[str, Any]:
    r"""One case: its pilot and its sweep are done, or gone on with, and put side by side."""
    this = CASES[name]
    place = runs / name.replace(", ", "-").replace(" ", "-")
    this.sweep.run(place, processes=1)
    dataset = load(place)
    training = this.sweep.training
    if this.pilot is None:
        pilot, rows = on_a_plane(dataset, training)
        found = judge(pilot, rows, training, None)
    else:
        folder = runs / (this.folder or f"{place.name}-pilot")
        this.pilot.run(folder, processes=1)
        records = load(folder)
        if this.without is not None:
            records = records.isel(subject=np.flatnonzero(records.width.values != this.without))
        pilot = pilot_of(records, RunFolder.open(folder).study)
        rows, _ = measured(dataset)
        widest = max(this.sweep.widths, default=1)
        found = judge(pilot, rows, training, float(widest))
    inside = pilot.ceiling.widths[0], pilot.ceiling.widths[-1]
    for row in found:
        row["outside"] = not inside[0] <= row["width"] <= inside[1]
    p = pilot.law.power, float(np.sqrt(pilot.law.covariance[-1, -1]))
    return {
        "fitted_on": sorted({int(n) for n in pilot.cells.num_samples.values}),
        "fitted_steps": sorted({int(s) for s in pilot.cells.step.values}),
        "power": p,
        "left": pilot.law.left,
        "drift": pilot.law.drift,
        "undertrained": pilot.undertrained,
        "rows": [_short(row) for row in found],
    }


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: short(v) for k, v in value.items()}
        return value if isinstance(value, bool) else float(f"{value:.4g}")

    return {k: short(v) for k, v in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/pilot-benchmark"))
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    found = {}
    for name in options.only:
        found[name] = case(name, options.runs)
        rows = [row for row in found[name]["rows"] if not row["outside"]]
        held = sum(row["holds"] for row in rows)
        print(f"{name}: shares {Proportion(held, len(rows))}, "
              f"nats {Proportion(sum(row['nats_hold'] for row in rows), len(rows))}")  # fmt: skip
    document = {
        "command": f"python benchmarks/pilot.py --only {' '.join(map(repr, options.only))}",
        "versions": versions(),
        "cases": found,
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    atomic_write_text(options.out / "pilot.json", text)


if __name__ == "__main__":
    main()
