r"""Ranks: networks trained by several processes as by one, and no process left behind by another.

Two ranks compute the same sums in another order: float32 products and Adam's division make
1e-7 of a weight of order one of it in a step, and some 1e-6 of it in 40.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from geomem.cli.main import run as command
from geomem.cli.options import ComputeOptions
from geomem.cli.ranks import run_on_ranks
from geomem.compute.ranks import Ranks, leading, num_ranks
from geomem.errors import GeomemError, InputError
from geomem.models.parallel import SharedState, follow, new_state
from geomem.models.train import Training, TrainState, train
from geomem.runs.jobs import jobs_to_do
from tests.models.test_train import CONFIG, DATA
from tests.runs.test_recipe import PASSES

ROOT = Path(__file__).parents[2]
TINY = replace(PASSES, sizes=(16,), epochs=None, measured_epochs=(), steps=40)
OPTIONS = (
    "sweep --data linear --variances 1 0.25 --ambient-dim 4 --sizes 16 --steps 40 --batch-size 15 "
    "--widths 8 --blocks 1 --levels 3 --points 16 --draws 1 --jacobian-points 0 --samples 0 "
    "--trajectories 0"
).split()
ROUNDING = 2e-6


def places(count: int, rank: int, port: int) -> dict[str, str]:
    place = (rank, count, rank, "127.0.0.1", port)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return dict(zip(names, map(str, place), strict=True))


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def started(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    own = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def apart(one: Path, other: Path) -> float:
    r"""How far the weights of the networks of two runs are apart, at most."""
    files = sorted(path.name for path in (one / "networks").glob("*.safetensors"))
    assert files == sorted(path.name for path in (other / "networks").glob("*.safetensors"))
    assert files
    pairs = [[load_file(run / "networks" / name) for run in (one, other)] for name in files]
    return max(float((a[k] - b[k]).abs().max()) for a, b in pairs for k in a)


def test_two_ranks_train_as_one_and_go_on_with_what_one_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = replace(TINY, batch_size=15)  # which two do not divide
    study = sweep.study()
    for name in ("one", "two", "both"):
        folder = sweep.prepare(tmp_path / name)
    job = jobs_to_do(folder)[0]
    advance = TrainState.advance

    def interrupted(self: TrainState) -> None:
        if self.step == 20:
            raise KeyboardInterrupt
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr("geomem.models.train.SECONDS", 0.0)  # between two checkpoints
        patch.setattr(TrainState, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep.run_units(tmp_path / "both", job, quiet=True)
    sweep.run_units(tmp_path / "one", job, quiet=True)
    # Rank 0 is this process, which accelerate may know from when it was alone; the other one
    # needs no more than the command's name.
    PartialState(cpu=True)
    port = free_port()
    other = started(["-m", "geomem", "sweep"], places(2, 1, port))
    for name, value in places(2, 0, port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def work() -> int:
        for name in ("two", "both"):
            assert sweep.run_units(tmp_path / name, job, quiet=True) == list(job)
        return 3

    assert run_on_ranks(work) == 3
    assert other.communicate(timeout=60)[0] == ""
    assert other.returncode == 3  # as rank 0
    assert 0 < apart(tmp_path / "one", tmp_path / "two") < ROUNDING
    assert apart(tmp_path / "one", tmp_path / "both") < ROUNDING
    assert study.digest == sweep.study().digest
    found = [next((tmp_path / k / "provenance").iterdir()).read_text() for k in ("one", "two")]
    assert ['"ranks": 2' in text for text in found] == [False, True]


class Alone(Ranks):
    r"""One of several ranks whose sums are its own: the others have nothing to add."""

    def __init__(self, rank: int, count: int) -> None:
        super().__init__(rank, count, rank, None)
        self.told: list[str] = []

    def order(self, device: str, content: object) -> None:
        self.told.append(device)

    def add(self, tensors: object) -> None:
        pass


class Store(dict[str, bytes]):
    r"""The store of launchers, in this process."""

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def set(self, key: str, text: str) -> None:
        self[key] = text.encode()

    def add(self, key: str, amount: int) -> int:
        self[key] = str(int(self.get(key, b"0")) + amount).encode()
        return int(self[key])


def test_a_rank_without_a_device_of_its_own_is_refused_on_all() -> None:
    store = Store()
    store.set("order-0", "nowhere")
    assert follow(Ranks(1, 2, 1, store)) == 2
    assert not store.check(["ready"])
    with pytest.raises(InputError, match="rank 1 failed: `device` is 'nowhere:1', which is not"):
        Ranks(0, 2, 0, store).order("nowhere", None)


def test_a_rank_without_orders_ends_as_rank_0_does() -> None:
    store = Store()
    store.set("end", "130")
    assert follow(Ranks(1, 2, 1, store)) == 130
    assert int(store["left"]) == 1  # rank 0 may go


@pytest.mark.parametrize(("count", "batch"), [(2, 16), (3, 16), (5, 7)])
def test_the_parts_of_a_gradient_add_up_to_it(count: int, batch: int) -> None:
    recipe = Training(steps=10, batch_size=batch)
    whole = TrainState(CONFIG, recipe, DATA, seed=0)
    parts = [SharedState(Alone(r, count), CONFIG, recipe, DATA, seed=0) for r in range(count)]
    for state in (whole, *parts):
        state.advance()
    for one, *others in zip(whole.parameters, *(state.parameters for state in parts), strict=True):
        assert one.grad is not None
        total = torch.stack([p.grad for p in others if p.grad is not None]).sum(0)
        torch.testing.assert_close(total, one.grad, rtol=1e-5, atol=1e-6)
    assert sum(state.loss for state in parts) == pytest.approx(whole.loss, rel=1e-5)
    rows = [list(range(batch))[state._rows()] for state in parts]
    assert [k for part in rows for k in part] == list(range(batch))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_others_are_told_before_the_first_step_and_once() -> None:
    ranks = Alone(0, 2)
    with leading(ranks):
        state = new_state(CONFIG, Training(steps=4, batch_size=8), DATA, seed=0)
        assert not ranks.told
        for _ in train(state, 1):
            pass
    assert ranks.told == ["cpu"]
    plain = new_state(CONFIG, Training(steps=4, batch_size=8), DATA, seed=0)
    assert type(plain) is TrainState


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"together": True}, "`together` trains on one device, and a launcher started 3 ranks"),
        ({"batch_size": 2}, "`batch_size` is 2, which 3 ranks cannot share"),
    ],
)
def test_what_ranks_cannot_share_is_refused_before_anything_is_begun(
    tmp_path: Path, change: dict[str, bool | int], said: str
) -> None:
    with leading(Alone(0, 3)), pytest.raises(InputError, match=said):
        replace(TINY, **change).run(tmp_path / "run", processes=1)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_one_training_at_a_time_is_done_on_all_ranks() -> None:
    with leading(Alone(0, 2)):
        assert ComputeOptions().build().workers() == 1
        assert ComputeOptions(1).build().workers() == 1
        for wrong in (ComputeOptions(2), ComputeOptions(executor="ray")):
            with pytest.raises(InputError, match="a launcher started 2 ranks"):
                wrong.build()
        with pytest.raises(InputError, match="each of 2 ranks takes one of its own; pass cpu"):
            TINY.check_device("cpu:0")
    assert ComputeOptions(2).build().workers() == 2


def test_a_forecast_is_that_of_the_largest_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "geomem.runs.sweep.timed", lambda advance, device: advance.__self__.training.batch_size
    )
    alone = replace(TINY)._step_seconds(8, "cpu")
    with leading(Alone(0, 3)):
        assert replace(TINY)._step_seconds(8, "cpu") == 6  # of 16 rows
    assert alone == 16


def test_the_environment_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in places(1, 0, 1):
        monkeypatch.delenv(name, raising=False)
    assert num_ranks() == 1
    for name, value in places(4, 1, 29500).items():
        assert num_ranks() == 1  # a scheduler may set some of them for other programs
        monkeypatch.setenv(name, value)
    assert num_ranks() == 4


def test_ranks_that_do_not_come_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in places(2, 1, free_port()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("geomem.compute.ranks.MEETING", 0.2)
    with pytest.raises(GeomemError, match=r"rank 1 of 2 .* start all with accelerate launch"):
        Ranks.meet()


# ----------------------------------------------------------- processes that fail or are killed

FAILING = """
import os, signal, sys
from geomem.cli.main import main
from geomem.models import train
from geomem.models.parallel import SharedState
train.SECONDS = 0.0  # between two checkpoints
who, how = sys.argv.pop(1).split(":")
update = SharedState._update_average

