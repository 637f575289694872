r"""Rendered shapes: images of an ellipse whose position, angle and size are known.

Each factor is normal about its mean. A training set in which a factor varies by half, or not
at all, has lost a known part of a known direction: the tangent of that factor. So a metric of
what a denoiser has lost can be checked on images, factor by factor, before it is believed on
photographs.

The edge of the ellipse is a logistic function of a quadratic form, so images are smooth in
every factor: nothing is anti-aliased away, and tangents are exact derivatives.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.arguments import checked
from geomem.errors import InputError
from geomem.manifolds.charts import ChartManifold, normal_axis, normal_draw, normal_log_prior

FACTORS = ("x", "y", "angle", "log_size")


@checked
@dataclass(frozen=True, kw_only=True)
class Spreads:
    r"""Standard deviations of the four factors; 0 holds one fixed.

    Arguments:
        x: Of the horizontal position, in pixels.
        y: Of the vertical position, in pixels.
        angle: Of the angle, in radians.
        log_size: Of the logarithm of the size.
    """

    x: float = 1.5
    y: float = 1.5
    angle: float = 0.5
    log_size: float = 0.25

    def __post_init__(self) -> None:
        if not all(0 <= s < math.inf for s in dataclasses.astuple(self)):
            raise InputError(f"spreads must be finite and not negative, got {self}")

    @property
    def varying(self) -> tuple[str, ...]:
        r"""The factors that vary."""
        return tuple(name for name in FACTORS if getattr(self, name) > 0)

    def scaled(self, factor: str, share: float) -> Spreads:
        r"""The same with one factor's spread multiplied: 1/2 is half its variation, 0 none."""
        if factor not in FACTORS:
            raise InputError(f"no factor {factor!r}; the factors are {', '.join(FACTORS)}")
        return dataclasses.replace(self, **{factor: share * getattr(self, factor)})


@checked
class RenderedShapes(ChartManifold):
    r"""Grey images of an ellipse, flattened, between -1 and 1.

    Arguments:
        pixels: The width and height h of an image.
        spreads: How much each factor varies.
        radius: The mean of the ellipse's long half-axis, as a share of h.
        aspect: Its long half-axis over the short one.
        edge: The width of its edge, in pixels.

    Raises:
        InputError: If no factor varies, or there are fewer than 4 pixels a side.

    Example:
        >>> shapes = RenderedShapes(pixels=12)
        >>> x_0 = shapes.sample(5, torch.Generator().manual_seed(0))
        >>> shapes.dim, x_0.shape, shapes.factors(shapes.parameters(x_0)).shape
        (4, torch.Size([5, 144]), torch.Size([5, 4]))
    """

    def __init__(
        self,
        pixels: int = 16,
        spreads: Spreads | None = None,
        *,
        radius: float = 0.25,
        aspect: float = 2.0,
        edge: float = 1.0,
    ) -> None:
        self.spreads = spreads or Spreads()
        names = self.spreads.varying
        if not names:
            raise InputError("no factor varies, so there is one image; give a spread above 0")
        if pixels < 4 or not min(radius, edge, aspect - 1) > 0:
            raise InputError(
                "shapes need 4 pixels a side or more, radius and edge above 0, aspect above 1: "
                f"the angle of a circle is none; got {pixels}, {radius}, {edge}, {aspect}"
            )
        self.pixels, self.radius, self.aspect, self.edge = pixels, radius, aspect, edge
        super().__init__(
            lambda z: self.render(self.factors(z)),
            [normal_axis(20)] * len(names),
            normal_draw(len(names)),
            normal_log_prior,
            pixels**2,
        )

    def factors(self, parameters: Tensor) -> Tensor:
        r"""The four factors of standard normal parameters ``(B, m)``, with shape (B, 4)."""
        scale = parameters.new_zeros(len(FACTORS), parameters.shape[1])
        for k, name in enumerate(self.spreads.varying):
            scale[FACTORS.index(name), k] = getattr(self.spreads, name)
        return parameters @ scale.T

    def render(self, factors: Tensor) -> Tensor:
        r"""The images of factors ``(B, 4)``, with shape :math:`(B, h^2)`."""
        x, y, angle, log_size = (f[:, None] for f in factors.unbind(1))
        line = torch.arange(self.pixels, dtype=factors.dtype) - (self.pixels - 1) / 2
        down, right = (g.flatten() for g in torch.meshgrid(line, line, indexing="ij"))
        c, s = angle.cos(), angle.sin()
        u = c * (right - x) + s * (down - y)
        v = self.aspect * (c * (down - y) - s * (right - x))
        long = self.radius * self.pixels * log_size.exp()
        # 1 - (u² + v²)/a² falls by 2/a a pixel at the tip, so this edge is `edge` wide there.
        inside = (1 - (u**2 + v**2) / long**2) * long / (2 * self.edge)
        return 2 * inside.sigmoid() - 1

    def directions(self, factors: Tensor) -> Tensor:
        r"""Unit tangents of all four factors at ``(B, 4)``, with shape :math:`(B, d, 4)`.

        Those of factors that are held fixed, too: along them a training set has lost all.
        They are not orthogonal to each other.
        """
        every = RenderedShapes(
            self.pixels,
            Spreads(x=1, y=1, angle=1, log_size=1),
            radius=self.radius,
            aspect=self.aspect,
            edge=self.edge,
        )
        tangents = every.derivatives(factors)
        lengths: Tensor = tangents.norm(dim=1, keepdim=True)
        return tangents / lengths
