r"""Recipes: how the networks of a sweep are trained, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from geomem.arguments import Number, Whole, checked
from geomem.errors import InputError
from geomem.runs.design import Size


@checked
@dataclass(frozen=True)
class TrainOptions:
    r"""How networks are trained: the same recipe for every N."""

    sizes: tuple[Size, ...] = (32, 128, 512, "all")
    """Training-set sizes N, nested: the images of a smaller one are in every larger one."""
    steps: Annotated[int, Whole(least=1)] | None = None
    """Training steps: the same number for every N; 6,000 of an MLP, 1,500 of a U-Net."""
    epochs: Annotated[float, Number(above=0.0)] | None = None
    """Instead of steps: as many passes over the images for every N, epochs x N / batch size
    steps; the reference is trained as long as the largest N."""
    batch_size: Annotated[int, Whole(least=1)] | None = None
    """Images a step; 128 of an MLP, 64 of a U-Net."""
    learning_rate: Annotated[float, Number(above=0.0)] = 1e-3
    """Adam's rate; linearly to 0 in the second half."""
    seeds: tuple[Annotated[int, Whole(least=0)], ...] = (0,)
    """Seeds of the training; several give an error over trainings."""
    measured_steps: tuple[Annotated[int, Whole(least=1)], ...] = ()
    """Earlier steps at which networks are measured, too."""
    measured_epochs: tuple[Annotated[float, Number(above=0.0)], ...] = ()
    """Earlier epochs at which networks are measured, where epochs are given."""
    network: Literal["auto", "mlp", "unet"] = "auto"
    """The backbone; auto takes an MLP up to 256 coordinates, a U-Net for larger images."""
    channels: tuple[Annotated[int, Whole(least=1)], ...] = (16, 32, 32)
    """Channels of the U-Net at each resolution."""
    widths: tuple[Annotated[int, Whole(least=1)], ...] = ()
    """Widths of the MLP, each trained at every N; 256 if not given."""
    blocks: Annotated[int, Whole(least=1)] | None = None
    """Residual blocks of the MLP; 3 if not given."""
    mixed_precision: Literal["bf16"] | None = None
    """bf16 trains with products in bfloat16, faster where the machine has them; measuring is
    in float32 in any case."""
    together: bool = False
    """Train all MLPs of one width as one stack: where a step of one network leaves a device idle,
    as on an accelerator, many take little longer than one."""
    control: Literal["auto", "population", "reference", "linear"] = "auto"
    """What networks are compared with: auto takes the population where it is known, else a
    reference network that never saw the measured images where the pool allows it, else the
    linear control."""
    disjoint: Annotated[int, Whole(least=1)] = 1
    """How many networks are trained on disjoint parts of the pool for each N: two tell which
    share of the excess is variance. N too large for that are trained once."""

    def check_budget(self) -> None:
        r"""Refuses a training whose length is not said once, or not one for all.

        Raises:
            InputError: If steps and epochs are both given, or are measured after the end, or
                trainings of different length are to be one stack.
        """
        if self.together and (self.epochs is not None or self.mixed_precision is not None):
            raise InputError(
                "`together` trains all N for the same number of steps, in float32; leave out "
                "`epochs` and `mixed_precision`"
            )
        if self.epochs is None:
            if self.measured_epochs:
                raise InputError("`measured_epochs` needs `epochs`; pass `measured_steps`, or both")
            late = [step for step in self.measured_steps if self.steps and step >= self.steps]
            if late:
                raise InputError(f"`measured_steps` has {late[0]}; pass steps below {self.steps}")
            return
        if self.steps is not None:
            raise InputError(
                "pass `steps` or `epochs`, not both: every N is trained for the same number of "
                "steps, or of passes over its images"
            )
        if self.measured_steps:
            raise InputError(
                "`measured_steps` are not the same moment of every N where `epochs` are given; "
                "pass `measured_epochs`"
            )
        after = [e for e in self.measured_epochs if e >= self.epochs]
        if after:
            raise InputError(
                f"`measured_epochs` has {after[0]:g}; pass epochs below {self.epochs:g}"
            )

    def steps_after(self, epochs: float, num_samples: int, batch_size: int) -> int:
        r"""The steps that so many passes over N images take, at least 1.

        Example:
            >>> TrainOptions().steps_after(10, num_samples=100, batch_size=64)
            16
        """
        return max(1, math.ceil(epochs * num_samples / batch_size))
