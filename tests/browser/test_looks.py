"""The page of a training that is watched: drawn while it goes on, on any screen."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from geomem.exact import EmpiricalDenoiser
from geomem.monitor import MemorizationMonitor
from geomem.show.page.report import report
from tests.browser.driving import wait
from tests.monitor.loops import monitor_of, points

pytestmark = pytest.mark.browser
TRAIN, HELD_OUT = points(16), points(80, seed=1)


def learning(known: float) -> Any:
    """A denoiser that knows its training images by heart to a share."""
    exact = EmpiricalDenoiser(TRAIN)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return known * exact(x, sigma) + (1 - known) * x / (1 + sigma**2)

    return denoiser


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemorizationMonitor]:
    """A training after two of its looks."""
    out = tmp_path_factory.mktemp("watched") / "run"
    monitor = monitor_of(TRAIN, HELD_OUT, every=100, out=out)
    for step in (100, 200):
        monitor.step(learning(0.0), step)
    return out, monitor


def opened(started: Any, page: Path) -> Any:
    started.get_log("browser")
    started.get(page.as_uri())
    wait(started, lambda: started.find_elements("css selector", "#looks .main-svg"))
    return started


def steps_drawn(browser: Any) -> list[list[int]]:
    """The steps at which each curve has a point, as the axis says them."""
    script = """
    return document.getElementById('looks').data.filter((trace) => trace.mode === 'lines+markers')
        .map((trace) => Array.from(trace.x).map((x) => Math.round(10 ** x)));"""
    found: list[list[int]] = browser.execute_script(script)
    return found


def test_looks_are_drawn_against_steps_while_the_training_goes_on(
    started: Any, training: tuple[Path, MemorizationMonitor]
) -> None:
    out, monitor = training
    browser = opened(started, report(out))
    assert "No look" in browser.find_element("css selector", "h1, .headline").text
    assert steps_drawn(browser) == [[100, 200]] * 5
    for step, known in ((400, 0.6), (800, 0.9)):
        monitor.step(learning(known), step)
    browser = opened(started, report(out))
    assert monitor.warning is not None
    text = browser.find_element("tag name", "body").text
    assert f"beyond chance from step {monitor.warning.step} on" in text
    assert steps_drawn(browser) == [[100, 200, 400, 800]] * 5
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


BOXES = """
return Array.from(document.querySelectorAll('#looks .annotation-text')).map((text) => {
  const box = text.getBoundingClientRect();
  return [box.left, box.right, box.top, box.bottom];
});"""


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_looks_fit_the_screen(
    started: Any, training: tuple[Path, MemorizationMonitor], width: int
) -> None:
    page = report(training[0])
    device = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 800}
    started.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        opened(started, page)
        scrolled, shown, figure = started.execute_script(
            "const looks = document.getElementById('looks').getBoundingClientRect();"
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth,"
            "        looks.right]"
        )
        assert scrolled <= shown <= width
        assert figure <= shown
        # Headings and legends of panels lie within the figure and not over each other.
        boxes = started.execute_script(BOXES)
        assert len(boxes) == 6
        assert max(box[1] for box in boxes) <= figure
        for a, b in combinations(boxes, 2):
            apart = a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] + 3 or b[3] <= a[2] + 3
            assert apart, (a, b)
    finally:
        started.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
