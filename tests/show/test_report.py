"""The page is a function of the records: it says what they say, and nothing that they do not."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from geomem.cli.report import ReportCommand
from geomem.errors import InputError
from geomem.findings.numbers import numbers
from geomem.findings.sentences import estimate, networks
from geomem.measure.subject import Description
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.show.figures.data import colour_limit, row_colours, shown_rows, signature
from geomem.show.page.glossary import GLOSSARY, Explained
from geomem.show.page.headlines import headlines
from geomem.show.page.pictures import Painter, is_picture
from geomem.show.page.report import page_html, report
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
    assert not re.search(r"""(src|href)=["']?(?!data:|\{|#)[^"'>]""", own(html))
    assert "default-src 'none'" in html


def test_numbers_on_the_page_are_those_of_the_records(run: Path, html: str) -> None:
    known = numbers(load(run))
    for row in networks(known):
        assert str(estimate(row, "information")) in own(html)
    maps = drawn(html)["maps"]["density"]
    two = known.isel(subject=shown_rows(known))
    assert two["label"].values.tolist() == drawn(html)["rows"] == ["N = 8", "N = 16"]
    density = (two.density / two.direction_count).transpose("subject", "sigma", "direction")
    np.testing.assert_allclose(maps["value"], density.values, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(maps["by_level"], two.by_level.values, rtol=1e-5)


def test_the_same_records_give_the_same_page(run: Path, html: str) -> None:
    assert page_of(run) == html


def test_bands_are_drawn_as_the_mean_of_their_directions(run: Path) -> None:
    known = numbers(load(run))
    for quantity in ("density", "gap"):
        view = signature(known, quantity)
        total = (view.value * np.array(COUNTS)).sum("direction")
        np.testing.assert_allclose(total, view.by_level, rtol=1e-6, atol=1e-9)


def test_what_comes_from_the_run_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    text = page_of(make_run(tmp_path / "run", name=evil))
    assert evil not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "geomem sweep &lt;b&gt;" in text


def test_pixels_of_the_data_only_where_they_are_asked_for(run: Path) -> None:
    assert 'alt="a training image, image 0"' in page_of(run, show_images=True)
    hidden = page_of(run, show_images=False)
    assert 'alt="a training image' not in hidden
    assert 'alt="its nearest training image"' not in hidden
    assert 'alt="generated sample 1"' in hidden
    assert "Pixels of the data are left out" in hidden


def test_pixels_that_no_record_holds_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", images=False)
    with pytest.raises(InputError, match="`show_images`"):
        report(run, show_images=True)
    assert 'alt="a training image' not in page_of(run)


def test_an_unfinished_run_gives_a_page_that_says_so(tmp_path: Path) -> None:
    text = own(page_of(make_run(tmp_path / "run", finished=False)))
    assert "4 of 5 subjects are measured" in text
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
        ({"sizes": (16,)}, "Memorized information at N = 16: "),
        ({"seeds": (0, 1)}, "over trainings with different seeds"),
        ({"control": "population"}, "missing dimension"),
    ],
)
def test_every_kind_of_run_has_a_page(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    assert expected in own(page_of(make_run(tmp_path / "run", **options), csv=True))


def rows_of_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_tables_are_written_as_csv(run: Path) -> None:
    report(run, csv=True)
    known, tables = numbers(load(run)), run / "tables"
    rows = rows_of_csv(tables / "subjects.csv")
    assert [row["label"] for row in rows] == known["label"].values.tolist()
    assert float(rows[0]["information"]) == pytest.approx(float(known.information[0]), rel=1e-8)
    names = {p.stem for p in tables.iterdir()}
    assert names == {
        *("subjects", "levels", "directions", "cells", "dimension", "images", "samples")
    }
    for name in names:
        found = rows_of_csv(tables / f"{name}.csv")
        assert found
        first = "subject" if name == "samples" else "row"
        head = [first, "kind", "label", "num_samples", "step", "width"]
        assert list(found[0])[: len(head)] == head
        assert all(None not in row and None not in row.values() for row in found)
    cells = rows_of_csv(tables / "cells.csv")
    here = [c for c in cells if c["row"] == "0" and c["directions"] == "7–9"]
    expected = known.density.isel(subject=0, direction=-1).values
    np.testing.assert_allclose([float(c["density"]) for c in here], expected, rtol=1e-6)


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


def row_of(known: xr.Dataset, kind: str, n: int) -> xr.Dataset:
    there = (known["kind"].values == kind) & (known.num_samples.values == n)
    return known.isel(subject=int(np.flatnonzero(there)[0]))


def test_local_dimensions_are_means_over_images_that_have_one(tmp_path: Path) -> None:
    known = numbers(load(make_run(tmp_path / "run", methods=METHODS)))
    here = row_of(known, "learned", 8).sel(dimension_method="flipd", at="held_out")
    # Six images were asked: 5 - k + 1 for the second method, odd ones one more.
    np.testing.assert_allclose(here.local_dimension, [6.0, 5.5, 4.5, 3.5, 2.5, np.nan])
    np.testing.assert_allclose(here.local_dimension_answered, [0.5, 1, 1, 1, 1, 0])
    spread = np.std([0, 1] * 3, ddof=1) / np.sqrt(6)
    np.testing.assert_allclose(here.local_dimension_stderr[1:5], spread)
    assert float(here.local_dimension_stderr[0]) == 0


def test_local_dimensions_of_several_trainings_have_their_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", methods=METHODS[:1], seeds=(0, 1))
    known = numbers(load(run)).sel(dimension_method="local-dimension", at="training")
    network, exact = (row_of(known, kind, 8) for kind in ("learned", "empirical"))
    assert float(network.local_dimension[1]) == pytest.approx(4.5 - 0.5)  # 4.5 and 3.5
    assert float(network.local_dimension_stderr[1]) == pytest.approx(0.5)
    assert float(exact.local_dimension_stderr[1]) > 0  # one training set: over images


def test_the_page_draws_local_dimensions_with_their_share_of_answers(tmp_path: Path) -> None:
    html = page_of(make_run(tmp_path / "run", methods=METHODS), csv=True)
    local = drawn(html)["local"]
    assert [method["name"] for method in local] == list(METHODS)
    panel = next(p for p in local[0]["panels"] if p["title"] == "Networks, at held-out images")
    first = panel["curves"][0]
    # Six images were asked: 5 - k + 1, odd ones one more, and at the first level no odd one.
    assert first["value"] == [5.0, 4.5, 3.5, 2.5, 1.5, None]
    assert first["answered"] == [0.5, 1, 1, 1, 1, 0]
    assert 'id="local-1"' in html
    assert panel["control"]["value"] == first["value"]  # half is enough
    assert "mean over up to 6 of each kind" in own(html)
    title = re.search('id="t-local">(.*?)</h2>', own(html))
    text = title[1] if title else ""
    assert text.startswith("Local dimension by local-dimension at ")
    assert "at 100 % of held-out images" in text
    rows = rows_of_csv(tmp_path / "run/tables/local_dimension.csv")
    assert len(rows) == 2 * 5 * 2 * 6  # methods, rows, kinds, levels
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


# ------------------------------------------------------------------- runs that are no sweeps

LINEAR = Description("linear")
RUNS: dict[str, dict[str, Any]] = {
    "one model, held out only": {"subjects": [Description("model")], "at": ("held_out",)},
    "a model and its base": {
        "subjects": [LINEAR, Description("model", label="mine"), Description("base", label="old")],
        "at": ("training", "held_out", "generated", "trajectory"),
    },
    "generated points": {"subjects": [LINEAR, Description("model")], "at": ("generated",)},
    "training points": {"at": ("training",)},
    "exact alone": {"subjects": [Description("empirical", 8), Description("empirical", 16)]},
    "a control alone": {"subjects": [LINEAR]},
    "growing": {"subjects": [LINEAR, *(Description("learned", 8, 0, s) for s in range(1, 13))]},
    "no subject": {"subjects": []},
    "many sizes": {"sizes": tuple(range(8, 19)), "points": 18},
    "no image group to compare": {"points": 6},
}


@pytest.mark.parametrize("kind", RUNS)
def test_no_run_kills_the_page(tmp_path: Path, kind: str) -> None:
    run = make_run(tmp_path / "run", **RUNS[kind], methods=METHODS[:1])
    text = own(page_of(run, csv=True))
    assert re.search("<h1>[^<]+</h1>", text)
    assert ">nan<" not in text
    assert "None" not in text
    for section in re.findall(r"<section.*?</section>", text, flags=re.S):
        assert re.search("<(div|dl|table)", section)  # no title above nothing


def test_numbers_of_local_dimension_alone_make_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", methods=METHODS[:1])
    found = results(RunFolder.open(run))
    assert found.numbers is not None
    names = [name for name in found.numbers.data_vars if not str(name).startswith("local_")]
    few = found.numbers.drop_vars([*names, "direction", "direction_count", "direction_variance"])
    text = own(page_html(RunFolder.open(run), replace(found, numbers=few), show_images=False))
    assert re.search("<h1>Local dimension at", text)
    assert "t-maps" not in text
    assert "t-local" in text


def test_kinds_of_points_have_panels_of_their_own(tmp_path: Path) -> None:
    html = page_of(make_run(tmp_path / "run", **RUNS["a model and its base"]))
    titles = [panel["title"] for panel in drawn(html)["panels"]]
    assert titles == [
        "Networks, at training images",
        "Networks, at held-out images",
        "Networks, at generated points",  # those of trajectories have a section of their own
    ]
    assert drawn(html)["rows"] == ["mine"]  # its base is a control
    assert "<td>not measured</td>" not in own(html)  # rows of nothing are left out


def test_a_training_is_followed_over_its_steps_and_not_all_are_drawn(tmp_path: Path) -> None:
    html = page_of(make_run(tmp_path / "run", **RUNS["growing"]))
    rows = drawn(html)["rows"]
    assert len(rows) == 8
    assert (rows[0], rows[-1]) == ("N = 8, step = 1", "N = 8")
    assert "Figures show 8 of 12 networks" in own(html)
    assert own(html).count('scope="col"') >= 12  # the table has all


def test_the_exact_denoiser_stands_beside_its_network_in_the_same_unit(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", lost=1.0)
    known, text = numbers(load(run)), own(page_of(run))
    line = re.search(r"of the (?:<abbr[^>]*>)?exact denoiser.*?</tr>", text, re.S)
    assert line
    for n in (8, 16):
        assert str(estimate(row_of(known, "empirical", n), "information")) in line[0]
    colours = row_colours(known)
    subjects = {
        (str(r["kind"].values), int(r.num_samples)): int(r.subject)
        for r in (known.isel(subject=k) for k in range(4))
    }
    assert colours[subjects["empirical", 8]] == colours[subjects["learned", 8]]
    assert colours[subjects["learned", 8]] != colours[subjects["learned", 16]]


def test_where_nothing_can_be_said_the_page_says_that_first(tmp_path: Path) -> None:
    text = own(page_of(make_run(tmp_path / "run", lost=-3.0)))
    assert re.search("<h1>Nothing can be said at N = 8, at N = 16: undertrained", text)
    assert "<td colspan=" in text  # p-values: once, and not in each column
    assert "nothing can be said: undertrained" in text
    assert "<h1>No memorized information beyond chance at N = 16" in own(
        page_of(make_run(tmp_path / "chance", lost=1e-6, sizes=(16,), jacobian=False))
    ) or "is not above its error" in own(page_of(tmp_path / "chance"))


def test_a_failed_identity_check_stands_first(tmp_path: Path, html: str) -> None:
    text = own(page_of(make_run(tmp_path / "run", fault=1.0)))
    assert 0 < text.index("FAILED") < text.index("<h1>")
    assert "FAILED" not in own(html)


def test_not_calibrated_is_said_once(tmp_path: Path) -> None:
    text = own(page_of(make_run(tmp_path / "run", calibrated=False)))
    samples = text[text.index('id="t-samples"') : text.index('id="t-numbers"')]
    assert samples.count("not calibrated") <= 2  # in the title, and why
    table = text[text.index('id="t-numbers"') : text.index('id="t-images"')]
    # Copies, spurious and new samples, and reserved images called so.
    assert table.count("not calibrated") == 5


def test_images_are_called_by_their_file_names(tmp_path: Path) -> None:
    names = tuple(f"cats/{k:02d}.png" for k in range(16))
    text = own(page_of(make_run(tmp_path / "run", files=names)))
    assert '<span class="n">03.png</span>' in text
    assert 'alt="its nearest training image, 00.png"' in text
    same = tuple(f"{k:02d}/image.png" for k in range(16))  # the folder tells them apart
    assert "03/image.png" in own(page_of(make_run(tmp_path / "other", files=same)))


def test_one_outlier_does_not_wash_out_the_colours() -> None:
    values = np.linspace(-1, 1, 400)
    assert colour_limit(values) == 1
    assert colour_limit(np.append(values, 1e6)) < 3


def test_words_are_explained_where_they_come_first() -> None:
    explained = Explained()
    once = str(explained("Lost share of <b>images</b>, and lost share again; nats"))
    assert once.count("<abbr") == 2
    assert "&lt;b&gt;" in once
    assert GLOSSARY["nats"] in once
    assert "<abbr" not in explained("lost share")


def test_pages_and_tables_are_private(run: Path) -> None:
    path = report(run, csv=True)
    for file in (path, run / "tables" / "subjects.csv"):
        assert file.stat().st_mode & 0o077 == 0
