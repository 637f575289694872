r"""At the door of every measurement: is this a denoiser that can be measured?

A measurement asks a denoiser thousands of times and believes every answer. What is wrong with
it is therefore said before, in one sentence that names the cause: NaN, another shape, random
numbers, a network in train mode, a level that it was never trained on, an answer that does
not depend on the question. Two calls a denoiser and shape, one call for each further level.
"""

from __future__ import annotations

import warnings
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from geomem.denoiser import Denoiser, is_exact
from geomem.errors import InputError
from geomem.modules import BATCH_NORMS, depends_on_mode, describe, draws, networks, trained_range
from geomem.noise import check_levels

# Places where a denoiser has passed, as long as it lives.
_known: WeakKeyDictionary[Any, dict[str, set[tuple[Any, ...]]]] = WeakKeyDictionary()


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
            :func:`~geomem.modules.trained_range`, or if the answer is the same at two points far
            apart.

    Example:
        >>> admit(lambda x, sigma: x[0], torch.zeros(2), torch.tensor(1.0))
        Traceback (most recent call last):
        ...
        geomem.errors.InputError: the denoiser returned shape (2,) for points of shape (2, 2); ...
    """
    if not callable(denoiser):
        raise InputError(
            f"the denoiser is a {type(denoiser).__name__}; pass a function of x, sigma"
        )
    if not isinstance(sigma, Tensor) or sigma.numel() != 1:
        given = f"shape {tuple(sigma.shape)}" if isinstance(sigma, Tensor) else repr(sigma)
        raise InputError(
            f"a noise level is a tensor of shape (), got {given}; pass torch.tensor(0.5), say, "
            "and one level at a time"
        )
    level = float(check_levels(sigma.detach()))
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = str(x.dtype) if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise InputError(f"the point is {given}; pass a tensor of floats")
    if not bool(torch.isfinite(x).all()):
        raise InputError("the point holds NaN or infinite values; check where it comes from")
    _warn_outside(denoiser, level)
    mode = tuple(module.training for _, module in networks(denoiser) if depends_on_mode(module))
    place = (tuple(x.shape), x.dtype, x.device, mode)
    passed = _places(denoiser)
    if (*place, level) not in passed:
        _check_answers(denoiser, x.detach(), sigma.detach(), whole=place not in passed)
        passed |= {place, (*place, level)}


def _places(denoiser: Any) -> set[tuple[Any, ...]]:
    # A method is remembered with its object. Without weak references, or a hash, nothing is.
    is_method = isinstance(denoiser, MethodType)
    holder = denoiser.__self__ if is_method else denoiser
    name = denoiser.__func__.__name__ if is_method else ""
    try:
        return _known.setdefault(holder, {}).setdefault(name, set())
    except TypeError:
        return set()


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
        if module.training and draws(module):
            raise InputError(
                f"{name} ({describe(module)}) is in train mode, and two equal calls of the "
                "denoiser differ; call .eval() on the network before it is measured"
            )
    raise InputError(
        "two equal calls of the denoiser differ, so it draws random numbers; "
        "fix its seed, or return the mean instead of a sample"
    )


def _check_rare_draws(denoiser: Denoiser, batch: Tensor, sigma: Tensor) -> None:
    # A low rate spares two calls by luck; one of 1 % is still met in 31 times 16 points, with
    # a probability of 1 - .99^496. Only where something may draw, which is not at rest.
    if not any(module.training and draws(module) for _, module in networks(denoiser)):
        return
    crowd = batch.repeat_interleave(8, dim=0)
    first = denoiser(crowd, sigma)
    for _ in range(31):
        _check_repeats(denoiser, first, denoiser(crowd, sigma))


def _check_alone(denoiser: Denoiser, first: Tensor, batch: Tensor, sigma: Tensor) -> None:
    norms = [n for n, m in networks(denoiser) if isinstance(m, BATCH_NORMS) and m.training]
    if not norms:
        return
    try:
        alone = denoiser(batch[:1], sigma)
    except ValueError:  # torch refuses to normalise by a batch of one value
        alone = None
    if alone is None or not _close(first[0], alone[0], torch.finfo(first.dtype).eps ** 0.5):
        raise InputError(
            f"{norms[0]} (a batch norm) is in train mode, so that points of a batch see each "
            "other; call .eval() on the network before it is measured"
        )


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = max(float(a.abs().max()), torch.finfo(a.dtype).tiny) if a.numel() else 1.0
    return bool(((a - b).abs() <= tolerance * scale).all())


def _warn_outside(denoiser: Denoiser, level: float) -> None:
    known = trained_range(denoiser)
    # Levels at the ends went through a dtype and a logarithm.
    if known is None or known[0] * (1 - 1e-4) <= level <= known[1] * (1 + 1e-4):
        return
    side = "below" if level < known[0] else "above"
    passed = _places(denoiser)
    if (side,) in passed:
        return
    passed.add((side,))
    warnings.warn(
        f"sigma = {level:.4g} is {side} the levels that the denoiser was trained on, "
        f"{known[0]:.4g} to {known[1]:.4g}; what it answers there is an extrapolation",
        stacklevel=4,
    )
