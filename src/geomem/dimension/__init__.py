r"""Local dimension: how many directions vary, at a point and a level, and by which method."""

from __future__ import annotations

from geomem.dimension.answers import (
    DimensionMethod,
    NoGap,
    Place,
    PointMethod,
    ask,
    place_of,
    within,
)
from geomem.dimension.counts import (
    ForwardSoftCount,
    LargestGap,
    SoftCount,
    Threshold,
    jacobian_spectrum,
)
from geomem.dimension.differences import OrthogonalDifferences
from geomem.dimension.from_points import DataDimensionMethod, ScikitDimension
from geomem.dimension.local import LocalDimension
from geomem.dimension.names import dimension_method
from geomem.dimension.plateau import Plateau, PlateauEstimate
from geomem.dimension.ritz import leading_pairs
from geomem.dimension.scores import FLIPD, FilteredTrace, NormalBundle, SpikeRule
from geomem.dimension.seeds import has_seed, reseeded, seeded_for

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
    "PointMethod",
    "ScikitDimension",
    "SoftCount",
    "SpikeRule",
    "Threshold",
    "ask",
    "dimension_method",
    "has_seed",
    "jacobian_spectrum",
    "leading_pairs",
    "place_of",
    "reseeded",
    "seeded_for",
    "within",
]
