r"""What the page shows one by one: directions, samples and the most memorized images.

Pixels of the data come in only where they are asked for. Principal directions are means over
many images and belong to none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

from geomem.findings.openings import LEAST, openings
from geomem.findings.rows import rows_of
from geomem.findings.sentences import estimate
from geomem.measure.copies import LEVEL
from geomem.show.figures.data import direction_labels, shown_rows
from geomem.show.page.pictures import Floats, Painter, is_picture
from geomem.stats import Estimate

SHOWN_DIRECTIONS = 8
SHOWN_SAMPLES = 12
SHOWN_IMAGES = 12


@dataclass(frozen=True)
class DirectionCard:
    r"""A principal direction: its number, picture, variance in rms², and nats."""

    label: str
    variance: str
    nats: Estimate
    picture: str | None = None


@dataclass(frozen=True)
class SampleCard:
    r"""A generated sample beside its nearest training image.

    ``kind`` is memorized, spurious or new; empty where that is not calibrated.
    """

    ratio: str
    p_value: str
    nearest_name: str
    kind: str
    picture: str | None = None
    nearest: str | None = None


@dataclass(frozen=True)
class ImageCard:
    r"""A training image with its own memorized information."""

    name: str
    nats: Estimate
    picture: str | None = None


@dataclass(frozen=True)
class Gallery:
    r"""Cards of one row: its label and place among the rows shown, and what there is of it."""

    label: str
    place: int
    most: list[DirectionCard]
    least: list[DirectionCard]
    samples: list[SampleCard]
    images: list[ImageCard]

    @property
    def num_chars(self) -> int:
        r"""What its pictures take on the page."""
        cards: list[Any] = [*self.most, *self.least, *self.samples, *self.images]
        found = [getattr(card, name, None) for card in cards for name in ("picture", "nearest")]
        return sum(len(picture) for picture in found if picture)


@dataclass(frozen=True, eq=False)
class Curator:
    r"""Chooses and paints.

    Attributes:
        dataset: The records.
        known: Their numbers.
        names: The name of each image of the study, by its number in the data.
        painter: How pictures are made.
        show_images: Whether pixels of the data may be shown.
    """

    dataset: xr.Dataset
    known: xr.Dataset
    names: Mapping[int, str]
    painter: Painter
    show_images: bool

    def gallery(self, place: int, k: int) -> Gallery:
        r"""The cards of one row of numbers."""
        row = self.known.isel(subject=k)
        most, least = self._directions(row)
        label = str(row["label"].item())
        return Gallery(label, place, most, least, self._samples(k), self._images(row))

    def _directions(self, row: xr.Dataset) -> tuple[list[DirectionCard], list[DirectionCard]]:
        if "by_direction" not in row or row.by_direction.isnull().all():
            return [], []
        singles = np.flatnonzero(openings(self.known) >= LEAST)
        ranked = singles[np.argsort(-row.by_direction.values[singles], kind="stable")]
        shown = min(SHOWN_DIRECTIONS, len(ranked) // 2)
        labels = direction_labels(row.direction_count.values)
        vectors = first_known(self.dataset, "vector")
        cards = []
        for u in map(int, ranked):
            variance = float(row.direction_variance[u]) / self.known.attrs["rms"] ** 2
            there = vectors is not None and u < len(vectors) and is_picture(vectors.shape[1:])
            picture = self.painter.direction(vectors[u]) if there and vectors is not None else None
            nats = estimate(row.isel(direction=u), "by_direction")
            cards.append(DirectionCard(labels[u], f"{float(f'{variance:.2g}'):g}", nats, picture))
        return cards[:shown], cards[len(cards) - shown :][::-1]

    def _samples(self, k: int) -> list[SampleCard]:
        # Of the first training of a row that has some.
        members = rows_of(self.dataset)[k].members
        found = [m for m in members if has_samples(self.dataset, m)]
        if not found:
            return []
        one = self.dataset.isel(subject=found[0])
        cards = []
        pictured = one.sizes["gallery"] if "gallery" in one.dims else SHOWN_SAMPLES
        kinds = sample_kinds(one)[: int(one.sample_ratio.notnull().sum())]
        for j in shown_samples(kinds[:pictured]):
            p, index = float(one.sample_p_value[j]), int(one.sample_nearest[j])
            cards.append(
                SampleCard(
                    ratio=f"{float(one.sample_ratio[j]):.2f}",
                    p_value="" if math.isnan(p) else f"p = {p:.2g}",
                    nearest_name=self.names.get(index, f"image {index}"),
                    kind=kinds[j],
                    picture=self._paint(one.get("sample_image"), j),
                    nearest=self._paint(one.get("nearest_image"), j) if self.show_images else None,
                )
            )
        return cards

    def _images(self, row: xr.Dataset) -> list[ImageCard]:
        if "point_information" not in row:
            return []
        nats = row.point_information.values
        ranked = np.argsort(np.where(np.isnan(nats), np.inf, -nats), kind="stable")
        pixels = first_known(self.dataset, "training_image") if self.show_images else None
        cards = []
        for k in map(int, ranked[: min(SHOWN_IMAGES, int(np.isfinite(nats).sum()))]):
            index = int(self.dataset.point_index.sel(at="training")[k])
            found = estimate(row.isel(point=k), "point_information")
            cards.append(ImageCard(self.names[index], found, self._paint(pixels, k)))
        return cards

    def _paint(self, pictures: Floats | xr.DataArray | None, k: int) -> str | None:
        if pictures is None or k >= len(pictures) or not is_picture(pictures.shape[1:]):
            return None
        one = np.asarray(pictures[k])
        return self.painter.image(one) if np.isfinite(one).all() else None


def sample_kinds(one: xr.Dataset) -> list[str]:
    r"""Of each sample of a subject: memorized, spurious or new, or nothing where not calibrated."""
    copies = one.sample_p_value.values
    near = one.sibling_p_value.values if "sibling_p_value" in one else np.full(len(copies), np.nan)
    found = []
    for p, q in zip(copies, near, strict=True):
        unknown = math.isnan(p) or (math.isnan(q) and p > LEVEL)
        kind = "memorized" if p <= LEVEL else "spurious" if q <= LEVEL else "new"
        found.append("" if unknown else kind)
    return found


def shown_samples(kinds: list[str]) -> list[int]:
    r"""The samples that are shown: the first ones, and one at least of each kind that there is.

    Example:
        >>> shown_samples(["new"] * 20 + ["memorized"])[-2:]
        [10, 20]
    """
    first = list(range(min(SHOWN_SAMPLES, len(kinds))))
    for kind in dict.fromkeys(kinds):
        if kind not in [kinds[k] for k in first]:
            many = max(first, key=lambda k: ([kinds[j] for j in first].count(kinds[k]), k))
            first[first.index(many)] = kinds.index(kind)
    return sorted(first)


def has_samples(dataset: xr.Dataset, subject: int) -> bool:
    r"""Whether a subject's samples were compared with training images."""
    names = ("sample_ratio", "sample_p_value", "sample_nearest")
    there = all(name in dataset for name in names)
    return there and bool(dataset.sample_ratio.isel(subject=subject).notnull().any())


