r"""The experiments by name, and where each stands: loaded when it is named."""

from __future__ import annotations

from importlib import import_module

from geomem.errors import InputError
from geomem.experiments.experiment import Experiment

EXPERIMENTS = {
    "linear-times": "spectra:Times",
    "linear-sizes": "spectra:Sizes",
    "linear-panel": "spectra:Panel",
    "linear-subspaces": "subspaces:Subspaces",
    "epochs": "digits:Epochs",
    "regimes": "digits:Regimes",
}


def experiment(name: str) -> Experiment:
    r"""The experiment of a name.

    Raises:
        InputError: If there is none.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"`name` is {name!r}; the experiments are {', '.join(EXPERIMENTS)}")
    module, _, cls = EXPERIMENTS[name].partition(":")
    found: Experiment = getattr(import_module(f"geomem.experiments.{module}"), cls)()
    return found
