r"""Data-parallel training: one network on several ranks, each with a device of its own.

Every rank draws the whole batch from the same generator and takes its own rows. With a loss that
is the mean over B rows, of which rank r has the share :math:`B_r`, its gradient is a sum of parts,

.. math:: \nabla L = \sum_r \frac{B_r}{B} \nabla L_r,

so that all ranks take the step of one process up to the rounding of another order of the same
sums, whatever their number and whether it divides B. Weights stay the same, bit for bit, on all:
they begin so, and each takes the same step by the same sum. So rank 0 alone saves and measures,
and what one number of ranks has begun another one goes on with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geomem.compute.progress import say
from geomem.compute.ranks import AGAIN, Ended, Ranks, following, leads
from geomem.compute.threads import one_thread
from geomem.errors import GeomemError
from geomem.models.networks import NetworkConfig
from geomem.models.train import Training, TrainState


@dataclass(frozen=True)
class Order:
    r"""A training that all ranks do.

    Attributes:
        config: The network.
        training: The recipe.
        data: The training set, with shape :math:`(N, *)`.
        tensors: The state that it begins with, as a checkpoint holds it.
    """

    config: NetworkConfig
    training: Training
    data: Tensor
    tensors: dict[str, Tensor]


class SharedState(TrainState):
    r"""A state whose steps all ranks take together; rank 0 tells the others before its first one.

    Arguments:
        ranks: This process among all.
        config: The network.
        training: The recipe.
        data: The training set, with shape :math:`(N, *)`.
        more: The seed, the unit and the device: see :class:`TrainState`.
    """

    def __init__(
        self, ranks: Ranks, config: NetworkConfig, training: Training, data: Tensor, **more: Any
    ) -> None:
        super().__init__(config, training, data, **more)
        self.config, self.ranks, self._told = config, ranks, ranks.rank > 0

    def advance(self) -> None:
        r"""One step of training, on all ranks.

        Raises:
            GeomemError: If the loss is not finite, or a rank is lost.
        """
        if not self._told:
            order = Order(self.config, self.training, self.data, self.tensors())
            self.ranks.order(self.device, order)
            self._told = True
        super().advance()

    def _rows(self) -> slice:
        size, K, r = self.training.batch_size, self.ranks.count, self.ranks.rank
        return slice(size * r // K, size * (r + 1) // K)

    def _loss(self) -> Tensor:
        first, last = self._rows().start, self._rows().stop
        part: float = (last - first) / self.training.batch_size
        return super()._loss() * part

    def _total(self, loss: Tensor) -> Tensor:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.ranks.add([*gradients, loss])
        return loss


def new_state(config: NetworkConfig, training: Training, data: Tensor, **more: Any) -> TrainState:
    r"""The state before the first step: of all ranks where there are several, else of this process.

    Arguments:
        config: The network.
        training: The recipe.
        data: The training set, with shape :math:`(N, *)`.
        more: The seed, the unit and the device: see :class:`TrainState`.
    """
    ranks = leads()
    if ranks is None:
        return TrainState(config, training, data, **more)
    return SharedState(ranks, config, training, data, **more)


def follow(ranks: Ranks) -> int:
    r"""Does what rank 0 wants done, until it ends; returns its exit status."""
    try:
        with following(), one_thread():
            for device, order in ranks.orders():
                state = SharedState(
                    ranks, order.config, order.training, order.data, seed=0, device=device
                )
                state.restore(order.tensors)
                while state.step < order.training.steps:
                    state.advance()
    except Ended as end:
        ranks.leave()
        if end.status is None:
            say(f"rank {ranks.rank}: rank 0 is lost; {AGAIN}")
        return 1 if end.status is None else end.status
    except Exception as error:
        known = isinstance(error, GeomemError)
        why = str(error) if known else f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ranks.fail(why)  # rank 0 says it
        if os.environ.get("GEOMEM_DEBUG"):
            raise
        return error.exit_status if isinstance(error, GeomemError) else 1
    raise AssertionError("orders end with rank 0")
