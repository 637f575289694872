r"""What an argument may be: declared once, beside its type, and checked at the door.

.. code-block:: python

    @checked
    def level(t: Annotated[Tensor, Values(least=0.0)]) -> Tensor: ...

    @checked
    @dataclass(frozen=True)
    class Training:
        steps: Annotated[int, Whole(least=1)] = 6000
        learning_rate: Annotated[float, Number(above=0.0)] = 1e-3

A call with anything else ends in an :class:`~geomem.errors.InputError` that names the parameter
in backticks, says what was passed and what would be accepted. What can be taken as meant is
taken: a text where a path is wanted and the other way, a list or a number where a tensor is,
NumPy's numbers.
Plain annotations (``int``, ``float``, ``bool``, ``str``, ``Path``, ``Literal``, tensors,
functions, classes, protocols, lists, tuples and unions of them) are checked as they stand; a
float is finite unless ``Number(infinite=True)``.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from geomem.errors import InputError

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Range:
    r"""What is accepted: ``least`` and ``most`` belong to it, ``above`` and ``below`` do not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, low: float, high: float) -> bool:
        return (
            (self.least is None or low >= self.least)
            and (self.most is None or high <= self.most)
            and (self.above is None or low > self.above)
            and (self.below is None or high < self.below)
        )

    def __str__(self) -> str:
        pairs = (
            ("from {:g}", self.least),
            ("above {:g}", self.above),
            ("to {:g}", self.most),
            ("below {:g}", self.below),
        )
        return " ".join(text.format(end) for text, end in pairs if end is not None)


@dataclass(frozen=True)
class Number(_Range):
    r"""A real number in a range; finite unless ``infinite``."""

    infinite: bool = False


@dataclass(frozen=True)
class Whole(_Range):
    r"""An integer in a range: 32.0 and True are none."""


@dataclass(frozen=True)
class Text:
    r"""A text that is not empty."""


@dataclass(frozen=True)
class Values(_Range):
    r"""An array or a tensor of finite numbers in a range.

    Attributes:
        shape: Its shape in words, as in ``(N, *)``: names are sizes of at least 1, numbers are
            themselves, ``*`` is any number of further axes. Anything if not given.
        infinite: Whether infinity is a value, too; NaN never is.
        whole: Whether integers stay integers; else they become floats.
    """

    shape: str | None = None
    infinite: bool = False
    whole: bool = False


def check(name: str, value: Any, annotation: Any) -> Any:
    r"""The value as its annotation wants it.

    Raises:
        InputError: If it cannot be taken as that, naming the parameter.

    Example:
        >>> check("steps", np.int64(3), Annotated[int, Whole(least=1)])
        3
        >>> check("rate", float("nan"), float)
        Traceback (most recent call last):
        ...
        geomem.errors.InputError: `rate` is nan; pass a finite number
    """
    rule: Any = None
    if get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        rule = next((e for e in extra if isinstance(e, (_Range, Text))), None)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _check_union(name, value, [Annotated[a, rule] if rule else a for a in inner])
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in inner):
            raise InputError(f"`{name}` is {shown(value)}; {near(value, inner)}")
        return value
    if origin is tuple:
        return _check_tuple(name, value, inner)
    if isinstance(rule, Values):
        return _check_values(name, value, annotation, rule)
    if annotation is bool:
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(f"`{name}` is {shown(value)}; pass True or False")
        return bool(value)
    if annotation is int or isinstance(rule, Whole):
        return _check_whole(name, value, rule or Whole())
    if annotation is float or isinstance(rule, Number):
        return _check_number(name, value, rule or Number())
    if annotation is str:
        if isinstance(value, Path):  # a bare name stays a path
            value = str(value) if value.parts[1:] else f"./{value}"
        if not isinstance(value, str) or (isinstance(rule, Text) and not value.strip()):
            raise InputError(f"`{name}` is {shown(value)}; pass a text")
        return value
    if annotation is Path:
        if not isinstance(value, (str, Path)) or not str(value):
            raise InputError(f"`{name}` is {shown(value)}; pass a path")
        return Path(value)
    if origin in (Sequence, Iterable):
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise InputError(f"`{name}` is {shown(value)}; pass a list")
        if isinstance(value, (list, tuple)):
            return type(value)([check(name, v, inner[0]) for v in value])
        if getattr(value, "ndim", 1) == 0:
            raise InputError(f"`{name}` is one value; pass a list")
        if inner[0] in (int, float) and hasattr(value, "dtype"):  # an array, not entry by entry
            annotation = type(value)
            return (
                _check_values(name, value, annotation, Values(whole=True)) if len(value) else value
            )
        return [check(name, v, inner[0]) for v in value]
    if origin is Callable or annotation is Callable:
        if not callable(value):
            raise InputError(f"`{name}` is {shown(value)}; pass a function")
        return value
    if isinstance(annotation, type) and annotation not in (object, Any) and origin is None:
        return _check_object(name, value, annotation)
    return value


