r"""Trainings of a sweep that are done together, before its networks are measured one by one.

All networks of one shape are one stack (:mod:`geomem.models.stacked`), trained by whoever claims
it first. What it leaves in the run folder are networks; a network that stands is not trained
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geomem.compute.claims import claim
from geomem.compute.progress import Forecast, Progress, say
from geomem.measure.subject import Description
from geomem.models.networks import NetworkConfig, save_network
from geomem.models.stacked import Member, StackedState
from geomem.models.train import Training, train
from geomem.runs.calls import timed

WAIT = 0.5  # seconds between two looks at what another worker does


@dataclass(frozen=True)
class Stack:
    r"""The trainings of one shape of network.

    Attributes:
        config: Their networks.
        training: Their recipe.
        members: Their names and images; a name begins the names of its networks' files.
        moments: The steps at which networks are kept; the last is the end.
    """

    config: NetworkConfig
    training: Training
    members: tuple[Member, ...]
    moments: tuple[int, ...]

    def missing(self, networks: Path) -> bool:
        r"""Whether a network is not there."""
        return any(
            not network_path(networks, member.name, step).with_suffix(".json").exists()
            for member in self.members
            for step in self.moments
        )

    def state(self, seed: int, device: str) -> StackedState:
        r"""The state before the first step."""
        return StackedState(self.config, self.training, self.members, seed=seed, device=device)


def network_path(networks: Path, name: str, step: int) -> Path:
    r"""Where the network of a training at a step is kept, without the endings of its files."""
    return networks / f"{name}-step{step}"


def stacks_of(
    trained: Sequence[Description],
    member_of: Callable[[Description], Member],
    config_of: Callable[[Description], NetworkConfig],
    training: Training,
) -> list[Stack]:
    r"""The trainings of a run's networks, by the shape of the network.

    Arguments:
        trained: The subjects that are networks.
        member_of: The name and the images of a subject's training.
        config_of: Its network.
        training: The recipe of all.
    """
    by_shape: dict[NetworkConfig, list[Description]] = {}
    for subject in trained:
        by_shape.setdefault(config_of(subject), []).append(subject)
    found = []
    for config, subjects in by_shape.items():
        members = {subject.training: member_of(subject) for subject in subjects}
        moments = tuple(sorted({int(subject.step or 0) for subject in subjects}))
        found.append(Stack(config, training, tuple(members.values()), moments))
    return found


def train_together(
    folder: Path, stacks: Sequence[Stack], *, seed: int, device: str, quiet: bool
) -> None:
    r"""Trains the stacks whose networks are not all there, one after the other.

    Another process that is at it is waited for. Interrupted, the same call goes on.

    Arguments:
        folder: The run folder.
        stacks: The trainings.
        seed: The seed of the run.
        device: Where they are trained.
        quiet: Whether to show no progress.
    """
    networks = folder / "networks"
    for k, stack in enumerate(stacks):
        while stack.missing(networks):
            mine = claim(folder / "claims" / f"together-{k}", inside=folder)
            if mine is None:
                time.sleep(WAIT)
                continue
            with mine:
                checkpoint = folder / "checkpoints" / f"together-{k}.safetensors"
                _train(stack, networks, checkpoint, seed, device, quiet)


def _train(
    stack: Stack, networks: Path, checkpoint: Path, seed: int, device: str, quiet: bool
) -> None:
    state, steps = stack.state(seed, device), stack.training.steps
    if not quiet:
        tried = stack.state(seed, device)

        def step() -> None:
            tried.advance()
            tried.check()  # waits for the device

        forecast = Forecast(steps * timed(step), state.num_bytes)
        say(f"{len(stack.members)} trainings together, {steps} steps: {forecast}")
    progress = Progress(steps, "training", quiet=quiet)
    for moment in train(state, max(1, steps // 20), checkpoint, stack.moments):
        progress.update(moment.step)
        if moment.step in stack.moments:
            for member, network in moment.networks():
                save_network(
                    network, stack.config, network_path(networks, member.name, moment.step)
                )
    progress.finish()
    checkpoint.unlink(missing_ok=True)
