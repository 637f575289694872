r"""The study: what will be measured of every subject, written down before anything is.

Points, levels, draws, directions and probes are decided once. Every process, today's or next
year's, reads them from the study and recomputes only what has one answer. Noise is drawn for
each image on its own and is the same for every denoiser, every training-set size and every
level: differences between denoisers are then paired, and images stay independent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
import xarray as xr
from torch import Tensor

from geomem.data.source import Source
from geomem.errors import InputError
from geomem.measure.subject import Subject
from geomem.noise import check_levels
from geomem.stats import torch_rng
from geomem.subspaces import PrincipalDirections

Report = Callable[[float], None]
# The kinds of points that there may be, in the order in which they are shown.
KINDS = ("training", "held_out", "reserved", "generated", "trajectory", "fixed")


class Probe(Protocol):
    r"""One question to a subject: a frozen dataclass, so that a study can write it down.

    ``geomem.testing.check_probe`` checks one of your own.
    """

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks.

        Arguments:
            subject: The denoiser in question.
            study: Points, levels and noise.
            report: Called with the share that is done, from 0 to 1.

        Returns:
            Its answers, each variable with ``long_name`` and ``units``; a function of subject
            and study alone. Nothing where the question makes no sense for this subject.
        """


@dataclass(frozen=True, eq=False)
class Study:
    r"""What will be measured of every subject.

    Attributes:
        content: All of it as plain JSON values, as ``study.json`` holds it.
        directions: The principal directions of the reserved images.
        images: The clean points by kind (training, held_out, ...), each with shape
            :math:`(P, *)`.
        source: The data behind them, where there are any.
    """

    content: dict[str, Any]
    directions: PrincipalDirections
    images: Mapping[str, Tensor]
    source: Source | None = None

    @cached_property
    def sigmas(self) -> Tensor:
        r"""The noise levels in the data's units, increasing, with shape :math:`(T)`."""
        return torch.tensor(self.content["sigmas"], dtype=torch.float64)

    @property
    def rms(self) -> float:
        r"""Root-mean-square deviation per coordinate of the reserved images."""
        return float(self.content["rms"])

    @property
    def draws(self) -> int:
        return int(self.content["draws"])

    @property
    def seed(self) -> int:
        return int(self.content["seed"])

    @property
    def item_shape(self) -> tuple[int, ...]:
        return tuple(self.content["data"]["item_shape"])

    @property
    def width(self) -> int:
        r"""How many points a record has room for."""
        return max(map(len, self.content["points"].values()))

    @property
    def digest(self) -> str:
        r"""The sha256 of the content."""
        return digest_of(self.content)

    def points(self, subject: Subject) -> dict[str, Tensor]:
        r"""The clean points at which a subject is measured, by kind, each (P, \*)."""
        found = {at: x.to(subject.device, subject.dtype) for at, x in self.images.items()}
        if subject.training is not None and "training" in found:
            own = set(subject.training)
            among = [int(i) in own for i in self.content["points"]["training"]]
            first = among.index(False) if False in among else len(among)
            if any(among[first:]):
                raise InputError(
                    f"training images of {subject.description} are not the first of the study's "
                    "training points; list the points that all subjects know first"
                )
            found["training"] = found["training"][:first]
        return {at: x for at, x in found.items() if len(x)}

    def noise(self, at: str, count: int) -> Tensor:
        r"""Noise of the first images of a kind, with shape (count, draws, \*), in float32."""
        # Kept: every subject is asked at the same noise, and one a moment in a training.
        if (at, count) not in self._noise:
            self._noise[at, count] = torch.stack([self.noise_of(at, i) for i in range(count)])
        return self._noise[at, count]

    @cached_property
    def _noise(self) -> dict[tuple[str, int], Tensor]:
        return {}

    def noise_of(self, at: str, index: int) -> Tensor:
        r"""Noise of one image of a kind, with shape (draws, \*), in float32."""
        rng = torch_rng(self.seed, f"noise/{at}", index)
        return torch.randn(self.draws, *self.item_shape, generator=rng)


def digest_of(content: Mapping[str, Any]) -> str:
    r"""The sha256 of JSON values, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def make_study(
    images: Mapping[str, Tensor],
    *,
    directions: PrincipalDirections,
    sigmas: Tensor,
    probes: Sequence[Probe],
    rms: float,
    draws: int = 4,
    seed: int = 0,
    control: str = "linear",
    points: Mapping[str, Sequence[int]] | None = None,
    source: Source | None = None,
    more: Mapping[str, Any] | None = None,
) -> Study:
    r"""Writes a study.

    Arguments:
        images: Clean points by kind, each with shape :math:`(P, *)`.
        directions: The principal directions of the reserved images.
        sigmas: The noise levels in the data's units, increasing, with shape :math:`(T)`.
        probes: What is asked.
        rms: The unit of noise: root-mean-square deviation per coordinate.
        draws: Noise draws for each image.
        seed: The seed of the noise and of what probes draw.
        control: The kind of the subject that others are compared with.
        points: The numbers of the points in the data; 0, 1, ... of each kind if not given.
        source: The data behind them.
        more: Further JSON values that belong to the study.

    Raises:
        InputError: If there is no point, or a level is not above 0.
    """
    if not images or not all(len(x) for x in images.values()):
        raise InputError("a study needs at least one point of each kind that it names")
    check_levels(sigmas)
    numbers = points or {at: list(range(len(x))) for at, x in images.items()}
    shape = next(iter(images.values())).shape[1:]
    data: dict[str, Any] = {"name": "points", "digest": "", "quantum": 0.0}
    content = {
        "schema_version": 2,
        "data": {**data, "item_shape": list(shape), "ambient_dim": int(shape.numel())},
        "points": {at: [int(i) for i in index] for at, index in numbers.items()},
        "point_groups": {at: [int(i) for i in index] for at, index in numbers.items()},
        "point_names": {at: [str(i) for i in index] for at, index in numbers.items()},
        "sigmas": [float(s) for s in sigmas],
        "window": [float(sigmas[0]), float(sigmas[-1])],
        "rms": float(rms),
        "draws": int(draws),
        "seed": int(seed),
        "control": control,
        "direction_counts": directions.counts,
        "direction_variances": directions.mean_variances,
        "probes": [describe(probe) for probe in probes],
        **(more or {}),
    }
    return Study(content, directions, images, source)


def describe(probe: Probe) -> dict[str, Any]:
    r"""A probe as plain JSON values: its class, and its fields.

    Raises:
        InputError: If it is no dataclass of values that JSON can hold.
    """
    where = f"{type(probe).__module__}:{type(probe).__qualname__}"
    try:
        fields = json.loads(json.dumps(asdict(probe), allow_nan=False))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where} cannot be written into a study ({error}); make it a frozen dataclass of "
            "numbers, texts and tuples"
        ) from error
    return {"probe": where, **fields}
