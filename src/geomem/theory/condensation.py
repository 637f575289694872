r"""The paper's theory: directions condense one after the other. **[paper]**

The energies :math:`E_i = |x - y_i|^2 / 2` at inverse temperature :math:`1/t` are taken for a
random energy model of N levels with :math:`\mathrm{Var} \, E = \frac{g}{2} \sum_k v_k^2 +
x^\top \Sigma x`. It condenses at

.. math:: t_c(x) = \sqrt{ \frac{ \frac{g}{2} \sum_k v_k^2 + x^\top \Sigma x }{ 2 \ln N } }

where g = 1 for Gaussian data and g = 0 if every sample is normalised. One noise length
along direction j, :math:`x = \sqrt t e_j`, it is :math:`t_{c,j}(t)`, and :math:`t =
t_{c,j}(t)` gives, with :math:`A = \frac12 \sum_k v_k^2`,

.. math::
    g = 0: \quad t^*_j &= \frac{v_j}{2 \ln N} \\
    g = 1: \quad t^*_j &= \frac{v_j + \sqrt{v_j^2 + 8 A \ln N}}{4 \ln N} \, .

So higher variance condenses at larger t: it is *lost first*. Effective points:
:math:`1/\tilde N = (1 - t/t_c)_+`. The Jacobian smoothed over one noise length has

.. math:: sv_j^2 = (t + v_j)^{-2} + \mathrm{fluctuation}_j \, , \qquad
    F(t) = \sum_k \frac{v_k}{t^2 (t + v_k)}

with a fluctuation in two forms: **as plotted** by the authors, :math:`[F (\phi_0 +
\phi_j)]^2` with :math:`\phi = (1/t - 1/t_c)_+`, in units of length^-12; and **consistent**
[ours], :math:`F (1/\tilde N_0 + 1/\tilde N_j)`, in units of length^-4. A direction is lost
once the fluctuation exceeds the mean.

**Validity.** A random energy model needs :math:`\ln N` proportional to many dimensions and
independent energies. **How far off it is.** At the paper's own d = 30 (x = 0, Gaussian
data, N = 1000, t = .05) it says 1.2 effective points and there are 25 (:math:`\mathbb{E}
\sum w^2` = .039, exact). And in averages over planted points directions of *lower* variance
have the lower retention (N = 50, t = .1: high .49, low .43). The exact answer at finite
size is :mod:`geomem.theory.finite_size`.

References:
    | Losing dimensions: Geometric memorization in generative diffusion (Achilli et al., 2024)
    | https://arxiv.org/abs/2410.08727
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomem.errors import InputError
from geomem.theory.moments import Array
from geomem.theory.priors import check_variances, finite

Form = Literal["as plotted", "consistent"]
PAPER_WINDOW = (20, 29)  # the ranks among which the paper looks for a drop, at d = 30


def condensation_level(
    x: ArrayLike, variances: ArrayLike, num_samples: float, *, gaussian: bool = True
) -> float:
    r"""The :math:`t_c(x)` of a point, given along the principal axes, with shape :math:`(m)`.

    Example:
        >>> round(condensation_level([0.0, 0.0], [1.0, 0.09], 1000), 4)
        0.191
    """
    v, point = check_variances(variances), finite(x, "x")
    if point.shape != v.shape:
        raise InputError(f"x needs one coordinate a variance: {v.shape}; got {point.shape}")
    spread = gaussian * (v**2).sum() / 2 + (v * point**2).sum()
    return float(np.sqrt(spread / (2 * _log_size(num_samples))))


def directional_level(
    t: ArrayLike, variances: ArrayLike, num_samples: float, *, gaussian: bool = True
) -> Array:
    r"""The :math:`t_{c,j}(t)` one noise length along each direction, with shape :math:`(*, m)`."""
    v, level = check_variances(variances), _positive(t)[..., None]
    spread = gaussian * (v**2).sum() / 2 + level * v
    return np.asarray(np.sqrt(spread / (2 * _log_size(num_samples))))


def t_star(variances: ArrayLike, num_samples: float, *, gaussian: bool) -> Array:
    r"""The self-consistent :math:`t^*_j`, with shape :math:`(m)`.

    Example:
        The paper's two groups, normalised samples.

        >>> t_star([1.0, 0.09], 250, gaussian=False).round(5)
        array([0.09056, 0.00815])
    """
    v, log_size = check_variances(variances), _log_size(num_samples)
    A = gaussian * (v**2).sum() / 2
    return np.asarray((v + np.sqrt(v**2 + 8 * A * log_size)) / (4 * log_size))


def log_n_star(t: float, variances: ArrayLike, *, gaussian: bool) -> Array:
    r"""The size below which each direction is lost at t, as :math:`\ln N^*_j`.

    .. math:: g = 0: \frac{v_j}{2 t} \, , \qquad g = 1: \frac{A + t v_j}{2 t^2}

    Example:
        >>> t = t_star([1.0, 0.09], 1000, gaussian=True)
        >>> bool(np.isclose(log_n_star(t[0], [1.0, 0.09], gaussian=True)[0], np.log(1000)))
        True
    """
    v, level = check_variances(variances), _positive(t)
    A = gaussian * (v**2).sum() / 2
    return np.asarray((A + level * v) / (2 * level**2))


def n_star(t: float, variances: ArrayLike, *, gaussian: bool) -> Array:
    r"""The size :math:`N^*_j`; infinite where it exceeds floating point."""
    with np.errstate(over="ignore"):
        size: Array = np.exp(log_n_star(t, variances, gaussian=gaussian))
    return size


def inverse_effective_points(t: ArrayLike, t_c: ArrayLike) -> Array:
    r"""The random energy model's :math:`1/\tilde N = (1 - t/t_c)_+`.

    Example:
        >>> inverse_effective_points([0.05, 0.2], 0.1)
        array([0.5, 0. ])
    """
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(0.0, 1 - np.asarray(t) / np.asarray(t_c)))


@dataclass(frozen=True)
class SmoothedSpectrum:
    r"""The smoothed score Jacobian, direction by direction, with shape :math:`(d)` each.

    Attributes:
        mean: The population's part :math:`(t + v_j)^{-2}`.
        fluctuation: What the finite set adds to it.
        form: Which of the two forms.
    """

    mean: Array
    fluctuation: Array
    form: Form

    @property
    def singular_values(self) -> Array:
        r"""The :math:`sv_j`, in the order of the directions."""
        return np.sqrt(self.mean + self.fluctuation)

    @property
    def lost(self) -> NDArray[np.bool_]:
        r"""Whether the fluctuation exceeds the mean."""
        return self.fluctuation > self.mean

    def drop(self, window: tuple[int, int] | None = PAPER_WINDOW) -> int | None:
        r"""The rank after which the sorted singular values fall most.

        Arguments:
            window: First and last rank that are looked at; None for all of them.

        Returns:
            The rank, counted from 1, or None where nothing falls.
        """
        values = np.sort(self.singular_values)[::-1]
        first, last = window or (1, len(values) - 1)
        falls = values[:-1] - values[1:]
        inside = falls[first - 1 : last]
        # Equal values differ by rounding only.
        if not len(inside) or inside.max() <= 1e-12 * values[0]:
            return None
        return first + int(inside.argmax())


def smoothed_spectrum(
    variances: ArrayLike,
    ambient_dim: int,
    t: float,
    num_samples: float,
    *,
    form: Form,
    gaussian: bool = False,
) -> SmoothedSpectrum:
    r"""The paper's prediction for :math:`[s(x + \sqrt t e_j) - s(x)] / \sqrt t` at x = 0.

    Arguments:
        variances: The variances, with shape :math:`(m)`.
        ambient_dim: The dimension d; the other directions have variance 0.
        t: The noise level :math:`t = \sigma^2`.
        num_samples: The size N.
        form: ``"as plotted"`` by the authors, or ``"consistent"`` in its dimensions.
        gaussian: Whether samples are Gaussian, or normalised as in the paper's figures.

    Example:
        >>> paper = [1.0, 1.0] + [0.09] * 5
        >>> s = [smoothed_spectrum(paper, 30, t, 1000, form="as plotted") for t in
        ...      (0.2, 0.09, 0.05, 0.005)]
        >>> [one.drop() for one in s]
        [28, 23, 25, None]
    """
    v = np.concatenate([check_variances(variances), np.zeros(ambient_dim)])[:ambient_dim]
    level = float(_positive(t))
    F = (v / (level**2 * (level + v))).sum()
    t_0 = condensation_level(np.zeros(ambient_dim), v, num_samples, gaussian=gaussian)
    t_j = directional_level(level, v, num_samples, gaussian=gaussian)
    with np.errstate(divide="ignore"):
        share_0, share_j = (inverse_effective_points(level, c) for c in (t_0, t_j))
    # phi = 1/t - 1/t_c is the effective number's inverse divided by t
    fluctuation = (
        (F * (share_0 + share_j) / level) ** 2 if form == "as plotted" else F * (share_0 + share_j)
    )
    return SmoothedSpectrum((level + v) ** -2.0, fluctuation, form)


def _log_size(num_samples: float) -> float:
    if not num_samples >= 2:
        raise InputError(f"num_samples is {num_samples:g}; pass a size N >= 2")
    return float(np.log(num_samples))


def _positive(t: ArrayLike) -> Array:
    level = finite(t, "t")
    if (level <= 0).any():
        raise InputError(f"t is {level.min():g}; pass t = sigma**2 > 0")
    return level
