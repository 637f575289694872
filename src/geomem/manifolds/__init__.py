r"""Data of known geometry, so that each prediction has something to be checked against."""

from __future__ import annotations

from geomem.manifolds.balls import Ball, Lollipop
from geomem.manifolds.charts import ChartManifold, HiddenManifold, RingTorus, SwissRoll
from geomem.manifolds.curved import Sphere, Torus
from geomem.manifolds.linear import PAPER_VARIANCES, LinearManifold, Manifold, NormalizedLinear
from geomem.manifolds.quadrature import QuadratureDenoiser
from geomem.manifolds.shapes import RenderedShapes, Spreads
from geomem.manifolds.squiggles import Squiggle, Union, reference_denoiser

__all__ = [
    "PAPER_VARIANCES",
    "Ball",
    "ChartManifold",
    "HiddenManifold",
    "LinearManifold",
    "Lollipop",
    "Manifold",
    "NormalizedLinear",
    "QuadratureDenoiser",
    "RenderedShapes",
    "RingTorus",
    "Sphere",
    "Spreads",
    "Squiggle",
    "SwissRoll",
    "Torus",
    "Union",
    "reference_denoiser",
]
