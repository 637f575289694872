r"""What noise does to spectra: the p-values of gaps are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geomem.dimension.gaps import (
    LARGEST_KEPT,
    condensation_p_value,
    gap_p_value,
    hard_edge_p_value,
    likeness_p_value,
    spacing_p_value,
    together,
)


def test_the_p_value_of_the_largest_spacing() -> None:
    # 20,000 draws of n uniform spacings: a p-value below a happens a of the time (5 errors).
    rng = np.random.default_rng(0)
    for n in (2, 5, 20, 100):
        spacings = rng.exponential(size=(20_000, n))
        shares = (spacings / spacings.sum(1, keepdims=True)).max(1)
        for alpha in (0.01, 0.1, 0.5):
            threshold = float(np.quantile(shares, 1 - alpha))
            stderr = math.sqrt(alpha * (1 - alpha) / 20_000)
            assert abs(spacing_p_value(threshold, n) - alpha) < 5 * stderr
    assert spacing_p_value(0.5, 1) == 1
    assert spacing_p_value(0.999, 300) < 1e-12


@pytest.mark.parametrize("d", [16, 32])
def test_the_hard_edge_covers_square_wishart_spectra(d: int) -> None:
    # Real square Wishart spectra by singular values, 3,000 of them. A gap after the j-th smallest
    # reaches a p-value a in its part 6/(pi j)² of a, at most, plus four errors.
    rng = np.random.default_rng(1)
    values = np.linalg.svd(rng.normal(size=(3000, d, d)), compute_uv=False) ** 2
    gaps = np.diff(np.log(values[:, ::-1]), axis=1)
    for lost in range(1, 5):
        p = np.array([hard_edge_p_value(g, lost) for g in gaps[:, lost - 1]])
        for alpha in (0.02, 0.1):
            part = 6 * alpha / (math.pi * lost) ** 2
            assert (p < alpha).mean() <= part + 4 * math.sqrt(part / 3000)
        if lost == 1:  # and it is no mere bound: half of the level at least is used
            assert (p < 0.1).mean() > 0.03


def test_the_hard_edge_is_scanned_over_all_positions() -> None:
    rng = np.random.default_rng(2)
    values = np.linalg.svd(rng.normal(size=(1500, 16, 16)), compute_uv=False) ** 2
    gaps = np.diff(np.log(values[:, ::-1]), axis=1)
    found = [min(hard_edge_p_value(g, j + 1) for j, g in enumerate(row)) for row in gaps]
    assert (np.array(found) < 0.05).mean() <= 0.05 + 4 * math.sqrt(0.05 / 1500)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_condensation_is_the_random_energy_model(temperature: float) -> None:
    # The model itself: energies of a Poisson process of exponentially growing density, that is
    # weights (arrival times)^(-1/x). 20,000 draws; the p-value is exact: uniform.
    rng = np.random.default_rng(3)
    arrivals = rng.exponential(size=(20_000, 6)).cumsum(1)
    log_weights = -np.log(arrivals) / temperature
    for kept in range(1, 6):
        gaps = log_weights[:, kept - 1] - log_weights[:, kept]
        p = np.array([condensation_p_value(g, kept, temperature) for g in gaps])
        for alpha in (0.01, 0.1, 0.5):
            assert abs((p < alpha).mean() - alpha) < 5 * math.sqrt(alpha * (1 - alpha) / 20_000)


def test_p_values_together_are_a_p_value() -> None:
    rng = np.random.default_rng(4)
    p = np.array([together(*pair) for pair in rng.uniform(size=(20_000, 2))])
    for alpha in (0.01, 0.1, 0.5):
        assert abs((p < alpha).mean() - alpha) < 5 * math.sqrt(alpha * (1 - alpha) / 20_000)


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_likeness_covers_what_is_thrown_into_the_band(kept: int) -> None:
    rng = np.random.default_rng(5)
    draws = np.exp(rng.uniform(math.log(0.5), math.log(LARGEST_KEPT), size=(20_000, kept)))
    p = np.array([likeness_p_value(row) for row in draws.tolist()])
    for alpha in (0.001, 0.01, 0.1):
        error = math.sqrt(alpha / 20_000)
        assert (p < alpha).mean() < alpha + 5 * error
        if alpha ** (1 / kept) < 0.7:  # below the band's upper end it is exact
            assert (p < alpha).mean() > alpha - 5 * error
    assert likeness_p_value([1.0, 1.0]) == 0
    assert likeness_p_value([0.5, 1.0]) == 1


def white_noise_spectra(d: int, N: int, sigma: float, draws: int) -> np.ndarray:
    r"""Of the exact denoiser's Jacobian at noised points of white noise, largest first."""
    rng, rows = np.random.default_rng([d, N]), []
    for _ in range(draws):
        y = rng.normal(size=(N, d))
        x = y[0] + sigma * rng.normal(size=d)
        log_w = -((x - y) ** 2).sum(1) / (2 * sigma**2)
        w = np.exp(log_w - log_w.max())
        w /= w.sum()
        centred = y - w @ y
        rows.append(np.linalg.eigvalsh((centred * w[:, None]).T @ centred)[::-1] / sigma**2)
    return np.array(rows)


