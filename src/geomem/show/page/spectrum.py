r"""The page of a run of spectra: what they say, and the paper's figure, in one file."""

from __future__ import annotations

import io
from pathlib import Path

from markupsafe import Markup, escape
from matplotlib import rc_context

from geomem.compute.files import atomic_write_text
from geomem.findings.spectrum import Spectra, findings
from geomem.runs.load import load
from geomem.runs.records import RunFolder
from geomem.show.figures.spectrum import spectrum_figure

STYLE = "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}svg{width:100%}"


def spectrum_report(folder: RunFolder, show_images: bool | None) -> Path:
    r"""Writes ``report.html`` of a run of spectra; there are no images to show."""
    dataset = load(folder.path)
    name = folder.study["data"]["name"]
    parts = [Markup("<h1>{}: spectra of scores</h1>").format(name)]
    if "jacobian_value" in dataset:
        found = Spectra.of(dataset, folder.study)
        parts += [Markup("<p>{}</p>").format(sentence) for sentence in findings(found)]
        for at in found.measured["at"].values:
            parts += [Markup("<h2>{} points</h2>").format(_place(str(at))), _svg(found, str(at))]
        parts.append(Markup("<p>All values are times t = σ²: 1 is a direction that is lost or was "
                            "never there.</p>"))  # fmt: skip
    else:
        parts.append(Markup("<p>Nothing is measured yet: the same command goes on.</p>"))
    head = f"<meta charset=utf-8><title>{escape(name)}: spectra</title><style>{STYLE}</style>"
    html = f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>"
    path = folder.path / "report.html"
    atomic_write_text(path, html, inside=folder.path, private=True)
    return path


def _place(at: str) -> str:
    return "origin or given" if at == "fixed" else at.replace("_", "-")


def _svg(found: Spectra, at: str) -> Markup:
    text = io.StringIO()
    with rc_context({"svg.hashsalt": at}):  # names of their own in one file, and the same ones
        spectrum_figure(found, at=at).savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return Markup(svg[svg.index("<svg") :])
