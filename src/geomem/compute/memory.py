r"""The one memory model: what an input will take is asked for before it is allocated.

What may be taken is the least of what the machine has left, of what is left to the control
groups that this process is in (containers, Slurm, systemd; versions 1 and 2, each group above
included), and of this process's own limits (``ulimit -v``, ``ulimit -d``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from geomem.errors import InputError


def check_memory(num_bytes: float, what: str, advice: str) -> None:
    r"""Refuses, with advice, what would not fit into the memory that is free.

    Arguments:
        num_bytes: What it needs at its peak, beyond what is taken already.
        what: What needs it, as the subject of a sentence.
        advice: What to do instead.

    Raises:
        InputError: If it does not fit, or its size is not a number.
    """
    free = available_memory()
    if not num_bytes <= free:
        raise InputError(
            f"{what} needs {format_bytes(num_bytes)} of memory and "
            f"{format_bytes(free)} are free; {advice}"
        )


def available_memory(system: Path = Path("/")) -> float:
    r"""Bytes that can be taken without swapping and without being killed for it.

    Arguments:
        system: Where ``proc`` and ``sys`` are.

    Returns:
        The bytes; infinite where the system says nothing.
    """
    return max(0.0, min(_limits(system), default=math.inf))


def _limits(system: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, AttributeError):
        if (system / "proc/meminfo").exists():
            yield 1024 * _table(system / "proc/meminfo")["MemAvailable:"]
        else:
            yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield from _limits_of_groups(system)
    with suppress(ImportError, OSError, KeyError):
        import resource

        status = _table(system / "proc/self/status")
        for limit, taken in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
            most, _ = resource.getrlimit(limit)
            if most != resource.RLIM_INFINITY:
                yield most - 1024 * status[taken]


def _limits_of_groups(system: Path) -> Iterator[float]:
    names = {  # limit, use, and how much of that is a cache that makes room
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    groups = system / "sys/fs/cgroup"
    with suppress(OSError):
        for line in (system / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            version = 1 if controllers else 2
            limit, use, cache = names[version]
            for top in (groups / "memory",) if version == 1 else (groups, groups / "unified"):
                group = top / name.lstrip("/")
                for folder in (group, *group.parents):
                    with suppress(OSError, ValueError, KeyError):  # not mounted, or "max"
                        most = int((folder / limit).read_text())
                        kept = _table(folder / "memory.stat")[cache]
                        yield most - int((folder / use).read_text()) + kept
                    if folder == top:
                        break


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def format_bytes(num_bytes: float) -> str:
    r"""Memory for people.

    Example:
        >>> [format_bytes(b) for b in (900, 5e6, 3e9, 5e12)]
        ['900 B', '4.8 MiB', '2.8 GiB', '4.5 TiB']
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"
