r"""Dimensions from points alone."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np
import pytest
import torch

from geomem.dimension import NoGap
from geomem.dimension.from_points import ESTIMATORS, Estimator, ScikitDimension
from geomem.errors import InputError
from geomem.stats import Estimate
from tests.references import normal, rotation

pytest.importorskip("skdim")
PLANE = normal(0, 400, 5) @ rotation(0, 20)[:5]
QUICK = [e for e in ESTIMATORS if e not in ("ESS", "FisherS", "DANCo")]  # those take seconds


@pytest.mark.parametrize("estimator", QUICK)
def test_a_plane_of_five_dimensions(estimator: Estimator) -> None:
    found = ScikitDimension(estimator=estimator, groups=4)(PLANE)
    assert isinstance(found, Estimate)
    # These have a bias of their own at 400 points: one dimension is allowed.
    assert found.value == pytest.approx(5, abs=1.0)
    assert 0 <= found.stderr < 1


@pytest.mark.parametrize("estimator", ["ESS", "FisherS"])
def test_slow_ones_around_a_point(estimator: Estimator) -> None:
    found = ScikitDimension(estimator=estimator, groups=2, neighbours=40)(PLANE, PLANE[3])
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(5, abs=1.5)


def test_around_a_point_its_neighbours_count() -> None:
    # A curve here and a cube of four dimensions far away.
    t = torch.linspace(0, 3, 300).double()
    curve = torch.stack([t.cos(), t.sin(), *[0 * t] * 6], 1)
    far = 100 + torch.rand(300, 8, generator=torch.Generator().manual_seed(0)).double()
    far[:, 4:] = 0
    points = torch.cat([curve, far])
    method = ScikitDimension(estimator="lPCA", neighbours=50)
    assert method(points, curve[150]) == Estimate(1.0)
    assert method(points, far[7]) == Estimate(4.0)


def test_images_are_points() -> None:
    images = PLANE.reshape(400, 1, 4, 5)
    one = ScikitDimension(groups=2)(images, images[0])
    two = ScikitDimension(groups=2)(PLANE, PLANE[0])
    assert one == two


def test_the_error_is_the_spread_over_data_sets() -> None:
    # 40 independent sets: the sd of MLE's answers against the mean of the errors it states.
    method = ScikitDimension(estimator="MLE")
    found = [method(normal(s, 300, 4)) for s in range(40)]
    known = [f for f in found if isinstance(f, Estimate)]
    spread = np.std([f.value for f in known], ddof=1)
    # An sd of 40 is known to 11 %, the jackknife of 10 groups to 24 % each: within a factor 2.
    assert 0.5 < np.mean([f.stderr for f in known]) / spread < 2


def test_the_global_random_state_is_left_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    one, two = (ScikitDimension(estimator="MiND_ML", groups=2)(PLANE) for _ in range(2))
    assert one == two
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_points_that_span_nothing() -> None:
    found = ScikitDimension()(torch.ones(50, 3))
    assert isinstance(found, NoGap)
    assert "equal" in found.reason


@pytest.mark.parametrize("estimator", ["MLE", "TwoNN", "lPCA"])
def test_duplicates_and_one_dimension(estimator: Estimator) -> None:
    twice = torch.cat([PLANE, PLANE])
    found = ScikitDimension(estimator=estimator, groups=2)(twice)
    assert isinstance(found, NoGap) or math.isfinite(found.value)
    line = ScikitDimension(estimator=estimator, groups=2)(normal(0, 200, 1))
    assert isinstance(line, NoGap) or line.value == pytest.approx(1, abs=0.3)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="TwoNN"):
        ScikitDimension(estimator="KNN")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`groups` is 1; pass a whole number from 2"):
        ScikitDimension(groups=1)
    method = ScikitDimension()
    with pytest.raises(InputError, match="`points` are 1"):
        method(torch.ones(1, 3))
    with pytest.raises(InputError, match="NaN"):
        method(PLANE * math.nan)
    with pytest.raises(InputError, match="shape"):
        method(PLANE, torch.zeros(3))
    with pytest.raises(InputError, match="`query` holds infinity"):
        method(PLANE, torch.full((len(PLANE[0]),), math.inf))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "skdim":
            raise ImportError(name)
        return known(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install geomem\[lid\]"):
        ScikitDimension()(PLANE)
