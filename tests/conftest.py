r"""What the tests share: cases that come again, a device, data that may not be there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import scipy.linalg  # noqa: F401  (it has a BLAS of its own, limited only once it is here)
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

from geomem.compute.executor import Executor
from geomem.compute.local import LocalExecutor
from geomem.compute.ray import RayExecutor

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadFileScheduling

# The same cases on every machine and in every run; a case that fails stays failing.
settings.register_profile("geomem", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("geomem")

# Small matrices: two threads take longer than one, and much longer on a machine that is busy.
torch.set_num_threads(1)
threadpool_limits(limits=1, user_api="blas")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where device tests compute: cpu, cuda")


# Files that share one session of Ray, which takes some seconds to start.
OF_RAY = ("compute/test_executors.py", "exact/test_passes.py", "runs/test_sweep_executors.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    r"""File by file in their order, so that what ends the suite is short: doctests.

    Left alone, files of few tests come last, and one of them may take as long as fifty others.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class InOrder(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "ray" if file.endswith(OF_RAY) else file

    config.option.loadscopereorder = False
    return InOrder(config, log)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    r"""The device of ``--device``; the tests that take it run there."""
    name = str(request.config.getoption("--device"))
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip(f"--device {name}: torch sees no such device here")
    return torch.device(name)


@pytest.fixture(scope="module")
def double() -> Iterator[None]:
    r"""Float64 as the default, in a module of identities: rounding is then no excuse."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def rng() -> torch.Generator:
    r"""Randomness of one test, seeded: no test sees what another one drew."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    r"""The folder of public data sets, which a fresh clone does not have."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("GEOMEM_DATA", beside))
    if not path.is_dir():
        pytest.skip(f"no public data sets: set GEOMEM_DATA to their folder ({path} is none)")
    return path


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    r"""Ray, for all tests that ask for it; whoever uses it first starts its session."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install geomem[ray]")
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.fixture(params=["local", "ray"])
def two(request: pytest.FixtureRequest) -> Executor:
    r"""Two workers, of each kind."""
    if request.param == "local":
        return LocalExecutor(2)
    request.getfixturevalue("ray")
    return RayExecutor(2)
