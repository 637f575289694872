r"""The verb: the spectrum of an operator, by a method that is named or chosen.

The methods are values: :class:`Dense` and :class:`Gram` know every eigenvalue,
:class:`LanczosQuadrature` and :class:`RandomizedSVD` sample and bound, at any size. What
``method="auto"`` chose, and why, is said in :attr:`Spectrum.how`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

from geomem.arguments import Number, Whole, checked, shown
from geomem.compute.memory import available_memory, format_bytes
from geomem.errors import InputError
from geomem.operators.linear import Factored, LinearOperator
from geomem.spectra.lanczos import LanczosQuadrature
from geomem.spectra.measures import (
    Dense,
    Gram,
    Spectrum,
    SpectrumMethod,
)

# Up to here all eigenvalues take seconds for a network, and nothing is gained by sampling.
_SMALL = 1024
# A column multiplied from both sides takes about as long as three from one side (measured).
_BOTH_SIDES = 3.0


@checked
def spectrum(
    operator: LinearOperator,
    method: SpectrumMethod | Literal["auto"] | None = None,
    *,
    accuracy: Annotated[float | None, Number(least=0.0)] = None,
    max_bytes: Annotated[float | None, Number(least=0.0, infinite=True)] = None,
    seed: Annotated[int, Whole(least=0)] = 0,
) -> Spectrum:
    r"""Spectrum of the symmetric part of an operator.

    Arguments:
        operator: The operator; its asymmetry is not looked at, see :func:`asymmetry`.
        method: How; :class:`Dense` if not given. ``auto`` takes :class:`Gram` where there is
            a factor, :class:`Dense` up to 1024 coordinates, where accuracy 0 is asked for, or
            where sampling would take as long, and :class:`LanczosQuadrature` otherwise.
        accuracy: For ``auto``, the standard error that the trace shall have; 0 is exact, and
            1 if not given.
        max_bytes: For ``auto``, the memory that it may take; half of what is free if not given.
            Where it stops the sampling, :attr:`Spectrum.how` says so, and the error is larger.
        seed: For ``auto``, the seed of what it samples.

    Raises:
        InputError: If an exact spectrum is asked for and does not fit into the memory, or not
            even eight probes do.

    Example:
        The exact denoiser of points on a plane varies along two directions of five.

        >>> import torch
        >>> from geomem.exact import EmpiricalDenoiser
        >>> from geomem.operators import DenoiserJacobian
        >>> rng = torch.Generator().manual_seed(0)
        >>> data = torch.randn(4000, 2, generator=rng) @ torch.eye(2, 5)
        >>> J = DenoiserJacobian(EmpiricalDenoiser(data), torch.zeros(5), torch.tensor(0.3))
        >>> spectrum(J, Dense()).count(above=0.5)
        2 ± 0
        >>> spectrum(J, "auto").how
        'dense: all 5 eigenvalues; chosen: 5 coordinates are few'
    """
    symmetric = operator.symmetric_part
    if callable(method):
        found = method(symmetric)
        if not isinstance(found, Spectrum):
            raise InputError(f"`method` answers {shown(found)}; return a Spectrum")
        return found
    if method is None:
        return Dense()(symmetric)
    if method != "auto":
        raise InputError(
            f"the spectrum method is {shown(method)}; pass 'auto' or a value like Dense()"
        )
    n, goal = symmetric.size, 1.0 if accuracy is None else accuracy
    if isinstance(symmetric, Factored):
        return _chosen(Gram()(symmetric), "there is a factor")
    room = available_memory() / 2 if max_bytes is None else max_bytes
    dense = 8 * Dense().need(n).numbers
    fits = dense <= room
    if goal == 0 and not fits:
        raise InputError(
            f"all {n} eigenvalues take {format_bytes(dense)} and {format_bytes(room)} are allowed; "
            "ask for an `accuracy` above 0, or raise `max_bytes`"
        )
    if goal == 0 or (n <= _SMALL and fits):
        why = "exact is asked for" if goal == 0 else f"{n} coordinates are few"
        return _chosen(Dense()(symmetric), why)
    return _sampled(symmetric, goal, fits, room, seed)


def _sampled(operator: LinearOperator, goal: float, fits: bool, room: float, seed: int) -> Spectrum:
    # Eight probes say how many there must be; their depth, how sharp a count can be.
    n, depth = operator.size, 24
    one = 8 * LanczosQuadrature(depth=depth, probes=1).need(n).numbers
    if 8 * one > room:
        raise InputError(
            f"8 probes of depth {depth} take {format_bytes(8 * one)} and {format_bytes(room)} are "
            "allowed; raise `max_bytes`, or pass a smaller LanczosQuadrature(depth=8, probes=4)"
        )
    pilot = LanczosQuadrature(depth=depth, probes=8, seed=seed)
    first = pilot(operator)
    reached = first.trace().stderr
    if reached <= goal:
        return _chosen(first, f"the trace is known to ± {reached:.2g}")
    probes = math.ceil(8 * (reached / goal) ** 2)
    if fits and depth * (probes - 8) * _BOTH_SIDES > n:
        return _chosen(
            Dense()(operator), f"± {goal:g} by sampling would take {depth * probes} products"
        )
    taken = min(probes, int(room / one))
    why = f"± {goal:g} takes {probes} probes"
    if taken < probes:
        why += f", of which {format_bytes(room)} hold {taken}"
    return _chosen(LanczosQuadrature(depth=depth, probes=taken, seed=seed)(operator), why)


def _chosen(found: Spectrum, why: str) -> Spectrum:
    return dataclasses.replace(found, how=f"{found.how}; chosen: {why}")
