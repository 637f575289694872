r"""Checks of a dimension method: planes of known dimension, refusals, errors over seeds."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.dimension.answers import DimensionMethod, NoGap, Place, place_of
from geomem.errors import InputError
from geomem.exact.gaussian import GaussianDenoiser
from geomem.stats import Estimate, torch_rng
from geomem.testing.common import BEYOND, check_spread, has_seed, nothing_changes, require, reseeded

_D, _M = 12, 4


def check_dimension_method(
    method: DimensionMethod, *, tolerance: float = 0.5, seeds: int = 30
) -> None:
    r"""Checks that a dimension method of yours names dimensions that are known.

    On the population denoiser of a plane of 4 dimensions in 12 it says 4 within the tolerance
    and five of its errors, and the same wherever the plane lies, however it is turned, in
    whatever units, as vector or as image, in float32 and float64; of data in all dimensions,
    all of them or :class:`~geomem.dimension.NoGap`; of one dimension, 1. A method that knows
    "no gap" also says so of spectra without any in 34 of 40 cases. Errors are as large as the
    spread over seeds. A level of 0, NaN in the point and NaN in the answer are refused.

    Arguments:
        method: The method; a sampled one is a dataclass with a field ``seed``.
        tolerance: By how much an answer may differ from a whole dimension.
        seeds: Over how many seeds the errors of a sampled method are compared.

    Raises:
        AssertionError: If any of it does not hold; the message says which.

    Example:
        >>> from geomem.dimension import LargestGap, SoftCount
        >>> check_dimension_method(SoftCount())
        >>> check_dimension_method(LargestGap())
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # planes of no dimension are constant, and told so
        for case in _CASES:
            found = _ask(method, case)
            _check_answer(found, case, tolerance)
        require(
            repr(_ask(method, _CASES[0])) == repr(_ask(method, _CASES[0])),
            "the same method gives two answers to one question: pass it a seed",
        )
        _check_refusals(method)
        _check_dimension_seeds(method, seeds)
        full = next(case for case in _CASES if case.name == _FULL)
        if isinstance(_ask(method, full), NoGap):
            _check_says_no(method)


@dataclass(frozen=True)
class _Case:
    r"""The population of a plane of some dimension, somewhere, and a point on it or near it."""

    name: str
    dim: int = _M
    shape: tuple[int, ...] = (_D,)
    rotation: int = 0
    offset: float = 0.0
    scale: float = 1.0
    sigma: float = 0.05
    dtype: torch.dtype = torch.float64
    variances: tuple[float, ...] = ()

    def x(self, place: Place) -> Tensor:
        rng = torch_rng(1, "testing")
        inside, z = (torch.randn(k, generator=rng).double() for k in (max(1, self.dim), self.size))
        point = self.offset + self.scale * self._factor @ inside
        if place == "noisy":
            point = point + self.scale * self.sigma * z
        return point.reshape(self.shape).to(self.dtype)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def level(self) -> Tensor:
        return torch.tensor(self.scale * self.sigma, dtype=self.dtype)

    @property
    def _factor(self) -> Tensor:
        d, rng = self.size, torch_rng(self.rotation, "testing")
        if self.dim == 0:
            return torch.zeros(d, 1).double()
        Q = torch.linalg.qr(torch.randn(d, d, generator=rng).double()).Q[:, : self.dim]
        variances = torch.tensor(self.variances or (1.0,) * self.dim, dtype=torch.float64)
        factor: Tensor = Q * variances.sqrt()
        return factor

    @property
    def denoiser(self) -> Denoiser:
        mean = torch.full((self.size,), self.offset, dtype=torch.float64)
        population = GaussianDenoiser.from_factor(mean, self.scale * self._factor)
        return _asked(population, self.shape, self.dtype)


_FULL = "data in all of 12 dimensions"
_CASES = [
    _Case("a plane of 4 dimensions in 12"),
    _Case("the plane turned", rotation=7),
    _Case("the plane moved", offset=3.0),
    _Case("the plane in units of a hundredth", scale=100.0),
    _Case("the plane of images", shape=(1, 3, 4)),
    _Case("the plane in float32", dtype=torch.float32),
    _Case(_FULL, dim=_D),
    _Case("a single point", dim=0),
    _Case("a line in one dimension", dim=1, shape=(1,)),
]


