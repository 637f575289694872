r"""Any other prior, by draws from it. **[ours]**

The moments of :mod:`geomem.theory.moments` are then means over :math:`S` draws, exact for
training points drawn *with replacement* from these. That stands for the prior as long as
the set is small against the draws; here :math:`N \leq S / 10` is required. Scrambled Sobol
draws repeated with independent scramblings give the standard error. The identity holds for
any set of draws, so it checks the quadrature and not the draws: the spread does.

Where the posterior needs points closer than the draws lie (small :math:`\sigma`, large
:math:`m`), their spread grows and says so; use a Gaussian or a mixture there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.stats import qmc

from geomem.arguments import Values, Whole, check, checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.theory.moments import Array, Moments, Quenched, average_point
from geomem.theory.prediction import wave_number

STEP = 0.5  # of the abscissas ln λ
BEFORE = 25.0  # from here before an energy on its point counts (e^-25)
AFTER = 7.0  # and to here: exp(-e^7) is zero
TOGETHER = 256  # abscissas


@checked
@dataclass(frozen=True)
class Sampled:
    r"""A prior known by how uniform numbers become its points.

    Attributes:
        transform: Maps uniforms of shape :math:`(S, k)` to points of shape :math:`(S, d)`.
        num_uniforms: The number :math:`k` of uniforms that a point takes.
        ambient_dim: The dimension :math:`d`.
        num_draws: The number :math:`S` of draws in each replicate, a power of two.
        replicates: The number of independent scramblings.
        seed: Their seed.

    Example:
        Two points: at equal distance, half of the sets of two hold both.

        >>> coin = Sampled(lambda u: np.where(u < 0.5, -1.0, 1.0), 1, 1)
        >>> from geomem.theory.finite_size import predict
        >>> p = predict(coin, [0.0], 0.5, [2])
        >>> p.retention.round(6), p.participation.round(6)
        (array([[0.5]]), array([0.5]))
    """

    transform: Callable[[Array], Array]
    num_uniforms: Annotated[int, Whole(least=1, most=21201)]
    ambient_dim: Annotated[int, Whole(least=1)]
    num_draws: Annotated[int, Whole(least=2)] = 8192
    replicates: Annotated[int, Whole(least=2)] = 16
    seed: Annotated[int, Whole(least=0)] = 0

    @property
    def axes(self) -> Array:
        r"""The directions that are reported by default, with shape :math:`(d, d)`."""
        return np.eye(self.ambient_dim)

    @property
    def mean(self) -> Array:
        r"""The mean of the first replicate, with shape :math:`(d)`."""
        return np.asarray(self.draw(0, self.num_draws).mean(0))

    def draw(self, replicate: int, count: int, purpose: int = 0) -> Array:
        r"""Points of one replicate, with shape :math:`(count, d)`.

        Raises:
            InputError: If the transform returns anything else.
        """
        num_bytes = 8.0 * count * (self.num_uniforms + self.ambient_dim)
        Forecast(0, 2 * num_bytes).check_memory("pass fewer `num_draws`")
        seed = np.random.SeedSequence([self.seed, purpose, replicate])
        sobol = qmc.Sobol(self.num_uniforms, seed=np.random.default_rng(seed))
        points = self.transform(sobol.random(count))
        shape = f"({count}, {self.ambient_dim})"
        return np.asarray(
            check("transform(uniforms)", points, Annotated[Array, Values(shape=shape)])
        )


def average_over_draws(
    points: Array,
    x: Array,
    y: Array | None,
    sigma: float,
    sizes: Array,
    directions: Array,
    *,
    matrix: bool,
    bounded: bool,
) -> tuple[Quenched, Array]:
    r"""What sets of these points keep, seen from one noisy point, and what all of them do.

    Arguments:
        points: The draws, with shape :math:`(S, d)`.
        x: The noisy point, with shape :math:`(d)`.
        y: The training point behind it, with shape :math:`(d)`, if any.
        sigma: The noise level.
        sizes: The sizes, with shape :math:`(N)`.
        directions: Unit directions as rows, with shape :math:`(K, d)`.
        matrix: Whether second moments are full matrices.
        bounded: Whether to compute the coherence.

    Returns:
        Averages in units of the noise, and the control, with shape (K) or (K, K).

    Raises:
        InputError: If N exceeds a tenth of the draws, or the integrals do not fit into memory.
    """
    if sizes.max() > len(points) / 10:
        raise InputError(
            f"N = {sizes.max():g} needs at least {10 * sizes.max():g} draws; raise `num_draws`"
        )
    offsets = (points - x) / sigma
    energy = (offsets**2).sum(1) / 2
    floor = energy.min()  # a common factor of all weights
    order = np.argsort(energy)
    energy, places = energy[order] - floor, offsets[order] @ directions.T
    w = np.exp(-energy)
    w /= w.sum()
    centred = places - w @ places
    full = (w[:, None] * centred).T @ centred
    source, ends = None, energy
    if y is not None:
        offset = (y - x) / sigma
        own = float((offset**2).sum() / 2 - floor)
        source, ends = (directions @ offset, own), np.append(energy[energy < own], own)
    # Abscissas from where N (1 - φ) vanishes to where the source, or all points, have been met;
    # none where nothing is met.
    low = min(-np.log(sizes.max()) - BEFORE, float(ends[0]) - BEFORE)
    jumps = np.flatnonzero(np.diff(ends) > BEFORE + 5)
    pieces = np.array([low, *(ends[jumps + 1] - BEFORE)]), np.array([*ends[jumps], ends[-1]]) + 5
    counts = np.ceil((pieces[1] - pieces[0]) / STEP) + 1
    K = len(directions)
    values = (K * K if matrix else K) * (1 + len(sizes)) + K * (2 + 2 * bounded) + 6 * len(sizes)
    together = len(points) * (6 * TOGETHER + K * (K if matrix else 2))
    Forecast(0, 8.0 * (3 * counts.sum() * values + together)).check_memory(
        "pass a higher `sigma`, fewer `directions` or fewer draws"
    )
    ell = np.concatenate([a + STEP * np.arange(n) for a, n in zip(pieces[0], counts, strict=True)])
    scale = wave_number(full) if bounded else None
    moments = _moments(energy, places, ell, matrix, scale)
    return average_point(moments, source, sizes, scale), full if matrix else np.diag(full)


def _moments(
    energy: Array, places: Array, log_lambda: Array, matrix: bool, scale: Array | None
) -> Moments:
    # Over sorted draws, block by block of abscissas: points that are met long before have
    # e exp(-λe) = 0, points that are met long after count nothing beside e^-45.
    parts = []
    for start in range(0, len(log_lambda), TOGETHER):
        ell = log_lambda[start : start + TOGETHER]
        met = int(np.searchsorted(energy, ell[0] - AFTER))
        reached = int(np.searchsorted(energy, max(float(ell[-1]), 0.0) + 45))
        some, at = energy[met:reached], places[met:reached]
        b = np.exp(np.minimum(ell[:, None] - some, 2 * AFTER))
        survive = np.exp(-b)
        kernel = b * survive / len(energy)
        pairs = at[:, :, None] * at[:, None, :] if matrix else at**2
        missing = (met - np.expm1(-b).sum(1)) / len(energy)
        parts.append(
            (
                (survive.sum(1) + len(energy) - reached) / len(energy),
                missing,
                kernel.sum(1),
                kernel @ at,
                np.tensordot(kernel, pairs, axes=1),
                (b * kernel).sum(1),
                None if scale is None else kernel @ np.exp(1j * scale * at),
            )
        )
    *columns, waves = zip(*parts, strict=True)
    phi, missing, psi, first, second, square = (np.concatenate(c) for c in columns)
    wave = None if scale is None else np.concatenate(waves)
    weights = np.full(len(log_lambda), STEP)
    return Moments(log_lambda, weights, phi, missing, psi, first, second, square, wave)
