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
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from geomem.arguments import checked, near
from geomem.dimension.answers import DimensionMethod
from geomem.errors import InputError

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


@checked
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
        try:
            node = ast.parse(f"_({rest}" if bracket else "_()", mode="eval").body
        except SyntaxError as error:
            raise InputError(f"{text!r}: {error.msg}; write NAME(key=value, ...)") from error
        if not isinstance(node, ast.Call) or isinstance(node.func, ast.Call):
            raise InputError(f"{text!r} is no call; write NAME(key=value, ...)")
        found = _make(found, node, text)
    if not callable(found):
        raise InputError(f"{text!r} is a {type(found).__name__}; name a class or function")
    return found  # type: ignore[no-any-return]


def _find(name: str, known: Mapping[str, str], text: str) -> Any:
    classes = {path.rpartition(":")[2]: path for path in known.values()}  # LocalDimension, too
    where = known.get(name) or classes.get(name, name)
    module, colon, attribute = where.partition(":")
    if not (colon and module and attribute):
        raise InputError(
            f"{text!r}: there is no method {name!r}; {near(name, list(known))}, or name your own "
            "as package.module:Class"
        )
    here = os.getcwd()
    added = here not in sys.path
    if added:  # a console script does not look where its user stands; `python -m` does
        sys.path.append(here)
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a stranger's module raises
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{text!r}: {where} cannot be imported ({reason})") from error
    finally:
        if added:
            sys.path.remove(here)
    return found


def _make(found: Any, call: ast.Call, text: str) -> Any:
    keys = [k.arg for k in call.keywords]
    if any(isinstance(a, ast.Starred) for a in call.args) or None in keys:
        raise InputError(f"{text!r}: write arguments one by one, without * or **")
    takes = ""
    if dataclasses.is_dataclass(found):
        names = [f.name for f in dataclasses.fields(found) if f.init]
        takes = f"; it takes {', '.join(names) or 'no arguments'}"
        for key in keys:
            if names and key not in names:
                raise InputError(f"{text!r}: there is no argument {key!r}; {near(key, names)}")
    args = [_value(node, text) for node in call.args]
    kwargs = {str(k.arg): _value(k.value, text) for k in call.keywords}
    try:
        return found(*args, **kwargs)
    except InputError as error:  # of the method's own arguments, which are no options
        raise InputError(f"{text!r}: {str(error).replace('`', '')}") from error
    except TypeError as error:
        raise InputError(f"{text!r}: {error}{takes}") from error


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
    raise InputError(
        f"{text!r}: {path} is no literal; inside parentheses there are numbers, strings, "
        f"{', '.join(PARTS)} and package.module.Class"
    )
