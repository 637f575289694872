r"""Estimators of local dimension on a set whose dimension is known at each point.

Two numbers judge an estimator, as Kamkari et al. and Yeats et al. have it: the mean absolute error
over points, and the concordance index, which asks of pairs of points of unequal dimension whether
the larger is said to be larger. Here a tie, or no answer, is half a pair. Kamkari et al. count
differently, 1 - (pairs in the wrong order) / (all pairs): pairs of equal dimension cannot be wrong
there, so that an estimator that says one number everywhere has an index of 1. Both are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from row import Found, with_error
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.dimension import (
    FLIPD,
    DimensionMethod,
    LocalDimension,
    NormalBundle,
    Threshold,
    place_of,
)
from geomem.stats import Estimate, bootstrap_weights, numpy_rng, seed_sequence, torch_rng

Method = Callable[[int], DimensionMethod]  # seed -> method
DRAWS = 8  # noise draws, or signs, a point: what Yeats et al. take

LOSS = "denoising loss (Yeats et al.)"


def methods(probes: int | None = None, *, bundle: bool = True) -> dict[str, Method]:
    r"""The estimators by name; FLIPD takes so many signs, all d coordinates if None."""
    found: dict[str, Method] = {"FLIPD": lambda s: FLIPD(probes=probes, seed=s)}
    if bundle:
        found["normal bundle"] = lambda s: NormalBundle(seed=s)
        found["eigenvalues above 1/2"] = lambda s: Threshold()
    return found | {"LocalDimension": lambda s: LocalDimension(seed=s)}


def denoising_loss(denoiser: Denoiser, x_0: Tensor, sigma: float, z: Tensor) -> np.ndarray:
    r"""Mean of :math:`|D(x_0 + \sigma z) - x_0|^2 / \sigma^2` over draws, with shape (B).

    Arguments:
        denoiser: The denoiser.
        x_0: The points, with shape (B, d).
        sigma: The level.
        z: The noise: (S, 1, d) is shared by all points, as in the authors' code; (S, B, d) not.
    """
    level = torch.tensor(sigma, dtype=x_0.dtype)
    squares = [
        ((denoiser(x_0 + sigma * one, level) - x_0) / sigma).square().sum(1)
        for one in z.expand(-1, len(x_0), -1)
    ]
    return torch.stack(squares).mean(0).numpy()


def concordance(truth: np.ndarray, values: np.ndarray, seed: int) -> list[float] | None:
    r"""The index over pairs of unequal dimension, ± over points; None where all are equal."""
    unequal = truth[:, None] > truth
    if not unequal.any():
        return None
    gap = values[:, None] - values
    right = np.where(np.isnan(gap), 0.5, (np.sign(gap) + 1) / 2) * unequal
    W = bootstrap_weights(len(truth), 200, numpy_rng(seed, "concordance"))
    some = np.einsum("ri,ij,rj->r", W, unequal, W)
    resampled = np.einsum("ri,ij,rj->r", W, right, W)[some > 0] / some[some > 0]
    return [float(right.sum() / unequal.sum()), float(resampled.std(ddof=1))]


def concordance_of_all_pairs(truth: np.ndarray, values: np.ndarray) -> float:
    r"""As the code of Kamkari et al. counts: pairs in the wrong order, of all pairs."""
    wrong = (truth[:, None] > truth) & (values[:, None] < values)
    n = len(truth)
    return float(1 - wrong.sum() / (n * (n - 1) / 2))


def judged(truth: Tensor, values: np.ndarray, seed: int) -> Found:
    r"""What is said of an estimator; no answer (NaN) is an error of the whole dimension."""
    m = truth.double().numpy()
    errors = np.where(np.isnan(values), m, np.abs(values - m))
    return {
        "error": with_error(errors),
        "answered": int((~np.isnan(values)).sum()),
        "concordance": concordance(m, values, seed),
        "of_all_pairs": concordance_of_all_pairs(m, values),
    }


def judge(
    denoiser: Denoiser,
    x_0: Tensor,
    truth: Tensor,
    sigmas: Sequence[float],
    asked: Mapping[str, Method],
    seed: int,
) -> Found:
    r"""Each estimator at each level: ``{name: [a row a level]}``."""
    rng = torch_rng(seed, "noise")
    z = torch.randn(DRAWS, *x_0.shape, generator=rng, dtype=x_0.dtype)
    found: Found = {
        LOSS: [judged(truth, denoising_loss(denoiser, x_0, s, z), seed) for s in sigmas]
    }
    for name, method in asked.items():
        found[name] = [judged(truth, _answers(denoiser, x_0, s, z[0], method, seed), seed)
                       for s in sigmas]  # fmt: skip
    return found


def _answers(
    denoiser: Denoiser, x_0: Tensor, sigma: float, z: Tensor, method: Method, seed: int
) -> np.ndarray:
    level, values = torch.tensor(sigma, dtype=x_0.dtype), []
    for i, point in enumerate(x_0):
        called = method(int(seed_sequence(seed, "point", i).generate_state(1)[0]))
        x = point + level * z[i] if place_of(called) == "noisy" else point
        answer = called(denoiser, x, level)
        values.append(answer.value if isinstance(answer, Estimate) else float("nan"))
    return np.array(values)
