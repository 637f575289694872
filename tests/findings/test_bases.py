r"""The model's tangent space: kept directions of a Gaussian, and angles to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from geomem.denoiser import Denoiser, ProductDenoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.findings.bases import basis_numbers, basis_sentence
from geomem.findings.measured import Measured
from geomem.findings.rows import rows_of
from geomem.measure.bases import TangentBases
from geomem.measure.errors import Errors
from geomem.measure.study import make_study
from geomem.measure.subject import Description, Subject
from geomem.runs.load import dataset_of
from geomem.subspaces import PrincipalDirections

KEPT, DIM = 3, 12
VARIANCES = torch.tensor([4.0] * KEPT + [1e-3] * (DIM - KEPT), dtype=torch.float64)
SIGMAS = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)


def law(gone: int | None = None) -> GaussianDenoiser:
    r"""Three directions of variance 4; one of them may be gone."""
    variances = VARIANCES.clone()
    if gone is not None:
        variances[gone] = 0.0
    return GaussianDenoiser(torch.zeros(DIM, dtype=torch.float64), torch.diag(variances))


def plain(x: Tensor, sigma: Tensor) -> Tensor:
    return law()(x, sigma)


def without_one(x: Tensor, sigma: Tensor) -> Tensor:
    r"""At points on the far side of a plane one direction is lost."""
    far = (x[:, DIM - 1] > 50).reshape(-1, 1)
    return torch.where(far, law(gone=1)(x, sigma), law()(x, sigma))


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    rng = torch.Generator().manual_seed(0)
    points = {
        at: torch.randn(8, DIM, generator=rng, dtype=torch.float64) * VARIANCES.sqrt()
        for at in ("training", "held_out")
    }
    points["training"][:, DIM - 1] = 100.0
    study = make_study(
        points,
        directions=PrincipalDirections.of(law()),
        sigmas=SIGMAS,
        probes=[Errors(), TangentBases(points=4, directions=5)],
        rms=1.0,
    )
    subjects = [Description("model", label="model"), Description("linear")]
    records = {}
    denoisers: list[Denoiser] = [without_one, law()]
    for k, denoiser in enumerate(denoisers):
        subject = Subject(subjects[k], denoiser)
        found = [
            probe(subject, study, lambda share: None) for probe in (Errors(), TangentBases(4, 3, 5))
        ]
        records[k] = xr.merge(found, join="outer")
    return dataset_of(study.content, subjects, records)


def lost_one(dataset: xr.Dataset) -> xr.Dataset:
    r"""As if the second direction had been found lost at sigma = .5."""
    rows, width = 2, dataset.sizes["direction"]
    axes = np.full((rows, 2, width), np.nan)
    axes[0, 0] = np.eye(width)[1]
    share = np.full((rows, 2), np.nan)
    share[0, 0] = 0.9
    low = np.full((rows, len(SIGMAS)), np.nan)
    low[0] = [0.1, 0.2, 0.8, 0.2, 0.1]
    return xr.Dataset(
        {
            "lost_direction": (("subject", "lost", "direction"), axes),
            "lost_direction_share": (("subject", "lost"), share),
            "worst_share_low": (("subject", "sigma"), low),
        }
    )


def test_kept_directions_are_counted_and_lie_along_principal_ones(dataset: xr.Dataset) -> None:
    run = Measured(dataset, rows_of(dataset), 0, 0)
    found = basis_numbers(run, xr.Dataset()).isel(subject=0)
    # v / (v + sigma²) is above one half for three directions, for two where one is lost.
    assert found.tangent_dimension.sel(at="held_out").values.tolist() == [3, 3, 3]
    assert found.tangent_dimension.sel(at="training").values.tolist() == [2, 2, 2]
    angles = found.principal_angle.sel(at="held_out").values
    assert np.allclose(angles[:, :KEPT], 0, atol=0.1)
    assert np.allclose(angles[:, KEPT:], 90, atol=0.1)
    assert np.allclose(found.tangent_angle.sel(at="held_out"), 0, atol=0.1)
    # The two that are kept at training images are not the leading two.
    assert np.allclose(found.principal_angle.sel(at="training").values[:, :3], [0, 90, 0], atol=0.1)
    assert np.allclose(found.basis_sigma, [0.3, 0.5, 0.7])


def test_a_lost_direction_stands_across_where_it_is_lost(dataset: xr.Dataset) -> None:
    run = Measured(dataset, rows_of(dataset), 0, 0)
    lost = lost_one(dataset)
    row = basis_numbers(run, lost).merge(lost).isel(subject=0)
    assert row.lost_direction_angle.sel(at="training").values[0] == pytest.approx(90, abs=0.1)
    assert row.lost_direction_angle.sel(at="held_out").values[0] == pytest.approx(0, abs=0.1)
    chance = np.degrees(np.arccos(np.sqrt(2 / DIM)))
    assert float(row.lost_direction_chance.sel(at="training")) == pytest.approx(chance)
    said = basis_sentence(row)
    assert said.startswith("The direction that is lost most (90 % gone) stands")
    assert "at held-out images" in said


def test_exact_denoisers_are_not_asked(dataset: xr.Dataset) -> None:
    assert np.isnan(dataset.basis_value.isel(subject=1)).all()
    assert basis_sentence(dataset.isel(subject=0)) == ""


def test_a_model_that_keeps_nothing_stands_across_everything() -> None:
    blocks = [([0, 1], GaussianDenoiser(torch.zeros(2), torch.eye(2) * 1e-6))]
    model = ProductDenoiser(blocks, torch.eye(2))
    x = torch.ones(2, 2, dtype=torch.float64)
    study = make_study(
        {"held_out": x},
        directions=PrincipalDirections.of(GaussianDenoiser(torch.zeros(2), torch.eye(2))),
        sigmas=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64),
        probes=[],
        rms=1.0,
    )
    subject = Subject(Description("model"), lambda x, sigma: model(x, sigma))
    record = TangentBases(levels=1)(subject, study, lambda share: None)
    assert (record.basis_value < 0.5).all()
    assert record.basis_component.shape == (1, 1, 2, 2, 2)
