r"""Writes the results of runs into results.json, and the page from that.

    python docs/figures/results.py RUN [RUN ...]    takes the runs' numbers, then writes the page
    python docs/figures/results.py                  writes the page from results.json as it is

A run takes the place of the one of the same folder name; others stay.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import geomem
from geomem.findings.sentences import copy_rate, estimate, networks
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep
from geomem.show.figures.data import exact_row

HERE = Path(__file__).parent
INTRODUCTION = """# Results

Written by `python docs/figures/results.py RUN ...` from the records of the runs below, which the
commands beside them make again. ± is one standard error over images by bootstrap, **one training
each**: nothing here says how much another training would differ. Copies have exact 95 % intervals.
All ran on 2 CPU cores, without a GPU, in networks of a size that this allows; numbers of larger
networks will differ. What the columns are: [](measure.md). The third one names the control;
without `--control` a sweep compares with a reference network where the images suffice. *Damage*
is excess on new images, cut at 0 level by level.
"""


def command(folder: RunFolder) -> str:
    r"""The command line that makes the same run."""
    parts = ["geomem sweep"]
    for field in fields(Sweep):
        default = field.default
        value = folder.config.get(field.name, json.loads(json.dumps(default, default=str)))
        if json.loads(json.dumps(default, default=str)) != value:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append(f"--{field.name.replace('_', '-')} {text}")
    return " ".join(parts).replace(" True", "")


def peak(row: xr.Dataset) -> str:
    level = row.isel(sigma=int(np.nanargmax(row.lost_share.values)))
    return f"{estimate(level, 'lost_share')} at {float(level.sigma_relative):.2g} rms"


def cells(row: xr.Dataset, exact: xr.Dataset | None) -> list[str]:
    n = int(row.num_samples)
    found: list[Any] = [n, estimate(row, "information")]
    found += [f"{float(row.control_information):.0f}", estimate(row, "excess"), peak(row)]
    found += [
        "not measured" if exact is None else estimate(exact, "information"),
        f"{float(row.p_value):.2g}",
    ]
    found += [copy_rate(row) if "copies" in row else "no samples"]
    return [str(cell) for cell in found]


Section = dict[str, Any]


def section(run: Path) -> Section:
    r"""What the page says of a run, from its records."""
    folder, known = RunFolder.open(run), geomem.numbers(geomem.load(run))
    provenance = json.loads((run / "provenance.json").read_text())["sessions"][-1]
    low, high = (w / known.attrs["rms"] for w in known.attrs["window"])
    what = "missing" if known.attrs["control"] == "population" else "memorized"
    versions = ", ".join(f"{k} {provenance['versions'][k]}" for k in ("geomem", "torch", "numpy"))
    identity = float(np.nanmax(np.abs(known.identity_z.values)))
    return {
        "data": folder.study["data"]["name"],
        "command": command(folder),
        "made": (
            f"Seed {folder.study['seed']}; {versions}; {provenance['seconds'] / 60:.1f} minutes; "
            f"window {low:.2g} to {high:.2g} rms; data sha256 {known.attrs['data_digest'][:12]}. "
            f"Largest deviation in the identity check: {identity:.1f} standard errors."
        ),
        "head": [
            "N",
            f"{what} information, nats",
            f"{known.attrs['control']} control's, nats",
            "excess on new images, nats",
            "largest lost share",
            "the exact denoiser's, nats",
            "p",
            "copies",
        ],
        "rows": [cells(row, exact_row(known, row)) for row in networks(known)],
    }


def page(sections: dict[str, Section]) -> str:
    r"""The page of all sections, by name of the run."""
    parts = [INTRODUCTION.strip()]
    for name, found in sections.items():
        parts += [
            f"## {found['data']}",
            f"```\n{found['command']}\n```",
            found["made"],
            f"![Density by principal direction and noise level](figures/{name}-signature.png)",
            "\n".join(
                f"| {' | '.join(line)} |"
                for line in (found["head"], ["---"] * len(found["head"]), *found["rows"])
            ),
            f"![Dimension kept and memorized density by level](figures/{name}-curves.png)",
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    kept = HERE / "results.json"
    sections = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    sections |= {Path(run).name: section(Path(run)) for run in sys.argv[1:]}
    kept.write_text(json.dumps(sections, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (HERE.parent / "results.md").write_text(page(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
