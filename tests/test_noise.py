r"""Schedules: inverse maps, known values, and what misreading one costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from geomem.errors import InputError
from geomem.noise import (
    EDM,
    DiscreteBetas,
    FlowMatching,
    Schedule,
    VarianceExploding,
    VariancePreserving,
    check_levels,
    level_of_each,
    log_levels,
)

SCHEDULES: dict[str, tuple[Schedule, torch.Tensor]] = {
    "VE": (VarianceExploding(0.01, 50.0), torch.linspace(0, 1, 50)),
    "EDM": (EDM(), torch.logspace(-3, 2, 50)),
    "VP": (VariancePreserving(), torch.linspace(1e-4, 1, 50)),
    "flow": (FlowMatching(), torch.linspace(1e-4, 0.999, 50)),
    "DDPM": (DiscreteBetas.linear(), torch.linspace(0, 999, 50)),
    "SD": (DiscreteBetas.scaled_linear(), torch.linspace(0, 999, 50)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_and_times_are_inverse(name: str) -> None:
    schedule, t = SCHEDULES[name][0], SCHEDULES[name][1].double()
    levels = schedule.level(t)
    torch.testing.assert_close(schedule.time(levels), t, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(schedule.level(schedule.time(levels)), levels, rtol=1e-9, atol=0)
    assert bool((levels.diff() > 0).all())
    assert levels.dtype == torch.float64
    assert bool(torch.isfinite(levels).all())
    assert schedule.time(levels.reshape(5, 10)).shape == (5, 10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_float32_is_good_to_float32(name: str) -> None:
    schedule, t = SCHEDULES[name]
    assert schedule.level(t).dtype == torch.float32
    # A level near 0 or infinity amplifies an ulp of t: 1e-7 / (1 - .999) for the flow.
    torch.testing.assert_close(
        schedule.level(t).double(), schedule.level(t.double()), rtol=3e-4, atol=0
    )


@pytest.mark.parametrize("name", ["VP", "DDPM", "SD"])
def test_variance_is_preserved(name: str) -> None:
    schedule, t = SCHEDULES[name][0], SCHEDULES[name][1].double()
    alpha, sigma = schedule.alpha(t), schedule.alpha(t) * schedule.level(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=0, atol=1e-12)


def test_flow_paths_are_straight() -> None:
    schedule, t = FlowMatching(), torch.linspace(0.01, 0.99, 9).double()
    torch.testing.assert_close(schedule.alpha(t) * schedule.level(t), t)
    torch.testing.assert_close(schedule.alpha(t), 1 - t)


def test_vp_solves_its_equation() -> None:
    # d ln alpha / dt = -beta(t)/2, with beta going from .1 to 20.
    schedule = VariancePreserving()
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.alpha(t).log().sum(), t)
    torch.testing.assert_close(slope, -(0.1 + 19.9 * t.detach()) / 2)
    assert float(schedule.alpha(torch.zeros(()))) == 1


@pytest.mark.parametrize("betas", [DiscreteBetas.linear(), DiscreteBetas.scaled_linear()])
def test_discrete_levels_are_the_product_of_betas(betas: DiscreteBetas) -> None:
    product = np.cumprod(1 - betas.betas.numpy().astype(np.longdouble))
    expected = np.sqrt((1 - product) / product).astype(float)
    np.testing.assert_allclose(betas.levels.numpy(), expected, rtol=1e-12)
    index = torch.arange(1000)
    np.testing.assert_allclose(betas.level(index).double().numpy(), expected, rtol=1e-6)


def test_known_values_of_ddpm_and_stable_diffusion() -> None:
    # From the published schedules: DDPM ends at sigma = 157.4, Stable Diffusion at 14.61, and
    # begins at .0292.
    assert float(DiscreteBetas.linear().levels[-1]) == pytest.approx(157.4, abs=0.05)
    assert float(DiscreteBetas.linear().levels[0]) == pytest.approx(0.01, abs=1e-4)
    assert float(DiscreteBetas.scaled_linear().levels[-1]) == pytest.approx(14.61, abs=0.01)
    assert float(DiscreteBetas.scaled_linear().levels[0]) == pytest.approx(0.0292, abs=1e-4)


def test_times_between_indices_interpolate_the_logarithm() -> None:
    betas = DiscreteBetas.linear()
    between = betas.level(torch.tensor(10.5, dtype=torch.float64))
    assert float(between) == pytest.approx(math.sqrt(betas.levels[10] * betas.levels[11]))
    assert float(betas.time(betas.levels[0] / 100)) == 0  # beyond the ends: the ends
    assert float(betas.time(betas.levels[-1] * 100)) == 999


def test_scaled_linear_is_not_linear() -> None:
    right = DiscreteBetas.scaled_linear()
    wrong = DiscreteBetas.linear(0.00085, 0.012)
    levels = wrong.levels / right.levels - 1
    assert float(levels.min()) == pytest.approx(0, abs=1e-9)
    assert float(levels.max()) == pytest.approx(0.7207, abs=1e-4)
    assert float(1 / (1 + levels[500])) - 1 == pytest.approx(-0.29, abs=0.005)
    # And sigma_t = sqrt(1 - alpha_t²), the noise that is added, by up to 15 %.
    added = [(1 - 1 / (1 + s.levels**2)).sqrt() for s in (wrong, right)]
    assert float((added[0] / added[1] - 1).max()) == pytest.approx(0.152, abs=1e-3)


@pytest.mark.parametrize(
    "betas", [torch.tensor([0.1]), torch.tensor([0.0, 0.1]), torch.tensor([0.5, 1.0]), torch.eye(2)]
)
def test_what_are_no_betas(betas: torch.Tensor) -> None:
    with pytest.raises(InputError, match="betas"):
        DiscreteBetas(betas)


def test_log_levels() -> None:
    levels = log_levels(0.1, 10, 5)
    assert levels.dtype == torch.float64
    np.testing.assert_allclose(levels.numpy(), np.geomspace(0.1, 10, 5), rtol=1e-14)


@pytest.mark.parametrize(
    ("low", "high", "count"),
    [(0, 1, 3), (-1, 1, 3), (1, 1, 3), (2, 1, 3), (1, math.inf, 3), (math.nan, 1, 3), (1, 2, 1)],
)
def test_what_is_no_grid(low: float, high: float, count: int) -> None:
    with pytest.raises(InputError, match=r"`low`|`high`|`count`|not a grid"):
        log_levels(low, high, count)


@pytest.mark.parametrize("bad", [[0.0], [-1.0], [math.nan], [math.inf], [1.0, 0.0], []])
def test_what_is_no_level(bad: list[float]) -> None:
    with pytest.raises(InputError, match="above 0"):
        check_levels(torch.tensor(bad))
    assert check_levels(torch.tensor([0.1, 3.0])).tolist() == pytest.approx([0.1, 3.0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_refuse_what_is_no_time_and_no_level(name: str) -> None:
    schedule = SCHEDULES[name][0]
    bad: list[object] = [torch.tensor([-1.0]), torch.tensor([0.5, math.nan]), "soon", None]
    if name != "EDM":
        bad.append(torch.tensor(1e4))
    for t in bad:
        for ask in (schedule.level, schedule.alpha):
            with pytest.raises(InputError, match="`t`"):
                ask(t)  # type: ignore[arg-type]
    for level in (-1.0, math.nan, "loud"):
        with pytest.raises(InputError, match="`level`"):
            schedule.time(level)  # type: ignore[arg-type]
    # Numbers and lists are taken.
    assert schedule.level(0.5).shape == ()  # type: ignore[arg-type]
    assert schedule.time([0.5, 1.0]).shape == (2,)  # type: ignore[arg-type]


NO_SCHEDULES: dict[str, tuple[Callable[[], object], str]] = {
    "negative": (lambda: VarianceExploding(-1.0, 5.0), "`sigma_min`"),
    "turned round": (lambda: VarianceExploding(5.0, 1.0), "sigma_min < sigma_max"),
    "NaN": (lambda: VariancePreserving(math.nan, 5.0), "`beta_min`"),
    "falling": (lambda: VariancePreserving(20.0, 0.1), "beta_min <= beta_max"),
    "one step": (lambda: DiscreteBetas.linear(steps=1), "`steps`"),
    "no start": (lambda: DiscreteBetas.scaled_linear(start=0.0), "`start`"),
    "half a step": (lambda: DiscreteBetas.linear(steps=1.5), "`steps`"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", NO_SCHEDULES)
def test_what_is_no_schedule(name: str) -> None:
    make, says = NO_SCHEDULES[name]
    with pytest.raises(InputError, match=says):
        make()


def test_levels_of_each_point() -> None:
    x = torch.zeros(2, 3)
    for sigma in (0.5, [0.5, 0.5], torch.tensor([0.5])):
        assert level_of_each(sigma, x).tolist() == [0.5, 0.5]
    for bad in ([0.5] * 3, torch.ones(2, 1), torch.tensor(True), "a"):
        with pytest.raises(InputError, match=r"sigma|noise levels"):
            level_of_each(bad, x)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`x` is"):
        level_of_each(0.5, torch.tensor(1.0))
