r"""Ties, duplicates and queries far from the data, against arithmetic with exact fractions.

At :math:`\|x - x_i\|^2 / 2 \sigma^2 = 10^{14}` float64 holds no ln N, and whether two points are
equally near is a matter of its last bit. The twin here has no bits to lose: squared distances of
floats are fractions, and only their differences, over :math:`2 \sigma^2`, are exponentiated.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.exact import EmpiricalDenoiser, one_pass
from geomem.exact.posterior import Posterior
from geomem.exact.twofold import divide, squared_distances
from tests.references import level, normal

# Logarithms of weights are right to 1e-9 (float64 products of float64 data), and so are weights.
TOLERANCE = 2e-7


def squares(data: Tensor, x: Tensor) -> list[Fraction]:
    q = [Fraction(v) for v in x.tolist()]
    return [
        sum(((Fraction(v) - w) ** 2 for v, w in zip(row, q, strict=True)), Fraction(0))
        for row in data.tolist()
    ]


def twin(data: Tensor, x: Tensor, sigma: float) -> dict[str, Tensor]:
    r"""The posterior at one point ``(d)``, by fractions."""
    known, variance = squares(data, x), 2 * Fraction(sigma) ** 2
    least = min(known)
    excess = [(k - least) / variance for k in known]
    raw = torch.tensor(
        [math.exp(-float(min(e, Fraction(800)))) for e in excess], dtype=torch.float64
    )
    weights = raw / raw.sum()
    return {
        "weights": weights,
        "mean": weights @ data.double(),
        "participation": weights.square().sum(),
        "entropy": -torch.xlogy(weights, weights).sum(),
        "log_partition": raw.sum().log() - float(least / variance),
    }


def check(answer: Posterior, data: Tensor, x: Tensor, sigma: float) -> None:
    for b, q in enumerate(x):
        known = twin(data, q, sigma)
        farthest = math.sqrt(max(squares(data, q)))
        # 32 digits decide down to here; below, an answer may be called undecided.
        if sigma > 1e-11 * farthest:
            assert float(answer.dropped[0, b]) < 1.1e-7
        if not math.isfinite(float(answer.dropped[0, b])):
            continue
        for name, loose in (("participation", 1), ("entropy", 20), ("log_partition", 20)):
            found, tolerance = getattr(answer, name)[0, b].detach(), loose * TOLERANCE
            torch.testing.assert_close(found, known[name], rtol=tolerance, atol=tolerance)
        spread = float((data - data[0]).abs().max()) + 4e-16 * float(data.abs().max())
        tolerance = TOLERANCE * spread + torch.finfo(data.dtype).eps * float(data.abs().max())
        assert float((answer.mean[0, b].double() - known["mean"]).abs().max()) <= tolerance


@st.composite
def lattices(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    r"""Points of a lattice with duplicates, in any order, and queries that tie."""
    seed = draw(st.integers(0, 2**31 - 1))
    n, d = draw(st.sampled_from([1, 2, 5, 40, 300])), draw(st.integers(1, 4))
    rng = torch.Generator().manual_seed(seed)
    width = draw(st.integers(1, 3))
    data = torch.randint(-width, width + 1, (n, d), generator=rng).double()
    scale = 2.0 ** draw(st.integers(-6, 6))
    offset = draw(st.sampled_from([0.0, 1.0, 1000.0, 2.0**20]))
    middle = (data[torch.randint(n, (2,), generator=rng)].sum(0) / 2)[None]
    far = torch.full((1, d), draw(st.sampled_from([11.0, 1e3, 2.0**20])), dtype=torch.float64)
    queries = torch.cat([middle, torch.zeros(1, d).double(), data[:1], far])
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    if dtype == torch.float32:  # exact there, too
        offset, far = min(offset, 1000.0), far.clamp(max=1e3)
    return (scale * (data + offset)).to(dtype), (scale * (queries + offset)).to(dtype)


SIGMAS = st.floats(-10, 2).map(lambda u: 10**u)


@settings(max_examples=80, deadline=None)
@given(lattices(), SIGMAS, st.sampled_from([None, 1, 3, 7, 64, 299]), st.integers(0, 99))
def test_ties_on_a_lattice_however_it_is_cut(
    case: tuple[Tensor, Tensor], sigma: float, chunk: int | None, seed: int
) -> None:
    data, x = case
    if chunk == 1:
        data = data[:40]
    data = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))]
    denoiser = EmpiricalDenoiser(data, chunk)
    check(denoiser.posterior(x, level(sigma)[None]), data, x, sigma)
    check(denoiser.path(x, torch.zeros_like(x), level(sigma)[None]), data, x, sigma)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.floats(-12, 1).map(lambda u: 10**u),
    st.sampled_from([None, 1, 4, 9]),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.sampled_from([1.0, 1e-3, 1e3]),
)
def test_points_that_are_on_no_lattice(
    seed: int, sigma: float, chunk: int | None, offset: float, size: float
) -> None:
    # Coordinates exchanged, and signs: equally far from the centre of the exchange in exact
    # arithmetic, and by a few bits of float64 not.
    a = normal(seed, 4)
    data = torch.stack([a, a.flip(0), -a, a.roll(1), a, a[[1, 0, 3, 2]]])
    data = size * torch.cat([data, normal(seed + 1, 6, 4)]) + offset
    x = torch.cat([torch.full((1, 4), offset).double(), (data[:1] + data[2:3]) / 2, data[3:4] + 50])
    answer = EmpiricalDenoiser(data, chunk).posterior(x, level(sigma)[None])
    check(answer, data, x, sigma)


@given(lattices(), SIGMAS, st.sampled_from([None, 2, 50]))
@settings(max_examples=40, deadline=None)
def test_weights_covariances_and_gradients_see_the_same_ties(
    case: tuple[Tensor, Tensor], sigma: float, chunk: int | None
) -> None:
    data, x = case[0][:40].double(), case[1][:3].double()
    denoiser, d, k = EmpiricalDenoiser(data, chunk), data.shape[1], min(7, len(data))
    logs, s = denoiser.log_weights(x, sigma), level(sigma)
    index, weights = denoiser.weights(x, sigma, k)
    grown = denoiser.posterior(x.clone().requires_grad_(), sigma)
    grown = replace(grown, mean=grown.mean.detach(), dropped=grown.dropped.detach())
    check(grown, data, x, sigma)
    diagonal = denoiser.jacobian_diagonal(x, s, torch.eye(d).double())
    eps = 4e-16 * float(data.abs().max())
    for b, q in enumerate(x):
        known = twin(data, q, sigma)
        torch.testing.assert_close(logs[b].exp(), known["weights"], rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(weights[b], known["weights"][index[b]], rtol=0, atol=TOLERANCE)
        heaviest = known["weights"].sort(descending=True).values[:k]
        torch.testing.assert_close(weights[b], heaviest, rtol=0, atol=TOLERANCE)
        centred = data - known["mean"]
        expected = centred.T @ (known["weights"][:, None] * centred)
        spread = float(centred.abs().max()) + eps
        found = denoiser.covariance(q, s).dense()
        torch.testing.assert_close(found, expected, rtol=0, atol=4 * TOLERANCE * spread**2)
        off = (diagonal[b] * sigma**2 - expected.diagonal()).abs().max()
        assert float(off) <= 4 * TOLERANCE * spread**2 + 8 * spread * eps


def test_a_stream_of_duplicates_is_counted_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    # ln 3000 beside an exponent of 1e16, added up from 300 parts.
    data = torch.tensor([[1.0, -1.0, 1.0]]).double().repeat(3000, 1)
    x = torch.full((1, 3), 140.0).double()
    for nearest in (4, 256):
        monkeypatch.setattr(one_pass, "NEAREST", nearest)
        for chunk in (None, 10, 999):
            answer = EmpiricalDenoiser(data, chunk).posterior(x, [1e-6, 1e-7])
            assert answer.effective_points.flatten().tolist() == pytest.approx([3000, 3000])
            assert answer.entropy.flatten().tolist() == pytest.approx([math.log(3000)] * 2)


def test_parts_merge_by_hand_in_any_order() -> None:
    data, x = torch.tensor([[1.0], [1.0], [1.0], [-1.0], [1.0], [-1.0]]).double(), torch.zeros(1, 1)
    parts = [EmpiricalDenoiser(row[None]).posterior(x, 1e-9) for row in data]
    for order in ([0, 1, 2, 3, 4, 5], [5, 0, 3, 1, 4, 2]):
        whole = parts[order[0]]
        for k in order[1:]:
            whole = whole.merge(parts[k])
        assert float(whole.effective_points) == pytest.approx(6)
        assert float(whole.mean) == pytest.approx(1 / 3)


def test_what_no_digit_decides_is_called_undecided() -> None:
    # Squares of the same numbers in another order: equal, but for the last bits of their sum.
    data = torch.tensor([[0.1, 0.7, 0.2], [0.2, 0.1, 0.7], [0.7, 0.2, 0.1]]).double()
    x = torch.zeros(1, 3).double()
    for chunk in (None, 1):
        denoiser = EmpiricalDenoiser(data, chunk)
        sharp, blunt = (denoiser.posterior(x, s) for s in (1e-11, 1e-25))
        assert float(sharp.effective_points) == pytest.approx(3)
        assert float(sharp.dropped) == 0
        assert float(blunt.dropped) == math.inf


@given(st.integers(0, 2**31 - 1), st.integers(1, 70), st.floats(-8, 8), st.floats(-9, 9))
def test_squared_distances_have_31_digits(seed: int, d: int, size: float, log_by: float) -> None:
    x, y = normal(seed, 3, d), 10**size * normal(seed + 1, 3, d)
    high, low = squared_distances(x, y)
    by = level(10**log_by)
    quotient, rest = divide(high, low, by)
    for p in range(3):
        exact = squares(y[p : p + 1], x[p])[0]
        assert abs(Fraction(high[p].item()) + Fraction(low[p].item()) - exact) <= exact / 2**97
        ratio = Fraction(quotient[p].item()) + Fraction(rest[p].item())
        assert abs(ratio * Fraction(by.item()) - exact) <= exact / 2**96
