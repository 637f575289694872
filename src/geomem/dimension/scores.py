r"""Local dimensions as others measure them: from scores near a point, traces and filters.

These are the published estimators, each as its authors define it; where a definition is known
to fail, its docstring says so. All but :class:`FilteredTrace` are called with a *clean* point.

References:
    | Losing dimensions (Achilli et al., 2024), arXiv 2410.08727: the spike rule
    | Stanczuk et al., Your diffusion model secretly knows the dimension of the data manifold
      (2022), arXiv 2212.12611: the normal bundle
    | Kamkari et al., A geometric view of data complexity (2024), arXiv 2406.03537: FLIPD
    | Osada (2026): LHSD, a low-pass filter of the Hessian by Lanczos quadrature
    | Hutchinson, A stochastic estimator of the trace (1990): signs as probes
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from geomem.arguments import Number, Whole, checked, near, shown
from geomem.denoiser import Denoiser
from geomem.dimension.answers import NoGap, Place, PointMethod
from geomem.dimension.counts import jacobian_spectrum
from geomem.dimension.differences import OrthogonalDifferences, haar_rows, scores_at
from geomem.errors import InputError
from geomem.operators import DenoiserJacobian
from geomem.operators.linear import random_signs
from geomem.spectra import LanczosQuadrature, SpectrumMethod
from geomem.spectra.lanczos import random_directions
from geomem.spectra.traces import measured_diagonal
from geomem.stats import Estimate, torch_rng

# ------------------------------------------------------------------- the paper's spike rule

# (skipped, spike) for each data set of the paper.
PAPER_SPIKES = {
    "cifar10": (1000, 10.0),
    "mnist": (100, 20.0),
    "fashion-mnist": (200, 15.0),
    "lsun-church-64": (2000, 20.0),
    "celeba-hq-64": (1500, 10.0),
}


@checked
@dataclass(frozen=True, kw_only=True)
class SpikeRule(PointMethod):
    r"""The paper's rule: the spike in the second difference of the singular values.

    Sorted from the largest, without the first ``drop`` and not before the index ``skipped``,
    the largest

    .. math:: 2 s_k - s_{k+1} - s_{k-1} >
        c \cdot \mathrm{median}_l |s_{l+1} - 2 s_l + s_{l-1}|

    says that k normal directions lie before the drop, and d - k tangent ones behind it. (The
    leading value is dropped as the offset's, and counted: the score of a point near the data
    is normal. With d unit steps it may take one more normal direction with it.) Its
    constants were chosen for each data set (:data:`PAPER_SPIKES`); there is no test, so that
    white noise has spikes, too.

    Arguments:
        skipped: How many singular values are passed over (the paper's d-bar).
        spike: The factor c.
        drop: How many leading values hold the offset (the paper: one). If not given, one if it
            is more than twice the next and differences are not symmetrised: where the score
            is small there is no offset to drop.
        differences: How the singular values are measured.

    Raises:
        InputError: If an option is out of its range, or `differences` are none.

    Example:
        >>> plane = lambda x, sigma: x * torch.tensor([0.99, 0.98, 0.97] + 7 * [0.0])
        >>> rule = SpikeRule(differences=OrthogonalDifferences(symmetrised=True))
        >>> rule(plane, torch.zeros(10), torch.tensor(0.1))
        3 ± 0
    """

    at: ClassVar[Place] = "clean"
    skipped: Annotated[int, Whole(least=0)] = 0
    spike: Annotated[float, Number(least=0.0)] = 10.0
    drop: Annotated[int | None, Whole(least=0)] = None
    differences: OrthogonalDifferences = field(default_factory=OrthogonalDifferences)

    def __post_init__(self) -> None:
        if not callable(self.differences):
            raise InputError(
                f"`differences` is {shown(self.differences)}; pass OrthogonalDifferences()"
            )

    @staticmethod
    def of_paper(name: str, differences: OrthogonalDifferences | None = None) -> SpikeRule:
        r"""The rule with the paper's constants for a data set.

        Example:
            >>> SpikeRule.of_paper("mnist").skipped
            100
        """
        if name not in PAPER_SPIKES:
            raise InputError(
                f"the paper has no constants for {name!r}; {near(name, [*PAPER_SPIKES])}"
            )
        skipped, spike = PAPER_SPIKES[name]
        method = differences or OrthogonalDifferences()
        drop = int(not method.symmetrised)
        return SpikeRule(skipped=skipped, spike=spike, drop=drop, differences=method)

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
        return self.of(self.differences(denoiser, x, sigma), x.numel())

    def of(self, singular_values: Tensor, d: int) -> Estimate | NoGap:
        r"""The rule on singular values, largest first, in d dimensions."""
        s = singular_values.double()
        apart = len(s) > 1 and float(s[0]) > 2 * float(s[1])
        offsets = int(apart and not self.differences.symmetrised)
        dropped = offsets if self.drop is None else self.drop
        s = s[dropped:]
        if len(s) < self.skipped - dropped + 3 or len(s) < 3:
            return NoGap(f"{len(s)} singular values are too few to skip {self.skipped}")
        bends = 2 * s[1:-1] - s[2:] - s[:-2]  # entry i belongs to k = i + 2 large values
        # Exact planes bend nowhere else: rounding is no spike.
        median = max(float(bends.abs().median()), 1e-9 * float(s[0]))
        first = max(0, self.skipped - dropped - 2)
        k = int(bends[first:].argmax()) + first + 2
        if float(bends[k - 2]) <= self.spike * median:
            return NoGap(f"no second difference exceeds {self.spike:g} times the median")
        return Estimate(float(d - dropped - k))


# ---------------------------------------------------------------------------- normal bundle


@checked
@dataclass(frozen=True, kw_only=True)
class NormalBundle(PointMethod):
    r"""Scores of noisy copies of a clean point span the normal space (Stanczuk et al.).

    K scores at :math:`x_0 + \sigma z_i`, centred, have large singular values in normal
    directions; the dimension is d minus the position of their largest drop. Not centred, the
    offset adds a leading value, and with short steps the answer is d - 1. A drop is always
    found, in white noise, too.

    Gaussian draws are centred at their mean. Of d orthogonal draws the mean would take one
    normal direction away in part, and the answer would be off by one as often as not: they
    are centred at the score of the point itself.

    Arguments:
        draws: The number K; fewer than d - m cannot span the normal space. If not given, d
            orthogonal or 2d Gaussian ones (d Gaussian ones are right in two of three cases).
        noise: ``"orthogonal"`` (Haar, of the length of Gaussian noise) or ``"gaussian"``.
        centred: Whether the offset of the scores is subtracted.
        unit_steps: Whether the z are unit vectors, instead of as long as Gaussian noise.
        seed: The seed of the noise.
        chunk_size: How many points the denoiser sees at a time.

    Example:
        >>> plane = lambda x, sigma: x * torch.tensor([0.9, 0.9, 0.9] + 7 * [0.0])
        >>> NormalBundle()(plane, torch.ones(10), torch.tensor(0.1))
        3 ± 0
    """

    at: ClassVar[Place] = "clean"
    draws: Annotated[int | None, Whole(least=3)] = None
    noise: Literal["orthogonal", "gaussian"] = "orthogonal"
    centred: bool = True
    unit_steps: bool = False
    seed: Annotated[int, Whole(least=0)] = 0
    chunk_size: Annotated[int, Whole(least=1)] = 128

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
        d, rng = x.numel(), torch_rng(self.seed, "normal bundle")
        if d < 3:
            return NoGap(f"{d} singular values have no largest drop")
        if self.noise == "gaussian":
            z = torch.randn(self.draws or 2 * d, d, generator=rng, dtype=torch.float64)
            z = z / z.norm(dim=1, keepdim=True) if self.unit_steps else z
        else:
            z = (1.0 if self.unit_steps else math.sqrt(d)) * haar_rows(self.draws or d, d, rng)
        S = scores_at(
            denoiser, x + sigma.to(x) * z.to(x).reshape(-1, *x.shape), sigma, self.chunk_size
        )
        if self.centred:
            own = self.noise == "orthogonal"
            S = S - (scores_at(denoiser, x[None], sigma)[0] if own else S.mean(0))
        s = torch.linalg.svdvals(S)
        # K <= d draws about their mean have rank K - 1: the last value is 0 by itself.
        usable = len(s) - int(self.centred and self.noise == "gaussian" and len(S) <= d)
        drops = -s[:usable].diff()
        if float(s[0]) == 0 or float(drops.max()) <= 1e-6 * float(s[0]):
            return NoGap("all singular values are equal: there is no drop")
        return Estimate(float(d - int(drops.argmax()) - 1))


# ------------------------------------------------------------------------------------ FLIPD


@checked
@dataclass(frozen=True, kw_only=True)
class FLIPD(PointMethod):
    r"""Rate at which the log-density falls with the noise, at a clean point (Kamkari et al.).

    .. math:: d + \sigma^2 (\nabla \cdot s + |s|^2)
        = \mathrm{tr} \, \nabla D(x_0) + |D(x_0) - x_0|^2 / \sigma^2

    At a *noisy* point the second term is the d - m of noise itself and the answer is d,
    whatever the data: use :class:`~geomem.dimension.counts.SoftCount` there.

    Arguments:
        probes: How many products the trace takes; all d (exact) if not given.
        kind: ``"rademacher"`` signs, or ``"gaussian"`` as published, whose standard deviation
            on a near-projector is larger by :math:`\sqrt{d/m}` along the axes.
        seed: The seed of the probes.

    Example:
        >>> plane = lambda x, sigma: x * torch.tensor([1.0, 1.0, 0.0, 0.0])
        >>> FLIPD()(plane, torch.tensor([3.0, 1.0, 0.0, 0.0]), torch.tensor(0.1))
        2 ± 0
    """

    at: ClassVar[Place] = "clean"
    probes: Annotated[int | None, Whole(least=1)] = None
    kind: Literal["rademacher", "gaussian"] = "rademacher"
    seed: Annotated[int, Whole(least=0)] = 0

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate:
        with torch.no_grad():
            residual = (denoiser(x[None], sigma)[0] - x).double() / float(sigma)
        J, rng = DenoiserJacobian(denoiser, x, sigma), torch_rng(self.seed, "flipd")
        if self.probes is None:
            trace: Estimate = measured_diagonal(J)
        else:
            gaussian = self.kind == "gaussian"
            V = (random_directions if gaussian else random_signs)(J.size, self.probes, rng)
            V = V.to(J.like)
            trace = Estimate.of_mean((V * J.rmatmat(V)).double().sum(0).numpy(force=True))
        return Estimate(trace.value + float(residual.square().sum()), trace.stderr)


# --------------------------------------------------------------------------- filtered trace


@checked
@dataclass(frozen=True, kw_only=True)
class FilteredTrace(PointMethod):
    r"""Trace of a low-pass filter of the negative Hessian of the log-density (LHSD).

    With :math:`-\sigma^2 H = 1 - \nabla D`, tangent directions are its low end, and

    .. math:: m = \mathrm{tr} f(-\sigma^2 H) \, , \qquad
        f(u) = \left[ 1 + (u / c)^p \right]^{-1} \, .

    A fixed cut c is biased where d is large: the lost directions' tails add up. Here it is
    the middle of the widest interval without eigenvalues, as the quadrature sees it.

    Arguments:
        order: The steepness p of the filter.
        cut: A fixed cut in (0, 1), in units of :math:`1/\sigma^2`; from the spectrum if not given.
        least: The least width of the empty interval: narrower is "no gap".
        spectrum: How the spectrum is obtained.

    Example:
        >>> plane = lambda x, sigma: x * torch.tensor([1.0, 0.95, 0.9] + 7 * [0.02])
        >>> FilteredTrace()(plane, torch.ones(10), torch.tensor(0.1))
        3 ± 0
    """

    order: Annotated[float, Number(above=0.0)] = 32.0
    cut: Annotated[float | None, Number(above=0.0, below=1.0)] = None
    least: Annotated[float, Number(least=0.0)] = 0.3
    spectrum: SpectrumMethod = field(default_factory=lambda: LanczosQuadrature(depth=12, probes=8))

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
        known = jacobian_spectrum(denoiser, x, sigma, self.spectrum)
        # In u = 1 - lambda, among nodes that stand for anything; between 0 and 1, where it is cut.
        u = (1 - known.nodes[known.weights > 1e-6]).double().clamp(0, 1).sort().values
        widths = u.diff().tolist() or [0.0]
        widest = widths.index(max(widths))
        if self.cut is None and (widths[widest] < self.least or widths[widest] == 0):
            return NoGap(
                f"the widest interval without eigenvalues has width {widths[widest]:.2g}",
                soft_count=known.trace(),
            )
        cut = self.cut or float(u[widest] + u[widest + 1]) / 2
        return known.integrate(lambda v: 1 / (1 + ((1 - v).clamp(min=0) / cut) ** self.order))
