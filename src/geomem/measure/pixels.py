r"""Pictures for the page: the principal directions, and training images where asked for."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

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
