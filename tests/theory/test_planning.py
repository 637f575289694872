"""The inverse question: sizes needed, against subsets that are drawn, and when nothing is said."""

import numpy as np
import pytest
import xarray as xr

from geomem.errors import InputError
from geomem.stats import numpy_rng
from geomem.theory import planning
from geomem.theory.averages import Effort, planted_average
from geomem.theory.critical import critical_sizes
from geomem.theory.duplicates import near_duplicates, without_copies
from geomem.theory.planning import (
    FOUND,
    MORE,
    TOO_FEW,
    collapse_levels,
    gaussian_guide,
    needed_sizes,
    retention_of_subsets,
)
from geomem.theory.priors import Gaussian, GaussianMixture

M, V = 400, np.array([1.0, 0.5, 0.2])
DATA = np.random.default_rng(1).normal(size=(M, 3)) * np.sqrt(V)
SIGMAS = np.array([0.02, 0.1, 0.6, 1.0])
GRID = np.geomspace(2, M, 14).round()


@pytest.fixture(scope="module")
def kept():
    return retention_of_subsets(DATA, SIGMAS, GRID, np.eye(3), sources=48, seed=3)


def drawn_retention(sigma, size, direction, sources, seed, count):
    """Kept by drawn subsets over kept by all, at the same sources and noise; and its error."""
    index = numpy_rng(seed, "plan: sources").permutation(M)[:sources]
    z = numpy_rng(seed, "plan: noise").standard_normal((sources, 3))
    rng, above, below = np.random.default_rng(0), np.zeros(count), 0.0
    for q, noise in zip(index, z, strict=True):
        x, others = DATA[q] + sigma * noise, np.delete(np.arange(M), q)
        sets = np.array([[*rng.choice(others, size - 1, replace=False), q] for _ in range(count)])
        above += variance(x, DATA[sets], sigma, direction)
        below += variance(x, DATA[None], sigma, direction)[0]
    return above.mean() / below, above.std(ddof=1) / below / count**0.5


def variance(x, sets, sigma, direction):
    energy = ((sets - x) ** 2).sum(-1) / (2 * sigma**2)
    w = np.exp(energy.min(1, keepdims=True) - energy)
    w /= w.sum(1, keepdims=True)
    place = sets[..., direction]
    return (w * (place - (w * place).sum(1, keepdims=True)) ** 2).sum(1)


@pytest.mark.parametrize(("level", "direction", "share"), [(2, 0, 0.5), (2, 2, 0.9), (3, 1, 0.9)])
def test_subsets_of_the_planned_size_keep_what_was_planned(kept, level, direction, share):
    found = needed_sizes(kept, share)[level][direction]
    assert found.status == FOUND
    one = kept.isel(sigma=level, direction=direction)
    share_of_all = share / float(one.population_retention[-1])  # of what all M points keep
    around = [int(found.num_samples), int(found.num_samples) + 1]
    drawn = [drawn_retention(SIGMAS[level], n, direction, 48, 3, 150) for n in around]
    means, errors = np.transpose(drawn)
    mean = np.interp(np.log(found.num_samples), np.log(around), means)
    assert abs(mean - share_of_all) < 3 * errors.max() + 0.005  # .5 %: the curve between sizes


def known(value):
    assert value is not None
    return value


def test_half_is_kept_before_nine_tenths_and_at_more_noise_by_fewer(kept):
    half, most = needed_sizes(kept, 0.5), needed_sizes(kept, 0.9)
    for level in (2, 3):
        for a, b in zip(half[level], most[level], strict=True):
            size = known(a.num_samples)
            assert known(a.low) <= size < known(b.num_samples)
            assert a.high is None or size <= a.high
    for low, high in zip(half[2], half[3], strict=True):
        assert known(low.num_samples) > known(high.num_samples)


def test_the_interval_holds_the_size_that_the_exact_theory_needs(kept):
    exact = critical_sizes(Gaussian(V), 0.6, effort=Effort(points=16))
    for found, truth in zip(needed_sizes(kept, 0.5)[2], exact, strict=True):
        assert known(found.low) < np.exp(known(truth).value) < (found.high or np.inf)


def test_too_small_a_reference_says_so(kept):
    # Effective points: about 1, where all M have collapsed, and a few.
    assert float(kept.reference_points[0]) < 1.5
    assert 2 < float(kept.reference_points[1]) < 20
    assert {c.status for c in needed_sizes(kept, 0.9)[0]} == {MORE}
    assert {c.low for c in needed_sizes(kept, 0.9)[0]} == {M}
    for cell in needed_sizes(kept, 0.5)[1]:
        assert cell.status == TOO_FEW
        assert 2 < known(cell.low) <= M
        assert cell.num_samples is None
        assert cell.high is None


