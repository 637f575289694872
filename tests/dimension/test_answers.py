r"""What is let in and what is let out: points, levels, settings, and answers in their range."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import geomem
from geomem.arguments import declared
from geomem.dimension import (
    FLIPD,
    FilteredTrace,
    ForwardSoftCount,
    LargestGap,
    LocalDimension,
    NoGap,
    NormalBundle,
    OrthogonalDifferences,
    Plateau,
    PointMethod,
    ScikitDimension,
    SoftCount,
    SpikeRule,
    Threshold,
    ask,
    within,
)
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser
from geomem.manifolds import LinearManifold
from geomem.spectra import AdaptiveTrace, Dense, LanczosQuadrature, RandomizedSVD
from geomem.stats import Estimate
from tests.references import level, normal, rotation

METHODS: list[PointMethod] = [
    LocalDimension(),
    Threshold(),
    SoftCount(),
    ForwardSoftCount(pairs=16),
    LargestGap(),
    SpikeRule(),
    NormalBundle(),
    FLIPD(),
    FilteredTrace(),
    Plateau(),
]
PLANE = LinearManifold(torch.ones(3), ambient_dim=8).population_denoiser()
names = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)


# ------------------------------------------------------------------------------------- range


@given(
    value=st.floats(allow_nan=True, allow_infinity=True),
    stderr=st.one_of(st.just(math.nan), st.floats(0, 1e6)),
    d=st.integers(1, 5000),
)
def test_no_answer_is_outside_its_range(value: float, stderr: float, d: int) -> None:
    found = within(Estimate(value, stderr), d)
    if isinstance(found, Estimate):
        assert 0 <= found.value <= d
        # What was moved into the range was outside by two errors, or by rounding.
        slack = 2 * (0 if math.isnan(stderr) else stderr) + 1e-3 * d
        assert abs(found.value - value) <= slack
        assert found.stderr == stderr or math.isnan(stderr)
    else:
        assert not 0 <= value <= d
        assert f"{d} coordinates" in found.reason


@names
@pytest.mark.parametrize("overshoot", [40.0, -40.0, math.nan])
def test_one_door_serves_all_methods(
    method: PointMethod, overshoot: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_point(*args: Any) -> Estimate:
        return Estimate(overshoot)

    monkeypatch.setattr(type(method), "at_point", at_point)
    found = method(PLANE, normal(0, 8), level(0.1))
    assert isinstance(found, NoGap)
    assert "8 coordinates have 0 to 8 dimensions" in found.reason


def test_a_strangers_answer_is_asked_as_well() -> None:
    found = ask(lambda D, x, s: Estimate(9.0), PLANE, normal(0, 8), level(0.1))
    assert found == NoGap("the estimate is 9 ± 0, and 8 coordinates have 0 to 8 dimensions")


def test_flipd_beside_the_data_is_no_dimension() -> None:
    data = normal(0, 32, 8)
    found = FLIPD()(EmpiricalDenoiser(data), 3 + data[0], level(0.05))
    assert isinstance(found, NoGap)
    assert FLIPD().at_point(EmpiricalDenoiser(data), 3 + data[0], level(0.05)).value > 100


def test_a_soft_count_above_the_space_is_kept_beside_the_reason() -> None:
    # Two points far apart share the point between them: all variance lies along one direction.
    pair = EmpiricalDenoiser(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    found = SoftCount()(pair, torch.zeros(2), level(0.1))
    assert isinstance(found, NoGap)
    assert found.soft_count is not None
    assert found.soft_count.value == pytest.approx(100)  # 1 / sigma²


# ------------------------------------------------------------------------------- soft counts


@pytest.mark.parametrize("method", [LocalDimension(products=60), LargestGap()])
def test_where_there_is_no_gap_the_soft_count_is_offered(method: PointMethod) -> None:
    d, sampled = 400, isinstance(method, LocalDimension)
    variances = torch.logspace(0, -8, d).double()
    frame = rotation(0, d)  # along the axes signs would see the trace without any variance
    power_law = LinearManifold(variances, d, frame).population_denoiser()
    expected = float((variances / (variances + 0.01)).sum())
    counts = []
    for seed in range(20 if sampled else 1):
        own = method
        if isinstance(method, LocalDimension):
            own = dataclasses.replace(method, seed=seed)
        found = own(power_law, torch.zeros(d).double(), level(0.1))
        assert isinstance(found, NoGap)
        assert found.soft_count is not None
        counts.append(found.soft_count)
    if not sampled:
        assert counts[0].value == pytest.approx(expected)
    else:
        assert max(c.stderr for c in counts) < 0.05 * expected  # so this says something
        z = [c.z_score(expected) for c in counts]
        # 8 probes: Student with 7 degrees has a standard deviation of 1.18.
        assert abs(np.mean(z)) < 4 * 1.18 / math.sqrt(20)
        assert np.std(z) < 2.2


# --------------------------------------------------------------------------------------- door


@names
def test_a_level_may_be_a_number_and_a_point_may_be_whole(method: PointMethod) -> None:
    x = torch.tensor([1, 0, 2, 0, -1, 0, 1, 1])
    keep = lambda x, sigma: x * torch.tensor([1.0] * 3 + [0.0] * 5)  # noqa: E731
    found = method(keep, x, 0.1)
    assert repr(found) == repr(method(keep, x.float(), torch.tensor(0.1)))
    assert repr(found) == repr(method(keep, x.tolist(), np.float64(0.1)))  # type: ignore[arg-type]


@names
@pytest.mark.parametrize("sigma", [-1.0, 0.0, math.nan, math.inf, "low", None, [0.1, 0.2]])
def test_what_is_no_level_is_refused_by_name(method: PointMethod, sigma: Any) -> None:
    with pytest.raises(InputError, match=r"`sigma`|noise level"):
        method(PLANE, normal(0, 8), sigma)


@names
def test_a_batch_where_one_point_is_wanted_is_told_in_a_sentence(method: PointMethod) -> None:
    for x in (normal(0, 2, 8), normal(0, 5)):
        with pytest.raises(InputError, match=r"shape|coordinates") as error:
            method(PLANE, x, level(0.1))
        assert "\n" not in str(error.value)


# ----------------------------------------------------------------------------------- settings

SETTINGS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    *((type(m), {}) for m in METHODS),
    (OrthogonalDifferences, {}),
    (ScikitDimension, {}),
    (LanczosQuadrature, {"depth": 2, "probes": 2}),
    (RandomizedSVD, {"rank": 2}),
    (AdaptiveTrace, {}),
]
CASES = [
    (kind, given, name)
    for kind, given in SETTINGS
    for name in declared(kind.__init__, kind)  # type: ignore[arg-type]
    if name not in ("self", "spectrum", "method", "settings", "differences")
]


@pytest.mark.parametrize(
    ("kind", "given", "name"), CASES, ids=[f"{k.__name__}-{n}" for k, _, n in CASES]
)
def test_every_setting_refuses_nonsense(
    kind: Callable[..., Any], given: dict[str, Any], name: str
) -> None:
    for nonsense in (math.nan, -1, "many", [1, [2]], torch.full((3,), math.nan)):
        with pytest.raises(InputError, match=f"`{name}`"):
            kind(**{**given, name: nonsense})


def test_least_eigenvalues_are_numbers() -> None:
    with pytest.raises(InputError, match="`least` is nan"):
        LargestGap(least=math.nan)
    with pytest.raises(InputError, match="`spike` is nan"):
        SpikeRule(spike=math.nan)
    with pytest.raises(InputError, match="`order` is nan"):
        FilteredTrace(order=math.nan)


@pytest.mark.parametrize("method", [3, "dens", object()])
def test_what_is_no_spectrum_method_is_refused(method: Any) -> None:
    with pytest.raises(InputError, match=r"`spectrum` is .*; pass a SpectrumMethod"):
        SoftCount(method)(PLANE, normal(0, 8), level(0.1))


def test_a_part_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="`differences` is 3"):
        SpikeRule(differences=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`method` is 'soft'"):
        Plateau(method="soft")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"`settings` do not fit MLE: .*'neighbors'"):
        ScikitDimension(settings={"neighbors": 3})(normal(0, 30, 3))


def test_the_names_are_public() -> None:
    assert geomem.NoGap is NoGap
    assert isinstance(Dense()(geomem.Matrix(torch.eye(2))).trace(), Estimate)


def told(x: Tensor, sigma: Tensor) -> Tensor:
    raise ValueError("not\nmine")


def test_a_denoiser_that_fails_is_told_in_one_line_with_its_cause() -> None:
    with pytest.raises(InputError, match="ValueError: not mine") as error:
        SoftCount()(told, normal(0, 8), level(0.1))
    assert isinstance(error.value.__cause__, ValueError)
