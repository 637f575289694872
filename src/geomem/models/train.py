r"""Training as a generator of states: stop anywhere, go on exactly.

The recipe is the same for every training-set size, so that size is what differs: EDM's
loss at levels drawn as ``ln(sigma / rms) ~ N(-1, 1.4²)`` and weighted with ``(1 + s²)/s²``,
Adam at a constant rate and linearly to 0 in the second half, an exponential moving average
of the weights with a half-life of 5 % of the steps.

References:
    | Karras et al., Elucidating the design space, arXiv 2206.00364
"""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from geomem.compute.files import atomic_write
from geomem.denoiser import expand
from geomem.errors import GeomemError, InputError
from geomem.models.networks import LEVEL_MEAN, LEVEL_SPREAD, NetworkConfig
from geomem.stats import seed_sequence

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what Adam keeps of a weight
SECONDS = 1.0  # between two checkpoints: a short training need not write any


@dataclass(frozen=True)
class Training:
    r"""The training recipe.

    Arguments:
        steps: How many steps: of a fixed number, never of seconds.
        batch_size: Images a step, drawn with replacement.
        learning_rate: Adam's rate in the first half.
        ema_half_life: Half-life of the averaged weights, as a share of the steps.
        mixed_precision: bf16 computes the backbone's products in bfloat16, with weights, their
            average and the loss in float32; all in float32 if not given.
    """

    steps: int = 6000
    batch_size: int = 128
    learning_rate: float = 1e-3
    ema_half_life: float = 0.05
    mixed_precision: Literal["bf16"] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise InputError("training needs steps >= 1, batch size >= 1 and a rate above 0")

    def rate(self, step: int) -> float:
        r"""Adam's rate at a step: constant, then linear to 0 in the second half."""
        left = 2 * (1 - step / self.steps)
        return self.learning_rate * min(1.0, left)

    @property
    def ema_decay(self) -> float:
        return float(0.5 ** (1 / max(1.0, self.ema_half_life * self.steps)))

    def time(self, step: int) -> float:
        r"""How many steps at the full rate lie behind the averaged weights of a step.

        A step at half the rate counts half, and the average lags behind: of trainings of
        different length the same step is not the same time.

        Example:
            >>> [round(Training(steps=1000).time(step)) for step in (250, 500, 1000)]
            [181, 428, 740]
        """
        rates = np.minimum(1.0, 2 * (1 - np.arange(step) / self.steps))
        weights = self.ema_decay ** np.arange(step - 1, -1, -1)
        return float((1 - self.ema_decay) * (weights @ rates.cumsum()))


