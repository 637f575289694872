r"""Executors: who works changes no answer, and a worker that is lost costs its unit only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import geomem.compute.ray
from geomem.compute.claims import claim
from geomem.compute.executor import Executor
from geomem.compute.files import atomic_write
from geomem.compute.local import LocalExecutor
from geomem.compute.ray import RayExecutor
from geomem.errors import GeomemError, InputError

Report = Callable[[Any], None]
NO_RAY = "Ray is not installed: pip install geomem[ray]"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    r"""One session of Ray for the whole module, started by an executor as in real life."""
    if find_spec("ray") is None:
        pytest.skip(NO_RAY)
    RayExecutor(2).workers()
    sys.modules["ray"].shutdown()  # and may be started again
    list(RayExecutor(2).run(double, [0]))
    yield sys.modules["ray"]
    sys.modules["ray"].shutdown()


# ----------------------------------------------------------------------------- units of work


def double(unit: int, report: Report) -> tuple[int, int, int]:
    report(f"unit {unit}")
    return 2 * unit, torch.get_num_threads(), os.getpid()


def fail(unit: int, report: Report) -> int:
    if unit == 2:
        raise InputError("unit 2 cannot be done; leave it out")
    return unit


class Awkward(Exception):  # noqa: N818
    r"""An error that cannot be pickled, as some libraries have them."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_awkwardly(unit: int, report: Report) -> None:
    raise Awkward(1, 2)


def unpicklable(unit: int, report: Report) -> Any:
    return lambda: unit


def poison(unit: tuple[int, Path], report: Report) -> int:
    r"""Unit 1 kills its worker each time, and leaves a mark."""
    number, folder = unit
    if number == 1:
        (folder / f"{time.monotonic_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@dataclass(frozen=True)
class Shard:
    r"""Rows of a file, and a marker: who finds none makes it and is killed."""

    path: Path
    start: int
    stop: int
    queries: Tensor
    marker: Path | None = None


@dataclass(frozen=True)
class LogSum:
    r"""A toy posterior: log Σ exp(-|x - x_i|²/2) and the weighted mean, which merge."""

    log_partition: Tensor
    mean: Tensor

    def merge(self, other: LogSum) -> LogSum:
        p = (self.log_partition - other.log_partition).sigmoid()[:, None]
        total = torch.logaddexp(self.log_partition, other.log_partition)
        return LogSum(total, p * self.mean + (1 - p) * other.mean)


def log_sum(shard: Shard, report: Report) -> LogSum:
    report(shard.start)
    if shard.marker and not shard.marker.exists():
        shard.marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    data = torch.from_numpy(np.load(shard.path, mmap_mode="r")[shard.start : shard.stop].copy())
    logits = -torch.cdist(shard.queries, data).square() / 2
    return LogSum(logits.logsumexp(1), logits.softmax(1) @ data)


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "data.npy", rng.normal(size=(60, 3)))
    queries = torch.from_numpy(rng.normal(size=(5, 3)))
    return [Shard(tmp_path / "data.npy", k, k + 10, queries) for k in range(0, 60, 10)]


# ------------------------------------------------------------------------------ in this process


def test_units_in_this_process_come_in_order() -> None:
    messages: list[tuple[int, str]] = []
    torch.set_num_threads(2)
    try:
        units = LocalExecutor(1).run(
            double, [3, 1, 2], on_message=lambda u, m: messages.append((u, m))
        )
        done = [(unit, result[:2]) for unit, result in units]
        assert torch.get_num_threads() == 2  # as it was before
    finally:
        torch.set_num_threads(1)
    assert done == [(3, (6, 1)), (1, (2, 1)), (2, (4, 1))]  # each on one thread
    assert messages == [(3, "unit 3"), (1, "unit 1"), (2, "unit 2")]


def test_units_in_this_process_are_done_when_asked_for() -> None:
    # A generator: what is finished is handed over before the next unit starts.
    done = LocalExecutor(1).run(fail, [1, 2, 3])
    assert next(done) == (1, 1)
    with pytest.raises(InputError, match="unit 2 cannot be done"):
        next(done)


# -------------------------------------------------------------------------- in other processes


def test_no_units_need_no_worker(two: Executor) -> None:
    assert list(two.run(double, [])) == []


def test_units_in_two_workers(two: Executor) -> None:
    messages: list[tuple[int, str]] = []
    done = dict(two.run(double, [5, 6, 7], on_message=lambda u, m: messages.append((u, m))))
    assert {unit: result[0] for unit, result in done.items()} == {5: 10, 6: 12, 7: 14}
    assert all(result[1] == 1 for result in done.values())  # one thread: the same floats
    assert os.getpid() not in {result[2] for result in done.values()}
    assert sorted(messages) == [(5, "unit 5"), (6, "unit 6"), (7, "unit 7")]


def test_what_a_unit_raises_arrives_as_itself(two: Executor) -> None:
    with pytest.raises(InputError) as raised:
        list(two.run(fail, [2]))
    assert str(raised.value) == "unit 2 cannot be done; leave it out"
    assert "raise InputError" in raised.value.__notes__[0]  # where it was raised


