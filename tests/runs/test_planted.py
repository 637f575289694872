r"""Known partial memorization is found where it is, by how much it is, and nowhere else."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from geomem.denoiser import ProductDenoiser
from geomem.exact import EmpiricalDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.exact.mixture import MixtureDenoiser
from geomem.findings.numbers import numbers
from geomem.manifolds import LinearManifold
from tests.runs.planted import draw, gaussian, planted_run, zmax

# The largest of 24 levels x 10 directions of a standard normal is below 4 in 99 of 100 draws
# (Bonferroni: 240 x 3.2e-5 = .8 %).
CELLS = 4.0
VARIANCES = torch.tensor([1.0] * 3 + [0.5] * 3 + [0.25] * 4, dtype=torch.float64)
BLOCK = [0, 1, 2]
WINDOW = (0.05, 8.0)


def planted(training: torch.Tensor) -> ProductDenoiser:
    rest = [k for k in range(len(VARIANCES)) if k not in BLOCK]
    return ProductDenoiser(
        [(BLOCK, EmpiricalDenoiser(training[:, BLOCK])), (rest, gaussian(VARIANCES[rest]))]
    )


def exact_missing_information(training: torch.Tensor, draws: int = 64) -> tuple[float, float]:
    r"""I_pop - (ln N - E[entropy]) of the block, between the ends of the window."""
    memory, rng = EmpiricalDenoiser(training[:, BLOCK]), torch.Generator().manual_seed(99)
    population = LinearManifold(VARIANCES[BLOCK], 3)
    values, errors = [], []
    for sigma in torch.tensor(WINDOW, dtype=torch.float64):
        x_0 = training[:, BLOCK].repeat(draws, 1)
        z = torch.randn(x_0.shape, generator=rng, dtype=torch.float64)
        entropy = memory.posterior(x_0 + sigma * z, sigma[None]).entropy[0]
        information = math.log(len(training)) - float(entropy.mean())
        values.append(float(population.mutual_information(sigma)) - information)
        errors.append(float(entropy.std()) / math.sqrt(len(entropy)))
    return values[0] - values[1], math.hypot(*errors)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_picture_lights_up_in_the_planted_block_only(tmp_path: Path, seed: int) -> None:
    training, held_out = draw(VARIANCES, 64, seed), draw(VARIANCES, 64, 1000 + seed)
    known = numbers(
        planted_run(
            tmp_path / "run",
            model=planted(training),
            control=gaussian(VARIANCES),
            control_name="population",
            training=training,
            held_out=held_out,
            window=WINDOW,
            seed=seed,
        )
    ).isel(subject=0)
    nats, stderr = float(known.information), float(known.information_stderr)
    exact, exact_stderr = exact_missing_information(training)
    assert abs(nats - exact) < 3 * math.hypot(stderr, exact_stderr)
    assert nats > 10 * stderr  # it is a lot, so agreement says something
    by_direction = known.by_direction.values
    # Outside the block model and control are the same function: nothing, to rounding.
    assert np.abs(by_direction[3:]).max() < 1e-5
    assert (by_direction[:3] > 0.5).all()
    assert float(known.p_value) <= 0.001
    assert by_direction.sum() == pytest.approx(nats, rel=1e-9)
    level = np.trapezoid(known.by_level.values, np.log(known.sigma.values))
    assert level == pytest.approx(nats, rel=1e-9)
    # Each image's own nats average to the total.
    assert float(known.point_information.mean()) == pytest.approx(nats, rel=1e-6)
    # Learned Jacobian and errors tell the same story, for this denoiser as for any other.
    assert np.nanmax(np.abs(known.identity_z.values)) < CELLS


def test_a_gaussian_population_shows_nothing(tmp_path: Path) -> None:
    training, held_out = draw(VARIANCES, 64, 5), draw(VARIANCES, 64, 6)
    reserved = draw(VARIANCES, 400, 7)
    known = numbers(
        planted_run(
            tmp_path / "run",
            model=gaussian(VARIANCES),
            control=GaussianDenoiser.fit(reserved),
            control_name="linear",
            training=training,
            held_out=held_out,
            window=WINDOW,
        )
    ).isel(subject=0)
    assert zmax(known.density, known.density_stderr) < CELLS
    assert float(known.information) < 3 * float(known.information_stderr)
    assert float(known.p_value) > 0.01


def binary_and_gaussian(count: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    binary = torch.randint(2, (count, 1), generator=rng, dtype=torch.float64) * 2 - 1
    return torch.cat([binary, torch.randn(count, 2, generator=rng, dtype=torch.float64)], dim=1)


@pytest.mark.parametrize("seed", [11, 12])
def test_a_non_gaussian_population_shows_nothing(tmp_path: Path, seed: int) -> None:
    # Its exact denoiser knows more than any linear one; one ratio for all directions would
    # call that memorized in the binary direction, one ratio a direction does not.
    points = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    dots = [GaussianDenoiser(p, torch.zeros(1, dtype=torch.float64)) for p in points]
    model = ProductDenoiser(
        [
            ([0], MixtureDenoiser(torch.ones(2), dots)),
            ([1, 2], gaussian(torch.ones(2, dtype=torch.float64))),
        ]
    )
    known = numbers(
        planted_run(
            tmp_path / "run",
            model=model,
            control=GaussianDenoiser.fit(binary_and_gaussian(400, 3 * seed)),
            control_name="linear",
            training=binary_and_gaussian(64, seed),
            held_out=binary_and_gaussian(64, 2 * seed),
            window=(0.2, 8.0),
        )
    ).isel(subject=0)
    assert float(known.ratio.min()) < 0.3  # the model is much better than linear somewhere
    assert zmax(known.density, known.density_stderr) < CELLS
    assert float(known.information) < 3 * float(known.information_stderr)
    assert float(known.p_value) > 0.01


def test_full_memorization_loses_everything(tmp_path: Path) -> None:
    # Two training points that share a noisy image are not lost yet; far below them, all is.
    training, held_out = draw(VARIANCES, 64, 8), draw(VARIANCES, 64, 9)
    known = numbers(
        planted_run(
            tmp_path / "run",
            model=EmpiricalDenoiser(training),
            control=gaussian(VARIANCES),
            control_name="population",
            training=training,
            held_out=held_out,
            window=(0.01, 0.1),
        )
    ).isel(subject=0)
    assert float(known.lost_share[0]) > 0.999
    assert float(known.excess) > 100
    assert float(known.dimension.sel(at="training")[0]) < 1e-3
