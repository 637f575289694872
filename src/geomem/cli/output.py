r"""What commands print: tables for people, one JSON document for machines."""

from __future__ import annotations

import json
import math
import textwrap
from typing import Any

import numpy as np
import xarray as xr

from geomem.stats import Estimate
from geomem.theory.moments import Array


def print_json(data: xr.Dataset) -> int:
    r"""Prints a data set as one JSON document: its arrays by name, and their dimensions."""
    names = [*data.coords, *data.data_vars]
    document = {str(name): plain(data[name].values) for name in names}
    dims = {str(name): list(map(str, data[name].dims)) for name in names}
    print(json.dumps({**document, "dims": dims}))
    return 0


def plain(values: Any) -> Any:
    r"""Arrays as nested lists; what is undefined is null, since NaN is not JSON."""
    array = np.asarray(values)
    if array.ndim:
        return [plain(v) for v in array]
    value = array.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(head: list[str], rows: list[list[str]], title: str | None = None) -> int:
    r"""Prints a table for people; returns the exit status of success.

    Cells are wrapped at spaces alone, so that no number is broken across lines; a table that
    does not fit even so becomes a list.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    words = [max(len(w) for cell in column for w in cell.split() or [""]) for column in columns]
    room = console.width - 3 * len(head) - 1
    while sum(widths) > room and widths != words:  # the widest that can be wrapped
        k = max(range(len(head)), key=lambda k: widths[k] if widths[k] > words[k] else -1)
        widths[k] -= 1
    if sum(widths) > room:
        print("\n\n".join(filter(None, [title, *(_listed(head, r, console.width) for r in rows)])))
        return 0
    table = Table(
        *(Column(name, width=width) for name, width in zip(head, widths, strict=True)),
        title=title and Text(title),
    )
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    return 0


def _listed(head: list[str], row: list[str], width: int) -> str:
    # A row of a table that is too wide for the terminal, a line or more for each cell.
    indent = max(map(len, head)) + 2
    lines = [
        textwrap.fill(
            f"{name:{indent}}{cell}",
            max(width, indent + 20),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, cell in zip(head, row, strict=True)
    ]
    return "\n".join(lines)


def estimate(value: float, stderr: float) -> str:
    r"""A number with its error, as text."""
    return repr(Estimate(float(value), float(stderr)))


def estimates(values: Any, stderrs: Any) -> str:
    r"""Several of them in one line."""
    pairs = zip(np.ravel(values), np.ravel(stderrs), strict=True)
    return ", ".join(estimate(v, e) for v, e in pairs)


def shortened(values: Array) -> str:
    r"""The first eight numbers of an array; a dash where there is none."""
    shown = ", ".join("—" if np.isnan(v) else f"{v:.3g}" for v in values[:8])
    return shown + (", …" if len(values) > 8 else "")


def level_or_dash(value: xr.DataArray) -> str:
    r"""A noise level, or a dash where there is none."""
    number = float(value)
    return "—" if math.isnan(number) else f"{number:.4g}"
