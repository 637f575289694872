r"""Writes that are whole or not there, and places that are looked at before the work."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from geomem.compute.claims import claim
from geomem.compute.files import (
    atomic_write,
    atomic_write_text,
    check_writable,
    clean_temporary,
    create_exclusive,
    make_folder,
)
from geomem.compute.owner import Owner
from geomem.errors import InputError

# --------------------------------------------------------------------------- writing


def test_what_is_written_is_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    atomic_write_text(path, "σ = 1\n")
    assert path.read_text(encoding="utf-8") == "σ = 1\n"
    atomic_write_text(path, "again")
    assert path.read_text() == "again"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def half_then(error: BaseException) -> Callable[[Path], None]:
    r"""A writer that gets half-way."""

    def write(path: Path) -> None:
        path.write_text("half of it")
        raise error

    return write


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), ValueError("no")])
def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(type(error)):
        atomic_write(path, half_then(error))
    assert list(tmp_path.iterdir()) == []
    atomic_write_text(path, "old")
    with pytest.raises(type(error)):
        atomic_write(path, half_then(error))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    # What safetensors and HDF5 raise on a disk that is full: seen on one of 200 kB.
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("Can't decrement id ref count (error message = 'No space left on device')"),
]


@pytest.mark.parametrize("error", FULL, ids=["disk", "quota", "safetensors", "hdf5"])
def test_a_full_disk_is_bad_luck_in_one_sentence(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    with pytest.raises(InputError, match=r"disk is full.*run the same command again") as raised:
        atomic_write(path, half_then(error))
    assert raised.value.exit_status == 2
    assert "\n" not in str(raised.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_when_the_file_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Delayed allocation: write succeeds and fsync says that there is no room.
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="disk is full"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def watch(name: str) -> None:
        system = getattr(os, name)

        def call(*args: object) -> None:
            order.append(name)
            system(*args)

        monkeypatch.setattr(os, name, call)

    watch("fsync")
    watch("replace")
    atomic_write_text(tmp_path / "file.txt", "text")
    assert order[:2] == ["fsync", "replace"]  # else a crash could leave an empty file


@pytest.mark.parametrize("exception", [errno.EFBIG, errno.ENOSPC])
def test_records_of_hdf5_are_written_as_bytes_where_there_is_no_room(
    tmp_path: Path, exception: int
) -> None:
    # In a process of its own: HDF5 that meets a full disk may end it when it exits.
    code = f"""
import os, resource, numpy as np, xarray as xr
from pathlib import Path
from geomem.compute.files import atomic_write_bytes
record = xr.Dataset({{"error": ("x", np.random.default_rng(0).normal(size=50_000))}})
content = record.to_netcdf(engine="h5netcdf")
if {exception} == {errno.EFBIG}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (51_200, 51_200))
else:
    def full(handle): raise OSError({errno.ENOSPC}, "No space left on device")
    os.fsync = full
try:
    atomic_write_bytes(Path({str(tmp_path)!r}) / "records" / "000000.nc", content)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the disk is full" in done.stdout
    assert list((tmp_path / "records").iterdir()) == []


def test_a_folder_that_is_gone_does_not_come_back(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    atomic_write_text(run / "records" / "0.txt", "one", inside=run)
    shutil.rmtree(run)
    with pytest.raises(InputError, match=r"run is gone.*run the same command again"):
        atomic_write_text(run / "records" / "1.txt", "two", inside=run)
    with pytest.raises(InputError, match="is gone"):
        create_exclusive(run / "config.json", b"{}", inside=run)
    with pytest.raises(InputError, match="is gone"):
        claim(run / "records" / "1.txt", inside=run)

    def removed(path: Path) -> None:
        path.write_text("half of it")
        shutil.rmtree(run)

    run.mkdir()
    with pytest.raises(InputError, match="is gone"):
        atomic_write(run / "deep" / "down" / "1.txt", removed, inside=run)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"`inside`.*pass a folder above"):
        atomic_write_text(tmp_path / "elsewhere.txt", "text", inside=run)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_is_private_is_for_its_user_alone(tmp_path: Path, umask: int) -> None:
    seen = []

    def write(path: Path) -> None:
        seen.append(path.stat().st_mode & 0o777)
        path.unlink()  # as writers do that have a temporary file of their own
        path.write_text("pixels")

    before = os.umask(umask)
    try:
        atomic_write(tmp_path / "run" / "records" / "0.nc", write, private=True)
        create_exclusive(tmp_path / "run" / "config.json", b"{}", private=True)
        make_folder(tmp_path / "run" / "networks", private=True)
        atomic_write_text(tmp_path / "plain" / "file", "text")
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert seen == [0o600]  # at no time can others read it
    assert {modes[name] for name in ("0.nc", "config.json")} == {0o600}
    assert {modes[name] for name in ("run", "records", "networks")} == {0o700}
    assert modes["plain"] == 0o777 & ~umask
    assert modes["file"] == 0o666 & ~umask


