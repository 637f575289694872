r"""Prints the results of runs as a page: python docs/figures/results.py RUN [RUN ...]."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import geomem
from geomem.findings.sentences import copy_rate, estimate
from geomem.runs.records import RunFolder
from geomem.runs.sweep import Sweep

INTRODUCTION = """# Results

Written by `python docs/figures/results.py RUN ...` from the records of the runs below, which the
commands beside them make again. ± is one standard error over images by bootstrap, **one training
each**: nothing here says how much another training would differ. Copies have exact 95 % intervals.
All ran on 2 CPU cores, without a GPU, in networks of a size that this allows; numbers of larger
networks will differ.
"""


def command(folder: RunFolder) -> str:
    r"""The command line that makes the same run."""
    parts = ["geomem sweep"]
    for field in fields(Sweep):
        value, default = folder.config[field.name], field.default
        if json.loads(json.dumps(default, default=str)) != value:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            parts.append(f"--{field.name.replace('_', '-')} {text}")
    return " ".join(parts).replace(" True", "")


def peak(known: xr.Dataset, n: int) -> str:
    share = known.lost_share.sel(num_samples=n).values
    k = int(np.argmax(share))
    at = {"num_samples": n, "sigma": known.sigma.values[k]}
    return f"{estimate(known, 'lost_share', **at)} at {float(known.sigma_relative[k]):.2g} rms"


def row(known: xr.Dataset, n: int) -> str:
    cells: list[Any] = [n]
    cells += [estimate(known, name, num_samples=n) for name in ("information", "damage")]
    cells.insert(2, f"{float(known.control_information.sel(num_samples=n)):.0f}")
    cells += [peak(known, n)]
    cells += [f"{estimate(known, 'exact_information', num_samples=n)} of {np.log(n):.2f}"]
    cells += [f"{float(known.p_value.sel(num_samples=n)):.2g}"]
    cells += [copy_rate(known, n) if "copies" in known else "no samples"]
    return "| " + " | ".join(map(str, cells)) + " |"


def section(run: Path) -> str:
    folder, known = RunFolder.open(run), geomem.numbers(geomem.load(run))
    provenance = json.loads((run / "provenance.json").read_text())["sessions"][-1]
    low, high = (w / known.attrs["rms"] for w in known.attrs["window"])
    what = "missing" if known.attrs["control"] == "population" else "memorized"
    head = (
        f"| N | {what} information, nats | {known.attrs['control']} control's, nats | damage, nats "
        "| largest lost share | exact denoiser's budget, of ln N | p | copies |"
    )
    versions = ", ".join(f"{k} {provenance['versions'][k]}" for k in ("geomem", "torch", "numpy"))
    identity = float(np.nanmax(np.abs(known.identity_z.values)))
    lines = [
        f"## {folder.design['data']['name']}",
        f"```\n{command(folder)}\n```",
        f"Seed {folder.config['seed']}; {versions}; {provenance['seconds'] / 60:.1f} minutes; "
        f"window {low:.2g} to {high:.2g} rms; data sha256 {known.attrs['data_digest'][:12]}. "
        f"Largest deviation in the identity check: {identity:.1f} standard errors.",
        f"![Density by principal direction and noise level](figures/{run.name}-signature.png)",
        "\n".join(
            [head, "|---" * 8 + "|", *(row(known, int(n)) for n in known.num_samples.values)]
        ),
        f"![Dimension kept and memorized density by level](figures/{run.name}-curves.png)",
    ]
    return "\n\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python docs/figures/results.py RUN [RUN ...]")
    print("\n\n".join([INTRODUCTION.strip(), *(section(Path(run)) for run in sys.argv[1:])]))
