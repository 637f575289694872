r"""What is returned: averages over training sets, in units of the data, with their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from geomem.errors import Inconclusive
from geomem.theory.moments import Array, Quenched, pool

TOLERANCE = 1e-3  # of the identity
PRECISION = 1e-7  # absolute error of a participation at N = 10^12


@dataclass(frozen=True)
class Prediction:
    r"""What a training set of N points keeps, on average over training sets.

    Leading axes :math:`(*)` are those of ``num_samples``.

    Attributes:
        retention: Kept fraction of the posterior variance along each direction, with shape
            :math:`(*, K)`. NaN where the population has none.
        retention_stderr: Its standard error, numerical error included.
        participation: :math:`\mathbb{E} \sum_i w_i^2`, with shape :math:`(*)`.
        participation_stderr: Its standard error.
        covariance: :math:`\mathbb{E} \, \mathrm{Cov}_w` along each direction with shape
            :math:`(*, K)`, or as a matrix with shape :math:`(*, K, K)`, in data units.
        control: The population's, with shape :math:`(K)` or :math:`(K, K)`.
        sigma: The noise level.
        identity_defect: By how much the identity fails, with shape :math:`(*)`.
        bounded: The bounded retention where asked for, with shape :math:`(*, K)`.
        bounded_stderr: Its standard error.
        route: How it was computed.
    """

    retention: Array
    retention_stderr: Array
    participation: Array
    participation_stderr: Array
    covariance: Array
    control: Array
    sigma: float
    identity_defect: Array
    bounded: Array | None = None
    bounded_stderr: Array | None = None
    route: str = "contour"

    @property
    def missing_dimension(self) -> Array:
        r"""Control minus kept, in units of the noise, with shape :math:`(*, K)`."""
        missing: Array = (
            _diagonal(self.control - self.covariance, self.control.ndim) / self.sigma**2
        )
        return missing

    @property
    def missing_dimension_stderr(self) -> Array:
        r"""Its standard error, with shape :math:`(*, K)`."""
        control = _diagonal(self.control, self.control.ndim)
        error: Array = self.retention_stderr * control / self.sigma**2
        return error

    @property
    def dimension(self) -> Array:
        r"""Dimension kept in the span of the directions, with shape :math:`(*)`."""
        kept: Array = _diagonal(self.covariance, self.control.ndim).sum(-1) / self.sigma**2
        return kept

    @property
    def effective_points(self) -> Array:
        r"""One over the participation, with shape :math:`(*)`."""
        return 1 / self.participation


def pooled_prediction(
    samples: Sequence[Quenched],
    controls: ArrayLike,
    sigma: float,
    shape: tuple[int, ...],
    route: str,
) -> Prediction:
    r"""Replicates of an average and of its control, with their errors, as a prediction.

    Arguments:
        samples: The replicates, in units of the noise, with leading shape :math:`(S)`.
        controls: The population's covariance in each, with leading axis over replicates.
        sigma: The noise level.
        shape: The shape :math:`(*)` of the sizes.
        route: How they were computed.

    Raises:
        Inconclusive: If the identity fails.
    """
    each = np.asarray(controls)
    control, total = each.mean(0), np.mean([q.covariance for q in samples], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(control != 0, total / control, 0.0)
    # Numerator and control fluctuate together: the error of the ratio is that of
    # covariance - ratio * control.
    pairs = zip(samples, each, strict=True)
    quenched = pool([replace(q, covariance=q.covariance - ratio * (c - control)) for q, c in pairs])
    prediction = as_prediction(quenched, control, sigma, shape, route)
    if not (prediction.identity_defect < TOLERANCE).all():
        raise Inconclusive(
            f"the average over {route} at sigma = {sigma:g} fails its identity by "
            f"{prediction.identity_defect.max():.1g}; no number is returned"
        )
    return prediction


def as_prediction(
    q: Quenched, control: Array, sigma: float, shape: tuple[int, ...], route: str
) -> Prediction:
    r"""Averages in units of the noise as a prediction in units of the data.

    Arguments:
        q: The averages, with leading shape :math:`(S)`.
        control: The population's covariance, with shape :math:`(K)` or :math:`(K, K)`.
        sigma: The noise level.
        shape: The shape :math:`(*)` of the sizes.
        route: How it was computed.
    """
    population = np.diag(control) if control.ndim == 2 else control
    # Integrals of one kind fail together: twice the defect covers the covariance, too.
    numerical = 2 * q.identity_defect + PRECISION
    with np.errstate(invalid="ignore", divide="ignore"):
        inverse = np.where(population > 0, 1 / population, np.nan)
    retention = inverse * _diagonal(q.covariance, control.ndim)
    none = None if q.coherence is None else 0 * q.coherence
    errors = q.errors or Quenched(0 * q.covariance, 0 * q.participation, 0 * q.pairs, none)
    noise = inverse * _diagonal(errors.covariance, control.ndim)

    def shaped(values: Array) -> Array:
        return values.reshape(shape + values.shape[1:])

    bounded = bounded_stderr = None
    if q.coherence is not None and errors.coherence is not None:
        share = 1 / (1 - np.exp(-1.0))
        bounded = shaped(share * (1 - q.coherence))
        bounded_stderr = shaped(share * np.hypot(numerical[:, None], errors.coherence))
    return Prediction(
        shaped(retention),
        shaped(np.hypot(numerical[:, None] * retention, noise)),
        shaped(q.participation),
        shaped(np.hypot(numerical, errors.participation)),
        shaped(q.covariance * sigma**2),
        control * sigma**2,
        sigma,
        shaped(q.identity_defect),
        bounded,
        bounded_stderr,
        route,
    )


def _diagonal(values: Array, control_dim: int) -> Array:
    return np.diagonal(values, axis1=-2, axis2=-1) if control_dim == 2 else values


def wave_number(control: Array) -> Array:
    r""":math:`\kappa` of the bounded retention, with shape :math:`(K)`, in units of the noise."""
    variance = np.diag(control)
    return np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0.0)
