r"""Writes docs/calibration.md from the recorded results: no number in it is typed by hand.

python benchmarks/calibration_page.py          writes the page
python benchmarks/calibration_page.py --check  fails if the page is not what the results say
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from table_cells import load, number, table, write_page

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "calibration.md"

INTRO = """# Calibration: are errors and p-values what they say?

Written by `python benchmarks/calibration_page.py` from `benchmarks/results/`. Numbers of a run
carry errors and a p-value; here they are asked of runs whose answer is known.
"""
SIDES = """
`R²` is the squared correlation, image by image, of the network's errors with the control's, least
and largest of all levels: how much of an image's difficulty the control knows. What it knows does
not blur the answer. The plain gap, held-out minus training loss, has no control and holds the
excess on new images, too: it is another quantity, and beside it stands only its error.
"""


def share(found: dict[str, Any]) -> str:
    if not found["of"]:
        return "none"
    low, high = (f"{100 * v:.1f}" for v in found["interval"])
    return f"{found['count']} of {found['of']} ({low} to {high} %)"


def with_error(pair: list[float]) -> str:
    return f"{pair[0]:.1f} ± {pair[1]:.1f}"


def nulls(found: dict[str, Any]) -> str:
    settings = found["settings"]
    said = (
        f"{settings['points']} training and {settings['points']} held-out images, "
        f"{settings['levels']} levels, {settings['draws']} draws; the denoiser knows no more of "
        "the ones than of the others. Told apart means p ≤ 5 %; not alike, that the two sets of "
        "images are refused as evidence before any network is looked at (p ≤ 1 %).\n\n"
    )
    rows = [
        [
            name,
            share(row["told_apart"]),
            share(row["not_alike"]),
            share(row["told_apart_where_alike"]),
        ]
        for name, row in found["nulls"].items()
    ]
    header = ["nothing is memorized", "told apart", "not alike", "told apart, of those alike"]
    return f"## Nulls\n\n`{found['command']}`, {found['minutes']:.0f} minutes.\n\n{said}" + table(
        header, rows
    )


def planted(found: dict[str, Any]) -> str:
    known = found["planted"]
    intro = (
        "\n## A known part\n\nThree of ten directions are the exact denoiser's of 1,024 training "
        "points, 64 of which are measured; the others are the population's. 95 % intervals over "
        f"images held the truth, the mean over all 1,024 with other noise, in {known['runs']} "
        "runs:\n\n"
    )
    rows = [[name, share(held)] for name, held in known["held"].items()]
    end = (
        f"\nz-scores: mean {known['mean_z']:.2f}, largest {known['largest_z']:.1f}; within three "
        f"errors {share(known['within_3_errors'])}. Outside the planted directions the largest "
        f"number of nats is {known['largest_outside_the_block']:.1g}.\n"
    )
    return intro + table(["information", "intervals that held"], rows) + end


def reference(found: dict[str, Any]) -> str:
    text = (
        f"\n## What a reference network buys\n\n`{found['command']}`: both sweeps, three trainings "
        "a size (seeds 0, 1, 2). Nats ± over images, mean of the trainings; in brackets the "
        "spread between trainings.\n"
    )
    for name, one in found["sweeps"].items():
        low, high = one["window_rms"]
        text += (
            f"\n### {name}\n\nWindow {low:.2g} to {high:.2g} rms; the reference was trained on "
            f"{one['reference_images']:,} other images.\n\n"
        )
        rows, precise = [], []
        for row in one["rows"]:
            nats = [
                f"{with_error(row[k])} ({row[k + '_spread']:.1f})"
                for k in ("reference", "linear", "plain_gap", "excess")
            ]
            auc = [f"{row[k][0]:.3f}" for k in ("auc", "auc_plain_loss")]
            r2 = [" to ".join(f"{v:.2f}" for v in row[f"r2_{k}"]) for k in ("reference", "linear")]
            rows.append([f"{row['num_samples']:,}", *nats, " / ".join(auc), *r2])
            ratio = row["linear"][1] / row["reference"][1]
            errors = [
                number(row[f"{k}_error_at_10000_calls"][0])
                for k in ("reference", "linear", "plain_gap")
            ]
            precise.append([f"{row['num_samples']:,}", number(ratio), *errors])
        header = ["N", "beside the reference", "beside linear", "plain gap", "excess"]
        text += table([*header, "AUC: reference / plain loss", "R², reference", "R², linear"], rows)
        text += "\n" + table(
            [
                "N",
                "linear's error / reference's",
                "error at 10,000 calls, reference",
                "linear",
                "plain gap",
            ],
            precise,
        )
    return text + SIDES


def page() -> str:
    known, runs = load("calibration"), load("reference_control")
    made = ", ".join(f"{k}: {v}" for k, v in known["versions"].items() if v)
    return INTRO + "\n" + nulls(known) + planted(known) + reference(runs) + f"\n{made}.\n"


def main() -> int:
    return write_page(__doc__, PAGE, page)


if __name__ == "__main__":
    sys.exit(main())
