"""The inverse question: sizes needed, against subsets that are drawn, and when nothing is said."""

import numpy as np
import pytest
import xarray as xr

from geomem.errors import InputError
from geomem.stats import numpy_rng
from geomem.theory import planning
from geomem.theory.averages import Effort
from geomem.theory.critical import critical_sizes
from geomem.theory.planning import (
    FOUND,
    MORE,
    TOO_FEW,
    collapse_levels,
    gaussian_guide,
    near_duplicates,
    needed_sizes,
    retention_of_subsets,
    size_at,
)
from geomem.theory.priors import Gaussian

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
    around = [int(found.num_samples), int(found.num_samples) + 1]
    drawn = [drawn_retention(SIGMAS[level], n, direction, 48, 3, 150) for n in around]
    means, errors = np.transpose(drawn)
    mean = np.interp(np.log(found.num_samples), np.log(around), means)
    assert abs(mean - share) < 3 * errors.max() + 0.005  # .5 %: the curve between sizes


def test_half_is_kept_before_nine_tenths_and_at_more_noise_by_fewer(kept):
    half, most = needed_sizes(kept, 0.5), needed_sizes(kept, 0.9)
    for level in (2, 3):
        for a, b in zip(half[level], most[level], strict=True):
            assert a.low <= a.num_samples < b.num_samples
            assert a.high is None or a.num_samples <= a.high
    for low, high in zip(half[2], half[3], strict=True):
        assert low.num_samples > high.num_samples


def test_the_interval_holds_the_size_that_the_exact_theory_needs(kept):
    exact = critical_sizes(Gaussian(V), 0.6, effort=Effort(points=16))
    for found, truth in zip(needed_sizes(kept, 0.5)[2], exact, strict=True):
        assert found.low < np.exp(truth.value) < (found.high or np.inf)


def test_too_small_a_reference_says_so(kept):
    # Effective points: about 1, where all M have collapsed, and a few.
    assert float(kept.reference_points[0]) < 1.5
    assert 2 < float(kept.reference_points[1]) < 20
    assert {c.status for c in needed_sizes(kept, 0.9)[0]} == {MORE}
    assert {c.low for c in needed_sizes(kept, 0.9)[0]} == {M}
    for cell in needed_sizes(kept, 0.5)[1]:
        assert cell.status == TOO_FEW
        assert 2 < cell.low <= M
        assert cell.num_samples is None
        assert cell.high is None


def test_what_the_exact_theory_needs_is_above_every_lower_end(kept):
    exact = critical_sizes(Gaussian(V), 0.1, effort=Effort(points=16))
    for cell, truth in zip(needed_sizes(kept, 0.5)[1], exact, strict=True):
        assert cell.low < np.exp(truth.value)


def column(points, retention, control):
    sizes, value = np.array([1.0, 10.0, 100.0]), np.array(retention)[None, :, None]
    return xr.Dataset(
        {
            "retention": (("sigma", "num_samples", "direction"), value),
            "retention_stderr": (("sigma", "num_samples", "direction"), 0 * value),
            "reference_points": ("sigma", [points]),
            "control": (("sigma", "direction"), [[control]]),
        },
        {"sigma": [1.0], "num_samples": sizes},
    )


@pytest.mark.parametrize(
    ("points", "control", "kept", "status", "beyond"),
    [
        (100.0, 0.5, 0.5, FOUND, False),
        (21.0, 0.5, 0.9, FOUND, True),  # 1 - 2.5 / 21 is below .9
        (19.0, 0.5, 0.9, TOO_FEW, True),
        (6.0, 0.5, 0.9, MORE, True),  # 1 - .7 / 6 is below .9
        (6.0, 0.5, 0.5, TOO_FEW, True),
        (1.2, 0.0, 0.5, MORE, True),  # M keeps nothing, which does not close the direction
        (100.0, 0.01, 0.5, planning.CLOSED, True),
    ],
)
def test_what_is_said_of_a_cell(points, control, kept, status, beyond):
    cell = needed_sizes(column(points, [0.0, 0.6, 1.0], control), kept)[0][0]
    assert cell.status == status
    assert (cell.high is None) == beyond


def test_sizes_are_interpolated_in_their_logarithm():
    sizes = np.geomspace(1, 1000, 13)
    assert size_at(sizes, 1 - 1 / sizes, 0.9) == pytest.approx(10, rel=2e-3)
    assert size_at(sizes, 0.5 - 0.5 / sizes, 0.9) is None
    assert size_at(sizes, np.full(13, 0.95), 0.9) == 1


def test_collapse_is_found_between_levels_and_near_the_gaussian_guide(kept):
    levels = collapse_levels(kept, [GRID[4], M, 10**6], V)
    small, all_, beyond = levels
    assert small.sigma > all_.sigma
    assert all_.low < all_.sigma < all_.high
    # These are Gaussian data: 1.5 to 2.1 effective points are left where ln N = I.
    assert all_.low / 1.2 < all_.guide < 1.2 * all_.high
    assert beyond.sigma is None
    assert 0 < beyond.guide < all_.guide


def test_the_guide_is_the_exact_theory_and_says_where_it_ends():
    guide = gaussian_guide([1.0, 0.5, 1e-6], [1e-6, 0.6], 3, effort=Effort(points=16))
    exact = critical_sizes(Gaussian([1.0, 0.5, 1e-6]), 0.6, effort=Effort(points=16))
    ours = guide.num_samples.sel(kept=0.5).values
    assert np.log(ours[1, 0]) == pytest.approx(exact[0].value, abs=0.1)
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
        ({"points": DATA[:10]}, "too few"),
        ({"sources": 3}, "too few"),
        ({"sigmas": [0.0]}, "sigma > 0"),
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
    with pytest.raises(InputError, match="between 0 and 1"):
        needed_sizes(kept, 1.0)
