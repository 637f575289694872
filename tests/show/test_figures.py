"""Figures draw the numbers that they are given."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import xarray as xr

from tests.show.synthetic_run import COUNTS, LEVELS, make_run

matplotlib.use("Agg")

from matplotlib.figure import Figure

from geomem.findings.numbers import numbers
from geomem.runs.load import load
from geomem.show.figures import run as figures


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return numbers(load(make_run(tmp_path_factory.mktemp("runs") / "run")))


def test_the_map_shows_the_density_of_each_direction(known: xr.Dataset) -> None:
    ax = Figure().subplots()
    figures.plot_signature(known, ax, subject=0)
    shown = np.asarray(ax.collections[0].get_array()).reshape(len(LEVELS), len(COUNTS))
    expected = (known.density.sel(subject=0) / np.array(COUNTS)).transpose("sigma", "direction")
    np.testing.assert_allclose(shown, expected)
    low, high = ax.collections[0].get_clim()
    assert low == -high  # white is 0
    assert "N = 8" in ax.get_title()
    assert ax.get_yscale() == "log"


def test_maps_that_are_compared_share_their_colours(known: xr.Dataset) -> None:
    axes = Figure().subplots(1, 2)
    figures.plot_signatures(known, list(axes), quantity="gap")
    assert axes[0].collections[0].get_clim() == axes[1].collections[0].get_clim()


def test_dimension_has_a_curve_for_each_size_and_the_control_dashed(known: xr.Dataset) -> None:
    ax = Figure().subplots()
    figures.plot_dimension(known, ax, at="training")
    *curves, control = ax.lines
    for k, line in zip((0, 1), curves, strict=True):  # networks stand first
        here = known.dimension.sel(at="training", subject=k)
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), here)
    assert control.get_linestyle() == "--"


@pytest.mark.parametrize(
    "draw", [figures.plot_levels, figures.plot_directions, figures.plot_lost_share]
)
def test_margins_have_labels_and_a_curve_for_each_size(known: xr.Dataset, draw: object) -> None:
    ax = Figure().subplots()
    draw(known, ax)  # type: ignore[operator]
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    legend = ax.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["N = 8", "N = 16"]
