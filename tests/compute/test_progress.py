r"""What is said meanwhile: how much, how long, and never at the price of the work."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from geomem.compute import progress
from geomem.compute.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("geomem.compute.progress.time.monotonic", clock)
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
    ("seconds", "text"),
    [
        (59.7, "60 s"),
        (60, "1 min 0 s"),
        (3599.9, "1 h 0 min"),
        (0, "< 1 s"),
        (float("nan"), "unknown time"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert progress.format_seconds(seconds) == text


def test_what_was_done_before_says_nothing_about_the_rest(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(100, "training", interval=0)
    progress.update(90)  # a run that goes on: this took no time now
    clock.now += 60
    progress.update(95)
    assert capsys.readouterr().err.splitlines() == [
        "training:  90 %",
        "training:  95 %, 1 min 0 s left",
    ]


def test_a_terminal_has_one_line_that_is_rewritten_without_escapes(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress(10, "training")
    progress.update(0, "a note that is longer than any terminal is wide")
    clock.now += 5
    progress.update(5)
    progress.finish()
    first, second, last = screen.getvalue().split("\r")[1:]
    assert len(first) == 39  # one that wraps could not be rewritten
    assert second == "training:  50 %, 5 s left".ljust(39)  # covers all of it
    assert last == "training: done in 5 s".ljust(25) + "\n"
    assert "\x1b" not in screen.getvalue()


SPEAK = r"""
import sys
from geomem.compute.progress import Progress, say
say("sigma is \u03c3, a file \udcff")
progress = Progress(2, "tr\u00e4ining", interval=0)
progress.update(1)
progress.finish()
say("the end")
print("result")
"""


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "2>/dev/null", "2>&1 >&3 | true"])
def test_standard_error_that_takes_nothing_costs_nothing(where: str) -> None:
    command = f"exec 3>&1; '{sys.executable}' -c '{SPEAK}' {where}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "")


@pytest.mark.parametrize("coding", ["ascii:strict", "latin-1:strict", "utf-8:strict"])
def test_letters_that_cannot_be_written_are_described(coding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPEAK],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": coding},
    )
    assert done.returncode == 0
    assert rb"a file \udcff" in done.stderr
    assert b"the end" in done.stderr


def test_a_terminal_that_is_gone_costs_nothing() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "input()\n" + SPEAK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    os.close(ours)
    out, _ = process.communicate(b"go\n", timeout=60)
    assert (process.returncode, out) == (0, b"result\n")
