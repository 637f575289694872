r"""Local dimension: how many directions vary, at a point and a level, and by which method."""

from __future__ import annotations

from geomem.dimension.counts import (
    DimensionMethod,
    ForwardSoftCount,
    LargestGap,
    NoGap,
    Place,
    SoftCount,
    Threshold,
    jacobian_spectrum,
    place_of,
)
from geomem.dimension.differences import OrthogonalDifferences
from geomem.dimension.from_points import DataDimensionMethod, ScikitDimension
from geomem.dimension.local import LocalDimension
from geomem.dimension.names import dimension_method
from geomem.dimension.plateau import Plateau, PlateauEstimate
from geomem.dimension.ritz import leading_pairs
from geomem.dimension.scores import FLIPD, FilteredTrace, NormalBundle, SpikeRule

__all__ = [
    "FLIPD",
    "DataDimensionMethod",
    "DimensionMethod",
    "FilteredTrace",
    "ForwardSoftCount",
    "LargestGap",
    "LocalDimension",
    "NoGap",
    "NormalBundle",
    "OrthogonalDifferences",
    "Place",
    "Plateau",
    "PlateauEstimate",
    "ScikitDimension",
    "SoftCount",
    "SpikeRule",
    "Threshold",
    "dimension_method",
    "jacobian_spectrum",
    "leading_pairs",
    "place_of",
]
