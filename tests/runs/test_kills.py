r"""Killed at random moments, thirty times: the next start cleans up and ends the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs.test_sweep import TINY, command, record_bytes


@pytest.mark.slow
def test_thirty_kills_leave_nothing_behind(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    replace(TINY, measured_steps=(), steps=3000).run(whole, processes=2, quiet=True)
    rng, killed = random.Random(0), 0
    while killed < 30:
        process = subprocess.Popen(command(broken, 3000), stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(2.0, 9.0))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        elif (broken / "summary.json").exists():
            for path in rng.sample(sorted((broken / "records").glob("*.nc")), 2):
                path.unlink()  # begin again with some of it
        process.wait()
    time.sleep(1.0)  # workers follow their parent
    last = subprocess.run(command(broken, 3000), capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    assert record_bytes(broken) == record_bytes(whole)
    assert (broken / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    left = [p for p in broken.rglob("*") if p.name.startswith((".tmp-", ".claim-"))]
    assert not left
    print(f"{killed} kills, python {sys.version_info.major}.{sys.version_info.minor}")
