r"""Networks of a sweep, saved and audited as any stranger's: the audit says what the sweep says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import geomem
from geomem.data.images import load_data
from geomem.findings.verdict import Verdict
from geomem.runs.audit import Audit
from geomem.runs.sweep import Sweep

SIZES = (32, 512)


def audited(sweep: Path, size: int, out: Path) -> Verdict:
    r"""The verdict on the network of so many images: only its file and images are given."""
    digits, study = load_data("digits"), json.loads((sweep / "study.json").read_text())
    order = study["order"]
    unseen = np.setdiff1d(np.arange(len(digits)), order[: max(SIZES)])
    unseen = np.random.default_rng(0).permutation(unseen)[:512]
    out.mkdir()
    for name, numbers in (("training", np.array(order[:size])), ("held_out", unseen)):
        np.save(out / f"{name}.npy", digits.tensor(numbers).numpy())
    (network,) = (sweep / "networks").glob(f"N{size:06d}-*.safetensors")
    dataset = Audit(
        model=str(network),
        data=str(out / "training.npy"),
        held_out=str(out / "held_out.npy"),
        controls=("linear",),
        points=32,
        levels=6,
        draws=2,
        samples=0,
        trajectories=0,
        jacobian_points=0,
    ).run(out / "run", processes=1, quiet=True)
    return geomem.verdict(geomem.numbers(dataset, permutations=999))


@pytest.mark.slow
def test_an_audit_of_its_networks_says_what_the_sweep_says(tmp_path: Path) -> None:
    Sweep(
        data="digits",
        sizes=SIZES,
        steps=1500,
        levels=4,
        points=32,
        draws=1,
        samples=0,
        trajectories=0,
        jacobian_points=0,
        control="linear",
    ).run(tmp_path / "run", processes=1, quiet=True)
    few, many = (audited(tmp_path / "run", size, tmp_path / str(size)) for size in SIZES)
    assert few.severity >= 1
    assert few.p_value <= 0.01
    assert few.severity >= many.severity
    nats = few.information.value, many.information.value
    assert nats[0] > nats[1] + 2 * (few.information.stderr + many.information.stderr)
