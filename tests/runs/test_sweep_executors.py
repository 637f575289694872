r"""A sweep is the same bytes whoever does its units, and whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from geomem.cli.main import run
from geomem.compute.executor import Executor
from geomem.compute.local import LocalExecutor
from geomem.errors import InputError
from geomem.models import train
from geomem.runs.jobs import Task, array_indices, jobs_to_do, run_job
from geomem.runs.kinds import open_run
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep

TINY = Sweep(
    data="linear",
    sizes=(16, 64),
    levels=4,
    points=16,
    draws=2,
    steps=40,
    measured_steps=(10,),
    samples=8,
    variances=(1.0, 0.25),
    ambient_dim=4,
)
# Its units: linear, population, two empirical ones, and two trainings of two steps each.
JOBS = [(6, 7), (4, 5), (3,), (2,), (0,), (1,)]
OPTIONS = (
    "--data linear --sizes 16 64 --levels 4 --points 16 --draws 2 --steps 40 --measured-steps 10 "
    "--samples 8 --variances 1.0 0.25 --ambient-dim 4"
).split()


def record_bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "records").glob("*.nc"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""The sweep in one process, which the others must equal."""
    path = tmp_path_factory.mktemp("sweep") / "whole"
    TINY.run(path, processes=1, quiet=True)
    return path


# --------------------------------------------------------------------- killed in mid-flight


@dataclass(frozen=True)
class Deadly:
    r"""An executor whose first worker to be half-way through a training is killed."""

    inner: Executor
    marker: Path
    heard: list[tuple[tuple[int, ...], float]]

    @property
    def here(self) -> bool:
        return self.inner.here

    def workers(self) -> int:
        return self.inner.workers()

    def run(
        self,
        function: Any,
        units: Sequence[Any],
        *,
        on_message: Callable[[Any, Any], None] = lambda unit, message: None,
    ) -> Iterator[tuple[Any, Any]]:
        def hear(task: Task, share: float) -> None:
            self.heard.append((task.numbers, share))
            on_message(task, share)

        assert function is run_job
        return self.inner.run(partial(deadly, self.marker), units, on_message=hear)


def deadly(marker: Path, task: Task, report: Callable[[float], None]) -> None:
    def report_or_die(share: float) -> None:
        report(share)
        if len(task.numbers) == 2 and share > 0.4 and not marker.exists():
            marker.write_text(str(task.numbers[0]))
            os.kill(os.getpid(), signal.SIGKILL)

    train.SECONDS = 0.0  # in this worker, each checkpoint is written
    run_job(task, report_or_die)


