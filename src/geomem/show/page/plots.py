r"""Small plots as SVG in the page itself: curves with bands, points with bars, and no script.

Colours are those of the page's style, so that a plot turns dark with it. Each point tells its
number where the pointer rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from geomem.stats import Estimate

Array = NDArray[np.float64]
WIDTH, HEIGHT = 300, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 38
DASHES = {"solid": "", "dashed": "6 4", "dotted": "1.5 4"}


@dataclass(frozen=True, eq=False)
class Series:
    r"""Values with errors along an axis: a curve, or points if ``dash`` is none.

    Attributes:
        label: What it is, where the pointer rests.
        colour: Its colour, as CSS.
        x: Where, with shape :math:`(n)`.
        y: The values, with shape :math:`(n)`; NaN is not drawn.
        stderr: Their standard errors, with shape :math:`(n)`.
        dash: solid, dashed or dotted; empty for points.
        names: What each point is called, if it has a name.
    """

    label: str
    colour: str
    x: ArrayLike
    y: ArrayLike
    stderr: ArrayLike
    dash: str = "solid"
    names: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Plot:
    r"""One plot: its title, the words at its axes, and what is drawn."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = True

    def __html__(self) -> str:
        return str(draw(self))


def draw(plot: Plot) -> Markup:
    r"""The plot as an SVG element; empty where nothing is finite."""
    parts = [_finite(s) for s in plot.series]
    xs = np.concatenate([x for x, _, _ in parts]) if parts else np.array([])
    if not xs.size:
        return Markup("")
    low = np.concatenate([y - np.nan_to_num(e) for _, y, e in parts])
    high = np.concatenate([y + np.nan_to_num(e) for _, y, e in parts])
    horizontal = _Axis.of(xs, LEFT, WIDTH - RIGHT, log=plot.log_x, zero=False)
    vertical = _Axis.of(np.concatenate([low, high]), HEIGHT - BOTTOM, TOP, log=False, zero=True)
    body = [_frame(plot, horizontal, vertical)]
    for series, (x, y, stderr) in zip(plot.series, parts, strict=True):
        body.append(_series(series, horizontal.place(x), y, stderr, vertical, x))
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, plot.title, Markup("").join(body))


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    first: float
    last: float
    log: bool

    @classmethod
    def of(cls, values: Array, first: float, last: float, *, log: bool, zero: bool) -> _Axis:
        low, high = float(values.min()), float(values.max())
        if log:
            low, high = math.log(low), math.log(high)
        elif zero:
            low, high = min(0.0, low), max(0.0, high)
        room = 0.06 * (high - low) or 0.5
        return cls(low if zero and low == 0 else low - room, high + room, first, last, log)

    def place(self, values: Array) -> Array:
        at = np.log(values) if self.log else values
        return self.first + (at - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        if self.log:
            low, high = math.exp(self.low), math.exp(self.high)
            marks = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
            found = [m for m in marks if low <= m <= high]
            return found if len(found) <= 6 else [m for m in found if f"{m:e}"[0] == "1"]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2.5))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 5)
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, math.floor(self.high / step) + 1)]


def _finite(series: Series) -> tuple[Array, Array, Array]:
    x, y, stderr = (np.asarray(v, float) for v in (series.x, series.y, series.stderr))
    there = np.isfinite(y)
    return x[there], y[there], stderr[there]


def _frame(plot: Plot, horizontal: _Axis, vertical: _Axis) -> Markup:
    made = Markup("")
    for value in vertical.ticks():
        y = float(vertical.place(np.array(value)))
        line = '<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        kind = "zero" if abs(value) < 1e-12 else "grid"
        made += Markup(line).format(kind, LEFT, WIDTH - RIGHT, y, y)
        made += _text(f"{value:g}", LEFT - 5, y + 4, "end")
    for value in horizontal.ticks():
        x = float(horizontal.place(np.array(value)))
        made += _text(f"{value:g}", x, HEIGHT - BOTTOM + 15, "middle")
    made += _text(plot.x_label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "middle")
    return made


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, text
    )


def _series(
    series: Series, x: Array, y: Array, stderr: Array, vertical: _Axis, values: Array
) -> Markup:
    middle, error = vertical.place(y), np.nan_to_num(stderr)
    up, down = vertical.place(y + error), vertical.place(y - error)
    made = Markup("")
    if series.dash:
        ring = [*zip(x, up, strict=True), *zip(x[::-1], down[::-1], strict=True)]
        band = '<polygon points="{}" fill="{}" opacity=".18"/>'
        made += Markup(band).format(_points(ring), series.colour)
        line = '<polyline points="{}" fill="none" stroke="{}" stroke-dasharray="{}"/>'
        path = _points(list(zip(x, middle, strict=True)))
        made += Markup(line).format(path, series.colour, DASHES[series.dash])
    there = np.flatnonzero(np.isfinite(np.asarray(series.y, float)))
    for k, (a, b, c, d) in enumerate(zip(x, middle, up, down, strict=True)):
        if not series.dash:
            bar = (
                '<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" stroke="{}" opacity=".55"/>'
            )
            made += Markup(bar).format(a, a, c, d, series.colour)
        name = f", {series.names[there[k]]}" if series.names else ""
        number = Estimate(float(y[k]), float(stderr[k]))
        value = str(number) if math.isfinite(number.stderr) else f"{y[k]:.3g}, no error known"
        said = f"{series.label}{name}, at {values[k]:.3g}: {value}"
        dot = '<circle cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}" {}><title>{}</title></circle>'
        hidden = Markup('fill-opacity="0"') if series.dash else Markup("")
        made += Markup(dot).format(a, b, 7 if series.dash else 3.5, series.colour, hidden, said)
    return made


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