def test_an_error_that_cannot_travel_says_what_it_said(two: Executor) -> None:
    with pytest.raises(GeomemError, match="Awkward: 1 and 2"):
        list(two.run(fail_awkwardly, [0]))


@pytest.mark.parametrize("executor", [LocalExecutor(2)], ids=["local"])
def test_a_result_that_cannot_travel_is_explained(executor: Executor) -> None:
    with pytest.raises(GeomemError, match="cannot be pickled"):
        list(executor.run(unpicklable, [0]))


def merged(executor: Executor, shards: list[Shard]) -> LogSum:
    results: list[LogSum] = [result for _, result in executor.run(log_sum, shards)]
    return reduce(LogSum.merge, results)


# for _, result in executor.run(log_sum, shards)))


def test_who_works_changes_no_answer(two: Executor, shards: list[Shard]) -> None:
    # Shards end in any order, and their merge is associative: up to rounding of a few eps.
    whole = log_sum(Shard(shards[0].path, 0, 60, shards[0].queries), lambda m: None)
    alone, shared = merged(LocalExecutor(1), shards), merged(two, shards)
    for result in (alone, shared):
        torch.testing.assert_close(result.log_partition, whole.log_partition, rtol=0, atol=1e-14)
        torch.testing.assert_close(result.mean, whole.mean, rtol=0, atol=1e-14)
    # Each unit by itself is the same bytes, whoever does it.
    first, second = (dict(e.run(_bytes, shards[:2])) for e in (LocalExecutor(1), two))
    assert [*first.values()] == [second[shard] for shard in first]


def _bytes(shard: Shard, report: Report) -> bytes:
    return log_sum(shard, report).mean.numpy().tobytes()


