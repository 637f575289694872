r"""Checks of a spectrum method: known matrices, errors over seeds, manners."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.operators import LinearOperator, Symmetric
from geomem.spectra import Spectrum, SpectrumMethod
from geomem.stats import Estimate, torch_rng
from geomem.testing.common import BEYOND, check_spread, nothing_changes, require, reseeded


class Products(Symmetric):
    r"""A symmetric matrix known by its products alone, which checks how it is asked."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix, self.size, self.like = matrix, len(matrix), matrix.new_empty(0)

    def matmat(self, V: Tensor) -> Tensor:
        fits = V.ndim == 2 and len(V) == self.size
        require(fits, f"products take shape ({self.size}, k); the method passed {tuple(V.shape)}")
        kind = self.like.dtype
        require(V.dtype == kind, f"products are in {kind}, see `like`; the method passed {V.dtype}")
        return self._matrix @ V


_POWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "the number of eigenvalues": torch.ones_like,
    "the trace": lambda nodes: nodes,
    "the sum of squares": torch.square,
}


def check_spectrum_method(
    method: SpectrumMethod,
    *,
    operator: Callable[[Tensor], LinearOperator] = Products,
    seeds: int = 60,
) -> None:
    r"""Checks that a spectrum method of yours answers with what a spectrum stands for.

    On matrices whose spectrum is known (identity, zero, projector, diagonal, rotated; one row;
    float32 and float64) the number of eigenvalues, their sum and that of their squares are
    right within five of their errors, or to rounding if the method says ``exact``. Errors of
    a sampled one are as large as the spread over seeds. The same seed gives the same answer.

    Arguments:
        method: The method; a sampled one is a dataclass with a field ``seed``.
        operator: Makes the operators from positive semidefinite matrices of shape (n, n), for
            a method that needs more than products.
        seeds: Over how many seeds the errors of a sampled method are compared.

    Raises:
        AssertionError: If any of it does not hold; the message says which.

    Example:
        >>> from geomem.spectra import Dense, LanczosQuadrature
        >>> check_spectrum_method(Dense())
        >>> check_spectrum_method(LanczosQuadrature(depth=8, probes=8))
    """
    for name, eigenvalues, matrix in _known_matrices():
        with nothing_changes("the method"):
            found = method(operator(matrix))
        _check_form(found, name)
        for what, fn in _POWERS.items():
            estimate, truth = found.integrate(fn), float(fn(eigenvalues).sum())
            _check_number(estimate, truth, f"{what} of {name}", matrix, found.exact)
    _, eigenvalues, matrix = _known_matrices()[-1]
    again = [method(operator(matrix)).integrate(torch.square) for _ in range(2)]
    require(repr(again[0]) == repr(again[1]), "the same method gives two answers: pass it a seed")
    if not method(operator(matrix)).exact:
        _check_errors_over_seeds(method, operator, seeds)


def _known_matrices() -> list[tuple[str, Tensor, Tensor]]:
    n = 12
    Q = torch.linalg.qr(torch.randn(n, n, generator=torch_rng(0, "testing")).double()).Q
    steps = torch.linspace(0.1, 1, n, dtype=torch.float64)
    one, projector = torch.ones(n).double(), (torch.arange(n) < 5).double()
    gap = torch.where(projector > 0, 0.8 + 0.2 * steps, 0.1 * steps)
    cases = [
        ("the identity", one, torch.diag(one)),
        ("zero", 0 * one, torch.diag(0 * one)),
        ("a diagonal matrix", steps, torch.diag(steps)),
        ("a matrix of one row", steps[5:6], torch.diag(steps[5:6])),
        ("a projector on 5 of 12 dimensions", projector, Q * projector @ Q.T),
        ("a float32 matrix", gap, (Q * gap @ Q.T).float()),
        ("a rotated matrix with a gap", gap, Q * gap @ Q.T),
    ]
    return [(name, values, (A + A.T) / 2) for name, values, A in cases]


def _check_form(found: Any, name: str) -> None:
    kind = type(found).__name__
    require(isinstance(found, Spectrum), f"a method returns a geomem.Spectrum, not a {kind}")
    nodes, weights = found.nodes, found.weights
    same = nodes.ndim == 2 and nodes.shape == weights.shape
    shapes = f"{tuple(nodes.shape)} and {tuple(weights.shape)}"
    require(same, f"nodes and weights have shapes {shapes}; give both shape (P, K)")
    finite = bool(torch.isfinite(nodes).all() and torch.isfinite(weights).all())
    require(finite, f"nodes or weights of {name} are not finite")
    require(not nodes.requires_grad, "nodes carry a graph; .detach() them")


def _check_number(found: Estimate, truth: float, what: str, matrix: Tensor, exact: bool) -> None:
    # Rounding: some eps for each of the products and sums that make it.
    rounding = 1000 * torch.finfo(matrix.dtype).eps * (len(matrix) + abs(truth))
    if math.isnan(found.stderr):  # of one draw nothing more can be asked
        require(math.isfinite(found.value), f"{what} is {found}")
        return
    error = 0.0 if exact else BEYOND * found.stderr
    require(
        abs(found.value - truth) <= rounding + error,
        f"{what} is {truth:.6g}, and the method says {found}"
        + (" and that it is exact" if exact else ""),
    )


def _check_errors_over_seeds(
    method: SpectrumMethod, operator: Callable[[Tensor], LinearOperator], seeds: int
) -> None:
    _, eigenvalues, matrix = _known_matrices()[-1]
    spectra = [reseeded(method, seed)(operator(matrix)) for seed in range(seeds)]
    for what, fn in _POWERS.items():
        found, truth = [s.integrate(fn) for s in spectra], float(fn(eigenvalues).sum())
        check_spread(found, what, rounding=1e-9 * len(matrix))
        values = np.array([e.value for e in found])
        bias, error = abs(values.mean() - truth), values.std(ddof=1) / math.sqrt(seeds)
        require(
            bias <= BEYOND * error + 1e-9 * len(matrix),
            f"{what} is off by {bias:.3g} on average over {seeds} seeds (± {error:.2g})",
        )
