r"""What the page shows one by one: directions, samples and the most memorized images.

Pixels of the data come in only where they are asked for. Principal directions are means over
many images and belong to none of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from geomem.measure.copies import LEVEL
from geomem.show.figures.views import direction_labels
from geomem.show.page.pictures import Floats, Painter, is_picture
from geomem.stats import Estimate

SHOWN_DIRECTIONS = 8
SHOWN_SAMPLES = 12
SHOWN_IMAGES = 12
LEAST_OPENING = 0.1  # of the largest: directions with less have nothing to lose


@dataclass(frozen=True)
class DirectionCard:
    r"""A principal direction: its number, picture, variance in rms², and nats."""

    label: str
    variance: str
    nats: Estimate
    picture: str | None = None


@dataclass(frozen=True)
class SampleCard:
    r"""A generated sample beside its nearest training image."""

    ratio: str
    p_value: str
    nearest_index: int
    copy: bool
    picture: str | None = None
    nearest: str | None = None


@dataclass(frozen=True)
class ImageCard:
    r"""A training image with its own memorized information."""

    index: int
    nats: Estimate
    picture: str | None = None


@dataclass(frozen=True)
class Gallery:
    r"""Cards of one training-set size."""

    num_samples: int
    most: list[DirectionCard]
    least: list[DirectionCard]
    samples: list[SampleCard]
    images: list[ImageCard]


@dataclass(frozen=True)
class Curator:
    r"""Chooses and paints.

    Attributes:
        dataset: The records.
        known: Their numbers.
        painter: How pictures are made.
        show_images: Whether pixels of the data may be shown.
    """

    dataset: xr.Dataset
    known: xr.Dataset
    painter: Painter
    show_images: bool

    def gallery(self, n: int) -> Gallery:
        r"""The cards of one training-set size."""
        most, least = self._directions(n)
        return Gallery(n, most, least, self._samples(n), self._images(n))

    # ------------------------------------------------------------------------- directions

    def _directions(self, n: int) -> tuple[list[DirectionCard], list[DirectionCard]]:
        one = self.known.sel(num_samples=n)
        singles = np.flatnonzero(openings(self.known) >= LEAST_OPENING)
        ranked = singles[np.argsort(-one.by_direction.values[singles], kind="stable")]
        shown = min(SHOWN_DIRECTIONS, len(ranked) // 2)
        cards = [self._direction(one, int(u)) for u in ranked]
        return cards[:shown], cards[len(cards) - shown :][::-1]

    def _direction(self, one: xr.Dataset, u: int) -> DirectionCard:
        variance = float(one.direction_variance[u]) / self.known.attrs["rms"] ** 2
        nats = Estimate(float(one.by_direction[u]), float(one.by_direction_stderr[u]))
        label = direction_labels(one.direction_count.values)[u]
        return DirectionCard(label, f"{float(f'{variance:.2g}'):g}", nats, self._vector(u))

    def _vector(self, u: int) -> str | None:
        if "vector" not in self.dataset or u >= self.dataset.sizes["single"]:
            return None
        vector = self.dataset.vector.isel(single=u).values
        return self.painter.direction(vector) if is_picture(vector.shape) else None

    # ---------------------------------------------------------------------------- samples

    def _samples(self, n: int) -> list[SampleCard]:
        if "sample_ratio" not in self.dataset:
            return []
        one = self.dataset.sel(num_samples=n).isel(step=-1)
        done = np.flatnonzero(~np.isnan(one.sample_ratio.values).all(1))
        if not len(done):
            return []
        one = one.isel(seed=int(done[0]))
        shown = min(SHOWN_SAMPLES, one.sizes["sample"])
        return [self._sample(one, k) for k in range(shown)]

    def _sample(self, one: xr.Dataset, k: int) -> SampleCard:
        p = float(one.sample_p_value[k])
        return SampleCard(
            ratio=f"{float(one.sample_ratio[k]):.2f}",
            p_value="not calibrated" if math.isnan(p) else f"p = {p:.2g}",
            nearest_index=int(one.sample_nearest[k]),
            copy=p <= LEVEL,
            picture=self._paint(one, "sample_image", k),
            nearest=self._paint(one, "nearest_image", k) if self.show_images else None,
        )

    def _paint(self, one: xr.Dataset, name: str, k: int) -> str | None:
        if name not in one:
            return None
        values: Floats = one[name].values
        there = k < len(values) and is_picture(values.shape[1:]) and np.isfinite(values[k]).all()
        return self.painter.image(values[k]) if there else None

    # ----------------------------------------------------------------------------- images

    def _images(self, n: int) -> list[ImageCard]:
        one = self.known.sel(num_samples=n)
        nats = one.point_information.values
        ranked = np.argsort(np.where(np.isnan(nats), np.inf, -nats), kind="stable")
        shown = ranked[: min(SHOWN_IMAGES, int(np.isfinite(nats).sum()))]
        return [self._image(one, int(k)) for k in shown]

    def _image(self, one: xr.Dataset, k: int) -> ImageCard:
        nats = Estimate(float(one.point_information[k]), float(one.point_information_stderr[k]))
        index = int(self.dataset.point_index.sel(at="training")[k])
        picture = self._paint(self.dataset, "training_image", k) if self.show_images else None
        return ImageCard(index, nats, picture)


def openings(known: xr.Dataset) -> Floats:
    r"""What each single direction has to lose, in units of the largest; 0 for bands.

    The linear denoiser's expected error, times what the best network leaves of it, over the
    window: a pixel that never changes has nothing to lose, and losing least there says nothing.
    """
    variance = known.direction_variance
    keeps = known.ratio * variance / (variance + known.sigma**2)
    values = keeps.transpose("direction", "sigma").values
    nats = np.trapezoid(values, np.log(known.sigma.values), axis=-1)
    nats = np.where(known.direction_count.values == 1, np.nan_to_num(nats), 0.0)
    return np.asarray(nats / max(float(nats.max()), 1e-300))


def galleries(
    dataset: xr.Dataset,
    known: xr.Dataset,
    *,
    quantum: float,
    show_images: bool,
    budget: int = 900_000,
) -> list[Gallery]:
    r"""The cards of each training-set size; pictures are made smaller until they fit.

    Arguments:
        dataset: The records.
        known: Their numbers.
        quantum: The distance of grey levels; 0 for float arrays.
        show_images: Whether pixels of the data may be shown.
        budget: How many characters all pictures may take.
    """
    names = ("training_image", "sample_image")
    seen = [dataset[name].values.ravel() for name in names if name in dataset]
    items = np.concatenate(seen) if seen else np.array([])
    made: list[Gallery] = []
    for side in (64, 48, 32, 24):
        curator = Curator(dataset, known, Painter.of(items, quantum, side), show_images)
        made = [curator.gallery(int(n)) for n in known.num_samples.values]
        if sum(map(_weight, made)) <= budget:
            break
    return made


def _weight(gallery: Gallery) -> int:
    pictures = [card.picture for card in (*gallery.most, *gallery.least)]
    pictures += [card.picture for card in gallery.images]
    pictures += [p for card in gallery.samples for p in (card.picture, card.nearest)]
    return sum(len(picture) for picture in pictures if picture)
