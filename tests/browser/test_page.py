"""The page in a real browser: it works from disk, by mouse, on a phone, and asks for nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geomem.show.page.report import report
from tests.show.synthetic_run import make_run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,900",
)


def _program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    return found or pytest.skip(f"{names[0]} is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return report(make_run(folder, sizes=(8, 16), methods=("local-dimension",)))


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(_program("chromedriver")))
    yield browser
    browser.quit()


@pytest.fixture
def browser(started: Any, page: Path) -> Any:
    """The page, freshly opened, with figures drawn."""
    for log in ("browser", "performance"):
        started.get_log(log)  # empties it
    started.get(page.as_uri())
    wait(started, lambda: len(started.find_elements("css selector", ".main-svg")) >= 6)
    return started


def wait(browser: Any, condition: Callable[[], Any]) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda _: condition())


def data(browser: Any, figure: str, trace: int, name: str) -> Any:
    return browser.execute_script(
        "return Array.from(document.getElementById(arguments[0]).data[arguments[1]][arguments[2]])",
        *(figure, trace, name),
    )


def click(browser: Any, name: str, value: str) -> None:
    browser.find_element("css selector", f"input[name={name}][value='{value}']").click()


def test_no_error_on_the_console_and_no_request(browser: Any, page: Path) -> None:
    assert page.stat().st_size < 6e6
    for value in ("gap", "density"):
        click(browser, "quantity", value)
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert page.as_uri() in asked  # the log does record
    assert [u for u in asked if not u.startswith(("data:", "blob:", page.as_uri()))] == []


def test_the_slider_walks_the_noise_level(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    slider = browser.find_element("id", "level")
    slider.send_keys(Keys.HOME)
    text = browser.find_element("id", "level-text").text
    line = data(browser, "slice", 1, "y")
    mark = "return document.getElementById(arguments[0]).layout.shapes[0][arguments[1]]"
    before = [browser.execute_script(mark, *at) for at in (("maps", "y0"), ("dimension", "x0"))]
    picture = browser.find_element("id", "slice").screenshot_as_png
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait(browser, lambda: browser.find_element("id", "level-text").text != text)
    assert data(browser, "slice", 1, "y") != line
    after = [browser.execute_script(mark, *at) for at in (("maps", "y0"), ("dimension", "x0"))]
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert browser.find_element("id", "slice").screenshot_as_png != picture


@pytest.mark.parametrize("figure", ["maps", "dimension", "local-0"])
def test_the_level_is_marked_from_edge_to_edge_in_every_panel(browser: Any, figure: str) -> None:
    marks = """
    const place = document.getElementById(arguments[0]), layout = place._fullLayout;
    const size = (box) => [box.width, box.height];
    return [...place.querySelectorAll('.shapelayer path')].map((path) => {
      const own = layout._plots[layout.shapes[path.dataset.index].xref.split(' ')[0]
        + layout.shapes[path.dataset.index].yref.split(' ')[0]];
      return [size(path.getBoundingClientRect()), [own.xaxis._length, own.yaxis._length]];
    });"""
    along = 0 if figure == "maps" else 1
    found = browser.execute_script(marks, figure)
    assert len(found) == 3
    for drawn, panel in found:
        assert drawn[along] == pytest.approx(panel[along], abs=3)


@pytest.mark.parametrize("figure", ["maps", "slice", "dimension", "local-0"])
def test_hover_shows_a_value_with_its_error(browser: Any, figure: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    place = browser.find_element("id", figure)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
    where = browser.execute_script(HOVERED[figure], place)
    centre = place.size["width"] / 2, place.size["height"] / 2
    offset = (round(where[0] - centre[0]), round(where[1] - centre[1]))
    ActionChains(browser).move_to_element_with_offset(place, *offset).perform()
    label = f"#{figure} .hoverlayer .hovertext text"
    wait(browser, lambda: browser.find_elements("css selector", label))
    assert "±" in browser.find_element("css selector", label).text


# Pixels of a point of each figure, from its own axes: the third level or direction.
HOVERED = {
    figure: f"""
    const layout = arguments[0]._fullLayout, trace = arguments[0].data[{trace}];
    const x = layout.xaxis, y = layout.yaxis;
    return [x._offset + x.d2p(trace.x[2]), y._offset + y.d2p(trace.y[2])];"""
    for figure, trace in (("maps", 0), ("slice", 1), ("dimension", 1), ("local-0", 1))
}


def test_the_switch_changes_the_map(browser: Any) -> None:
    density = data(browser, "maps", 0, "z")
    click(browser, "quantity", "gap")
    wait(browser, lambda: data(browser, "maps", 0, "z") != density)
    shown = [e.text for e in browser.find_elements("css selector", "#maps .annotation-text")]
    assert any("dimension gap" in text for text in shown)


def test_the_size_changes_what_is_shown_of_it(browser: Any) -> None:
    shown = "document.querySelectorAll('[data-row]:not([hidden])')"
    sections = f"return [...{shown}].map((e) => e.dataset.row)"
    assert set(browser.execute_script(sections)) == {"0"}
    click(browser, "row", "1")
    assert set(browser.execute_script(sections)) == {"1"}


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_a_phone(browser: Any, page: Path, width: int) -> None:
    device = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        browser.get(page.as_uri())
        wait(browser, lambda: browser.find_elements("css selector", "#maps .main-svg"))
        size = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        scrolled, shown = browser.execute_script(size)
        assert scrolled <= shown == width
        figures = "document.querySelectorAll('.figure .main-svg')"
        right = f"return [...{figures}].map((e) => e.getBoundingClientRect().right)"
        assert max(browser.execute_script(right)) <= width + 1
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_is_readable_in_the_dark(browser: Any) -> None:
    def colours() -> list[float]:
        script = """
        const tick = document.querySelector('#dimension .xtick text');
        const paper = getComputedStyle(document.body).backgroundColor;
        const sum = (parts) => parts.slice(0, 3).reduce((a, b) => a + Number(b), 0);
        const light = (colour) => sum(colour.match(/[0-9.]+/g)) / 765;
        const curve = document.getElementById('dimension').data.map((t) => t.line.color).pop();
        return [light(paper), light(getComputedStyle(tick).fill), curve,
          getComputedStyle(document.querySelector('.key .dot')).backgroundColor];"""
        return list(browser.execute_script(script))

    light = colours()
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        wait(browser, lambda: colours()[0] < 0.2 and colours()[1] > 0.7)
        assert colours()[2] != light[2]
        assert colours()[3] != light[3]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    wait(browser, lambda: colours() == light)
    assert light[0] - light[1] > 0.7


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_labels_of_ticks_do_not_collide(browser: Any, page: Path, width: int) -> None:
    device = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    script = """
    const seen = [], found = [];
    for (const figure of document.querySelectorAll('.figure')) {
      const texts = [...figure.querySelectorAll('.main-svg text')].filter((e) => e.textContent);
      const boxes = texts.map((e) => [e.getBoundingClientRect(), e.textContent]);
      seen.push(boxes.length);
      boxes.forEach(([a, one], i) => boxes.slice(i + 1).forEach(([b, other]) => {
        const beside = a.right < b.left + 1 || b.right < a.left + 1;
        if (!beside && a.top < b.bottom - 3 && b.top < a.bottom - 3) found.push([one, other]);
      }));
    }
    return [Math.min(...seen), found];"""
    try:
        browser.get(page.as_uri())
        wait(browser, lambda: browser.find_elements("css selector", "#dimension .xtick text"))
        fewest, found = browser.execute_script(script)
        assert fewest > 8  # labels
        assert found == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_words_are_explained_by_keyboard(browser: Any) -> None:
    script = """
    const word = document.querySelector('abbr');
    word.focus();
    const shown = getComputedStyle(word, '::after').content;
    return [document.activeElement === word, shown, word.title];"""
    focused, shown, title = browser.execute_script(script)
    assert focused
    assert title
    assert title[:30] in shown


def test_it_prints(browser: Any) -> None:
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(pdf) > 10_000
    assert browser.execute_script("return document.getElementById('maps').clientWidth") > 0
