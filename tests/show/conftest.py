"""Pages are made of numbers with fewer resamplings: enough to draw, and quick."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import unwrap

import pytest

from geomem.findings import numbers


@pytest.fixture(scope="package", autouse=True)
def few_resamplings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        inner = unwrap(numbers.numbers)
        assert inner.__kwdefaults__
        patch.setitem(inner.__kwdefaults__, "replicates", 60)
        patch.setitem(inner.__kwdefaults__, "permutations", 199)
        yield