def checked(target: T) -> T:
    r"""Checks the arguments of every call of a function, or of the making of a class.

    What an annotation does not say anything about, passes; a missing or an unknown argument is
    Python's own ``TypeError``. A check takes microseconds: not for inner loops.
    """
    function: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    signature = inspect.signature(function)
    owner = target if isinstance(target, type) else None

    @functools.cache
    def rules() -> dict[str, Any]:
        return declared(function, owner)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name, annotation in rules().items():
            if name in bound.arguments:
                bound.arguments[name] = check(name, bound.arguments[name], annotation)
        return function(*bound.args, **bound.kwargs)

    if owner is None:
        return wrapper  # type: ignore[return-value]
    owner.__init__ = wrapper  # type: ignore[misc]
    return target


def declared(function: Callable[..., Any], owner: type | None = None) -> dict[str, Any]:
    r"""The annotations of the parameters of a function that can be evaluated.

    Arguments:
        function: The function, or a class's ``__init__``.
        owner: That class; annotations are looked up where its fields were declared.
    """
    found: dict[str, Any] = {}
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.annotation is inspect.Parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        modules = [function.__module__]
        for base in owner.__mro__ if owner else ():
            if parameter.name in inspect.get_annotations(base):
                modules.insert(0, base.__module__)
                break
        found[parameter.name] = _evaluated(parameter.annotation, modules)
    return {name: value for name, value in found.items() if value is not None}


def _evaluated(annotation: Any, modules: Sequence[str]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    for module in modules:
        try:
            return eval(annotation, vars(sys.modules[module]))
        except NameError:  # known to type checkers alone
            continue
    return None


def shown(value: Any) -> str:
    r"""A value as an error shows it: short, whatever it is."""
    if hasattr(value, "shape") and getattr(value, "ndim", 0) > 0:
        return f"an array of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def near(value: Any, names: Sequence[Any]) -> str:
    r"""What to pass instead of a name that there is not: the nearest one first.

    Example:
        >>> near("swep", ["sweep", "plan"])
        "did you mean 'sweep'? There are 'sweep' and 'plan'"
    """
    listed = [repr(name) for name in names]
    every = " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))
    close = get_close_matches(str(value), [str(name) for name in names], n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}? There are {every}"
    return f"pass one of {every}" if len(names) > 1 else f"pass {every}"


def _check_union(name: str, value: Any, choices: Sequence[Any]) -> Any:
    plain = [get_args(c)[0] if get_origin(c) is Annotated else c for c in choices]
    if value is None and type(None) in plain:
        return None
    error: InputError | None = None
    pairs = list(zip(choices, plain, strict=True))
    # A number stays one where it may: as a tensor it would be rounded to float32.
    pairs.sort(key=lambda p: getattr(p[1], "__name__", "") == "Tensor" and type(value) is not p[1])
    for choice, kind in pairs:
        if kind is type(None):
            continue
        try:
            return check(name, value, choice)
        except InputError as refused:
            better = isinstance(value, str) and get_origin(kind) is Literal
            error = refused if better or error is None else error
    assert error is not None
    raise error


def _check_object(name: str, value: Any, kind: type) -> Any:
    torch: Any = sys.modules.get("torch")
    if torch is not None and kind is torch.Tensor:
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"`{name}` is {shown(value)}; pass a tensor") from error
        if value.is_complex():
            raise InputError(f"`{name}` holds {value.dtype}; pass real numbers")
        return value
    if getattr(kind, "_is_protocol", False):  # not a class of ours, but what has its methods
        wanted = [n for n, m in vars(kind).items() if inspect.isfunction(m) and n not in _PROTOCOL]
        fits_in = not isinstance(value, type) and all(hasattr(value, n) for n in wanted)
    else:
        fits_in = isinstance(value, kind)
    if not fits_in:
        raise InputError(f"`{name}` is {shown(value)}; pass a {kind.__name__}")
    return value