def test_a_worker_that_is_killed_changes_nothing_but_time(
    two: Executor, shards: list[Shard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "killed"
    deadly = [Shard(s.path, s.start, s.stop, s.queries, marker) for s in shards]
    messages: list[int] = []
    done = list(two.run(log_sum, deadly, on_message=lambda u, m: messages.append(m)))
    assert marker.exists(), "no worker was killed"
    assert sorted(shard.start for shard, _ in done) == [0, 10, 20, 30, 40, 50]  # each once
    assert set(messages) == {0, 10, 20, 30, 40, 50}
    assert "a worker was lost" in capsys.readouterr().err
    for shard, result in done:
        again = Shard(shard.path, shard.start, shard.stop, shard.queries)
        expected = log_sum(again, lambda m: None)
        assert torch.equal(result.mean, expected.mean)


def test_a_unit_that_always_kills_is_given_up(two: Executor, tmp_path: Path) -> None:
    with pytest.raises(GeomemError, match=r"lost its worker 3 times.*finished units are kept"):
        list(two.run(poison, [(1, tmp_path)]))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_large_result_arrives(two: Executor) -> None:
    ((_, result),) = two.run(ones, [13_000_000])  # 104 MB in float64
    assert result.mean.shape == (13_000_000, 1)
    assert float(result.mean.sum()) == 13_000_000


@pytest.mark.parametrize("executor", [LocalExecutor(2)], ids=["local"])
def test_a_worker_that_is_killed_while_it_sends_costs_its_unit_only(
    executor: Executor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As where memory ends, since a pickle takes as much again. Pools of concurrent.futures, one
    # a process or one for all, wait for the rest of such a result for ever.
    done = dict(executor.run(killed_in_the_middle, [(k, tmp_path) for k in range(3)]))
    assert {unit[0]: len(result) for unit, result in done.items()} == dict.fromkeys(range(3), 10**7)
    assert "a worker was lost (signal 9)" in capsys.readouterr().err


def killed_in_the_middle(unit: tuple[int, Path], report: Report) -> bytes:
    number, folder = unit
    if number == 1 and not (folder / "marker").exists():
        (folder / "marker").touch()

        def write(handle: int, data: memoryview) -> int:
            if len(data) < 10**6:
                return os.write(handle, data)
            os.write(handle, data[: 10**6])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        Connection._send.__defaults__ = (write,)  # type: ignore[attr-defined]
    return bytes(10**7)


def test_a_worker_that_is_stopped_cleans_up_behind_it(tmp_path: Path) -> None:
    # A scheduler sends SIGTERM to all processes: no half file and no claim is left.
    done = LocalExecutor(2).run(half_a_file, [(k, tmp_path) for k in range(3)])
    next(done)
    deadline = time.monotonic() + 30
    while not (tmp_path / "writing").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {p.name[:5] for p in tmp_path.iterdir()} == {"writi", ".clai", ".tmp-"}
    done.close()  # type: ignore[attr-defined]
    assert [p.name for p in tmp_path.iterdir()] == ["writing"]


def half_a_file(unit: tuple[int, Path], report: Report) -> None:
    number, folder = unit
    if number == 0:
        return

    def write(path: Path) -> None:
        path.write_text("half of it")
        (folder / "writing").touch()
        while True:
            time.sleep(0.05)

    with claim(folder / f"{number}"):  # type: ignore[union-attr]
        atomic_write(folder / f"{number}", write)


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InputError, match=r"`function` and `units` .* can be pickled"):
        list(LocalExecutor(2).run(lambda unit, report: unit, [1, 2]))


def ones(size: int, report: Report) -> LogSum:
    return LogSum(torch.zeros(3), torch.ones(size, 1, dtype=torch.float64))


def test_what_is_not_asked_for_is_stopped(two: Executor, tmp_path: Path) -> None:
    # A consumer that leaves early, as by Ctrl-C, leaves nobody at work.
    done = two.run(slow, [(k, tmp_path) for k in range(4)])
    next(done)
    done.close()  # type: ignore[attr-defined]
    time.sleep(0.3)
    before = sorted(p.name for p in tmp_path.iterdir())
    time.sleep(1.2)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def slow(unit: tuple[int, Path], report: Report) -> int:
    number, folder = unit
    for k in range(10 if number else 1):
        time.sleep(0.3)
        (folder / f"{number}-{k}").touch()
    return number


# ----------------------------------------------------------------------------- what can be wrong

SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from tests.compute.test_executors import sleep
from geomem.compute.local import LocalExecutor
from geomem.compute.ray import RayExecutor
if __name__ == "__main__":
    for _ in {executor}.run(sleep, [1, 2], on_message=lambda u, m: print(m, flush=True)):
        pass
"""


def sleep(unit: int, report: Report) -> None:
    report(f"pid {os.getpid()}")
    time.sleep(60)


@pytest.mark.parametrize(
    "executor", ["LocalExecutor(2)", pytest.param("RayExecutor(2)", marks=pytest.mark.slow)]
)
def test_ctrl_c_stops_the_workers(executor: str, tmp_path: Path) -> None:
    if executor.startswith("Ray") and find_spec("ray") is None:
        pytest.skip(NO_RAY)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[2]), executor=executor))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    workers = [int(process.stdout.readline().split()[1]) for _ in range(2)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "workers outlive Ctrl-C"
        time.sleep(0.1)


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from geomem.compute.local import LocalExecutor\n"
        "def double(unit, report): return 2 * unit\n"
        "print(list(LocalExecutor(2).run(double, [1, 2])))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert "GeomemError: a worker process could not start" in done.stderr
    assert "__main__" in done.stderr


def test_ray_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install geomem\[ray\]"):
        list(RayExecutor().run(double, [1]))


def test_a_cluster_that_does_not_answer_is_refused_at_once() -> None:
    # In a process of its own: this one may have a session already, which would be used.
    code = (
        "from geomem.compute.ray import RayExecutor\n"
        "try:\n    RayExecutor(address='127.0.0.1:1').workers()\n"
        "except ValueError as error:\n    print(error)\n"
    )
    if find_spec("ray") is None:
        pytest.skip(NO_RAY)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "no Ray cluster answers at 127.0.0.1:1" in done.stdout
    assert time.monotonic() - start < 50  # Ray alone asks for more than three minutes


def test_a_gpu_that_is_not_there_is_not_waited_for(ray: Any) -> None:
    if ray.cluster_resources().get("GPU", 0) > 0:
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="no GPU"):
        list(RayExecutor(gpus=1).run(double, [1]))


def test_ray_finds_the_folder_or_says_so(ray: Any, tmp_path: Path) -> None:
    place: tuple[str, dict[str, str]] = (str(tmp_path / "elsewhere"), {})
    with pytest.raises(InputError, match="need a file system that they share"):
        geomem.compute.ray._in_place(double, place, 1, lambda m: None)


def test_a_session_of_our_own_is_for_us_alone(ray: Any) -> None:
    if not hasattr(ray.exceptions, "AuthenticationError"):
        pytest.skip("this Ray has no tokens")
    address = ray.get_runtime_context().gcs_address
    code = f"import ray; ray.init({address!r}, log_to_driver=False)"
    strange = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    once = {**strange, "RAY_NUM_REDIS_GET_RETRIES": "1"}  # and who does not insist
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=once, capture_output=True, text=True, timeout=90)
    assert done.returncode != 0
    assert "oken" in done.stderr


@pytest.mark.parametrize("kind", [LocalExecutor, RayExecutor])
def test_no_processes_and_no_tries_are_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="`processes` is 0; pass a whole number from 1"):
        kind(processes=0)
    with pytest.raises(InputError, match="`tries` is 0"):
        kind(tries=0)
    with pytest.raises(InputError, match=r"`processes` is 2\.5"):
        kind(processes=2.5)


def test_what_ray_cannot_be_given_is_refused() -> None:
    with pytest.raises(InputError, match="`address` is ''"):
        RayExecutor(address="")
    with pytest.raises(InputError, match="`gpus` is -1"):
        RayExecutor(gpus=-1)