def named(values: np.ndarray, likeness: bool) -> bool:
    # What LocalDimension asks of a spectrum.
    kept, d = int((values > 0.5).sum()), len(values)
    if values[0] > LARGEST_KEPT or not 0 < kept < d:
        return False
    ratio = math.log(values[kept - 1] / max(values[kept], 1e-12))
    alike = values[:kept].tolist() if likeness else None
    return ratio >= math.log(2) and gap_p_value(ratio, kept, d - kept, 0.7, values=alike) <= 0.01


@pytest.mark.parametrize(
    ("d", "N", "sigma", "most"),
    [
        (2, 31, 0.1, 0.028),
        (3, 200, 0.1, 0.028),
        (5, 60, 0.3, 0.014),
        (6, 31, 0.4, 0.014),
        (10, 31, 0.45, 0.012),
        (30, 31, 1.1, 0.005),
        (30, 300, 1.5, 0.005),
    ],
)
def test_white_noise_is_named_as_rarely_as_we_say(
    d: int, N: int, sigma: float, most: float
) -> None:
    draws = 4000 if N < 100 else 1500
    spectra = white_noise_spectra(d, N, sigma, draws)
    rate = np.mean([named(values, likeness=True) for values in spectra])
    assert rate < most + 3 * math.sqrt(most / draws)


def test_near_projectors_need_a_narrower_gap_than_chance_would() -> None:
    # Two of thirty kept by a network, the others at a tenth: evidence by likeness alone.
    network = np.array([1.04, 0.98, 0.1, *np.linspace(0.09, -0.08, 27)])
    assert named(network, likeness=True)
    assert not named(network, likeness=False)
    spread = np.array([1.3, 0.7, 0.1, *np.linspace(0.09, -0.08, 27)])
    assert not named(spread, likeness=True)


def test_a_gap_must_beat_both() -> None:
    wide = math.log(100.0)
    assert gap_p_value(wide, 1, 20) == pytest.approx(0.01)  # one kept: condensation
    assert gap_p_value(wide, 20, 1) == hard_edge_p_value(wide, 1) > 0.1  # one lost: the edge
    assert gap_p_value(wide, 10, 10) < 1e-15
    assert gap_p_value(0.0, 3, 3) == 1
    assert gap_p_value(-1.0, 3, 3) == 1


def test_wider_gaps_and_more_on_a_side_mean_more() -> None:
    widths = [gap_p_value(w, 3, 3) for w in np.linspace(0.5, 5, 10)]
    assert widths == sorted(widths, reverse=True)
    sides = [gap_p_value(2.0, n, n) for n in range(1, 8)]
    assert sides == sorted(sides, reverse=True)
