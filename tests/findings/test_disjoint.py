r"""Variance and bias of linear networks in closed form, fitted on disjoint sets of Gaussian data.

A "network" here estimates each coordinate's variance ``v`` from N images of mean 0, shrinks it
like a ridge, ``w = (1 - r) v + r t``, and denoises by ``g(w) x`` with ``g(w) = w / (w + sigma²)``.
Beside the population, with ``g* = g(lambda)``, two of them have along a coordinate

    variance = ½ (g_A - g_B)² (lambda + sigma²) / sigma²
    bias     = (g_A - g*)(g_B - g*) (lambda + sigma²) / sigma²

since a noised point has variance ``lambda + sigma²``; and over training sets ``v`` is
``lambda chi²_N / N``, which gives both as integrals over one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import chi2
from torch import Tensor

from geomem.denoiser import Denoiser
from geomem.exact.gaussian import GaussianDenoiser
from geomem.findings.numbers import numbers
from geomem.findings.sentences import estimate, networks, sentences, summarize
from geomem.measure.errors import Errors
from geomem.measure.probes import measure
from geomem.measure.sketches import Sketches
from geomem.measure.study import make_study
from geomem.measure.subject import Description, Subject
from geomem.noise import log_levels
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.subspaces import PrincipalDirections
from tests.runs.planted import draw, gaussian

VARIANCES = torch.tensor([2.0, 1.0, 0.5, 0.25, 0.1], dtype=torch.float64)
SIGMAS = log_levels(0.2, 4.0, 10)
LAMBDA, S2 = VARIANCES.numpy(), SIGMAS.numpy()[:, None] ** 2
SHRINK, TARGET = 0.2, 1.0


def fitted(variances: Tensor) -> GaussianDenoiser:
    return gaussian((1 - SHRINK) * variances + SHRINK * TARGET)


def run_of(
    path: Path,
    parts: Sequence[Sequence[Denoiser]],
    *,
    singles: int = 5,
    held_out: int = 64,
    bands: tuple[int, ...] = (5,),
) -> xr.Dataset:
    r"""Networks ``parts[part][seed]``, measured beside the population."""
    study = make_study(
        {"training": draw(VARIANCES, 16, 1), "held_out": draw(VARIANCES, held_out, 2)},
        directions=PrincipalDirections(
            torch.eye(5, dtype=torch.float64), VARIANCES, 0.0, singles, bands
        ),
        sigmas=SIGMAS,
        probes=[Errors(), Sketches(4)],
        rms=1.0,
        draws=4,
        control="population",
    )
    subjects = [Description("population"), Description("linear")]
    subjects += [
        Description("learned", num_samples=16, seed=s, step=1, part=k)
        for k, part in enumerate(parts)
        for s in range(len(part))
    ]
    # A linear control that knows less than the networks do: else these are undertrained.
    denoisers = [gaussian(VARIANCES), gaussian(9 * VARIANCES), *[d for part in parts for d in part]]
    folder = RunFolder.create(path, {"kind": "planted"}, study.content, subjects)
    for number, (subject, denoiser) in enumerate(zip(subjects, denoisers, strict=True)):
        training = () if subject.part else None
        folder.write_record(number, measure(Subject(subject, denoiser, training=training), study))
    return load(path)


def kept(v: np.ndarray) -> np.ndarray:
    return np.asarray(v / (v + S2))


def pair(count: int, seed: int) -> list[Tensor]:
    return [draw(VARIANCES, count, 100 + 2 * seed + k).square().mean(0) for k in range(2)]


def exact(first: Tensor, second: Tensor) -> tuple[np.ndarray, np.ndarray]:
    r"""Variance and bias of two fitted networks, by level and direction."""
    a, b = (
        kept(((1 - SHRINK) * v + SHRINK * TARGET).numpy()) - kept(LAMBDA) for v in (first, second)
    )
    scale = (LAMBDA + S2) / S2
    return scale * (a - b) ** 2 / 2, scale * a * b


def within(value: xr.DataArray, stderr: xr.DataArray, truth: np.ndarray, limit: float) -> None:
    z = (value.values - truth) / np.maximum(stderr.values, 1e-12)
    assert np.abs(z).max() < limit, z


def nats(density: np.ndarray) -> np.ndarray:
    return np.asarray(np.trapezoid(density, np.log(SIGMAS.numpy()), axis=0))


@pytest.mark.parametrize("singles", [5, 2])  # with bands, where only norms are recorded
def test_two_linear_networks_have_the_variance_and_bias_of_their_formula(
    singles: int, tmp_path: Path
) -> None:
    first, second = pair(16, 0)
    bands = (5,) if singles == 5 else (2, 4, 5)  # the last band is of one direction alone
    dataset = run_of(
        tmp_path / "run", [[fitted(first)], [fitted(second)]], singles=singles, bands=bands
    )
    row = networks(numbers(dataset))[0]
    folded = [exact(first, second)[k] for k in range(2)]
    if singles == 2:
        folded = [np.stack([*f[:, :2].T, f[:, 2:4].sum(1), f[:, 4]], axis=1) for f in folded]
    variance, bias = folded
    # 3 standard errors of each total; of 5 directions and of 10 levels the largest is below 4.
    for name, truth in (("variance", variance), ("bias", bias)):
        within(row[name], row[f"{name}_stderr"], nats(truth).sum(), 3.0)
        within(row[f"{name}_by_direction"], row[f"{name}_by_direction_stderr"], nats(truth), 4.0)
        within(row[f"{name}_by_level"], row[f"{name}_by_level_stderr"], truth.sum(1), 4.0)
        assert abs(float(row[name])) > 3 * float(row[f"{name}_stderr"])  # so agreement says much
    total = estimate(row, "variance").value + estimate(row, "bias").value
    assert total == pytest.approx(estimate(row, "parts_excess").value, rel=1e-9)


def test_bands_agree_with_single_directions_of_the_same_errors(tmp_path: Path) -> None:
    first, second = pair(16, 3)
    networks_of = [[fitted(first)], [fitted(second)]]
    fine = numbers(run_of(tmp_path / "fine", networks_of))
    coarse = numbers(run_of(tmp_path / "coarse", networks_of, singles=1, bands=(1, 5)))
    a, b = (estimate(networks(known)[0], "variance") for known in (fine, coarse))
    assert abs(a.value - b.value) < 3 * b.stderr  # the same errors: sketches alone differ
    assert a.value != b.value
    # The control knows the norm of a band: excess is the same to rounding.
    same = [float(networks(known)[0].parts_excess) for known in (fine, coarse)]
    assert same[0] == pytest.approx(same[1], rel=1e-4)


def test_over_many_trainings_they_are_those_of_the_law(tmp_path: Path) -> None:
    # 20 pairs: the mean over trainings within 3 of its own standard errors of the integral.
    count, pairs = 16, [pair(16, k) for k in range(20)]
    parts = [[fitted(p[k]) for p in pairs] for k in range(2)]
    row = networks(numbers(run_of(tmp_path / "run", parts, held_out=512), replicates=50))[0]
    assert int(row.trainings) == 20
    u = (np.arange(2000) + 0.5) / 2000
    v = chi2.ppf(u, count)[:, None, None] / count * LAMBDA
    g = kept((1 - SHRINK) * v + SHRINK * TARGET)
    scale = (LAMBDA + S2) / S2
    variance = nats((scale * g.var(0)).sum(1))
    bias = nats((scale * (g.mean(0) - kept(LAMBDA)) ** 2).sum(1))
    for name, truth in (("variance", variance), ("bias", bias)):
        found = estimate(row, name)
        assert abs(found.value - truth) < 3 * found.stderr
        assert found.value > 4 * found.stderr


def test_one_network_twice_agrees_with_itself(tmp_path: Path) -> None:
    one = fitted(pair(16, 0)[0])
    row = networks(numbers(run_of(tmp_path / "run", [[one], [one]])))[0]
    assert float(row.variance) == 0.0
    assert float(row.agreement) == 1.0
    assert float(row.bias) == pytest.approx(float(row.parts_excess))


def test_agreement_is_the_share_of_error_that_is_common(tmp_path: Path) -> None:
    first, second = pair(4, 1)
    row = networks(numbers(run_of(tmp_path / "run", [[fitted(first)], [fitted(second)]])))[0]
    errors = [(kept(((1 - SHRINK) * v + SHRINK * TARGET).numpy()) - 1, v) for v in (first, second)]
    # e_u = ((g - 1) x_0 + g sigma z) / sigma: the mean products of two such errors.
    (a, _), (b, _) = errors
    product = lambda p, q: (p * q * LAMBDA / S2 + (p + 1) * (q + 1)).sum(1)  # noqa: E731
    truth = 2 * product(a, b) / (product(a, a) + product(b, b))
    within(row.agreement_by_level, row.agreement_by_level_stderr, truth, 4.0)


def test_findings_name_both_and_other_parts_have_no_row_of_their_own(tmp_path: Path) -> None:
    first, second = pair(16, 0)
    dataset = run_of(tmp_path / "run", [[fitted(first)], [fitted(second)]])
    known = numbers(dataset)
    (row,) = networks(known)
    said = [s for s in sentences(known) if "disjoint" in s]
    assert len(said) == 1
    assert f"{estimate(row, 'variance')} nats of variance" in said[0]
    found = summarize(dataset, known)["subjects"]
    assert [(s["label"], s.get("part"), s["seed"]) for s in found if s["kind"] == "learned"] == [
        ("N = 16", 0, 0),
        ("N = 16, part = 1", 1, 0),
    ]
    assert found[0]["variance"] == pytest.approx(float(row.variance))
    assert "information" not in found[1]  # it was measured at new images alone


def test_three_parts_give_the_mean_of_three_pairs(tmp_path: Path) -> None:
    three = [*pair(16, 0), pair(16, 1)[0]]
    row = networks(numbers(run_of(tmp_path / "run", [[fitted(v)] for v in three])))[0]
    pairs = [(0, 1), (0, 2), (1, 2)]
    truth = np.mean([nats(exact(three[i], three[j])[0]).sum() for i, j in pairs])
    found = estimate(row, "variance")
    assert abs(found.value - truth) < 3 * found.stderr
