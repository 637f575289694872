r"""Trainings of one network shape as one: every weight gets an axis of networks.

A step of a small network keeps an accelerator busy for microseconds and takes milliseconds to
launch. Networks that differ only in their images and seeds take the same step on a stack: their
losses are summed, and since no weight is shared, the gradient of the sum is each one's own. On
CUDA a step is recorded once as a graph, and replayed; it is compiled where there are many.

The recipe is that of :mod:`geomem.models.train`, and so are the initial weights; randomness is
drawn on the device that trains, so that networks trained together are not, digit by digit, those
that are trained one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from geomem.compute.files import atomic_write
from geomem.denoiser import expand
from geomem.errors import GeomemError
from geomem.models.networks import (
    LEVEL_MEAN,
    LEVEL_SPREAD,
    NetworkConfig,
    PreconditionedDenoiser,
)
from geomem.models.train import MOMENTS, Training, loss_weight, no_checkpoint
from geomem.stats import seed_sequence

WARM_UP = 3  # steps before a graph is recorded, as CUDA asks for
LONG = 50_000  # steps from which compiling a step is worth its seconds


@dataclass(frozen=True)
class Member:
    r"""One training of a stack.

    Arguments:
        name: Its name, for messages.
        data: Its training set, with shape :math:`(N, *)`.
        unit: The number of its seed: members of one seed share initial weights and draws.
    """

    name: str
    data: Tensor
    unit: int = 0


class StackedState:
    r"""All that the next step of all trainings depends on; a state of :func:`geomem.models.train`.

    Arguments:
        config: The networks, all of one shape.
        training: The recipe, the same for all.
        members: The trainings.
        seed: The seed of the run.
        device: Where to compute, and to draw.
    """

    def __init__(
        self,
        config: NetworkConfig,
        training: Training,
        members: Sequence[Member],
        *,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.config, self.training, self.members = config, training, members
        self.step, self.device = 0, torch.device(device)
        units = sorted({member.unit for member in members})
        first = {
            unit: int(seed_sequence(seed, "training", unit).generate_state(2)[0]) for unit in units
        }
        networks = [config.build(first[member.unit]) for member in members]
        self.weights = _on(stack_module_state(networks)[0], self.device, grad=True)
        self.average = _on(self.weights, self.device)
        self._network = config.build(0).to(self.device)
        # A tensor, so that a recorded step reads what it is now.
        self._rate = torch.tensor(training.learning_rate, device=self.device)
        self._optimizer = torch.optim.Adam(
            list(self.weights.values()),
            lr=self._rate if self._captures else training.learning_rate,
            fused=True,
            capturable=self._captures,
        )
        self._draws = _Draws(config, training, members, units, seed, self.device)
        self._losses = torch.zeros(len(members), device=self.device)
        self._losses_of = self._loss
        if self._captures and training.steps >= LONG:
            self._losses_of = torch.compile(self._loss)
        self._replay: Callable[[], None] | None = None

    @property
    def _captures(self) -> bool:
        return self.device.type == "cuda"

    def advance(self) -> None:
        r"""One step of every training.

        Raises:
            GeomemError: If a loss is not finite; looked at a hundred times in all, since every
                look waits for the device.
        """
        rate = self.training.rate(self.step)
        self._rate.fill_(rate)
        if not self._captures:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
        if self._captures and self._replay is None and self.step >= WARM_UP:
            self._replay = self._recorded()
        (self._replay or self._step)()
        self.step += 1
        if self.step % max(1, self.training.steps // 100) == 0:
            self.check()

    def _step(self) -> None:
        self._draws.next()
        self._optimizer.zero_grad()
        losses = self._losses_of()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        with torch.no_grad():
            self._losses.copy_(losses)
            moved = list(self.weights.values())
            torch._foreach_lerp_(list(self.average.values()), moved, 1 - self.training.ema_decay)

    def _loss(self) -> Tensor:
        def one(weights: dict[str, Tensor], x_0: Tensor, s: Tensor, z: Tensor) -> Tensor:
            sigma_data = self._network.sigma_data
            sigma = s * sigma_data
            denoised = functional_call(
                self._network, weights, (x_0 + expand(sigma, x_0) * z, sigma)
            )
            error: Tensor = (denoised - x_0).square().flatten(1).mean(1)
            return (loss_weight(s, sigma_data) * error).mean()

        found: Tensor = vmap(one)(self.weights, *self._draws.batch())
        return found

    def _recorded(self) -> Callable[[], None]:
        # Buffers and weights stay where they are in memory: a replay reads and writes them.
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._draws.generator)
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay

    @property
    def num_bytes(self) -> float:
        r"""Bytes that the stack takes, roughly: four of each weight, and what a step computes."""
        weights = sum(w.numel() for w in self.weights.values())
        width = max(self.config.width, 32)
        values = (
            len(self.members) * self.training.batch_size * width * 12 * (2 + self.config.blocks)
        )
        return 4.0 * (4 * weights + values + self._draws.num_values)

    def check(self) -> None:
        r"""Waits for the device, and looks whether all losses are finite.

        Raises:
            GeomemError: If one is not; it names the training.
        """
        wrong = (~torch.isfinite(self._losses)).nonzero().flatten().tolist()
        if wrong:
            raise GeomemError(
                f"the training of {self.members[wrong[0]].name} diverged before step {self.step}; "
                "lower the learning rate"
            )

    def networks(self) -> Iterator[tuple[Member, PreconditionedDenoiser]]:
        r"""Each training with the network of its averaged weights, on the CPU, to be evaluated."""
        for k, member in enumerate(self.members):
            network = self.config.build(0)
            network.load_state_dict({name: w[k].cpu() for name, w in self.average.items()})
            yield member, network.requires_grad_(False).eval()

    # ------------------------------------------------------------------ to and from disk

    def save(self, path: Path) -> None:
        r"""Writes the state whole; trainings that go on from it take the same steps."""
        tensors = {"step": torch.tensor(self.step), "rng": self._draws.generator.get_state()}
        for name, weight in self.weights.items():
            tensors |= {f"weights.{name}": weight, f"average.{name}": self.average[name]}
            moments = self._optimizer.state.get(weight, {})
            tensors |= {f"adam.{k}.{name}": value for k, value in moments.items()}
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        atomic_write(path, lambda p: save_file(plain, p))

    @torch.no_grad()
    def load(self, path: Path) -> None:
        r"""Goes back to a saved state.

        Raises:
            InputError: If the file is damaged or belongs to other trainings.
            FileNotFoundError: If there is none.
        """
        try:
            tensors = load_file(path)
            for name, weight in self.weights.items():
                if tensors[f"weights.{name}"].shape != weight.shape:
                    raise no_checkpoint(path)
                weight.copy_(tensors[f"weights.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                moments = {k: tensors.get(f"adam.{k}.{name}") for k in MOMENTS}
                on = self.device if self._captures else "cpu"
                self._optimizer.state[weight] = {
                    k: v.to(on if k == "step" else self.device)
                    for k, v in moments.items()
                    if v is not None
                }
            self._draws.generator.set_state(tensors["rng"])
            self.step = int(tensors["step"])
        except FileNotFoundError:
            raise  # none is none, not a damaged one
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise no_checkpoint(path) from error


def _on(
    tensors: dict[str, Tensor], device: torch.device, *, grad: bool = False
) -> dict[str, Tensor]:
    return {k: v.detach().to(device, copy=True).requires_grad_(grad) for k, v in tensors.items()}


class _Draws:
    # What a step draws, in buffers that stay where they are. All members of a seed draw the same
    # levels and noise, and the same place in their training set.

    def __init__(
        self,
        config: NetworkConfig,
        training: Training,
        members: Sequence[Member],
        units: Sequence[int],
        seed: int,
        device: torch.device,
    ) -> None:
        number = int(seed_sequence(seed, "stacked training", 0).generate_state(1)[0])
        self.generator = torch.Generator(device).manual_seed(number)
        counts = torch.tensor([len(member.data) for member in members])
        self._images = torch.cat([member.data for member in members]).to(device)
        self._counts = counts.to(device)
        self._first = (counts.cumsum(0) - counts).to(device)
        self._unit = torch.tensor([units.index(m.unit) for m in members], device=device)
        shape = (len(units), training.batch_size)
        self._place = torch.empty(shape, device=device, dtype=torch.float64)
        self._level = torch.empty(shape, device=device)
        self._noise = torch.empty(*shape, *config.item_shape, device=device)

    @property
    def num_values(self) -> int:
        return self._images.numel() + 3 * len(self._unit) * self._noise[0].numel()

    def next(self) -> None:
        self._place.uniform_(generator=self.generator)
        self._level.normal_(generator=self.generator)
        self._noise.normal_(generator=self.generator)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        # Images, levels in units of the data's deviation, and noise, each of every member.
        count = self._counts[:, None]
        rows = (self._place[self._unit] * count).long().clamp(max=count - 1)
        s = (LEVEL_SPREAD * self._level + LEVEL_MEAN).exp()
        images = self._images[rows + self._first[:, None]]
        return images, s[self._unit], self._noise[self._unit]
