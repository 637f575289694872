r"""What is asked of an exact denoiser, checked once at the door.

Queries become float64, levels one for each query, and whatever a
caller has switched on around them (automatic low precision, gradients) is kept out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.exact.blocks import Blocks
from geomem.exact.posterior import Posterior
from geomem.noise import Levels, as_levels, check_levels

# Squares of anything beyond overflow or vanish in float64.
_SMALLEST, _LARGEST = 1e-140, 1e140
_ROWS = 4096


def checked_queries(x: Tensor, item_shape: tuple[int, ...]) -> Tensor:
    r"""Queries ``(B, *)`` with shape :math:`(B, d)`, in float64.

    Raises:
        InputError: If they have another shape, are no floats, or are not finite.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"`x` is a {type(x).__name__}; pass a tensor of shape (B, *)")
    if tuple(x.shape) == item_shape:
        raise InputError(f"`x` is one point of shape {item_shape}; pass a batch of one, x[None]")
    if tuple(x.shape[1:]) != item_shape:
        raise InputError(
            f"a query has shape {tuple(x.shape[1:])} and a training point "
            f"{item_shape}; pass queries of shape (B, *)"
        )
    if not x.is_floating_point():
        raise InputError(f"queries are {x.dtype} and their means would be, too; pass floats")
    if not torch.isfinite(x).all():
        raise InputError("a query holds NaN or infinite values; check where it comes from")
    return x.flatten(1).double()


def level_rows(sigmas: Levels, x: Tensor) -> Tensor:
    r"""Levels ``()``, ``(T,)`` or ``(T, B)`` as :math:`(T, B)`, in float64.

    Raises:
        InputError: If a level is not above 0, or cannot be squared, or shapes do not match.
    """
    sigmas = as_levels(sigmas).to(x.device)
    if sigmas.ndim == 0:
        sigmas = sigmas[None]
    if len(x) == 0 and sigmas.ndim == 2 and sigmas.shape[1] == 0:
        return sigmas.double()  # a level for each of no queries
    sigmas = check_levels(sigmas).double()
    smallest, largest = sigmas.detach().min(), sigmas.detach().max()
    if smallest < _SMALLEST or largest > _LARGEST:
        raise InputError(
            f"levels must lie between {_SMALLEST:g} and {_LARGEST:g}; rescale the data"
        )
    if sigmas.ndim == 1:
        return sigmas[:, None].expand(-1, len(x))
    if sigmas.ndim != 2 or sigmas.shape[1] != len(x):
        raise InputError(
            f"sigmas must have shape (T,) or (T, {len(x)}), got {tuple(sigmas.shape)}; "
            "pass one column for each query"
        )
    return sigmas


def product_dtype(x: Tensor, data: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    r"""The dtype of products that select points, which are looked at again."""
    if wanted is not None:
        return wanted
    return torch.float64 if torch.float64 in (x.dtype, data) else torch.float32


def weight_dtype(x: Tensor, levels: Tensor, dtype: torch.dtype) -> torch.dtype:
    r"""The dtype of products that weights rest on.

    Where tf32 products are switched on they may select and no more; and the squares of very
    small or large numbers are no float32.
    """
    if not levels.numel() or not x.numel():
        return dtype
    tf32 = x.is_cuda and torch.backends.cuda.matmul.allow_tf32
    extreme = float(levels.min()) < 1e-15 or float(x.abs().max()) > 1e15
    return torch.float64 if tf32 or extreme else dtype


def needs_derivatives(*tensors: Tensor) -> bool:
    r"""Whether someone differentiates: autograd, or a transform of torch.func around us."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return True
    wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda t: False)
    unpack = torch.autograd.forward_ad.unpack_dual
    return any(
        wrapped(t) or unpack(t).tangent is not None  # type: ignore[no-untyped-call]
        for t in tensors
    )


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    r"""No gradients, and no automatic low precision: float32 products are to be float32."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def centre_of(source: Blocks) -> Tensor:
    r"""A point near the middle of the first points, with shape :math:`(d)`, in float64.

    Any will do. It is exact in the dtype of the data, so that subtracting it rounds once.
    """
    rows = source.some(_ROWS)
    # In parts, so that no copy in float64 is larger than 16 MiB.
    parts = torch.split(rows, max(1, 2**21 // rows.shape[1]))
    mean = torch.stack([p.double().sum(0) for p in parts]).sum(0) / len(rows)
    return mean.to(rows.dtype if rows.dtype.is_floating_point else torch.float32).double()


def no_answer(T: int, x: Tensor) -> Posterior:
    r"""The answer to no queries."""
    none = x.new_empty(T, 0, dtype=torch.float64)
    return Posterior(none, x.new_empty(T, *x.shape), none, none, none, none)