def test_what_the_exact_theory_needs_is_above_every_lower_end(kept):
    exact = critical_sizes(Gaussian(V), 0.1, effort=Effort(points=16))
    for cell, truth in zip(needed_sizes(kept, 0.5)[1], exact, strict=True):
        assert known(cell.low) < np.exp(known(truth).value)


def column(points, retention, control, shortfall):
    dims, sizes = ("sigma", "num_samples", "direction"), np.array([1.0, 10.0, 100.0])
    value = np.array(retention)[None, :, None]
    return xr.Dataset(
        {
            "retention": (dims, value),
            "retention_stderr": (dims, 0 * value),
            "population_retention": (dims, (1 - shortfall) * value),
            "population_retention_stderr": (dims, 0 * value + 0.01),
            "reference_points": ("sigma", [points]),
            "control": (("sigma", "direction"), [[control]]),
        },
        {"sigma": [1.0], "num_samples": sizes},
    )


@pytest.mark.parametrize(
    ("points", "control", "shortfall", "kept", "status", "beyond"),
    [
        (100.0, 0.5, 0.0, 0.5, FOUND, False),
        (100.0, 0.5, 0.3, 0.5, FOUND, False),
        (21.0, 0.5, 0.09, 0.9, FOUND, True),  # its error reaches below what is asked
        (21.0, 0.5, 0.2, 0.9, MORE, True),
        (19.0, 0.5, 0.0, 0.9, TOO_FEW, True),
        (6.0, 0.5, 0.0, 0.9, MORE, True),  # 1 - .7 / 6 is below .9
        (6.0, 0.5, 0.0, 0.5, TOO_FEW, True),
        (1.2, 0.0, 0.0, 0.5, MORE, True),  # M keeps nothing, which does not close the direction
        (100.0, 0.01, 0.0, 0.5, planning.CLOSED, True),
    ],
)
def test_what_is_said_of_a_cell(points, control, shortfall, kept, status, beyond):
    cell = needed_sizes(column(points, [0.0, 0.6, 1.0], control, shortfall), kept)[0][0]
    assert cell.status == status
    assert (cell.high is None) == beyond
    assert (cell.num_samples is None) == (status != FOUND)


def test_a_shortfall_of_all_points_asks_for_more_of_them():
    near, far = (
        needed_sizes(column(100.0, [0.0, 0.6, 1.0], 0.5, short), 0.5)[0][0] for short in (0, 0.3)
    )
    ends = (near.low, near.num_samples, far.num_samples, far.high)
    a, b, c, d = map(known, ends)
    assert a < b < c < d


def test_copies_are_no_further_points():
    once = retention_of_subsets(DATA, [0.6], [20], np.eye(3), sources=16)
    four = retention_of_subsets(np.concatenate([DATA] * 4), [0.6], [20], np.eye(3), sources=16)
    xr.testing.assert_identical(once, four)
    with pytest.raises(InputError, match="400 points of the data, since 400 of 800 are copies"):
        retention_of_subsets(np.tile(DATA, (2, 1)), [0.6], [500], np.eye(3), sources=16)


@pytest.mark.parametrize("scale", [pytest.param("heavy", marks=pytest.mark.slow), "light"])
def test_the_shortfall_of_all_points_is_read_from_them(scale):
    """Against the population's exact posterior variance, of a mixture over scales."""
    v, sigma, rng = np.array([1.0, 0.4, 0.1]), 0.35, np.random.default_rng(2)
    levels = np.exp(np.linspace(-2.2, 2.2, 9)) if scale == "heavy" else np.ones(1)
    weights = np.exp(-(np.log(levels) ** 2) / (2 * 0.8**2)) / len(levels)
    weights /= weights.sum()
    which = rng.choice(len(levels), 1200, p=weights)
    data = rng.normal(size=(1200, 3)) * np.sqrt(v * levels[which][:, None])
    found = retention_of_subsets(data, [sigma], [20], np.eye(3), sources=128)
    mixture = GaussianMixture(weights, np.zeros((len(levels), 3)), np.outer(levels, v))
    exact = planted_average(mixture, sigma, [1200], effort=Effort(points=32, sources=4))
    last = found.isel(sigma=0, num_samples=-1)
    error = np.hypot(last.population_retention_stderr, exact.retention_stderr[0])
    # All 1,200 keep less than the population, by the amount that the data themselves say.
    assert (np.abs(last.population_retention.values - exact.retention[0]) < 3 * error).all()
    assert (exact.retention[0] < 0.99).all()


