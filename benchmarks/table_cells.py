r"""Numbers and tables as the pages show them."""

from __future__ import annotations

from typing import Any


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float) -> str:
    r"""Two or three digits, whatever the size."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def spread(ratio: dict[str, float]) -> str:
    low, high = number(ratio["min"]), number(ratio["max"])
    return (
        f"{number(ratio['median'])} ({low} to {high})" if low != high else number(ratio["median"])
    )


def cell(row: dict[str, Any]) -> str:
    return spread(row["ratio"]) if "ratio" in row else "not run"
