r"""Between generalization and copying: fractions of samples beside the dimension that is lost.

A sample is a copy if it is nearer to a training image than 99 % of held-out images are,
relative to the next one; *spurious* if it is no copy and as near to another sample; else new.
What a network has lost is the share of the control's error at training images at one level.

Words are those of an audit's rule, cell by cell: full where at least half of the samples are
copies; geometric where at least a quarter of the dimension is lost and no such thing;
generalization where less is lost and copies are rare; each by the end of its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from geomem.experiments.digits import FOLDER, digits_sweep, ran_digits
from geomem.experiments.experiment import (
    Experiment,
    Judgement,
    Runs,
    Scale,
    Table,
    Verdict,
    verdict_of,
)
from geomem.experiments.images import (
    LEVEL,
    SETS,
    WHOLE,
    finished,
    missing,
    networks,
    ran,
    trainings,
)
from geomem.experiments.linear import sweep_of as linear_sweep
from geomem.findings.copies import copy_numbers
from geomem.findings.crossings import Crossing, crossing, span
from geomem.findings.groups import group_numbers
from geomem.findings.rows import rows_of
from geomem.runs.load import load
from geomem.stats import Estimate

PLANE = "linear-gaussian"
QUARTER = 0.25  # of the dimension, as in an audit's rule
HALF = 0.5  # of the samples
RARE = 0.1  # of the samples: below it geometric memorization goes without copies
WORDS = ("generalization", "geometric, no copies", "geometric", "full", "undecided")
COLOURS = dict(zip(WORDS, ("C2", "C0", "C1", "C3", "0.75"), strict=True))


class Regimes(Experiment):
    r"""Is there a phase in which dimensions are lost and nothing is copied?"""

    name = "regimes"
    title = "Between generalization and copying"
    quote = (
        "identifying geometric memorization as a distinct phase between generalization and exact "
        "copying"
    )
    claim = (
        "The N below which half of the samples are copies should lie below the N at which half of "
        f"the dimension is lost, at {LEVEL} rms."
    )
    limits = (
        "Small networks, short trainings, small pictures and a plane; a sample that is near "
        "another sample and not near the data needs a pair to be seen, so that spurious samples "
        "are undercounted among 128 or 256. A cell of the map rests on two or three trainings."
    )
    usual_sets = SETS

    def trainings(self, scale: Scale) -> Runs:
        r"""The trainings on digits, on Gaussian samples of the plane, and on sets of images."""
        own: Runs = {FOLDER: digits_sweep(scale), PLANE: linear_sweep("gaussian", scale)}
        return {**own, **trainings(self.sets, scale)}

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Copies, spurious samples and lost dimension by N and step, and where they cross 1/2."""
        found = finished(out, self.sets, scale, least=0)
        several = {"digits": load(out / FOLDER), "plane": load(out / PLANE), **found}
        rows, ends, curves, phase = [], {}, {}, []
        for data, dataset in several.items():
            known = phases(dataset)
            for name, mine in networks(data, known).items():
                one = known.isel(subject=mine)
                curves[name] = _plain(one)
                rows += _rows(name, one)
                last = one.isel(subject=one.step.values == one.step.values.max())
                last = last.sortby("num_samples")
                sizes = last.num_samples.values
                phase.append(_phase(name, last))
                # Of few held-out images copies are not calibrated: nothing to cross.
                if not np.isfinite([last.copies.values, last.lost.values]).all():
                    continue
                ends[name] = (
                    crossing(sizes, last.copies.values, _stderr(last, "copies")),
                    crossing(sizes, last.lost.values, last.lost_stderr.values),
                    [int(n) for n in sizes],
                )
        verdict, why = _of_phases(ends)
        return Judgement(
            verdict,
            why,
            [
                ran_digits(scale),
                "Gaussian samples of the paper's plane: the trainings of the linear experiments, "
                "with 256 samples of each network.",
                *ran(found, scale),
                *missing(out, self.sets, scale),
                "The lost share is that of a control that was trained as long, see the page on "
                "epochs; that was added after a first look at shares of early and narrow networks.",
                "Samples: 256 of each network on digits and plane, 128 on the other sets, from the "
                "same noise for all trainings of a set.",
            ],
            [
                Table(
                    "N at which each falls below one half after the last step (95 % interval)",
                    ["networks", "copies", "lost dimension"],
                    [[name, span(a, n), span(b, n)] for name, (a, b, n) in ends.items()],
                ),
                Table(
                    "Sizes by regime after the last step",
                    ["networks", *WORDS],
                    phase,
                ),
                Table(
                    f"Samples (95 % interval of copies), and at {LEVEL} rms the lost share and the "
                    "dimension kept at training / held-out images",
                    ["networks", "N", "steps", "copies", "spurious", "new", "lost share",
                     "dimension, training / held-out", "regime"],
                    rows,
                ),
            ],
            curves,
        )  # fmt: skip

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Shares against N after the last step, and the regime of each size and step."""
        return _figure(document["curves"])


# ------------------------------------------------------------------------------- numbers


def phases(dataset: xr.Dataset) -> xr.Dataset:
    r"""Fractions of samples, lost share and dimension of each row of networks of a run.

    Returns:
        Over ``subject``: ``copies``, with ``_low`` and ``_high`` (95 %), ``spurious`` and
        ``new_samples``, as shares of the samples; at one level ``lost``,
        ``training_dimension`` and ``held_out_dimension``, with ``_stderr``; and ``word``.
    """
    known = group_numbers(dataset, WHOLE, as_long=True).isel(group=0)
    level = int(np.abs(np.log(known.sigma_relative.values / LEVEL)).argmin())
    rows = [row for row in rows_of(dataset) if row.kind == "learned"]
    samples = copy_numbers(dataset, [row.members for row in rows])
    at = known.isel(sigma=level)
    found: dict[str, Any] = {"lost": at.share, "lost_stderr": at.share_stderr}
    for name in ("training_dimension", "held_out_dimension"):
        found |= {name: at[name], f"{name}_stderr": at[f"{name}_stderr"]}
    blank = np.full(len(rows), np.nan)
    for name in ("copies", "spurious", "new_samples"):
        values = samples[name] / samples[f"{name}_of"] if name in samples else blank
        found[name] = ("subject", np.asarray(values))
    for end in ("copies_low", "copies_high"):
        found[end] = ("subject", np.asarray(samples.get(end, blank)))
    one = xr.Dataset(found)
    words = [word_of(one.isel(subject=k)) for k in range(len(rows))]
    return one.assign(word=("subject", np.array(words, dtype=object)))


def word_of(cell: xr.Dataset) -> str:
    r"""The regime of one cell, by the ends of its intervals."""
    copies, low, high = (float(cell[f"copies{end}"]) for end in ("", "_low", "_high"))
    lost, error = float(cell.lost), 1.96 * float(cell.lost_stderr)
    if not np.isfinite([copies, lost, error]).all():
        return "undecided"
    if low >= HALF:
        return "full"
    if lost - error >= QUARTER:
        if high <= RARE:
            return "geometric, no copies"
        return "geometric" if high < HALF else "undecided"
    if lost + error < QUARTER and low <= RARE:
        return "generalization"
    return "undecided"


def _stderr(last: xr.Dataset, name: str) -> np.ndarray:
    return np.asarray((last[f"{name}_high"] - last[f"{name}_low"]).values / 3.92)


def _rows(name: str, one: xr.Dataset) -> list[list[str]]:
    rows = []
    for k in range(one.sizes["subject"]):
        cell = one.isel(subject=k)
        copies, low, high = (float(cell[f"copies{end}"]) for end in ("", "_low", "_high"))
        known = np.isfinite([copies, low, high]).all()
        shares = [float(cell[n]) for n in ("spurious", "new_samples")]
        kept = [
            repr(Estimate(float(cell[n]), float(cell[f"{n}_stderr"])))
            for n in ("training_dimension", "held_out_dimension")
        ]
        rows.append(
            [name, f"{int(cell.num_samples):,}", f"{int(cell.step):,}"]
            + [f"{copies:.2f} ({low:.2f} to {high:.2f})" if known else "not calibrated"]
            + [f"{v:.2f}" if np.isfinite(v) else "not calibrated" for v in shares]
            + [repr(Estimate(float(cell.lost), float(cell.lost_stderr)))]
            + [" / ".join(kept), str(cell.word.item())]
        )
    return rows


def _phase(name: str, last: xr.Dataset) -> list[str]:
    sizes, words = last.num_samples.values, last.word.values
    cells = [", ".join(f"{int(n):,}" for n in sizes[words == word]) or "–" for word in WORDS]
    return [name, *cells]


def _plain(one: xr.Dataset) -> dict[str, Any]:
    def short(name: str) -> list[float | None]:
        return [float(f"{v:.4g}") if np.isfinite(v) else None for v in one[name].values]

    names = ("copies", "copies_low", "copies_high", "spurious", "lost", "lost_stderr")
    return {
        "num_samples": [int(n) for n in one.num_samples.values],
        "steps": [int(s) for s in one.step.values],
        **{name: short(name) for name in names},
        "word": [str(w) for w in one.word.values],
    }


def _of_phases(ends: Mapping[str, tuple[Crossing, Crossing, Any]]) -> tuple[Verdict, str]:
    before = {name: a[2] < b[1] for name, (a, b, _) in ends.items()}
    after = {name: a[1] > b[2] for name, (a, b, _) in ends.items()}
    text = "; ".join(
        f"{name}: copies {span(a, n)}, dimension {span(b, n)}" for name, (a, b, n) in ends.items()
    )
    why = f"N at one half: {text}."
    return verdict_of(all(before.values()), any(before.values()), all(after.values())), why


# -------------------------------------------------------------------------------- figure


def _figure(curves: Mapping[str, Any]) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(2.5 * max(2, len(curves)) + 0.6, 5.6), layout="constrained")
    grid = figure.subplots(2, len(curves), squeeze=False, sharex="col", sharey="row")
    for column, (name, one) in zip(grid.T, curves.items(), strict=True):
        steps, sizes = np.array(one["steps"]), np.array(one["num_samples"])
        last = np.flatnonzero(steps == steps.max())
        last = last[np.argsort(sizes[last])]

        def values(key: str, one: Mapping[str, Any] = one, last: np.ndarray = last) -> np.ndarray:
            return np.asarray(np.array(one[key], float)[last])

        x = sizes[last]
        bars = np.abs(np.stack([values("copies_low"), values("copies_high")]) - values("copies"))
        column[0].errorbar(x, values("copies"), bars, fmt="s-", color="C3", ms=4, label="copies")
        column[0].plot(x, values("spurious"), "^--", color="C4", ms=4, label="spurious")
        column[0].errorbar(
            x, values("lost"), values("lost_stderr"), fmt="o-", color="C0", ms=4, label="lost share"
        )
        column[0].axhline(HALF, color="0.7", lw=0.8)
        column[0].set_title(name, fontsize=9)
        column[1].scatter(sizes, steps, c=[COLOURS[w] for w in one["word"]], s=70, marker="s")
        column[1].set(xscale="log", yscale="log")
        column[1].set_xlabel("training images N", fontsize=8)
        column[1].margins(0.2)
    grid[0, 0].set_ylabel("share, last step", fontsize=9)
    grid[1, 0].set_ylabel("steps", fontsize=9)
    grid[0, 0].legend(frameon=False, fontsize=7)
    for ax in grid.flat:
        ax.tick_params(labelsize=7)
        ax.xaxis.set_minor_formatter(NullFormatter())  # labels of less than a decade overlap
        ax.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], marker="s", ls="", color=colour, label=word)
        for word, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure
