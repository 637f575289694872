"""The page of an audit: the verdict first, what it rests on after it, and pictures where asked."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomem.findings.card import model_card, three_numbers
from geomem.findings.numbers import numbers
from geomem.findings.verdict import verdict
from geomem.measure.subject import Description
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.runs.results import results
from geomem.show.page.report import page_html, report
from tests.show.synthetic_run import make_run
from tests.show.test_report import own

LINEAR = Description("linear")
EVIL = "</p><script>alert(1)</script>"
MORE = {
    "declared": [f"Declared: {EVIL}"],
    "models": {"model": {"sha256": {f"unet/{EVIL}.safetensors": "ab" * 32}}},
    "checks": {"labels": True, "bounds": False},
}


def audit(path: Path, **options: Any) -> Path:
    model = Description("model", label=options.pop("label", "mine"))
    options = {"points": 20, "more": MORE, "control": "auto", **options}
    return make_run(path, kind="audit", subjects=[LINEAR, model], **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audit(tmp_path_factory.mktemp("runs") / "audit")


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return own(report(run, show_images=False).read_text(encoding="utf-8"))


def test_the_first_screen_has_verdict_three_numbers_and_what_was_lost(run: Path, text: str) -> None:
    found = verdict(numbers(load(run)))
    assert found.word == "geometric memorization"
    first = text[text.index("<header>") : text.index("</header>")]
    words = unescape(re.sub(r"<[^>]+>", "", first))
    assert "Geometric memorization" in words
    assert found.reasons[0].split(";")[0] in words
    for one in three_numbers(found):
        assert one.value in words
        assert one.said in words
    assert str(found.information) in words
    assert 'id="lost" class="figure drawn"' in first
    assert first.count("<img") == 2  # light and dark


def test_evidence_method_digests_limits_and_card_follow(run: Path, text: str) -> None:
    places = ["t-evidence", "t-maps", "t-run", "t-digests", "t-limits", "t-card", "t-words"]
    at = [text.index(f'id="{place}"') for place in places]
    assert at == sorted(at)
    for place in places:
        assert f'href="#{place}"' in text
    folder = RunFolder.open(run)
    for digest in (folder.config["study"], folder.records_digest(), "0" * 64, "ab" * 32):
        assert digest in text
    assert "not passed" in text  # a check at the door
    for said in verdict(numbers(load(run))).limits[1:]:
        assert said in unescape(re.sub(r"<[^>]+>", "", text))


def test_the_card_says_what_the_page_says(run: Path, text: str) -> None:
    known, folder = numbers(load(run)), RunFolder.open(run)
    found = verdict(known)
    card = model_card(known, found, study=folder.config["study"])
    assert str(found) in card
    assert str(found.information) in card
    assert folder.config["study"][:16] in card
    assert "no proof" in card
    shown = re.search('<p class="card-text" data-copied>(.*?)</p>', text, re.S)
    assert shown
    assert card[:200] in shown[1]


def test_what_comes_from_the_run_is_text(tmp_path: Path, text: str) -> None:
    names = tuple(f"{EVIL}{k}.png" for k in range(20))
    evil = report(audit(tmp_path / "run", label=EVIL, files=names, name=EVIL), show_images=True)
    html = evil.read_text(encoding="utf-8")
    assert EVIL not in html
    assert "&lt;script&gt;alert(1)" in html
    assert EVIL not in text


def test_pictures_only_where_they_are_asked_for(run: Path, text: str) -> None:
    assert text.count("<img") == 2
    assert "Pictures of directions and images are left out" in text
    found = results(RunFolder.open(run))
    shown = own(page_html(RunFolder.open(run), found, show_images=True))
    assert 'alt="generated sample 1"' in shown
    assert 'alt="principal direction' in shown
    assert 'alt="a training image' in shown


def test_the_picture_has_lost_directions_where_they_are_asked_for(run: Path) -> None:
    from geomem.show.page.audit import pictures_of_lost

    found = results(RunFolder.open(run))
    assert found.numbers is not None
    row = found.numbers.isel(subject=verdict(found.numbers).subject or 0)
    axis = np.zeros((1, row.sizes["direction"]))
    axis[0, 2] = -1.0
    row = row.drop_vars(["lost_direction", "lost_direction_share"], errors="ignore").assign(
        lost_direction=(("lost", "direction"), axis),
        lost_direction_share=("lost", np.array([0.7])),
    )
    (said, picture), *_ = pictures_of_lost(found.dataset, row)
    assert said == "70 % gone"
    vector = found.dataset.vector.dropna("subject", how="all").isel(subject=0, single=2)
    np.testing.assert_allclose(picture, -vector.values.reshape(picture.shape))


@pytest.mark.parametrize(
    ("options", "title"),
    [({"points": 6}, "Inconclusive"), ({"lost": 0.0}, "")],
)
def test_other_verdicts_have_their_page(
    tmp_path: Path, options: dict[str, Any], title: str
) -> None:
    run = audit(tmp_path / "run", **options)
    page = own(report(run, csv=True).read_text(encoding="utf-8"))
    found = verdict(numbers(load(run)))
    heading = re.search("<h1>(.*?)</h1>", page, re.S)
    assert heading
    assert re.sub(r"<[^>]+>", "", heading[1]) == str(found).capitalize()
    assert title in heading[1] or not title
    assert found.word != "geometric memorization"
    assert ">nan" not in page
    assert "nan nats" not in page


def test_a_failed_check_is_said_by_the_verdict_and_not_again(tmp_path: Path) -> None:
    page = own(report(audit(tmp_path / "run", fault=1.0)).read_text(encoding="utf-8"))
    assert "Inconclusive" in page
    assert 'role="alert"' not in page
    assert page.count("The identity check FAILED") == 0
    assert "The identity of error and Jacobian fails" in re.sub(r"<[^>]+>", "", page)


def test_an_audit_without_its_model_yet_has_the_page_of_any_run(run: Path) -> None:
    found = results(RunFolder.open(run))
    assert found.numbers is not None
    kinds = found.numbers["kind"].values.copy()
    kinds[kinds == "model"] = "empirical"
    less = replace(found, numbers=found.numbers.assign_coords(kind=("subject", kinds)))
    page = own(page_html(RunFolder.open(run), less, show_images=False))
    assert "t-run" in page
    assert "t-card" not in page