@pytest.mark.parametrize("links", [True, False])
def test_one_of_all_who_create_a_file_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def link(source: object, target: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", link)
    path, barrier = tmp_path / "run" / "config.json", threading.Barrier(8)
    won: list[int] = []

    def start(number: int) -> None:
        barrier.wait()
        if create_exclusive(path, b"%d" % number * 10_000):
            won.append(number)

    threads = [threading.Thread(target=start, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_bytes() == b"%d" % won[0] * 10_000
    assert [p.name for p in path.parent.iterdir()] == ["config.json"]


def test_a_file_server_that_answers_twice_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert create_exclusive(tmp_path / "file", b"mine")
    assert not create_exclusive(tmp_path / "file", b"other")
    assert (tmp_path / "file").read_bytes() == b"mine"


# ------------------------------------------------------------------ before it is written


def unwritable(folder: Path) -> dict[str, tuple[Path, bool, str]]:
    r"""Places that cannot be written to: whether a folder is wanted, and what is said."""
    (folder / "file").write_text("no folder")
    (folder / "dangling").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe")
    return {
        "folder": (folder, False, "it is a folder"),
        "root": (Path("/"), False, "it is a folder"),
        "file": (folder / "file", True, "not a folder"),
        "link": (folder / "dangling", True, "not a folder"),
        "below a file": (folder / "file" / "deep" / "out", False, "file is not a folder"),
        "below a link": (folder / "dangling" / "out", True, "dangling is not a folder"),
        "long": (folder / ("x" * 300), False, "name too long"),
        "long below": (folder / "new" / ("é" * 150) / "run", True, "name too long"),
        "deep": (Path(folder, *["x" * 100] * 50), True, "name too long"),
        "zero": (folder / "a\0b", False, "zero byte"),
        "pipe": (folder / "pipe", False, "not a plain file"),
        "device": (Path("/dev/null"), False, "not a plain file"),
        "system": (Path("/proc/new"), False, "cannot be written"),
    }


def test_a_place_that_cannot_be_written_to_is_found_before_the_work(tmp_path: Path) -> None:
    for kind, (path, folder, says) in unwritable(tmp_path).items():
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=f"(?i){says}.*choose another place"):
            check_writable(path, folder=folder)
        assert sorted(tmp_path.rglob("*")) == before
        with pytest.raises(InputError, match="choose another place"):  # nor can it be later
            make_folder(path / "run") if folder else atomic_write_text(path, "text")
        assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "file"], kind


def test_a_place_that_can_be_written_to_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for path in (tmp_path / "old", tmp_path / "new", tmp_path / "a" / "b" / "c", Path("x.json")):
        check_writable(path)
    for path in (tmp_path, tmp_path / "run", tmp_path / "a" / "b", Path("run")):
        check_writable(path, folder=True)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_system_refuses_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=f"(?i){os.strerror(code)}"):
        check_writable(tmp_path / "new" / "run", folder=True)


# ------------------------------------------------------------------------ after the dead


def test_what_dead_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from geomem.compute.claims import claim
from geomem.compute.files import atomic_write
path = Path({str(tmp_path)!r}) / "records" / "0.nc"
held = claim(path)
def die(temporary):
    temporary.write_text("half of it")
    os.kill(os.getpid(), signal.SIGKILL)
atomic_write(path, die)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60)
    names = {p.name[:5] for p in (tmp_path / "records").iterdir()}
    assert names == {".tmp-", ".clai"}  # else nothing is shown below
    mine = [tmp_path / f".tmp-{Owner.current()}-x", tmp_path / "user.txt", tmp_path / ".hidden"]
    young = tmp_path / ".tmp-0123456789ab-12-34-56789"  # of another machine
    for path in (*mine, young):
        path.write_text("text")
    with claim(tmp_path / "records" / "1.nc") as held:  # type: ignore[union-attr]
        assert clean_temporary(tmp_path) == 2
        assert list((tmp_path / "records").iterdir()) == [held.path]
    assert {p for p in tmp_path.iterdir() if p.is_file()} == {*mine, young}
    os.utime(young, (time.time() - 4000,) * 2)
    assert clean_temporary(tmp_path) == 1
    assert not young.exists()
    assert clean_temporary(tmp_path / "nowhere") == 0
