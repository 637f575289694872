r"""Pictures of the theory: what a reader needs is there, and said once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

from geomem.errors import InputError
from geomem.show.figures import theory as figures
from geomem.theory.maps import retention_map
from geomem.theory.priors import Gaussian


def labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.fixture(scope="module")
def centre() -> xr.Dataset:
    variances = [1.0, 1.0, 0.3, 0.09, 0.09, 0.01, 0.001]
    return retention_map(Gaussian(variances), [0.1, 0.3, 1.0], [10, 1000], kind="centre")


@pytest.fixture
def phases() -> xr.Dataset:
    sigmas, sizes = np.geomspace(0.05, 2, 6), np.geomspace(10, 1e4, 4)
    lost = np.zeros((6, 4, 2), bool)
    lost[2, 1, 0] = True
    falls = np.geomspace(1, 0.1, 4)
    return xr.Dataset(
        {
            "lost_without_collapse": (("sigma", "num_samples", "group"), lost),
            "retention_sigma": (("num_samples", "group"), falls[:, None] * [1, 0.9]),
            "paper_sigma": (("num_samples", "group"), falls[:, None] * [0.6, 0.3]),
            "opening_sigma": ("group", [1.0, 0.3]),
            "two_points_sigma": ("num_samples", falls * 0.8),
            "collapse_sigma": ("num_samples", falls * 0.7),
            "multiplicity": ("group", [2, 3]),
        },
        {"sigma": sigmas, "num_samples": sizes, "group": [1.0, 0.09]},
        attrs={"kept": 0.5},
    )


def test_a_size_and_a_variance_have_one_entry_each_however_many_directions(
    centre: xr.Dataset,
) -> None:
    _, ax = figures.new_figure()
    figures.plot_retention(centre, ax)
    found = labels(ax)
    assert found[:2] == ["N = 10", "N = 1,000"]
    # Of five different variances four are drawn, the highest first and the lowest last.
    assert [f for f in found if f.startswith("variance")] == found[2:]
    assert len(found) == len(set(found)) == 6
    assert (found[2], found[-1]) == ("variance 1", "variance 0.001")
    assert ax.get_ylim()[0] == 0


def test_directions_are_whole_numbers(centre: xr.Dataset) -> None:
    for count in (1, 2, 7):
        figure, ax = figures.new_figure()
        figures.plot_information(centre.isel(num_samples=0, direction=slice(0, count)), ax)
        figure.draw_without_rendering()
        low, high = sorted(ax.get_ylim())
        ticks = [t for t in ax.get_yticks() if low <= t <= high]
        assert ticks
        assert all(t == round(t) for t in ticks)
        assert ax.get_title() == "N = 10"


def test_critical_levels_are_explained_in_the_legend_and_not_in_the_title(
    phases: xr.Dataset,
) -> None:
    _, ax = figures.new_figure()
    figures.plot_critical(phases, ax)
    assert ax.get_title() == ""
    assert {"half kept, exact", "the paper's t*", "collapse, ln N = I"} <= set(labels(ax))


def test_every_level_of_a_single_size_is_seen(phases: xr.Dataset) -> None:
    _, ax = figures.new_figure()
    figures.plot_critical(phases.isel(num_samples=[0]), ax)
    assert len(ax.lines) == 5
    assert all(line.get_marker() not in ("", "None") for line in ax.lines)


def test_each_line_of_a_phase_diagram_is_explained(phases: xr.Dataset) -> None:
    _, ax = figures.new_figure()
    figures.plot_phase_diagram(phases, ax)
    assert {"50 % kept, exact", "opens", "2 effective points", "lost, not collapsed"} <= set(
        labels(ax)
    )
    none = phases.assign(lost_without_collapse=phases.lost_without_collapse & False)
    _, ax = figures.new_figure()
    figures.plot_phase_diagram(none, ax)
    assert "lost, not collapsed" not in labels(ax)


def test_levels_of_a_too_small_reference_are_greyed_and_most_of_them_cut_off(
    phases: xr.Dataset,
) -> None:
    few = phases.assign(reference_points=("sigma", [1.0, 2, 3, 15, 30, 90]))
    figure, ax = figures.new_figure()
    figures.plot_phase_diagram(few, ax)
    grey = float(few.sigma[3])
    low, _ = ax.get_ylim()
    assert float(few.sigma[0]) < low < grey
    assert all(patch.get_hatch() is None for patch in ax.patches)
    assert [t.get_text() for t in ax.texts] == ["too few points in the data to say"]
    assert any(label.startswith("PC 3-5, variance") for label in labels(ax))
    figure.draw_without_rendering()


def test_ticks_of_a_level_are_plain_numbers(centre: xr.Dataset) -> None:
    figure, ax = figures.new_figure()
    figures.plot_retention(centre, ax)
    figure.draw_without_rendering()
    shown = [t.get_text() for t in ax.get_xticklabels()]
    assert "0.1" in shown
    assert "1" in shown
    assert not any("^" in t for t in shown)


def test_a_file_without_a_known_format_is_refused(tmp_path: Path) -> None:
    figure, _ = figures.new_figure()
    with pytest.raises(InputError, match=r"name it \.png"):
        figures.save_figure(figure, tmp_path / "a.doc")