def test_collapse_is_found_between_levels_and_near_the_gaussian_guide(kept):
    levels = collapse_levels(kept, [GRID[4], M, 10**6], V)
    small, all_, beyond = levels
    low, sigma, high = map(known, (all_.low, all_.sigma, all_.high))
    guide = known(all_.guide)
    assert known(small.sigma) > sigma
    assert low < sigma < high
    # These are Gaussian data: 1.5 to 2.1 effective points are left where ln N = I.
    assert low / 1.2 < guide < 1.2 * high
    assert beyond.sigma is None
    assert 0 < known(beyond.guide) < guide


def test_the_guide_is_the_exact_theory_and_says_where_it_ends():
    guide = gaussian_guide([1.0, 0.5, 1e-6], [1e-6, 0.6], 3, effort=Effort(points=16))
    exact = critical_sizes(Gaussian([1.0, 0.5, 1e-6]), 0.6, effort=Effort(points=16))
    ours = guide.num_samples.sel(kept=0.5).values
    assert np.log(ours[1, 0]) == pytest.approx(known(exact[0]).value, abs=0.1)
    assert np.isinf(ours[0, 0])  # I(x_0; x_sigma) is above ln 10^12
    assert np.isnan(ours[1, 2])  # not open


def test_near_duplicates_are_found_and_none_else():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(500, 12)).astype(np.float32)
    data[7], data[400] = data[3] + 1e-3, data[100] - 0.01
    found = near_duplicates(data, np.eye(12)[:4])
    assert [pair[:2] for pair in found.pairs] == [(3, 7), (100, 400)]
    ratio = np.linalg.norm(data[7].astype(float) - data[3]) / found.typical
    assert found.pairs[0][2] == pytest.approx(ratio)
    assert found.threshold == pytest.approx(1 / 3)
    assert 6 < found.dimension < 14


@pytest.mark.parametrize(("share", "copies"), [(0.05, 1), (0.3, 1), (1.0, 1), (0.5, 5)])
def test_near_duplicates_do_not_hide_each_other(share, copies):
    rng = np.random.default_rng(0)
    once = rng.normal(size=(400, 8))
    again = [once[: int(400 * share)] + 0.02 * rng.normal(size=(int(400 * share), 8))] * copies
    again = [a + 0.001 * k * rng.normal(size=a.shape) for k, a in enumerate(again)]
    found = near_duplicates(np.concatenate([once, *again]), np.eye(8)[:4])
    originals = {i for i, _, _ in found.pairs if i < 400}
    assert originals == set(range(int(400 * share)))
    assert 5 < found.dimension < 12
    left = without_copies(400 + len(again) * len(again[0]), found.pairs)
    assert left.tolist() == list(range(400))


def test_chance_makes_no_duplicates_of_a_line():
    data = np.random.default_rng(0).uniform(size=(2000, 1))
    found = near_duplicates(data, np.eye(1))
    assert found.threshold < 0.01
    assert len(found.pairs) < 10  # one image in 1,000 is as near by chance


def test_same_seed_same_numbers_another_seed_another():
    def run(seed):
        return retention_of_subsets(DATA, [0.6], [20], np.eye(3), sources=16, seed=seed)

    xr.testing.assert_identical(run(5), run(5))
    assert not np.array_equal(run(5).retention, run(6).retention)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": DATA[:10]}, "10 different points"),
        ({"sources": 3}, "`sources` is 3"),
        ({"sigmas": [0.0]}, "`sigmas` holds 0"),
        ({"sigmas": []}, "`sigmas` has shape"),
        ({"sigmas": [1e300]}, "`sigmas` holds 1e[+]300"),
        ({"seed": -1}, "`seed` is -1"),
        ({"num_samples": [M + 1]}, "exceeds"),
        ({"num_samples": [1.5]}, "N >= 2"),
        ({"points": np.full((20, 3), np.nan)}, "NaN"),
        ({"directions": 2 * np.eye(3)}, "length"),
    ],
)
def test_bad_input_is_one_sentence(changes, message):
    usual = {"points": DATA, "sigmas": [0.5], "num_samples": [10], "directions": np.eye(3)}
    with pytest.raises(InputError, match=message) as error:
        retention_of_subsets(**{**usual, "sources": 16, **changes})
    assert "\n" not in str(error.value)


def test_a_retention_is_asked_for_between_0_and_1(kept):
    with pytest.raises(InputError, match="`kept` is 1"):
        needed_sizes(kept, 1.0)
