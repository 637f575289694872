r"""Do a pilot's 90 % intervals hold what longer trainings on more images memorize?

Run:  python benchmarks/pilot.py [--runs DIR] [--only NAME ...] [--out PATH]

Each case is a pilot (`geomem plan --pilot`) and a sweep that it predicts: other sizes, steps,
seeds, and in one case a width that is left out of the fit. What the sweep's page says (share of
the control's nats, and nats) must lie in the interval of the prediction. Both are runs in DIR,
gone on with where they are there, made where they are not: the pilots take minutes, the sweeps
of images half an hour each on one core. In "sizes alone" and on planes (which have no pilots,
as their law is known) a sweep's own small sizes predict its large ones, at the same steps. The
constants of the law were chosen on the digits, see docs/pilot.md. Cases that are not run again
keep their results.
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
    r"""A pilot, or the largest size of a sweep that serves as one; the sweep.

    Also: a width that is left out of the fit, and folders where they serve two cases.
    """

    pilot: PilotRun | int
    sweep: Sweep
    without: int | None = None
    folder: str = ""  # of the pilot
    swept: str = ""  # of the sweep


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
    "fashion-mnist, sizes alone": Case(
        300,
        Sweep("fashion-mnist", size=14, sizes=(30, 100, 300, 1000, 3000), **SWEPT),
        swept="fashion-mnist",
    ),
    "mnist, sizes alone": Case(
        300, Sweep("mnist", size=14, sizes=(30, 100, 300, 1000), **SWEPT), swept="mnist"
    ),
    "plane": Case(
        100,
        Sweep(
            "linear", network="mlp", widths=(128,), blocks=2, levels=16, seeds=(0, 1, 2),
            sizes=(10, 50, 100, 250, 500, 1000, 5000, 20_000), steps=10_000,
            measured_steps=(3000,),
        ),
    ),
}  # fmt: skip
EARLIEST = 0.2  # of the steps: before, the averaged weights still hold the first ones


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


def sizes_alone(
    dataset: xr.Dataset, training: Training, most: int
) -> tuple[Pilot, list[dict[str, float]]]:
    r"""The small sizes of a sweep as a pilot of its large ones, at the same steps.

    What never saw the images is the sweep's reference, at its one step; on a plane, where there
    is none, the largest size.
    """
    done = dataset.isel(subject=np.flatnonzero(dataset["measured"].values))
    kind, sizes, steps = (done[k].values.copy() for k in ("kind", "num_samples", "step"))
    learned = kind == "learned"
    if "reference" in kind:
        learned &= steps == training.steps
    else:
        kind[learned & (sizes == np.nanmax(sizes)) & (done.seed.values == 0)] = "reference"
        learned &= sizes < np.nanmax(sizes)
    times = {str(k): training.time(k) for k in {int(s) for s in steps[learned]}}

    def cells(which: Any) -> xr.Dataset:
        named = np.where(kind == "reference", kind, np.where(which, "learned", ""))
        return cells_of(done.assign_coords(kind=("subject", named)), {"recipe": {"times": times}})

    small, large = cells(learned & (sizes <= most)), cells(learned & (sizes > most))
    names = ("time", "num_samples", "width", "share", "share_stderr")
    law = fit_law(*(small[name].values for name in names))
    moments, widths = np.unique(small.time.values), np.unique(small.width.values)
    nats = [float(small.ceiling.values[small.time.values == t][0]) for t in moments]
    pilot = Pilot(law, Ceiling(moments, widths, np.array([nats])), small, False)
    wanted = ("num_samples", "step", "width", "share", "nats")
    return pilot, [
        {name: float(large[name].values[k]) for name in wanted} for k in range(large.sizes["cell"])
    ]


def recorded(run: Sweep, place: Path) -> xr.Dataset:
    r"""The records of a run, made where they are not there; a finished folder is believed."""
    there = (place / "config.json").exists() and RunFolder.open(place)
    return load(place) if there and not there.missing() else run.run(place, processes=1)


def case(name: str, runs: Path) -> dict[str, Any]:
    r"""One case: its pilot and its sweep are done, or gone on with, and put side by side."""
    this = CASES[name]
    place = runs / (this.swept or name.replace(", ", "-").replace(" ", "-"))
    dataset = recorded(this.sweep, place)
    training = this.sweep.training
    if isinstance(this.pilot, int):
        pilot, rows = sizes_alone(dataset, training, this.pilot)
        found = judge(pilot, rows, training, None)
    else:
        folder = runs / (this.folder or f"{place.name}-pilot")
        records = recorded(this.pilot, folder)
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
    path = options.out / "pilot.json"
    found = json.loads(path.read_text())["cases"] if path.exists() else {}
    for name in options.only:
        found[name] = case(name, options.runs)
        rows = [row for row in found[name]["rows"] if not row["outside"]]
        shares, nats = (
            Proportion(sum(row[key] for row in rows), len(rows)) for key in ("holds", "nats_hold")
        )
        print(f"{name}: shares {shares}, nats {nats}")
        ordered = {name: found[name] for name in CASES if name in found}
        document = {
            "command": "python benchmarks/pilot.py",
            "versions": versions(),
            "cases": ordered,
        }
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        atomic_write_text(path, text)


if __name__ == "__main__":
    main()
