r"""Local dimension: how many directions a denoiser still varies in, at a point and a level.

Methods that read a spectrum hold a spectrum method. Further ones: :mod:`geomem.dimension.scores`
reads scores, :mod:`geomem.dimension.local` is the default, :mod:`geomem.dimension.plateau`
chooses a scale and :mod:`geomem.dimension.from_points` needs no denoiser.

References:
    | Losing dimensions (Achilli et al., 2024), arXiv 2410.08727
    | Manifolds, random matrices and spectral gaps (Ventura et al., 2024), arXiv 2410.05898
    | Stein, Estimation of the mean of a multivariate normal distribution (1981)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from geomem.arguments import Number, Whole, checked
from geomem.denoiser import Denoiser
from geomem.dimension.answers import NoGap, Place, PointMethod
from geomem.dimension.differences import check_finite
from geomem.dimension.gaps import LARGEST_KEPT, gap_p_value, spacing_p_value
from geomem.errors import InputError
from geomem.operators import DenoiserJacobian
from geomem.spectra import Dense, Spectrum, SpectrumMethod, spectrum
from geomem.stats import Estimate, torch_rng


def jacobian_spectrum(
    denoiser: Denoiser, x: Tensor, sigma: Tensor, method: SpectrumMethod
) -> Spectrum:
    r"""Spectrum of the symmetric part of a denoiser's Jacobian at one point ``(*)``."""
    return spectrum(DenoiserJacobian(denoiser, x, sigma), method)


@checked
@dataclass(frozen=True)
class Threshold(PointMethod):
    r"""How many eigenvalues of the Jacobian exceed a threshold.

    A sampled spectrum bounds the number (:meth:`~geomem.spectra.Spectrum.count_bounds`): the
    answer is the middle, and half the distance of the bounds is part of its error.

    Arguments:
        above: The threshold; at 1/2 a direction counts if its variance is above sigma².
        spectrum: How the spectrum is obtained.

    Example:
        >>> keep = lambda x, sigma: x * torch.tensor([0.9, 0.6, 0.1])
        >>> Threshold()(keep, torch.zeros(3), torch.tensor(1.0))
        2 ± 0
    """

    above: Annotated[float, Number(above=0.0, below=1.0)] = 0.5
    spectrum: SpectrumMethod = field(default_factory=Dense)

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
        found = jacobian_spectrum(denoiser, x, sigma, self.spectrum)
        if found.exact or found.quadrature is None:
            return found.count(self.above)
        low, high = found.count_bounds(self.above)
        half, error = (high.value - low.value) / 2, max(low.stderr, high.stderr)
        return Estimate((low.value + high.value) / 2, math.hypot(half, error))


@checked
@dataclass(frozen=True)
class SoftCount(PointMethod):
    r"""Trace of the Jacobian: the population's :math:`\sum_k v_k / (v_k + \sigma^2)`.

    Averaged over noised points it is the information per e-fold of noise.

    Example:
        >>> keep = lambda x, sigma: x * torch.tensor([1.0, 0.5, 0.0])
        >>> SoftCount()(keep, torch.zeros(3), torch.tensor(1.0))
        1.5 ± 0
    """

    is_soft_count: ClassVar[bool] = True
    spectrum: SpectrumMethod = field(default_factory=Dense)

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
        return jacobian_spectrum(denoiser, x, sigma, self.spectrum).trace()


@checked
@dataclass(frozen=True, kw_only=True)
class ForwardSoftCount(PointMethod):
    r"""Soft count without any derivative, for black boxes, by Stein's identity.

    .. math:: E\, \mathrm{tr}\, \nabla D(x_0 + \sigma z) = E\, z \cdot D(x_0 + \sigma z) / \sigma

    Called with the *clean* point; the mean is over its noise, in antithetic pairs, which
    cancel what the denoiser returns on average.

    Arguments:
        pairs: How many pairs of noise draws; at least two for an error.
        seed: The seed of the draws.
    """

    at: ClassVar[Place] = "clean"
    is_soft_count: ClassVar[bool] = True
    pairs: Annotated[int, Whole(least=1)] = 64
    seed: Annotated[int, Whole(least=0)] = 0

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
        rng = torch_rng(self.seed, "stein")
        z = torch.randn(self.pairs, *x.shape, generator=rng).to(x)
        with torch.no_grad():
            difference = denoiser(x + sigma * z, sigma) - denoiser(x - sigma * z, sigma)
        check_finite(difference)
        products = (z * difference).flatten(1).double().sum(1) / (2 * float(sigma))
        return Estimate.of_mean(products.numpy(force=True))


