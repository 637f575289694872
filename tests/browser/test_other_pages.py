"""The pages of an audit, a comparison and a plan: quiet, on any screen, in any light."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from geomem.cli.main import run
from geomem.findings.compare import compare
from geomem.runs.load import load
from geomem.show.page.compare import write_comparison
from geomem.show.page.report import report
from tests.browser.driving import wait
from tests.cli.test_plan import QUICK, images
from tests.show.synthetic_run import make_run
from tests.show.test_audit_page import EVIL, audit

pytestmark = pytest.mark.browser
DRAWN = {"audit": "lost", "compare": "levels", "plan": "needed"}


Made = Callable[[str], str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The address of a page, which is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("pages")

    def audited() -> Path:
        names = tuple(f"{EVIL}{k}.png" for k in range(20))
        return report(audit(folder / "audit", label=EVIL, files=names, name=EVIL), show_images=True)

    def compared() -> Path:
        runs = [load(make_run(folder / f"{lost}", lost=lost)) for lost in (6.0, 1.0)]
        both = compare([one.assign_attrs(run=EVIL) for one in runs], replicates=50)
        return write_comparison(both, folder / "compare.html")[0]

    def planned() -> Path:
        out = folder / "plan"
        assert run(["plan", "--data", images(folder), "--out", str(out), *QUICK]) == 0
        return out / "plan.html"

    makers = {"audit": audited, "compare": compared, "plan": planned}
    there: dict[str, str] = {}

    def address(name: str) -> str:
        if name not in there:
            there[name] = makers[name]().as_uri()
        return there[name]

    return address


@pytest.fixture(params=list(DRAWN))
def page(request: pytest.FixtureRequest, made: Made) -> tuple[str, str]:
    return request.param, made(request.param)


def opened(started: Any, url: str) -> Any:
    started.get(url)
    wait(started, lambda: started.find_element("id", "theme").is_displayed())
    return started


def test_it_is_quiet_and_asks_for_nothing(started: Any, page: tuple[str, str]) -> None:
    for log in ("browser", "performance"):
        started.get_log(log)
    opened(started, page[1])
    assert [e for e in started.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(e["message"])["message"] for e in started.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [u for u in asked if not u.startswith(("data:", "blob:", page[1]))] == []


@pytest.mark.parametrize("width", [320, 390, 800])
def test_it_fits_the_screen(started: Any, page: tuple[str, str], width: int) -> None:
    device = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    started.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        opened(started, page[1])
        size = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        scrolled, shown = started.execute_script(size)
        assert scrolled <= shown == width
    finally:
        started.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_figure_follows_the_colours_and_is_saved_on_white(
    started: Any, page: tuple[str, str]
) -> None:
    name, url = page
    opened(started, url)
    light, dark = started.find_elements("css selector", f"#{DRAWN[name]} img")
    assert (light.is_displayed(), dark.is_displayed()) == (True, False)
    started.find_element("id", "theme").click()
    try:
        assert (light.is_displayed(), dark.is_displayed()) == (False, True)
        started.set_script_timeout(30)
        for format, kind in (("svg", "data:image/svg+xml"), ("png", "data:image/png")):
            file, saved, pixel = started.execute_async_script(SAVED, DRAWN[name], format)
            assert file.endswith(f"-{DRAWN[name]}.{format}")
            assert saved.startswith(kind)
            assert pixel == [255, 255, 255, 255]
    finally:
        started.execute_script("localStorage.clear()")


SAVED = """
const done = arguments[arguments.length - 1];
let file = "";
HTMLAnchorElement.prototype.click = function () { file = this.download; };
shell.save(document.getElementById(arguments[0]), arguments[1]).then((url) => {
  const picture = new Image();
  picture.onload = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    done([file, url.slice(0, 40), [...context.getImageData(3, 3, 1, 1).data]]);
  };
  picture.src = url;
});"""


def test_a_figure_that_stands_in_the_page_is_saved_with_its_colours(
    started: Any, made: Made
) -> None:
    opened(started, made("plan"))
    started.find_element("id", "theme").click()
    put = """
    document.querySelector("main").insertAdjacentHTML("beforeend", `<figure id="own"><svg
      viewBox="0 0 40 20"><circle cx="20" cy="10" r="9" fill="var(--ink)"/></svg></figure>`);"""
    started.execute_script(put)
    try:
        started.set_script_timeout(30)
        file, _, pixel = started.execute_async_script(SAVED, "own", "png")
        assert file == "geomem-plan-own.png"
        assert pixel == [255, 255, 255, 255]
        assert started.execute_script("return document.documentElement.dataset.theme") == "dark"
        svg = started.execute_async_script(
            "shell.save(document.getElementById('own'), 'svg').then(arguments[0])"
        )
        assert "rgb(31, 35, 40)" in unquote(svg)  # the light page's ink, and no variable
    finally:
        started.execute_script("localStorage.clear()")


def test_the_first_screen_of_an_audit_is_one_screen(started: Any, made: Made) -> None:
    opened(started, made("audit"))
    bottoms = """
    const bottom = (name) => document.querySelector(name).getBoundingClientRect().bottom;
    return ["h1", ".three", "#lost"].map(bottom).concat(window.innerHeight);"""
    *found, height = started.execute_script(bottoms)
    assert max(found) <= height


def test_the_card_is_copied_by_key(started: Any, made: Made) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(started, made("audit"))
    button = started.find_element("css selector", ".card-text + .save button")
    assert button.text == "Copy"
    button.send_keys(Keys.ENTER)
    wait(started, lambda: button.text == "Copied")


def test_hostile_names_are_text(started: Any, page: tuple[str, str]) -> None:
    opened(started, page[1])
    found = started.execute_script(
        "return [document.querySelectorAll('script').length, document.body.innerText]"
    )
    assert found[0] <= 6  # the page's own
    assert page[0] == "plan" or "<script>alert(1)</script>" in found[1]
    assert quote("<script>") not in page[1]
