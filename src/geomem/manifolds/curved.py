r"""Curved manifolds in closed form: the sphere and the flat torus, in any dimension.

On the sphere of radius r in p = m + 1 dimensions, what a noisy point y tells about the clean
one is a von Mises-Fisher law with concentration :math:`\kappa = r \|y\| / \sigma^2`, so

.. math::
    D(y, \sigma) = r \, A_p(\kappa) \, \frac{y}{\|y\|} \, , \qquad
    A_p(\kappa) = \frac{I_{p/2}(\kappa)}{I_{p/2 - 1}(\kappa)} \, .

The ratio of Bessel functions is the mean of :math:`\cos \theta` under the density
:math:`e^{\kappa \cos \theta} \sin^{p-2} \theta`, and by parts
:math:`A_p(\kappa) / \kappa = E[\sin^2 \theta] / (p - 1)`. In the variable v with
:math:`(1 - \cos \theta) / 2 = 1 / (1 + e^{-v})` the integrand is a bell, and the midpoint rule
converges exponentially: to 1e-14 for p to many thousands and any concentration, with plain
derivatives in place of recurrences. The sum is of positive terms, so nothing cancels at small
sigma.

References:
    | Mardia & Jupp, Directional Statistics (2000), section 10.3.1
    | Trefethen & Weideman, The exponentially convergent trapezoidal rule, SIAM Review (2014)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from geomem.arguments import Values, check, checked
from geomem.errors import InputError
from geomem.manifolds.quadrature import Embedding, check_points, gaussian_log_norm
from geomem.noise import level_of_each

# Nodes of the midpoint rule: with p = 2 they lie .24 apart, an error of exp(-2 pi (pi/2)/.24).
_NODES = 801


def bessel_ratio(kappa: Tensor, size: int) -> Tensor:
    r"""Ratio of Bessel functions over its argument, :math:`A_p(\kappa) / \kappa`.

    Arguments:
        kappa: The concentration, not negative, with shape :math:`(*)`.
        size: The number :math:`p \geq 2` of coordinates.

    Returns:
        :math:`I_{p/2}(\kappa) / (\kappa \, I_{p/2-1}(\kappa))`, with shape :math:`(*)`.

    Example:
        >>> kappa = torch.tensor(2.0, dtype=torch.float64)
        >>> (kappa * bessel_ratio(kappa, 3) - (1 / kappa.tanh() - 1 / kappa)).abs() < 1e-15
        tensor(True)
    """
    return mean_over_sphere(kappa, size)[0]


def mean_over_sphere(kappa: Tensor, size: int) -> tuple[Tensor, Tensor]:
    r"""What the uniform law of a direction u in p coordinates leaves of a pull of strength kappa.

    Arguments:
        kappa: The concentration, not negative, with shape :math:`(*)`.
        size: The number :math:`p \geq 1` of coordinates; of 1 the directions are two signs.

    Returns:
        :math:`A_p(\kappa) / \kappa` and :math:`\ln E \exp(-\kappa (1 - \cos \theta))`, both with
        shape :math:`(*)`.
    """
    if size == 1:
        small = kappa < 1e-4  # tanh(kappa) / kappa is 1 - kappa²/3 there, to 1e-17
        safe = torch.where(small, 1.0, kappa)
        ratio = torch.where(small, 1 - kappa**2 / 3, safe.tanh() / safe)
        return ratio, (-2 * kappa).exp().log1p() - math.log(2)
    log_density, s, c, step = _bell(kappa, size)
    a = (size - 1) / 2
    log_beta = 2 * math.lgamma(a) - math.lgamma(2 * a)
    ratio = (log_density.softmax(-1) * s * c).sum(-1) * 4 / (size - 1)
    return ratio, log_density.logsumexp(-1) + step.log() - log_beta


def _bell(kappa: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # f(v) = exp(-2 kappa s) [s (1 - s)]^a with s = 1 / (1 + e^-v) and a = (p - 1)/2, on nodes
    # about its maximum. The nodes are constants, derivatives go through kappa alone.
    a, k = (size - 1) / 2, kappa.detach()
    # 2 k s (1 - s) = a (1 - 2 s) at the maximum
    top = a / (k + a + (k**2 + a**2).sqrt())
    width = (top * (1 - top) * (2 * k * (1 - 2 * top) + 2 * a)).rsqrt()
    reach = 10 * width + 40 / a
    nodes = torch.linspace(-1, 1, _NODES, dtype=torch.float64, device=k.device)
    v = top.logit()[..., None] + reach[..., None] * nodes
    s, c = v.sigmoid(), (-v).sigmoid()
    logs = a * (torch.nn.functional.logsigmoid(v) + torch.nn.functional.logsigmoid(-v))
    return logs - 2 * kappa[..., None] * s, s, c, 2 * reach / (_NODES - 1)


def _denoise(y: Tensor, radius: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    # The denoiser on spheres of p coordinates, and its concentration: y of shape (..., p).
    kappa = radius * _length(y) / sigma**2
    gain = radius**2 / sigma**2 * bessel_ratio(kappa, y.shape[-1])
    return gain[..., None] * y, kappa


def _length(y: Tensor) -> Tensor:
    # Of derivative 0 at 0, where the ratio is even and its own derivative is 0.
    squares = y.square().sum(-1)
    safe = torch.where(squares > 0, squares, torch.ones_like(squares))
    return torch.where(squares > 0, safe.sqrt(), torch.zeros_like(squares))


def _log_density(y: Tensor, radius: Tensor, sigma: Tensor) -> Tensor:
    # ln E exp(-|y - r u|²/2 sigma²) over directions u, with shape (...).
    length = _length(y)
    kappa = radius * length / sigma**2
    return mean_over_sphere(kappa, y.shape[-1])[1] - (length - radius).square() / (2 * sigma**2)


class SphereDenoiser:
    r"""Exact denoiser of the uniform law on a product of spheres of equal dimension.

    Arguments:
        radii: Their radii, with shape :math:`(K)`.
        size: The number p of coordinates of each.
        embedding: Where the K p coordinates lie in the ambient space.
    """

    exact: Literal[True] = True

    def __init__(self, radii: Tensor, size: int, embedding: Embedding) -> None:
        self.radii, self.size, self.embedding = radii.double(), size, embedding

    def _blocks(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        check_points(x, self.embedding.ambient_dim)
        levels = level_of_each(sigma, x)
        y = self.embedding.inside(x).reshape(len(x), len(self.radii), self.size)
        return y, self.radii.to(x.device), levels

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        y, radii, levels = self._blocks(x, sigma)
        denoised, _ = _denoise(y, radii, levels[:, None])
        return self.embedding.place(denoised.flatten(1)).to(x.dtype)

    def jacobian_diagonal(self, x: Tensor, sigma: Tensor | float, directions: Tensor) -> Tensor:
        r"""Diagonal along directions ``(d, n)``, with shape :math:`(B, n)`, in float64.

        With :math:`D = g(\kappa) y` and :math:`\kappa = r |y| / \sigma^2` the Jacobian is
        :math:`g I + \kappa g' \hat y \hat y^\top` on each sphere.
        """
        y, radii, levels = self._blocks(x, sigma)
        U = (directions.to(self.embedding.frame).T @ self.embedding.frame).to(x.device)
        U = U.reshape(-1, len(radii), self.size)
        length, scale = _length(y), radii**2 / levels[:, None] ** 2
        kappa = (radii * length / levels[:, None] ** 2).detach()
        with torch.enable_grad():
            at = kappa.requires_grad_()
            ratio = bessel_ratio(at, self.size)
            (slope,) = torch.autograd.grad(ratio.sum(), at)
        gain, kappa = ratio.detach(), kappa.detach()
        unit = y / length.clamp(min=torch.finfo(torch.float64).tiny)[..., None]
        along = torch.einsum("bkp,nkp->bnk", unit, U).square()
        radial = (scale * kappa * slope)[:, None] * along
        return (radial + (scale * gain)[:, None] * U.square().sum(2)).sum(2)

    def log_density(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        r"""Logarithm of the noisy density in nats, with shape :math:`(B)`, in float64."""
        y, radii, levels = self._blocks(x, sigma)
        inside = _log_density(y, radii, levels[:, None]).sum(1)
        outside = self.embedding.outside(x) / (2 * levels**2)
        return inside - outside - gaussian_log_norm(levels, self.embedding.ambient_dim)


@checked
class Sphere:
    r"""The uniform law on a sphere of dimension m, in d dimensions.

    Arguments:
        dim: The dimension m of the sphere, at least 1: a circle.
        ambient_dim: The dimension :math:`d \geq m + 1` of the space around.
        radius: The radius r, above 0.
        seed: The seed of a random frame; the first m + 1 coordinates if not given.

    Raises:
        InputError: If it does not fit, or the radius is not above 0.

    Example:
        >>> sphere = Sphere(2, ambient_dim=30, seed=0)
        >>> x = sphere.sample(5, torch.Generator().manual_seed(0))
        >>> sphere.population_denoiser()(x, torch.tensor(0.01)).norm(dim=1)
        tensor([0.9999, 0.9999, 0.9999, 0.9999, 0.9999], dtype=torch.float64)
    """

    def __init__(
        self, dim: int, ambient_dim: int, radius: float = 1.0, *, seed: int | None = None
    ) -> None:
        if dim < 1:
            raise InputError(f"a sphere has dim >= 1, got {dim}")
        self.radius = _radii([radius])[0]
        self.dim, self.embedding = dim, Embedding.of(dim + 1, ambient_dim, seed)

    @property
    def ambient_dim(self) -> int:
        return self.embedding.ambient_dim

    @property
    def variance(self) -> float:
        r"""The variance :math:`r^2 / (m + 1)` along each of its m + 1 coordinates."""
        return float(self.radius) ** 2 / (self.dim + 1)

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points, with shape :math:`(N, d)`, in float64."""
        z = torch.randn(num_samples, self.dim + 1, generator=rng, dtype=torch.float64)
        return self.embedding.place(self.radius * z / z.norm(dim=1, keepdim=True))

    def tangent(self, x_0: Tensor) -> Tensor:
        r"""Orthonormal tangent bases at points ``(B, d)``, with shape :math:`(B, d, m)`."""
        y = self.embedding.inside(check_points(x_0, self.ambient_dim))
        # The complement of y in the frame: all but the first column of a full QR.
        basis: Tensor = torch.linalg.qr(y[..., None], mode="complete").Q[..., 1:]
        return self.embedding.frame.to(x_0.device) @ basis

    def population_denoiser(self) -> SphereDenoiser:
        r"""The exact denoiser, a ratio of Bessel functions."""
        return SphereDenoiser(self.radius[None], self.dim + 1, self.embedding)


