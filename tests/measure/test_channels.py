r"""Where an update lies in the weights that it updates: extremes, chance, sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

from geomem.exact.gaussian import GaussianDenoiser
from geomem.findings.channels import channel_numbers, channel_sentence
from geomem.findings.measured import Measured
from geomem.findings.rows import rows_of
from geomem.measure.channels import Channels, aligned
from geomem.measure.errors import Errors
from geomem.measure.study import Study, make_study
from geomem.measure.subject import Description, Subject
from geomem.runs.load import dataset_of
from geomem.subspaces import PrincipalDirections


def weights(seed: int, out: int = 12, into: int = 20) -> torch.Tensor:
    r"""Weights whose singular values fall: few channels hold half."""
    rng = torch.Generator().manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(out, into, generator=rng), full_matrices=False)
    found: torch.Tensor = left @ torch.diag(torch.linspace(0, 4, out).neg().exp()) @ right
    return found


def test_an_update_along_the_leading_channel_lies_in_it_wholly() -> None:
    w = weights(0)
    left, _, right = torch.linalg.svd(w)
    update = 0.1 * torch.outer(left[:, 0], right[0])
    inside, outside, *_ = aligned(w, update, 0.5)
    assert (inside, outside) == pytest.approx((1, 1))
    last = 0.1 * torch.outer(left[:, -1], right[-1])
    assert aligned(w, last, 0.5)[:2] == pytest.approx([0, 0], abs=1e-10)


def test_principal_channels_are_as_few_as_hold_the_share() -> None:
    w = torch.diag(torch.tensor([3.0, 2.0, 1.0, 1.0]))  # squares 9, 4, 1, 1 of 15
    assert aligned(w, w, 0.5)[2:4] == [0.25, 0.25]
    assert aligned(w, w, 0.7)[2:4] == [0.5, 0.5]
    assert aligned(w, w, 0.5)[0] == pytest.approx(9 / 15)


def test_random_updates_lie_in_them_by_chance() -> None:
    w, found = weights(1), []
    for seed in range(200):
        rng = torch.Generator().manual_seed(seed)
        update = torch.outer(torch.randn(12, generator=rng), torch.randn(20, generator=rng))
        found.append(aligned(w, update, 0.5))
    mean = np.array(found).mean(0)
    error = np.array(found).std(0) / math.sqrt(200)
    assert np.all(np.abs(mean[:2] - mean[2:4]) < 4 * error[:2])
    assert all(math.isnan(v) for v in aligned(w, 0 * w, 0.5)[:2])


def study() -> Study:
    law = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    points = torch.ones(2, 2, dtype=torch.float64)
    return make_study(
        {"training": points, "held_out": -points},
        directions=PrincipalDirections.of(law),
        sigmas=torch.tensor([0.5, 1.0], dtype=torch.float64),
        probes=[Errors(), Channels()],
        rms=1.0,
    )


def test_modules_weigh_by_their_squared_update() -> None:
    pairs = [(f"m{k}", weights(k), 0.1 * (k + 1) * weights(k + 10)) for k in range(3)]
    law = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    asked, subjects = study(), [Description("model", label="m"), Description("linear")]
    records = {}
    for k, updates in enumerate((lambda: pairs, None)):
        subject = Subject(subjects[k], law, updates=updates)
        found = [probe(subject, asked, lambda share: None) for probe in (Errors(), Channels())]
        records[k] = xr.merge(found, join="outer")
    dataset = dataset_of(asked.content, subjects, records)
    assert dataset.update_module.isel(subject=0).values.tolist() == ["m0", "m1", "m2"]
    row = channel_numbers(Measured(dataset, rows_of(dataset), 0, 0)).isel(subject=0)
    share = [aligned(w, update, 0.5) for _, w, update in pairs]
    square = np.array([s[5] for s in share])
    by_hand = sum(s[0] * q for s, q in zip(share, square, strict=True)) / square.sum()
    assert float(row.alignment.sel(side="input")) == pytest.approx(by_hand)
    assert float(row.updated_modules) == 3
    assert (row.alignment_stderr > 0).all()
    said = channel_sentence(row)
    assert said is not None
    assert said.startswith("Of the LoRA's squared update of 3 modules")
    assert np.isnan(channel_numbers(Measured(dataset, rows_of(dataset), 0, 0)).alignment[1]).all()
