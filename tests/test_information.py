r"""Memorized information: sums, ratios, and a search over subspaces that costs no bias."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geomem.errors import InputError
from geomem.information import (
    Averages,
    SquaredErrors,
    average,
    cluster_weights,
    common_ratio,
    damage,
    integrate_log,
    lost_share,
    memorized_density,
    strongest_contrast,
)


def averages(training: float, held_out: float, control: float = 1.0) -> Averages:
    full = lambda value: np.full((1, 3, 2), value)  # noqa: E731
    return Averages(full(training), full(held_out), full(control), full(control))


def test_the_ratio_is_the_best_generalizer_of_the_run_and_at_most_1() -> None:
    assert np.allclose(common_ratio([averages(0.1, 2.0), averages(0.2, 0.8)]), 0.8)
    assert np.allclose(common_ratio([averages(0.1, 2.0)]), 1.0)


def test_density_and_share_by_hand() -> None:
    network, ratio = averages(0.2, 0.8), np.full((1, 3, 2), 0.8)
    assert np.allclose(memorized_density(network, ratio), 0.8 - 0.2)
    assert np.allclose(lost_share(network, ratio), 0.75)


def test_damage_counts_only_what_is_worse() -> None:
    sigmas = np.exp(np.arange(3.0))  # two e-folds
    assert damage(averages(0.1, 1.5), sigmas) == pytest.approx(2 * 2 * 0.5)
    assert damage(averages(0.1, 0.5), sigmas) == 0


def test_a_direction_in_which_nothing_varies_has_ratio_1() -> None:
    assert np.allclose(averages(0.0, 0.0, control=0.0).generalization_ratio, 1.0)


def test_integrals_are_over_the_logarithm() -> None:
    sigmas = np.geomspace(0.1, 10, 2001)
    assert integrate_log(np.ones(2001), sigmas) == pytest.approx(math.log(100))
    curve = integrate_log(1 / (1 + sigmas**2), sigmas)
    exact = (math.log1p(100) - math.log1p(0.01)) / 2
    assert curve == pytest.approx(exact, rel=1e-5)


def test_images_of_one_group_are_drawn_together() -> None:
    groups = np.array([7, 7, 3, 7])
    weights = cluster_weights(groups, 200, np.random.default_rng(0))
    assert np.allclose(weights.sum(1), 1)
    assert np.allclose(weights[0], 0.25)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert set(np.unique(weights[1:, 2] > 0)) == {False, True}


def test_averages_weigh_images() -> None:
    values = np.arange(6.0).reshape(1, 3, 2)
    errors = SquaredErrors(values, values, values, values)
    first = np.array([[1.0, 0.0, 0.0]])
    assert np.array_equal(average(errors, first, first).training[0, 0], [0.0, 1.0])
    with pytest.raises(InputError):
        SquaredErrors(values, values, values[:, :2], values)


def test_the_strongest_contrast_is_found_where_it_is() -> None:
    # Three hidden directions of ten have lost 90 %; no axis is one of them.
    rng = np.random.default_rng(1)
    control = rng.normal(size=(64, 4, 10))
    basis = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    scale = np.array([math.sqrt(0.1)] * 3 + [1.0] * 7)
    network = (control @ basis * scale) @ basis.T
    found = strongest_contrast(network, control)[:, :3]
    # What is left of the error, 10 %, tilts it by a few degrees; with none it would be exact.
    cosines = np.linalg.svd(np.linalg.qr(found)[0].T @ basis[:, :3])[1]
    assert np.degrees(np.arccos(cosines)).max() < 5
    kept = np.square(network @ found).mean() / np.square(control @ found).mean()
    assert 1 - kept == pytest.approx(0.9, abs=0.01)