def _asked(denoiser: Denoiser, shape: tuple[int, ...], dtype: torch.dtype) -> Denoiser:
    def inner(x: Tensor, sigma: Tensor) -> Tensor:
        fits = isinstance(x, Tensor) and x.shape[1:] == shape
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        require(
            fits, f"denoisers take points of shape (B, {', '.join(map(str, shape))}); got {got}"
        )
        require(
            x.dtype == dtype, f"denoisers take points in the dtype of x, {dtype}, not {x.dtype}"
        )
        require(isinstance(sigma, Tensor), "denoisers take sigma as a tensor")
        require(sigma.ndim <= 1, f"denoisers take sigma of shape () or (B), not {sigma.shape}")
        y: Tensor = denoiser(x.flatten(1), sigma)
        return y.reshape(x.shape)

    return inner


def _ask(method: DimensionMethod, case: _Case) -> Estimate | NoGap:
    x, sigma = case.x(place_of(method)), case.level
    given = x.clone()
    with nothing_changes("the method"):
        found = method(case.denoiser, x, sigma)
    same = torch.equal(x, given) and torch.equal(sigma, case.level)
    require(same, "the method changes x or sigma in place; work on a copy")
    return found


def _check_answer(found: Any, case: _Case, tolerance: float) -> None:
    kind = type(found).__name__
    known = isinstance(found, (Estimate, NoGap))
    require(known, f"a method returns a geomem.Estimate or a NoGap, not a {kind}")
    if isinstance(found, NoGap):
        require(bool(found.reason), "NoGap carries its reason in words")
        free = case.dim in (0, case.size)
        require(free, f"of {case.name} the method says no gap: {found.reason}")
        return
    error = 0.0 if math.isnan(found.stderr) else found.stderr
    require(error >= 0, f"the error of {found} is negative")
    require(
        abs(found.value - case.dim) <= tolerance + BEYOND * error,
        f"of {case.name} the method says {found}, and it is {case.dim}",
    )


def _check_refusals(method: DimensionMethod) -> None:
    case = _CASES[0]
    x = case.x(place_of(method))
    questions: list[tuple[str, Denoiser, Tensor, Tensor]] = [
        # Of a denoiser that answers at any level: an exact one would refuse by itself.
        *(
            (f"sigma = {s:g}", lambda y, sigma: y / 2, x, case.level * s)
            for s in (0.0, -1.0, math.nan)
        ),
        ("NaN in the point", case.denoiser, x * math.nan, case.level),
        ("NaN in the answer", lambda y, sigma: y * math.nan, x, case.level),
    ]
    for what, denoiser, point, sigma in questions:
        try:
            found: Any = method(denoiser, point, sigma)
        except InputError:
            continue
        except Exception as error:
            found = f"a {type(error).__name__}"
        advice = "raise geomem.InputError: `geomem.checks.admit(denoiser, x, sigma)` does"
        raise AssertionError(f"to {what} the method answers {found}; {advice}")


def _check_dimension_seeds(method: DimensionMethod, seeds: int) -> None:
    if not has_seed(method):
        return
    # Four variances about the noise's: enough is left to chance for errors to be compared.
    case = _Case("a plane", variances=(2.0, 1.0, 0.5, 0.25), sigma=0.7)
    x = case.x(place_of(method))
    answers = [reseeded(method, seed)(case.denoiser, x, case.level) for seed in range(seeds)]
    check_spread([a for a in answers if isinstance(a, Estimate)], "the dimension", rounding=1e-6)


def _check_says_no(method: DimensionMethod) -> None:
    # The best linear denoiser of 36 isotropic points: eigenvalues spread, without a gap.
    spoken = []
    for k in range(40):
        data = torch.randn(3 * _D, _D, generator=torch_rng(k, "testing/no gap")).double()
        linear = GaussianDenoiser(torch.zeros(_D).double(), data.T @ data / 36)
        denoiser = _asked(linear, (_D,), torch.float64)
        found = method(denoiser, torch.zeros(_D).double(), torch.ones(()).double())
        spoken += [] if isinstance(found, NoGap) else [found]
    few = f"e.g. {spoken[0]}" if spoken else ""
    require(len(spoken) <= 6, f"{len(spoken)} of 40 spectra without a gap get a dimension, {few}")
