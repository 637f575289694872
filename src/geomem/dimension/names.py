r"""Methods by name: ours, and a stranger's as ``package.module:Class``.

.. code-block:: text

    soft-count
    threshold(above=0.9)
    soft-count(spectrum=lanczos(depth=16, probes=8))
    own_method:Kept(above=0.7)

A name is followed by arguments in parentheses, if any: literals of Python, and spectrum methods
by name. They are parsed and never evaluated; naming a module imports it, as Python would.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.dimension.counts import DimensionMethod, NoGap
from geomem.errors import GeomemError, InputError
from geomem.stats import Estimate, seed_sequence

DIMENSIONS = {
    "local-dimension": "geomem.dimension:LocalDimension",
    "threshold": "geomem.dimension:Threshold",
    "soft-count": "geomem.dimension:SoftCount",
    "forward-soft-count": "geomem.dimension:ForwardSoftCount",
    "largest-gap": "geomem.dimension:LargestGap",
    "spike-rule": "geomem.dimension:SpikeRule",
    "normal-bundle": "geomem.dimension:NormalBundle",
    "flipd": "geomem.dimension:FLIPD",
    "filtered-trace": "geomem.dimension:FilteredTrace",
}

# Inside parentheses, where a name is a Python name.
PARTS = {
    "dense": "geomem.spectra:Dense",
    "gram": "geomem.spectra:Gram",
    "lanczos": "geomem.spectra:LanczosQuadrature",
    "differences": "geomem.dimension:OrthogonalDifferences",
}


def dimension_method(text: str) -> DimensionMethod:
    r"""The dimension method that a text names.

    Arguments:
        text: One of :data:`DIMENSIONS`, or ``package.module:Class``, with or without arguments
            in parentheses. What is no class is taken as it is.

    Raises:
        InputError: If there is no such name or module, or it does not take the arguments.

    Example:
        >>> dimension_method("threshold(above=0.9)")
        Threshold(above=0.9, spectrum=Dense())
        >>> text = "geomem.dimension:SoftCount(lanczos(depth=16, probes=8))"
        >>> dimension_method(text).spectrum.depth
        16
    """
    name, bracket, rest = text.strip().partition("(")
    found = _find(name.strip(), DIMENSIONS, text)
    if bracket or isinstance(found, type):
        arguments = _call(f"_({rest}" if bracket else "_()", text)
        found = _make(found, arguments, text)
    if not callable(found):
        raise InputError(
            f"--dimension {text} is a {type(found).__name__}; name a class or function"
        )
    return found  # type: ignore[no-any-return]


def ask(method: DimensionMethod, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
    r"""A method's answer, if it is one.

    Raises:
        InputError: If it is neither an estimate nor "no gap", or the method fails at what it was
            given, such as a depth of 2.5.
    """
    try:
        found: Any = method(denoiser, x, sigma)
    except GeomemError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{method!r} cannot answer ({reason}); check its arguments") from error
    if not isinstance(found, (Estimate, NoGap)):
        raise InputError(
            f"{method!r} answered {found!r}; return geomem.Estimate(value, stderr) or "
            "geomem.NoGap(reason), see geomem.testing.check_dimension_method"
        )
    return found


# -------------------------------------------------------------------------------------- seeds


def has_seed(method: Any) -> bool:
    r"""Whether a method, or a method inside, is a dataclass with a field ``seed``.

    Example:
        >>> has_seed(dimension_method("threshold")), has_seed(dimension_method("flipd"))
        (False, True)
    """
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        return False
    fields = [f for f in dataclasses.fields(method) if f.init]
    return any(f.name == "seed" or has_seed(getattr(method, f.name)) for f in fields)


def reseeded(method: Any, seed: int) -> Any:
    r"""The method with another seed, also where it belongs to the method inside.

    Example:
        >>> reseeded(dimension_method("soft-count(lanczos(depth=4, probes=2))"), 7).spectrum.seed
        7
    """
    return _with_seeds(method, lambda own: seed)


def seeded_for(method: Any, seed: int, purpose: str, unit: int) -> Any:
    r"""The method as it draws for one unit of work, independently of every other.

    Methods that draw the same probes at all points make the same error at all of them, which
    no spread over points shows. A method without a seed stays what it is.
    """

    def of_unit(own: int | None) -> int:
        sequence = seed_sequence(own or 0, f"{purpose}, seed {seed}", unit)
        return int(sequence.generate_state(1)[0])

    return _with_seeds(method, of_unit) if has_seed(method) else method


def _with_seeds(method: Any, new: Callable[[Any], int]) -> Any:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(method):
        inner = getattr(method, field.name, None)
        if field.init and field.name == "seed":
            changes["seed"] = new(inner)
        elif field.init and has_seed(inner):
            changes[field.name] = _with_seeds(inner, new)
    return dataclasses.replace(method, **changes)


# -------------------------------------------------------------------------------------- parsing


def _find(name: str, known: Mapping[str, str], text: str) -> Any:
    classes = {path.rpartition(":")[2]: path for path in known.values()}  # LocalDimension, too
    where = known.get(name) or classes.get(name, name)
    module, colon, attribute = where.partition(":")
    if not (colon and module and attribute):
        names = ", ".join(known)
        raise InputError(
            f"--dimension {text}: no method {name!r}; there are {names}, or package.module:Class"
        )
    try:
        found: Any = _import(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a stranger's module raises
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"--dimension {text}: {where} cannot be imported ({reason})") from error
    return found


def _import(module: str) -> Any:
    # A console script does not look where its user stands; `python -m` does.
    here = os.getcwd()
    if here in sys.path:
        return import_module(module)
    sys.path.append(here)
    try:
        return import_module(module)
    finally:
        sys.path.remove(here)


def _call(source: str, text: str) -> ast.Call:
    try:
        node = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise InputError(f"--dimension {text}: {error.msg}; write NAME(key=value, ...)") from error
    if not isinstance(node, ast.Call) or isinstance(node.func, ast.Call):
        raise InputError(f"--dimension {text}: write NAME(key=value, ...)")
    return node


def _make(found: Any, call: ast.Call, text: str) -> Any:
    if any(isinstance(a, ast.Starred) for a in call.args) or any(
        k.arg is None for k in call.keywords
    ):
        raise InputError(f"--dimension {text}: write arguments one by one, without * or **")
    args = [_value(node, text) for node in call.args]
    kwargs = {str(k.arg): _value(k.value, text) for k in call.keywords}
    try:
        return found(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"--dimension {text}: {error}{_takes(found)}") from error


def _takes(found: Any) -> str:
    if not dataclasses.is_dataclass(found):
        return ""
    names = ", ".join(f.name for f in dataclasses.fields(found) if f.init)
    return f"; it takes {names}" if names else "; it takes no arguments"


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        return _make(_part(node.func, text), node, text)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _make(_part(node, text), ast.Call(node, [], []), text)


def _part(node: ast.expr, text: str) -> Any:
    # `lanczos`, or `package.module.Class` of a stranger's spectrum method.
    path = ast.unparse(node)
    if isinstance(node, ast.Attribute) and all(p.isidentifier() for p in path.split(".")):
        module, _, name = path.rpartition(".")
        return _find(f"{module}:{name}", {}, text)
    if isinstance(node, ast.Name) and path in PARTS:
        return _find(path, PARTS, text)
    names = ", ".join(PARTS)
    raise InputError(
        f"--dimension {text}: {path} is no literal; inside parentheses there are numbers, strings, "
        f"{names} and package.module.Class"
    )