_PROTOCOL = ("__init__", "__subclasshook__", "_proto_hook", "_no_init_or_replace_init")


def _check_tuple(name: str, value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise InputError(f"`{name}` is {shown(value)}; pass a tuple")
    if getattr(value, "ndim", 1) == 0:
        raise InputError(f"`{name}` is one value; pass a tuple")
    values = list(value)
    if len(inner) == 2 and inner[1] is Ellipsis:
        inner = (inner[0],) * len(values)
    if len(values) != len(inner):
        raise InputError(f"`{name}` has {len(values)} entries; pass {len(inner)}")
    return tuple(check(name, v, a) for v, a in zip(values, inner, strict=True))


def _check_whole(name: str, value: Any, rule: Whole | Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        item = getattr(value, "item", None)  # a tensor or an array of one integer
        value = item() if callable(item) and getattr(value, "ndim", 1) == 0 else value
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
            raise InputError(f"`{name}` is {shown(value)}; pass {_wanted('a whole number', rule)}")
    if not rule.holds(int(value), int(value)):
        raise InputError(f"`{name}` is {shown(value)}; pass {_wanted('a whole number', rule)}")
    return int(value)


def _check_number(name: str, value: Any, rule: Number | Any) -> float:
    infinite = getattr(rule, "infinite", False)
    kind = "a number" if infinite else "a finite number"
    item = getattr(value, "item", None)
    if not isinstance(value, Real) and callable(item) and getattr(value, "ndim", 1) == 0:
        value = item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise InputError(f"`{name}` is {shown(value)}; pass {_wanted(kind, rule)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf  # a whole number of more than 300 digits
    bad = math.isnan(number) or (math.isinf(number) and not infinite)
    if bad or not rule.holds(number, number):
        raise InputError(f"`{name}` is {shown(value)}; pass {_wanted(kind, rule)}")
    return number


def _wanted(kind: str, rule: _Range) -> str:
    return f"{kind} {rule}".rstrip()


def _check_values(name: str, value: Any, annotation: Any, rule: Values) -> Any:
    torch: Any = sys.modules.get("torch")
    wants_tensor = torch is not None and annotation is torch.Tensor
    try:
        if wants_tensor and not isinstance(value, torch.Tensor):
            value = torch.as_tensor(value)
        elif not wants_tensor:
            value = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"`{name}` is {shown(value)}; pass numbers") from error
    array = value.detach() if wants_tensor else value
    kind = str(array.dtype)
    if not any(k in kind for k in ("float", "int")):
        raise InputError(f"`{name}` holds {array.dtype}; pass real numbers")
    if "int" in kind and not rule.whole:
        value = value.to(torch.get_default_dtype()) if wants_tensor else value.astype(float)
        array = value
    if rule.shape is not None and not fits(tuple(array.shape), rule.shape):
        raise InputError(
            f"`{name}` has shape {tuple(array.shape)}; pass one of shape {rule.shape}, none of it 0"
        )
    size = int(np.prod(tuple(array.shape)))
    if size == 0:
        return value
    low, high = float(array.min()), float(array.max())
    if math.isnan(low) or math.isnan(high):
        raise InputError(f"`{name}` holds NaN; find out where it comes from")
    if not rule.infinite and not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"`{name}` holds infinity; pass finite numbers")
    if not rule.holds(low, high):
        extreme = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise InputError(f"`{name}` holds {extreme}; pass numbers {rule}")
    return value


def fits(shape: tuple[int, ...], pattern: str) -> bool:
    r"""Whether a shape is one of a pattern, with no axis of length 0.

    Example:
        >>> fits((5, 3, 2), "(N, *)"), fits((5,), "()"), fits((4, 2), "(B, 3)"), fits((0,), "(N)")
        (True, False, False, False)
    """
    parts = [part.strip() for part in pattern.strip("()").split(",") if part.strip()]
    if 0 in shape:
        return False
    if "*" in parts:
        k = parts.index("*")
        before, after = parts[:k], parts[k + 1 :]
        if len(shape) < len(before) + len(after):
            return False
        parts = before + ["_"] * (len(shape) - len(before) - len(after)) + after
    if len(parts) != len(shape):
        return False
    sizes: dict[str, int] = {}
    for part, size in zip(parts, shape, strict=True):
        if part.isdigit() and int(part) != size:
            return False
        if part.isidentifier() and part != "_" and sizes.setdefault(part, size) != size:
            return False
    return True
