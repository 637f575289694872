r"""Claims: one worker a unit, and none for the dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from geomem.compute import claims, owner
from geomem.compute.claims import claim
from geomem.compute.owner import Owner


def left_by(path: Path, ending: str) -> Path:
    r"""The claim of a process that ended without a word."""
    code = f"""
import os, signal
from pathlib import Path
from geomem.compute.claims import claim
assert claim(Path({str(path)!r})).held
{ending}
"""
    subprocess.run([sys.executable, "-c", code], timeout=60)
    (left,) = path.parent.glob(".claim-*")
    return left


def test_a_unit_is_claimed_once(tmp_path: Path) -> None:
    first = claim(tmp_path / "0.nc")
    assert first is not None
    assert first.held
    assert claim(tmp_path / "0.nc") is None
    other = claim(tmp_path / "1.nc")
    assert other is not None  # another unit
    first.release()
    assert not first.held
    with claim(tmp_path / "0.nc") as again:
        assert again.held
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_of_a_living_process_is_respected_however_old(tmp_path: Path) -> None:
    # It may have been stopped for a while; its number and its beginning are those in the claim.
    held = claim(tmp_path / "0.nc")
    assert held is not None
    os.utime(held.path, (0, 0))
    assert claim(tmp_path / "0.nc") is None
    held.release()


def test_a_claim_of_the_dead_is_taken_over_by_one(tmp_path: Path) -> None:
    path = tmp_path / "0.nc"
    left_by(path, "os.kill(os.getpid(), signal.SIGKILL)")
    barrier, won = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        won.append(claim(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [w for w in won if w is not None]
    assert winner.held
    assert list(tmp_path.iterdir()) == [winner.path]
    winner.release()
    assert list(tmp_path.iterdir()) == []


def test_who_is_interrupted_holds_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def interrupted(source: Path, target: Path) -> None:
        link(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        claim(tmp_path / "0.nc")
    assert list(tmp_path.iterdir()) == []  # this process lives on, and others would wait for it


def test_a_number_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    me = Owner.current()
    assert Owner(me.place, me.pid, me.began).is_alive
    assert not Owner(me.place, me.pid, me.began - 1).is_alive
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not Owner(me.place, child.pid, 0).is_alive  # ended, and nobody has asked for it yet
    child.wait()
    assert not Owner(me.place, child.pid, 0).is_alive
    assert Owner.parse("no owner") is None


@pytest.mark.parametrize("content", ["theirs", b"", b"\xff\x00 damaged"])
def test_a_claim_of_another_machine_lives_by_its_heartbeat(
    tmp_path: Path, content: str | bytes
) -> None:
    held = claim(tmp_path / "0.nc")
    assert held is not None
    if isinstance(content, str):
        content = held.content.replace(Owner.current().place.encode(), b"0123456789ab")
    held.release()
    held.path.write_bytes(content)
    now = time.time()
    os.utime(held.path, (now - 60, now - 60))
    assert claim(tmp_path / "0.nc") is None
    os.utime(held.path, (now - 180, now - 180))
    taken = claim(tmp_path / "0.nc")
    assert taken is not None
    assert taken.held
    taken.release()


def test_a_claim_is_touched_while_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    held = claim(tmp_path / "0.nc")
    assert held is not None

    def is_touched() -> bool:
        os.utime(held.path, (0, 0))
        deadline = time.monotonic() + (10 if held.held else 0.5)
        while held.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        return held.path.stat().st_mtime > 0

    assert is_touched()
    other = b"somebody else's"
    held.path.write_bytes(other)
    assert not held.held
    assert not is_touched()  # it is not ours to keep
    held.release()
    assert held.path.read_bytes() == other  # nor to remove


def test_the_clock_of_the_file_system_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine's own clock is ten minutes ahead; the claim was touched just now.
    path = tmp_path / "claim"
    path.write_text("theirs")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 600)
    assert not owner.is_abandoned(path, None, patience=120)
    os.utime(path, (now - 200, now - 200))
    assert owner.is_abandoned(path, None, patience=120)
    assert list(tmp_path.iterdir()) == [path]


def test_workers_that_start_together_share_the_work(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from geomem.compute.claims import claim
folder = Path({str(tmp_path)!r})
(folder / f"ready-{{sys.argv[1]}}").touch()
while len(list(folder.glob("ready-*"))) < 3:
    time.sleep(0.001)
for number in range(30):
    record = folder / f"{{number}}.nc"
    if record.exists() or not (held := claim(record, inside=folder)):
        continue
    with held:
        if not record.exists():
            print(number)
            time.sleep(0.005)
            record.touch()
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(k)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for k in range(3)
    ]
    said = [worker.communicate(timeout=60) for worker in workers]
    assert [error for _, error in said] == [b""] * 3
    done = sorted(int(n) for out, _ in said for n in out.split())
    assert done == list(range(30))  # each once
    assert not list(tmp_path.glob(".*"))
