r"""Provenance: when, how long and with what a run was done. Nothing here enters a result."""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("geomem", "torch", "numpy", "scipy", "scikit-learn", "diffusers", "xarray")


def describe(path: Path, started: float, device: str, data_digest: str) -> dict[str, Any]:
    r"""Provenance of a run; sessions that were interrupted before are kept.

    Arguments:
        path: The file that earlier sessions wrote, if any.
        started: When this session began, in seconds since the epoch.
        device: Where networks were trained and measured.
        data_digest: The sha256 of the data.
    """
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError):
        sessions = []
    session = {
        "command": _command(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "device": device,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    return {"schema_version": 1, "data_digest": data_digest, "sessions": [*sessions, session]}


def _command() -> str:
    # The program by its name: a path of somebody's machine is nobody's business.
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
