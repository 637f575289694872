r"""Processors and threads: the same floats on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def num_cores() -> int:
    r"""The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    r"""Computes on one thread: a sum over two is not the same float.

    That holds for torch and for the BLAS under NumPy and SciPy: a covariance of 3000 images
    differs in its last bits between one thread and two, and all that follows from it.
    """
    import scipy.linalg  # noqa: F401  (it has a BLAS of its own, limited only once it is here)
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    try:
        with threadpool_limits(limits=1):
            torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)
