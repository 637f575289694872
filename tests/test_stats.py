r"""Numbers with their errors, against SciPy and against their own promises under the null."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from geomem.errors import InputError
from geomem.stats import (
    Estimate,
    Proportion,
    benjamini_hochberg,
    bootstrap_weights,
    conformal_p_values,
    numpy_rng,
    permutation_test,
    torch_rng,
)

# ------------------------------------------------------------------------ estimates


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(12.34, 0.456), "12.34 ± 0.46"),
        (Estimate(1234.5, 56.7), "1234 ± 57"),
        (Estimate(-0.001234, 0.000056), "-0.001234 ± 0.000056"),
        (Estimate(5.0, 1.0), "5.0 ± 1.0"),
        (Estimate(31.0), "31 ± 0"),
        (Estimate(31.0, math.nan), "31 ± nan"),
        (Estimate(1.0, math.inf), "1 ± inf"),
    ],
)
def test_a_number_carries_its_error(estimate: Estimate, text: str) -> None:
    assert repr(estimate) == text


def test_mean_and_standard_error_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).normal(3, 2, 50)
    found = Estimate.of_mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(scipy_stats.sem(values))
    assert math.isnan(Estimate.of_mean([2.0]).stderr)  # one draw knows no error
    for wrong in ([], [1.0, math.nan], ["a"]):
        with pytest.raises(InputError, match="`values`"):
            Estimate.of_mean(wrong)


def test_z_scores() -> None:
    assert Estimate(1.0).z_score(Estimate(1.0)) == 0
    assert Estimate(1.0).z_score(2.0) == -math.inf
    assert Estimate(3.0, 0.3).z_score(2.0) == pytest.approx(1 / 0.3)
    assert Estimate(2.0, 0.4).z_score(Estimate(3.0, 0.3)) == pytest.approx(-2.0)


# ---------------------------------------------------------------------- proportions


@given(st.integers(1, 400), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_is_clopper_pearson(n: int, data: st.DataObject, confidence: float) -> None:
    k = data.draw(st.integers(0, n))
    low, high = Proportion(k, n, confidence).interval
    # One-sided at the ends: the whole error probability sits on the one open side.
    asked = confidence if 0 < k < n else 2 * confidence - 1
    known = scipy_stats.binomtest(k, n).proportion_ci(asked, method="exact")
    assert (low, high) == pytest.approx((known.low, known.high), abs=1e-12)


@pytest.mark.parametrize("truth", [0.01, 0.2, 0.5, 0.97])
def test_the_interval_covers_at_least_as_often_as_it_says(truth: float) -> None:
    n = 60  # exactly, by the sum over all outcomes
    inside = [
        low <= truth <= high for low, high in (Proportion(k, n).interval for k in range(n + 1))
    ]
    probability = scipy_stats.binom.pmf(np.arange(n + 1), n, truth)
    assert float(probability @ np.array(inside)) >= 0.95 - 0.025  # one-sided at the ends


def test_proportions_in_words() -> None:
    assert repr(Proportion(0, 500)) == "0 of 500 (< 0.6 % at 95 %)"
    assert repr(Proportion(20, 20)) == "20 of 20 (> 86 % at 95 %)"
    assert repr(Proportion(3, 100)) == "3 of 100 (3.0 %, 0.6 % to 8.5 % at 95 %)"


@pytest.mark.parametrize(
    ("k", "n", "confidence", "name"),
    [
        (-1, 3, 0.95, "`successes` is -1"),
        (4, 3, 0.95, "not a proportion"),
        (0, 0, 0.95, "`trials` is 0"),
        (1.5, 4, 0.95, "`successes` is 1.5"),
        (True, 4, 0.95, "`successes` is True"),
        (1, 4, 1.0, "`confidence` is 1"),
        (1, 4, math.nan, "`confidence` is nan"),
    ],
)
def test_what_is_no_proportion(k: int, n: int, confidence: float, name: str) -> None:
    with pytest.raises(InputError, match=name):
        Proportion(k, n, confidence)


# ------------------------------------------------------------------------ bootstrap


def test_bootstrap_weights_are_resampled_means() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    weights = bootstrap_weights(40, 20_000, np.random.default_rng(1))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(weights * 40, np.round(weights * 40), atol=1e-12)
    means = weights @ values
    # The bootstrap's own variance is exactly sum (x - mean)² / n²; 20,000 replicates know it
    # to 1 %, four times that is allowed.
    assert means.std() == pytest.approx(values.std() / math.sqrt(40), rel=0.04)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * means.std() / math.sqrt(20_000))


# ---------------------------------------------------------------- permutation test


def null_p_values(looks: int, runs: int, permutations: int, n: int, m: int) -> np.ndarray:
    found = []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        # Looks that are alike, as neighbouring noise levels are, with heavy tails.
        common = rng.standard_t(3, (n + m, 1))
        units = common + rng.standard_t(3, (n + m, looks))
        found.append(permutation_test(units[:n], units[n:], rng=rng, permutations=permutations))
    return np.array([t.p_value for t in found])


@pytest.mark.parametrize(("n", "m"), [(12, 12), (8, 30)])
def test_false_alarms_are_as_often_as_stated(n: int, m: int) -> None:
    # 400 nulls, fixed beforehand. With 199 permutations P(p <= k/200) = k/200, exactly: the
    # counts are binomial, and each bound is missed by chance once in 10,000.
    p = null_p_values(looks=20, runs=400, permutations=199, n=n, m=m)
    for alpha in (0.05, 0.2, 0.5):
        low, high = scipy_stats.binom.ppf([1e-4, 1 - 1e-4], 400, alpha)
        assert low <= (p <= alpha + 1e-12).sum() <= high


def test_a_difference_is_found_where_it_is() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))
    first[:, 2] += 2
    found = permutation_test(first, second, rng=rng, permutations=1999)
    assert found.p_value == pytest.approx(1 / 2000)
    assert found.adjusted.argmin() == found.statistic.argmax() == 2
    assert found.adjusted[[0, 1, 3, 4]].min() > 0.01  # null looks: 1 in 100 such tests
    assert found.adjusted.min() == found.p_value
    # One-sided: the other way round it is no difference.
    other = permutation_test(second[:, 2:3], first[:, 2:3], rng=rng, permutations=1999)
    assert other.p_value > 0.99


def test_the_statistic_is_welchs_t_and_offsets_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.3, 1, (9, 4)), rng.normal(0, 3, (25, 4))
    expected = scipy_stats.ttest_ind(first, second, equal_var=False).statistic
    for offset in (0.0, 1e6):
        found = permutation_test(
            first + offset, second + offset, rng=np.random.default_rng(1), permutations=99
        )
        # 1e6 takes six digits from the values themselves.
        np.testing.assert_allclose(found.statistic, expected, rtol=1e-8)


def test_p_values_are_those_of_all_permutations() -> None:
    # 3 against 3 has 20 relabelings; the true p-value is counted, the drawn one estimates it.
    from itertools import combinations

    first, second = np.array([[2.0], [3.1], [4.5]]), np.array([[0.3], [2.2], [2.5]])
    pooled = np.concatenate([first, second])[:, 0]
    statistics = []
    for chosen in combinations(range(6), 3):
        rest = [k for k in range(6) if k not in chosen]
        statistics.append(
            scipy_stats.ttest_ind(pooled[list(chosen)], pooled[rest], equal_var=False).statistic
        )
    observed = scipy_stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False).statistic
    exact = np.mean([s >= observed - 1e-9 for s in statistics])
    found = permutation_test(first, second, rng=np.random.default_rng(0), permutations=9999)
    stderr = math.sqrt(exact * (1 - exact) / 9999)
    assert abs(found.p_value - exact) < 4 * stderr + 1e-4


def test_what_cannot_be_permuted() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="two units a side"):
        permutation_test(np.ones((1, 3)), np.ones((5, 3)), rng=rng)
    with pytest.raises(InputError, match="same looks"):
        permutation_test(np.ones((5, 3)), np.ones((5, 2)), rng=rng)
    for bad in (math.nan, math.inf):
        with pytest.raises(InputError, match="`larger` holds"):
            permutation_test([[bad], [1.0], [2.0]], [[0.0], [1.0]], rng=rng)
    with pytest.raises(InputError, match="`permutations` is 0"):
        permutation_test(np.ones((5, 3)), np.ones((5, 3)), rng=rng, permutations=0)


@pytest.mark.parametrize("value", [1.0, 0.1, -1e-30, 1e30])
def test_groups_that_do_not_vary_are_compared_by_counting(value: float) -> None:
    def p_value(larger: float, smaller: float) -> float:
        rng = np.random.default_rng(0)
        first, second = np.full((5, 2), larger), np.full((5, 2), smaller)
        return permutation_test(first, second, rng=rng, permutations=9999).p_value

    assert p_value(value, value) == 1  # no difference, and no 0/0
    large, small = max(value, 0.3 * value), min(value, 0.3 * value)
    # One relabeling in 252 divides them so: 4 standard errors of 9,999 draws.
    assert p_value(large, small) == pytest.approx(1 / 252, abs=4 * math.sqrt(1 / 252 / 9999))
    assert p_value(small, large) == 1


def test_ties_count_whatever_the_rounding() -> None:
    # Values in steps of .1: each statistic is that of many relabelings, summed in another order.
    first, second = np.array([[0.3], [0.3], [0.3], [0.1]]), np.array([[0.1], [0.1], [0.1], [0.3]])
    found = permutation_test(first, second, rng=np.random.default_rng(0), permutations=9999)
    # C(4, 3)² + 1 of C(8, 4) relabelings have three or four of the larger values in front.
    assert found.p_value == pytest.approx(17 / 70, abs=4 * math.sqrt(17 / 70 / 9999))


# -------------------------------------------------------- false discoveries, conformal


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_is_that_of_scipy(p: list[float]) -> None:
    expected = scipy_stats.false_discovery_control(p)
    np.testing.assert_allclose(benjamini_hochberg(p), expected, atol=1e-12)


@pytest.mark.parametrize("p_values", [[2.0, -1.0], [math.nan], [], [[0.1, 0.2]], "abc"])
def test_what_are_no_p_values(p_values: object) -> None:
    with pytest.raises(InputError, match="`p_values`"):
        benjamini_hochberg(p_values)  # type: ignore[arg-type]


@given(
    st.lists(st.integers(0, 9).map(float), min_size=1, max_size=20),
    st.lists(st.integers(0, 9).map(float), min_size=1, max_size=20),
)
def test_conformal_p_values_by_counting(values: list[float], calibration: list[float]) -> None:
    expected = [(1 + sum(c <= v for c in calibration)) / (1 + len(calibration)) for v in values]
    np.testing.assert_allclose(conformal_p_values(values, calibration), expected)


def test_conformal_p_values_are_uniform_for_exchangeable_values() -> None:
    # 2,000 draws of 99 calibration values and one more: p is uniform on {1/100, ..., 1}.
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(2000, 100))
    p = np.array([conformal_p_values(row[:1], row[1:])[0] for row in draws])
    for alpha in (0.01, 0.05, 0.5):
        low, high = scipy_stats.binom.ppf([1e-4, 1 - 1e-4], 2000, alpha)
        assert low <= (p <= alpha + 1e-12).sum() <= high


def test_nan_is_neither_usual_nor_a_calibration() -> None:
    assert np.isnan(conformal_p_values([math.nan, 1.0], [1.0, 2.0])).tolist() == [True, False]
    for calibration in ([], [1.0, math.nan]):
        with pytest.raises(InputError, match="calibration"):
            conformal_p_values([1.0], calibration)


# ------------------------------------------------------------------------ randomness


def test_seeds_depend_on_purpose_and_unit_and_on_nothing_else() -> None:
    def draw(seed: int, purpose: str, unit: int) -> float:
        return float(torch.rand((), generator=torch_rng(seed, purpose, unit), dtype=torch.float64))

    cases = [(s, p, u) for s in (0, 1) for p in ("noise", "training") for u in (0, 1, 2)]
    forth = [draw(*c) for c in cases]
    back = [draw(*c) for c in reversed(cases)][::-1]
    assert forth == back
    assert len(set(forth)) == len(cases)
    assert numpy_rng(0, "a").random() == numpy_rng(0, "a").random()
    assert numpy_rng(0, "a").random() != numpy_rng(0, "b").random()


FROZEN_NUMPY, FROZEN_TORCH = 299138, 253772


def test_seeds_stay_what_they_are() -> None:
    # Frozen: another value means that every record of every run would change.
    assert numpy_rng(0, "bootstrap").integers(10**6) == FROZEN_NUMPY
    drawn = torch.randint(10**6, (), generator=torch_rng(0, "noise/training", 3))
    assert int(drawn) == FROZEN_TORCH


@pytest.mark.parametrize("seed", [-1, 2.5, "a", None])
def test_a_seed_is_a_whole_number(seed: int) -> None:
    for rng in (numpy_rng, torch_rng):
        with pytest.raises(InputError, match="`seed` is"):
            rng(seed, "test")
    assert numpy_rng(np.int64(3), "test").random() == numpy_rng(3, "test").random()  # type: ignore[arg-type]
