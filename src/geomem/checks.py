r"""At the door of every measurement: is this a denoiser that can be measured?

A measurement asks a denoiser thousands of times and believes every answer. What is wrong with
it is therefore said before, in one sentence that names the cause: NaN, another shape, random
numbers, a network in train mode, a level that it was never trained on, an answer that does
not depend on the question. Two calls a denoiser and shape, one call for each further level.
"""

from __future__ import annotations

import dis
import functools
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.noise import VariancePreserving, check_levels

# How far networks are looked for behind a callable: pipelines nest a few wrappers, not more.
_DEPTH, _WIDTH, _PARTS = 6, 256, 10_000
_LEAVES = (str, bytes, int, float, complex, type(None), Tensor, np.ndarray, ModuleType, type)


def admit(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> None:
    r"""Lets a denoiser in, or says what is wrong with it and what to do.

    What passed is remembered as long as the denoiser lives, so that a measurement at many
    points asks once.

    Arguments:
        denoiser: The denoiser :math:`D`.
        x: One noisy point, with shape :math:`(*)`.
        sigma: The noise level, with shape :math:`()`.

    Raises:
        InputError: If the level is no single tensor above 0, the point or the answer holds NaN
            or infinity, the answer has another shape, the input is changed in place, two equal
            calls differ (a dropout in train mode is named), or a batch norm in train mode lets
            points see each other.

    Warns:
        UserWarning: If the level is outside the levels that the denoiser was trained on, see
            :func:`trained_range`, or if the answer is the same at two points far apart.

    Example:
        >>> admit(lambda x, sigma: x[0], torch.zeros(2), torch.tensor(1.0))
        Traceback (most recent call last):
        ...
        geomem.errors.InputError: the denoiser returned shape (2,) for points of shape (2, 2); ...
    """
    level = _level(sigma)
    if not bool(torch.isfinite(x).all()):
        raise InputError("the point holds NaN or infinite values; check where it comes from")
    _warn_outside(denoiser, level)
    mode = tuple(module.training for _, module in networks(denoiser) if _minds_mode(module))
    place = (tuple(x.shape), x.dtype, x.device, mode)
    if not _passed(denoiser, (*place, level)):
        whole = not _passed(denoiser, place)
        _check_answers(denoiser, x.detach(), sigma.detach(), whole=whole)
        _remember(denoiser, place)
        _remember(denoiser, (*place, level))


def _level(sigma: Any) -> float:
    if not isinstance(sigma, Tensor) or sigma.numel() != 1:
        given = f"shape {tuple(sigma.shape)}" if isinstance(sigma, Tensor) else repr(sigma)
        raise InputError(
            f"a noise level is a tensor of shape (), got {given}; pass torch.tensor(0.5), say, "
            "and one level at a time"
        )
    return float(check_levels(sigma.detach()))


# ------------------------------------------------------------------------- what it answers


def _check_answers(denoiser: Denoiser, x: Tensor, sigma: Tensor, *, whole: bool) -> None:
    batch = torch.stack([x, _far_from(x, float(sigma))]) if whole else x[None].clone()
    given = batch.clone()
    with torch.no_grad():
        first = check_answer(denoiser(batch, sigma), batch, sigma)
        if not torch.equal(batch, given):
            raise InputError("the denoiser changes its input in place; let it work on a copy")
        if not whole:
            return
        _check_repeats(denoiser, first, denoiser(batch, sigma))
        _check_rare_draws(denoiser, batch, sigma)
        _check_alone(denoiser, first, batch, sigma)
    if torch.equal(first[0], first[1]) and not is_exact(denoiser):
        warnings.warn(
            f"the denoiser gives the same answer at two points far apart (sigma = "
            f"{float(sigma):.4g}), so that nothing varies and every dimension is 0; unless it has "
            "collapsed on one point, check that it uses its input",
            stacklevel=4,
        )


def check_answer(y: Any, x: Tensor, sigma: Tensor) -> Tensor:
    r"""The answer of a denoiser to a batch ``x``, if it is one clean point for each noisy one.

    Only the first point must be finite: the others may be far from all data.

    Raises:
        InputError: For another type, another shape, integers, and NaN or infinity.
    """
    if not isinstance(y, Tensor):
        hint = "its `.sample`" if isinstance(getattr(y, "sample", None), Tensor) else "a tensor"
        raise InputError(f"the denoiser returned a {type(y).__name__}; return {hint}")
    if y.shape != x.shape:  # broadcasting would make numbers of it
        raise InputError(
            f"the denoiser returned shape {tuple(y.shape)} for points of shape "
            f"{tuple(x.shape)}; return one clean point for each noisy one"
        )
    if not y.is_floating_point():
        raise InputError(f"the denoiser returned {y.dtype}; return floats in the dtype of x")
    if not bool(torch.isfinite(y[0]).all()):
        raise InputError(
            f"the denoiser returned NaN or infinity at sigma = {float(sigma):.4g}; "
            "check its weights and the levels that it was trained on"
        )
    return y


def _far_from(x: Tensor, sigma: float) -> Tensor:
    # As far as the noise and the data are wide, in a fixed direction off all axes.
    signs = torch.ones(x.numel())
    signs[1::2] = -1
    width = max(sigma, float(x.double().square().mean().sqrt()), 1.0)
    return x + width * signs.to(x).reshape(x.shape)


def _check_repeats(denoiser: Denoiser, first: Tensor, second: Tensor) -> None:
    # Rounding may depend on the run (sums of atomics on a GPU); random numbers are far larger.
    finite = torch.isfinite(first).flatten(1).all(1)
    if _close(first[finite], second[finite], 100 * torch.finfo(first.dtype).eps):
        return
    for name, module in networks(denoiser):
        if module.training and _drops(module):
            raise InputError(
                f"{name} ({_describe(module)}) is in train mode, and two equal calls of the "
                "denoiser differ; call .eval() on the network before it is measured"
            )
    raise InputError(
        "two equal calls of the denoiser differ, so it draws random numbers; "
        "fix its seed, or return the mean instead of a sample"
    )


def _check_rare_draws(denoiser: Denoiser, batch: Tensor, sigma: Tensor) -> None:
    # A low rate spares two calls by luck; one of 1 % is still met in 31 times 16 points, with
    # a probability of 1 - .99^496. Only where something may draw, which is not at rest.
    if not any(module.training and _drops(module) for _, module in networks(denoiser)):
        return
    crowd = batch.repeat_interleave(8, dim=0)
    first = denoiser(crowd, sigma)
    for _ in range(31):
        _check_repeats(denoiser, first, denoiser(crowd, sigma))


def _check_alone(denoiser: Denoiser, first: Tensor, batch: Tensor, sigma: Tensor) -> None:
    norms = [n for n, m in networks(denoiser) if isinstance(m, _BATCH_NORMS) and m.training]
    if not norms:
        return
    with torch.no_grad():
        alone = _alone(denoiser, batch[:1], sigma)
    if alone is None or not _close(first[0], alone[0], torch.finfo(first.dtype).eps ** 0.5):
        raise InputError(
            f"{norms[0]} (a batch norm) is in train mode, so that points of a batch see each "
            "other; call .eval() on the network before it is measured"
        )


def _alone(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor | None:
    try:
        return denoiser(x, sigma)
    except ValueError:  # torch refuses to normalise by a batch of one value
        return None


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = max(float(a.abs().max()), torch.finfo(a.dtype).tiny) if a.numel() else 1.0
    return bool(((a - b).abs() <= tolerance * scale).all())


def is_exact(denoiser: Denoiser) -> bool:
    r"""Whether a denoiser answers for its posterior, as ours do.

    At small levels such a one has rightly collapsed on a point: nothing varies, and nothing is
    wrong.

    Example:
        >>> from geomem.exact import EmpiricalDenoiser
        >>> is_exact(EmpiricalDenoiser(torch.eye(2))), is_exact(lambda x, sigma: x)
        (True, False)
    """
    return hasattr(denoiser, "posterior") or hasattr(denoiser, "log_density")


# -------------------------------------------------------------------- what it was trained on


def trained_range(denoiser: Denoiser) -> tuple[float, float] | None:
    r"""The noise levels that a denoiser was trained on, as far as it says.

    A denoiser says so by attributes ``sigma_min`` and ``sigma_max``, or through its schedule:
    the levels of discrete betas, the ends of an exploding or preserving variance. Flow
    matching and EDM's "level is the time" have no ends of their own.

    Example:
        >>> from geomem.denoiser import ScheduledDenoiser
        >>> from geomem.noise import VarianceExploding
        >>> backbone = lambda x, t: x
        >>> trained_range(ScheduledDenoiser(backbone, VarianceExploding(0.1, 9.0), "clean"))
        (0.1, 9.0)
    """
    owner: Any = _owner(denoiser)
    for carrier in (owner, getattr(owner, "schedule", None)):
        ends = getattr(carrier, "sigma_min", None), getattr(carrier, "sigma_max", None)
        if all(isinstance(end, (int, float)) for end in ends):
            return float(ends[0]), float(ends[1])  # type: ignore[arg-type]
        levels = getattr(carrier, "levels", None)
        if isinstance(levels, Tensor) and levels.numel():
            return float(levels.min()), float(levels.max())
        if isinstance(carrier, VariancePreserving):
            return 0.0, float(carrier.level(torch.ones((), dtype=torch.float64)))
    return None


def _warn_outside(denoiser: Denoiser, level: float) -> None:
    known = trained_range(denoiser)
    # Levels at the ends went through a dtype and a logarithm.
    if known is None or known[0] * (1 - 1e-4) <= level <= known[1] * (1 + 1e-4):
        return
    side = "below" if level < known[0] else "above"
    if _passed(denoiser, (side,)):
        return
    _remember(denoiser, (side,))
    warnings.warn(
        f"sigma = {level:.4g} is {side} the levels that the denoiser was trained on, "
        f"{known[0]:.4g} to {known[1]:.4g}; what it answers there is an extrapolation",
        stacklevel=4,
    )


# ------------------------------------------------------------------- the networks behind it


def networks(denoiser: object) -> Iterator[tuple[str, nn.Module]]:
    r"""The networks behind a callable and all their parts, by name.

    They are looked for in the callable itself, its attributes, the variables that a function
    uses, what a method is bound to and what ``functools.partial`` holds.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
        >>> [name for name, module in networks(lambda x, sigma: network(x))]
        ['network', 'network.0', 'network.1']
    """
    seen: set[int] = set()
    queue: deque[tuple[str, object, int]] = deque([("denoiser", denoiser, 0)])
    while queue and len(seen) < _PARTS:
        name, thing, depth = queue.popleft()
        if id(thing) in seen or isinstance(thing, _LEAVES):
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            yield name, thing
        if depth < _DEPTH or isinstance(thing, nn.Module):
            queue.extend((label, part, depth + 1) for label, part in _parts(name, thing))


def _parts(name: str, thing: Any) -> Iterator[tuple[str, object]]:
    if isinstance(thing, MethodType):
        yield name, thing.__self__
    elif isinstance(thing, FunctionType):
        yield from _variables(thing)
    elif isinstance(thing, functools.partial):
        yield name, thing.func
        yield from ((name, part) for part in thing.args)
        yield from thing.keywords.items()
    elif isinstance(thing, (list, tuple)):
        yield from ((f"{name}[{i}]", part) for i, part in enumerate(islice(thing, _WIDTH)))
    elif isinstance(thing, dict):
        yield from ((f"{name}[{key!r}]", part) for key, part in islice(thing.items(), _WIDTH))
    elif isinstance(thing, nn.Module):
        yield from ((f"{name}.{child}", part) for child, part in thing.named_children())
        # What a module keeps for itself starts with an underscore; the rest may wrap another.
        own = ((k, v) for k, v in vars(thing).items() if not k.startswith("_"))
        yield from ((f"{name}.{key}", part) for key, part in own)
    else:
        attributes = getattr(thing, "__dict__", {})
        yield from ((f"{name}.{key}", part) for key, part in islice(attributes.items(), _WIDTH))


def _variables(function: FunctionType) -> Iterator[tuple[str, object]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    yield from ((name, cell.cell_contents) for name, cell in cells if _is_filled(cell))
    found = function.__globals__
    yield from ((name, found[name]) for name in _globals_of(function.__code__) if name in found)


@functools.lru_cache(maxsize=1024)
def _globals_of(code: CodeType) -> list[str]:
    # Names of attributes stand beside those of globals in the code: only loads of globals count.
    return sorted({i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"})


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def _minds_mode(module: nn.Module) -> bool:
    return _drops(module) or isinstance(module, _BATCH_NORMS)


def _drops(module: nn.Module) -> bool:
    # torch's dropouts hold p, attention and recurrent nets `dropout`, DropPath `drop_prob`.
    if isinstance(module, nn.RReLU):
        return True
    attention = isinstance(module, (nn.MultiheadAttention, nn.RNNBase))
    is_drop = attention or "drop" in type(module).__name__.lower()
    values = (getattr(module, key, 0) for key in ("p", "dropout", "drop_prob"))
    return is_drop and any(isinstance(v, (int, float)) and v > 0 for v in values)


def _describe(module: nn.Module) -> str:
    extra = module.extra_repr()
    return f"{type(module).__name__}, {extra}" if extra else type(module).__name__


# ------------------------------------------------------------------------- what has passed

# Denoisers that have passed, by identity and place; a dead one leaves by itself.
_known: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()


def _owner(denoiser: Any) -> Any:
    # A bound method is a new object at every access, a partial is a wrapper: what they belong to.
    if isinstance(denoiser, MethodType):
        return _owner(denoiser.__self__)
    return _owner(denoiser.func) if isinstance(denoiser, functools.partial) else denoiser


def _key(denoiser: Any, place: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    is_method = isinstance(denoiser, MethodType)
    owner = denoiser.__self__ if is_method else denoiser
    name = denoiser.__func__.__name__ if is_method else ""
    return owner, (id(owner), name, *place)


def _passed(denoiser: Callable[..., Any], place: tuple[Any, ...]) -> bool:
    owner, key = _key(denoiser, place)
    return _known.get(key) is owner


def _remember(denoiser: Callable[..., Any], place: tuple[Any, ...]) -> None:
    owner, key = _key(denoiser, place)
    try:
        _known[key] = owner
    except TypeError:  # without weak references it is asked every time
        return
