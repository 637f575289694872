r"""Memory is asked for before it is taken, by every limit that there is."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from geomem.compute import memory
from geomem.compute.memory import available_memory, check_memory
from geomem.compute.progress import Forecast
from geomem.errors import InputError


def test_what_does_not_fit_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 2.0**30)
    Forecast(seconds=1, num_bytes=2**29).check_memory("pass a smaller --batch")
    check_memory(2**30, "the matrix", "pass fewer points")
    with pytest.raises(
        InputError, match=r"this needs 3\.0 GiB.* 1\.0 GiB are free; pass a smaller"
    ):
        Forecast(seconds=1, num_bytes=3 * 2**30).check_memory("pass a smaller --batch")
    with pytest.raises(InputError, match=r"the matrix needs 4\.0 TiB .*; pass fewer points"):
        check_memory(2**42, "the matrix", "pass fewer points")
    for strange in (math.inf, math.nan):
        with pytest.raises(InputError, match="the matrix needs"):
            check_memory(strange, "the matrix", "pass fewer points")


def test_free_memory_is_a_number() -> None:
    assert 2**20 < available_memory() < 2**60


def machine(folder: Path, group: str, files: dict[str, int | str]) -> Path:
    r"""A system with 8 GiB free, in a control group, with these files of its groups."""
    content = {
        "proc/meminfo": f"MemTotal: {2**24} kB\nMemAvailable: {2**23} kB\n",
        "proc/self/cgroup": group,
        **{f"sys/fs/cgroup/{name}": f"{value}\n" for name, value in files.items()},
    }
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def version_2(limit: int | str, use: int, cache: int, group: str) -> dict[str, int | str]:
    stat = f"anon 5\ninactive_file {cache}\nactive_file 7"
    names = {"memory.max": limit, "memory.current": use, "memory.stat": stat}
    return {f"{group}/{name}": value for name, value in names.items()}


G = 2**30
CASES: dict[str, tuple[str, dict[str, int | str], float]] = {
    "no groups": ("", {}, 8 * G),
    "no limit": ("0::/job\n", version_2("max", 3 * G, G, "job"), 8 * G),
    "limit": ("0::/job\n", version_2(4 * G, 3 * G, G, "job"), 2 * G),
    "limit above": (
        "0::/slurm/job/step\n",
        version_2("max", 0, 0, "slurm/job/step") | version_2(4 * G, 3 * G, 0, "slurm/job"),
        1 * G,
    ),
    "over the limit": ("0::/job\n", version_2(2 * G, 3 * G, 0, "job"), 0),
    "seen from inside": ("0::/../../job\n", version_2(4 * G, 3 * G, 0, "."), 1 * G),
    "version 1": (
        "9:name=systemd:/\n4:cpu,memory:/docker/a:b\n0::/\n",
        {
            "memory/docker/a:b/memory.limit_in_bytes": 4 * G,
            "memory/docker/a:b/memory.usage_in_bytes": 3 * G,
            "memory/docker/a:b/memory.stat": f"inactive_file 1\ntotal_inactive_file {G}",
            "memory/memory.limit_in_bytes": 9223372036854771712,
            "memory/memory.usage_in_bytes": 5 * G,
            "memory/memory.stat": "total_inactive_file 0",
        },
        2 * G,
    ),
    "version 1, a container": (
        "4:memory:/docker/not-mounted-here\n",
        {
            "memory/memory.limit_in_bytes": 4 * G,
            "memory/memory.usage_in_bytes": 3 * G,
            "memory/memory.stat": "total_inactive_file 0",
        },
        1 * G,
    ),
    "nonsense": ("0::/job\n", version_2("many", 3 * G, G, "job"), 8 * G),
}


@pytest.mark.parametrize("case", CASES)
def test_the_least_of_all_limits_holds(tmp_path: Path, case: str) -> None:
    group, files, free = CASES[case]
    assert available_memory(machine(tmp_path, group, files)) == free


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process_hold(limit: str) -> None:
    code = f"""
import resource
from geomem.compute.memory import available_memory
resource.setrlimit(resource.{limit}, (2**30, 2**30))
free = available_memory()
taken = bytearray(int(0.9 * free))  # what is said to be free can be had
try:
    bytearray(int(0.3 * free))
except MemoryError:
    print(free)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert 2**28 < float(done.stdout) < 2**30
