r"""The last resort: small training sets drawn, and their exact denoisers averaged.

It takes the place of the integrals where these fail their identity. It has a standard
error of per cents, works for any prior that can be drawn from, and stops at sizes at which
it would take minutes.
"""

from __future__ import annotations

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
    names = ("covariance", "participation", "coherence")
    means: dict[str, list[Array]] = {name: [] for name in names}
    errors: dict[str, list[Array]] = {name: [] for name in names}
    for N in sizes:
        rows = []
        for _ in range(SETS):
            points = prior.noisy(0.0, rng.random((int(N), prior.num_uniforms)))
            if y is not None:
                points[0] = y
            offsets = (points - x) / sigma
            energy = (offsets**2).sum(1) / 2
            w = np.exp(energy.min() - energy)
            w /= w.sum()
            u = offsets @ directions.T
            u = u - w @ u
            covariance = (w[:, None] * u).T @ u if matrix else w @ u**2
            wave = np.zeros(0) if scale is None else np.abs(w @ np.exp(1j * scale * u)) ** 2
            rows.append((covariance, (w**2).sum(), wave))
        for name, column in zip(names, zip(*rows, strict=True), strict=True):
            means[name].append(np.mean(column, axis=0))
            errors[name].append(np.std(column, axis=0, ddof=1) / np.sqrt(SETS))

    def stacked(of: dict[str, list[Array]], own_errors: Quenched | None) -> Quenched:
        covariance, participation, wave = (np.stack(of[name]) for name in names)
        coherence = None if scale is None else wave
        return Quenched(covariance, participation, 1 - participation, coherence, own_errors)

    result = stacked(means, stacked(errors, None))
    if (np.stack(errors["participation"]) > ACCURACY * result.participation).any():
        raise Inconclusive(
            f"no method reaches its accuracy at sigma = {sigma:g}: {SETS} drawn training sets "
            "leave an error above 5 %; ask for a higher noise level"
        )
    return result
