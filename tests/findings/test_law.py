r"""The law of memorization: planted, refitted, extrapolated."""

from __future__ import annotations

import numpy as np
import pytest

from geomem.findings.law import Ceiling, Law, Share, beside, fit_law, nats_of
from geomem.stats import numpy_rng

TIMES, SIZES, WIDTHS = (180.0, 430.0, 740.0), (32.0, 100.0, 300.0), (64.0, 256.0)


def planted(power: float = 1.0, noise: float = 0.0, unit: int = 0) -> tuple[np.ndarray, ...]:
    r"""Trainings of the law with k = τ w / 1500, and their noise."""
    grid = np.meshgrid(TIMES, SIZES, WIDTHS, indexing="ij")
    t, n, w = (axis.ravel() for axis in grid)
    odds = (t * w / 1500 / n) ** power
    rng = numpy_rng(0, "planted law", unit)
    return t, n, w, odds / (1 + odds) + noise * rng.standard_normal(len(t))


def fitted(power: float = 1.0, noise: float = 0.0, unit: int = 0) -> Law:
    t, n, w, m = planted(power, noise, unit)
    return fit_law(t, n, w, m, np.full(len(t), noise))


def test_a_planted_law_is_found_and_leaves_nothing() -> None:
    law = fitted()
    assert law.power == pytest.approx(1.0, abs=2 * law.covariance[-1, -1] ** 0.5)
    # The last moment, where most is memorized, is known best; a prior pulls the others.
    assert np.exp(law.log_k[:, -1]) == pytest.approx(740 * np.array(WIDTHS) / 1500, rel=0.1)
    assert law.left < 0.003
    half = float(np.exp(law.images(740.0, 256.0)[0]))
    assert law.share(740.0, half, 256.0).value == pytest.approx(0.5)


@pytest.mark.parametrize(("size", "time"), [(1000, 740), (3000, 1480), (300, 2960), (10_000, 740)])
def test_intervals_hold_beyond_what_was_seen_and_widen(size: float, time: float) -> None:
    truth = time * 256 / 1500 / size
    truth = truth / (1 + truth)
    held = 0
    for unit in range(20):
        found = fitted(noise=0.01, unit=unit).share(time, size, 256.0)
        held += found.low <= truth <= found.high
    assert held >= 17  # of 90 % intervals that allow for more than this noise


def test_errors_grow_with_the_distance_in_size_time_and_width() -> None:
    law = fitted(noise=0.01)
    errors = [law.logit(740.0, n, 256.0)[1] for n in (300, 1000, 10_000)]
    assert errors == sorted(errors)
    errors = [law.logit(t, 300, 256.0)[1] for t in (740.0, 1480.0, 6000.0)]
    assert errors == sorted(errors)
    assert law.logit(740.0, 300, 128.0)[1] > law.logit(740.0, 300, 256.0)[1]
    assert law.logit(740.0, 300, 1024.0)[1] > law.logit(740.0, 300, 512.0)[1]


def test_sizes_that_bend_the_law_widen_its_intervals() -> None:
    t, n, w, m = planted()
    bent = m * np.where(n == 300, 0.5, 1.0)
    law = fit_law(t, n, w, bent, np.full(len(t), 0.005))
    assert law.drift > fitted().drift
    assert law.left > 0.01


def test_shares_rise_with_time_and_width_and_fall_with_size() -> None:
    law = fitted()
    for many, few in ((1000, 300), (3000, 1000)):
        assert law.share(740.0, many, 64.0).value < law.share(740.0, few, 64.0).value
    assert law.share(1480.0, 300, 64.0).value > law.share(740.0, 300, 64.0).value
    assert law.share(740.0, 300, 256.0).value > law.share(740.0, 300, 64.0).value


def test_sizes_and_times_that_are_enough_are_where_the_share_is() -> None:
    law = fitted(noise=0.01)
    value, low, high = law.enough(0.1, time=740.0, width=256.0)
    assert value is not None
    assert law.share(740.0, value, 256.0).value == pytest.approx(0.1, rel=1e-3)
    assert low is not None
    assert high is not None
    assert low < value < high
    value, low, high = law.until(0.1, num_samples=1000, width=256.0)
    assert value is not None
    assert law.share(value, 1000, 256.0).value == pytest.approx(0.1, rel=1e-3)
    assert (low or 0.0) < value < (high or np.inf)
    assert law.enough(0.1, time=1e-9, width=256.0)[0] is None  # out of reach


def test_what_nobody_memorized_has_a_share_near_none() -> None:
    t, n, w, _ = planted()
    law = fit_law(t, n, w, np.zeros(len(t)), np.full(len(t), 0.01))
    found = law.share(740.0, 1000, 256.0)
    assert found.low <= 0.0 <= found.high < 0.1


def test_the_ceiling_falls_with_time_by_a_part_of_its_last_fall() -> None:
    times = np.array([200.0, 400.0, 800.0])
    ceiling = Ceiling(times, np.array([64.0, 256.0]), np.array([[90, 70, 60], [80, 60, 50.0]]))
    assert ceiling.at(400.0, 64.0)[0] == pytest.approx(70)
    later, error = ceiling.at(1600.0, 256.0)
    assert later == pytest.approx(45)  # e0 = 40, e1 = 8000
    assert error > ceiling.at(800.0, 256.0)[1]
    assert 50 < ceiling.at(800.0, 128.0)[0] < 60
    assert ceiling.at(800.0, 64.0, whole=False)[0] > 60


def test_beside_a_control_that_learned_more_a_share_may_be_negative() -> None:
    share = Share(0.1, 0.0, 0.2)
    same = beside(share, (60.0, 1.0), (60.0, 1.0))
    assert (same.value, same.low, same.high) == pytest.approx((0.1, 0.0, 0.2))
    assert beside(share, (60.0, 1.0), (50.0, 1.0)).value == pytest.approx(-0.08)
    assert nats_of(share, (60.0, 6.0)).high > nats_of(share, (60.0, 0.0)).high
