r"""Slow twins: each computes what the library computes, the long way, in float64.

Nothing here imports a formula from geomem: loops, explicit differences, dense matrices and
other libraries. Where float64 itself could be in doubt, NumPy's long double is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.dimension import NoGap
from geomem.stats import Estimate

Array = NDArray[np.float64]


def normal(seed: int, *shape: int) -> Tensor:
    r"""Standard normal draws in float64."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def rotation(seed: int, d: int) -> Tensor:
    r"""An orthogonal matrix, with shape (d, d)."""
    Q: Tensor = torch.linalg.qr(normal(seed, d, d)).Q
    return Q


def level(sigma: float) -> Tensor:
    return torch.tensor(sigma, dtype=torch.float64)


def estimate(answer: Estimate | NoGap) -> Estimate:
    r"""An answer that must be a dimension."""
    assert isinstance(answer, Estimate), answer
    return answer


# --------------------------------------------------------------------- exact denoisers


def posterior(data: Tensor, x: Tensor, sigma: float) -> dict[str, Array]:
    r"""The posterior at one point, by a loop over explicit differences, in long double."""
    y = data.flatten(1).double().numpy().astype(np.longdouble)
    q = x.flatten().double().numpy().astype(np.longdouble)
    energies = np.array([((q - row) ** 2).sum() for row in y]) / (2 * np.longdouble(sigma) ** 2)
    raw = np.exp(energies.min() - energies)
    weights = raw / raw.sum()
    seen = weights[weights > 0]
    result = {
        "weights": weights,
        "mean": weights @ y,
        "participation": (weights**2).sum(),
        "entropy": -(seen * np.log(seen)).sum(),
        "log_partition": np.log(raw.sum()) - energies.min(),
    }
    return {name: np.asarray(value, dtype=np.float64) for name, value in result.items()}


def weighted_covariance(data: Tensor, x: Tensor, sigma: float) -> Tensor:
    r"""Cov_w of the training points at one point, about their weighted mean."""
    known = posterior(data, x, sigma)
    centred = data.flatten(1).double().numpy() - known["mean"]
    return torch.from_numpy(centred.T @ np.diag(known["weights"]) @ centred)


def gaussian_posterior(
    mean: Tensor, covariance: Tensor, x: Tensor, sigma: float
) -> tuple[Tensor, Tensor]:
    r"""Posterior mean and covariance of one Gaussian, by solving linear equations."""
    noisy = covariance + sigma**2 * torch.eye(len(mean), dtype=torch.float64)
    gain = torch.linalg.solve(noisy, covariance).T
    return mean + gain @ (x - mean), covariance - gain @ covariance


def mixture_posterior(
    weights: Tensor, means: list[Tensor], covariances: list[Tensor], x: Tensor, sigma: float
) -> tuple[Tensor, Tensor]:
    r"""Posterior mean and covariance of a mixture: torch's own densities, law of total variance."""
    identity = torch.eye(len(x), dtype=torch.float64)
    logs = [
        torch.distributions.MultivariateNormal(m, c + sigma**2 * identity).log_prob(x)
        for m, c in zip(means, covariances, strict=True)
    ]
    r = (torch.stack(logs) + weights.log()).softmax(0)
    parts = [gaussian_posterior(m, c, x, sigma) for m, c in zip(means, covariances, strict=True)]
    mean = sum((rk * m for rk, (m, _) in zip(r, parts, strict=True)), torch.zeros_like(x))
    spread = [c + torch.outer(m - mean, m - mean) for m, c in parts]
    return mean, sum((rk * s for rk, s in zip(r, spread, strict=True)), 0 * identity)


def gaussian_log_density(mean: Tensor, covariance: Tensor, x: Tensor, sigma: float) -> Tensor:
    noisy = covariance + sigma**2 * torch.eye(len(mean), dtype=torch.float64)
    result: Tensor = torch.distributions.MultivariateNormal(mean, noisy).log_prob(x)
    return result


# ------------------------------------------------------------------------- derivatives


def jacobian(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Tensor:
    r"""Dense Jacobian at one point, row by row, by plain autograd."""
    point = x.detach().clone().requires_grad_()
    y = denoiser(point[None], sigma)[0].flatten()
    rows = [torch.autograd.grad(v, point, retain_graph=True)[0].flatten() for v in y]
    return torch.stack(rows)


def difference_jacobian(fn: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    r"""Jacobian by central differences: no derivative of any library."""
    shifts = step * torch.eye(len(x), dtype=torch.float64)
    return torch.stack([(fn(x + s) - fn(x - s)) / (2 * step) for s in shifts], dim=1)


# -------------------------------------------------------------------------- quadrature


def noise_grid(d: int, step: float, reach: float = 9.0) -> tuple[Tensor, Tensor]:
    r"""Nodes and weights of E f(z), z ~ N(0, I_d), by the trapezoid rule.

    Its error falls like exp(-2 pi a / step) for functions analytic in a strip of width a: as
    fast as anything, and unlike Gauss-Hermite it does not mind a steep tanh in the middle.
    Beyond 9 standard deviations there are 2e-19.
    """
    line = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
    density = torch.exp(-line.square() / 2) * step / math.sqrt(math.tau)
    nodes = torch.cartesian_prod(*[line] * d).reshape(-1, d)
    weights = torch.cartesian_prod(*[density] * d).reshape(-1, d).prod(1)
    return nodes, weights


def integrate(fn: Callable[[float], float], low: float, high: float, panel: float = 0.5) -> float:
    r"""Integral by Gauss-Legendre panels of ten nodes: 1e-12 for what bends over a unit."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    edges = np.linspace(low, high, max(2, round((high - low) / panel) + 1))
    total = 0.0
    for a, b in pairwise(edges):
        values = [fn((a + b) / 2 + (b - a) / 2 * node) for node in nodes]
        total += (b - a) / 2 * float(np.dot(weights, values))
    return total


# -------------------------------------------------------------------------- networks


def random_network(seed: int, d: int, width: int = 16) -> torch.nn.Module:
    r"""A denoiser that nobody trained, in float64: nothing exact about it, not symmetric."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RandomNetwork(d, width).double()


class RandomNetwork(torch.nn.Module):
    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        layers = [torch.nn.Linear(d + 1, width), torch.nn.Linear(width, width)]
        self.body = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh())
        self.leave = torch.nn.Linear(width, d)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        levels = sigma.log().expand(len(x)).to(x)[:, None]
        out: Tensor = self.leave(self.body(torch.cat([x.flatten(1), levels], dim=1)))
        return out.reshape(x.shape)
