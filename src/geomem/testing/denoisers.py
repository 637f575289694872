r"""Checks of a denoiser."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from geomem.checks import admit
from geomem.denoiser import Denoiser
from geomem.operators import DenoiserJacobian
from geomem.stats import torch_rng
from geomem.testing.common import as_failures, nothing_changes, require


def check_denoiser(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> None:
    r"""Checks that a denoiser of yours can be measured.

    It answers one finite point for each point, the same at every call, whatever else is in
    the batch; takes a level of shape () or (B); has a derivative that agrees with differences,
    and a derivative of it; changes neither its input nor torch's global state.

    Arguments:
        denoiser: The denoiser.
        x: Noisy points like those that you will measure, with shape :math:`(B, *)`, B >= 2.
        sigma: Their noise level, with shape :math:`()`.

    Raises:
        AssertionError: If any of it does not hold; the message says which.

    Example:
        >>> check_denoiser(lambda x, sigma: x / (1 + sigma**2), torch.eye(3), torch.tensor(0.5))
    """
    require(x.ndim >= 2 and len(x) >= 2, "pass at least two points, of shape (B, *)")
    given = x.clone(), sigma.clone()
    with nothing_changes("the denoiser"), as_failures(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning is no failure
        for point in x:
            admit(denoiser, point, sigma)
        with torch.no_grad():
            _check_batches(denoiser, x, sigma)
        _check_derivative(denoiser, x[0], sigma)
    require(torch.equal(x, given[0]), "the denoiser changes x in place; let it work on a copy")
    require(torch.equal(sigma, given[1]), "the denoiser changes sigma in place")


def _check_batches(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> None:
    together = denoiser(x, sigma)
    require(together.dtype == x.dtype, f"x is {x.dtype} and the answer {together.dtype}")
    # Products of other shapes sum in another order; half the digits are left to rounding.
    close = torch.finfo(x.dtype).eps ** 0.5 * float(together.abs().max())
    alone = torch.cat([denoiser(x[b : b + 1], sigma) for b in range(len(x))])
    worst = float((together - alone).abs().max())
    require(worst <= close, f"a point alone is answered otherwise than in a batch (by {worst:.2g})")
    levels = sigma.expand(len(x)).clone()
    worst = float((denoiser(x, levels) - together).abs().max())
    require(worst <= close, f"levels of shape (B) and () are answered differently (by {worst:.2g})")
    levels[0] = 2 * sigma
    worst = float((denoiser(x, levels)[1:] - together[1:]).abs().max())
    require(worst <= close, "the level of one point changes the answer for another")


def _check_derivative(denoiser: Denoiser, x: Tensor, sigma: Tensor) -> None:
    rng = torch_rng(0, "testing")
    u, v = (torch.randn(x.numel(), 1, generator=rng).to(x) for _ in range(2))
    coarse, fine = (_difference(denoiser, x, sigma, v, h) for h in (0.1, 0.05))
    J = DenoiserJacobian(denoiser, x, sigma)
    try:
        pushed, pulled = J.matmat(v)[:, 0], J.rmatmat(u)[:, 0]
    except (RuntimeError, NotImplementedError) as error:
        raise AssertionError(f"the denoiser cannot be differentiated twice: {error}") from error
    # What both steps agree on is truncation; the rest is rounding of D, divided by the step.
    rounding = 10 * torch.finfo(x.dtype).eps * float(x.norm() + fine.norm()) / float(0.05 * sigma)
    allowed = 4 * float((coarse - fine).norm()) + rounding + 1e-3 * float(fine.norm())
    off = float((pushed - fine).norm())
    require(
        off <= allowed,
        f"the derivative differs from differences of the answers by {off:.2g} of "
        f"{float(fine.norm()):.2g}: look for .detach(), no_grad(), rounding, or a backward pass "
        "that has no derivative of its own",
    )
    ahead, back = float(u[:, 0] @ pushed), float(pulled @ v[:, 0])
    # A Jacobian near 0 is a difference of numbers of order 1, like the identity's.
    scale = float(u.norm() * (pushed.norm() + v.norm()) + v.norm() * pulled.norm())
    close = torch.finfo(x.dtype).eps ** 0.5 * scale
    require(abs(ahead - back) <= close, f"u·(Jv) = {ahead:.6g} and (J^T u)·v = {back:.6g} differ")


def _difference(denoiser: Denoiser, x: Tensor, sigma: Tensor, v: Tensor, h: float) -> Tensor:
    step = h * sigma.to(x) * v.reshape(x.shape)
    with torch.no_grad():
        ahead, behind = denoiser(torch.stack([x + step, x - step]), sigma)
    slope: Tensor = (ahead - behind).flatten() / (2 * h * sigma.to(x))
    return slope
