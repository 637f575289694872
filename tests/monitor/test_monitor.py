r"""The monitor in loops: what it says, what it leaves alone, what it survives."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import geomem
from geomem.errors import InputError
from geomem.findings.looks import first_warning
from geomem.monitor import MemorizationMonitor
from geomem.runs.kinds import open_run
from geomem.runs.records import RunFolder
from tests.monitor.loops import Noisy, monitor_of, points, training_of

TRAIN, HELD_OUT = points(16), points(80, seed=1)


def shrink(x: Tensor, sigma: Tensor) -> Tensor:
    return x / (1 + sigma**2)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "geomem.monitor"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemorizationMonitor]:
    r"""A training that memorizes, watched to its end."""
    out = tmp_path_factory.mktemp("monitor") / "run"
    monitor, state = monitor_of(TRAIN, HELD_OUT, out=out), training_of(TRAIN)
    for _ in range(450):
        state.advance()
        monitor.step(state.average)
    monitor.close()
    return out, monitor


# ----------------------------------------------------------------------------- what it says


def test_a_training_that_memorizes_is_warned_of(watched: Any) -> None:
    _, monitor = watched
    assert [look.step for look in monitor.history] == [50, 100, 200, 400]
    assert monitor.warning is not None
    assert monitor.warning.significant
    last = monitor.history[-1]
    assert last.gains["linear"].value > 3 * last.gains["linear"].stderr > 0
    numbers = monitor.compute()
    assert numbers["geomem/warning"] == 1
    assert numbers["geomem/p_value"] == last.p_value
    assert numbers["geomem/beside_earlier"] == last.gains["earlier"].value
    assert all(math.isfinite(v) for v in numbers.values())


def test_its_folder_is_a_run_like_any_other(watched: Any) -> None:
    out, monitor = watched
    dataset = geomem.load(out)
    assert dataset.attrs["kind"] == "monitor"
    assert dataset["kind"].values.tolist() == ["linear", *["learned"] * 4]
    assert dataset.step.values[1:].tolist() == [50, 100, 200, 400]
    assert dataset["at"].values.tolist() == ["training", "held_out", "reserved"]
    known = geomem.numbers(dataset, replicates=20)
    # The same numbers as in the loop, from records alone.
    for look in monitor.history:
        row = known.isel(subject=int(np.flatnonzero(known.step.values == look.step)[0]))
        assert float(row.look_p_value) == look.p_value
        assert float(row.look_level) == look.level
        for beside, gain in look.gains.items():
            there = float(row.look_gain.sel(beside=beside))
            assert there == pytest.approx(gain.value, rel=1e-9, nan_ok=True)
        assert float(row.held_out_error) == pytest.approx(look.held_out.value)
    first = first_warning(known)
    assert first is not None
    assert int(first.step) == monitor.warning.step
    summary = json.loads((out / "summary.json").read_text())
    text = summary["findings"][0]
    assert f"beyond chance from step {monitor.warning.step} on" in text
    page = geomem.report(out).read_text()
    assert "4 looks at the training" in page
    with pytest.raises(InputError, match="filled by the training that it looks at"):
        open_run(out)


def test_a_training_that_learns_nothing_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    monitor = monitor_of(TRAIN, HELD_OUT, every=1)
    for _ in range(8):
        monitor.step(shrink)
    assert len(monitor.history) == 4
    assert monitor.warning is None
    assert not said(caplog)


def test_looks_come_out_of_step_and_by_the_names_of_torchmetrics() -> None:
    monitor = monitor_of(TRAIN, HELD_OUT, every=2)
    assert monitor.compute() == {}
    assert monitor.step(shrink) is None
    look = monitor.step(shrink)
    assert look is not None
    assert look.step == 2
    monitor.update(shrink, step=4)
    assert monitor.history[-1].step == 4
    assert monitor.compute()["geomem/p_value"] == monitor.history[-1].p_value


def test_a_last_look_may_be_asked_for() -> None:
    monitor = monitor_of(TRAIN, HELD_OUT, every=100)
    monitor.step(shrink, 7)
    look = monitor.look(shrink)
    assert look is not None
    assert look.step == 7
    assert monitor.look(shrink) is None  # it is there already


def test_loggers_get_each_look() -> None:
    calls: list[tuple[int, dict[str, float]]] = []

    class Log:
        def log(self, numbers: dict[str, float], *, step: int) -> None:
            calls.append((step, numbers))

    monitor = monitor_of(TRAIN, HELD_OUT, every=1, log=Log())
    for _ in range(4):
        monitor.step(shrink)
    assert [step for step, _ in calls] == [1, 2, 4]
    assert "geomem/p_value" in calls[0][1]
    assert "geomem/beside_earlier" not in calls[0][1]  # there is no earlier look yet


# ------------------------------------------------------------------------ images as they come


class Items:
    r"""A data set of items, as torch's are."""

    def __init__(self, rows: Tensor, form: Any) -> None:
        self.rows, self.form = rows, form

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.form(self.rows[index])


