r"""Further sections of a page: there where something is known, and with the numbers of findings."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from geomem.findings.sentences import estimate, networks
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.runs.sweep import Sweep
from geomem.show.page.gallery import sample_kinds, shown_samples
from geomem.show.page.plots import Plot, Series, draw
from geomem.show.page.report import report
from geomem.show.page.sections import sections
from tests.show.synthetic_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sections") / "run"
    sweep = Sweep(
        "digits",
        sizes=(16, "all"),
        steps=60,
        levels=4,
        points=32,
        draws=2,
        samples=16,
        jacobian_points=8,
        control="linear",
        disjoint=2,
    )
    sweep.run(path, processes=1, quiet=True)
    return path


def test_each_section_has_the_numbers_of_the_findings(run: Path) -> None:
    folder = RunFolder.open(run)
    known = results(folder).numbers
    assert known is not None
    found = {s.name: s for s in sections(known, folder.study)}
    assert list(found) == ["disjoint", "trajectories", "classes"]
    small = networks(known)[0]
    (series, *_) = found["disjoint"].plots[0].series
    np.testing.assert_array_equal(series.y, small.variance_by_level.values)
    assert [label for label, _ in found["disjoint"].labels] == ["N = 16"]  # of all the pool is one
    assert str(estimate(small, "agreement")) in found["disjoint"].title.replace("\u00a0", " ")
    own, training, held_out = found["trajectories"].plots[0].series
    np.testing.assert_array_equal(own.y, small.dimension.sel(at="trajectory").values)
    np.testing.assert_array_equal(training.y, small.dimension.sel(at="training").values)
    np.testing.assert_array_equal(held_out.y, small.dimension.sel(at="held_out").values)
    classes = {row[0]: row for row in found["classes"].rows}
    assert len(classes) > 5
    for name, cell in ((c, row[3]) for c, row in classes.items()):
        one = small.sel({"class": name})
        if float(one.class_images) > 1:
            assert cell.startswith(str(estimate(one, "class_information")))
    about = {c["label"]: c for c in folder.study["classes"]}
    assert all(row[1] == f"{about[name]['images']:,}" for name, row in classes.items())


def test_they_are_on_the_page_and_load_nothing(run: Path) -> None:
    html = report(run, csv=True).read_text()
    for name in ("disjoint", "trajectories", "classes"):
        assert f'<h2 id="t-{name}">' in html
    plots = re.findall(r'<svg class="plot".*?</svg>', html, re.S)
    assert len(plots) == 3 + 4 + 2
    assert not any("nan" in plot for plot in plots)
    assert not re.search(r"(href|src)=", "".join(plots))
    text = (run / "tables" / "dimension.csv").read_text()
    assert "trajectory" in text
    assert "684.0" not in (run / "tables" / "images.csv").read_text()  # numbers of images are whole


def test_what_is_not_known_has_no_section(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    folder = RunFolder.open(path)
    known = results(folder).numbers
    assert known is not None
    assert sections(known, folder.study) == []


def test_a_plot_leaves_out_what_is_not_known_and_escapes_names() -> None:
    x = [0.1, 1.0, 10.0]
    line = Series("<b>", "var(--row-0)", x, [1.0, np.nan, 3.0], [0.1, np.nan, np.nan])
    html = str(draw(Plot("a < b", "x", "y", [line])))
    assert html.count("<circle") == 2
    assert "&lt;b&gt;, at 0.1: 1.00 ± 0.10" in html
    assert 'aria-label="a &lt; b"' in html
    nothing = Series("n", "red", x, [np.nan] * 3, [np.nan] * 3)
    assert draw(Plot("t", "x", "y", [nothing])) == ""


def test_one_of_each_kind_of_sample_is_shown(tmp_path: Path) -> None:
    dataset = load(make_run(tmp_path / "run", samples=6))
    one = dataset.isel(subject=-1)
    assert sample_kinds(one) == ["memorized", *["new"] * 4, "spurious"]
    kinds = ["new"] * 30 + ["spurious"] * 2 + ["memorized"]
    shown = shown_samples(kinds)
    assert len(shown) == 12
    assert {kinds[k] for k in shown} == set(kinds)
    assert shown_samples(["new"] * 5) == [0, 1, 2, 3, 4]
    html = report(tmp_path / "run").read_text()
    assert "spurious, c = 0.99" in html
    assert 'class="card spurious"' in html
