r"""Public docstrings: a shape for each tensor that enters, and the error that bad input ends in.

A method may leave to its protocol what the protocol says: shapes of ``x`` and ``sigma`` stand in
:class:`geomem.Denoiser`, not in each denoiser. What ``@checked`` refuses stands in annotations.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import geomem
from geomem.denoiser import Denoiser
from geomem.dimension.answers import DimensionMethod, PointMethod
from geomem.dimension.from_points import DataDimensionMethod
from geomem.exact.blocks import Blocks
from geomem.manifolds.linear import Manifold
from geomem.noise import Schedule
from geomem.operators import LinearOperator
from geomem.spectra.measures import SpectrumMethod

TENSOR = re.compile(r"\b(Tensor|ArrayLike|ndarray|NDArray|Array)\b")
REFUSES = re.compile(r"^\s*raise (InputError|Inconclusive)\b", re.MULTILINE)
PROTOCOLS = (
    PointMethod,
    Blocks,
    DataDimensionMethod,
    Denoiser,
    DimensionMethod,
    Manifold,
    Schedule,
    SpectrumMethod,
    LinearOperator,
)

# To be emptied: what was silent when the rules were made. Nothing may be added.
SILENT_ABOUT_SHAPES = {
    "DenoiserJacobian.both(V)",
    "EmpiricalDenoiser.forecast(sigmas)",
    "EmpiricalDenoiser.forecast(x)",
    "EmpiricalDenoiser.jacobian(sigma)",
    "EmpiricalDenoiser.jacobian(x)",
    "FLIPD.__call__(sigma)",
    "FLIPD.__call__(x_0)",
    "Factored.both(V)",
    "FilteredTrace.__call__(sigma)",
    "FilteredTrace.__call__(x)",
    "ForwardSoftCount.__call__(sigma)",
    "ForwardSoftCount.__call__(x_0)",
    "GaussianDenoiser.jacobian_diagonal(directions)",
    "GaussianDenoiser.jacobian_diagonal(sigma)",
    "GaussianDenoiser.jacobian_diagonal(x)",
    "ImageData.of(array)",
    "ImageData.of(groups)",
    "ImageData.of(labels)",
    "InMemory(data)",
    "LargestGap.__call__(sigma)",
    "LargestGap.__call__(x)",
    "LinearOperator.both(V)",
    "LocalDimension.__call__(sigma)",
    "LocalDimension.__call__(x)",
    "LocalDimension.pairs(sigma)",
    "LocalDimension.pairs(x)",
    "MixtureDenoiser.jacobian_diagonal(directions)",
    "MixtureDenoiser.jacobian_diagonal(sigma)",
    "MixtureDenoiser.jacobian_diagonal(x)",
    "NormalBundle.__call__(sigma)",
    "NormalBundle.__call__(x_0)",
    "OrthogonalDifferences.__call__(sigma)",
    "OrthogonalDifferences.__call__(x_0)",
    "Plateau.__call__(sigma)",
    "Plateau.__call__(x_0)",
    "Plateau.levels(sigma)",
    "Plateau.measure(levels)",
    "Plateau.measure(x_0)",
    "Plateau.of(levels)",
    "Plateau.plateaus(levels)",
    "SpikeRule.__call__(sigma)",
    "SpikeRule.__call__(x_0)",
    "SpikeRule.of(singular_values)",
    "Threshold.__call__(sigma)",
    "Threshold.__call__(x)",
    "benjamini_hochberg(p_values)",
}
SILENT_ABOUT_ERRORS = {
    "AdaptiveTrace",
    "DiscreteBetas",
    "EmpiricalDenoiser.neighbours",
    "Estimate.of_mean",
    "FLIPD",
    "FilteredTrace",
    "ForwardSoftCount",
    "InMemory",
    "LanczosQuadrature",
    "LargestGap",
    "LargestGap.__call__",
    "LocalDimension",
    "LocalDimension.of",
    "Matrix",
    "MixtureDenoiser",
    "NormalBundle",
    "OrthogonalDifferences",
    "Plateau",
    "Proportion",
    "RandomizedSVD",
    "RingTorus",
    "ScikitDimension",
    "SpikeRule.of_paper",
    "Spreads",
    "Spreads.scaled",
    "Squiggle",
    "Streamed.blocks",
    "Streamed.part",
    "Sweep",
    "Sweep.network_config",
    "Sweep.prepare",
    "Threshold",
    "Union",
    "leading",
    "leading_pairs",
    "leading_singular",
    "reference_denoiser",
}
WITHOUT_DOCSTRING = {
    "AdaptiveTrace.need",
    "Dense.need",
    "Dense.products",
    "Gram.products",
    "LanczosQuadrature.need",
    "LanczosQuadrature.products",
    "RandomizedSVD.need",
    "RandomizedSVD.products",
}


def public() -> Iterator[tuple[str, Callable[..., Any], str, str]]:
    r"""Every public function and method: its name, itself, its docstring, its source."""
    for name in sorted(geomem._MODULE_OF):
        value = getattr(geomem, name)
        if inspect.isfunction(value):
            yield name, value, inspect.getdoc(value) or "", source(value)
        if not inspect.isclass(value):
            continue
        own, said = value.__dict__, inspect.getdoc(value) or ""
        made = own.get("__post_init__") or own.get("__init__")
        if "__init__" in own:
            yield name, value.__init__, said, source(made)
        for key, member in sorted(own.items()):
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function) and (key == "__call__" or not key.startswith("_")):
                parts = [inspect.getdoc(getattr(value, key)) or ""]
                parts += [said] if key == "__call__" else []
                parts += [
                    (inspect.getdoc(getattr(p, key)) or "")
                    + ((inspect.getdoc(p) or "") if key == "__call__" else "")
                    for p in PROTOCOLS
                    if hasattr(p, key) and p is not value and shares(p, key, function)
                ]
                text = "\n\n".join(filter(None, parts))
                yield f"{name}.{key}", function, text, source(function)


def shares(protocol: type, key: str, function: Callable[..., Any]) -> bool:
    r"""Whether a protocol declares a method of these parameters."""
    wanted = list(inspect.signature(getattr(protocol, key)).parameters)
    return list(inspect.signature(function).parameters)[: len(wanted)] == wanted


def source(function: Callable[..., Any] | None) -> str:
    try:
        return inspect.getsource(inspect.unwrap(function)) if function else ""
    except (OSError, TypeError):  # made by dataclass
        return ""


def tensors(function: Callable[..., Any]) -> list[str]:
    r"""The parameters of a function that are tensors or arrays, by their annotations."""
    parameters = inspect.signature(function).parameters.values()
    return [
        p.name
        for p in parameters
        if TENSOR.search(str(p.annotation)) and not str(p.annotation).startswith("Callable")
    ]


def entry(text: str, name: str) -> str:
    r"""What a docstring says of one of its arguments."""
    found = re.search(rf"^( *)`*{name}`*(?: \([^)]*\))?: (.*(?:\n\1 +.*)*)", text, re.MULTILINE)
    return found[2] if found else ""


def says_shape(text: str, argument: str) -> bool:
    r"""Whether the entry of an argument, or a text without entries, gives a shape."""
    said = entry(text, argument) or ("" if "Arguments:" in text else text)
    return "shape" in said.lower() or ":math:`(" in said


def without_shapes() -> set[str]:
    return {
        f"{name}({argument})"
        for name, function, text, _ in public()
        for argument in tensors(function)
        if not says_shape(text, argument)
    }


def without_errors() -> set[str]:
    return {
        name for name, _, text, code in public() if REFUSES.search(code) and "Raises:" not in text
    }


def listed(names: set[str]) -> str:
    return "".join(f'\n    "{name}",' for name in sorted(names))


def test_each_tensor_has_its_shape() -> None:
    new = without_shapes() - SILENT_ABOUT_SHAPES
    assert not new, f"say 'with shape ...' in the docstrings of:{listed(new)}"


def test_each_refusal_is_announced() -> None:
    new = without_errors() - SILENT_ABOUT_ERRORS
    assert not new, f"add 'Raises:' to the docstrings of:{listed(new)}"


def test_every_public_name_is_documented() -> None:
    new = {name for name, _, text, _ in public() if not text.strip()} - WITHOUT_DOCSTRING
    assert not new, f"write a docstring for:{listed(new)}"


def test_the_rules_find_what_they_look_for() -> None:
    def silent(x: Tensor, sigma: float) -> float:  # type: ignore[name-defined]  # noqa: F821
        r"""Something.

        Arguments:
            x: The points.
            sigma: The level, with shape (T).
        """
        return sigma

    assert tensors(silent) == ["x"]
    text = inspect.getdoc(silent) or ""
    assert not says_shape(text, "x")
    assert says_shape(text.replace("The points.", "The points, with shape (B, *)."), "x")
    assert REFUSES.search("    raise InputError(1)")
    assert not REFUSES.search("    # raise InputError(1)")
