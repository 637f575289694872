r"""Along a network's own trajectories: the points of its sampler, the trace and the distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from geomem.data.images import ImageData
from geomem.data.source import Source
from geomem.data.splits import make_split
from geomem.denoiser import Denoiser
from geomem.exact import EmpiricalDenoiser, GaussianDenoiser
from geomem.measure.study import Study
from geomem.measure.subject import Description, Subject
from geomem.measure.trajectories import Trajectories, trajectory_levels
from geomem.models.sample import heun, heun_path, sigma_steps
from geomem.noise import log_levels
from geomem.runs.design import study_of
from tests.references import normal

VARIANCES = torch.tensor([4.0, 1.0, 0.25, 0.25], dtype=torch.float64)


@pytest.fixture(scope="module")
def study() -> Study:
    data = ImageData.of("points", (normal(0, 120, 4) * VARIANCES.sqrt()).float().numpy())
    source = Source(data, make_split(data))
    pool = source.split.pool.tolist()
    return study_of(
        source,
        {"training": pool[:10], "held_out": source.split.held_out[:12].tolist()},
        sigmas=log_levels(0.05, 5.0, 8).numpy(),
        probes=[Trajectories(8, 4)],
        draws=2,
        seed=3,
        more={},
    )


def asked(study: Study, denoiser: Denoiser, count: int = 8, **options: int) -> xr.Dataset:
    assert study.source is not None
    pool = study.source.split.pool.tolist()
    subject = Subject(Description("learned", num_samples=10), denoiser, training=pool[:10])
    return Trajectories(count, **options)(subject, study, lambda share: None)


def test_the_way_is_that_of_the_sampler() -> None:
    denoiser, noise = GaussianDenoiser(torch.zeros(4), VARIANCES), normal(1, 5, 4)
    levels = sigma_steps(0.01, 80.0, 12)
    path = heun_path(denoiser, noise, levels)
    assert path.shape == (13, 5, 4)
    np.testing.assert_array_equal(path[0], noise * levels[0])
    np.testing.assert_array_equal(path[-1], heun(denoiser, noise, levels))


def test_all_levels_of_the_study_are_visited(study: Study) -> None:
    levels = trajectory_levels(study)
    assert (levels.diff() < 0).all()
    assert set(study.sigmas.tolist()) <= set(levels.tolist())
    assert levels[-1] == study.sigmas[0]
    assert levels[0] == pytest.approx(80 * study.rms)


def test_gaussian_trajectories_have_the_trace_of_the_formula(study: Study) -> None:
    # A diagonal Jacobian: signs see its trace without any error, at every point.
    found = asked(study, GaussianDenoiser(torch.zeros(4), VARIANCES), signs=3)
    exact = (VARIANCES / (VARIANCES + study.sigmas[:, None] ** 2)).sum(1)
    assert found.trajectory_trace.shape == (8, 8)
    np.testing.assert_allclose(found.trajectory_trace, exact[:, None].expand(8, 8), rtol=1e-9)


def test_gaussian_trajectories_end_where_the_flow_ends(study: Study) -> None:
    # dx/dsigma = sigma x / (lambda + sigma²): x grows like sqrt(lambda + sigma²). Heun on some 20
    # steps over three decades was measured to follow it to 2.4 %.
    levels = trajectory_levels(study)
    noise = normal(5, 6, 4)
    path = heun_path(GaussianDenoiser(torch.zeros(4), VARIANCES), noise, levels)
    scale = ((VARIANCES + levels[-1] ** 2) / (VARIANCES + levels[0] ** 2)).sqrt()
    torch.testing.assert_close(path[-1], noise * levels[0] * scale, rtol=0.03, atol=0.0)


def test_distances_are_to_the_nearest_training_image(study: Study) -> None:
    assert study.source is not None
    training = study.source.data.tensor(study.source.split.pool[:10]).double()
    found = asked(study, EmpiricalDenoiser(training))
    # The exact denoiser of the training set ends on one of its images, all the way down.
    assert float(found.trajectory_distance.isel(sigma=0).max()) < 1e-3
    assert float(found.trajectory_distance.isel(sigma=-1).min()) > 0.1
    beside = found.denoised_distance
    assert beside["at"].values.tolist() == ["training", "held_out"]
    assert np.isfinite(beside).all(("at", "sigma")).values.tolist() == [True] * 8 + [False] * 4
    # By hand, of a denoiser that answers the noised points themselves.
    found = asked(study, lambda x, sigma: x, signs=0)
    assert "trajectory_trace" not in found
    clean = study.images["held_out"].double()[:8]
    noised = clean + study.sigmas[2] * study.noise("held_out", 8)[:, 0].double()
    by_hand = torch.cdist(noised, training).min(1).values
    got = found.denoised_distance.sel(at="held_out").isel(sigma=2).values[:8]
    np.testing.assert_allclose(got, by_hand, rtol=1e-5)


def test_controls_references_and_other_parts_have_none(study: Study) -> None:
    denoiser = GaussianDenoiser(torch.zeros(4), VARIANCES)
    for about in (Description("linear"), Description("reference"), Description("learned", part=1)):
        subject = Subject(about, denoiser)
        assert not Trajectories(4)(subject, study, lambda share: None).data_vars
    model = Trajectories(4)(Subject(Description("model"), denoiser), study, lambda share: None)
    assert list(model.data_vars) == ["trajectory_trace"]  # no training set is known


def test_under_conditions_they_are_drawn_as_samples_are(study: Study) -> None:
    # Each image has a mean of its own: the denoiser bound to an image moves all points there.
    assert study.source is not None
    pool = study.source.split.pool.tolist()

    def bind(numbers: Sequence[int]) -> Denoiser:
        means = torch.tensor(numbers, dtype=torch.float64)[:, None] / 100
        law = GaussianDenoiser(torch.zeros(4), VARIANCES)

        def bound(x: Tensor, sigma: Tensor) -> Tensor:
            assert len(means) in (1, len(x)), "bound to other points than those that are asked"
            return law(x - means, sigma) + means

        return bound

    def unbound(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("asked without its condition")

    subject = Subject(Description("model", num_samples=10), unbound, training=pool[:10], bind=bind)
    found = Trajectories(8, 3)(subject, study, lambda share: None)
    exact = (VARIANCES / (VARIANCES + study.sigmas[:, None] ** 2)).sum(1)
    np.testing.assert_allclose(found.trajectory_trace, exact[:, None].expand(-1, 8), rtol=1e-6)
    # At the least noise every point is near where it began, under its own mean.
    means = torch.tensor(study.content["points"]["held_out"], dtype=torch.float64)[:8, None] / 100
    z = study.noise("held_out", 8)[:, 0].double()
    level = study.sigmas[0].double()
    x = study.images["held_out"][:8].double() + level * z
    denoised = (VARIANCES * x + level**2 * means) / (VARIANCES + level**2)
    training = study.source.data.tensor(pool[:10]).double()
    nearest = torch.cdist(denoised, training).min(1).values
    got = found.denoised_distance.sel(at="held_out").isel(sigma=0).values[:8]
    np.testing.assert_allclose(got, nearest, rtol=1e-3)
