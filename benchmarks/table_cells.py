r"""Numbers and tables as the pages show them, and how a page is written of recorded results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def load(name: str) -> dict[str, Any]:
    r"""A recorded result."""
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def write_page(about: str | None, path: Path, page: Callable[[], str]) -> int:
    r"""Writes a page, or with ``--check`` says by its status whether it is up to date."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    if parser.parse_args().check:
        return int(path.read_text(encoding="utf-8") != page())
    path.write_text(page(), encoding="utf-8")
    print(path.name)
    return 0


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
