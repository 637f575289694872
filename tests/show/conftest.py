"""Pages are made of numbers with fewer resamplings: enough to draw, and quick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geomem.findings import evidence, numbers


@pytest.fixture(scope="package", autouse=True)
def few_resamplings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        assert numbers.numbers.__kwdefaults__
        patch.setitem(numbers.numbers.__kwdefaults__, "replicates", 60)
        patch.setattr(evidence, "PERMUTATIONS", 199)
        yield
