r"""Exact denoisers: of a finite training set, of a Gaussian, of mixtures, of patches."""

from __future__ import annotations

from geomem.exact.blocks import Blocks, InMemory, MemoryMapped, Streamed, open_npy
from geomem.exact.empirical import EmpiricalDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.exact.local import LocalDenoiser, LocalPosterior
from geomem.exact.mixture import MixtureDenoiser
from geomem.exact.posterior import Posterior

__all__ = [
    "Blocks",
    "EmpiricalDenoiser",
    "GaussianDenoiser",
    "InMemory",
    "LocalDenoiser",
    "LocalPosterior",
    "MemoryMapped",
    "MixtureDenoiser",
    "Posterior",
    "Streamed",
    "open_npy",
]