@checked
class Torus:
    r"""The flat torus: a product of m circles, in 2 m of d dimensions.

    Arguments:
        radii: The radius of each circle; their number is the dimension m.
        ambient_dim: The dimension :math:`d \geq 2 m` of the space around.
        seed: The seed of a random frame; the first 2 m coordinates if not given.

    Raises:
        InputError: If it does not fit, or a radius is not above 0.

    Example:
        >>> torus = Torus([1.0, 0.5], ambient_dim=30)
        >>> torus.dim, torus.tangent(torus.sample(4, torch.Generator())).shape
        (2, torch.Size([4, 30, 2]))
    """

    def __init__(
        self, radii: Sequence[float], ambient_dim: int, *, seed: int | None = None
    ) -> None:
        self.radii = _radii(radii)
        self.dim, self.embedding = len(radii), Embedding.of(2 * len(radii), ambient_dim, seed)

    @property
    def ambient_dim(self) -> int:
        return self.embedding.ambient_dim

    def sample(self, num_samples: int, rng: torch.Generator) -> Tensor:
        r"""Independent points, with shape :math:`(N, d)`, in float64."""
        u = torch.rand(num_samples, self.dim, generator=rng, dtype=torch.float64)
        angles = math.tau * u
        circles = torch.stack([angles.cos(), angles.sin()], dim=2) * self.radii[:, None]
        return self.embedding.place(circles.flatten(1))

    def tangent(self, x_0: Tensor) -> Tensor:
        r"""Orthonormal tangent bases at points ``(B, d)``, with shape :math:`(B, d, m)`."""
        y = self.embedding.inside(check_points(x_0, self.ambient_dim))
        y = y.reshape(len(y), self.dim, 2)
        u = y / y.norm(dim=2, keepdim=True)
        turned = torch.stack([-u[..., 1], u[..., 0]], dim=2)  # (B, m, 2)
        columns = turned[..., None] * torch.eye(self.dim).to(turned)[:, None]  # (B, m, 2, m)
        return self.embedding.frame.to(x_0.device) @ columns.flatten(1, 2)

    def population_denoiser(self) -> SphereDenoiser:
        r"""The exact denoiser: each circle on its own."""
        return SphereDenoiser(self.radii, 2, self.embedding)


def _radii(radii: Sequence[float]) -> Tensor:
    if not len(radii):
        raise InputError("`radii` is empty; pass at least one")
    kind = Annotated[Tensor, Values(above=0.0, shape="(m)")]
    values: Tensor = check("radii", torch.tensor(list(radii), dtype=torch.float64), kind)
    return values
