r"""The last resort: small training sets drawn, and their exact denoisers averaged.

It takes the place of the integrals where these fail their identity. It has a standard
error of per cents, works for any prior that can be drawn from, and stops at sizes at which
it would take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geomem.errors import Inconclusive
from geomem.theory.moments import Array, Quenched
from geomem.theory.priors import GaussianMixture

LARGEST = 4096  # the largest size that is simulated
SETS = 4000  # how many training sets are drawn
ACCURACY = 0.05  # relative, of what is returned


def simulate(
    prior: GaussianMixture,
    x: Array,
    y: Array | None,
    sigma: float,
    sizes: Array,
    directions: Array,
    *,
    matrix: bool = False,
    scale: Array | None = None,
    seed: int = 0,
) -> Quenched:
    r"""Averages over drawn training sets: arguments and result as in the exact theory.

    Raises:
        Inconclusive: If a size is too large or what comes out too noisy.
    """
    if sizes.max() > LARGEST or (sizes % 1).any():
        raise Inconclusive(
            f"no method reaches its accuracy at sigma = {sigma:g} and N = {sizes.max():g}: the "
            "integrals fail their identity and sets this large are not drawn; ask for planted "
            "points, or for a higher noise level"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(x)]))
    parts = [list(_sets(prior, x, y, sigma, int(N), directions, matrix, scale, rng)) for N in sizes]
    means = [[np.mean(column, axis=0) for column in zip(*p, strict=True)] for p in parts]
    errors = [[_stderr(np.stack(column)) for column in zip(*p, strict=True)] for p in parts]
    result = _stack(means, scale, _stack(errors, scale, None))
    _refuse_noise(result, sigma)
    return result


def _sets(
    prior: GaussianMixture,
    x: Array,
    y: Array | None,
    sigma: float,
    size: int,
    directions: Array,
    matrix: bool,
    scale: Array | None,
    rng: np.random.Generator,
) -> Iterator[tuple[Array, ...]]:
    for _ in range(SETS):
        points = prior.noisy(0.0, rng.random((size, prior.num_uniforms)))
        if y is not None:
            points[0] = y
        yield _one_set((points - x) / sigma, directions, matrix, scale)


def _one_set(
    offsets: Array, directions: Array, matrix: bool, scale: Array | None
) -> tuple[Array, ...]:
    energy = (offsets**2).sum(1) / 2
    w = np.exp(energy.min() - energy)
    w /= w.sum()
    u = offsets @ directions.T
    u = u - w @ u
    covariance = (w[:, None] * u).T @ u if matrix else w @ u**2
    wave = np.zeros(0) if scale is None else np.abs(w @ np.exp(1j * scale * u)) ** 2
    return covariance, np.asarray((w**2).sum()), wave


def _stderr(values: Array) -> Array:
    return np.asarray(values.std(0, ddof=1) / np.sqrt(len(values)))


def _stack(rows: list[list[Array]], scale: Array | None, errors: Quenched | None) -> Quenched:
    covariance, participation, wave = (np.stack(column) for column in zip(*rows, strict=True))
    coherence = None if scale is None else wave
    return Quenched(covariance, participation, 1 - participation, coherence, errors)


def _refuse_noise(q: Quenched, sigma: float) -> None:
    assert q.errors is not None
    if (q.errors.participation > ACCURACY * q.participation).any():
        raise Inconclusive(
            f"no method reaches its accuracy at sigma = {sigma:g}: {SETS} drawn training sets "
            "leave an error above 5 %; ask for a higher noise level"
        )