@checked
@dataclass(frozen=True)
class LargestGap(PointMethod):
    r"""Position of the largest gap in the logarithms of the spectrum, if there is one.

    The gap must be wider than noise makes it, at level ``alpha`` each: than the largest of
    random spacings between floor and top (Fisher), than the hard edge of a sample covariance
    leaves at its lower end, and than the weights of a few training points leave at the upper
    one; see :mod:`geomem.dimension.gaps`. Not significant, or less than a factor ``ratio``,
    is "no gap": an answer, not an error. So is an eigenvalue above 3/2: the posterior is then
    spread over separate points. Of 100 exact denoisers of white noise (31 to 1000 points in 30
    dimensions, levels from 4 to .1 of theirs) at most 2 have a gap at any level.

    Arguments:
        ratio: The least ratio of neighbouring eigenvalues that is called a gap.
        alpha: The level of the test.
        floor: Eigenvalues below are taken to be at the floor: they are noise.
        least: The least eigenvalue that can be the last one before the gap.
        spectrum: How the spectrum is obtained; it must be exact.

    Example:
        >>> keep = lambda x, sigma: x * torch.tensor([0.9, 0.8, 0.7, 1e-3, 9e-4, 8e-4])
        >>> LargestGap()(keep, torch.zeros(6), torch.tensor(1.0))
        3 ± 0
        >>> LargestGap()(lambda x, sigma: 0.5 * x, torch.zeros(6), torch.tensor(1.0)).reason
        'all eigenvalues lie within a factor 1 of each other'
    """

    ratio: Annotated[float, Number(above=1.0)] = 3.0
    alpha: Annotated[float, Number(above=0.0, below=1.0)] = 0.01
    floor: Annotated[float, Number(above=0.0)] = 1e-6
    least: Annotated[float, Number(least=0.0)] = 0.05
    spectrum: SpectrumMethod = field(default_factory=Dense)

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
        known = jacobian_spectrum(denoiser, x, sigma, self.spectrum)
        if not known.exact:
            raise InputError("a gap needs every eigenvalue; use spectrum=Dense()")
        found = self.of(known.nodes[0])
        return replace(found, soft_count=known.trace()) if isinstance(found, NoGap) else found

    def of(self, eigenvalues: Tensor) -> Estimate | NoGap:
        r"""The gap among eigenvalues, with shape :math:`(n)`."""
        logs = eigenvalues.double().clamp(min=self.floor).log().sort(descending=True).values
        spacings = -logs.diff()
        spread = float(logs[0] - logs[-1]) if len(logs) else 0.0
        if spread < math.log(self.ratio):
            factor = math.exp(spread)
            return NoGap(f"all eigenvalues lie within a factor {factor:.3g} of each other")
        if float(logs[0]) > math.log(LARGEST_KEPT):
            top = math.exp(float(logs[0]))
            return NoGap(f"the largest eigenvalue is {top:.3g}: separate points, no tangent space")
        kept = int(spacings.argmax()) + 1
        widest, last = float(spacings[kept - 1]), math.exp(float(logs[kept - 1]))
        if last < self.least:
            return NoGap(f"the widest gap is below an eigenvalue of {last:.2g}: nothing is kept", 0)
        p_value = max(
            spacing_p_value(widest / spread, len(spacings)),
            gap_p_value(widest, kept, len(logs) - kept, temperature=0.5),
        )
        factor = math.exp(widest)
        if factor < self.ratio or p_value > self.alpha:
            return NoGap(f"the widest gap is a factor {factor:.3g}, with p = {p_value:.2g}")
        return Estimate(float(kept))
