r"""What all pages have in common: one layout, one style, the contents, words with their meaning.

A page is a template that extends ``layout.html`` and fills its blocks. Its sections are
``<section aria-labelledby="t-maps"{{ named("Noise levels") }}>``: the contents list what they are
``named``, and words are explained anew in each. Everything that comes from a run is escaped.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from geomem import __version__
from geomem.show.page.glossary import Explained

HERE = Path(__file__).parent
SECTION = re.compile(r'<section[^>]* aria-labelledby="(t-([\w-]+))"(?: data-name="([^"]*)")?')
# Figures that are drawn here and not by a script, in the colours of the style sheet.
INKS = {
    "light": {"ink": "#1f2328", "muted": "#57606a", "grid": "#e6e8eb", "paper": "#ffffff"},
    "dark": {"ink": "#e6edf3", "muted": "#9aa4ae", "grid": "#2b323b", "paper": "#14181d"},
}
PLAIN: dict[str, list[str]] = {"light": [], "dark": []}


def render(name: str, content: Mapping[str, Any]) -> str:
    r"""A page.

    Arguments:
        name: Its template, in this folder.
        content: What the template asks for: ``title``, ``file`` (how saved figures are named)
            and its own; ``colours`` of rows, light and dark, where it has some.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    explained = Explained()

    def named(name: str) -> Markup:
        explained.seen.clear()
        return Markup(' data-name="{}"').format(name)

    environment.filters["explained"] = explained
    environment.globals |= {"explained": explained, "named": named, "contents": contents}
    environment.globals |= {"own": own, "version": __version__, "colours": PLAIN}
    return environment.get_template(name).render(content)


def own(name: str) -> Markup:
    r"""A file of this folder, as it is."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def contents(main: str) -> list[tuple[str, Markup]]:
    r"""The sections of a page: the id of each title, and what the contents call it.

    Example:
        >>> contents('<section aria-labelledby="t-run" data-name="Method">')
        [('t-run', Markup('Method'))]
    """
    return [
        (place, Markup(name or word.replace("-", " ").capitalize()))
        for place, word, name in SECTION.findall(str(main))
    ]


def drawn(draw: Callable[[Mapping[str, str]], Figure]) -> dict[str, str]:
    r"""A figure for the light page and for the dark one, as data URIs of SVG.

    Arguments:
        draw: Makes the figure, given its colours: ``ink``, ``muted``, ``grid`` and ``paper``.
    """
    made = {}
    for theme, inks in INKS.items():
        style: Any = {
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), inks["ink"]),
            **dict.fromkeys(("xtick.color", "ytick.color", "axes.edgecolor"), inks["muted"]),
            **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), inks["ink"]),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor"), inks["paper"]),
            "savefig.facecolor": inks["paper"],
            "grid.color": inks["grid"],
            "svg.hashsalt": "geomem",
        }
        buffer = io.BytesIO()
        with matplotlib.rc_context(style):
            draw(inks).savefig(buffer, format="svg", metadata={"Date": None})
        made[theme] = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    return made
