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

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomem.arguments import Number, Values, Whole, checked
from geomem.compute.progress import Forecast
from geomem.errors import InputError
from geomem.theory.moments import Array
from geomem.theory.priors import check_variances

Size = Annotated[float, Number(least=2, most=1e300)]
Level = Annotated[float, Number(least=1e-60, most=1e60)]

Form = Literal["as plotted", "consistent"]
PAPER_WINDOW = (20, 29)  # the ranks among which the paper looks for a drop, at d = 30


@checked
def condensation_level(
    x: Annotated[ArrayLike, Values(shape="(*, m)", least=-1e30, most=1e30)],
    variances: ArrayLike,
    num_samples: Size,
    *,
    gaussian: bool = True,
) -> Array:
    r"""The :math:`t_c(x)` of points given along the principal axes.

    One noise length along each direction, :math:`x = \sqrt t e_j`, it is :math:`t_{c,j}(t)`.

    Arguments:
        x: The points, with shape :math:`(*, m)`.
        variances: The variances, with shape :math:`(m)`.
        num_samples: The size N.
        gaussian: Whether samples are Gaussian, or normalised.

    Returns:
        The levels, with shape :math:`(*)`.

    Example:
        >>> float(condensation_level([0.0, 0.0], [1.0, 0.09], 1000).round(4))
        0.191
        >>> condensation_level(0.05**0.5 * np.eye(2), [1.0, 0.09], 1000).round(4)
        array([0.2003, 0.1919])
    """
    v, point = check_variances(variances), np.asarray(x, float)
    if point.shape[-1:] != v.shape:
        raise InputError(f"`x` has shape {point.shape}; pass {len(v)} coordinates, one a variance")
    spread = gaussian * (v**2).sum() / 2 + (v * point**2).sum(-1)
    return np.asarray(np.sqrt(spread / (2 * math.log(num_samples))))


@checked
def t_star(variances: ArrayLike, num_samples: Size, *, gaussian: bool) -> Array:
    r"""The self-consistent :math:`t^*_j`, with shape :math:`(m)`.

    Example:
        The paper's two groups, normalised samples.

        >>> t_star([1.0, 0.09], 250, gaussian=False).round(5)
        array([0.09056, 0.00815])
    """
    v, log_size = check_variances(variances), math.log(num_samples)
    A = gaussian * (v**2).sum() / 2
    return np.asarray((v + np.sqrt(v**2 + 8 * A * log_size)) / (4 * log_size))


@checked
def log_n_star(t: Level, variances: ArrayLike, *, gaussian: bool) -> Array:
    r"""The size below which each direction is lost at t, as :math:`\ln N^*_j`.

    .. math:: g = 0: \frac{v_j}{2 t} \, , \qquad g = 1: \frac{A + t v_j}{2 t^2}

    Example:
        >>> t = t_star([1.0, 0.09], 1000, gaussian=True)
        >>> bool(np.isclose(log_n_star(t[0], [1.0, 0.09], gaussian=True)[0], np.log(1000)))
        True
    """
    v = check_variances(variances)
    return np.asarray((gaussian * (v**2).sum() / 2 + t * v) / (2 * t**2))


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


@checked
def smoothed_spectrum(
    variances: ArrayLike,
    ambient_dim: Annotated[int, Whole(least=1)],
    t: Level,
    num_samples: Size,
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
    known = check_variances(variances)
    if ambient_dim < len(known):
        raise InputError(f"`ambient_dim` is {ambient_dim}, below {len(known)} variances; raise it")
    Forecast(0, 64.0 * ambient_dim).check_memory("pass a smaller `ambient_dim`")
    v = np.append(known, np.zeros(ambient_dim - len(known)))
    F = (v / (t**2 * (t + v))).sum()
    spread = gaussian * (v**2).sum() / 2 + np.append(0, t * v)  # at x = 0, then along each j
    with np.errstate(divide="ignore"):
        share = np.maximum(0, 1 - t / np.sqrt(spread / (2 * math.log(num_samples))))
    both = share[0] + share[1:]
    # phi = 1/t - 1/t_c is the effective number's inverse divided by t
    fluctuation = (F * both / t) ** 2 if form == "as plotted" else F * both
    return SmoothedSpectrum((t + v) ** -2.0, fluctuation, form)
