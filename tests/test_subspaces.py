r"""Directions: angles against SciPy, bands that add up, retention where it is known."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from torch import Tensor, nn

from geomem.denoiser import Denoiser
from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.subspaces import PrincipalDirections, _band_edges, principal_angles, retention
from tests import references as slow
from tests.references import level, normal, rotation

seeds = st.integers(0, 2**31 - 1)

# ------------------------------------------------------------------------- angles


@given(seeds, st.integers(2, 9), st.integers(1, 9), st.integers(1, 9))
def test_angles_are_those_of_scipy(seed: int, d: int, m: int, k: int) -> None:
    first, second = rotation(seed, d)[:, : min(m, d)], rotation(seed + 1, d)[:, : min(k, d)]
    found = principal_angles(first, second)
    expected = np.sort(subspace_angles(first.numpy(), second.numpy()))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)
    assert torch.equal(found, found.sort().values)


@pytest.mark.parametrize("angle", [1e-12, 1e-8, 1e-3, 0.7, math.pi / 4, 1.0, math.pi / 2])
def test_angles_to_full_precision(angle: float) -> None:
    # The cosine of 1e-8 is 1 in float64: a method by cosines alone says 0, or 1e-8 off.
    Q, c, s = rotation(0, 5), math.cos(angle), math.sin(angle)
    turned = torch.stack([Q[:, 0], c * Q[:, 1] + s * Q[:, 2]], dim=1)
    found = principal_angles(Q[:, :2], turned)
    assert found.tolist() == pytest.approx([0, angle], abs=4e-16 + 1e-15)
    assert float(found[1]) == pytest.approx(angle, rel=1e-3)


def test_angles_of_bases_in_two_dtypes() -> None:
    # A float32 basis is known to 1e-7, whatever the other is.
    Q = rotation(0, 5)
    found = principal_angles(Q[:, :2].float(), Q[:, 1:3])
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([0, math.pi / 2], abs=1e-6)


@pytest.mark.parametrize("side", [0, 1])
def test_angles_of_what_is_no_orthonormal_basis(side: int) -> None:
    # Clamped, the cosines of columns twice as long are 1: an angle of 0 to everything.
    good = torch.eye(4, 2)
    for bad in (2 * good, torch.ones(4, 2) / 2, good * math.nan, good + 1e-3):
        pair = (bad, good) if side == 0 else (good, bad)
        with pytest.raises(InputError, match=r"orthonormal columns; pass torch\.linalg\.qr"):
            principal_angles(*pair)
    with pytest.raises(InputError, match="of 4 and of 3 coordinates"):
        principal_angles(good, torch.eye(3, 2))


# ------------------------------------------------------------- principal directions


def directions(n: int, d: int, singles: int = 3, bands: int = 4) -> PrincipalDirections:
    data = normal(0, n, d) * torch.linspace(2, 0.1, d)
    return PrincipalDirections.of(GaussianDenoiser.fit(data), singles, bands)


CASES = [(40, 12), (6, 12), (3, 12), (40, 3), (2, 5)]


@pytest.mark.parametrize(("n", "d"), CASES)
def test_directions_and_bands_are_the_whole_space(n: int, d: int) -> None:
    known = directions(n, d)
    a, b = normal(1, 5, d), normal(2, 5, d)
    assert sum(known.counts) == d
    assert min(known.counts) >= 1
    assert len(known.counts) == len(known.mean_variances) == known.inner(a, b).shape[1]
    torch.testing.assert_close(known.inner(a, b).sum(1), (a * b).sum(1), rtol=0, atol=1e-10)
    signed = known.signed(a)
    torch.testing.assert_close(signed.square().sum(1), a.square().sum(1), rtol=0, atol=1e-10)
    torch.testing.assert_close(signed.square(), known.inner(a, a), rtol=0, atol=1e-10)
    # Single directions keep their sign: coordinates, not lengths.
    single = a @ known.vectors[:, : known.singles]
    torch.testing.assert_close(signed[:, : known.singles], single, rtol=0, atol=1e-12)
    identity = known.vectors.T @ known.vectors
    torch.testing.assert_close(identity, torch.eye(len(identity)).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("n", "d"), CASES)
def test_variances_fall_and_add_up(n: int, d: int) -> None:
    data = normal(0, n, d) * torch.linspace(2, 0.1, d)
    known = directions(n, d)
    assert all(a >= b - 1e-12 for a, b in pairwise(known.mean_variances))
    total = float(np.dot(known.counts, known.mean_variances))
    # Shrinking towards a multiple of the identity keeps the trace of the covariance.
    assert total == pytest.approx(float(data.var(0, correction=0).sum()), rel=1e-10)


def test_images_are_flattened() -> None:
    data = normal(0, 20, 1, 3, 4)
    known = PrincipalDirections.of(GaussianDenoiser.fit(data), 4)
    torch.testing.assert_close(known.signed(data), known.signed(data.flatten(1)))


@given(st.integers(1, 64), st.integers(0, 3000), st.integers(1, 16))
def test_band_edges(start: int, width: int, bands: int) -> None:
    edges = _band_edges(start, start + width, bands)
    assert (edges[0], edges[-1]) == (start, start + width)
    assert all(a < b for a, b in pairwise(edges))
    assert len(edges) <= bands + 1


@pytest.mark.parametrize(("n", "d"), [(40, 12), (6, 12)])
def test_jacobians_of_exact_denoisers_by_band(n: int, d: int) -> None:
    known, x, sigma = directions(n, d), normal(1, 4, d), level(0.8)
    memory = EmpiricalDenoiser(normal(3, 9, d))
    found = known.jacobian(memory, x, sigma, torch.Generator())
    dense = torch.stack([slow.jacobian(memory, p, sigma) for p in x])
    inside = torch.einsum("dk,bde,ek->bk", known.vectors, dense, known.vectors)
    torch.testing.assert_close(found[:, :3], inside[:, :3], rtol=0, atol=1e-10)
    trace = torch.einsum("bdd->b", dense)
    torch.testing.assert_close(found.sum(1), trace, rtol=0, atol=1e-10)
    for k, (a, b) in enumerate(pairwise(known.edges)):
        expected = inside[:, a:b].sum(1)
        torch.testing.assert_close(found[:, known.singles + k], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("n", "d"), [(40, 12), (6, 12)])
def test_jacobians_of_networks_by_band_are_unbiased(n: int, d: int) -> None:
    # 4,000 random signs at the same point, fixed beforehand; 4 standard errors.
    known, network, sigma = directions(n, d), slow.random_network(0, d), level(0.8)
    x = normal(1, 1, d)
    rng = torch.Generator().manual_seed(0)
    found = known.jacobian(network, x.expand(4000, -1), sigma, rng)
    dense = slow.jacobian(network, x[0], sigma)
    inside = (known.vectors * (dense @ known.vectors)).sum(0)
    torch.testing.assert_close(found[0, :3], inside[:3], rtol=0, atol=1e-10)  # no sampling
    bands = [inside[a:b].sum() for a, b in pairwise(known.edges)]
    if n < d:
        bands.append(dense.trace() - inside.sum())
    stderr = found[:, 3:].std(0) / math.sqrt(4000)
    z = (found[:, 3:].mean(0) - torch.stack(bands)) / stderr.clamp(min=1e-12)
    assert float(z.abs().max()) < 4


# ------------------------------------------------------------------------ retention


def test_retention_of_a_gaussian_is_a_ratio_of_variances() -> None:
    Q = rotation(0, 3)
    model = GaussianDenoiser(torch.zeros(3), Q * torch.tensor([0.5, 0.2, 1e-3]) @ Q.T)
    control = GaussianDenoiser(torch.zeros(3), Q * torch.tensor([1.0, 0.2, 1e-3]) @ Q.T)
    kept = retention(model, control, normal(1, 6, 3), level(0.5), Q)
    assert kept[0] is not None
    assert kept[1] is not None
    assert kept[0].value == pytest.approx((0.5 / 0.75) / (1 / 1.25), abs=1e-12)
    assert kept[1].value == pytest.approx(1, abs=1e-12)
    assert kept[0].stderr < 1e-12
    assert kept[2] is None  # the control keeps .004: a ratio of nothing


def test_retention_of_memory_is_lost_and_its_error_is_honest() -> None:
    # 40 sets of 200 noised points each. A larger memory is the control: both vary from point
    # to point, together, and the error must know that.
    data, sigma = normal(0, 30, 4), level(0.7)
    memory, control = EmpiricalDenoiser(data[:15]), EmpiricalDenoiser(data)
    found = []
    for seed in range(40):
        rows = torch.randint(15, (200,), generator=torch.Generator().manual_seed(seed))
        x = data[rows] + sigma * normal(100 + seed, 200, 4)
        found.append(retention(memory, control, x, sigma, torch.eye(4).double()[:, :1])[0])
    kept = [e for e in found if e is not None]
    assert len(kept) == 40
    values, errors = np.array([e.value for e in kept]), np.array([e.stderr for e in kept])
    assert 0.2 < values.mean() < 0.9
    # A standard deviation of 40 values is known to 11 %; three times that is allowed.
    assert values.std(ddof=1) == pytest.approx(np.sqrt((errors**2).mean()), rel=0.33)


def test_a_denoiser_keeps_all_of_itself() -> None:
    # Its diagonal varies from point to point, the ratio to itself does not.
    memory, x = EmpiricalDenoiser(normal(0, 15, 4)), normal(1, 20, 4)
    for kept in retention(memory, memory, x, level(0.7), torch.eye(4).double()):
        assert kept is not None
        assert kept.value == pytest.approx(1, abs=1e-12)
        assert kept.stderr < 1e-12


def test_directions_must_be_unit_vectors() -> None:
    population = GaussianDenoiser(torch.zeros(2), torch.ones(2))
    with pytest.raises(InputError, match="norm"):
        retention(population, population, normal(0, 3, 2), level(1.0), 2 * torch.eye(2))


class Posterior(GaussianDenoiser):
    r"""An exact denoiser that answers NaN, as one of spoiled data would."""

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        return super().__call__(x, sigma) * math.nan


GOOD = GaussianDenoiser(torch.zeros(2).double(), torch.ones(2).double())
NETWORK = nn.Sequential(nn.Linear(2, 32), nn.Dropout(0.5), nn.Linear(32, 2)).double().train()
UNMEASURABLE: dict[str, tuple[Denoiser, float, str]] = {
    "without gradients": (torch.no_grad()(lambda x, s: torch.tanh(x)), 1.0, "detached"),
    "NaN": (lambda x, s: x * math.nan, 1.0, "NaN"),
    "an exact one's NaN": (Posterior(GOOD.mean, torch.ones(2).double()), 1.0, "NaN"),
    "a negative level": (GOOD, -1.0, "above 0"),
    "dropout": (lambda x, s: NETWORK(x), 1.0, r"NETWORK\.1 \(Dropout"),
    "another shape": (lambda x, s: x[:, :1], 1.0, "one clean point for each"),
}


@pytest.mark.parametrize("case", sorted(UNMEASURABLE))
@pytest.mark.parametrize("as_control", [False, True])
def test_retention_says_what_is_wrong(case: str, as_control: bool) -> None:
    bad, sigma, says = UNMEASURABLE[case]
    denoiser, control = (GOOD, bad) if as_control else (bad, GOOD)
    with pytest.raises(InputError, match=says):
        retention(denoiser, control, normal(0, 3, 2), level(sigma), torch.eye(2))
