r"""What each number and table of the results pages is, in terms of the files beside this one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geomem.stats import Estimate

HERE = Path(__file__).parent
Document = dict[str, Any]


@dataclass
class Page:
    r"""Numbers by key, as the text writes them, and tables by key."""

    numbers: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)


def of(page: str) -> Page:
    r"""The numbers and tables of a page, such as ``sphere.md``."""
    name, read = PAGES[page]
    return read(json.loads((HERE / name).read_text(encoding="utf-8")))


def bare(text: str) -> str:
    r"""Without the zero before the point, as the text writes numbers.

    Example:
        >>> bare("-0.0062 ± 0.0021")
        '-.0062 ± .0021'
    """
    parts = [p.removeprefix("-") for p in text.split(" ± ")]
    parts = [p[1:] if p.startswith("0.") else p for p in parts]
    return ("-" if text.startswith("-") else "") + " ± ".join(parts)


def pm(pair: Sequence[float]) -> str:
    r"""A value and its error, as tables write them."""
    return str(Estimate(*pair))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def value(text: str) -> Estimate:
    r"""What a table wrote: "0.5293 ± 0.0015"."""
    return Estimate(*(float(part) for part in text.split(" ± ")))


def joint(a: Estimate, b: Estimate) -> float:
    r"""How far apart two estimates are, in joint standard errors."""
    return abs(a.value - b.value) / math.hypot(a.stderr, b.stderr)


# --- When are directions of higher variance lost first? ---------------------------------


def higher(document: Document) -> Page:
    rows = document["summary"]

    def of_kind(kind: str, name: str, spectra: Sequence[str] | None = None) -> list[Any]:
        return [
            r[name]
            for r in rows
            if r["points"] == kind and (not spectra or r["spectrum"] in spectra)
        ]

    def extreme(found: list[Document], sign: int) -> str:
        best = max(found, key=lambda e: sign * e["value"])
        return bare(pm((best["value"], best["stderr"])))

    def percent(share: float) -> str:
        return f"{100 * share:.0f}"

    small = ("1 × 1, .09 × 2", "1 × 2, .09 × 5 (the paper's)", "k^-2, 4 directions")
    large = ("1 × 20, .09 × 50", "1/k, 20 directions")
    crossing = document["crossing"]
    pairs = {n: (Estimate(*c["high"]), Estimate(*c["low"])) for n, c in crossing.items()}
    z = {n: joint(*pair) for n, pair in pairs.items()}
    apart = [low.value / high.value - 1 for high, low in pairs.values()]
    factors = {n: [c[f"paper_{g}"] / c[g][0] for g in ("high", "low")] for n, c in crossing.items()}
    many = "1 × 20, .09 × 50"
    few = [f for n, pair in factors.items() if n != many for f in pair]
    marked = ("1 × 2, .09 × 5 (the paper's)", "1/k, 20 directions")
    first, more = of_kind("planted", "d_high_first"), of_kind("planted", "r_low_first")
    fresh, centre = of_kind("fresh", "r_high_first"), of_kind("centre", "r_high_first", small)
    numbers = {
        "missing_first_least": percent(min(first)),
        "missing_first_most": percent(max(first)),
        "missing_most": extreme(of_kind("planted", "d_highest"), 1),
        "kept_lowest": extreme(of_kind("planted", "r_lowest"), -1),
        "kept_more_least": percent(min(more)),
        "kept_more_most": percent(max(more)),
        "kept_highest": extreme(of_kind("planted", "r_highest"), 1),
        "centre_first_most": percent(max(centre)),
        "centre_first_least": percent(min(centre)),
        "centre_by": bare(f"{-min(e['value'] for e in of_kind('centre', 'r_lowest')):.3f}"),
        "centre_first_large": percent(max(of_kind("centre", "r_high_first", large))),
        "fresh_first": percent(max(fresh)),
        "fresh_by": bare(f"{-min(e['value'] for e in of_kind('fresh', 'r_lowest')):.3f}"),
        "apart_least": percent(min(apart)),
        "apart_most": percent(max(apart)),
        "z_paper": f"{z[marked[0]]:.1f}",
        "z_many": f"{z[marked[1]]:.1f}",
        "z_others": f"{max(v for n, v in z.items() if n not in marked):.1f}",
        "factor_least": f"{min(few):.1f}",
        "factor_most": f"{max(few):.1f}",
        "factor_70": bare(f"{min(factors[many]):.2f}"),
        **{name: bare(pm(pair)) for name, pair in document["example"].items()},
    }
    head = ["spectrum", "points", "cells", "r: high first", "r: low first", "lowest r_high - r_low",
            "highest", "δ: high first", "δ: low first", "lowest δ_high - δ_low",
            "highest"]  # fmt: skip

    def cell(found: Any) -> str:
        if not isinstance(found, dict):
            return f"{percent(found)} %"
        exact = found["stderr"] < 2e-6  # the centre: its error is the floor of 1e-6
        text = f"{found['value']:.4f} ± 0" if exact else pm((found["value"], found["stderr"]))
        return f"{text} (N={found['num_samples']:,}, σ={found['sigma']:.2g})"

    columns = ("r_high_first", "r_low_first", "r_lowest", "r_highest",
               "d_high_first", "d_low_first", "d_lowest", "d_highest")  # fmt: skip
    summary = [
        [r["spectrum"], r["points"], str(r["cells"]), *(cell(r[c]) for c in columns)] for r in rows
    ]
    size = next(iter(crossing.values()))["num_samples"]
    levels = [
        [n, pm(c["high"]), pm(c["low"]), f"{c['paper_high']:.4f}", f"{c['paper_low']:.4f}"]
        for n, c in crossing.items()
    ]
    head_levels = [f"spectrum (N = {size:.0f})", "high", "low", "the paper's t*, high", "low"]
    return Page(numbers, {"summary": table(head, summary), "crossing": table(head_levels, levels)})


# --- Theory: origin, information, predictions, phases ------------------------------------


def origin(document: Document) -> Page:
    found = document["found"]

    def level(name: str, key: str) -> str:
        row = found[name][key]
        return pm(row["level"]) if row["level"] else f"seen in {row['seen']} of {row['of']} sets"

    keys = ("passes_small", "passes_paper", "settles_small", "settles_paper")
    rows = [
        [
            name,
            *(level(name, key) for key in keys),
            pm(row["effective_share"]) if "effective_share" in row else "-",
            f"{row['paper']:.4f}" if "paper" in row else "-",
        ]
        for name, row in found.items()
    ]
    head = ["samples", "high pass 1/t, small step", "high pass 1/t, step √t",
            "drop at 25, small step", "drop at 25, step √t", "effective points / N",
            "the paper's t*"]  # fmt: skip
    population = found["population"]
    apart = {
        name: max(
            joint(Estimate(*found[name][k]["level"]), Estimate(*population[k]["level"]))
            for k in keys
        )
        for name in ("N = 1,000", "N = 20,000")
    }
    shared = {name: row.get("effective_share") for name, row in found.items()}
    numbers = {
        "settles_population": bare(level("population", "settles_paper")),
        "settles_largest": bare(level("N = 20,000", "settles_paper")),
        "second_moment": bare(pm(document["second_moment"])),
        "half_second_moment": bare(pm(document["half_second_moment"])),
        "apart_1000": f"{apart['N = 1,000']:.1f}",
        "apart_20000": f"{apart['N = 20,000']:.1f}",
        "shared": f"{100 * shared['N = 1,000'][0]:.0f}",
        "shared_1000": f"{1000 * shared['N = 1,000'][0]:.0f}",
        "shared_20000": f"{20_000 * shared['N = 20,000'][0]:,.0f}",
        "paper_50": bare(f"{found['N = 50']['paper']:.4f}"),
        "paper_1000": bare(f"{found['N = 1,000']['paper']:.4f}"),
        "paper_20000": bare(f"{found['N = 20,000']['paper']:.4f}"),
        "settles_rounded": bare(f"{population['settles_paper']['level'][0]:.4f}"),
    }
    return Page(numbers, {"levels": table(head, rows)})


def information(document: Document) -> Page:
    budget = document["budget"]
    share = {(n, k): 100 * value(budget[n][k]).value / value(budget[n][5]).value
             for n in (0, -1) for k in (1, 4)}  # fmt: skip
    numbers = {
        "population": budget[0][7],
        "first_before": f"{share[0, 1]:.0f}",
        "first_after": f"{share[-1, 1]:.0f}",
        "last_before": f"{share[0, 4]:.1f}",
        "last_after": f"{share[-1, 4]:.1f}",
        "times": f"{value(budget[1][1]).value / value(budget[1][4]).value:.1f}",
    }
    head = ["N", "k = 1", "k = 2", "k = 4", "k = 12", "all 12", "ln N", "population"]
    other = ["σ", "ln N - E[entropy of w]", "kept between σ and 100", "z"]
    tables = {"budget": table(head, budget), "entropy": table(other, document["entropy"])}
    return Page(numbers, tables)


def predictions(document: Document) -> Page:
    answers = document["answers"]
    levels = [row for a in answers for row in a["levels"]]
    values = [row for a in answers for row in a["values"]]
    exact = [value(row[5]).value for row in levels]
    half = [k for k in range(len(levels)) if k % 3 < 2]
    collapse = [float(row[4]) / e for row, e in zip(levels, exact, strict=True)]
    factors = [float(row[c]) / e for row, e in zip(levels, exact, strict=True) for c in (2, 3)]
    factors = [max(f, 1 / f) for f in factors]
    z = [joint(value(row[5]), value(row[6])) for row in levels]
    z += [abs(float(row[7])) for row in values]

    def off(rows: list[list[str]], column: int) -> float:
        return 100 * max(abs(value(row[column]).value - 1) for row in rows)

    first, last = levels[0], levels[-3]  # half of v = 1 kept, at 10^3 and 10^7
    fall = [float(first[c].split()[0]) / float(last[c].split()[0]) for c in (2, 3, 4, 5)]
    numbers = {
        "z_most": f"{max(z):.1f}",
        "levels_off": f"{math.ceil(off(levels, 7)):d}",
        "values_off": f"{off(values, 6):.1f}",
        "collapse_off": f"{100 * max(abs(collapse[k] - 1) for k in half):.1f}",
        "collapse_below_least": f"{100 * min(1 - c for c in collapse[2::3]):.0f}",
        "collapse_below_most": f"{100 * max(1 - c for c in collapse[2::3]):.0f}",
        "factor_least": f"{min(factors):.1f}",
        "factor_most": f"{max(factors):.1f}",
        "fall_exact": f"{fall[3]:.1f}",
        "fall_collapse": f"{fall[2]:.1f}",
        "fall_normalised": f"{fall[0]:.1f}",
        "fall_gaussian": f"{fall[1]:.1f}",
        "seconds_least": f"{min(a['seconds_exact'] for a in answers)}",
        "seconds_most": f"{max(a['seconds_exact'] for a in answers)}",
        "brute_least": f"{min(a['seconds_brute'] for a in answers)}",
        "brute_most": f"{max(a['seconds_brute'] for a in answers)}",
        "rms_z": bare(f"{document['rms_z']:.1f}"),
    }
    head = ["N", "what", "paper, normalised", "paper, Gaussian", "collapse", "exact",
            "brute force", "exact / brute force"]  # fmt: skip
    other = ["N", "σ", "what", "paper", "exact", "brute force", "exact / brute force", "z"]
    return Page(numbers, {"levels": table(head, levels), "values": table(other, values)})


def phases(document: Document) -> Page:
    shaded = document["shaded_at_three_quarters"]
    numbers = {
        "cells": f"{document['cells']}",
        "least_kept": bare(pm(document["least_kept_before_collapse"])),
        "shaded_high": f"{shaded['1']}",
        "shaded_low": f"{shaded['0.09']}",
    }
    return Page(numbers)


# --- Sphere and shapes ------------------------------------------------------------------


def sphere(document: Document) -> Page:
    sizes, sigmas = document["sizes"], document["sigmas"]
    plane, ball = ([Estimate(*e) for e in document["half"][n]] for n in ("plane", "sphere"))
    learned, exact = document["learned"]["sphere"], document["exact"]["sphere"]
    near = sizes.index(300) + 1
    apart = [1 - b.value / a.value for a, b in zip(plane[:near], ball[:near], strict=True)]
    ratios = [value(row[3]) for row in document["rows_exact"]]
    at = min(range(len(sigmas)), key=lambda k: abs(sigmas[k] - 0.095))
    radial = [sum(column) / len(column) for column in zip(*exact["radial"], strict=True)]
    whole = [sum(column) / len(column) for column in zip(*exact["population"], strict=True)]
    curves = [(at_, k) for at_ in ("training", "fresh") for k in (1, 2)]  # 300, 3,000 points
    excess = [learned[name][k][at] - whole[at] for name, k in curves]
    along = [learned[f"radial_{name}"][k][at] - radial[at] for name, k in curves]
    level = sigmas.index(0.3)
    i, j = sizes.index(1000), sizes.index(30_000)
    slopes = [math.log(h[i].value / h[j].value) / math.log(30) for h in (plane, ball)]
    last = document["rows_learned"][-1]
    numbers = {
        "apart_least": f"{100 * min(apart):.0f}",
        "apart_most": f"{100 * max(apart):.0f}",
        "apart_z": f"{max((1 - r.value) / r.stderr for r in ratios[:near]):.1f}",
        "ratio": bare(document["rows_exact"][j][3]),
        "radius_most": bare(f"{max(radial):.2f}"),
        "radius_at": bare(f"{sigmas[radial.index(max(radial))]:.2f}"),
        "slope_plane": bare(f"{slopes[0]:.3f}"),
        "slope_sphere": bare(f"{slopes[1]:.3f}"),
        "training_fresh_z": f"{joint(value(last[5]), value(last[6])):.1f}",
        "lost_300": f"{100 * (1 - exact['empirical'][sizes.index(300)][level] / whole[level]):.0f}",
        "excess_least": bare(f"{min(excess):.2f}"),
        "excess_most": bare(f"{max(excess):.2f}"),
        "along_least": bare(f"{min(along):.2f}"),
        "along_most": bare(f"{max(along):.2f}"),
        "excess_sigma": bare(f"{sigmas[at]:.3f}"),
    }
    head = ["N", "σ½ plane", "σ½ sphere", "sphere / plane", "dimension at σ = 0.3, plane",
            "sphere"]  # fmt: skip
    columns = [f"N = {n:,}, {at_}" for n in document["trained"] for at_ in ("training", "fresh")]
    other = ["σ", "data", "population", *columns]
    return Page(
        numbers,
        {
            "exact": table(head, document["rows_exact"]),
            "learned": table(other, document["rows_learned"]),
        },
    )


def shapes(document: Document) -> Page:
    found, sigmas = document["found"], document["sigmas"]
    names = {"x": "position x", "y": "position y", "angle": "angle", "log_size": "size"}
    signs = {"diagonal": -1, "retention": -1, "memorized": 1, "angle": 1}

    def step(kind: str, factor: str, pair: tuple[str, str], metric: str, level: float) -> float:
        a, b = (
            Estimate(*found[kind][factor][share][sigmas.index(level)][metric]) for share in pair
        )
        return signs[metric] * (b.value - a.value) / math.hypot(a.stderr, b.stderr)

    pairs = (("full", "half"), ("half", "collapsed"))

    def least(metrics: Sequence[str]) -> str:
        steps = (step(kind, f, p, m, 1.5)
                 for kind in found for f in names for p in pairs for m in metrics)  # fmt: skip
        return f"{min(steps):.1f}"

    def at_one(factor: str, metric: str) -> str:
        return bare(f"{min(step(k, factor, pairs[0], metric, 1.0) for k in found):.1f}")

    at = sigmas.index(1.5)
    rows = [
        [kind, names[f], share, *(pm(levels[at][m]) for m in signs)]
        for kind, factors in found.items()
        for f, shares in factors.items()
        for share, levels in shares.items()
    ]
    head = ["denoiser", "factor", "variation", "diagonal", "retention",
            "memorized, nats an e-fold", "angle to the leading 2, degrees"]  # fmt: skip
    numbers = {
        "step_kept": least(("diagonal", "retention")),
        "step_memorized": least(("memorized",)),
        "step_angle": least(("angle",)),
        "y_kept": at_one("y", "retention"),
        "y_memorized": at_one("y", "memorized"),
        "size_memorized": at_one("log_size", "memorized"),
        "fixed_angle": bare(f"{found['exact']['angle']['collapsed'][at]['retention'][0]:.2f}"),
    }
    return Page(numbers, {"metrics": table(head, rows)})


# --- The monitor in the training loop ----------------------------------------------------


def monitor(document: Document) -> Page:
    page, found = Page(), document["lead"]["summary"]

    def steps(of: Document) -> str:
        if of["median"] is None:
            return "never" if of["high"] is None and of["low"] is None else "most never"
        if of["low"] is None and of["high"] is None:
            return f"{of['median']:.0f} (too few for an interval)"
        around = [f"{of[end]:.0f}" if of[end] is not None else "never" for end in ("low", "high")]
        said = f"{of['median']:.0f} ({' to '.join(around)})"
        return said + (f"; never in {of['never']}" if of["never"] else "")

    def ends(shown: list[str]) -> str:
        low, high = min(shown, key=float), max(shown, key=float)
        return low if low == high else f"{low} to {high}"

    rows = {
        "monitor warns": lambda s: steps(s["warning"]),
        "plain gap beyond 2 errors": lambda s: steps(s["gap"]),
        "lowest held-out error": lambda s: steps(s["lowest"]),
        "trainings whose held-out error has turned": (
            lambda s: f"{s['turned']} of {s['trainings']}"
        ),
        "more than 1 % of samples are copies": lambda s: steps(s["copies"]),
        "lead of the warning over the lowest error, steps": lambda s: (
            ("" if s["turned"] == s["trainings"] else "at least ") + steps(s["lead_at_least"])
        ),
        "the same as a factor": lambda s: (
            pm(s["lead_factor"]) if s["turned"] == s["trainings"] else "not known"
        ),
        "trainings with the warning first": lambda s: f"{s['warned_first']} of {s['trainings']}",
        "nats beside the linear control at the end": lambda s: f"{s['last_nats']:.0f}",
    }
    heads = [f"N = {N}, {document['lead']['steps'][N]} steps" for N in found]
    page.tables["lead"] = table(
        ["step of", *heads], ([name, *map(read, found.values())] for name, read in rows.items())
    )
    moments = ("at the first look", "at the warning", "at the last look")
    page.tables["rank"] = table(
        ["stable rank, mean over matrices", *(f"N = {N}" for N in found)],
        (
            [name, *(pm((s["stable_rank"][k], s["stable_rank_stderr"][k])) for s in found.values())]
            for k, name in enumerate(moments)
        ),
    )
    null = document["null"]
    alarms = {
        "monitor: a significant look": "significant",
        "any look with p at most 5 %": "unadjusted",
        "plain gap beyond 2 errors": "gap",
    }
    page.tables["null"] = table(
        ["alarm", f"of {null['trainings']} trainings"],
        ([name, null["said"][key]] for name, key in alarms.items()),
    )
    kinds = list(dict.fromkeys((row["name"], row["steps"]) for row in document["cost"]))
    costs = []
    for name, count in kinds:
        mine = [row for row in document["cost"] if (row["name"], row["steps"]) == (name, count)]
        spent, trained = ([row["seconds"][part] for row in mine] for part in ("looks", "training"))
        shares = [100 * row["share"] for row in mine]
        costs.append([
            name, str(count), str(len(mine)), ends([f"{len(row['looks'])}" for row in mine]),
            f"{sum(spent) / len(mine):.1f}", f"{sum(trained) / len(mine):.0f}",
            f"{ends([f'{share:.1f}' for share in shares])} %",
            f"{max(row['beyond'] for row in mine):.2f}",
        ])  # fmt: skip
    page.tables["cost"] = table(
        [
            "training",
            "steps",
            "trainings",
            "looks",
            "seconds of looks",
            "of training",
            "share at the end",
            "seconds beyond it, at most",
        ],
        costs,
    )
    return page


# --- Auditing a fine-tune ----------------------------------------------------------------

FINE_TUNES = {
    "full, 20": "full, 20 images",
    "full, 200": "full, 200 images",
    "full, 2000": "full, 2,000 images",
    "LoRA, 20": "LoRA of rank 16, 20 images",
    "LoRA, 200": "LoRA of rank 16, 200 images",
    "LoRA, 2000": "LoRA of rank 16, 2,000 images",
}
REMEDIES = {
    "full, 20 at the warning": ("full, 20", "stopped at the warning"),
    "full, 200": ("full, 20", "200 images instead"),
    "full, 2000": ("full, 20", "2,000 images instead"),
    "full, 20": ("near-duplicates", "16 near-duplicates removed from 36 files"),
    "flips": ("full, 20", "flips"),
    "dropout": ("full, 20", "dropout of 0.2"),
    "weight decay": ("full, 20", "weight decay of 1"),
    "LoRA, 20": ("full, 20", "a LoRA of rank 16 instead"),
    "LoRA, 20 at the warning": ("LoRA, 20", "the LoRA stopped at the warning"),
    "rank 2": ("LoRA, 20", "rank 2 instead of 16"),
}
MEASURED = ("nats", "excess", "copies", "frechet")


def fine_tune(document: Document) -> Page:
    page = Page()
    found: dict[str, dict[int, Document]] = {}
    for unit in document["units"]:
        found.setdefault(unit["row"], {})[unit["seed"]] = unit["end"]
        if "at_warning" in unit:
            found.setdefault(f"{unit['row']} at the warning", {})[unit["seed"]] = unit["at_warning"]
    warned = {(unit["row"], unit["seed"]): unit["warning"] for unit in document["units"]}

    def one(of: Document, name: str) -> Estimate:
        # A share and a distance of one set of samples come without an error.
        known = of[name] if isinstance(of[name], list) else [of[name], math.nan]
        scale = 100 if name == "copies" else 1
        return Estimate(scale * known[0], scale * known[1])

    def mean(values: Sequence[Estimate]) -> str:
        # Between seeds, or of the only one over its images.
        found = [v.value for v in values]
        middle = sum(found) / len(found)
        if len(found) == 1:
            return str(values[0]) if values[0].stderr > 0 else f"{middle:.2g}"
        spread = math.sqrt(sum((v - middle) ** 2 for v in found) / (len(found) - 1) / len(found))
        return str(Estimate(middle, spread)) if spread else f"{middle:g}"

    def change(a: Estimate, b: Estimate) -> Estimate:
        return Estimate(a.value - b.value, math.hypot(a.stderr, b.stderr))

    rows = []
    for name, label in FINE_TUNES.items():
        units = found.get(name, {})
        steps = [warned[name, seed] for seed in units]
        verdicts: dict[str, int] = {}
        for one_unit in units.values():
            said = str(one_unit["verdict"]).partition(" (")[0]
            verdicts[said] = verdicts.get(said, 0) + 1
        rows.append([
            label, str(len(units)), ", ".join("no" if k is None else str(k) for k in steps),
            *(mean([one(u, key) for u in units.values()]) for key in MEASURED),
            ", ".join(f"{n} {said}" for said, n in verdicts.items()),
        ])  # fmt: skip
    heads = ["nats", "excess, nats", "copies, %", "Fréchet distance"]
    page.tables["sizes"] = table(["fine-tune", "seeds", "warned at", *heads, "verdict"], rows)
    changes = []
    for name, (beside, label) in REMEDIES.items():
        both = sorted(found.get(name, {}).keys() & found.get(beside, {}).keys())
        if both:
            pairs = [(found[name][seed], found[beside][seed]) for seed in both]
            changes.append([
                label, str(len(both)),
                *(mean([change(one(a, key), one(b, key)) for a, b in pairs]) for key in MEASURED),
            ])  # fmt: skip
    page.tables["remedies"] = table(
        [
            "remedy",
            "seeds",
            *(f"change of {head}" for head in ("nats", "excess", "copies, %", "distance")),
        ],
        changes,
    )
    page.numbers["real"] = mean([one(u, "frechet_of_real") for u in found["full, 20"].values()])
    page.numbers["found"] = str(document["copies_found"]["200"])
    page.numbers["found_few"] = str(document["copies_found"]["20"])
    plan = document["plan"]
    page.tables["plan"] = table(
        [
            "noise, in units of the data's deviation",
            "images that keep half",
            "images that keep 90 %",
        ],
        ([f"σ = {sigma}", sizes["0.5"], sizes["0.9"]] for sigma, sizes in plan.items()),
    )
    return page


def pilot(document: Document) -> Page:
    page, cases = Page(), document["cases"]
    rows, held, nats, inside = [], 0, 0, 0
    for name, case in cases.items():
        groups = {"": [r for r in case["rows"] if not r["outside"]]}
        groups[", outside its widths"] = [r for r in case["rows"] if r["outside"]]
        for more, found in groups.items():
            if not found:
                continue
            good, good_nats = (sum(r[key] for r in found) for key in ("holds", "nats_hold"))
            off = sum(abs(r["share"] - r["predicted"]["value"]) for r in found) / len(found)
            span = sum(r["predicted"]["high"] - r["predicted"]["low"] for r in found) / len(found)
            rows.append([
                name + more, ", ".join(map(str, case["fitted_on"])), str(max(case["fitted_steps"])),
                ", ".join(f"{n:,.0f}" for n in sorted({r["num_samples"] for r in found})),
                ", ".join(f"{n:,.0f}" for n in sorted({r["step"] for r in found})),
                f"{good} of {len(found)}", f"{good_nats} of {len(found)}",
                f"{off:.3f}", f"{span:.2f}",
            ])  # fmt: skip
            if not more:
                held, nats, inside = held + good, nats + good_nats, inside + len(found)
    head = ["predicted", "pilot N", "pilot steps", "N", "steps", "shares held", "nats held"]
    page.tables["cases"] = table([*head, "mean error of a share", "mean width"], rows)
    page.tables["laws"] = table(
        ["pilot", "p", "unexplained, rms share", "undertrained"],
        (
            [
                name,
                pm(case["power"]),
                f"{case['left']:.3f}",
                "yes" if case["undertrained"] else "no",
            ]
            for name, case in cases.items()
        ),
    )
    others = [r for name, of in cases.items() if "digits" not in name for r in of["rows"]]
    page.numbers = {
        "elsewhere_held": str(sum(r["holds"] for r in others)), "elsewhere": str(len(others)),
        "held": str(held), "cases": str(inside), "percent": f"{100 * held / inside:.0f}",
        "nats": str(nats), "nats_percent": f"{100 * nats / inside:.0f}",
    }  # fmt: skip
    return page


PAGES: dict[str, tuple[str, Callable[[Document], Page]]] = {
    "higher-variance.md": ("theory-higher.json", higher),
    "origin-figure.md": ("theory-origin.json", origin),
    "dimension-is-information.md": ("theory-information.json", information),
    "predictions.md": ("theory-predictions.json", predictions),
    "dictionary.md": ("theory-phases.json", phases),
    "sphere.md": ("sphere.json", sphere),
    "shapes.md": ("shapes.json", shapes),
    "pilot.md": ("../../benchmarks/results/pilot.json", pilot),
    "monitor.md": ("../../benchmarks/results/monitor.json", monitor),
    "fine-tune.md": ("../../benchmarks/results/fine_tune.json", fine_tune),
}
