"""The paper's formulas, and the literal values that its figures rest on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomem.errors import InputError
from geomem.theory import condensation as paper

FIGURE = [1.0, 1.0] + [0.09] * 5  # d = 30, the rest 0
sizes = st.floats(2, 1e9)
spectra = st.lists(st.floats(0.01, 3), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("size", "high", "low"),
    [(250, 0.0906, 0.00815), (1000, 0.0724, 0.00651), (20_000, 0.0505, 0.00454),
     (10**6, 0.0362, 0.00326)],
)  # fmt: skip
def test_literal_levels(size, high, low):
    t = paper.t_star([1.0, 0.09], size, gaussian=False)
    assert t == pytest.approx([high, low], abs=6e-5)  # half of their last digit
    assert t[1] == pytest.approx(low, abs=6e-6)


@given(spectra, sizes, st.booleans())
def test_t_star_solves_its_equation(variances, size, gaussian):
    t = paper.t_star(variances, size, gaussian=gaussian)
    own = [
        paper.condensation_level(level**0.5 * np.eye(len(t))[j], variances, size, gaussian=gaussian)
        for j, level in enumerate(t)
    ]
    np.testing.assert_allclose(own, t, rtol=1e-9)


@given(spectra, sizes, st.booleans())
def test_n_star_inverts_t_star(variances, size, gaussian):
    t = paper.t_star(variances, size, gaussian=gaussian)
    back = [paper.log_n_star(level, variances, gaussian=gaussian)[j] for j, level in enumerate(t)]
    np.testing.assert_allclose(back, np.log(size), rtol=1e-9)


@given(spectra, sizes, st.booleans())
def test_higher_variance_condenses_first(variances, size, gaussian):
    v = np.sort(variances)
    assert (np.diff(paper.t_star(v, size, gaussian=gaussian)) >= 0).all()


def test_displacement_is_the_directional_level():
    x = np.array([0.0, np.sqrt(0.05)])
    at_x = paper.condensation_level(x, [1.0, 0.09], 1000)
    # A + t v_j = 1/2 (1 + .09²) + .05 * .09
    assert at_x == pytest.approx(math.sqrt((0.50405 + 0.0045) / (2 * math.log(1000))))


def drops(form, size, levels):
    spectra = [paper.smoothed_spectrum(FIGURE, 30, t, size, form=form) for t in levels]
    return [s.drop() for s in spectra], spectra


@pytest.mark.parametrize("size", [250, 1000, 20_000, 10**6])
def test_ranks_23_then_25_then_none(size):
    high, low = paper.t_star([1.0, 0.09], size, gaussian=False)
    levels = [0.1099, 0.1095, 1.01 * high, 0.99 * high, 1.01 * low, 0.99 * low]
    ranks, spectra = drops("as plotted", size, levels)
    assert ranks == [28, 23, 23, 25, 25, None]
    assert not spectra[2].lost.any()
    assert spectra[3].lost[:2].all()
    assert not spectra[3].lost[2:].any()
    assert spectra[5].lost[:7].all()


@pytest.mark.parametrize(
    ("size", "level"), [(250, 0.0716), (1000, 0.0588), (20_000, 0.0426), (10**6, 0.0313)]
)
def test_consistent_form_moves_the_drop_later(size, level):
    ranks, _ = drops("consistent", size, [1.003 * level, 0.997 * level])
    assert ranks == [23, 25]


@pytest.mark.parametrize(("form", "off"), [("as plotted", 1.2e-3), ("consistent", 4e-3)])
def test_loss_is_at_t_star(form, off):
    for size in (250, 1000, 20_000, 10**6):
        high = paper.t_star([1.0], size, gaussian=False)[0]
        above, below = (
            paper.smoothed_spectrum(FIGURE, 30, t, size, form=form).lost[0]
            for t in (high, (1 - off) * high)
        )
        assert not above
        assert below


def test_lost_directions_jump_to_the_first_ranks():
    high, low = paper.t_star([1.0, 0.09], 1000, gaussian=False)
    after_one = paper.smoothed_spectrum(FIGURE, 30, 0.9 * high, 1000, form="as plotted")
    assert after_one.drop(None) == 2
    values = paper.smoothed_spectrum(FIGURE, 30, 0.5 * low, 1000, form="as plotted")
    assert (values.singular_values[:7] > 1 / (0.5 * low)).all()


def test_how_far_off_the_random_energy_model_is():
    """x = 0, N = 1000, t = .05: 1.2 effective points by the model, about 25 exactly."""
    from geomem.theory.finite_size import predict
    from geomem.theory.priors import Gaussian

    t_c = paper.condensation_level(np.zeros(7), FIGURE, 1000)
    model = 1 / (1 - 0.05 / t_c)
    exact = predict(Gaussian(FIGURE), np.zeros(7), 0.05**0.5, 1000)
    assert model == pytest.approx(1.2, abs=0.05)
    assert exact.participation == pytest.approx(0.039, abs=0.001)


@pytest.mark.parametrize(
    "call",
    [
        lambda: paper.t_star([1.0], 1, gaussian=True),
        lambda: paper.t_star([-1.0], 10, gaussian=True),
        lambda: paper.log_n_star(0.0, [1.0], gaussian=True),
        lambda: paper.condensation_level([0.0], [1.0, 1.0], 10),
        lambda: paper.condensation_level([np.nan], [1.0], 10),
        lambda: paper.smoothed_spectrum([1.0, 1.0], 1, 0.1, 10, form="consistent"),
        lambda: paper.smoothed_spectrum([1.0], 10**13, 0.1, 10, form="consistent"),
        lambda: paper.smoothed_spectrum([1.0], 5, 0.1, 10, form="other"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call):
    with pytest.raises(InputError, match="`"):
        call()
