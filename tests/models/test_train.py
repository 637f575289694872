r"""Training: the same seed, the same weights; stopped and gone on, the same weights."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geomem.errors import GeomemError, InputError
from geomem.exact import GaussianDenoiser
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState, checkpoint_step, train
from tests.references import normal

VARIANCES = torch.tensor([2.0, 0.5, 0.05, 0.0])
DATA = (normal(0, 200, 4) * VARIANCES.sqrt()).float()
CONFIG = NetworkConfig("mlp", (4,), sigma_data=float(DATA.std()), width=32, blocks=1)
RECIPE = Training(steps=40, batch_size=16)


@pytest.fixture(autouse=True)
def every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    r"""However short a training is, each of its checkpoints is written."""
    monkeypatch.setattr("geomem.models.train.SECONDS", 0.0)


def state(
    *, seed: int = 0, unit: int = 0, recipe: Training = RECIPE, device: torch.device | None = None
) -> TrainState:
    return TrainState(CONFIG, recipe, DATA, seed=seed, unit=unit, device=str(device or "cpu"))


def run(state: TrainState, every: int = 1000, checkpoint: Path | None = None) -> TrainState:
    for _ in train(state, every, checkpoint):
        pass
    return state


def tensors(state: TrainState) -> dict[str, Tensor]:
    return state.tensors()


def same(one: TrainState, other: TrainState) -> bool:
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


def test_the_same_seed_gives_the_same_weights() -> None:
    assert same(run(state()), run(state()))
    weights = [torch.cat([p.flatten() for p in s.parameters]) for s in map(run, differing())]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def differing() -> list[TrainState]:
    return [state(), state(seed=1), state(unit=1)]


@pytest.mark.parametrize("stop", [1, 20, 39])
def test_going_on_is_exact(tmp_path: Path, stop: int, device: torch.device) -> None:
    # 20 + 20 steps through a file are the 40 steps, bit for bit: weights, their average,
    # Adam's moments and the state of the randomness.
    whole = run(state(device=device))
    first = state(device=device)
    steps = train(first, stop, tmp_path / "checkpoint")
    assert next(steps).step == stop
    assert isinstance(steps, Generator)
    steps.close()  # interrupted
    assert checkpoint_step(tmp_path / "checkpoint") == stop
    second = run(state(device=device), 7, tmp_path / "checkpoint")
    assert second.step == 40
    assert same(whole, second)
    assert second.loss == whole.loss


def test_how_often_it_yields_changes_nothing(tmp_path: Path) -> None:
    assert same(run(state(), 3, tmp_path / "checkpoint"), run(state()))


def test_states_are_yielded_where_asked_and_at_the_end() -> None:
    assert [s.step for s in train(state(), 15)] == [15, 30, 40]
    done = run(state())
    assert [s.step for s in train(done, 15)] == []


def test_a_checkpoint_is_written_when_the_last_one_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written = iter(float(k) for k in range(1000)), []
    monkeypatch.setattr("geomem.models.train.SECONDS", 5.0)
    monkeypatch.setattr("geomem.models.train.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(TrainState, "save", lambda self, path: written.append(self.step))
    run(state(), 2, tmp_path / "checkpoint")  # each of the 20 looks at the clock takes a second
    assert written == [10, 20, 30, 40]


def test_a_finished_training_is_yielded_again_from_its_checkpoint(tmp_path: Path) -> None:
    run(state(), 40, tmp_path / "checkpoint")
    assert [s.step for s in train(state(), 40, tmp_path / "checkpoint")] == [40]


def test_the_loss_falls_and_the_network_learns() -> None:
    # Against the best denoiser of this Gaussian; an untrained network is isotropic and wrong
    # by .2 in these units. Averages over 4,000 draws, known to 3 %.
    recipe = Training(steps=1500, batch_size=64, learning_rate=3e-3)
    trained, fresh = run(state(recipe=recipe)), state(recipe=recipe)
    exact = GaussianDenoiser(torch.zeros(4), VARIANCES)
    x_0 = (normal(1, 4000, 4) * VARIANCES.sqrt()).float()
    sigma = torch.tensor(0.4)
    x = x_0 + sigma * normal(2, 4000, 4).float()
    with torch.no_grad():
        best, learned, start = (
            float((d(x, sigma) - x_0).square().sum(1).mean())
            for d in (exact, trained.average, fresh.average)
        )
    assert start > 1.4 * best
    assert best < learned < 1.15 * best


def test_the_average_follows_the_weights() -> None:
    recipe = Training(steps=40, batch_size=16, ema_half_life=0.25)
    assert recipe.ema_decay**10 == pytest.approx(0.5)  # 25 % of 40 steps
    now = state(recipe=recipe)
    expected = [p.detach().clone() for p in now.parameters]
    for _ in range(5):
        now.advance()
        decay = recipe.ema_decay
        expected = [
            decay * a + (1 - decay) * p for a, p in zip(expected, now.parameters, strict=True)
        ]
    for a, b in zip(now.average.parameters(), expected, strict=True):
        # Five float32 roundings of numbers of order one.
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=5e-7)
        assert not a.requires_grad


def test_the_rate_is_constant_and_then_falls_to_zero() -> None:
    recipe = Training(steps=100, learning_rate=1e-3)
    assert [recipe.rate(k) for k in (0, 49, 50)] == [1e-3] * 3
    assert recipe.rate(75) == pytest.approx(5e-4)
    assert recipe.rate(100) == 0


def test_training_that_diverges_says_so() -> None:
    broken = TrainState(CONFIG, RECIPE, DATA * float("nan"), seed=0)
    with pytest.raises(GeomemError, match=r"diverged at step 1 .*lower the learning rate"):
        broken.advance()
    wild = state(recipe=Training(steps=400, batch_size=16, learning_rate=1e30))
    with pytest.raises(GeomemError, match="diverged"):
        run(wild)


@pytest.mark.parametrize("what", ["bytes", "empty", "another network", "no moments"])
def test_checkpoints_that_do_not_fit(tmp_path: Path, what: str) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "checkpoint"
    if what == "bytes":
        path.write_bytes(b"0" * 64)
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "another network":
        wider = NetworkConfig("mlp", (4,), CONFIG.sigma_data, width=16, blocks=1)
        run(TrainState(wider, RECIPE, DATA, seed=0), checkpoint=path)
    else:
        run(state(), checkpoint=path)
        kept = {k: v for k, v in load_file(path).items() if not k.startswith("adam")}
        save_file(kept, path)
    with pytest.raises(InputError, match="not a checkpoint of this training; delete it"):
        run(state(), checkpoint=path)


def test_the_step_of_a_damaged_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "bytes").write_bytes(b"0" * 64)
    save_file({"other": torch.ones(1)}, tmp_path / "no step")
    assert checkpoint_step(tmp_path / "not there") == 0
    for name in ("bytes", "no step"):
        with pytest.raises(InputError, match="delete it"):
            checkpoint_step(tmp_path / name)


def test_an_interrupted_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "checkpoint", state()
    now.advance()
    now.save(path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geomem.models.train.save_file", full)
    now.advance()
    with pytest.raises(InputError, match="disk is full"):
        now.save(path)
    assert checkpoint_step(path) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_bad_recipes(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="steps >= 1"):
        Training(**bad)
