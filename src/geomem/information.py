r"""Memorized information: denoising errors by direction and level, in nats.

For an exact denoiser, averaged over noised points, ``E|D - x_0|²/sigma² = E tr dD/dx`` is the
information that a point gains per e-fold of noise (I-MMSE). So errors in noise units,
``e_u = (u·(D - x_0))²/sigma²``, are densities in nats per unit of ln sigma: they add up over
an orthonormal basis and integrate over ln sigma. What a model does better at training images
than a control that never saw them, it has memorized:

    rho_u(sigma) = min(1, mean e_u,heldout / mean w_u,heldout)
    m_u(sigma)   = rho_u mean w_u,training - mean e_u,training       memorized density
    ∫ m_u d ln sigma                                                 memorized information
    L(sigma)     = sum_u m_u / sum_u rho_u mean w_u,training         lost share
    ∫ max(0, mean e_heldout - mean w_heldout) d ln sigma             damage

``w`` is the control's error, ``rho`` how good a generalizer it must be taken for, direction
by direction. With the population as control and rho = 1, ``m_u`` is the missing dimension.
The statistical unit is the image: noise draws are averaged inside it first, and errors come
from a bootstrap over training and held-out images, with the same images for every network.

References:
    | Guo, Shamai & Verdú, Mutual information and MMSE in Gaussian channels (2005)
    | Kong et al., Information-theoretic diffusion, arXiv 2302.03792 (the pointwise identity)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.stats import bootstrap_weights
from geomem.subspaces import PrincipalDirections

Array = NDArray[np.float64]
LEAST_KEPT = 0.05  # of the noise: a control that keeps less has nothing to lose


def noise_unit_errors(
    denoiser: Denoiser, x_0: Tensor, z: Tensor, sigma: Tensor, directions: PrincipalDirections
) -> tuple[Tensor, Tensor]:
    r"""Errors of a denoiser at noised points, and what they say about its Jacobian.

    Arguments:
        denoiser: The denoiser :math:`D`.
        x_0: The clean points, with shape :math:`(B, *)`.
        z: Their noise, standard normal, with shape :math:`(B, *)`.
        sigma: The noise level, with shape :math:`()`.
        directions: The orthonormal directions, in n entries.

    Returns:
        ``u·(D - x_0)/sigma``, signed for single directions and a norm for bands, and its
        product with the noise, ``z_u u·(D - x_0)/sigma``, whose mean over the noise is the
        diagonal of the Jacobian (Stein). Each with shape :math:`(B, n)`, in float64.

    Raises:
        InputError: If the denoiser returns another shape.
    """
    sigma = sigma.to(x_0)
    denoised = denoiser(x_0 + sigma * z, sigma)
    if denoised.shape != x_0.shape:  # broadcasting would make numbers of it
        raise InputError(
            f"the denoiser returned shape {tuple(denoised.shape)} for points of shape "
            f"{tuple(x_0.shape)}; return one clean point for each noisy one"
        )
    error = ((denoised - x_0) / sigma).detach()
    return directions.signed(error), directions.inner(z, error)


def integrate_log(density: Array, sigmas: Array, axis: int = 0) -> Array:
    r"""Integral over ln sigma by the trapezoid rule, without extrapolation.

    Arguments:
        density: Nats per e-fold of noise, one entry a level along ``axis``.
        sigmas: The noise levels, increasing, with shape :math:`(T)`.
    """
    return np.asarray(np.trapezoid(density, np.log(sigmas), axis=axis))


@dataclass(frozen=True, eq=False)
class SquaredErrors:
    r"""Squared errors in noise units of one network and the control, draws averaged.

    Attributes:
        training: At training images, with shape :math:`(T, n, u)`.
        held_out: At held-out images, with shape :math:`(T, m, u)`.
        control_training: The control's, with shape :math:`(T, n, u)`.
        control_held_out: The control's, with shape :math:`(T, m, u)`.
    """

    training: Array
    held_out: Array
    control_training: Array
    control_held_out: Array

    def __post_init__(self) -> None:
        if (
            self.training.shape != self.control_training.shape
            or self.held_out.shape != self.control_held_out.shape
        ):
            raise InputError("network and control must be measured at the same images and levels")


@dataclass(frozen=True, eq=False)
class Averages:
    r"""Means over images of :class:`SquaredErrors`, for each of R resamplings of the images.

    All have shape :math:`(R, T, u)`; the first row is the sample itself.
    """

    training: Array
    held_out: Array
    control_training: Array
    control_held_out: Array

    @property
    def generalization_ratio(self) -> Array:
        r"""Held-out error of the network over the control's, by direction, at most 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.held_out / self.control_held_out
        return np.where(self.control_held_out > 0, np.minimum(1.0, ratio), 1.0)


