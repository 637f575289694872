r"""Files that are there whole or not at all, whatever happens meanwhile.

A file is written under a temporary name beside it, synced, and renamed. The temporary name
says which process writes (:class:`~geomem.compute.owner.Owner`), so that what the dead left
behind is known as such and removed at the next start. There are no file locks: shared file
systems often have none.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from geomem.compute.owner import Owner, is_abandoned
from geomem.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
TEMPORARY, CLAIM = ".tmp-", ".claim-"
# What another machine has not changed for so many seconds is nobody's any more. A claim is
# touched every 5 seconds, and network file systems may tell of it a minute late.
PATIENCE = {TEMPORARY: 3600.0, CLAIM: 120.0}


def atomic_write(
    path: Path,
    write: Callable[[Path], object],
    *,
    inside: Path | None = None,
    private: bool = False,
) -> None:
    r"""Writes a file that is there whole or not at all, whatever happens meanwhile.

    HDF5 may end the process where its disk is full: let it write to memory, and pass the
    bytes to :func:`atomic_write_bytes`.

    Arguments:
        path: Where the file ends up.
        write: Called with a temporary path beside it.
        inside: A folder above it that must be there still, such as that of a run: it is not
            made again if somebody has removed it. Folders in between are made.
        private: Whether it, and each folder made for it, is for this user alone (modes 600
            and 700, whatever the umask).

    Raises:
        InputError: If the disk is full, the place cannot be written to, or ``inside`` is gone.
    """
    path = Path(path)
    with _temporary(path, inside, private) as temporary:
        write(temporary)
        if private:
            temporary.chmod(0o600)  # the writer may have made it anew
        _sync(temporary)  # before its name is: else a crash leaves an empty file
        os.replace(temporary, path)
        with suppress(OSError):  # not every file system can, and the file is there by now
            _sync(path.parent)


def atomic_write_bytes(
    path: Path, content: bytes | memoryview, *, inside: Path | None = None, private: bool = False
) -> None:
    r"""Bytes as a whole file: see :func:`atomic_write`."""
    atomic_write(path, lambda p: p.write_bytes(content), inside=inside, private=private)


def atomic_write_text(
    path: Path, text: str, *, inside: Path | None = None, private: bool = False
) -> None:
    r"""Text as a whole file, in UTF-8; what is none (an odd file name) is escaped."""
    atomic_write_bytes(
        path, text.encode("utf-8", "backslashreplace"), inside=inside, private=private
    )


def create_exclusive(
    path: Path, content: bytes, *, inside: Path | None = None, private: bool = False
) -> bool:
    r"""Writes a whole file under a name that must be free, in one step for all who try.

    Of any number of processes and machines one succeeds, and the others find all of its
    content. (Where the file system has no hard links they may find it empty for a moment.)

    Arguments:
        path: The file.
        content: What will be in it.
        inside: As in :func:`atomic_write`.
        private: As in :func:`atomic_write`.

    Returns:
        Whether it was this call that made the file.

    Raises:
        InputError: As :func:`atomic_write`.
    """
    path = Path(path)
    if os.path.lexists(path):
        return False
    with _temporary(path, inside, private) as temporary:
        temporary.write_bytes(content)
        _sync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            # A file server that was asked twice says so of its own success.
            return temporary.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                return False
            os.replace(temporary, path)  # whoever made the empty one may fill it
        with suppress(OSError):
            _sync(path.parent)
        return True


def make_folder(path: Path, *, inside: Path | None = None, private: bool = False) -> None:
    r"""Makes a folder and those above it, as far as they are missing.

    Arguments:
        path: The folder.
        inside: As in :func:`atomic_write`.
        private: Whether those that are made are for this user alone.

    Raises:
        InputError: If it cannot be made, or ``inside`` is gone.
    """
    with explained(path, inside):
        place, top = Path(path).absolute(), inside and Path(inside).absolute()
        if top and not place.is_relative_to(top):
            raise InputError(f"`inside` is {top}; pass a folder above {place}")
        missing: list[Path] = []
        while place != top and not place.is_dir():
            if os.path.lexists(place):
                raise NotADirectoryError(errno.ENOTDIR, f"{place} is not a folder")
            missing.append(place)
            place = place.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)  # others may make it, too
            if private:
                folder.chmod(0o700)


def check_writable(path: Path, *, folder: bool = False) -> None:
    r"""Finds out before the work whether a file, or a folder of files, can be written after it.

    Folders that are missing are not made, and what is there stays as it is.

    Arguments:
        path: Where something will be written.
        folder: Whether that is a folder.

    Raises:
        InputError: If it cannot be: it, or what stands above it, is something else, its name
            is too long, or the disk is full, read-only or not for this user.
    """
    path = Path(path)
    with explained(path):
        _check_kind(path, folder)
        above = (path if folder else path.parent).absolute()
        while not os.path.lexists(above):
            above = above.parent
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{above} is not a folder")
        longest, deepest = (os.pathconf(above, f"PC_{what}_MAX") for what in ("NAME", "PATH"))
        parts = [len(os.fsencode(part)) for part in path.absolute().parts]
        if max(parts) > longest or sum(parts) + len(parts) + longest > deepest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with _temporary(above / uuid.uuid4().hex, None, private=True) as trial:
            trial.write_bytes(b"\n")
        place, me = above.stat(), os.geteuid()
        there = path.lstat().st_uid if not folder and os.path.lexists(path) else me
        if place.st_mode & stat.S_ISVTX and me not in (0, place.st_uid, there):  # as in /tmp
            raise PermissionError(errno.EPERM, "it belongs to another user")


def clean_temporary(folder: Path) -> int:
    r"""Removes what writers and owners of claims that are dead have left in a folder.

    A dead process of this machine is known as such; what comes from another machine must be
    old by the clock of the file system (an hour; two minutes for a claim).

    Returns:
        How many files were removed.
    """
    removed = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            for prefix, patience in PATIENCE.items():
                if name.startswith(prefix):
                    with suppress(OSError):  # gone already, or not ours to remove
                        text = path.read_text("ascii", "replace") if prefix == CLAIM else name
                        if is_abandoned(path, Owner.parse(text), patience):
                            path.unlink()
                            removed += 1
    return removed


@contextmanager
def _temporary(path: Path, inside: Path | None, private: bool) -> Iterator[Path]:
    # A name beside the path that is free, and nothing there any more in the end.
    temporary = path.parent / f"{TEMPORARY}{Owner.current()}-{uuid.uuid4().hex[:12]}"
    with explained(path, inside):
        try:
            _check_kind(path, folder=False)
            make_folder(path.parent, inside=inside, private=private)
            if private:
                os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            yield temporary
        finally:
            with suppress(OSError):  # not there: renamed, or never begun
                temporary.unlink()


def _check_kind(path: Path, folder: bool) -> None:
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a zero byte is in its name")
    if folder and os.path.lexists(path) and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
    if not folder and path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, and a file is to be written")
    if not folder and path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a plain file")  # a rename would replace a device


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(path: Path, inside: Path | None = None) -> Iterator[None]:
    r"""What the system says about writing a file, in one sentence.

    Safetensors and HDF5 pass it on in errors of their own, which are seen through.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        shown = os.fsencode(path).decode("utf-8", "replace")
        code = getattr(error, "errno", None)
        full = [os.strerror(c) for c in FULL if c == code or os.strerror(c) in str(error)]
        if inside is not None and not Path(inside).is_dir():
            raise InputError(
                f"the folder {inside} is gone: it was there when the work began, and is not "
                "made again; start anew, or put it back and run the same command again"
            ) from error
        if full:
            raise InputError(
                f"the disk is full ({full[0].lower()}): {shown} was not written and what was "
                "there is intact; free some space and run the same command again"
            ) from error
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise InputError(
                f"{shown} cannot be written ({reason}); choose another place"
            ) from error
        raise
