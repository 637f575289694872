"""The page is a function of the records: it says what they say, and nothing that they do not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomem.cli.report import ReportCommand
from geomem.errors import InputError
from geomem.findings.numbers import numbers
from geomem.findings.sentences import estimate
from geomem.runs.records import RunFolder, load
from geomem.show.figures.views import gap_margins, signature
from geomem.show.page.headlines import headlines
from geomem.show.page.pictures import Painter, is_picture
from geomem.show.page.report import report
from tests.show.synthetic_run import COUNTS, make_run


def page_of(run: Path, **options: Any) -> str:
    return report(run, **options).read_text(encoding="utf-8")


def own(html: str) -> str:
    """The page without Plotly and scripts: what the reader reads."""
    return re.sub(r"<script.*?</script>", "", html, flags=re.S).replace("\u00a0", " ")


def drawn(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', html, re.S)
    assert found
    content: dict[str, Any] = json.loads(found.group(1))
    return content


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return page_of(run)


def test_a_page_is_small_and_loads_nothing(html: str) -> None:
    assert len(html.encode()) < 6e6
    assert not re.search(r"""(src|href)=["']?(?!data:|\{)[^"'>]""", own(html))
    assert "default-src 'none'" in html


def test_numbers_on_the_page_are_those_of_the_records(run: Path, html: str) -> None:
    known = numbers(load(run))
    for n in (8, 16):
        assert str(estimate(known, "information", num_samples=n)) in own(html)
    maps = drawn(html)["maps"]["density"]
    density = (known.density / known.direction_count).transpose("num_samples", "sigma", "direction")
    np.testing.assert_allclose(maps["value"], density.values, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(maps["by_level"], known.by_level.values, rtol=1e-5)


def test_the_same_records_give_the_same_page(run: Path, html: str) -> None:
    assert page_of(run) == html


def test_bands_are_drawn_as_the_mean_of_their_directions(run: Path) -> None:
    known = numbers(load(run))
    known = known.merge(gap_margins(load(run), known), combine_attrs="override")
    for quantity in ("density", "gap"):
        view = signature(known, quantity)
        total = (view.value * np.array(COUNTS)).sum("direction")
        np.testing.assert_allclose(total, view.by_level, rtol=1e-6, atol=1e-9)


def test_margins_of_the_gap_integrate_the_gap(run: Path) -> None:
    known = numbers(load(run))
    margins = gap_margins(load(run), known)
    by_hand = np.trapezoid(known.total_gap.values, np.log(known.sigma.values), axis=1)
    np.testing.assert_allclose(margins.gap_information.values, by_hand, rtol=1e-5)
    total = margins.gap_by_direction.sum("direction")
    np.testing.assert_allclose(total, margins.gap_information, rtol=1e-5)
    assert (margins.gap_by_direction_stderr > 0).all()


def test_what_comes_from_the_run_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    text = page_of(make_run(tmp_path / "run", name=evil))
    assert evil not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "geomem sweep &lt;b&gt;" in text


def test_pixels_of_the_data_only_where_they_are_asked_for(run: Path) -> None:
    assert 'alt="training image 0"' in page_of(run, show_images=True)
    hidden = page_of(run, show_images=False)
    assert 'alt="training image' not in hidden
    assert 'alt="its nearest training image"' not in hidden
    assert 'alt="generated sample 1"' in hidden
    assert "Pixels of the data are left out" in hidden


def test_pixels_that_no_record_holds_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", images=False)
    with pytest.raises(InputError, match="--show-images"):
        report(run, show_images=True)
    assert 'alt="training image' not in page_of(run)


def test_an_unfinished_run_gives_a_page_that_says_so(tmp_path: Path) -> None:
    text = own(page_of(make_run(tmp_path / "run", finished=False)))
    assert "4 of 5 units of work are done" in text
    assert "N = 8" in text
    assert "the run has not ended yet" in text


def test_a_run_with_nothing_measured_gives_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for record in (run / "records").iterdir():
        record.unlink()
    text = page_of(run, csv=True)
    assert "There is nothing to draw yet" in text
    assert "Plotly" not in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"samples": 0}, "No samples were drawn"),
        ({"jacobian": False}, "without a Jacobian"),
        ({"calibrated": False}, "not calibrated"),
        ({"item": (9,)}, "vectors of length 9"),
        ({"item": (3, 2, 2)}, "images of 3 × 2 × 2"),
        ({"sizes": (16,)}, "Memorized information at N = 16"),
        ({"seeds": (0, 1)}, "over trainings with different seeds"),
        ({"control": "population"}, "missing dimension"),
    ],
)
def test_every_kind_of_run_has_a_page(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    assert expected in own(page_of(make_run(tmp_path / "run", **options), csv=True))


def test_tables_are_written_as_csv(run: Path) -> None:
    report(run, csv=True)
    known = numbers(load(run))
    with (run / "tables" / "sizes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["num_samples"] for row in rows] == ["8", "16"]
    assert float(rows[0]["information"]) == pytest.approx(float(known.information[0]), rel=1e-8)
    for name in (
        "levels",
        "dimension",
        "images",
        "map_density",
        "map_gap",
        "directions",
        "samples",
    ):
        with (run / "tables" / f"{name}.csv").open() as file:
            table = list(csv.reader(file))
        assert len(table) > 1
        assert len({len(row) for row in table}) == 1


def test_a_folder_without_a_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        report(tmp_path)


def test_the_command_prints_the_path(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = ReportCommand(run, no_show_images=True).run()
    assert capsys.readouterr().out.strip() == str(path) == str(run / "report.html")
    with pytest.raises(InputError, match="not both"):
        ReportCommand(run, show_images=True, no_show_images=True).run()


def test_pictures_are_small_data_uris() -> None:
    painter = Painter(side=32)
    for shape in ((8, 8), (1, 8, 8), (3, 100, 60)):
        assert is_picture(shape)
        assert painter.image(np.zeros(shape)).startswith("data:image/png;base64,")
    assert painter.direction(np.zeros((8, 8))) == painter.image(np.zeros((8, 8)))
    assert not is_picture((30,))
    assert not is_picture((2, 8, 8))


# ------------------------------------------------------------------------ local dimensions

METHODS = ("local-dimension", "flipd")


def test_local_dimensions_are_means_over_images_that_have_one(tmp_path: Path) -> None:
    known = numbers(load(make_run(tmp_path / "run", methods=METHODS)))
    here = known.sel(dimension_method="flipd", denoiser="learned", at="held_out", num_samples=8)
    # Six images were asked: 5 - k + 1 for the second method, odd ones one more.
    np.testing.assert_allclose(here.local_dimension, [6.0, 5.5, 4.5, 3.5, 2.5, np.nan])
    np.testing.assert_allclose(here.local_dimension_answered, [0.5, 1, 1, 1, 1, 0])
    spread = np.std([0, 1] * 3, ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(here.local_dimension_stderr[1:5], spread)
    assert float(here.local_dimension_stderr[0]) == 0


def test_local_dimensions_of_several_trainings_have_their_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", methods=METHODS[:1], seeds=(0, 1))
    known = numbers(load(run)).sel(dimension_method="local-dimension", at="training")
    network, exact = (known.sel(denoiser=d, num_samples=8) for d in ("learned", "empirical"))
    assert float(network.local_dimension[1]) == pytest.approx(4.5 - 0.5)  # 4.5 and 3.5
    assert float(network.local_dimension_stderr[1]) == pytest.approx(0.5)
    assert float(exact.local_dimension_stderr[1]) > 0  # one training set: over images


def test_a_training_set_smaller_than_what_is_asked_still_counts_all_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", methods=METHODS[:1], sizes=(4, 16))
    known = numbers(load(run)).sel(dimension_method="local-dimension", denoiser="learned")
    assert float(known.sel(at="training", num_samples=4).local_dimension_answered[1]) == 1


def test_what_was_not_measured_is_not_called_an_answer(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", methods=METHODS[:1])
    record = next(u for u in RunFolder.open(run).units if u.denoiser == "empirical").number
    next((run / "records").glob(f"*{record}*")).unlink()
    known = numbers(load(run)).sel(denoiser="empirical", at="training", num_samples=8)
    assert bool(known.local_dimension_answered.isnull().all())


def test_the_page_draws_local_dimensions_with_their_share_of_answers(tmp_path: Path) -> None:
    html = page_of(make_run(tmp_path / "run", methods=METHODS), csv=True)
    local = drawn(html)["local"]
    assert [method["name"] for method in local] == list(METHODS)
    first = local[0]["panels"][1]  # the network at held-out images
    assert first["value"][0] == [5.0, 4.5, 3.5, 2.5, 1.5, None]
    assert local[0]["answered"][1][0] == [0.5, 1, 1, 1, 1, 0]
    assert 'id="local-1"' in html
    assert local[0]["control"]["held_out"][0] == first["value"][0]  # half is enough
    title = re.search('id="t-local">(.*?)</h2>', own(html))
    text = title[1] if title else ""
    assert text.startswith("Local dimension by local-dimension of N = 8")
    assert "at 100 % of held-out images" in text
    with (tmp_path / "run/tables/local_dimension.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2 * 2 * 6  # methods, denoisers, kinds, sizes, levels
    assert {row["local_dimension_answered"] for row in rows} == {"0", "0.5", "1"}


def test_a_title_gives_no_mean_of_few_images(tmp_path: Path) -> None:
    known = numbers(load(make_run(tmp_path / "run", methods=METHODS[:1])))
    few = known.assign(local_dimension_answered=0 * known.local_dimension_answered + 0.3)
    assert headlines(few).local.endswith(
        "no answer at most of the training images; no answer at most of the held-out images"
    )
    assert "by local-dimension" not in headlines(few).local  # there is one method only


def test_without_a_dimension_method_there_is_no_such_figure(html: str) -> None:
    assert drawn(html)["local"] == []
    assert "t-local" not in html