def first_known(dataset: xr.Dataset, name: str) -> Floats | None:
    r"""What is the same beside every subject, of the first one that recorded it."""
    if name not in dataset:
        return None
    for one in dataset[name].transpose("subject", ...).values:
        if np.isfinite(one).any():
            return np.asarray(one)
    return None


def image_names(study: Mapping[str, Any]) -> dict[int, str]:
    r"""What the images of a study are called, by their number: file names, or ``image 17``.

    Folders are left out where files are told apart without them.
    """
    found = {
        int(i): str(name)
        for at, index in study["points"].items()
        for i, name in zip(index, study["point_names"][at], strict=True)
    }
    names = set(found.values())
    short = len({PurePath(name).name for name in names}) == len(names)
    return {
        i: f"image {i}" if name == str(i) else PurePath(name).name if short else name
        for i, name in found.items()
    }


def galleries(
    dataset: xr.Dataset,
    known: xr.Dataset,
    study: Mapping[str, Any],
    *,
    show_images: bool,
    budget: int = 900_000,
) -> list[Gallery]:
    r"""The cards of each row shown; pictures are made smaller until they fit.

    Arguments:
        dataset: The records.
        known: Their numbers.
        study: The content of the study.
        show_images: Whether pixels of the data may be shown.
        budget: How many characters all pictures may take.
    """
    seen = [dataset[n].values.ravel() for n in ("training_image", "sample_image") if n in dataset]
    items = np.concatenate(seen) if seen else np.array([])
    quantum, names = float(study["data"].get("quantum", 0)), image_names(study)
    made: list[Gallery] = []
    for side in (64, 48, 32, 24):
        curator = Curator(dataset, known, names, Painter.of(items, quantum, side), show_images)
        made = [curator.gallery(place, k) for place, k in enumerate(shown_rows(known))]
        if sum(gallery.num_chars for gallery in made) <= budget:
            break
    return made
