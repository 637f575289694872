r"""The fast pass against a float64 loop: dense and sparse levels, certified, however split.

Sets of more than ``NEAREST`` points, so that levels are dense, sparse, or both. What float64
itself leaves in an exponent is r = 8 eps max|x - x_i|² / 2 sigma²; weights must be within 1e-6 + r
in total variation and logarithms within 1e-4 + r.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.errors import InputError
from geomem.exact import EmpiricalDenoiser, one_pass, paths
from geomem.exact.blocks import Streamed, open_npy
from geomem.exact.one_pass import NEAREST
from geomem.exact.posterior import Posterior
from geomem.operators import DenoiserJacobian, Factored, Matrix
from geomem.spectra import Dense, Gram
from tests import references as slow
from tests.references import level, normal

EPS = torch.finfo(torch.float64).eps
NAMES = ("log_partition", "mean", "participation", "entropy")


def rounding(data: Tensor, x: Tensor, sigma: float) -> float:
    return 8 * EPS * float((data - x).double().flatten(1).square().sum(1).max()) / (2 * sigma**2)


def agree(one: Posterior, other: Posterior, tolerance: float) -> None:
    for name in NAMES:
        a, b = getattr(one, name).double(), getattr(other, name).double()
        # Logarithms of e^-1e9 are right to eps of themselves.
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------- exactness

N, D = 2 * NEAREST + 88, 12
SETS = {
    "plain": lambda: normal(0, N, D),
    "clustered": lambda: 10 * normal(0, 4, D).repeat(N // 4, 1) + 1e-3 * normal(1, N, D),
    "near duplicates": lambda: normal(0, 1, D) + 1e-9 * normal(1, N, D),
    "duplicates": lambda: normal(0, N // 4, D).repeat(4, 1),
    "offset": lambda: normal(0, N, D) + 1000,
    "constant": lambda: torch.full((N, D), 3.0, dtype=torch.float64),
    "one point": lambda: normal(0, 1, D),
    "one coordinate": lambda: normal(0, N, 1),
    "an outlier": lambda: torch.cat([normal(0, N - 1, D), torch.full((1, D), 1e6).double()]),
}
LEVELS = [1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0, 100.0, 1e6]


def chain(sigma: float) -> tuple[Tensor, Tensor]:
    r"""Points 2 sigma apart, and queries half-way."""
    steps = torch.nn.functional.normalize(normal(1, N, D), dim=1)
    points = normal(0, 1, D) + 2 * sigma * steps.cumsum(0)
    return points, (points[:4] + points[1:5]) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*SETS, "a chain"])
def test_every_set_at_every_level(name: str, dtype: torch.dtype, device: torch.device) -> None:
    for sigma in LEVELS:
        data, x = (t.to(dtype) for t in cases(name, sigma))
        denoiser = EmpiricalDenoiser(data.to(device))
        s = level(sigma).to(device)
        answer = denoiser.posterior(x.to(device), s[None])
        index, weights = denoiser.weights(x.to(device), s, k=len(data))
        for b, q in enumerate(x):
            check_one(data, q, sigma, answer, b)
            known = torch.from_numpy(slow.posterior(data, q, sigma)["weights"])
            difference = weights[b].cpu() - known[index[b].cpu()]
            assert float(difference.abs().sum()) / 2 < 1e-6 + rounding(data, q, sigma)


def cases(name: str, sigma: float) -> tuple[Tensor, Tensor]:
    if name == "a chain":
        return chain(sigma)
    data = SETS[name]()
    noise = normal(7, 1, data.shape[1])
    return data, torch.cat([data[:1] + sigma * noise, (data[:1] + data[-1:]) / 2, data[:1] + 50])


def check_one(
    data: Tensor, q: Tensor, sigma: float, answer: Posterior, b: int, extra: float = 0.0
) -> None:
    known, r = slow.posterior(data, q, sigma), rounding(data, q, sigma) + extra
    for name in NAMES:
        assert bool(torch.isfinite(getattr(answer, name)[0, b]).all()), name
    logarithm = float(known["log_partition"])
    error = abs(float(answer.log_partition[0, b]) - logarithm)
    assert error < 1e-4 + r + 4 * EPS * abs(logarithm)
    assert abs(float(answer.participation[0, b]) - known["participation"]) < 2e-6 + 4 * r
    assert abs(float(answer.entropy[0, b]) - known["entropy"]) < 1e-4 + 20 * r
    # A mean of points: weights that are off by TV move it by twice that times their radius;
    # then it is rounded once.
    radius = float((data - data[0]).double().norm(dim=1).max())
    ulp = torch.finfo(answer.mean.dtype).eps * (float(data.abs().max()) + radius)
    off = float(np.abs(answer.mean[0, b].cpu().double().numpy() - known["mean"]).max())
    assert off <= 2 * (1e-6 + min(r, 1)) * radius + ulp
    assert float(answer.dropped[0, b]) <= 1.001e-7


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from([1, 2, 7, NEAREST, NEAREST + 1, 600]),
    st.integers(1, 8),
    st.floats(-6, 6),
    st.floats(-4, 4),
    st.floats(-3, 3),
    st.booleans(),
)
def test_drawn_sets(
    seed: int, n: int, d: int, log_sigma: float, log_scale: float, log_offset: float, twice: bool
) -> None:
    sigma, size = 10**log_sigma, 10**log_scale
    data = size * normal(seed, n, d) + 10**log_offset
    if twice:
        data = data[: (n + 1) // 2].repeat(2, 1)
    x = torch.cat([data[:1] + sigma * normal(seed + 1, 1, d), (data[:1] + data[-1:]) / 2])
    answer = EmpiricalDenoiser(data).posterior(x, level(sigma)[None])
    for b, q in enumerate(x):
        check_one(data, q, sigma, answer, b)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2, 0.5, 1.5])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-7])
def test_the_certified_bound_holds(sigma: float, tolerance: float) -> None:
    # Large sums need many points: 20,000 in 6 dimensions, of which few are kept.
    data, x = normal(0, 20_000, 6), 0.5 * normal(1, 5, 6)
    denoiser = EmpiricalDenoiser(data, tolerance=tolerance)
    answer = denoiser.posterior(x, level(sigma)[None])
    logits = -(data[None] - x[:, None]).square().sum(2) / (2 * sigma**2)
    lost = (logits.logsumexp(1) - answer.log_partition[0]).expm1()
    assert bool((lost <= answer.dropped[0] + 1e-9).all())
    assert bool((answer.dropped <= tolerance).all())


def test_something_is_dropped_and_the_bound_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass, "_CHEAP", 0)  # else more points are kept than needed
    data, x = normal(0, 20_000, 6), 0.1 * normal(1, 5, 6)
    answer = EmpiricalDenoiser(data, tolerance=1e-2).posterior(x, level(0.1)[None])
    logits = -(data[None] - x[:, None]).square().sum(2) / (2 * 0.1**2)
    lost = (logits.logsumexp(1) - answer.log_partition[0]).expm1()
    assert bool((lost > 0).any())
    assert bool((lost <= answer.dropped[0]).all())
    # A sparse mean is off by the dropped weight at most, times the distance of its points.
    exact = logits.softmax(1) @ data
    farthest = (data[None] - x[:, None]).norm(dim=2).max()
    assert float((answer.mean[0] - exact).norm(dim=1).max()) <= float(
        answer.dropped.max() * farthest
    )


def test_few_points_are_rounded_once() -> None:
    # Where few points weigh, the mean in float32 is the float64 mean, rounded.
    data, x = normal(0, 5000, 30).float(), normal(0, 20, 30).float()
    answer = EmpiricalDenoiser(data).posterior(x, torch.tensor([0.05]))
    for b, q in enumerate(x):
        known = slow.posterior(data, q, float(torch.tensor(0.05)))["mean"]
        assert answer.mean[0, b].tolist() == torch.from_numpy(known).float().tolist()


# ------------------------------------------------------------------- however it is split


def test_levels_of_one_pass_are_those_of_many() -> None:
    data, x, sigmas = normal(0, 3000, 9), normal(1, 7, 9), torch.logspace(-2, 2, 9).double()
    denoiser = EmpiricalDenoiser(data)
    together = denoiser.posterior(x, sigmas)
    for k, sigma in enumerate(sigmas):
        alone = denoiser.posterior(x, sigma[None])
        agree(
            alone,
            Posterior(*(getattr(together, n)[k, None] for n in (*NAMES, "dropped"))),
            1e-9,
        )


@pytest.mark.parametrize("chunk_size", [1, 7, 500, 2999])
def test_the_size_of_blocks_changes_rounding_only(chunk_size: int) -> None:
    data, x, sigmas = normal(0, 3000, 5), normal(1, 3, 5), torch.logspace(-2, 2, 5).double()
    if chunk_size == 1:
        data = data[:300]
    whole = EmpiricalDenoiser(data).posterior(x, sigmas)
    agree(EmpiricalDenoiser(data, chunk_size).posterior(x, sigmas), whole, 1e-7)


def test_queries_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomem.exact import passes

    data, x, sigmas = normal(0, 700, 5), normal(1, 23, 5), torch.logspace(-1, 1, 4).double()
    whole = EmpiricalDenoiser(data).posterior(x, sigmas)
    monkeypatch.setattr(passes, "QUERIES", 4)
    agree(EmpiricalDenoiser(data).posterior(x, sigmas), whole, 1e-9)


def test_scalars_without_means() -> None:
    data, x, sigmas = normal(0, 900, 5), normal(1, 3, 5), torch.logspace(-2, 2, 5).double()
    denoiser = EmpiricalDenoiser(data)
    whole, scalars = (denoiser.posterior(x, sigmas, scalars_only=o) for o in (False, True))
    assert scalars.mean.shape == (5, 3, 0)
    for name in ("log_partition", "participation", "entropy"):
        torch.testing.assert_close(getattr(scalars, name), getattr(whole, name), rtol=1e-12, atol=0)


def test_levels_of_each_query() -> None:
    data, x = normal(0, 900, 5), normal(1, 3, 5)
    sigmas = torch.tensor([[0.01, 0.5, 30.0], [2.0, 0.02, 0.7]]).double()
    denoiser = EmpiricalDenoiser(data)
    together = denoiser.posterior(x, sigmas)
    for b in range(3):
        alone = denoiser.posterior(x[b, None], sigmas[:, b])
        agree(
            alone,
            Posterior(*(getattr(together, n)[:, b, None] for n in (*NAMES, "dropped"))),
            1e-9,
        )


@pytest.mark.parametrize("nearest", [1, 3, 50])
def test_how_many_neighbours_are_looked_for_changes_nothing(
    nearest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, x, sigmas = normal(0, 700, 6), normal(1, 5, 6), torch.logspace(-3, 2, 12).double()
    whole = EmpiricalDenoiser(data).posterior(x, sigmas)
    monkeypatch.setattr(one_pass, "NEAREST", nearest)
    agree(EmpiricalDenoiser(data).posterior(x, sigmas), whole, 1e-7)


def test_gradients_go_through_every_pair() -> None:
    data, x = normal(0, 400, 4), normal(1, 4)
    J = DenoiserJacobian(EmpiricalDenoiser(data), x, level(0.4)).dense()
    expected = slow.weighted_covariance(data, x, 0.4) / 0.4**2
    torch.testing.assert_close(J, expected, rtol=0, atol=1e-9)


# --------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SETS)
def test_paths_are_posteriors_at_their_points(name: str, dtype: torch.dtype) -> None:
    data = SETS[name]().to(dtype)
    sigmas = torch.tensor(LEVELS, dtype=torch.float64)
    y_0 = torch.cat([data[:2], (data[:1] + data[-1:]) / 2])
    z = normal(3, *y_0.shape).to(dtype)
    answer = EmpiricalDenoiser(data).path(y_0, z, sigmas)
    for t, sigma in enumerate(LEVELS):
        x = y_0.double() + sigma * z.double()
        for b, q in enumerate(x):
            row = Posterior(*(getattr(answer, n)[t, None] for n in (*NAMES, "dropped")))
            # The sum y_0 + sigma z is rounded here, and not there.
            far = float((data - q).double().norm(dim=1).max())
            check_one(data, q, sigma, row, b, EPS * float(q.norm()) * far / sigma**2)


def test_paths_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, y_0, z = normal(0, 700, 5), normal(1, 6, 5), normal(2, 6, 5)
    sigmas = torch.logspace(-2, 1, 7).double()
    whole = EmpiricalDenoiser(data).path(y_0, z, sigmas)
    monkeypatch.setattr(paths, "_CACHED", 60)
    agree(EmpiricalDenoiser(data).path(y_0, z, sigmas), whole, 1e-9)
    agree(EmpiricalDenoiser(data, 100).path(y_0, z, sigmas), whole, 1e-9)
    scalars = EmpiricalDenoiser(data).path(y_0, z, sigmas, scalars_only=True)
    assert scalars.mean.shape == (7, 6, 0)


# ----------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SETS)
def test_neighbours_are_the_nearest(name: str, dtype: torch.dtype) -> None:
    data = SETS[name]().to(dtype)
    k = min(20, len(data))
    x = torch.cat([data[:3], data[:3] + 1e-3, data[:1] + 30])
    index, distance = EmpiricalDenoiser(data, 250).neighbours(x, k)
    exact = (data[None].double() - x[:, None].double()).norm(dim=2)
    expected = exact.sort(dim=1).values[:, :k]
    # Two float64 ways to the same difference: eps of the coordinates.
    atol = 8 * EPS * float(data.double().norm(dim=1).max())
    torch.testing.assert_close(distance, expected, rtol=1e-9, atol=atol)
    torch.testing.assert_close(exact.gather(1, index), expected, rtol=1e-9, atol=atol)
    assert all(len(set(row.tolist())) == k for row in index)  # each point once


def test_products_in_float32_would_exchange_neighbours() -> None:
    # Far from the centre float32 products see noise; the answer does not.
    data = (1000 * normal(0, 1, 50) + 1e-2 * normal(1, 400, 50)).double()
    data = torch.cat([data, -data])
    x = data[:9] + 1e-3 * normal(2, 9, 50)
    index, _ = EmpiricalDenoiser(data, dtype=torch.float32).neighbours(x, 5)
    exact = (data[None] - x[:, None]).norm(dim=2).sort(dim=1).indices[:, :5]
    assert index.tolist() == exact.tolist()
    squares = x.float().square().sum(1)[:, None] + data.float().square().sum(1)
    plain = (squares - 2 * x.float() @ data.float().T).topk(5, largest=False).indices
    assert plain.tolist() != exact.tolist()  # the case is hard


def test_equal_distances_keep_the_order_of_the_data() -> None:
    data = normal(0, 5, 6).repeat(80, 1)
    index, _ = EmpiricalDenoiser(data, 150).neighbours(data[:2], 6)
    assert index.tolist() == [[5 * j + b for j in range(6)] for b in range(2)]


# ----------------------------------------------------------------------------- covariance


@pytest.mark.parametrize(("sigma", "kind"), [(0.2, Factored), (3.0, Matrix)])
def test_covariance_on_the_points_that_weigh(sigma: float, kind: type) -> None:
    data, x = normal(0, 900, 40) * torch.linspace(1, 0.1, 40).double(), normal(1, 40) * 0.3
    denoiser = EmpiricalDenoiser(data)
    operator = denoiser.covariance(x, level(sigma))
    assert isinstance(operator, kind)
    expected = slow.weighted_covariance(data, x, sigma)
    scale = float(torch.linalg.eigvalsh(expected)[-1])
    # Points that are left out weigh 1e-7 together, at most a diameter away.
    off = 1e-7 * float(torch.cdist(data, data).max()) ** 2
    assert float((operator.dense() - expected).abs().max()) <= off + 1e-9 * scale
    J = denoiser.jacobian(x, level(sigma))
    torch.testing.assert_close(J.dense() * sigma**2, operator.dense(), rtol=1e-9, atol=1e-12)
    if kind is Factored:
        gram, dense = Gram()(operator).nodes[0], Dense()(operator).nodes[0]
        assert float((gram - dense).abs().max()) < 1e-9 * float(dense[0])


def test_covariance_in_blocks_and_when_condensed() -> None:
    data, x = normal(0, 900, 40), normal(0, 900, 40)[3]
    whole = EmpiricalDenoiser(data).covariance(x, level(1.0)).dense()
    parts = EmpiricalDenoiser(data, 100).covariance(x, level(1.0)).dense()
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)
    condensed = EmpiricalDenoiser(data).jacobian(x, level(1e-3))
    assert isinstance(condensed, Factored)
    assert float(Gram()(condensed).nodes.abs().max()) < 1e-12  # one point: nothing varies


# --------------------------------------------------------- on a disk, and as a stream


def saved(folder: Path, name: str, data: np.ndarray) -> Path:
    path = folder / name
    np.save(path, data)
    return path


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Tensor, list[Path]]:
    data = normal(0, 1000, 3, 2, 2).float()
    parts = data.split([1, 600, 399])
    return data, [saved(tmp_path, f"{k}.npy", p.numpy()) for k, p in enumerate(parts)]


def test_files_and_streams_answer_as_memory_does(shards: tuple[Tensor, list[Path]]) -> None:
    data, files = shards
    x, sigmas = normal(1, 4, 3, 2, 2).float(), torch.logspace(-2, 2, 5)
    whole = EmpiricalDenoiser(data).posterior(x, sigmas)
    stream = Streamed(lambda: iter(data.split(123)), 1000)
    mapped = np.load(files[1], mmap_mode="r")
    for source in (files, open_npy(*files), stream):
        agree(EmpiricalDenoiser(source).posterior(x, sigmas), whole, 1e-6)
        index, _ = EmpiricalDenoiser(source).neighbours(x, 3)
        assert index.tolist() == EmpiricalDenoiser(data).neighbours(x, 3)[0].tolist()
    alone = EmpiricalDenoiser(data[1:601]).posterior(x, sigmas)
    agree(EmpiricalDenoiser(mapped).posterior(x, sigmas), alone, 1e-6)


def test_bytes_are_points_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 4, 4), dtype=np.uint8)
    x, sigmas = torch.from_numpy(images[:3]).float() + 1, torch.tensor([0.5, 30.0])
    whole = EmpiricalDenoiser(torch.from_numpy(images).float()).posterior(x, sigmas)
    path = saved(tmp_path, "u8.npy", images)
    agree(EmpiricalDenoiser(open_npy(path)).posterior(x, sigmas), whole, 1e-6)
    with pytest.raises(InputError, match="load_data"):  # which gives them from -1 to 1
        EmpiricalDenoiser(path)


def test_reading_never_writes(shards: tuple[Tensor, list[Path]]) -> None:
    _, files = shards
    before = [f.read_bytes() for f in files]
    EmpiricalDenoiser(files).posterior(normal(1, 2, 3, 2, 2), torch.tensor([1.0]))
    assert [f.read_bytes() for f in files] == before


# ------------------------------------------------------------------------------ bad input


def truncated(folder: Path) -> Path:
    path = saved(folder, "short.npy", np.zeros((100, 5), dtype=np.float32))
    path.write_bytes(path.read_bytes()[:-7])
    return path


def pickled(folder: Path) -> Path:
    path = folder / "pickle.npy"
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    return path


BAD_FILES = {
    "missing": (lambda f: [f / "no.npy"], "not there"),
    "truncated": (lambda f: [truncated(f)], "truncated"),
    "pickled": (lambda f: [pickled(f)], "whole .npy array"),
    "text": (lambda f: [saved(f, "t.npy", np.array([["a"]]))], "plain numbers"),
    "no points": (lambda f: [saved(f, "e.npy", np.zeros((0, 3)))], "empty"),
    "one number": (lambda f: [saved(f, "s.npy", np.zeros(3))], "shape"),
    "no file": (lambda f: [], "no file"),
    "shards of different d": (
        lambda f: [saved(f, "a.npy", np.zeros((2, 3))), saved(f, "b.npy", np.zeros((2, 4)))],
        "must be alike",
    ),
    "columns first": (
        lambda f: [saved(f, "f.npy", np.asfortranarray(np.zeros((3, 4))))],
        "C order",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(name: str, tmp_path: Path) -> None:
    make, says = BAD_FILES[name]
    with pytest.raises(InputError, match=says) as raised:
        EmpiricalDenoiser(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_nan_in_a_file_is_found_when_it_is_read(tmp_path: Path) -> None:
    data = np.zeros((50, 3))
    data[20, 1] = math.nan
    denoiser = EmpiricalDenoiser([saved(tmp_path, "nan.npy", data)], chunk_size=10)
    with pytest.raises(InputError, match="NaN"):
        denoiser.posterior(torch.zeros(1, 3), torch.tensor([1.0]))


def test_streams_that_lie_are_named() -> None:
    x, sigmas = torch.zeros(1, 3), torch.tensor([1.0])
    empty = Streamed(lambda: iter(()), 3)
    with pytest.raises(InputError, match="empty"):
        EmpiricalDenoiser(empty)
    once = iter(torch.zeros(4, 3).split(2))
    with pytest.raises(InputError, match=r"starts anew|empty"):
        EmpiricalDenoiser(Streamed(lambda: once, 4)).posterior(x, sigmas)
    mixed = Streamed(lambda: iter([torch.zeros(2, 3), torch.zeros(2, 4)]), 4)
    with pytest.raises(InputError, match="alike"):
        EmpiricalDenoiser(mixed).posterior(x, sigmas)
    with pytest.raises(InputError, match="announced"):
        EmpiricalDenoiser(Streamed(lambda: iter([torch.zeros(2, 3)]), 4)).posterior(x, sigmas)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1e-3, math.nan])
def test_a_tolerance_is_a_share(tolerance: float) -> None:
    with pytest.raises(InputError, match=r"`tolerance` is .*above 0 below 1"):
        EmpiricalDenoiser(torch.zeros(2, 2), tolerance=tolerance)


# ---------------------------------------------------------------------------------- cost


def test_what_does_not_fit_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomem.compute import memory

    monkeypatch.setattr(memory, "available_memory", lambda: 2.0**20)
    with pytest.raises(InputError, match="fewer queries"):
        EmpiricalDenoiser(normal(0, 900, 5)).posterior(normal(1, 3, 5), torch.tensor([1.0]))


def test_long_work_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from geomem.exact import cost

    data, x = normal(0, 900, 5), normal(1, 3, 5)
    EmpiricalDenoiser(data).posterior(x, torch.tensor([1.0]))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(cost, "LONG", 0.0)
    EmpiricalDenoiser(data).posterior(x, torch.tensor([1.0]))
    said = capsys.readouterr().err
    assert re.search(r"exact posterior: about .* of memory", said)
    assert "done in" in said


def test_memory_is_forecast_from_sizes() -> None:
    x, sigmas = torch.zeros(32, 20), torch.ones(5)
    small = EmpiricalDenoiser(torch.zeros(1000, 20)).forecast(x, sigmas).num_bytes
    large = EmpiricalDenoiser(torch.zeros(9000, 20)).forecast(x, sigmas).num_bytes
    assert large - small == 4 * 32 * 8000  # the distances, in float32
