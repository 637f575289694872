r"""What a scheduler sends ends work as Ctrl-C does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from geomem.compute.signals import signals_interrupt

WORK = """
import os, signal, sys, time
from pathlib import Path
from geomem.compute.claims import claim
from geomem.compute.files import atomic_write
from geomem.compute.signals import signals_interrupt

# As from a terminal, also where the tests run behind nohup or in the background of a script.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

def write(path):
    path.write_text("half of it")
    print("writing", flush=True)
    time.sleep(60)

folder = Path(sys.argv[1])
try:
    with signals_interrupt(), claim(folder / "0.nc"):
        atomic_write(folder / "0.nc", write)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_work_that_is_ended_leaves_nothing(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    assert len(list(tmp_path.iterdir())) == 2  # else nothing is shown below
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_handlers_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    own = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # another test's library may have its own
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with signals_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not terminate
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, own)


def test_other_threads_have_no_say() -> None:
    seen = []

    def work() -> None:
        with signals_interrupt():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
