r"""The slope of a control: what it is, and that it makes errors smaller and nothing untrue."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geomem.findings.measured import Measured
from geomem.findings.numbers import numbers
from geomem.findings.rows import rows_of
from geomem.findings.slopes import slopes
from geomem.information import integrate_log
from tests.findings.test_verdict import audited


def test_the_slope_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    control = 1e4 + rng.normal(size=(3, 40))
    own = 0.7 * control + np.array([[1.0], [0.1], [0.0]]) * rng.normal(size=(3, 40)) - 5
    weights = np.vstack([np.full(40, 1 / 40), rng.dirichlet(np.ones(40))])
    found = slopes(control, own, weights)
    for r, row in enumerate(weights):
        for t in range(3):
            slope = np.polyfit(control[t] - 1e4, own[t], 1, w=np.sqrt(row))[0]
            assert np.isclose(found[r, t], np.clip(slope, 0, 2), rtol=1e-8)


def test_where_all_images_are_alike_a_control_is_taken_as_it_is() -> None:
    weights = np.full((2, 9), 1 / 9)
    assert (slopes(np.full((1, 9), 3.0), np.arange(9.0)[None], weights) == 1).all()


def by_hand(dataset: xr.Dataset) -> float:
    r"""Nats of the model beside the linear control, by loops."""
    kinds = dataset["kind"].values.tolist()
    model, linear = (
        np.square(dataset.error.isel(subject=kinds.index(k)).astype(float)).mean("draw")
        for k in ("model", "linear")
    )
    density = []
    for t in range(dataset.sizes["sigma"]):
        e, w = (
            {
                at: v.isel(sigma=t).sel(at=at).transpose("point", "direction").values
                for at in ("training", "held_out")
            }
            for v in (model, linear)
        )
        ratio = np.minimum(1, e["held_out"].mean(0) / w["held_out"].mean(0))
        free = ratio < 1
        x = (w["held_out"] * ratio)[:, free].sum(1)
        y = e["held_out"][:, free].sum(1)
        slope = np.clip(np.polyfit(x, y, 1)[0], 0, 2) if free.any() else 1.0
        level = 0.0
        for u in range(len(ratio)):
            kappa = slope if free[u] else 1.0
            new, old = w["held_out"][:, u].mean(), w["training"][:, u].mean()
            level += ratio[u] * (new + kappa * (old - new)) - e["training"][:, u].mean()
        density.append(level)
    return float(integrate_log(np.array(density), dataset.sigma.values))


def test_nats_are_those_of_the_formula_by_loops() -> None:
    dataset = audited(seed=3)
    known = numbers(dataset, replicates=20, permutations=99)
    row = known.isel(subject=known["kind"].values.tolist().index("model"))
    beside = float(row.sel(control="linear").information_beside)
    assert np.isclose(beside, by_hand(dataset), rtol=1e-6)
    # Of single images the mean is the same number.
    assert np.isclose(float(row.point_information.mean()), beside, rtol=1e-6)


def test_a_control_of_another_scale_decides_more_finely_with_its_slope() -> None:
    # The model's errors: 100 + .2 of the control's. One factor alone leaves much of it.
    dataset = audited(seed=3)
    kinds = dataset["kind"].values.tolist()
    error = dataset.error.values.copy()
    own, them = kinds.index("model"), kinds.index("linear")
    rng = np.random.default_rng(1)
    size = dataset.sizes["point"]
    hard = rng.gamma(0.5, size=(2, 1, size, 1, 1)) + 0.1
    error[them] = np.sqrt(hard)
    error[own] = np.sqrt(0.2 * hard + 0.1 + 0.01 * rng.random(hard.shape))
    made = dataset.assign(error=(dataset.error.dims, error.astype(np.float32)))
    run = Measured(made, rows_of(made), 0, 0)
    fitted = run.control_error(own, "linear")
    run._slopes[own, "linear"] = np.ones_like(run.slope(own, "linear"))
    assert fitted < 0.2 * run.control_error(own, "linear")