class TrainState:
    r"""All that the next step depends on: weights, their average, Adam's moments, randomness.

    Arguments:
        config: The network.
        training: The recipe.
        data: The training set, with shape :math:`(N, *)`.
        seed: The seed of the run.
        unit: The number of this training; with ``seed`` it determines every draw.
        device: Where to compute. Randomness is drawn on the CPU in any case.
    """

    def __init__(
        self,
        config: NetworkConfig,
        training: Training,
        data: Tensor,
        *,
        seed: int,
        unit: int = 0,
        device: str = "cpu",
    ) -> None:
        numbers = seed_sequence(seed, "training", unit).generate_state(2)
        self.training, self.data, self.step, self.device = training, data, 0, device
        self.denoiser = config.build(int(numbers[0])).to(device)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False).eval()
        self.parameters: list[Tensor] = list(self.denoiser.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=training.learning_rate, fused=True)
        self.rng = torch.Generator().manual_seed(int(numbers[1]))
        self.loss = float("nan")

    def advance(self) -> None:
        r"""One step of training.

        Raises:
            GeomemError: If the loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.rate(self.step)
        self.optimizer.zero_grad()
        loss = self._loss()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = self._total(loss.detach())
        self.optimizer.step()
        self._update_average()
        self.step += 1
        self.loss = float(loss)
        if not self.loss < float("inf"):
            raise GeomemError(
                f"training diverged at step {self.step} (loss {self.loss}); lower the learning rate"
            )

    def _rows(self) -> slice:
        # The part of each batch that this process computes.
        return slice(0, self.training.batch_size)

    def _total(self, loss: Tensor) -> Tensor:
        # The loss of the whole batch, once gradients are those of the whole batch.
        return loss

    def _loss(self) -> Tensor:
        size, own = self.training.batch_size, self._rows()
        rows = torch.randint(len(self.data), (size,), generator=self.rng)
        s = (LEVEL_SPREAD * torch.randn(size, generator=self.rng) + LEVEL_MEAN).exp()
        z = torch.randn(size, *self.data.shape[1:], generator=self.rng)
        x_0, s, z = self.data[rows[own]].to(self.device), s[own], z[own].to(self.device)
        sigma_data = self.denoiser.sigma_data
        sigma = (s * sigma_data).to(self.device)
        half = self.training.mixed_precision == "bf16"
        with torch.autocast(x_0.device.type, torch.bfloat16, enabled=half):
            denoised = self.denoiser(x_0 + expand(sigma, x_0) * z, sigma)
        error = denoised - x_0
        weight = loss_weight(s, sigma_data).to(self.device)
        loss: Tensor = (weight * error.square().flatten(1).mean(1)).mean()
        return loss

    @torch.no_grad()
    def _update_average(self) -> None:
        averages: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(averages, self.parameters, 1 - self.training.ema_decay)

    # ------------------------------------------------------------------ to and from disk

    def save(self, path: Path) -> None:
        r"""Writes the state whole; a training that goes on from it takes the same steps."""
        atomic_write(path, lambda p: save_file(self.tensors(), p))

    def load(self, path: Path) -> None:
        r"""Goes back to a saved state.

        Raises:
            InputError: If the file is damaged or belongs to another network.
            FileNotFoundError: If there is none.
        """
        try:
            self.restore(load_file(path))
        except FileNotFoundError:
            raise  # none is none, not a damaged one
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise no_checkpoint(path) from error

    def restore(self, tensors: dict[str, Tensor]) -> None:
        r"""Goes back to the state that :meth:`tensors` gave.

        Raises:
            KeyError: If one is missing.
            RuntimeError: If one is that of another network.
        """
        self.step = int(tensors["step"])
        self.rng.set_state(tensors["rng"])
        for name, module in (("weights", self.denoiser), ("average", self.average)):
            prefix = f"{name}."
            part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            module.load_state_dict(part)
        self._load_moments(tensors)

    def tensors(self) -> dict[str, Tensor]:
        r"""All of the state, by name, on the CPU."""
        tensors = {"step": torch.tensor(self.step), "rng": self.rng.get_state()}
        for name, module in (("weights", self.denoiser), ("average", self.average)):
            tensors |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
        for k, parameter in enumerate(self.parameters):
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"adam.{k}.{name}": value for name, value in moments.items()}
        return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}

    def _load_moments(self, tensors: dict[str, Tensor]) -> None:
        for k, parameter in enumerate(self.parameters):
            if self.step > 0:
                moments = {n: tensors[f"adam.{k}.{n}"] for n in MOMENTS}
                # Its count of steps, too, is where a fused optimizer computes.
                self.optimizer.state[parameter] = {n: v.to(self.device) for n, v in moments.items()}


class Trainable(Protocol):
    r"""What :func:`train` needs of a state: of one training, or of many together."""

    step: int
    training: Training

    def advance(self) -> None: ...
    def save(self, path: Path) -> None: ...
    def load(self, path: Path) -> None: ...


State = TypeVar("State", bound=Trainable)


def train(
    state: State, every: int, checkpoint: Path | None = None, moments: Collection[int] = ()
) -> Iterator[State]:
    r"""Trains to the end, and yields the state every so many steps and at the end.

    Arguments:
        state: The state to start from.
        every: How many steps between two yields.
        checkpoint: A file that is gone on from if it is there. It is written before a yield,
            if the last time was :data:`SECONDS` ago or longer.
        moments: Further steps at which it is yielded.
    """
    wanted, kept = {*moments, state.training.steps}, time.monotonic()
    if checkpoint is not None and _went_on(state, checkpoint):
        yield state  # what was interrupted may be what its user does with this very state
    while state.step < state.training.steps:
        state.advance()
        if state.step % every == 0 or state.step in wanted:
            if checkpoint is not None and time.monotonic() - kept >= SECONDS:
                state.save(checkpoint)
                kept = time.monotonic()
            yield state


def _went_on(state: Trainable, checkpoint: Path) -> bool:
    # Another process that does the same training may take its checkpoint away at any time.
    try:
        state.load(checkpoint)
    except FileNotFoundError:
        return False
    return True


def checkpoint_step(path: Path) -> int:
    r"""The step at which a checkpoint was written; 0 if there is none.

    Raises:
        InputError: If the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return int(file.get_tensor("step"))
    except FileNotFoundError:
        return 0
    except (OSError, SafetensorError) as error:
        raise no_checkpoint(path) from error


def loss_weight(s: Tensor, sigma_data: float) -> Tensor:
    r"""EDM's weight of a squared error, by the level in units of the data's deviation."""
    return (1 + s**2) / s**2 / sigma_data**2


def no_checkpoint(path: Path) -> InputError:
    r"""What is said of a file that no training goes on from."""
    return InputError(f"{path} is not a checkpoint of this training; delete it")
