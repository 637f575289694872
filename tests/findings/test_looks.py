r"""Looks: what is tested, beside which controls, and that a training may be looked at often."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geomem.findings.looks import ALPHA, Moment, judge, level_of, moment, significant_text
from geomem.information import integrate_log
from geomem.stats import Estimate, Proportion

SIGMAS = np.geomspace(0.1, 3.0, 4)


def errors(
    rng: np.random.Generator, *, gained: float = 0.0, better: float = 0.0, images: int = 24
) -> dict[str, np.ndarray]:
    r"""Errors of a look: better everywhere, and by more at training images."""
    found = {at: 5 + rng.normal(size=(images, 4)) - better for at in ("training", "held_out")}
    found["training"] -= gained
    return found | {"reserved": 5 + rng.normal(size=(8, 4)) / 10 - better}


def test_a_gain_at_training_images_is_found_and_one_at_all_images_is_not() -> None:
    rng = np.random.default_rng(0)
    linear = Moment(errors(rng))
    first = Moment(errors(rng, better=1), 10)
    general = judge([first, Moment(errors(rng, better=2), 20)], linear, SIGMAS)
    assert not general.significant
    memory = judge([first, Moment(errors(rng, better=2, gained=2), 20)], linear, SIGMAS)
    assert memory.significant
    assert memory.p_value == 0.001  # the least that so few permutations give
    for gain in memory.gains.values():  # 2 a level, over ln(30) e-folds
        assert abs(gain.z_score(2 * math.log(30))) < 4
    assert abs(general.gains["earlier"].value) < 4 * general.gains["earlier"].stderr


def test_the_best_earlier_look_is_chosen_at_images_that_are_not_tested() -> None:
    rng = np.random.default_rng(1)
    looks = [Moment(errors(rng, better=b), step) for step, b in ((1, 0), (2, 3), (3, 1), (4, 2))]
    assert judge(looks[:1], looks[0], SIGMAS).earlier is None
    assert judge(looks, looks[0], SIGMAS).earlier == 2
    # Held-out errors decide nothing: whoever is lucky there is not chosen for it.
    looks[0].errors["held_out"] -= 100
    assert judge(looks, looks[1], SIGMAS).earlier == 2


def test_gains_are_differences_of_differences() -> None:
    rng = np.random.default_rng(2)
    linear, first, last = (Moment(errors(rng), step) for step in (None, 1, 2))
    found = judge([first, last], linear, SIGMAS).gains["linear"]
    sides = [
        integrate_log(linear.errors[at] - last.errors[at], SIGMAS, axis=1).mean()
        for at in ("training", "held_out")
    ]
    assert found.value == pytest.approx(sides[0] - sides[1])


def test_a_common_shift_of_noise_drops_out() -> None:
    # Images that are hard for every denoiser are no memory of the others.
    rng = np.random.default_rng(3)
    linear, last = errors(rng), errors(rng)
    hard = 50 * rng.random((24, 1))
    plain = judge([Moment(last, 1)], Moment(linear), SIGMAS)
    linear["held_out"] += hard
    last["held_out"] += hard
    assert judge([Moment(last, 1)], Moment(linear), SIGMAS).p_value == plain.p_value


def test_levels_of_all_looks_add_up_to_alpha() -> None:
    assert sum(level_of(k) for k in range(1, 10_000)) == pytest.approx(ALPHA, rel=1e-3)


def test_looking_often_costs_no_false_alarm() -> None:
    # Trainings of correlated looks that learn without memorizing, eight looks each.
    warned, rng = 0, np.random.default_rng(4)
    for _ in range(60):
        images = {at: rng.normal(size=(16, 4)) for at in ("training", "held_out")}
        linear = Moment({at: 5 + e for at, e in images.items()} | {"reserved": np.ones((4, 4))})
        looks: list[Moment] = []
        for k in range(8):
            now = {at: 5 - k / 8 + e + rng.normal(size=e.shape) / 4 for at, e in images.items()}
            looks.append(Moment(now | {"reserved": 1 - rng.random((4, 4)) - k}, k + 1))
            if judge(looks, linear, SIGMAS).significant:
                warned += 1
                break
    assert Proportion(warned, 60).interval[0] <= ALPHA


def test_images_of_a_group_are_one_unit() -> None:
    squares = {"training": np.arange(8.0).reshape(2, 4)}
    found = moment(squares, {"training": [0, 0, 3, 3, 9]}, 5)
    assert found.errors["training"].tolist() == [[0.5, 4.5], [2.5, 6.5]]


def test_too_few_groups_are_not_tested() -> None:
    rng = np.random.default_rng(5)
    few = Moment(errors(rng, images=6), 1)
    look = judge([few], few, SIGMAS)
    assert math.isnan(look.p_value)
    assert not look.significant


def test_a_significant_look_in_words() -> None:
    gains = {"linear": Estimate(3.4, 1.7), "earlier": Estimate(1.82, 0.49)}
    text = significant_text(252, 0.0004, 0.00167, gains, 168)
    assert "from step 252 on (p = 0.0004, at most 0.0017 allowed" in text
    assert "3.4 ± 1.7 nats beside the linear control, 1.82 ± 0.49 beside step 168" in text
    assert "earlier" not in significant_text(1, 0.01, 0.025, gains, None)