def failing(self):
    update(self)
    if self.step == 20 and os.environ["RANK"] == who:
        if how == "raise":
            raise RuntimeError("this card is broken")
        pid = os.getppid() if how == "interrupt the launcher" else os.getpid()
        os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGINT)

SharedState._update_average = failing
main()
"""
AGAIN = "the same command goes on where it stopped"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks") / "whole"
    assert command([*OPTIONS, "--processes", "1", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "statuses", "said"),
    [
        ("1:raise", (1, 1), f"rank 1 failed: RuntimeError: this card is broken; {AGAIN}"),
        ("1:kill", (1, -signal.SIGKILL), f"a rank was lost (killed, or out of memory); {AGAIN}"),
        ("0:raise", (1, 1), "a fault of geomem, RuntimeError: this card is broken"),
        ("0:kill", (-signal.SIGKILL, 1), f"rank 1: rank 0 is lost; {AGAIN}"),
        ("0:interrupt", (130, 130), f"interrupted; {AGAIN}"),
        ("1:interrupt", (0, 0), "report.html"),  # rank 0 alone decides about Ctrl-C
    ],
)
def test_ranks_end_together_and_one_process_goes_on(
    whole: Path, tmp_path: Path, failing: str, statuses: tuple[int, int], said: str
) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    out, port = tmp_path / "run", free_port()
    arguments = [str(program), failing, *OPTIONS, "--out", str(out)]
    ranks = [started(arguments, places(2, rank, port)) for rank in (0, 1)]
    texts = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert tuple(rank.returncode for rank in ranks) == statuses
    assert said in "".join(texts)
    assert "Traceback" not in "".join(texts)
    assert command([*OPTIONS, "--processes", "1", "--out", str(out)]) == 0
    assert apart(whole, out) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "status", "said"),
    [
        ("2:none", 0, "report.html"),
        ("1:raise", 1, f"rank 1 failed: RuntimeError: this card is broken; {AGAIN}"),
        ("1:kill", 1, ""),  # who hears of it first, rank 0 or the launcher, says so
        ("0:kill", 1, ""),
        ("0:interrupt the launcher", 1, f"interrupted; {AGAIN}"),
    ],
)
def test_a_launcher_ends_with_its_ranks(
    whole: Path, tmp_path: Path, failing: str, status: int, said: str
) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    out = tmp_path / "run"
    launcher = "-m torch.distributed.run --nproc_per_node 3 --master_port".split()
    arguments = [*launcher, str(free_port()), str(program), failing, *OPTIONS, "--out", str(out)]
    process = started(arguments, {})
    text = process.communicate(timeout=90)[0]
    assert bool(process.returncode) == bool(status)
    assert said in text
    assert text.count("report.html") == (status == 0)  # it is said once
    assert command([*OPTIONS, "--processes", "1", "--out", str(out)]) == 0
    assert apart(whole, out) < ROUNDING
