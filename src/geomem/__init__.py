r"""geomem: which directions a diffusion model has lost to memorization.

The public names below are loaded when they are first used, so that ``import geomem`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# What users meet: the names of ``__all__``.
_HOME = {
    "errors": "GeomemError Inconclusive InputError",
    "stats": "Estimate Proportion benjamini_hochberg permutation_test",
    "compute.executor": "Executor",
    "compute.local": "LocalExecutor",
    "compute.ray": "RayExecutor",
    "noise": "EDM DiscreteBetas FlowMatching VarianceExploding VariancePreserving log_levels",
    "denoiser": "Denoiser ExactDenoiser ProductDenoiser ScheduledDenoiser score",
    "operators": "DenoiserJacobian LinearOperator",
    "spectra": "Spectrum spectrum trace",
    "exact": "EmpiricalDenoiser GaussianDenoiser LocalDenoiser MixtureDenoiser",
    "manifolds": "LinearManifold RenderedShapes Sphere",
    "subspaces": "PrincipalDirections principal_angles retention",
    "tangents": "tangent_basis turning",
    "dimension": "FLIPD LocalDimension NoGap SoftCount dimension_method",
    "likelihood": "log_likelihood",
    "data": "ImageData Split load_data make_split nested_subsets read_split write_split",
    "runs.load": "grid load",
    "findings.compare": "compare",
    "findings.numbers": "numbers",
    "findings.sentences": "sentences",
    "findings.verdict": "Verdict verdict",
    "runs.audit": "Audit",
    "runs.plan": "Plan",
    "runs.sweep": "Sweep",
    "monitor": "MemorizationMonitor",
    "show.page.report": "report",
}
# Names for specialists, at home in their packages and reachable from here, too.
_SPECIAL = {
    "operators": "Cost Factored Matrix jacobian_diagonal",
    "spectra": (
        "AdaptiveTrace Dense Gram LanczosQuadrature RandomizedSVD asymmetry decompose leading "
        "leading_singular singular_values"
    ),
    "exact": "InMemory MemoryMapped Posterior Streamed open_npy",
    "manifolds": (
        "Ball ChartManifold HiddenManifold Lollipop NormalizedLinear QuadratureDenoiser RingTorus "
        "Spreads Squiggle SwissRoll Torus Union reference_denoiser"
    ),
    "dimension": (
        "FilteredTrace ForwardSoftCount LargestGap NormalBundle OrthogonalDifferences Plateau "
        "ScikitDimension SpikeRule Threshold leading_pairs"
    ),
    "likelihood": "LogLikelihood",
}
_MODULE_OF = {
    name: module
    for part in (_HOME, _SPECIAL)
    for module, names in part.items()
    for name in names.split()
}

__all__ = ["__version__", *(name for names in _HOME.values() for name in names.split())]


if not TYPE_CHECKING:  # who checks types knows the names below, and no others

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'geomem' has no attribute {name!r}")
        return getattr(import_module(f"geomem.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


# For type checkers: each name from its module. tests/test_front_door.py says what stands here.
if TYPE_CHECKING:
    from geomem.compute.executor import Executor as Executor
    from geomem.compute.local import LocalExecutor as LocalExecutor
    from geomem.compute.ray import RayExecutor as RayExecutor
    from geomem.data import ImageData as ImageData
    from geomem.data import Split as Split
    from geomem.data import load_data as load_data
    from geomem.data import make_split as make_split
    from geomem.data import nested_subsets as nested_subsets
    from geomem.data import read_split as read_split
    from geomem.data import write_split as write_split
    from geomem.denoiser import Denoiser as Denoiser
    from geomem.denoiser import ExactDenoiser as ExactDenoiser
    from geomem.denoiser import ProductDenoiser as ProductDenoiser
    from geomem.denoiser import ScheduledDenoiser as ScheduledDenoiser
    from geomem.denoiser import score as score
    from geomem.dimension import FLIPD as FLIPD
    from geomem.dimension import FilteredTrace as FilteredTrace
    from geomem.dimension import ForwardSoftCount as ForwardSoftCount
    from geomem.dimension import LargestGap as LargestGap
    from geomem.dimension import LocalDimension as LocalDimension
    from geomem.dimension import NoGap as NoGap
    from geomem.dimension import NormalBundle as NormalBundle
    from geomem.dimension import OrthogonalDifferences as OrthogonalDifferences
    from geomem.dimension import Plateau as Plateau
    from geomem.dimension import ScikitDimension as ScikitDimension
    from geomem.dimension import SoftCount as SoftCount
    from geomem.dimension import SpikeRule as SpikeRule
    from geomem.dimension import Threshold as Threshold
    from geomem.dimension import dimension_method as dimension_method
    from geomem.dimension import leading_pairs as leading_pairs
    from geomem.errors import GeomemError as GeomemError
    from geomem.errors import Inconclusive as Inconclusive
    from geomem.errors import InputError as InputError
    from geomem.exact import EmpiricalDenoiser as EmpiricalDenoiser
    from geomem.exact import GaussianDenoiser as GaussianDenoiser
    from geomem.exact import InMemory as InMemory
    from geomem.exact import LocalDenoiser as LocalDenoiser
    from geomem.exact import MemoryMapped as MemoryMapped
    from geomem.exact import MixtureDenoiser as MixtureDenoiser
    from geomem.exact import Posterior as Posterior
    from geomem.exact import Streamed as Streamed
    from geomem.exact import open_npy as open_npy
    from geomem.findings.compare import compare as compare
    from geomem.findings.numbers import numbers as numbers
    from geomem.findings.sentences import sentences as sentences
    from geomem.findings.verdict import Verdict as Verdict
    from geomem.findings.verdict import verdict as verdict
    from geomem.likelihood import LogLikelihood as LogLikelihood
    from geomem.likelihood import log_likelihood as log_likelihood
    from geomem.manifolds import Ball as Ball
    from geomem.manifolds import ChartManifold as ChartManifold
    from geomem.manifolds import HiddenManifold as HiddenManifold
    from geomem.manifolds import LinearManifold as LinearManifold
    from geomem.manifolds import Lollipop as Lollipop
    from geomem.manifolds import NormalizedLinear as NormalizedLinear
    from geomem.manifolds import QuadratureDenoiser as QuadratureDenoiser
    from geomem.manifolds import RenderedShapes as RenderedShapes
    from geomem.manifolds import RingTorus as RingTorus
    from geomem.manifolds import Sphere as Sphere
    from geomem.manifolds import Spreads as Spreads
    from geomem.manifolds import Squiggle as Squiggle
    from geomem.manifolds import SwissRoll as SwissRoll
    from geomem.manifolds import Torus as Torus
    from geomem.manifolds import Union as Union
    from geomem.manifolds import reference_denoiser as reference_denoiser
    from geomem.monitor import MemorizationMonitor as MemorizationMonitor
    from geomem.noise import EDM as EDM
    from geomem.noise import DiscreteBetas as DiscreteBetas
    from geomem.noise import FlowMatching as FlowMatching
    from geomem.noise import VarianceExploding as VarianceExploding
    from geomem.noise import VariancePreserving as VariancePreserving
    from geomem.noise import log_levels as log_levels
    from geomem.operators import Cost as Cost
    from geomem.operators import DenoiserJacobian as DenoiserJacobian
    from geomem.operators import Factored as Factored
    from geomem.operators import LinearOperator as LinearOperator
    from geomem.operators import Matrix as Matrix
    from geomem.operators import jacobian_diagonal as jacobian_diagonal
    from geomem.runs.audit import Audit as Audit
    from geomem.runs.load import grid as grid
    from geomem.runs.load import load as load
    from geomem.runs.plan import Plan as Plan
    from geomem.runs.sweep import Sweep as Sweep
    from geomem.show.page.report import report as report
    from geomem.spectra import AdaptiveTrace as AdaptiveTrace
    from geomem.spectra import Dense as Dense
    from geomem.spectra import Gram as Gram
    from geomem.spectra import LanczosQuadrature as LanczosQuadrature
    from geomem.spectra import RandomizedSVD as RandomizedSVD
    from geomem.spectra import Spectrum as Spectrum
    from geomem.spectra import asymmetry as asymmetry
    from geomem.spectra import decompose as decompose
    from geomem.spectra import leading as leading
    from geomem.spectra import leading_singular as leading_singular
    from geomem.spectra import singular_values as singular_values
    from geomem.spectra import spectrum as spectrum
    from geomem.spectra import trace as trace
    from geomem.stats import Estimate as Estimate
    from geomem.stats import Proportion as Proportion
    from geomem.stats import benjamini_hochberg as benjamini_hochberg
    from geomem.stats import permutation_test as permutation_test
    from geomem.subspaces import PrincipalDirections as PrincipalDirections
    from geomem.subspaces import principal_angles as principal_angles
    from geomem.subspaces import retention as retention
    from geomem.tangents import tangent_basis as tangent_basis
    from geomem.tangents import turning as turning
