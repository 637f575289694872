r"""Rows of numbers: the subjects of a run, trainings that differ in their seed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geomem.measure.subject import NETWORKS

NAMED = ("model", "base", "mirror")


@dataclass(frozen=True)
class Row:
    r"""One row of numbers: the trainings of one recipe.

    Attributes:
        kind: The kind of its subjects.
        label: What to call it.
        members: The positions of its subjects in the dataset, by seed.
        num_samples: What is known of all of them, NaN where it is not; so ``step``, ``width``,
            ``part``.
        seeds: The seeds of its trainings, where they have some.
    """

    kind: str
    label: str
    members: tuple[int, ...]
    num_samples: float
    step: float
    width: float
    part: float = np.nan
    seeds: tuple[int, ...] = ()

    @property
    def unit(self) -> int:
        r"""What seeds the resampling of its training images: subsets of one size share it."""
        return 0 if np.isnan(self.num_samples) else int(self.num_samples)


def rows_of(dataset: xr.Dataset) -> list[Row]:
    r"""The finished subjects, trainings that differ in their seed together.

    Networks come first, from few training images to many and from early steps to late ones.
    """
    groups: dict[Key, list[int]] = {}
    for k in np.flatnonzero(dataset["measured"].values):
        n, step, width, part, seed = (
            float(dataset[name].values[k])
            for name in ("num_samples", "step", "width", "part", "seed")
        )
        kind = str(dataset["kind"].values[k])
        label = str(dataset["label"].values[k]) if np.isnan(seed) else ""
        n, step, width, part = (-1.0 if np.isnan(v) else v for v in (n, step, width, part))
        key: Key = (kind, label, n, step, width, part)
        groups.setdefault(key, []).append(int(k))
    last: dict[tuple[str, str, float, float], float] = {}
    for kind, label, n, step, width, _ in groups:
        recipe = (kind, label, n, width)
        last[recipe] = max(last.get(recipe, -1.0), step)
    several = len({(kind, width) for kind, _, _, _, width, _ in groups if width >= 0}) > 1
    rows = []
    for (kind, label, n, step, width, part), members in groups.items():
        # The last step goes without saying, and so does a width that all share.
        early = step < last[kind, label, n, width]
        says = [("N", n, True), ("width", width, several), ("part", part, part > 0)]
        says += [("step", step, early)]
        name = ", ".join(f"{k} = {int(v)}" for k, v, said in says if v >= 0 and said)
        known = (np.nan if v < 0 else v for v in (n, step, width, part))
        found = dataset["seed"].values[members]
        seeds = tuple(int(s) for s in found if not np.isnan(s))
        size, at_step, wide, of_part = known
        name = label if kind in NAMED else name  # a stranger is called by its name, not by N
        title = name or label or kind
        rows.append(Row(kind, title, tuple(members), size, at_step, wide, of_part, seeds))
    return sorted(rows, key=_place)


Key = tuple[str, str, float, float, float, float]


def _place(row: Row) -> tuple[float, ...]:
    values = (row.num_samples, row.width, 0.0 if np.isnan(row.part) else row.part, row.step)
    return (
        row.kind not in NETWORKS,
        row.kind != "model",
        *(np.inf if np.isnan(v) else v for v in values),
    )


def row_coordinates(rows: Sequence[Row]) -> dict[str, object]:
    names = ("kind", "label", "num_samples", "step", "width", "part")
    kinds = (object, object, *[float] * 4)
    columns = {
        name: ("subject", np.array([getattr(r, name) for r in rows], dtype=kind))
        for name, kind in zip(names, kinds, strict=True)
    }
    trainings = np.array([len(row.members) for row in rows])
    seeds = np.array([" ".join(map(str, row.seeds)) for row in rows], dtype=object)
    return {
        "subject": np.arange(len(rows)),
        **columns,
        "trainings": ("subject", trainings),
        "seeds": ("subject", seeds),
    }
