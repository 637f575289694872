r"""Files that are there whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from geomem.errors import InputError


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    r"""Writes a file that is there whole or not at all, whatever happens meanwhile.

    Arguments:
        path: Where the file ends up.
        write: Called with a temporary path beside it.

    Raises:
        InputError: If the disk is full or the place cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except Exception as error:
        if isinstance(error, OSError) or _is_full(error):
            raise InputError(_explain(error, path)) from error
        raise
    finally:
        with suppress(OSError):  # not there: renamed, or never begun where nothing can be
            temporary.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    r"""Text as a whole file: see :func:`atomic_write`."""
    atomic_write(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_full(error: Exception) -> bool:
    # safetensors and HDF5 pass on what the system says in errors of their own.
    codes = (errno.ENOSPC, errno.EDQUOT)
    said = any(os.strerror(code) in str(error) for code in codes)
    return said or getattr(error, "errno", None) in codes


def _explain(error: Exception, path: Path) -> str:
    if _is_full(error):
        return (
            f"the disk is full: {path} was not written and what was there is intact; "
            "free some space and run the same command again"
        )
    reason = getattr(error, "strerror", None) or error
    return f"{path} cannot be written ({reason}); choose another --out"
