r"""Formulas as MathML, converted when the pages are built: a reader's browser fetches nothing."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def formula(tex: str, display: str) -> str:
    r"""The MathML of a formula.

    Arguments:
        tex: LaTeX without its delimiters.
        display: "inline" or "block".

    Raises:
        ExtensionError: If it has a command that is not known.
    """
    try:
        found = convert(tex, display=display)
    except Exception as error:
        raise ExtensionError(f"the formula {tex!r} cannot be read: {error!r}") from error
    if "&#x0005C;" in found or "\\" in found:
        raise ExtensionError(f"the formula {tex!r} has a command that MathML cannot say")
    return found


def setup(app: Sphinx) -> dict[str, Any]:
    r"""Registers the renderer ``mathml``."""

    def inline(translator: Any, node: nodes.Element) -> None:
        translator.body.append(formula(node.astext(), "inline"))
        raise nodes.SkipNode

    def block(translator: Any, node: nodes.Element) -> None:
        translator.body.append(f'<div class="math">{formula(node.astext(), "block")}</div>\n')
        raise nodes.SkipNode

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