def test_two_workers_one_of_them_killed_write_the_same_bytes(
    two: Executor, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deadly = Deadly(two, tmp_path / "killed", [])
    TINY.run(tmp_path / "run", executor=deadly, quiet=True)
    assert "a worker was lost" in capsys.readouterr().err
    assert record_bytes(tmp_path / "run") == record_bytes(whole)
    for name in ("summary.json", "study.json", "config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    # The training was gone on with at its last checkpoint, two steps of 40 ago at most.
    killed = next(job for job in JOBS if int(deadly.marker.read_text()) in job)
    shares = [share for numbers, share in deadly.heard if numbers == killed]
    assert all(later > earlier - 0.06 for earlier, later in pairwise(shares))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_ray_from_the_command_line_writes_the_same_bytes(
    ray: None, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["sweep", *OPTIONS, "--out", str(out), "--executor", "ray", "--processes", "2"]) == 0
    assert record_bytes(out) == record_bytes(whole)
    assert str(out / "report.html") in capsys.readouterr().out


# ---------------------------------------------------------------------- one unit at a time


def test_units_one_by_one_in_any_order_are_the_whole(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["sweep", *OPTIONS, "--out", str(out), "--prepare"]) == 0
    assert capsys.readouterr().out == "0-3,5,7\n"  # one number for each job
    assert not (out / "records").exists()
    for unit in (7, 3, 4, 0, 2, 1):  # 4: the earlier one of two steps
        assert run(["sweep", str(out), "--unit", str(unit)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["unit 6: learned, N = 64, step = 10", "unit 7: learned, N = 64, step = 40"]
    assert record_bytes(out) == record_bytes(whole)
    assert not (out / "summary.json").exists()
    assert run(["sweep", str(out)]) == 0  # nothing left: summary and page
    assert (out / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    assert (out / "report.html").exists()
    sessions = json.loads((out / "provenance.json").read_text())["sessions"]
    assert len(sessions) == 7  # six units, and the end


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_unit_that_is_done_is_left_alone_and_a_lost_one_is_made_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "records" / "000004.nc"
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    assert run(["sweep", str(copy), "--unit", "4", "--unit", "5"]) == 0
    assert capsys.readouterr().out == "unit 4: its record was there\nunit 5: its record was there\n"
    assert path.stat().st_mtime_ns == written
    path.unlink()
    assert jobs_to_do(RunFolder.open(copy)) == [(4,)]
    assert run(["sweep", str(copy), "--prepare"]) == 0
    assert capsys.readouterr().out == "4\n"
    assert run(["sweep", str(copy), "--unit", "4"]) == 0
    assert path.read_bytes() == before


def test_the_docs_show_what_prepare_prints(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    sweep = Sweep(data="digits", seeds=(0, 1, 2), measured_steps=(1500, 3000))
    assert "--data digits --seeds 0 1 2 --measured-steps 1500 3000" in page
    folder = sweep.prepare(tmp_path / "run")
    assert f"prints `{array_indices(jobs_to_do(folder))}`" in page


def both(task: tuple[Path, int], report: Callable[[Any], None]) -> list[int]:
    run_folder, unit = task
    return open_run(run_folder).run_units(run_folder, [unit], quiet=True)


def test_two_machines_at_the_same_training_do_each_other_no_harm(
    whole: Path, tmp_path: Path
) -> None:
    # Two units of one training, as a careless array of all numbers gives out.
    out = tmp_path / "run"
    TINY.prepare(out)
    done = dict(LocalExecutor(2).run(both, [(out, 6), (out, 7)]))
    assert (6 in done[out, 6]) or (6 in done[out, 7])
    for name in ("000006.nc", "000007.nc"):
        assert record_bytes(out)[name] == record_bytes(whole)[name]


def test_jobs_are_whole_trainings_the_largest_first(tmp_path: Path) -> None:
    folder = TINY.prepare(tmp_path / "run")
    assert jobs_to_do(folder) == JOBS
    assert jobs_to_do(folder, [4]) == jobs_to_do(folder, [5, 4]) == [(4, 5)]
    assert jobs_to_do(folder, []) == []


# ------------------------------------------------------------------------------- bad input

BAD = {
    "a unit beyond the list": (["{run}", "--unit", "8"], "no unit 8; pass 0 to 7"),
    "a negative unit": (["{run}", "--unit=-1"], "no unit -1; pass 0 to 7"),
    "no run": (["{run}-not-there", "--unit", "0"], "holds no run"),
    "an address for local processes": (["{run}", "--address", "a:1"], "pass --executor ray"),
    "no processes": (["{run}", "--unit", "4", "--processes", "-1"], "--processes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(
    case: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = BAD[case]
    assert run(["sweep", *(a.format(run=whole) for a in arguments)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_another_kind_of_run_is_refused(tmp_path: Path) -> None:
    study = {"schema_version": 2}
    RunFolder.create(tmp_path / "run", {"kind": "census"}, study)
    with pytest.raises(InputError, match="a run of kind 'census'; this geomem knows"):
        open_run(tmp_path / "run")


def test_data_that_changed_are_refused(copy: Path) -> None:
    other = replace(TINY, seed=1)
    with pytest.raises(InputError, match="another config"):
        other.run_units(copy, [0], quiet=True)


def test_ray_that_is_missing_names_the_extra(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "records" / "000000.nc").unlink()
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["sweep", str(copy), "--executor", "ray"]) == 2
    assert "pip install geomem[ray]" in capsys.readouterr().err
