r"""Products in full float32, whatever the device would rather compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def float32_products() -> Iterator[None]:
    r"""Computes products and convolutions of float32 numbers with all of their bits.

    torch lets convolutions on NVIDIA cards round their factors to 10 bits (TF32) unless told
    otherwise, and programs that train switch it on for products, too: a Jacobian is then wrong in
    its fourth digit. torch knows this choice for the whole process only; it is given back.
    """
    import torch

    backends: Any = torch.backends
    try:
        before = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    except RuntimeError:  # set by the interface that torch has from 2.9 on; the two do not mix
        with _newer(backends):
            yield
        return
    try:
        torch.set_float32_matmul_precision("highest")
        backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        backends.cudnn.allow_tf32 = before[1]


@contextmanager
def _newer(backends: Any) -> Iterator[None]:
    kinds = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value
