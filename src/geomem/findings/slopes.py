r"""A control's slope: by how much a model errs more where the control does, image by image.

In an audit a control stands for what the model would do at training images that it had not
learned by heart. How good a generalizer it must be taken for is asked of held-out images, by
direction, :math:`\rho_u = \min(1, \langle e_u \rangle / \langle w_u \rangle)`. That alone assumes
that the model's error doubles where the control's does. A control of another recipe, or one that
knows a covariance alone, follows the model's errors more or less steeply, and training images are
never exactly as hard as held-out ones. So the difference between the two sets is taken over with
the slope :math:`\kappa` of the model's errors on the control's, over held-out images:

.. math:: \hat w_u = \rho_u \bigl(\langle w_u \rangle_{held\,out}
    + \kappa\, (\langle w_u \rangle_{training} - \langle w_u \rangle_{held\,out})\bigr)

which is the regression estimator of survey sampling, or a control variate whose coefficient is
fitted instead of being 1. Whatever :math:`\kappa` is, the difference has mean 0 where both sets
are drawn alike and nothing is memorized; the fitted one makes its error least. One slope a level,
from images that the model has not seen, and resampled with them, so that its own error is in the
interval. Where the model is worse than the control on new images (:math:`\rho_u = 1`) damage is
not to be counted as memory, and the control is taken as it is.

References:
    | Cochran, Sampling Techniques (1977), chapters 6 and 7: ratio and regression estimators
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEEPEST = 2.0  # beyond it few images decide; any coefficient is honest, none need be wild


def followed(squares: Array, new: Array, scale: Array, slope: Array) -> Array:
    r"""What a control's errors are taken for, from its own and their mean at held-out images.

    Arguments:
        squares: The control's errors, of any shape; the others broadcast against it.
        new: Their mean over held-out images.
        scale: The factor :math:`\rho`.
        slope: The slope :math:`\kappa`.
    """
    return np.asarray(scale * (new + slope * (squares - new)))


def slopes(control: Array, own: Array, weights: Array) -> Array:
    r"""Slopes of a model's errors on a control's over images, for each resampling.

    Arguments:
        control: The control's errors, with shape :math:`(T, n)`.
        own: The model's, with shape :math:`(T, n)`.
        weights: Of the images, rows that add up to 1, with shape :math:`(R, n)`.

    Returns:
        The slopes, from 0 to 2, with shape :math:`(R, T)`; 1 where all images are alike.
    """
    # About the mean of all images first: moments of large numbers cancel.
    a, b = (v - v.mean(1, keepdims=True) for v in (control, own))
    means = weights @ a.T, weights @ b.T
    spread = weights @ np.square(a).T - np.square(means[0])
    shared = weights @ (a * b).T - means[0] * means[1]
    there = spread > 1e-12 * np.maximum(np.square(control).mean(1), 1e-300)
    found = np.where(there, shared / np.where(there, spread, 1.0), 1.0)
    return np.asarray(found.clip(0.0, STEEPEST))