def digest(monitor: MemorizationMonitor) -> str:
    assert monitor._known is not None, monitor.fault
    return monitor._known.study.digest


@pytest.mark.parametrize(
    "form", [lambda x: x, lambda x: (x, 1), lambda x: {"input": x}, lambda x: {"images": x}]
)
def test_data_sets_of_items_are_taken_as_tensors_are(form: Any) -> None:
    plain, items = (
        monitor_of(TRAIN, HELD_OUT),
        monitor_of(Items(TRAIN, form), Items(HELD_OUT, form)),
    )
    assert not items.fault
    assert digest(items) == digest(plain)
    assert digest(monitor_of(TRAIN.numpy(), HELD_OUT.double().numpy())) == digest(plain)
    half = monitor_of(TRAIN.bfloat16(), Items(HELD_OUT.bfloat16(), form))
    assert digest(half) == digest(monitor_of(TRAIN.bfloat16().float(), HELD_OUT.bfloat16()))


def test_images_that_are_mirrored_at_random_are_the_same_when_a_training_is_resumed() -> None:
    def mirrored(x: Tensor) -> Tensor:
        shift = random.random() + np.random.rand()
        return (x.flip(0) if torch.rand(()) < 0.5 else x) + 1e-3 * shift

    monitors = []
    for seed in range(2):  # of the training
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
        monitors.append(monitor_of(Items(TRAIN, mirrored), Items(HELD_OUT, mirrored)))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), str(np.random.get_state())) == before[1:]
    assert digest(monitors[0]) == digest(monitors[1]) != digest(monitor_of(TRAIN, HELD_OUT))


def test_images_that_cannot_be_used_are_said_once_and_stop_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for train, held_out, words in (
        (TRAIN, torch.cat([HELD_OUT, TRAIN[:3]]), "3 of 83 held-out images are among the training"),
        (TRAIN[:4], HELD_OUT, "4 training and 80 held-out images are too few"),
        (TRAIN, HELD_OUT[:, :4], r"shape (6,) and held-out ones (4,)"),
        (TRAIN, iter(HELD_OUT), "pass a tensor"),
        (TRAIN.long(), HELD_OUT, "pass floats of one shape"),
        (TRAIN * math.nan, HELD_OUT, "NaN or infinity"),
        (TRAIN, Items(HELD_OUT, lambda x: {"text": "a"}), "in which no image was found"),
        (TRAIN, torch.ones(80, 6), "all held-out images are equal"),
    ):
        caplog.clear()
        monitor = monitor_of(train, held_out, every=1)
        for _ in range(3):
            assert monitor.step(shrink) is None
        assert monitor.look(shrink) is None
        assert words in monitor.fault
        assert len(said(caplog)) == 1
        assert "\n" not in said(caplog)[0]
        assert said(caplog)[0].startswith("no look will be taken, and the training goes on: ")


