r"""Several processes: rank 0 looks, the others wait no longer than that; kills at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import geomem
from geomem.monitor import MemorizationMonitor
from tests.monitor.loops import monitor_of, points

ROOT = Path(__file__).parents[2]


def _together(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    network = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    train, held_out = points(16), points(80, seed=1)
    monitor = MemorizationMonitor(
        train, held_out, every=1, out=Path(folder) / "run", share=float("inf"), levels=3
    )
    wrapped = monitor_of(train, held_out, every=1)
    for _ in range(5):
        optimizer.zero_grad()
        model(train[rank::2]).square().mean().backward()  # all processes meet here
        optimizer.step()
        monitor.step(lambda x, sigma: x / (1 + sigma**2) + model.module(x))
        wrapped.step(lambda x, sigma: model(x))
    said = sorted(wrapped._said)
    spent = monitor.seconds[0] + wrapped.seconds[0]
    Path(folder, f"rank{rank}").write_text(
        repr(([look.step for look in monitor.history], len(wrapped.history), said, spent > 0))
    )
    torch.distributed.destroy_process_group()


def test_rank_0_looks_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    spawn(_together, (str(tmp_path),), nprocs=2)
    looked, failed, said, spent = eval((tmp_path / "rank0").read_text())
    assert looked == [1, 2, 4]
    assert failed == 0  # a wrapped network would wait for the other process
    assert len(said) == 1
    assert "DistributedDataParallel" in said[0]
    assert spent
    # All that the other does for it is to wait where both meet, until the look is over.
    assert eval((tmp_path / "rank1").read_text()) == ([], 0, [], False)
    assert geomem.load(tmp_path / "run").sizes["subject"] == 4


TRAINING = """
import sys, torch
from pathlib import Path
from tests.monitor.loops import monitor_of, points, training_of
torch.set_num_threads(1)
out = Path(sys.argv[1])
train, held_out = points(16), points(80, seed=1)
monitor, state = monitor_of(train, held_out, every=2, out=out / "run"), training_of(train)
if (out / "state").exists():
    state.load(out / "state")
while state.step < 70:
    state.advance()
    state.save(out / "state")
    monitor.step(state.average, state.step)
"""


def _run(out: Path, seconds: float | None = None) -> int:
    out.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", TRAINING, str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    if seconds is not None:
        while not (out / "run" / "records").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    return process.wait()


@pytest.mark.slow
def test_a_training_that_is_killed_anywhere_ends_with_the_same_looks(tmp_path: Path) -> None:
    assert _run(tmp_path / "whole") == 0
    kills = 0
    for k in range(4):
        kills += _run(tmp_path / "killed", 0.05 + 0.21 * k) == -signal.SIGKILL
    assert _run(tmp_path / "killed") == 0
    assert kills
    found = {}
    for name in ("whole", "killed"):
        found[name] = geomem.load(tmp_path / name / "run").step.values[1:].tolist()
    assert found["whole"] == [2, 4, 8, 16, 32, 64]
    # A look that was under way when the process died is taken again, or left out.
    assert set(found["killed"]) <= set(found["whole"])
    assert len(found["killed"]) == len(set(found["killed"])) >= 6 - kills
