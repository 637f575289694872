"""A data set as the prior, against subsets that are drawn."""

import numpy as np
import pytest

from geomem.errors import InputError
from geomem.theory.averages import Effort, planted_average
from geomem.theory.data_prior import data_prior
from geomem.theory.phase import phase_diagram_of_data
from geomem.theory.priors import Gaussian

RNG = np.random.default_rng(0)
M, D = 500, 8
DATA = RNG.normal(size=(M, D)) * np.array([1, 1, 0.5, 0.5, 0.3, 0.3, 0.1, 0])
AXES = np.linalg.qr(RNG.normal(size=(D, D)))[0][:3]
NOISE = RNG.normal(size=(2, D))


def subsets(source, z, sigma, size, count, rng):
    """Kept by axis, dimension and participation of drawn subsets that hold the source."""
    x, rows = DATA[source] + sigma * z, []
    others = np.delete(np.arange(M), source)
    for _ in range(count):
        points = DATA[np.append(rng.choice(others, size - 1, replace=False), source)]
        energy = ((points - x) ** 2).sum(1) / (2 * sigma**2)
        w = np.exp(energy.min() - energy)
        w /= w.sum()
        centred = points - w @ points
        kept = w @ (centred @ AXES.T) ** 2 / sigma**2
        rows.append([*kept, (w @ centred**2).sum() / sigma**2, (w**2).sum()])
    return np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) / count**0.5


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.7, 3.0])
@pytest.mark.parametrize("size", [25, 100, 250])
def test_agrees_with_drawn_subsets(sigma, size):
    out = data_prior(DATA, [sigma], [size], sources=[0], noise=NOISE[:1], directions=AXES)
    one = out.isel(source=0, sigma=0, num_samples=0)
    ours = np.array([*one.kept.values, float(one.dimension), float(one.participation)])
    mean, error = subsets(0, NOISE[0], sigma, size, 1000, np.random.default_rng(size))
    # .4 %: the correction for the fluctuating size leaves .3 % of a participation at N = 25
    assert (np.abs(ours - mean) < 4.5 * error + 4e-3 * np.abs(mean)).all()
    assert float(one.identity_defect) < 1e-4


def test_all_points_are_the_data_set_itself():
    out = data_prior(DATA, [0.3, 1.0], [M], sources=[0, 1], noise=NOISE, directions=AXES)
    # 1e-3: bins of width .05 in the energy
    np.testing.assert_allclose(out.kept[..., 0, :], out.reference_kept, rtol=1e-3)
    x = DATA[1] + 0.3 * NOISE[1]
    energy = ((DATA - x) ** 2).sum(1) / 0.18
    w = np.exp(energy.min() - energy)
    w /= w.sum()
    centred = DATA - w @ DATA
    exact = (w @ centred**2).sum() / 0.09
    assert float(out.reference_dimension[1, 0]) == pytest.approx(exact, rel=1e-3)
    assert float(out.participation[1, 0, 0]) == pytest.approx((w**2).sum(), rel=1e-3)
    left = np.delete(w, 1)
    effective = left.sum() ** 2 / (left**2).sum()
    assert float(out.reference_points[1, 0]) == pytest.approx(effective, rel=1e-2)


def test_one_point_keeps_nothing_and_more_keep_more():
    out = data_prior(DATA, [0.5], [1, 2, 10, 100, M], sources=[0, 1], noise=NOISE)
    dimension = out.dimension.mean("source").values[0]
    assert dimension[0] == pytest.approx(0, abs=1e-9)
    assert (np.diff(dimension) > 0).all()


