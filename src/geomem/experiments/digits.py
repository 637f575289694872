r"""The trainings on the digits: size, time and width of an MLP, shared by two experiments."""

from __future__ import annotations

from geomem.experiments.experiment import Scale
from geomem.runs.sweep import Sweep

FOLDER = "digits-epochs"


def digits_sweep(scale: Scale) -> Sweep:
    r"""The trainings on the digits, frozen."""
    steps = 12_000 if scale == "gpu" else 4000
    return Sweep(
        "digits",
        sizes=(32, 64, 128, 256, 512, *((1024,) if scale == "gpu" else ())),
        steps=steps,
        measured_steps=(steps // 8, steps // 4, steps // 2),
        seeds=(0, 1, 2, 3) if scale == "gpu" else (0, 1),
        widths=(16, 64, 128, 256, 512) if scale == "gpu" else (16, 64, 256),
        network="mlp",
        levels=10,
        jacobian_points=0,
        trajectories=0,
    )


def ran_digits(scale: Scale) -> str:
    r"""What was run on the digits, in one sentence."""
    sweep = digits_sweep(scale)
    return (
        f"scikit-learn's digits (8 x 8): MLPs of width {', '.join(map(str, sweep.widths))}, N = "
        f"{', '.join(map(str, sweep.sizes))}, nested, {len(sweep.seeds)} trainings each of "
        f"{sweep.training.steps:,} steps of {sweep.training.batch_size}, measured at "
        f"{', '.join(f'{s:,}' for s in sweep.measured_steps)} on the way (the rate falls to 0 in "
        f"the second half); 64 training and 64 held-out images, {sweep.levels} levels, beside a "
        "reference network that never saw the measured images."
    )
