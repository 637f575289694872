r"""Published local dimensions, where they are right and where they are known to fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.dimension import DimensionMethod, NoGap, SoftCount, place_of
from geomem.dimension.differences import OrthogonalDifferences
from geomem.dimension.scores import (
    FLIPD,
    PAPER_SPIKES,
    FilteredTrace,
    NormalBundle,
    SpikeRule,
)
from geomem.errors import InputError
from geomem.manifolds import LinearManifold
from geomem.spectra import Dense, LanczosQuadrature
from geomem.stats import Estimate
from tests.references import estimate, level, normal, rotation

D, M = 30, 7
FRAME = rotation(0, D)
PLANE = LinearManifold(torch.ones(M), D, FRAME[:, :M])
DENOISER = PLANE.population_denoiser()
CLEAN = PLANE.sample(1, torch.Generator().manual_seed(0))[0]
SIGMA = 0.01


def noisy(seed: int, sigma: float = SIGMA) -> Tensor:
    return CLEAN + sigma * normal(seed, D)


# ------------------------------------------------------------------------------------ FLIPD


def test_flipd_at_a_clean_point_and_at_a_noisy_one() -> None:
    # theory.md: 7.000 at the clean point; at noisy ones 30.0, which is d whatever the data are.
    clean = estimate(FLIPD()(DENOISER, CLEAN, level(SIGMA)))
    assert clean.stderr == 0
    assert clean.value == pytest.approx(7.000, abs=2e-3)  # sigma² (|x_0|² - m) is 1e-3
    wrong = np.mean([FLIPD().at_point(DENOISER, noisy(s), level(SIGMA)).value for s in range(400)])
    # chi-squared with 23 degrees: sd 6.8, over 400 points .34; four of these.
    assert wrong == pytest.approx(30.0, abs=1.4)
    right = estimate(SoftCount()(DENOISER, noisy(0), level(SIGMA))).value
    assert right == pytest.approx(7.0, abs=2e-3)


def test_flipd_is_its_definition() -> None:
    # d + sigma² (div s + |s|²), the divergence by explicit differences in float64.
    sigma, h, x = 0.5, 1e-5, normal(3, D)

    def s(y: Tensor) -> Tensor:
        return (DENOISER(y[None], level(sigma))[0] - y) / sigma**2

    steps = h * torch.eye(D).double()
    divergence = sum(float((s(x + e) - s(x - e)) @ e) / (2 * h * h) for e in steps)
    expected = D + sigma**2 * (divergence + float(s(x) @ s(x)))
    assert FLIPD().at_point(DENOISER, x, level(sigma)).value == pytest.approx(expected, abs=1e-6)
    answer = FLIPD()(DENOISER, x, level(sigma))  # beside the plane it is no dimension
    assert isinstance(answer, NoGap)
    assert f"the estimate is {expected:.6g} ± 0, and 30 coordinates have" in answer.reason


@pytest.mark.parametrize("aligned", [True, False])
def test_signs_are_better_probes_than_gaussians(aligned: bool) -> None:
    # Variance of one probe: 2 (tr A² - sum A_ii²) for signs, 2 tr A² for Gaussians. On a plane
    # along the axes signs have none; turned at random, sqrt(1 - m/d) of the Gaussian one's.
    frame = torch.eye(D).double() if aligned else FRAME
    manifold = LinearManifold(torch.ones(M), D, frame[:, :M])
    denoiser, x = manifold.population_denoiser(), frame[:, 0] * 0
    A = frame[:, :M] @ frame[:, :M].T
    signs, gauss = (
        estimate(FLIPD(probes=2000, kind=kind)(denoiser, x, level(SIGMA)))
        for kind in ("rademacher", "gaussian")
    )
    expected = 2 * float(A.square().sum() - A.diagonal().square().sum())
    # A standard deviation of 2000 draws with heavy tails is known to a few percent.
    assert signs.stderr * math.sqrt(2000) == pytest.approx(math.sqrt(max(0, expected)), rel=0.1)
    assert gauss.stderr * math.sqrt(2000) == pytest.approx(math.sqrt(2 * M), rel=0.1)
    assert abs(gauss.z_score(7.0)) < 4
    assert abs(signs.value - 7.0) <= 4 * signs.stderr + 2e-3


def test_flipd_of_probes_is_unbiased() -> None:
    z = [
        estimate(FLIPD(probes=16, seed=s)(DENOISER, CLEAN, level(SIGMA))).z_score(7.0)
        for s in range(200)
    ]
    assert abs(np.mean(z)) < 4 / math.sqrt(200)
    assert 0.8 < np.std(z) < 1.35  # Student with 15 degrees: 1.07
    assert math.isnan(estimate(FLIPD(probes=1)(DENOISER, CLEAN, level(SIGMA))).stderr)


# ---------------------------------------------------------------------------- normal bundle


@pytest.mark.parametrize("noise", ["orthogonal", "gaussian"])
def test_a_centred_normal_bundle_is_right(noise: str) -> None:
    x_0 = CLEAN + 0.02 * FRAME[:, 20]  # a little off the plane: the scores have an offset
    found = [
        NormalBundle(noise=noise, seed=s)(DENOISER, x_0, level(SIGMA))  # type: ignore[arg-type]
        for s in range(20)
    ]
    assert all(f == Estimate(7.0) for f in found)


def test_without_centring_the_answer_is_d_minus_one() -> None:
    # Unit steps and an offset: it is the one leading value, and the largest drop is behind it.
    x_0 = CLEAN + 0.2 * FRAME[:, 20]
    wrong = NormalBundle(centred=False, unit_steps=True)(DENOISER, x_0, level(SIGMA))
    assert wrong == Estimate(29.0)
    right = NormalBundle(unit_steps=True)(DENOISER, x_0, level(SIGMA))
    assert right == Estimate(7.0)


def test_gaussian_draws_must_be_twice_as_many_as_dimensions() -> None:
    right = {
        k: np.mean(
            [
                NormalBundle(noise="gaussian", draws=k, seed=s)(DENOISER, CLEAN, level(0.05))
                == Estimate(7.0)
                for s in range(100)
            ]
        )
        for k in (30, 60, 120)
    }
    assert right[30] < 0.9  # theory.md: 65 %
    assert right[60] == right[120] == 1


def test_few_draws_cannot_span_the_normal_space() -> None:
    found = NormalBundle(draws=10)(DENOISER, CLEAN, level(SIGMA))
    assert isinstance(found, NoGap) or found.value >= D - 10


def test_a_normal_bundle_without_normals() -> None:
    white = NormalBundle()(lambda x, sigma: 0.5 * x, CLEAN, level(0.1))
    assert isinstance(white, NoGap)
    assert "no drop" in white.reason


# ---------------------------------------------------------------------------- the spike rule


@pytest.mark.parametrize("symmetrised", [True, False])
def test_the_spike_of_a_noisy_plane(symmetrised: bool) -> None:
    # A network's eigenvalues are not exact; the spike stands out of their noise.
    A = FRAME[:, :M] @ FRAME[:, :M].T + 0.003 * normal(1, D, D)
    method = SpikeRule(differences=OrthogonalDifferences(symmetrised=symmetrised))
    # Off the plane the offset leads, as on images, and mixes with one normal direction.
    found = method(lambda x, sigma: x @ A.T, CLEAN + FRAME[:, 20], level(0.1))
    assert isinstance(found, Estimate)
    assert found.value in ((7,) if symmetrised else (7, 8))


def test_the_rule_by_hand() -> None:
    s = torch.tensor([90.0, 10.2, 10.1, 10.0, 9.8, 2.0, 1.9, 1.7, 1.6, 1.4]).double()
    rule = SpikeRule(drop=1)
    # Without the first: bends .0, .1, 7.6, -7.7, .1, -.1, .1; the spike is behind four values, and
    # the first one counts.
    assert rule.of(s, 10) == Estimate(5.0)
    assert SpikeRule().of(s, 10) == Estimate(5.0)  # 90 is more than twice the next
    assert SpikeRule(drop=0).of(s[1:], 10) == Estimate(6.0)
    few = SpikeRule(drop=1, skipped=20).of(s, 10)
    assert isinstance(few, NoGap)
    assert "too few" in few.reason
    assert isinstance(SpikeRule(spike=200.0, drop=1).of(s, 10), NoGap)


def test_what_is_skipped_has_no_spike() -> None:
    s = torch.cat([torch.linspace(50, 49, 5), torch.linspace(20, 19, 5), torch.linspace(2, 1, 10)])
    s = s.double() + 1e-3 * normal(0, 20)
    assert SpikeRule(drop=0).of(s, 20) == Estimate(15.0)  # the larger drop
    assert SpikeRule(drop=0, skipped=7).of(s, 20) == Estimate(10.0)


def test_the_papers_constants() -> None:
    assert PAPER_SPIKES["cifar10"] == (1000, 10.0)
    assert PAPER_SPIKES["lsun-church-64"] == (2000, 20.0)
    rule = SpikeRule.of_paper("celeba-hq-64")
    assert (rule.skipped, rule.spike, rule.drop) == (1500, 10.0, 1)
    with pytest.raises(InputError, match="fashion-mnist"):
        SpikeRule.of_paper("imagenet")


# --------------------------------------------------------------------------- filtered trace


def test_the_filter_is_cut_in_the_widest_void() -> None:
    values = torch.cat([torch.linspace(0.8, 1, 7), torch.linspace(0, 0.1, 23)]).double()
    denoiser = lambda x, sigma: (x @ FRAME * values) @ FRAME.T  # noqa: E731
    for spectrum in (Dense(), LanczosQuadrature(depth=20, probes=64)):
        found = FilteredTrace(spectrum=spectrum)(denoiser, CLEAN, level(0.1))
        assert isinstance(found, Estimate)
        assert abs(found.value - 7) <= 4 * found.stderr + 1e-3


def test_a_fixed_cut_adds_up_the_tails_of_lost_directions() -> None:
    # 1000 directions at .3: a cut at 1/2 in 1 - lambda = .7 counts 1000 (.7/.5)^-8 = 63 of them.
    values = torch.cat([torch.ones(5), torch.full((1000,), 0.3)]).double()
    denoiser = lambda x, sigma: x * values  # noqa: E731
    x = torch.zeros(1005).double()
    quadrature = LanczosQuadrature(depth=4, probes=4)
    fixed = FilteredTrace(order=8, cut=0.5, spectrum=quadrature)(denoiser, x, level(0.1))
    chosen = FilteredTrace(order=32, spectrum=quadrature)(denoiser, x, level(0.1))
    assert isinstance(fixed, Estimate)
    assert isinstance(chosen, Estimate)
    assert fixed.value == pytest.approx(5 + 1000 / (1 + 1.4**8), rel=1e-3)
    assert chosen.value == pytest.approx(5, abs=0.1)


def test_a_spectrum_without_a_void_is_not_cut() -> None:
    values = torch.linspace(0, 1, D).double()
    found = FilteredTrace(spectrum=Dense())(lambda x, sigma: x * values, CLEAN, level(0.1))
    assert isinstance(found, NoGap)
    assert "without eigenvalues" in found.reason


# -------------------------------------------------------------------------------- bad input

METHODS: list[DimensionMethod] = [FLIPD(), NormalBundle(), SpikeRule(), FilteredTrace()]


def test_where_they_are_called() -> None:
    assert [place_of(m) for m in METHODS] == ["clean", "clean", "clean", "noisy"]


@pytest.mark.parametrize("method", METHODS)
def test_bad_input(method: DimensionMethod) -> None:
    with pytest.raises(InputError, match="above 0"):
        method(DENOISER, CLEAN, level(-0.1))
    with pytest.raises(InputError, match="NaN"):
        method(DENOISER, CLEAN * math.nan, level(0.1))
    with pytest.raises(InputError, match="NaN"):
        method(lambda x, sigma: x * math.nan, CLEAN, level(0.1))
    with pytest.raises(InputError, match="shape"):
        method(lambda x, sigma: x[:, :2], CLEAN, level(0.1))


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension(method: DimensionMethod) -> None:
    found = method(lambda x, sigma: 0.999 * x, torch.zeros(1).double(), level(0.1))
    assert isinstance(found, NoGap) or abs(found.value - 1) < 0.01


@pytest.mark.filterwarnings("ignore:the denoiser gives the same answer")
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_denoiser(method: DimensionMethod) -> None:
    found = method(lambda x, sigma: torch.zeros_like(x), torch.zeros(9).double(), level(0.1))
    assert isinstance(found, NoGap) or found.value == 0


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="`probes` is 0; pass a whole number from 1"):
        FLIPD(probes=0)
    with pytest.raises(InputError, match="rademacher"):
        FLIPD(kind="uniform")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`draws` is 1; pass a whole number from 3"):
        NormalBundle(draws=1)
    with pytest.raises(InputError, match="orthogonal"):
        NormalBundle(noise="signs")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"`cut` is 2\.0; pass a finite number above 0 below 1"):
        FilteredTrace(cut=2.0)
