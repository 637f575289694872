r"""Nothing raw reaches a user: everything public is called with inputs made from its signature."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import call, public_callables

# GEOMEM_FUZZ=10 makes ten times as many inputs, GEOMEM_FUZZ_SEED=1 other ones.
SCALE, SEED = int(os.environ.get("GEOMEM_FUZZ", "1")), os.environ.get("GEOMEM_FUZZ_SEED", "0")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("what", "count"), [("callables", 1000), ("commands", 20)])
def test_every_input_gets_an_answer_or_a_sentence(what: str, count: int) -> None:
    # In a process of its own, so that a limit of memory holds for the fuzz alone.
    command = [sys.executable, "-m", "tests.fuzz", what, str(SCALE * count), SEED]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    print({name: found[name] for name in ("inputs", "seconds", "peak_bytes")})
    assert found["inputs"] >= SCALE * count
    assert found["failures"] == {}


def test_the_fuzz_sees_what_is_raw_and_knows_what_is_public() -> None:
    def raw(x: int) -> Any:
        empty: dict[int, int] = {}
        return empty[x]

    failed: Counter[str] = Counter()
    assert call("raw", raw, random.Random(0), failed) is None
    assert next(iter(failed)).startswith("raw: KeyError")
    assert len(public_callables()) > 60
