r"""Slow twins of the theory: training sets drawn one by one, and their posteriors averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measured:
    """Means over training sets and their standard errors; lengths in units of the noise."""

    covariance: np.ndarray
    covariance_stderr: np.ndarray
    participation: float
    participation_stderr: float
    coherence: np.ndarray
    coherence_stderr: np.ndarray


def posterior(points, x, sigma, kappa=None):
    """Posterior variances along the axes over sigma², sum of squared weights, |wave|²."""
    offsets = (points - x) / sigma
    energy = (offsets**2).sum(-1) / 2
    w = np.exp(energy.min(-1, keepdims=True) - energy)
    w /= w.sum(-1, keepdims=True)
    mean = np.einsum("...n,...nk->...k", w, offsets)
    variance = np.einsum("...n,...nk->...k", w, (offsets - mean[..., None, :]) ** 2)
    if kappa is None:
        return variance, (w**2).sum(-1), 0 * variance
    wave = np.einsum("...n,...nk->...k", w, np.exp(1j * kappa * offsets))
    return variance, (w**2).sum(-1), np.abs(wave) ** 2


def measure(variances, num_samples, sigma, rng, *, sets, x=None, planted=None, waves=False):
    """Averages over Gaussian training sets.

    With x alone it is fresh, with x and planted the first training point is fixed, with
    neither every set draws its own y_1 and x = y_1 + sigma z.
    """
    v = np.asarray(variances, float)
    kappa = np.sqrt((v + sigma**2) / v) if waves else None
    rows = []
    batch = max(1, int(2e6 / (num_samples * len(v))))
    for start in range(0, sets, batch):
        shape = (min(batch, sets - start), num_samples, len(v))
        points = rng.standard_normal(shape) * np.sqrt(v)
        if planted is not None:
            points[:, 0] = planted
        if x is None:
            centre = points[:, :1] + sigma * rng.standard_normal((shape[0], 1, len(v)))
        else:
            centre = np.asarray(x, float)
        rows.append(posterior(points, centre, sigma, kappa))
    columns = [np.concatenate(c) for c in zip(*rows, strict=True)]
    means = [c.mean(0) for c in columns]
    errors = [c.std(0, ddof=1) / np.sqrt(sets) for c in columns]
    return Measured(means[0], errors[0], means[1], errors[1], means[2], errors[2])


def retention(measured: Measured, variances, sigma):
    """Retention and its standard error."""
    v = np.asarray(variances, float)
    control = v / (v + sigma**2)
    return measured.covariance / control, measured.covariance_stderr / control
