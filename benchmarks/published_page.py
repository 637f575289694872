r"""Writes docs/published.md from the recorded results: no number of ours in it is typed by hand.

python benchmarks/published_page.py          writes the page
python benchmarks/published_page.py --check  fails if the page is not what the results say

Numbers of others stand here, beside the source they are from. Verdicts follow from the numbers by
the rules below, and so does what the page says first: where ours is the worse.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import published_tables as tables
from published_tables import Row, pm
from table_cells import load, number, table, write_page

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "published.md"

INTRO = """# Numbers that others published, beside ours

Written by `python benchmarks/published_page.py` from `benchmarks/results/published`; each row is a
script of `benchmarks/published`, a function of a seed (or of the records of a run), of minutes on
one core. ± is one standard error over the units that a row names. *Reproduced* means within three
joint standard errors, or within 5 % where theirs is an approximation in closed form; *not
comparable* says why. Settings of others are from their configurations and code.
"""


def spheres(r: dict[str, Any]) -> Row:
    rows = r["rows"]
    low = min(row["sigma"] for row in rows)
    exact, networks = (
        [row for row in rows if row["denoiser"] == kind and row["sigma"] == low]
        for kind in ("exact", "network")
    )
    said = {
        name: [sum(row["as they draw"][k] for row in part) for k in range(3)]
        for name, part in (("exact", exact), ("network", networks))
    }
    n = sum(said["network"])
    kept = [pm(row["kept along the radius"]) for row in networks]
    if said["network"][1] > n / 2 and said["exact"][0] > n / 2:
        verdict = (
            "**reproduced** with networks; **off by one** from the exact denoiser of the same "
            "data, which says k: the + 1 is what networks keep along the radius, no dimension of "
            "the data"
        )
    elif said["exact"][0] > n / 2:
        verdict = "**off by one**: the exact denoiser says k, and so do our networks"
    else:
        verdict = "**not reproduced**"
    return Row(
        "normal bundle on k-spheres",
        "11 for k = 10, 51 for k = 50; R^100, 50,000 points, noise .01 to 4, 5 layers of 2048 "
        "(Stanczuk et al. 2022, `configs/dimension_estimation/paper/euclidean_data/ksphere`)",
        f"at σ = {low:g}: exact denoisers say k at {said['exact'][0]} and k + 1 at "
        f"{said['exact'][1]} of {sum(said['exact'])} points; networks k at {said['network'][0]}, "
        f"k + 1 at {said['network'][1]} of {n}, and keep {' and '.join(kept)} of a step along the "
        "radius, where the data keep "
        f"{pm(exact[0]['kept along the radius'])}",
        verdict,
        "spheres",
    )


def crossover(r: dict[str, Any]) -> Row:
    off = {row["sigma"]: row["generalizing"][0] / row["theirs, generalizing"] - 1 for row in
           r["rows"]}  # fmt: skip
    near = [row for row in r["rows"] if abs(off[row["sigma"]]) < CLOSE]
    far = [off[row["sigma"]] for row in r["rows"] if row not in near]
    said = []
    for name in ("points and means", "points"):
        known = [row for row in near if row[f"crossover, {name}"] is not None]
        shift = [row[f"crossover, {name}"][0] - row["theirs, crossover"] for row in known]
        said.append(f"{min(shift):+.3f} to {max(shift):+.3f}" if shift else "none")
    top = max((row["sigma"] for row in near), default=0.0)
    worst = max((abs(off[row["sigma"]]) for row in near), default=0.0)
    return Row(
        "memorizing pays from M of N on",
        "excess losses d v/(1 + SNR v) and d v (1 - M/N), hence M*/N = v/(v + σ²); d = 30, K = 4, "
        "N = 100, v = 1 (Buchanan et al. 2025, `loss_approximations.py`; a recovered crossover of "
        "about 4/5 N is from secondary sources)",
        f"generalizing loss within {100 * worst:.1f} % of theirs up to σ = {top:g}; M*/N minus "
        f"theirs {said[0]} where the memorizing denoiser knows points and the means, {said[1]} "
        f"where it knows points alone; {r['training_sets']} training sets, exact denoisers",
        (
            f"**reproduced** up to σ = {top:g}; the crossover lies above theirs by about K/N, "
            "because means take components, too"
            if near
            else "**not reproduced**"
        )
        + (
            f"; **off by** up to {100 * max(map(abs, far)):.0f} % above, where training points "
            "overlap and the approximation, of large d, ends"
            if far
            else ""
        ),
        "crossover",
    )


# A closed-form approximation of theirs holds where ours, exact, is within this share of it.
CLOSE = 0.05


def two_denoisers(r: dict[str, Any]) -> Row:
    rows = r["rows"]
    z = [(row["q"][0] - row["theirs"]) / row["q"][1] for row in rows]
    off = [100 * (row["q"][0] / row["theirs"] - 1) for row in rows]
    known = ", ".join(f"{pm(row['q'])} at {row['load']:g}" for row in rows if row["load"] in SHOWN)
    theirs = ", ".join(f"{row['theirs']:.3f} at {row['load']:g}" for row in rows if
                       row["load"] in SHOWN)  # fmt: skip
    close = max(map(abs, z)) < 3
    return Row(
        "two models of disjoint white data",
        f"q = (∫ √x dMP)²: {theirs} (N/d); derived from their model, which draws C^½ z (Maillard & "
        "Goldt 2026, arXiv 2605.21402)",
        f"{known}; d = {r['dim']}, {r['pairs']} pairs, Gaussian denoisers through our sampler",
        "**reproduced**"
        if close
        else f"**off by** at most {max(map(abs, off)):.1f} % (largest z {max(z, key=abs):+.1f})",
        "two_denoisers",
    )


SHOWN = (0.5, 1.0, 2.0, 10.0)


def local_machine(r: dict[str, Any]) -> Row:
    found = r["network"]["r_squared"]
    median = {name: float(np.median(values["samples"])) for name, values in found.items()}
    denoised = {
        name: float(np.median(np.concatenate(values["denoised"]))) for name, values in found.items()
    }
    return Row(
        "local machines against networks",
        "median correlation of samples, equivariant and local machine with ResNets: .95 "
        "(CIFAR-10), .94 (Fashion-MNIST), .94 (MNIST), .77 with attention; published as r², but "
        "correlations in their script are not squared (Kamb & Ganguli 2025)",
        f"r² of samples {median['local']:.2f} local, {median['equivariant']:.2f} equivariant, "
        f"{median['linear']:.2f} linear, {median['empirical']:.2f} empirical; of denoised images "
        f"{denoised['local']:.2f}, {denoised['equivariant']:.2f}, {denoised['linear']:.2f}, "
        f"{denoised['empirical']:.2f}; MNIST, six convolutions, "
        f"{r['network']['sizes']['training']} images, {r['network']['sizes']['samples']} samples",
        "**not comparable**, because our network is minutes on two cores; as in theirs, machines "
        + (
            "of patches explain more than the empirical denoiser"
            if min(median["local"], median["equivariant"]) > median["empirical"]
            else "differ, but not in their order"
        ),
        "",
    )


def onset(r: dict[str, Any]) -> Row:
    rows, last = r["rows"], r["exponent"][-1]
    sizes = sorted({row["N"] for row in rows})
    said = [
        f"{pm(pair)} for {100 * share:.0f} % copies"
        for pair, share in zip(r["exponent"], r["shares"], strict=True)
    ]
    # Where the error at new points is least at the first look, there was no time to generalize.
    at_once = sum(row["generalizes"] <= row["steps"][0] for row in rows)
    if abs(last[0] - 1) < 3 * last[1]:
        verdict = "**reproduced**, at sizes far below theirs"
    else:
        verdict = f"**off by** {last[0] - 1:+.2f} in the exponent"
    if at_once == len(rows):
        verdict += (
            ", and **not comparable**, because at sizes of minutes networks of this width overfit "
            "from the first look on: a time at which they generalize, which the claim divides "
            "from that of copying, is never seen"
        )
    return Row(
        "onset of copying",
        "training time proportional to N (exponent 1), time to generalize constant (0); Gaussian "
        "mixture, d = 8, N = 4,096, width 128, Adam 6e-4, copies by d1/d2 < 1/3 (Bonnaire et al. "
        "2025, `run_GMM.py`)",
        f"exponent {', '.join(said)}; N = {sizes[0]} to {sizes[-1]}, {len(rows)} trainings; at "
        f"{at_once} of them the error at new points was least at the first look",
        verdict,
        "onset",
    )


def effective(r: dict[str, Any]) -> Row:
    said = []
    for run in r["runs"]:
        rows = {row["N"]: row for row in run["rows"]}
        least = rows[min(rows)]
        found = (
            f"N = {run['emm']}"
            if run["emm"]
            else f"below N = {min(rows)}, where {100 * least['share'][0]:.0f} % are memorized "
            f"({100 * least['share'][1]:.0f} to {100 * least['share'][2]:.0f} %)"
        )
        said.append(f"{run['data']} {found}")
    samples = r["runs"][0]["samples"]
    return Row(
        "effective model memorization",
        "the largest N with 90 % of 10,000 samples at a ratio below 1/3, best snapshot, U-Nets of "
        "EDM on CIFAR-10, 8 A100 (Gu et al. 2023, `mem_ratio.py`)",
        f"{'; '.join(said)}; {samples} samples a training, U-Nets of "
        f"{min(run['parameters'] for run in r['runs']):,} parameters, "
        f"{max(run['setting']['steps'] for run in r['runs']):,} steps",
        "**not comparable**, because networks, trainings and images are far smaller here",
        "effective",
    )


def agreement(r: dict[str, Any]) -> Row:
    said = []
    for run in r["runs"]:
        first, last = run["rows"][0], run["rows"][-1]
        ratios = [worst_ratio(row) for row in (first, last)]
        agree = [row["agreement"] for row in (first, last)]
        both = f", agreement {pm(agree[0])} and {pm(agree[1])}" if None not in agree else ""
        said.append(
            f"{run['data']}: {pm(ratios[0])} at N = {first['N']:,}, {pm(ratios[1])} at "
            f"{last['N']:,}{both}"
        )
    return Row(
        "training error is the error on new images",
        "from N of about 100,000 on, where two networks of disjoint images draw the same; faces "
        "of 80 x 80, bias-free U-Nets (Kadkhodaie et al. 2024)",
        "training over held-out error at the level where they differ most: " + "; ".join(said),
        "**not comparable**, because images are smaller, trainings of equal steps end before they "
        "memorize larger sets, and the trainings of a size share their images",
        "agreement",
    )


def worst_ratio(row: dict[str, Any]) -> list[float]:
    pair: list[float] = min((level["ratio"] for level in row["levels"]), key=lambda p: p[0])
    return pair


def sets_of(r: dict[str, Any]) -> str:
    r"""The methods of each set at their best level: error, and concordance where there is one."""
    said = []
    for name, one in r["sets"].items():
        best = {m: min(rows, key=lambda row: row["error"][0]) for m, rows in one["methods"].items()}
        numbers = [
            f"{short(m)} {pm(row['error'])}"
            + (f" ({row['concordance'][0]:.2f})" if row["concordance"] else "")
            for m, row in best.items()
        ]
        said.append(f"*{name}*: " + ", ".join(numbers))
    return "; ".join(said)


def short(method: str) -> str:
    return method.removesuffix(" (Yeats et al.)")


def flipd_sets(r: dict[str, Any]) -> Row:
    return Row(
        "sets of FLIPD",
        "MAE and concordance index of trained networks on lollipop (4 : 2 : 1), affine 10, 25, 50 "
        "in 100, squiggles 200 in 2,000 (Kamkari et al. 2024, `conf/dataset`)",
        "MAE at the best level (concordance), exact denoisers: " + sets_of(r),
        "**not comparable**, because theirs are networks and include what these fail to learn; "
        "of an exact denoiser what is left is the estimator's own error. Squiggles of 200 have no "
        "known denoiser",
        "flipd_sets",
    )


def yeats_sets(r: dict[str, Any]) -> Row:
    return Row(
        "sets of Yeats et al.",
        "MAE of networks on 2,000 points, σ of .01, .02, .05: hypersphere 16/64, hyperball 16/64, "
        "twin peaks 128/256, Clifford torus 32/128, nonlinear 32/128 (arXiv 2510.12975, "
        "`benchmark.py`)",
        "MAE at the best level, exact denoisers: " + sets_of(r),
        "**not comparable**, because theirs are networks; twin peaks and nonlinear have no known "
        "denoiser",
        "yeats_sets",
    )


def losses(known: dict[str, dict[str, Any]]) -> list[str]:
    r"""Where ours is the worse, in a sentence each."""
    said = []
    for name in ("flipd_sets", "yeats_sets"):
        for where, one in known.get(name, {"sets": {}})["sets"].items():
            said += [text for text in tables.lost_on(where, one) if text]
    if "onset" in known:
        slope, error = known["onset"]["exponent"][-1]
        if abs(slope - 1) > 3 * error:
            said.append(
                "That the onset of copying is proportional to N (Bonnaire et al.) is not seen: the "
                f"exponent is {pm([slope, error])}, at sizes that minutes of one core allow."
            )
    if "effective" in known:
        said.append(
            "At the scale of two cores nothing is said of the sizes at which large networks "
            "memorize: our U-Nets copy less, of fewer images, than those of Gu et al. and "
            "Kadkhodaie et al."
        )
    if "local_machine" in known:
        median = known["local_machine"]["network"]["r_squared"]["local"]["samples"]
        said.append(
            f"The local machine explains {float(np.median(median)):.2f} of the variance of our "
            "network's samples, less than the squares of what Kamb & Ganguli report for theirs."
        )
    return said


ROWS = {
    "spheres": spheres,
    "crossover": crossover,
    "two_denoisers": two_denoisers,
    "local_machine": local_machine,
    "onset": onset,
    "effective": effective,
    "agreement": agreement,
    "flipd_sets": flipd_sets,
    "yeats_sets": yeats_sets,
}


def page() -> str:
    known = {}
    for name in ROWS:
        place = name if name == "local_machine" else f"published/{name}"
        if (HERE / "results" / f"{place}.json").exists():
            known[name] = load(place)
    rows = [ROWS[name](found) for name, found in known.items()]
    text = INTRO + "\n## Where we lose\n\n"
    text += "".join(f"* {said}\n" for said in losses(known))
    text += "\n## All rows\n\n" + table(
        ["what", "theirs", "ours", "verdict"],
        [[row.what, row.theirs, row.ours, row.verdict] for row in rows],
    )
    for name, found in known.items():
        section = tables.SECTIONS.get(name)
        if section:
            title, write = section
            seconds = f", {number(found['cpu_seconds'])} s" if "cpu_seconds" in found else ""
            text += f"\n## {title}\n\n`{found['command']}`{seconds}.\n\n{write(found)}"
    return text


def main() -> int:
    return write_page(__doc__, PAGE, page)


if __name__ == "__main__":
    sys.exit(main())
