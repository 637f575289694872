r"""Provenance: when, how long and with what a run was done. Nothing here enters a result."""

from __future__ import annotations

import json
import platform
import sys
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from geomem.compute.files import atomic_write_text
from geomem.compute.ranks import leads

PACKAGES = ("geomem", "torch", "numpy", "scipy", "scikit-learn", "diffusers", "xarray")


def write_session(run: Path, started: float, device: str, data_digest: str) -> None:
    r"""Adds a session to a run's provenance: one file each, so that none is lost, and all in one.

    Arguments:
        run: The run folder.
        started: When this session began, in seconds since the epoch.
        device: Where networks were trained and measured.
        data_digest: The sha256 of the data.
    """
    session = {
        "schema_version": 2,
        # The program by its name: a path of somebody's machine is nobody's business.
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "device": device,
        "ranks": 1 if (ranks := leads()) is None else ranks.count,  # that trained together
        "data_digest": data_digest,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(started))}-{uuid.uuid4().hex[:8]}"
    text = json.dumps(session, indent=1, sort_keys=True) + "\n"
    atomic_write_text(run / "provenance" / f"{name}.json", text, inside=run)
    together = {"schema_version": 2, "sessions": sessions(run)}
    text = json.dumps(together, indent=1, sort_keys=True) + "\n"
    atomic_write_text(run / "provenance.json", text, inside=run)


def sessions(run: Path) -> list[dict[str, Any]]:
    r"""The sessions of a run in the order in which they began; damaged ones are left out."""
    found = []
    for path in sorted((run / "provenance").glob("*.json")):
        try:
            found.append(dict(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
