"""The page in a real browser: it works from disk, by mouse, on a phone, and asks for nothing."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from geomem.show.page.glossary import GLOSSARY
from geomem.show.page.report import report
from tests.browser.driving import wait
from tests.show.synthetic_run import make_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return report(make_run(folder, sizes=(8, 16), methods=("local-dimension",)))


@pytest.fixture
def browser(started: Any, page: Path) -> Any:
    """The page, freshly opened, with figures drawn."""
    for log in ("browser", "performance"):
        started.get_log(log)  # empties it
    started.get(page.as_uri())
    wait(started, lambda: len(started.find_elements("css selector", ".main-svg")) >= 6)
    wait(started, lambda: started.find_element("id", "theme").is_displayed())
    return started


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


def test_words_are_explained_by_keyboard_and_mouse(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    word, other = browser.find_elements("css selector", "header abbr")[:2]
    tip = browser.find_element("id", "tip")
    assert not tip.is_displayed()
    browser.execute_script("arguments[0].focus()", word)
    assert tip.is_displayed()
    assert tip.text == word.get_attribute("data-meaning") == GLOSSARY[word.text.lower().rstrip("s")]
    assert word.get_attribute("aria-describedby") == "tip"
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    ActionChains(browser).move_to_element(other).perform()
    assert tip.text == other.get_attribute("data-meaning")
    edges = "const at = arguments[0].getBoundingClientRect(); return [at.left, at.right, at.top]"
    left, right, top = browser.execute_script(edges, tip)
    assert 0 <= left < right <= 1300
    assert top >= 0
    ActionChains(browser).move_to_element(browser.find_element("css selector", "h1")).perform()
    assert not tip.is_displayed()


def test_contents_lead_to_each_section_and_say_where_one_is(browser: Any) -> None:
    links = browser.find_elements("css selector", ".contents a")
    titles = browser.find_elements("css selector", "section > h2")
    assert [link.get_attribute("hash")[1:] for link in links] == [
        title.get_attribute("id") for title in titles
    ]
    for link, title in zip(links, titles, strict=True):
        link.click()
        top = "return arguments[0].getBoundingClientRect().top"
        shown = (
            "return [document.documentElement.clientHeight, document.querySelector(arguments[0])"
        )
        shown += ".getBoundingClientRect().bottom]"
        height, bar = browser.execute_script(shown, ".bar")
        place = browser.execute_script(top, title)
        assert place < height  # on the screen, and not behind what sticks to its top
        assert place >= min(bar, 110) - 2
        current = f".contents a[href='{link.get_attribute('hash')}'][aria-current]"
        wait(browser, partial(browser.find_elements, "css selector", current))


def test_everything_is_reached_by_keyboard(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.activeElement.blur()")
    seen: list[str] = []
    script = """
    const at = document.activeElement, drawn = at.closest(".chip") ? at.nextElementSibling : at;
    return [at.id || at.className || at.name || at.tagName, getComputedStyle(drawn).outlineStyle,
      document.activeElement === document.body];"""
    for _ in range(200):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        name, outline, back = browser.execute_script(script)
        if back or (seen and name == "skip"):
            break
        assert outline != "none", name  # one sees where one is
        seen.append(name)
    assert seen[0] == "skip"
    for name in ("theme", "level", "scroll"):
        assert name in seen
    saves = browser.find_elements("css selector", ".save button")
    assert len(saves) == 2 * 4
    assert all(button.get_attribute("aria-label").startswith("Save as") for button in saves)


def test_the_colours_can_be_turned_and_stay_turned(browser: Any, page: Path) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    tick = "return getComputedStyle(document.querySelector('#dimension .xtick text')).fill"
    light = browser.execute_script(paper), browser.execute_script(tick)
    button = browser.find_element("id", "theme")
    assert button.text == "Dark"
    button.click()
    try:
        wait(browser, lambda: browser.execute_script(tick) != light[1])
        dark = browser.execute_script(paper), browser.execute_script(tick)
        assert dark[0] != light[0]
        assert button.text == "Light"
        browser.get(page.as_uri())
        wait(browser, lambda: browser.find_elements("css selector", "#dimension .xtick text"))
        assert (browser.execute_script(paper), browser.execute_script(tick)) == dark
        browser.find_element("id", "theme").click()
        wait(browser, lambda: browser.execute_script(tick) == light[1])
    finally:
        browser.execute_script("localStorage.clear()")


SAVED = """
const done = arguments[arguments.length - 1];
HTMLAnchorElement.prototype.click = function () { window.offered = [this.download, this.href]; };
shell.save(document.getElementById(arguments[0]), arguments[1]).then(() => {
  const picture = new Image();
  picture.onload = () => done([...window.offered, picture.naturalWidth, picture.naturalHeight]);
  picture.onerror = () => done(["no picture", ...window.offered]);
  picture.src = window.offered[1];
});"""


@pytest.mark.parametrize("figure", ["maps", "slice", "dimension", "local-0"])
@pytest.mark.parametrize("format", ["svg", "png"])
def test_figures_are_saved_as_files(browser: Any, figure: str, format: str) -> None:
    browser.set_script_timeout(30)
    name, url, width, height = browser.execute_async_script(SAVED, figure, format)
    assert name == f"geomem-run-{figure}.{format}"
    assert url.startswith({"svg": "data:image/svg+xml", "png": "data:image/png"}[format])
    assert width == 1040 * {"svg": 1, "png": 2}[format]
    assert height > 200
    if format == "svg":
        assert "σ" in unquote(url)


def test_what_is_printed_is_light_and_has_no_buttons(browser: Any) -> None:
    browser.find_element("id", "theme").click()
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        shown = """
        const seen = (e) => getComputedStyle(e).display !== "none";
        const paper = getComputedStyle(document.body).backgroundColor;
        const names = [".contents", ".bar", ".save", ".words"];
        return [paper, ...names.map((name) => seen(document.querySelector(name)))];"""
        paper, *others = browser.execute_script(shown)
        assert paper == "rgb(255, 255, 255)"
        assert others == [False, False, False, True]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.execute_script("localStorage.clear()")


def test_it_prints(browser: Any) -> None:
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(pdf) > 10_000
    assert browser.execute_script("return document.getElementById('maps').clientWidth") > 0
