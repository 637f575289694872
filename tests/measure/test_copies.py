r"""Copies: nearest images against a search by hand, and the rate of false alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from torch import Tensor

from geomem.data.images import ImageData
from geomem.data.source import Source
from geomem.data.splits import Split
from geomem.errors import InputError
from geomem.findings.copies import copy_numbers
from geomem.measure.copies import (
    LEVEL,
    MIN_CALIBRATION,
    Copies,
    nearest,
    p_values,
    sibling_ratios,
    siblings,
)
from geomem.measure.subject import Description, Subject
from geomem.runs.design import study_of
from tests.references import Array, normal


def by_hand(query: Tensor, data: Tensor, groups: np.ndarray) -> tuple[int, float, float]:
    distances = [math.dist(query.flatten().tolist(), y.flatten().tolist()) for y in data.double()]
    first = int(np.argmin(distances))
    others = [s for s, g in zip(distances, groups, strict=True) if g != groups[first]]
    if not others:
        return first, distances[first], math.nan
    return first, distances[first], distances[first] / min(others) if min(others) > 0 else 1.0


def agree(queries: Tensor, data: Tensor, groups: np.ndarray) -> None:
    found = nearest(queries, data, groups)
    for k, query in enumerate(queries.double()):
        index, distance, ratio = by_hand(query, data, groups)
        assert found.index[k] == index
        assert found.distance[k] == pytest.approx(distance, rel=1e-12, abs=1e-14)
        assert found.ratio[k] == pytest.approx(ratio, rel=1e-12, nan_ok=True)


@given(st.integers(0, 2**31 - 1), st.integers(1, 90), st.integers(1, 6), st.integers(1, 5))
def test_nearest_by_hand(seed: int, n: int, d: int, per_group: int) -> None:
    data = normal(seed, n, d).float()
    agree(normal(seed + 1, 4, d).float(), data, np.arange(n) // per_group)


def test_images_far_from_the_origin() -> None:
    # Distances of .01 between points at 1e4: one float32 product would be off by a thousand.
    data = (normal(0, 40, 1, 4, 4) * 0.01 + 1e4).double()
    agree(data[:5] + 1e-3 * normal(1, 5, 1, 4, 4), data, np.arange(40))


def test_an_exact_copy_has_distance_zero() -> None:
    data = normal(0, 50, 3, 4, 4).float()
    found = nearest(data[:5], data, np.arange(50))
    assert found.index.tolist() == [0, 1, 2, 3, 4]
    assert found.distance.tolist() == [0.0] * 5  # and not 1e-7
    assert found.ratio.tolist() == [0.0] * 5


def test_duplicates_of_one_group_do_not_hide_a_copy() -> None:
    data = normal(0, 30, 6)
    twice = torch.cat([data, data])
    apart, together = np.arange(60), np.tile(np.arange(30), 2)
    query = data[:3] + 1e-3 * normal(1, 3, 6)
    # Two groups at the same distance: nothing singles out one of them.
    assert nearest(query, twice, apart).ratio.tolist() == pytest.approx([1.0] * 3)
    agree(query, twice, together)
    assert nearest(query, twice, together).ratio.max() < 0.02
    assert nearest(data[:1], twice, apart).ratio.tolist() == [1.0]  # 0/0 is no copy


def test_a_large_group_in_front() -> None:
    # 50 copies of one image are nearer than any other: the second group must still be found.
    data = torch.cat([normal(0, 1, 6).repeat(50, 1) + 1e-6 * normal(1, 50, 6), normal(2, 40, 6)])
    groups = np.concatenate([np.zeros(50, int), np.arange(1, 41)])
    query = data[:4] + 1e-4 * normal(3, 4, 6)
    agree(query, data, groups)
    assert nearest(query, data, groups).ratio.max() < 0.01


def test_one_group_alone_has_no_ratio() -> None:
    data = normal(0, 8, 3)
    found = nearest(normal(1, 2, 3), data, np.zeros(8, int))
    assert np.isnan(found.ratio).all()
    assert (found.distance > 0).all()


def test_many_queries_are_searched_in_parts() -> None:
    data, queries = normal(0, 10, 2), normal(1, 400, 2)
    whole = nearest(queries, data, np.arange(10))
    for k in (0, 63, 64, 65, 399):
        alone = nearest(queries[k : k + 1], data, np.arange(10))
        assert alone.index[0] == whole.index[k]
        assert alone.ratio[0] == whole.ratio[k]  # explicit differences: bit for bit
    reverse = nearest(queries.flip(0), data, np.arange(10))
    np.testing.assert_array_equal(reverse.ratio[::-1], whole.ratio)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite(bad: float) -> None:
    queries = normal(1, 3, 2)
    queries[1, 0] = bad
    with pytest.raises(InputError, match="check the denoiser"):
        nearest(queries, normal(0, 5, 2), np.arange(5))


# -------------------------------------------------------------------------- judging


def ratios(seed: int, count: int) -> Array:
    r"""Ratios of fresh points to 300 points of the same distribution."""
    data = normal(0, 300, 8)
    return nearest(normal(seed, count, 8), data, np.arange(300)).ratio


def test_p_values_of_fresh_points_are_uniform() -> None:
    # 1,000 fresh points among 999 held-out ones: uniform up to the fluctuation of both sets,
    # Kolmogorov-Smirnov at 1e-4.
    found = p_values(ratios(1, 1000), ratios(2, 999))
    assert scipy_stats.kstest(found, "uniform").pvalue > 1e-4
    # Copies among them are false alarms: 1 % of 1,000, both sets fluctuating by 3 to 4.
    assert (found <= LEVEL).sum() <= 30


def test_the_rate_of_false_alarms_over_many_calibrations() -> None:
    # 2,000 calibrations of 199 exchangeable values: P(p <= 1 %) is exactly 2/200.
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        draws = rng.beta(5, 1, size=200)
        alarms += int(p_values(draws[:1], draws[1:])[0] <= LEVEL)
    low, high = scipy_stats.binom.ppf([1e-4, 1 - 1e-4], 2000, 0.01)
    assert low <= alarms <= high


def test_copies_are_found() -> None:
    data = normal(0, 300, 8)
    copies = data[:50] + 0.01 * normal(5, 50, 8)
    found = p_values(nearest(copies, data, np.arange(300)).ratio, ratios(2, MIN_CALIBRATION))
    assert found.max() <= LEVEL


def test_too_few_held_out_images_are_not_calibrated() -> None:
    found = p_values(np.zeros(3), ratios(2, MIN_CALIBRATION - 1))
    assert np.isnan(found).all()  # "not calibrated" is not "not a copy"


def test_held_out_images_without_a_ratio_calibrate_nothing() -> None:
    assert np.isnan(p_values(np.zeros(3), np.full(300, math.nan))).all()
    missing = p_values(np.array([math.nan, 0.0]), ratios(2, 250))
    assert np.isnan(missing).tolist() == [True, False]
    assert missing[1] <= LEVEL


# ------------------------------------------------------------- memorized, spurious, new


def test_siblings_by_hand() -> None:
    images, groups = normal(0, 12, 3), np.array([0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 7, 8])
    first = [0, 2, 3, 5, 6]  # the first of groups 0 to 4: four are looked at, one may be one's own
    place, distance = siblings(images, groups, images, groups, 4)
    for i, image in enumerate(images):
        others = [k for k in first if groups[k] != groups[i]][:4]
        far = [float((images[k] - image).norm()) for k in others]
        assert len(far) == 4
        assert distance[i] == pytest.approx(min(far), rel=1e-12)
        assert place[i] == others[int(np.argmin(far))]
    with pytest.raises(InputError, match="`count` is 9"):
        siblings(images, groups, images, groups, 9)


def test_what_is_a_training_image_is_near_no_sample_by_that() -> None:
    found = sibling_ratios(np.array([1.0, 0.0, 2.0]), np.array([0.0, 0.0, 4.0]))
    assert found.tolist() == [math.inf, math.inf, 0.5]


def kinds_of(samples: Tensor, seed: int = 0) -> dict[str, float]:
    r"""Kinds of samples of a study of 300 training, 250 held-out and 250 reserved points."""
    images = torch.cat([normal(seed, 800, 8), samples]).float()
    data = ImageData.of("points", images.numpy())
    source = Source(data, Split(np.arange(300), np.arange(300, 550), np.arange(550, 800), 0))
    study = study_of(
        source,
        {"held_out": list(range(300, 310))},
        sigmas=np.array([0.1, 1.0]),
        probes=[Copies(len(samples))],
        draws=1,
        seed=0,
        more={},
    )
    subject = Subject(
        Description("learned", num_samples=300), source.linear_control, training=range(300)
    )
    subject.cache["samples"] = samples
    record = Copies(len(samples))(subject, study, lambda share: None).expand_dims("subject")
    return {str(k): float(v[0]) for k, v in copy_numbers(record, [[0]]).data_vars.items()}


def test_the_three_kinds_are_told_apart() -> None:
    # 40 copies, 60 draws of one attractor far from training points, 100 fresh points.
    training = normal(0, 800, 8)[:300]
    spot = 4.0 * torch.ones(8) / 8**0.5
    samples = torch.cat(
        [
            training[:40] + 0.01 * normal(5, 40, 8),
            spot + 0.02 * normal(6, 60, 8),
            normal(7, 100, 8),
        ]
    )
    found = kinds_of(samples)
    assert found["copies_of"] == found["spurious_of"] == found["new_samples_of"] == 200
    assert found["copies"] + found["spurious"] + found["new_samples"] == 200
    # Of 100 fresh points each door takes about one falsely: 5 is a 99.7 % quantile of Poisson(1).
    assert 40 <= found["copies"] <= 45
    assert 60 <= found["spurious"] <= 65
    assert found["spurious_low"] < 0.3 < found["spurious_high"]


def test_fresh_samples_are_called_spurious_at_the_stated_rate() -> None:
    # 20 populations of 250 fresh points, each with 250 held-out ones: 1 % of 5,000 is 50. Both
    # sets fluctuate, and near ones come in pairs: twice the binomial variance and calibration.
    called, unseen = 0.0, 0.0
    for seed in range(20):
        found = kinds_of(normal(1000 + seed, 250, 8), seed)
        called += found["spurious"]
        unseen += found["unseen_spurious"]
    spread = math.sqrt(4 * 5000 * 0.01)
    assert abs(called - 50) < 4 * spread
    assert abs(unseen - 50) < 4 * spread


def test_samples_of_too_few_held_out_images_have_no_kind() -> None:
    found = copy_numbers(
        xr.Dataset(
            {
                name: (("subject", "sample"), np.full((1, 3), np.nan))
                for name in ("sample_p_value", "sibling_p_value")
            }
            | {
                name: (("subject", "unseen"), np.full((1, 3), np.nan))
                for name in ("unseen_p_value", "unseen_sibling_p_value")
            }
            | {"sample_ratio": (("subject", "sample"), np.ones((1, 3)))}
        ),
        [[0]],
    )
    assert np.isnan(found.spurious).all()
    assert np.isnan(found.new_samples).all()
