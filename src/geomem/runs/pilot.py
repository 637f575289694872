r"""Pilot: a small sweep of the network that is planned, from which a larger one is predicted.

Its networks are those of the sweep to come (network, batch size, rate), trained on few images
and for a part of the steps. Beside each width stands a reference that never saw the measured
images, measured at the same steps: what both have not learned yet is no memory. What it
predicts is found by :mod:`geomem.findings.pilot`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar, Literal

from geomem.arguments import Number, Whole, checked
from geomem.data.source import DataOptions
from geomem.errors import InputError
from geomem.findings.pilot import MOST
from geomem.measure.study import Study
from geomem.measure.subject import Description
from geomem.models.train import Training
from geomem.runs.sweep import Sweep

SIZES = (32, 100, 300)  # of a pilot, where the pool is large enough
MOMENTS = (0.25, 0.5)  # of its steps, at which it is measured before the end
PART = 4  # one so many-th of the planned steps is what a pilot trains
LEVELS = 10  # of the window: a pilot asks for shares of all of it
LEAST_STEPS = 40  # below, an average of weights still holds the first ones


@checked
@dataclass(frozen=True)
class Pilot(Sweep):
    r"""Short trainings on few images, from which longer ones on more are predicted.

    Options are those of a sweep; ``steps`` are the pilot's own.

    Raises:
        InputError: If an option is out of its range.
    """

    planned_steps: Annotated[int, Whole(least=1)] | None = None
    """The steps of the training to come; four times those of the pilot if not given."""

    most: Annotated[float, Number(least=0.05, below=1.0)] | None = None
    """The memorized share that is small enough; .1 if not given."""

    kind: ClassVar[str] = "pilot"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None and self.steps < LEAST_STEPS:
            raise InputError(
                f"a pilot of {self.steps} steps says nothing; pass {LEAST_STEPS} or more"
            )

    @property
    def planned(self) -> Training:
        r"""The recipe of the training to come."""
        own = self.training
        return replace(own, steps=self.planned_steps or PART * own.steps)

    def study(self) -> Study:
        r"""That of a sweep, with the recipe that the prediction rests on.

        Raises:
            InputError: If the pool is too small, or cannot be used: see :class:`Sweep`.
        """
        study = super().study()
        rest, largest = len(study.content["reference"]), study.content["sizes"][-1]
        if rest < 2 * largest:
            raise InputError(
                f"`pilot_sizes` has N = {largest}, and {rest} images are left to train what it is "
                "compared with; pass sizes up to half of that"
            )
        own, planned = self.training, self.planned
        study.content["recipe"] = {
            "steps": own.steps,
            "planned_steps": planned.steps,
            "batch_size": own.batch_size,
            "learning_rate": own.learning_rate,
            "network": self.network_config.kind,
            "times": {str(k): own.time(k) for k in self._moments(largest)},
        }
        return study

    def subjects(self, study: Study) -> list[Description]:
        r"""The linear control, references by width and step, and networks."""
        found = super().subjects(study)
        return [subject for subject in found if subject.kind not in ("empirical", "population")]

    def _references(self, num_samples: int, largest: int) -> list[Description]:
        # As many as there are widths and moments.
        return [
            Description("reference", num_samples=num_samples, seed=self.seeds[0], step=k, width=w)
            for w in self.widths or (None,)
            for k in self._moments(largest)
        ]


@checked
@dataclass(frozen=True)
class PilotOptions:
    r"""The training to come, for a pilot: the network and for how long."""

    network: Literal["auto", "mlp", "unet"] = "auto"
    """With a pilot: the backbone, as for a sweep."""
    channels: tuple[Annotated[int, Whole(least=1)], ...] = (16, 32, 32)
    """With a pilot: channels of the U-Net at each resolution."""
    widths: tuple[Annotated[int, Whole(least=1)], ...] = ()
    """With a pilot: widths of the MLP; 256 if not given."""
    blocks: Annotated[int, Whole(least=1)] | None = None
    """With a pilot: residual blocks of the MLP; 3 if not given."""
    steps: Annotated[int, Whole(least=1)] | None = None
    """With a pilot: steps of the training to come; 6,000 of an MLP, 1,500 of a U-Net."""
    batch_size: Annotated[int, Whole(least=1)] | None = None
    """With a pilot: images a step; 128 of an MLP, 64 of a U-Net."""
    learning_rate: Annotated[float, Number(above=0.0)] = 1e-3
    """With a pilot: Adam's rate; linearly to 0 in the second half."""
    pilot_sizes: tuple[Annotated[int, Whole(least=8)], ...] = ()
    """Training-set sizes of the pilot; 32, 100, 300, or less where there are few images."""
    pilot_steps: Annotated[int, Whole(least=LEAST_STEPS)] | None = None
    """Steps of the pilot; a quarter of those to come if not given."""
    most: Annotated[float, Number(least=0.05, below=1.0)] = MOST
    """The memorized share that is small enough: until when to train, how many images?"""

    def pilot(self, data: DataOptions, seed: int) -> Pilot:
        r"""The pilot of this training.

        Arguments:
            data: The data.
            seed: The seed of split, order and noise.

        Raises:
            InputError: If there are too few images, or options do not go together.
        """
        given = {f.name: getattr(data, f.name) for f in fields(DataOptions)}
        names = ("network", "channels", "widths", "blocks", "batch_size", "learning_rate")
        given |= {name: getattr(self, name) for name in names}
        pool = len(Sweep(**given, seed=seed).source.split.pool)
        sizes = self.pilot_sizes or tuple(
            max(8, min(n, pool * n // (5 * SIZES[-1]))) for n in SIZES
        )
        if len(set(sizes)) < 2 or min(sizes) < 8:
            raise InputError(
                f"a pilot needs two sizes or more, of 8 images or more, and {pool} images are too "
                "few to leave others to compare with; pass `pilot_sizes`, or plan without"
            )
        planned = Sweep(**given, seed=seed, steps=self.steps).training.steps
        steps = self.pilot_steps or max(LEAST_STEPS, planned // PART)
        return Pilot(
            **given,
            seed=seed,
            sizes=tuple(sorted(sizes)),
            steps=steps,
            measured_steps=tuple(max(1, round(part * steps)) for part in MOMENTS),
            planned_steps=planned,
            most=self.most,
            control="reference",
            levels=LEVELS,
            jacobian_points=0,
            samples=0,
            trajectories=0,
        )
