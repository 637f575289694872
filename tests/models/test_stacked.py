r"""Trainings together: each network is what it would be alone, and goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geomem.errors import GeomemError, InputError
from geomem.models.networks import NetworkConfig
from geomem.models.stacked import Member, StackedState
from geomem.models.train import Training, TrainState, train

CONFIG = NetworkConfig("mlp", (5,), 1.0, width=16, blocks=1)
TRAINING = Training(steps=40, batch_size=32)


def members(*counts: int, units: tuple[int, ...] = (0,)) -> list[Member]:
    data = torch.randn(max(counts), 5, generator=torch.Generator().manual_seed(3))
    return [Member(f"N{n}-seed{u}", data[:n], u) for n in counts for u in units]


def trained(state: StackedState) -> dict[str, torch.Tensor]:
    *_, last = train(state, 10)
    x = torch.linspace(-1, 1, 20).reshape(4, 5)
    with torch.no_grad():
        return {m.name: network(x, torch.tensor(0.3)) for m, network in last.networks()}


def test_a_network_is_the_same_whoever_is_trained_beside_it(device: torch.device) -> None:
    beside = trained(StackedState(CONFIG, TRAINING, members(4, 30), seed=1, device=str(device)))
    alone = trained(StackedState(CONFIG, TRAINING, members(30)[:1], seed=1, device=str(device)))
    torch.testing.assert_close(beside["N30-seed0"], alone["N30-seed0"], atol=1e-5, rtol=1e-4)
    assert (beside["N4-seed0"] - beside["N30-seed0"]).abs().max() > 1e-3


def test_a_step_is_that_of_a_training_by_itself(device: torch.device) -> None:
    # The same draws given to both: Adam, rate and average are then the same, too.
    stack = StackedState(CONFIG, TRAINING, members(9, units=(2,)), seed=5, device=str(device))
    single = TrainState(CONFIG, TRAINING, members(9)[0].data, seed=5, unit=2, device=str(device))

    def loss() -> torch.Tensor:
        images, s, z = (part[0] for part in stack._draws.batch())
        denoised = single.denoiser(images + s[:, None] * z, s)
        weight = (1 + s**2) / s**2
        found: torch.Tensor = (weight * (denoised - images).square().mean(1)).mean()
        return found

    single._loss = loss  # type: ignore[method-assign]
    for _ in range(8):
        stack.advance()
        single.advance()
    [(_, network)] = stack.networks()
    for name, weight in single.average.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], weight.cpu(), atol=2e-5, rtol=1e-3)


def test_interrupted_it_takes_the_same_steps(
    tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(StackedState(CONFIG, TRAINING, members(4, 30), seed=1, device=str(device)))
    monkeypatch.setattr("geomem.models.train.SECONDS", 0.0)  # however short, each is written
    path = tmp_path / "state.safetensors"
    for moment in train(
        StackedState(CONFIG, TRAINING, members(4, 30), seed=1, device=str(device)), 10, path
    ):
        if moment.step == 20:
            break
    again = StackedState(CONFIG, TRAINING, members(4, 30), seed=1, device=str(device))
    again.load(path)
    assert again.step == 20
    for name, values in trained(again).items():
        torch.testing.assert_close(values, whole[name], atol=1e-6, rtol=1e-5)


def test_seeds_differ_and_members_of_one_seed_begin_alike() -> None:
    stack = StackedState(CONFIG, TRAINING, members(4, 30, units=(0, 1)), seed=1)
    weights = stack.weights["backbone.enter.weight"]
    assert torch.equal(weights[0], weights[2])
    assert torch.equal(weights[1], weights[3])
    assert not torch.equal(weights[0], weights[1])


def test_one_that_diverges_is_named() -> None:
    wild = replace(TRAINING, learning_rate=1e30)
    with pytest.raises(GeomemError, match="the training of N4-seed0 diverged before step"):
        trained(StackedState(CONFIG, wild, members(4, 30), seed=1))


def test_a_checkpoint_of_other_trainings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    StackedState(CONFIG, TRAINING, members(4, 30), seed=1).save(path)
    for others in (members(4), members(4, 30, 7)):
        with pytest.raises(InputError, match="not a checkpoint of this training"):
            StackedState(CONFIG, TRAINING, others, seed=1).load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="not a checkpoint of this training"):
        StackedState(CONFIG, TRAINING, members(4, 30), seed=1).load(path)
