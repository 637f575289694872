r"""What a dimension method answers, where it is asked, and what no answer is.

A method is a frozen value, called with ``(denoiser, x, sigma)`` for one point ``x``, and returns
an :class:`~geomem.stats.Estimate`, or :class:`NoGap` with the reason. :class:`PointMethod` is
the door of all of ours: it takes the level as a number, too, lets the denoiser in
(:func:`geomem.checks.admit`) and lets no answer out that is no dimension (:func:`within`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from geomem.arguments import checked
from geomem.checks import admit
from geomem.denoiser import Denoiser
from geomem.errors import GeomemError, InputError
from geomem.operators import one_point
from geomem.stats import Estimate


@dataclass(frozen=True)
class NoGap:
    r"""There is no dimension: the spectrum has no gap, or the answer cannot be one.

    Attributes:
        reason: Why, in a sentence.
        kept: How many directions are kept there, where that is known: 0 says that the model has
            lost all of them, which is no gap either.
        soft_count: The trace of the Jacobian, which needs no gap, where it is known. Its means
            over points are to hold those without a dimension, too.
    """

    reason: str
    kept: int | None = None
    soft_count: Estimate | None = None


# Where a method is called: at a clean point x_0, whose noise it draws itself if it needs
# any, or at a noisy point x = x_0 + sigma z.
Place = Literal["clean", "noisy"]


class DimensionMethod(Protocol):
    r"""A way to tell the local dimension that a denoiser keeps.

    It is called with one point of shape :math:`(*)`, the clean point :math:`x_0` or a noisy
    one :math:`x = x_0 + \sigma z`; its attribute ``at`` says which, see :func:`place_of`.
    """

    def __call__(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap: ...


def place_of(method: object) -> Place:
    r"""Where a method is to be called: its ``at``, and at a noisy point if it does not say.

    The two are not exchangeable. At a noisy point FLIPD answers d; at a clean point there is
    less noise than sigma says, and an exact denoiser knows it.

    Example:
        >>> from geomem.dimension import ForwardSoftCount, Threshold
        >>> place_of(ForwardSoftCount()), place_of(Threshold())
        ('clean', 'noisy')
    """
    place: Place = getattr(method, "at", "noisy")
    return place


class PointMethod:
    r"""A dimension method whose :meth:`at_point` is asked behind the door."""

    at: ClassVar[Place] = "noisy"
    is_soft_count: ClassVar[bool] = False

    def at_point(self, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
        r"""What is found at one point that a denoiser was let in for, whatever the number.

        Arguments:
            denoiser: The denoiser :math:`D`.
            x: The point, with shape :math:`(*)`.
            sigma: The noise level, with shape :math:`()`.

        Raises:
            InputError: If the method's own options do not fit the point.
        """
        raise NotImplementedError(f"{type(self).__name__} has no at_point")

    def __call__(self, denoiser: Denoiser, x: Tensor, sigma: Tensor | float) -> Estimate | NoGap:
        r"""The dimension at one point.

        Arguments:
            denoiser: The denoiser :math:`D`.
            x: The point, with shape :math:`(*)`: clean or noisy, as :attr:`at` says.
            sigma: The noise level, a number or a tensor of shape :math:`()`.

        Raises:
            InputError: If the denoiser cannot be measured there, see
                :func:`geomem.checks.admit`.
        """
        x, sigma = one_point(x, sigma)
        try:
            admit(denoiser, x, sigma)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, GeomemError):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"the denoiser fails at a point of shape {tuple(x.shape)} ({reason}); pass one "
                "point of its own shape and dtype, without the axis of a batch"
            ) from error
        found = self.at_point(denoiser, x, sigma)
        return within(found, x.numel(), soft=self.is_soft_count)


@checked
def within(found: Estimate | NoGap, d: int, *, soft: bool = False) -> Estimate | NoGap:
    r"""The answer, if a dimension of d coordinates can be that: from 0 to d.

    One that is outside by no more than two of its errors, or by rounding, is answered by the
    end of the range with its error; any other, and NaN, is no answer.

    Arguments:
        found: The estimate.
        d: The number of coordinates.
        soft: Whether it is a soft count, which "no answer" then carries.

    Example:
        >>> within(Estimate(3600.0), 784).reason
        'the estimate is 3600 ± 0, and 784 coordinates have 0 to 784 dimensions'
        >>> within(Estimate(-0.4, 0.3), 784), within(Estimate(12.0, 0.3), 784)
        (0.00 ± 0.30, 12.00 ± 0.30)
    """
    if isinstance(found, NoGap):
        return found
    error = 0.0 if math.isnan(found.stderr) else found.stderr
    slack = 2 * error + 1e-3 * d  # float32 products make a little more of d than d
    if -slack <= found.value <= d + slack:
        inside = min(max(found.value, 0.0), float(d))
        return found if inside == found.value else dataclasses.replace(found, value=inside)
    return NoGap(
        f"the estimate is {found!r}, and {d} coordinates have 0 to {d} dimensions",
        soft_count=found if soft else None,
    )


def ask(method: DimensionMethod, denoiser: Denoiser, x: Tensor, sigma: Tensor) -> Estimate | NoGap:
    r"""A method's answer, if it is one; a stranger's out of its range is no answer either.

    Raises:
        InputError: If it is neither an estimate nor "no gap", or the method fails at what it was
            given.
    """
    try:
        found: Any = method(denoiser, x, sigma)
    except GeomemError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{method!r} cannot answer ({reason}); check its arguments") from error
    if not isinstance(found, (Estimate, NoGap)):
        raise InputError(
            f"{method!r} answered {found!r}; return geomem.Estimate(value, stderr) or "
            "geomem.NoGap(reason), see geomem.testing.check_dimension_method"
        )
    return within(found, x.numel())