def test_images_that_are_not_alike_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    monitor = monitor_of(points(64), 2 * points(128, seed=1) + 1, every=1)
    assert "not drawn alike" in said(caplog)[0]
    look = monitor.step(lambda x, sigma: x / (9 + sigma))
    assert look is not None
    assert look.significant
    assert monitor.warning is None
    assert len(said(caplog)) == 1


@pytest.mark.parametrize(
    "settings", [{"every": 0}, {"growth": 1.0}, {"share": 0.0}, {"points": 4}, {"levels": 1}]
)
def test_settings_out_of_range_are_refused_before_the_training(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(settings))}`"):
        MemorizationMonitor(TRAIN, HELD_OUT, **settings)


# ------------------------------------------------------------------------- a guest in the loop


def test_a_look_leaves_mode_weights_gradients_and_randomness_alone() -> None:
    network = Noisy().train()
    network.inside[1].eval()  # one module at rest in a network in training stays at rest
    network(points(8), torch.tensor(1.0)).sum().backward()
    before = copy.deepcopy(network.state_dict())
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    modes = [m.training for m in network.modules()]
    monitor = monitor_of(TRAIN, HELD_OUT, every=1)
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    assert monitor.step(network) is not None
    assert torch.equal(torch.randn(3), expected)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    after = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, after, strict=True))
    # In eval mode it is no random one, and asked twice it says the same.
    again = monitor_of(TRAIN, HELD_OUT, every=1)
    assert again.step(network) == monitor.history[0]


def test_a_watched_training_takes_the_same_steps_as_one_that_is_not() -> None:
    states = [training_of(TRAIN) for _ in range(2)]
    monitor = monitor_of(TRAIN, HELD_OUT, every=2)
    for _ in range(8):
        for k, state in enumerate(states):
            state.advance()
            if k:
                monitor.step(state.denoiser)
    weights = [state.denoiser.state_dict() for state in states]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_networks_in_half_precision_are_asked_in_their_own() -> None:
    network = Noisy().bfloat16()
    monitor = monitor_of(TRAIN, HELD_OUT, every=1)
    look = monitor.step(lambda x, sigma: network(x, sigma.to(x)))
    assert look is not None, monitor._said
    assert math.isfinite(look.held_out.value)


def test_looks_that_fail_are_said_once_and_the_training_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = Noisy()

    def wakes(x: Tensor, sigma: Tensor) -> Tensor:
        network.train()
        return torch.as_tensor(network(x, sigma))

    def moves(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.as_tensor(network.to("meta")(x, sigma))

    def fails(x: Tensor, sigma: Tensor) -> Tensor:
        raise RuntimeError("CUDA out of memory\nand more lines")

    for denoiser, words in (
        (wakes, "is in train mode"),
        (fails, "RuntimeError: CUDA out of memory"),
        (lambda x, sigma: x * math.nan, "NaN or infinity"),
        (lambda x, sigma: x[:1], "returned shape"),
        (lambda x, sigma: x + torch.randn_like(x), "draws random numbers"),
        (3, "pass a function"),
        (moves, "meta"),
    ):
        caplog.clear()
        monitor = monitor_of(TRAIN, HELD_OUT, every=1)
        for _ in range(9):
            assert monitor.step(denoiser) is None  # type: ignore[arg-type]
        assert monitor.history == []
        # A network that was moved fails in another way the next time: each way is said once.
        assert len(said(caplog)) == (2 if denoiser is moves else 1), said(caplog)
        for text in said(caplog):
            assert words in text
            assert "the training goes on" in text
            assert "\n" not in text
        assert monitor.step(shrink, 100) is not None  # a later look may work


def test_a_logger_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def log(self, numbers: dict[str, float], *, step: int) -> None:
            raise OSError("no network")

    monitor = monitor_of(TRAIN, HELD_OUT, every=1, log=[Broken()])
    for _ in range(4):
        monitor.step(shrink)
    assert len(monitor.history) == 3
    assert said(caplog) == ["a logger failed, and the training goes on: OSError: no network"]
    assert "not installed" in monitor_of(TRAIN, HELD_OUT, log="wandb").fault


def test_interrupts_are_not_swallowed() -> None:
    def stopped(x: Tensor, sigma: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        monitor_of(TRAIN, HELD_OUT, every=1).step(stopped)


def test_looks_take_no_more_than_their_share(tmp_path: Path) -> None:
    out = tmp_path / "run"
    monitor = MemorizationMonitor(TRAIN, HELD_OUT, every=1, levels=5, out=out)
    for _ in range(50):
        monitor.step(shrink)
    assert monitor.history == []
    assert not out.exists()  # nothing is made ready for looks that never come
    checked, training = monitor.seconds
    monitor._spacing.began = (monitor._spacing.began or 0) - 1000  # as after a long training
    assert monitor.step(shrink) is not None
    assert geomem.load(out).step.values[1:].tolist() == [51]
    looks, training = monitor.seconds
    assert checked < looks < 0.05 * training


def test_a_folder_that_cannot_be_used_is_said_when_it_is_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monitor = MemorizationMonitor(TRAIN, HELD_OUT, every=1, levels=5, out=tmp_path / "file" / "run")
    monitor.step(shrink)
    assert not said(caplog)
    for _ in range(2):
        assert monitor.look(shrink) is None
    assert len(said(caplog)) == 1
    assert said(caplog)[0].startswith("no look will be taken, and the training goes on: ")
    assert monitor.fault


# --------------------------------------------------------------------------- killed and resumed


def test_a_resumed_training_keeps_its_history_and_doubles_nothing(
    watched: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, whole = watched
    out = tmp_path / "run"
    state = training_of(TRAIN)
    first = monitor_of(TRAIN, HELD_OUT, out=out)
    for _ in range(230):
        state.advance()
        first.step(state.average, state.step)
        if state.step == 150:
            state.save(tmp_path / "checkpoint.safetensors")
    del first
    folder = RunFolder.open(out)
    assert [s.step for s in folder.subjects] == [None, 50, 100, 200]
    # Killed between a subject and its record: what is not there was never measured.
    folder.append(folder.subject(3).__class__("learned", num_samples=16, seed=0, step=400))
    state = training_of(TRAIN)
    state.load(tmp_path / "checkpoint.safetensors")
    second = monitor_of(TRAIN, HELD_OUT, out=out)
    assert [look.step for look in second.history] == [50, 100, 200]
    for _ in range(300):
        state.advance()
        second.step(state.average, state.step)
    assert [look.step for look in second.history] == [50, 100, 200, 400]
    assert second.history == whole.history
    assert second.warning == whole.warning
    dataset = geomem.load(out)
    assert dataset.attrs["subjects_done"] == dataset.attrs["subjects_planned"] == 5
    # A warning is given once in a training, not once a session.
    assert sum("beyond chance" in text for text in said(caplog)) == 1


def test_a_folder_of_another_training_is_left_alone(
    watched: Any, caplog: pytest.LogCaptureFixture
) -> None:
    out, _ = watched
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    monitor = monitor_of(points(20, seed=7), HELD_OUT, out=out)
    assert "choose another `out`" in monitor.fault
    monitor.step(shrink)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_damaged_record_is_left_out(watched: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(watched[0], out)
    path = out / "records" / "000002.nc"
    path.write_bytes(path.read_bytes()[:-100])
    monitor = monitor_of(TRAIN, HELD_OUT, out=out)
    assert not monitor.fault
    assert [look.step for look in monitor.history] == [50, 200, 400]


def test_checkpoints_remember_the_step() -> None:
    monitor = monitor_of(TRAIN, HELD_OUT)
    for _ in range(3):
        monitor.step(shrink)
    other = monitor_of(TRAIN, HELD_OUT)
    other.load_state_dict(monitor.state_dict())
    other.step(shrink)
    assert other.steps == 4


def test_sessions_are_recorded(watched: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    monitor = monitor_of(TRAIN, HELD_OUT, every=1, out=out)
    monitor.step(shrink)
    del monitor
    assert len(list((out / "provenance").glob("*.json"))) == 1
