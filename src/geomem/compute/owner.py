r"""Which process something belongs to, and whether that process is still there.

A number of a process alone is not enough: it is given again, means another process in another
container, and says nothing about another machine. So an owner is a *place* - a host since its
last start, and a namespace of process numbers in it - a number there, and when that process
began. Of processes of other places nothing can be known; there the age of a file decides.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    r"""A process, as it is written into names of files.

    Attributes:
        place: Where its number means anything: 12 hexadecimal digits.
        pid: Its number.
        began: When it began, in the system's ticks; 0 where the system does not say.

    Example:
        >>> me = Owner.current()
        >>> me.is_here, me.is_alive, Owner.parse(f".tmp-{me}-whatever") == me
        (True, True, True)
    """

    place: str
    pid: int
    began: int

    @classmethod
    def current(cls) -> Owner:
        r"""This process."""
        return cls(_place(), os.getpid(), _began(os.getpid()) or 0)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        r"""The owner in the name of a file; None if there is none."""
        found = re.search(r"([0-9a-f]{12})-(\d+)-(\d+)", text)
        return cls(found[1], int(found[2]), int(found[3])) if found else None

    def __str__(self) -> str:
        return f"{self.place}-{self.pid}-{self.began}"

    @property
    def is_here(self) -> bool:
        r"""Whether it can be known from here if it is alive."""
        return self.place == _place()

    @property
    def is_alive(self) -> bool:
        r"""Whether it still runs, where that can be known."""
        began = _began(self.pid)
        return began is not None and (began == self.began or 0 in (began, self.began))


@cache
def _place() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):  # Linux alone has them
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _began(pid: int) -> int | None:
    # None for a process that is not there, 0 where the system does not say when it began.
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if state in "ZX" else int(fields[18])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, ValueError, IndexError):
        pass  # it has just ended, or the system tells nobody
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (OSError, OverflowError):  # it is somebody else's
        pass
    return 0


def is_abandoned(path: Path, owner: Owner | None, patience: float) -> bool:
    r"""Whether nobody works any more at a file.

    Arguments:
        path: The file, which its owner changes or touches now and then.
        owner: Whose it is, if that is known.
        patience: The seconds without a change after which an owner that cannot be seen from
            here counts as dead, by the clock of the file's own file system: those of two
            machines may differ by minutes.

    Raises:
        OSError: If it is not there, or its folder cannot be written to.
    """
    if owner is not None and owner.is_here:
        return not owner.is_alive
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".tmp-{Owner.current()}-") as now:
        return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime > patience
