r"""Doors: how the models of strangers come in, safely, and what is checked before they are
believed.

Nothing is unpickled but what torch itself reads as plain tensors; what cannot be read from the
files is asked for by name. See :func:`load_model` and :func:`check_model`.
"""

from __future__ import annotations

from geomem.models.doors.checking import check_model
from geomem.models.doors.loaded import LoadedModel, ModelCheck
from geomem.models.doors.opening import load_model

__all__ = ["LoadedModel", "ModelCheck", "check_model", "load_model"]
