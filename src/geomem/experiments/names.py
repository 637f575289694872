r"""The experiments by name, and where each stands: loaded when it is named."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from geomem.errors import InputError
from geomem.experiments.experiment import Experiment

EXPERIMENTS = {
    "linear-times": "spectra:Times",
    "linear-sizes": "spectra:Sizes",
    "linear-panel": "spectra:Panel",
    "linear-subspaces": "subspaces:Subspaces",
    "linear-steps": "linear_steps:Steps",
    "images-dimension": "image_dimension:ImageDimension",
    "images-full": "image_full:FullPictures",
    "images-subspaces": "image_subspaces:ImageSubspaces",
    "epochs": "epochs:Epochs",
    "regimes": "regimes:Regimes",
    "rotation": "rotation:Rotation",
    "sphere": "sphere:SpherePlane",
}


def experiment(name: str, data: Sequence[str] = ()) -> Experiment:
    r"""The experiment of a name.

    Arguments:
        name: One of :data:`EXPERIMENTS`.
        data: Sets of images, where it can be told.

    Raises:
        InputError: If there is none, or it has data of its own.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"`name` is {name!r}; the experiments are {', '.join(EXPERIMENTS)}")
    module, _, cls = EXPERIMENTS[name].partition(":")
    found: Experiment = getattr(import_module(f"geomem.experiments.{module}"), cls)(data)
    return found
