r"""Spectra as measures: each question is an integral, and comes with its standard error."""

from __future__ import annotations

from geomem.spectra.choice import spectrum
from geomem.spectra.krylov import Leading, leading
from geomem.spectra.lanczos import LanczosQuadrature
from geomem.spectra.measures import (
    Decomposition,
    Dense,
    Gram,
    Quadrature,
    Spectrum,
    SpectrumMethod,
    asymmetry,
    decompose,
    singular_values,
)
from geomem.spectra.randomized import LeadingSingular, RandomizedSVD, leading_singular
from geomem.spectra.traces import AdaptiveTrace, Trace, trace

__all__ = [
    "AdaptiveTrace",
    "Decomposition",
    "Dense",
    "Gram",
    "LanczosQuadrature",
    "Leading",
    "LeadingSingular",
    "Quadrature",
    "RandomizedSVD",
    "Spectrum",
    "SpectrumMethod",
    "Trace",
    "asymmetry",
    "decompose",
    "leading",
    "leading_singular",
    "singular_values",
    "spectrum",
    "trace",
]
