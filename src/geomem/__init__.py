r"""geomem: which directions a diffusion model has lost to memorization.

The public names below are loaded when they are first used, so that ``import geomem`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "errors": "GeomemError Inconclusive InputError",
    "stats": "Estimate Proportion benjamini_hochberg permutation_test",
    "compute.executor": "Executor",
    "compute.local": "LocalExecutor",
    "compute.ray": "RayExecutor",
    "noise": "EDM DiscreteBetas FlowMatching VarianceExploding VariancePreserving log_levels",
    "denoiser": "Denoiser ExactDenoiser ProductDenoiser ScheduledDenoiser score",
    "operators": "Cost DenoiserJacobian Factored LinearOperator Matrix jacobian_diagonal",
    "spectra": (
        "AdaptiveTrace Dense Gram LanczosQuadrature RandomizedSVD Spectrum asymmetry decompose "
        "leading leading_singular singular_values spectrum trace"
    ),
    "exact": (
        "EmpiricalDenoiser GaussianDenoiser InMemory MemoryMapped MixtureDenoiser Posterior "
        "Streamed open_npy"
    ),
    "manifolds": (
        "ChartManifold HiddenManifold LinearManifold NormalizedLinear QuadratureDenoiser "
        "RenderedShapes RingTorus Sphere Spreads Squiggle SwissRoll Torus Union "
        "reference_denoiser"
    ),
    "subspaces": "PrincipalDirections principal_angles retention",
    "tangents": "tangent_basis turning",
    "dimension": (
        "FLIPD FilteredTrace ForwardSoftCount LargestGap LocalDimension NoGap NormalBundle "
        "OrthogonalDifferences Plateau ScikitDimension SoftCount SpikeRule Threshold "
        "dimension_method leading_pairs"
    ),
    "data": "ImageData Split load_data make_split nested_subsets read_split write_split",
    "runs.load": "grid load",
    "findings.numbers": "numbers",
    "findings.sentences": "sentences",
    "runs.plan": "Plan",
    "runs.sweep": "Sweep",
    "show.page.report": "report",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'geomem' has no attribute {name!r}")
    return getattr(import_module(f"geomem.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from geomem.data import ImageData as ImageData
    from geomem.exact import EmpiricalDenoiser as EmpiricalDenoiser
    from geomem.exact import GaussianDenoiser as GaussianDenoiser
    from geomem.runs.load import load as load
    from geomem.runs.plan import Plan as Plan
    from geomem.runs.sweep import Sweep as Sweep
