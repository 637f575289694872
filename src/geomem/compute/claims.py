r"""Claims: who of several workers does a unit of work, without file locks or a server.

A claim is a small file beside what will be made, there from the beginning of the work to its
end. It names the process that works, and is touched every few seconds. It counts no longer
once that process is dead, where that can be seen, or once it has not been touched for two
minutes by the clock of the file system. A claim saves work and protects nothing: a unit that is
done twice all the same is the same bytes, renamed over themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from geomem.compute.files import CLAIM, PATIENCE, atomic_write_bytes, create_exclusive, explained
from geomem.compute.owner import Owner, is_abandoned

HEARTBEAT = 5.0


@dataclass
class Claim:
    r"""A claim that is held, until it is released or its process ends.

    Attributes:
        path: The file of the claim.
        content: What is in it, like no other.
    """

    path: Path
    content: bytes
    _released: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        threading.Thread(target=self._keep, name=f"keeps {self.path.name}", daemon=True).start()

    @property
    def held(self) -> bool:
        r"""Whether it is ours still; not if others took this process for dead."""
        return not self._released.is_set() and _read(self.path) == self.content

    def release(self) -> None:
        r"""Gives it back; what is not ours any more is left alone."""
        if self.held:
            with suppress(OSError):
                self.path.unlink()
        self._released.set()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _keep(self) -> None:
        while not self._released.wait(HEARTBEAT):
            with suppress(OSError):  # a file server that is away may come back
                if self.held:
                    os.utime(self.path)


def claim(path: Path, *, inside: Path | None = None) -> Claim | None:
    r"""Claims the making of a file for this process.

    Arguments:
        path: What will be made; the claim lies beside it, as ``.claim-NAME``.
        inside: A folder above it that is not made again if it is gone.

    Returns:
        The claim, or None where another process holds it and works.

    Raises:
        InputError: If the place cannot be written to, or ``inside`` is gone.

    Example:
        >>> from tempfile import mkdtemp
        >>> unit = Path(mkdtemp()) / "000017.nc"
        >>> with claim(unit) as mine:
        ...     mine.held, claim(unit) is None
        (True, True)
        >>> claim(unit).held
        True
    """
    path = Path(path)
    place = path.with_name(f"{CLAIM}{path.name}")
    words = {"owner": str(Owner.current()), "host": socket.gethostname(), "pid": os.getpid()}
    mine = json.dumps({**words, "token": uuid.uuid4().hex}).encode()
    try:
        while not create_exclusive(place, mine, inside=inside):
            with explained(place, inside):
                try:
                    theirs = place.read_bytes()
                    owner = Owner.parse(theirs.decode("ascii", "replace"))
                    if not is_abandoned(place, owner, PATIENCE[CLAIM]):
                        return None
                except FileNotFoundError:
                    continue  # given back just now
            # Two may find that at a time. So the right to replace this very claim is claimed
            # itself, under a name that is left to no other claim.
            digest = hashlib.sha256(theirs).hexdigest()[:16]
            right = claim(path.with_name(f"{path.name}-{digest}"), inside=inside)
            if right is None:
                return None
            with right:
                if _read(place) == theirs:
                    atomic_write_bytes(place, mine, inside=inside)
                    break
        return Claim(place, mine)
    except BaseException:  # interrupted: this process may live on, and does not work at it
        with suppress(OSError):
            if _read(place) == mine:
                place.unlink()
        raise


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None