def cluster_weights(groups: Array, replicates: int, rng: np.random.Generator) -> Array:
    r"""Bootstrap weights of images that are resampled by group.

    Arguments:
        groups: The group of each image, with shape :math:`(n)`.
        replicates: The number of resamplings.
        rng: The source of randomness.

    Returns:
        The weights, with shape :math:`(1 + replicates, n)`; each row sums to 1, and the first
        weighs all images equally.
    """
    _, unit = np.unique(groups, return_inverse=True)
    counts = bootstrap_weights(int(unit.max()) + 1, replicates, rng)[:, unit]
    weights = np.vstack([np.ones(len(unit)), counts])
    return np.asarray(weights / weights.sum(1, keepdims=True))


def average(errors: SquaredErrors, training: Array, held_out: Array) -> Averages:
    r"""Means over images for each resampling.

    Arguments:
        errors: The squared errors of a network and the control.
        training: Weights of the training images, with shape :math:`(R, n)`.
        held_out: Weights of the held-out images, with shape :math:`(R, m)`; the same for
            every network of a run, since they share one generalization ratio.
    """
    return Averages(
        _weighted(training, errors.training),
        _weighted(held_out, errors.held_out),
        _weighted(training, errors.control_training),
        _weighted(held_out, errors.control_held_out),
    )


def _weighted(weights: Array, values: Array) -> Array:
    return np.asarray(np.einsum("rn,tnu->rtu", weights, values, optimize=True))


def common_ratio(averages: list[Averages]) -> Array:
    r"""The smallest ratio over the networks of a run, with shape :math:`(R, T, u)`.

    One ratio for every training-set size: the best generalizer of the run says what an
    honest model can know about new images.
    """
    ratio: Array = np.minimum.reduce([a.generalization_ratio for a in averages])
    return ratio


def memorized_density(averages: Averages, ratio: Array) -> Array:
    r"""Memorized density ``m_u`` in nats per e-fold of noise, with shape (R, T, u)."""
    density: Array = ratio * averages.control_training - averages.training
    return density


def lost_share(averages: Averages, ratio: Array) -> Array:
    r"""Share of the control's dimension that is gone at training points, shape (R, T)."""
    share: Array = memorized_density(averages, ratio).sum(-1)
    share /= (ratio * averages.control_training).sum(-1)
    return share


def damage(averages: Averages, sigmas: Array) -> Array:
    r"""Nats by which a network is worse than the control on new images, shape (R)."""
    excess = averages.held_out.sum(-1) - averages.control_held_out.sum(-1)
    return integrate_log(np.maximum(excess, 0), sigmas, axis=1)


def strongest_contrast(network: Array, control: Array) -> Array:
    r"""Directions in which a network's error falls short of the control's, the strongest first.

    They solve ``E v = (1 - l) W v`` of the two second moments, by falling lost share ``l``, in
    units of the control's own error; in the span of what the control keeps at least .05 of, since
    a share of less is no share of anything.

    Arguments:
        network: Signed errors along single directions at one level, with shape
            :math:`(n, draws, u)`.
        control: The control's, at the same points, with the same shape.

    Returns:
        The directions as columns, orthogonal in the control's moment, with shape :math:`(u, k)`.
    """
    own, them = _moment(network), _moment(control)
    kept, basis = np.linalg.eigh(them)
    span = basis[:, kept >= LEAST_KEPT] / np.sqrt(kept[kept >= LEAST_KEPT])
    # In these units the control's moment is 1, and what is sought the model's least error.
    _, vectors = np.linalg.eigh(span.T @ own @ span)
    return np.asarray(span @ vectors)


def _moment(errors: Array) -> Array:
    flat = errors.reshape(-1, errors.shape[-1])
    return np.asarray(flat.T @ flat / len(flat))
