r"""One thread: the same floats everywhere."""

from __future__ import annotations

import pytest
import torch

from geomem.compute.threads import one_thread


def test_one_thread_holds_for_torch_and_for_blas_and_only_inside() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    def fail() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert set(threads()) == {1}
            raise KeyError

    with one_thread():  # all that it looks at is loaded
        pass
    torch.set_num_threads(2)
    try:
        with threadpool_limits(limits=2, user_api="blas"):
            before = threads()
            with pytest.raises(KeyError):
                fail()
            assert torch.get_num_threads() == 2
            assert threads() == before
    finally:
        torch.set_num_threads(1)
