r"""A spectrum method and a dimension method of one's own; docs/extend.md explains them.

Run as a script, this file checks both. On the command line, in the folder of this file:

    geomem dimension --data digits --sizes 512 --sigmas 1 --dimension own_method:Participation
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

import geomem
from geomem.denoiser import Denoiser
from geomem.dimension import jacobian_spectrum
from geomem.spectra import SpectrumMethod
from geomem.stats import torch_rng


@dataclass(frozen=True, kw_only=True)
class TwoNodes:
    r"""Gauss quadrature with two nodes a probe, from its first three moments: two products."""

    probes: int = 16
    seed: int = 0

    def __call__(self, operator: geomem.LinearOperator) -> geomem.Spectrum:
        n, tiny = operator.size, torch.finfo(operator.like.dtype).tiny
        signs = torch.randint(2, (n, self.probes), generator=torch_rng(self.seed, "two nodes"))
        V = (2 * signs - 1).to(operator.like) / n**0.5
        AV = operator.matmat(V)
        mean = (V * AV).sum(0)  # v·Av
        R = AV - mean * V
        variance = (R * R).sum(0)  # v·(A - mean)²v
        skew = (R * operator.matmat(R)).sum(0) - mean * variance  # v·(A - mean)³v
        half = skew / (2 * variance.clamp(min=tiny))
        root = (variance + half**2).sqrt()
        upper = (1 - half / root.clamp(min=tiny)) / 2
        nodes = torch.stack([mean + half + root, mean + half - root], dim=1)
        return geomem.Spectrum(nodes, n * torch.stack([upper, 1 - upper], dim=1))


@dataclass(frozen=True)
class Participation:
    r"""Participation ratio of the Jacobian's eigenvalues, a number of equal directions."""

    spectrum: SpectrumMethod = field(default_factory=geomem.Dense)

    def __call__(
        self, denoiser: Denoiser, x: Tensor, sigma: Tensor
    ) -> geomem.Estimate | geomem.NoGap:
        found = jacobian_spectrum(denoiser, x, sigma, self.spectrum)
        a, b = found.trace().value, found.integrate(torch.square).value
        if b < 1e-12:
            return geomem.NoGap("the Jacobian is zero: no direction is kept")
        return found.integrate(lambda v: 2 * (a / b) * v - (a / b) ** 2 * v**2)


if __name__ == "__main__":
    from geomem.testing import check_dimension_method, check_spectrum_method

    check_spectrum_method(TwoNodes())
    check_dimension_method(Participation())
    check_dimension_method(Participation(TwoNodes(probes=64)))
    print("both can be used wherever geomem takes a method")