def test_samples_of_a_gaussian_keep_what_the_exact_theory_says():
    """The numerator has no bias: subsets of i.i.d. points are i.i.d. points."""
    v, sigma, size = np.array([1.0, 0.3]), 0.4, 40
    rng = np.random.default_rng(5)
    data = rng.normal(size=(4000, 2)) * np.sqrt(v)
    noise = rng.normal(size=(400, 2))
    out = data_prior(
        data, [sigma], [size], sources=np.arange(400), noise=noise, directions=np.eye(2)
    )
    kept = out.kept.values[:, 0, 0]
    exact = planted_average(Gaussian(v), sigma, size, effort=Effort(points=32))
    error = np.hypot(kept.std(0) / 20, exact.missing_dimension_stderr)
    difference = kept.mean(0) - exact.covariance / sigma**2
    assert (np.abs(difference) < 4.5 * error).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": [501]}, "exceeds the 500 points"),
        ({"noise": NOISE}, "`noise` has shape"),
        ({"sources": [500]}, "indices below 500"),
        ({"sources": [0.5]}, "whole indices"),
        ({"sources": [-1]}, "`sources` holds -1"),
        ({"num_samples": []}, "`num_samples` has shape"),
        ({"num_samples": [1e13]}, "`num_samples` holds"),
        ({"sigmas": [0.0]}, "`sigmas` holds 0"),
        ({"directions": 2 * AXES}, "has length 2"),
    ],
)
def test_bad_input(options, message):
    arguments = {"sigmas": [0.1], "num_samples": [5], "sources": [0], "noise": NOISE[:1]}
    with pytest.raises(InputError, match=message):
        data_prior(DATA, **(arguments | options))


def test_phase_diagram_of_data_has_its_lines():
    out = phase_diagram_of_data(
        DATA, np.geomspace(0.05, 5, 8), [5, 50, 500], bands=(2, 4), queries=8
    )
    assert out.retention.dims == ("sigma", "num_samples", "group")
    known = out.retention.sel(num_samples=500).values
    np.testing.assert_allclose(known[np.isfinite(known)], 1, atol=5e-3)
    assert float(out.two_points_sigma[1]) < float(out.two_points_sigma[0])
    assert (out.reference_points.values > 0).all()


def load_fashion_mnist():
    """60,000 training images as rows of doubles, or a skip where they are not there."""
    from geomem.data import load_data

    try:
        data = load_data("fashion-mnist")
    except InputError as error:
        pytest.skip(str(error))
    return data.tensor(np.arange(60_000)).flatten(1).double().numpy()


@pytest.mark.slow
def test_fashion_mnist_subsets_keep_what_is_predicted():
    """Effective dimension at N = 100, 1,000, 10,000 against 20 drawn subsets, 10 levels."""
    data = load_fashion_mnist()
    rng = np.random.default_rng(0)
    sources = rng.choice(len(data), 24, replace=False)
    noise = rng.normal(size=(24, data.shape[1]))
    rms = np.sqrt(((data - data.mean(0)) ** 2).mean())
    levels, sizes = rms * np.geomspace(2, 15, 10), [100, 1000, 10_000]
    ours = data_prior(data, levels, sizes, sources=sources, noise=noise)
    predicted = ours.dimension.mean("source").values
    assert float(ours.identity_defect.max()) < 1e-3
    drawn = np.array(
        [
            [drawn_dimension(data, sources, noise, levels, size, rng) for _ in range(20)]
            for size in sizes
        ]
    )  # (sizes, 20, levels)
    error = drawn.std(1, ddof=1) / 20**0.5
    # 1e-3 dimensions: below 2 rms rare subsets with a near neighbour are the whole mean,
    # and twenty do not contain one; 1e-4 of the value: bins of width .05 in the energy.
    z = (predicted.T - drawn.mean(1)) / np.hypot(error, 1e-3 + 1e-4 * predicted.T)
    assert (np.abs(z) > 3).sum() <= 1
    assert np.abs(z).max() < 5


def drawn_dimension(data, sources, noise, levels, size, rng):
    """Mean over the query points of tr Cov / sigma² of one subset, level by level."""
    total = np.zeros(len(levels))
    for j, z in zip(sources, noise, strict=True):
        chosen = rng.choice(len(data) - 1, size - 1, replace=False)
        points = data[np.append(chosen + (chosen >= j), j)] - data[j]
        squared, along = (points**2).sum(1), points @ z
        energy = squared / (2 * levels[:, None] ** 2) - along / levels[:, None]
        w = np.exp(energy.min(1, keepdims=True) - energy)
        w /= w.sum(1, keepdims=True)
        total += (w @ squared - ((w @ points) ** 2).sum(1)) / levels**2
    return total / len(sources)
