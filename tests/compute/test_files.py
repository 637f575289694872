r"""Writes that are whole, what is said meanwhile, and one thread."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from geomem.compute import progress
from geomem.compute.files import atomic_write, atomic_write_text
from geomem.compute.progress import Forecast, Progress
from geomem.compute.threads import one_thread
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
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (order.append("sync"), fsync(h)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    atomic_write_text(tmp_path / "file.txt", "text")
    assert order[:2] == ["sync", "rename"]  # else a crash could leave an empty file


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="choose another --out"):
        atomic_write_text(tmp_path / "file" / "inside.txt", "text")


# ------------------------------------------------------------------------- forecasts


def test_what_does_not_fit_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "available_memory", lambda: 2.0**30)
    Forecast(seconds=1, num_bytes=2**29).check_memory("pass a smaller --batch")
    with pytest.raises(InputError, match=r"needs 3\.0 GiB.* 1\.0 GiB are free; pass a smaller"):
        Forecast(seconds=1, num_bytes=3 * 2**30).check_memory("pass a smaller --batch")


def test_free_memory_is_a_number() -> None:
    assert progress.available_memory() > 2**20


# -------------------------------------------------------------------------- progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def test_progress_says_how_much_and_how_long(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(200, "training", interval=10)
    progress.update(0)
    clock.now += 30
    progress.update(50, "N = 32")
    clock.now += 5
    progress.update(60)  # too soon for another line in a log
    clock.now += 85
    progress.update(500)  # never more than everything
    progress.finish("3 networks")
    assert capsys.readouterr().err.splitlines() == [
        "training:   0 %",
        "training:  25 %, 1 min 30 s left N = 32",
        "training: 100 %, < 1 s left",
        "training: done in 2 min 0 s 3 networks",
    ]


def test_quiet_progress_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(0, "nothing", quiet=True)  # no division by zero either
    progress.update(0)
    progress.finish()
    assert capsys.readouterr() == ("", "")


def test_results_and_progress_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("hello")
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.7, "60 s"), (60, "1 min 0 s"), (3599.9, "1 h 0 min"), (0, "< 1 s")]
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert progress.format_seconds(seconds) == text


# --------------------------------------------------------------------------- threads


def test_one_thread_holds_for_torch_and_for_blas_and_only_inside() -> None:
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    def fail() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert set(threads()) == {1}
            raise KeyError

    with one_thread():  # all that it looks at is loaded
        pass
    torch.set_num_threads(2)
    before = threads()
    try:
        with pytest.raises(KeyError):
            fail()
        assert torch.get_num_threads() == 2
        assert threads() == before
    finally:
        torch.set_num_threads(1)
