r"""What each number and table of the results pages is, in terms of the files beside this one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geomem.stats import Estimate

HERE = Path(__file__).parent
Document = dict[str, Any]


@dataclass
class Page:
    r"""Numbers by key, as the text writes them, and tables by key."""

    numbers: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)


def of(page: str) -> Page:
    r"""The numbers and tables of a page, such as ``sphere.md``."""
    name, read = PAGES[page]
    return read(json.loads((HERE / name).read_text(encoding="utf-8")))


def bare(text: str) -> str:
    r"""Without the zero before the point, as the text writes numbers.

    Example:
        >>> bare("-0.0062 ± 0.0021")
        '-.0062 ± .0021'
    """
    parts = [p.removeprefix("-") for p in text.split(" ± ")]
    parts = [p[1:] if p.startswith("0.") else p for p in parts]
    return ("-" if text.startswith("-") else "") + " ± ".join(parts)


def pm(pair: Sequence[float]) -> str:
    r"""A value and its error, as tables write them."""
    return str(Estimate(*pair))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def value(text: str) -> Estimate:
    r"""What a table wrote: "0.5293 ± 0.0015"."""
    return Estimate(*(float(part) for part in text.split(" ± ")))


def joint(a: Estimate, b: Estimate) -> float:
    r"""How far apart two estimates are, in joint standard errors."""
    return abs(a.value - b.value) / math.hypot(a.stderr, b.stderr)


# --- When are directions of higher variance lost first? ---------------------------------


def higher(document: Document) -> Page:
    rows = document["summary"]

    def of_kind(kind: str, name: str, spectra: Sequence[str] | None = None) -> list[Any]:
        return [
            r[name]
            for r in rows
            if r["points"] == kind and (not spectra or r["spectrum"] in spectra)
        ]

    def extreme(found: list[Document], sign: int) -> str:
        best = max(found, key=lambda e: sign * e["value"])
        return bare(pm((best["value"], best["stderr"])))

    def percent(share: float) -> str:
        return f"{100 * share:.0f}"

    small = ("1 × 1, .09 × 2", "1 × 2, .09 × 5 (the paper's)", "k^-2, 4 directions")
    large = ("1 × 20, .09 × 50", "1/k, 20 directions")
    crossing = document["crossing"]
    pairs = {n: (Estimate(*c["high"]), Estimate(*c["low"])) for n, c in crossing.items()}
    z = {n: joint(*pair) for n, pair in pairs.items()}
    apart = [low.value / high.value - 1 for high, low in pairs.values()]
    factors = {n: [c[f"paper_{g}"] / c[g][0] for g in ("high", "low")] for n, c in crossing.items()}
    many = "1 × 20, .09 × 50"
    few = [f for n, pair in factors.items() if n != many for f in pair]
    marked = ("1 × 2, .09 × 5 (the paper's)", "1/k, 20 directions")
    first, more = of_kind("planted", "d_high_first"), of_kind("planted", "r_low_first")
    fresh, centre = of_kind("fresh", "r_high_first"), of_kind("centre", "r_high_first", small)
    numbers = {
        "missing_first_least": percent(min(first)),
        "missing_first_most": percent(max(first)),
        "missing_most": extreme(of_kind("planted", "d_highest"), 1),
        "kept_lowest": extreme(of_kind("planted", "r_lowest"), -1),
        "kept_more_least": percent(min(more)),
        "kept_more_most": percent(max(more)),
        "kept_highest": extreme(of_kind("planted", "r_highest"), 1),
        "centre_first_most": percent(max(centre)),
        "centre_first_least": percent(min(centre)),
        "centre_by": bare(f"{-min(e['value'] for e in of_kind('centre', 'r_lowest')):.3f}"),
        "centre_first_large": percent(max(of_kind("centre", "r_high_first", large))),
        "fresh_first": percent(max(fresh)),
        "fresh_by": bare(f"{-min(e['value'] for e in of_kind('fresh', 'r_lowest')):.3f}"),
        "apart_least": percent(min(apart)),
        "apart_most": percent(max(apart)),
        "z_paper": f"{z[marked[0]]:.1f}",
        "z_many": f"{z[marked[1]]:.1f}",
        "z_others": f"{max(v for n, v in z.items() if n not in marked):.1f}",
        "factor_least": f"{min(few):.1f}",
        "factor_most": f"{max(few):.1f}",
        "factor_70": bare(f"{min(factors[many]):.2f}"),
        **{name: bare(pm(pair)) for name, pair in document["example"].items()},
    }
    head = ["spectrum", "points", "cells", "r: high first", "r: low first", "lowest r_high - r_low",
            "highest", "δ: high first", "δ: low first", "lowest δ_high - δ_low",
            "highest"]  # fmt: skip

    def cell(found: Any) -> str:
        if not isinstance(found, dict):
            return f"{percent(found)} %"
        exact = found["stderr"] < 2e-6  # the centre: its error is the floor of 1e-6
        text = f"{found['value']:.4f} ± 0" if exact else pm((found["value"], found["stderr"]))
        return f"{text} (N={found['num_samples']:,}, σ={found['sigma']:.2g})"

    columns = ("r_high_first", "r_low_first", "r_lowest", "r_highest",
               "d_high_first", "d_low_first", "d_lowest", "d_highest")  # fmt: skip
    summary = [
        [r["spectrum"], r["points"], str(r["cells"]), *(cell(r[c]) for c in columns)] for r in rows
    ]
    size = next(iter(crossing.values()))["num_samples"]
    levels = [
        [n, pm(c["high"]), pm(c["low"]), f"{c['paper_high']:.4f}", f"{c['paper_low']:.4f}"]
        for n, c in crossing.items()
    ]
    head_levels = [f"spectrum (N = {size:.0f})", "high", "low", "the paper's t*, high", "low"]
    return Page(numbers, {"summary": table(head, summary), "crossing": table(head_levels, levels)})


PAGES: dict[str, tuple[str, Callable[[Document], Page]]] = {
    "higher-variance.md": ("theory-higher.json", higher),
}
