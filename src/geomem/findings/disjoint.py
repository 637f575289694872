r"""Variance and bias: what two networks say that share a recipe and no image.

Let ``e_A`` and ``e_B`` be the errors in noise units of two networks trained on disjoint sets of
N images, at images that are new to both, with the same noise. The learned denoiser depends on
its training set, and by how much is its variance, direction by direction:

    v_u(sigma) = ½ <(e_A - e_B)²_u>                  variance of the denoiser over training sets
    x_u(sigma) = ½ <e_A² + e_B²>_u - <w²>_u          excess beside the control, of both
    b_u(sigma) = x_u - v_u                           bias: what more training sets would not mend
    a(sigma)   = 1 - sum_u v_u / sum_u ½ <e_A² + e_B²>_u           agreement of the two networks

Beside the population ``D*`` the bias is ``<(e_A - w)(e_B - w)>``, the square of the mean
denoiser's distance to it, and is not below 0 but by chance. Beside a reference network its own
variance and bias are taken off, so that it may well be. Several pairs are averaged; the halves
of ``½ <...>`` are then the unbiased variance of several parts. Networks of one seed start from
the same weights and draw the same levels: it is the variance over images alone.

References:
    | Kadkhodaie et al., Generalization in diffusion models arises from geometry-adaptive harmonic
      representations, arXiv 2310.02557 (two networks on disjoint sets)
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from geomem.findings.measured import Measured
from geomem.findings.rows import Row
from geomem.information import integrate_log

Array = NDArray[np.float64]
AT = "held_out"


def disjoint_quantities(run: Measured, row: Row, member: int) -> dict[str, Array]:
    r"""Variance, bias and agreement of a training and its twins on other parts of the pool.

    Arguments:
        run: The records.
        row: A row of the first part; of others there is nothing.
        member: One training of it.

    Returns:
        For each resampling ``variance_density`` (R, T, u), its margins and its integral
        ``variance`` (R), ``agreement_by_level`` (R, T), ``agreement`` (R); where a control is
        known ``parts_excess``, ``bias`` and its margins. Nothing where no other part is there.
    """
    family = [member, *_twins(run, row, member)] if row.part == 0 else [member]
    if len(family) < 2 or AT not in run.kinds:
        return {}
    squares = [_squared_differences(run, a, b) for a, b in combinations(family, 2)]
    if any(s is None for s in squares):
        return {}
    halves = np.mean([s for s in squares if s is not None], axis=0) / 2
    weights = run.weights(AT, row, halves.shape[1])
    variance = np.einsum("rn,tnu->rtu", weights, halves, optimize=True)
    errors = np.mean([run.mean_squares(m, row, AT, halves.shape[1]) for m in family], axis=0)
    found = {
        "variance_density": np.asarray(variance),
        "agreement_by_level": 1 - variance.sum(-1) / errors.sum(-1),
        "agreement": 1 - _nats(variance, run) / _nats(errors, run),
    }
    main = str(run.dataset.attrs["control"])
    if main in run.controls:
        excess = errors - run.mean_squares(run.controls[main], row, AT, halves.shape[1])
        found["parts_excess"] = _nats(excess, run)
        found |= _margins("bias", excess - variance, run)
    return found | _margins("variance", variance, run)


def _margins(name: str, density: Array, run: Measured) -> dict[str, Array]:
    return {
        f"{name}_by_level": density.sum(-1),
        f"{name}_by_direction": integrate_log(density, run.sigmas, axis=1),
        name: _nats(density, run),
    }


def _nats(density: Array, run: Measured) -> Array:
    return integrate_log(density.sum(-1), run.sigmas, axis=1)


def _twins(run: Measured, row: Row, member: int) -> list[int]:
    # The trainings of other parts that differ in nothing else.
    seeds = run.dataset["seed"].values
    recipe = (row.num_samples, row.step, row.width)
    found = []
    for other in run.rows:
        here = (other.num_samples, other.step, other.width)
        same = other.kind == row.kind and np.array_equal(here, recipe, equal_nan=True)
        if same and other.part > 0:
            found += [m for m in other.members if seeds[m] == seeds[member]]
    return found


def _squared_differences(run: Measured, a: int, b: int) -> Array | None:
    # Of the errors of two networks at held-out images, draws averaged, with shape (T, n, u):
    # by sign along single directions, by sketches along bands, where only norms are known.
    first, second = run.errors(a, AT), run.errors(b, AT)
    if first.shape != second.shape:
        return None
    found = np.asarray(np.square(first - second).mean(2))
    if "band_sketch" not in run.dataset:
        return None if (run.dataset.direction_count.values > 1).any() else found
    dims = ("subject", "sigma", "held_out_point", "draw", "sketch", "band")
    sketches = run.dataset.band_sketch.isel(subject=[a, b]).transpose(*dims).values.astype(float)
    found[..., -sketches.shape[-1] :] = np.square(sketches[0] - sketches[1]).mean((2, 3))
    return found
