r"""Subjects: the denoisers that a run measures, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor

from geomem.arguments import Text, Whole, checked
from geomem.denoiser import Denoiser

# What may be known of a subject, and how it is written in a sentence.
KNOWN = {"num_samples": "N", "width": "width", "part": "part", "seed": "seed", "step": "step"}
NETWORKS = ("learned", "model", "base", "reference")
Count = Annotated[int, Whole(least=0)]


@checked
@dataclass(frozen=True)
class Description:
    r"""What is known of a subject: nothing that takes its denoiser to say.

    Attributes:
        kind: population, empirical or linear; learned, reference, model, base, or mirror.
        num_samples: The size of its training set, where there is one.
        seed: The seed of its training, where there was one.
        step: The step of its training.
        width: The width of its network, where widths are compared.
        label: A name for people, where the rest would not tell it apart.
        part: Which of the disjoint parts of the pool it was trained on, where there are some: 0
            is the part that holds the measured training images.
    """

    kind: Annotated[str, Text()]
    num_samples: Count | None = None
    seed: Count | None = None
    step: Count | None = None
    width: Count | None = None
    label: str = ""
    part: Count | None = None

    def to_json(self) -> dict[str, Any]:
        r"""Its fields that are known, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @property
    def training(self) -> Description:
        r"""The training that it is a moment of: all but the step."""
        return Description(**{**asdict(self), "step": None})

    def __str__(self) -> str:
        found = [(short, getattr(self, name)) for name, short in KNOWN.items()]
        silent = ("seed", "part")  # the first ones go without saying
        parts = [f"{k} = {v}" for k, v in found if v is not None and (k not in silent or v)]
        return ", ".join([self.label or self.kind, *parts])


@dataclass(frozen=True, eq=False)
class Subject:
    r"""A denoiser that is ready to be measured.

    Attributes:
        description: What is known of it.
        denoiser: The denoiser.
        dtype: The dtype of the points it is asked at: a network's own, float64 if exact.
        device: Where it lives.
        training: The numbers of its training images in the data; those of the study's training
            points that are not among them are not measured. All are, if not given.
        cache: What probes have made of it and other probes need, such as its samples.
        bind: From numbers of images in the data to the denoiser of noised points of just these
            images, under the captions or labels that they were trained with; None where there
            are no such conditions.
        updates: Of a network whose weights were updated: called, it gives of each module its
            name, the weights before and what was added, both with shape (out, in).
    """

    description: Description
    denoiser: Denoiser
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    training: Sequence[int] | None = None
    cache: dict[str, Any] = field(default_factory=dict)
    bind: Callable[[Sequence[int]], Denoiser] | None = None
    updates: Callable[[], Iterable[tuple[str, Tensor, Tensor]]] | None = None

    def at(self, numbers: Sequence[int]) -> Denoiser:
        r"""The denoiser at points of these images of the data, one a point, or one for all."""
        return self.denoiser if self.bind is None else self.bind(numbers)
