r"""Pictures for the page: principal directions, training images, and where errors are made."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from geomem.errors import InputError
from geomem.measure.study import Report, Study
from geomem.measure.subject import Subject


@dataclass(frozen=True)
class Pixels:
    r"""Gives ``vector`` (single, axis_0, ...), and ``training_image`` (training_point, ...).

    They are asked of the linear control alone, since they are the same beside every subject.
    Principal directions are means over many images, so no image's pixels.

    Attributes:
        show_images: Whether pixels of training images are kept.
    """

    show_images: bool = False

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`."""
        if subject.description.kind != "linear":
            return xr.Dataset()
        singles = study.directions.singles
        vectors = study.directions.vectors[:, :singles].T.float().numpy()
        item = [f"axis_{k}" for k in range(len(study.item_shape))]
        named = {"units": "1", "long_name": "principal direction"}
        vector = (("single", *item), vectors.reshape(singles, *study.item_shape), named)
        pictures = xr.Dataset({"vector": vector})
        if self.show_images and "training" in study.images:
            pixels = study.images["training"].float().numpy()
            named = {"units": "data units", "long_name": "training image"}
            pictures["training_image"] = (("training_point", *item), pixels, named)
        return pictures


@dataclass(frozen=True)
class WhereErrors:
    r"""Gives ``pixel_error`` (at, sigma, axis_1, axis_2): squared errors by pixel, a mean.

    In noise units, summed over channels, averaged over images and draws, of the calls that
    :class:`geomem.measure.errors.Errors` has made; of points that are no images nothing.
    """

    def __call__(self, subject: Subject, study: Study, report: Report) -> xr.Dataset:
        r"""Asks; see :class:`geomem.measure.study.Probe`.

        Raises:
            InputError: If errors were not asked for before it.
        """
        if len(study.item_shape) != 3:
            return xr.Dataset()
        if "pixel_errors" not in subject.cache:
            raise InputError("WhereErrors needs what Errors measures; name it after Errors")
        kinds, errors = subject.cache["pixel_errors"]
        values = errors.sum(2).float().numpy()
        named = {"units": "1", "long_name": "squared error in noise units by pixel, mean"}
        return xr.Dataset(
            {"pixel_error": (("at", "sigma", "axis_1", "axis_2"), values, named)},
            coords={"at": kinds},
        )
