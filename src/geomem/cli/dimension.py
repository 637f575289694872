r"""``geomem dimension``: how many directions a denoiser keeps, at points and noise levels."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
import xarray as xr

from geomem import __version__
from geomem.cli.options import ComputeOptions
from geomem.cli.output import plain, print_table
from geomem.compute.files import atomic_write_text, check_writable
from geomem.compute.progress import say
from geomem.findings.local_dimension import mean_over_images
from geomem.measure.study import digest_of
from geomem.runs.dimension import Dimensions
from geomem.show.page.report import report
from geomem.stats import Estimate

SCHEMA_VERSION = 2
KNOWN = {"num_samples": "N", "seed": "seed", "step": "step"}


@dataclass(frozen=True)
class DimensionCommand:
    r"""Local dimension of a denoiser: how many directions it still varies in.

    Of the exact denoiser of N images (--data, --sizes), which memorizes them, or of trained
    networks (--network), at training and held-out images and at noise levels in units of the
    data's rms deviation. "No gap" is an answer: such a spectrum names no dimension.

    Examples:

      geomem dimension --data digits --sizes 32 512 --sigmas 0.1 0.3

      geomem dimension --network runs/demo --dimension local-dimension soft-count

      geomem dimension --data digits --dimension "threshold(above=0.9)" own_method:Kept

    Methods: local-dimension, threshold, soft-count, forward-soft-count, largest-gap, spike-rule,
    normal-bundle, flipd, filtered-trace, or package.module:Class of your own (docs/extend.md).
    """

    measuring: Annotated[Dimensions, tyro.conf.OmitArgPrefixes]
    computing: Annotated[ComputeOptions, tyro.conf.OmitArgPrefixes]
    out: Path | None = None
    """The run folder; runs/dimension-... by what is asked, so that the same command goes on."""
    json: Path | None = None
    """Write everything, point by point, to this JSON file."""
    csv: Path | None = None
    """Write one line a point to this CSV file."""

    def run(self) -> int:
        r"""Measures, prints a table, writes the files; returns the exit status."""
        for path in (self.json, self.csv):
            if path is not None:
                check_writable(path)
        short = digest_of(self.measuring.config())[:8]
        out = Path("runs") / f"dimension-{short}" if self.out is None else self.out
        executor, device = self.computing.build(), self.computing.device
        dataset = self.measuring.run(out, executor=executor, device=device)
        rows = list(answers(dataset))
        print_table(*_table(rows, dataset))
        for line in _how(rows) + _reasons(rows):
            print(line)
        if self.json is not None:
            document = _document(rows, dataset, self.measuring.seed)
            atomic_write_text(self.json, json.dumps(document, indent=1, allow_nan=False) + "\n")
        if self.csv is not None:
            atomic_write_text(self.csv, _lines(rows))
        say(str(report(out)))
        return 0


# -------------------------------------------------------------------------------- answers


@dataclass(frozen=True)
class Answers:
    r"""What one method says of one subject at one level: an answer at each point.

    Attributes:
        subject: What is known of the subject: its kind, N, seed and step.
        method: What the method was called.
        at: The kind of the points.
        sigma: The noise level, in the data's units, and in rms.
        relative: The same in units of the data's rms deviation.
        found: An estimate at each point, None where there is no gap.
        reasons: Why there is none.
        none_kept: At how many points there is no gap because no direction is kept.
        soft: The soft counts where there is no gap, as far as they are known.
        mean: Their mean, with its error.
    """

    subject: dict[str, Any]
    method: str
    at: str
    sigma: float
    relative: float
    found: list[Estimate | None]
    reasons: list[str]
    none_kept: int
    soft: list[Estimate]
    mean: Estimate | None

    @property
    def estimates(self) -> list[Estimate]:
        return [e for e in self.found if e is not None]

    @property
    def name(self) -> str:
        r"""The subject in words."""
        parts = [f"{KNOWN[k]} = {v}" for k, v in self.subject.items() if k in KNOWN]
        return ", ".join([self.subject["kind"], *parts])

    @property
    def how(self) -> str:
        r"""How the mean was obtained, in words."""
        total = len(self.found)
        points = f"{total} point" + "s" * (total != 1)
        none = f", none kept at {self.none_kept}" if self.none_kept else ""
        if not self.estimates:
            return (f"no gap at all {points}" if total > 1 else "no gap at 1 point") + none
        missing = total - len(self.estimates)
        gaps = f", no gap at {missing}{none}" if missing else ""
        return f"{points}{gaps}, {errors_said([e.stderr for e in self.estimates])}"


def answers(dataset: xr.Dataset) -> Iterator[Answers]:
    r"""The answers in the records of a run, in the order of the subjects."""
    dims = ("subject", "dimension_method", "at", "sigma", "point")
    names = ("local_dimension", "local_dimension_stderr", "no_gap_kept", "no_gap")
    values, errors, kept, reasons = (dataset[name].transpose(*dims).values for name in names)
    counts, count_errors = (
        dataset[f"no_gap_soft_count{end}"].transpose(*dims).values for end in ("", "_stderr")
    )
    for s, m, a, k in np.ndindex(*values.shape[:4]):
        asked = ~np.isnan(values[s, m, a, k]) | (reasons[s, m, a, k] != "")
        if not asked.any():
            continue
        v, e, n = (array[s, m, a, k][asked].astype(float) for array in (values, errors, kept))
        groups = dataset.point_group.values[a][asked]
        there = ~np.isnan(v)
        known = {name: dataset[name].values[s] for name in KNOWN}
        yield Answers(
            {"kind": str(dataset["kind"].values[s])}
            | {name: int(value) for name, value in known.items() if not np.isnan(value)},
            str(dataset["dimension_method"].values[m]),
            str(dataset["at"].values[a]),
            float(dataset.sigma.values[k]),
            float(dataset.sigma_relative.values[k]),
            [
                Estimate(float(x), float(d)) if ok else None
                for x, d, ok in zip(v, e, there, strict=True)
            ],
            [str(r) for r in reasons[s, m, a, k][asked]],
            int((~there & (n == 0)).sum()),
            [
                Estimate(float(c), float(d))
                for c, d in zip(counts[s, m, a, k], count_errors[s, m, a, k], strict=True)
                if not np.isnan(c)
            ],
            Estimate(*mean_over_images(v, e, groups)) if there.any() else None,
        )


def errors_said(errors: Sequence[float]) -> str:
    r"""The errors of single answers, in words."""
    known = [e * e for e in errors if not math.isnan(e)]
    if not known:
        return "each of one draw"
    return f"± {math.sqrt(sum(known) / len(known)):.2g} each" if any(errors) else "each exact"


def _table(rows: Sequence[Answers], dataset: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    # Seed and step are told where they tell networks apart.
    columns = [
        k for k in KNOWN if k == "num_samples" or len({row.subject.get(k, "") for row in rows}) > 1
    ]
    lines: dict[tuple[str, ...], list[Answers]] = {}
    for row in rows:
        who = [row.subject["kind"], *(str(row.subject.get(k, "")) for k in columns)]
        lines.setdefault((*who, row.at.replace("_", "-"), row.method), []).append(row)
    head = ["denoiser", *(KNOWN[k] for k in columns), "at", "method"]
    head += [f"{s:.3g} rms" for s in dataset.sigma_relative.values]
    return head, [[*key, *map(_cell, found)] for key, found in lines.items()]


def _cell(row: Answers) -> str:
    total = len(row.found)
    if row.mean is None:
        if row.none_kept == total:
            return "none kept"
        return f"no gap ({row.none_kept} of {total}: none kept)" if row.none_kept else "no gap"
    # A collapsed posterior keeps 1e-90 of a direction, which nobody reads digit by digit.
    tiny = 0 < abs(row.mean.value) < 1e-6 and not row.mean.stderr >= 1e-6
    some = f" ({len(row.estimates)} of {total})" if len(row.estimates) < total else ""
    return ("< 1e-6" if tiny else repr(row.mean)) + some


def _how(rows: Sequence[Answers]) -> list[str]:
    # How means were obtained, a line a method: what is missing stands in the cells.
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        asked = [row for row in rows if row.method == method]
        counts = sorted({len(row.found) for row in asked})
        points = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        errors = [e.stderr for row in asked for e in row.estimates]
        said = f", {errors_said(errors)}" if errors else ""
        lines.append(f"- {method}: ± over {points} points{said}")
    return lines


def _reasons(rows: Sequence[Answers]) -> list[str]:
    # How many points of a method, and one of them: the files have the reason at each point.
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        asked = [row for row in rows if row.method == method]
        total = sum(len(row.found) for row in asked)
        silent = [(row, r) for row in asked for r in row.reasons if r]
        if silent:
            row, reason = silent[0]
            where = f"{row.name}, {row.at.replace('_', '-')}, {row.relative:.3g} rms"
            none = sum(row.none_kept for row in asked)
            kept = f", none kept at {none} of them" if none else ""
            lines.append(
                f"- no gap by {method} at {len(silent)} of {total} points{kept}, for instance "
                f"{where}: {reason}"
            )
            soft = [one.value for row in asked for one in row.soft]
            if soft:
                lines.append(
                    f"- the soft count at {len(soft)} of them is {Estimate.of_mean(soft)} on "
                    "average, ± over points; --dimension soft-count gives it everywhere"
                )
    return lines


def _document(rows: Sequence[Answers], dataset: xr.Dataset, seed: int) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "geomem": __version__,
        "data": dataset.attrs["data"],
        "digest": dataset.attrs["data_digest"],
        "rms": dataset.attrs["rms"],
        "ambient_dim": dataset.attrs["ambient_dim"],
        "seed": seed,
        "rows": [
            {
                **row.subject,
                "at": row.at,
                "sigma": row.sigma,
                "sigma_relative": row.relative,
                "method": row.method,
                "dimension": None if row.mean is None else plain(row.mean.value),
                "stderr": None if row.mean is None else plain(row.mean.stderr),
                "how": row.how,
                "answers": [
                    {"no_gap": reason}
                    if one is None
                    else {"dimension": plain(one.value), "stderr": plain(one.stderr)}
                    for one, reason in zip(row.found, row.reasons, strict=True)
                ],
            }
            for row in rows
        ],
    }


def _lines(rows: Sequence[Answers]) -> str:
    known = ("kind", *KNOWN)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    found = ("method", "dimension", "stderr", "no_gap")
    writer.writerow([*known, "at", "point", "sigma", "sigma_relative", *found])
    for row in rows:
        who = [row.subject.get(name, "") for name in known]
        for k, (one, reason) in enumerate(zip(row.found, row.reasons, strict=True)):
            values = ["", "", reason] if one is None else [one.value, one.stderr, ""]
            place = [row.at, k, f"{row.sigma:.6g}", f"{row.relative:.6g}", row.method]
            writer.writerow([*who, *place, *values])
    return out.getvalue()
