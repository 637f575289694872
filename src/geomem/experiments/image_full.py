r"""Full pictures beside small ones: whether what the small ones show is a matter of their size.

The same recipe and the same network on pictures as they are (28 x 28, 32 x 32, 64 x 64) and
scaled down to 14 x 14 or 16 x 16, at two sizes N. Nats of different pictures are not comparable,
shares of the control's are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.experiments.experiment import (
    Experiment,
    Judgement,
    Runs,
    Scale,
    Table,
    Verdict,
    verdict_of,
)
from geomem.experiments.image_dimension import ImageDimension, column, nearest_level
from geomem.experiments.images import (
    LEVEL,
    SETS,
    WHOLE,
    folder_of,
    full_of,
    sweep_of,
)
from geomem.findings.groups import group_numbers
from geomem.runs.load import load
from geomem.stats import Estimate

SURE = 3.0  # joint standard errors


class FullPictures(Experiment):
    r"""The small recipe on full pictures, two sizes N of each set."""

    name = "images-full"
    title = "Full pictures beside small ones"
    quote = ImageDimension.quote
    source = ImageDimension.source
    claim = (
        "On full pictures, too, the share of the control's information that is memorized should "
        f"fall from the smaller to the larger N by more than {SURE:g} joint errors, and lie "
        "between none and all of it."
    )
    limits = (
        "One training of each, 2,000 steps of 32 of the same small network: full pictures ask for "
        "larger networks and longer training, with which more would be memorized."
    )
    gpu_limits = limits
    usual_sets = SETS

    def trainings(self, scale: Scale) -> Runs:
        r"""Full and small pictures of each set: hours on two cores, minutes on a card."""
        full = {_folder(data): full_of(data) for data in self.sets}
        return full | {folder_of(data): sweep_of(data, "cpu") for data in self.sets}

    def judge(self, out: Path, scale: Scale) -> Judgement:
        r"""Shares at both sizes N, full beside small.

        Raises:
            InputError: If no set has full pictures at both sizes.
        """
        curves = {}
        for data in self.sets:
            sweep = full_of(data)
            sizes, last = [int(n) for n in sweep.sizes], int(sweep.steps or 0)
            full = _shares(out / _folder(data), sizes, last)
            if full is None:
                continue
            small = _shares(out / folder_of(data), sizes, last)
            curves[data] = {"sizes": sizes, "full": full, "small": small}
        if not curves:
            raise InputError(
                f"in {out} no set has networks on full pictures at both sizes yet; run the same "
                "command again, and let it finish"
            )
        verdict, why = _verdict(curves)
        recipe = full_of(self.sets[0]).training
        return Judgement(
            verdict,
            why,
            [
                f"U-Nets of 16, 32, 32 channels, {recipe.steps:,} steps of {recipe.batch_size}, "
                "one training on full pictures, two on small ones; 64 training and 64 held-out "
                "images, 10 levels. ± is over images and trainings.",
                *(
                    f"Nothing is there yet of {data} in full."
                    for data in self.sets
                    if data not in curves
                ),
            ],
            [
                Table(
                    "Share of the control's information that is memorized, nats per image, and "
                    f"lost share of its dimension at {LEVEL} rms",
                    ["set", "N", "pixels", "control", "share", "nats",
                     f"lost at {LEVEL} rms"],
                    [row for data, one in curves.items() for row in _rows(data, one)],
                )
            ],
            curves,
        )  # fmt: skip

    def draw(self, document: Mapping[str, Any]) -> Figure:
        r"""Shares against N, a panel a set; full solid, small dashed."""
        return _figure(document["curves"])


def _folder(data: str) -> str:
    return folder_of(data).replace("images-", "full-", 1)


def _shares(path: Path, sizes: Sequence[int], step: int) -> dict[str, Any] | None:
    # What a run says at these sizes; nothing where it lacks one.
    if not (path / "config.json").exists():
        return None
    dataset = load(path)
    known = group_numbers(dataset, WHOLE).isel(group=0)
    known = known.isel(subject=known.step.values == step)
    there = [int(n) for n in known.num_samples.values]
    if not set(sizes) <= set(there):
        return None
    known = known.isel(subject=[there.index(n) for n in sizes])
    return {
        "pixels": int(dataset.attrs["ambient_dim"]),
        "control": dataset.attrs["control"],
        "share": column(known, "whole_share"),
        "nats": column(known, "nats"),
        "lost": column(known.isel(sigma=nearest_level(known, LEVEL)), "share"),
    }


def _verdict(curves: Mapping[str, Mapping[str, Any]]) -> tuple[Verdict, str]:
    falls, parts = {}, []
    for data, one in curves.items():
        few, many = (Estimate(*pair) for pair in one["full"]["share"])
        falls[data] = few.z_score(many) > SURE and few.z_score(Estimate(0.0, 0.0)) > SURE
        falls[data] &= few.value < 1
        text = f"{data} {few} at N = {one['sizes'][0]:,} and {many} at {one['sizes'][1]:,}"
        if one["small"] is not None:
            small = (repr(Estimate(*pair)) for pair in one["small"]["share"])
            text += f" (small pictures {' and '.join(small)})"
        parts.append(text)
    why = f"Memorized share on full pictures: {'; '.join(parts)}."
    return verdict_of(all(falls.values()), any(falls.values()), not any(falls.values())), why


def _rows(data: str, one: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for k, size in enumerate(one["sizes"]):
        for found in (one["full"], one["small"]):
            if found is not None:
                cells = (repr(Estimate(*found[name][k])) for name in ("share", "nats", "lost"))
                rows.append([data, f"{size:,}", str(found["pixels"]), found["control"], *cells])
    return rows


def _figure(curves: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(2.6 * len(curves) + 0.8, 3.2), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for ax, (data, one) in zip(axes, curves.items(), strict=True):
        for name, style, colour in (("full", "o-", "C0"), ("small", "s--", "C1")):
            if one[name] is None:
                continue
            share, error = np.array(one[name]["share"]).T
            ax.errorbar(one["sizes"], share, error, fmt=style, color=colour, ms=4, lw=1.2,
                        elinewidth=0.8, label=f"{name} pictures")  # fmt: skip
        ax.set_title(data, fontsize=9)
        ax.set(xscale="log", xlabel="training images N", xlim=(70, 1400))
        ax.set_xticks(one["sizes"], [f"{n:,}" for n in one["sizes"]], minor=False)
        ax.minorticks_off()
        ax.axhline(0, color="0.8", lw=0.8, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    axes[0].set_ylabel("memorized share")
    handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(),
                                                           strict=True)}  # fmt: skip
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2,
                  frameon=False, fontsize=8)  # fmt: skip
    return figure
