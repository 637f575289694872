r"""The tables below the first one of docs/published.md, one a row of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from table_cells import table

from geomem.stats import Estimate

COMPONENTS = 4
OURS = ("LocalDimension", "eigenvalues above 1/2")


@dataclass(frozen=True)
class Row:
    r"""A row of the page: what, their number with its setting, ours, and what follows."""

    what: str
    theirs: str
    ours: str
    verdict: str
    script: str


def pm(pair: list[float] | None) -> str:
    r"""A number and its standard error with so many digits as the error has a meaning for."""
    if pair is None or pair[0] is None:
        return "none"
    value, error = pair
    if error is not None and error < 1e-9 * max(1.0, abs(value)):  # the same at all units
        return f"{value:.3g} ± 0"
    return repr(Estimate(value, float("nan") if error is None else error))


def spheres(r: dict[str, Any]) -> str:
    text = (
        "Points of which an estimator says k / k + 1 / anything else, or nothing: with 400 "
        "Gaussian draws, centred at their mean, and with d orthogonal ones. Kept along the radius "
        "is u'(∇D)u: 0 along a normal direction, 1 along a tangent one. Where noise resolves the "
        "sphere its exact denoiser keeps nothing along the radius, and networks keep all of it. "
        "At levels at which the sphere is not resolved, with "
        "orthogonal draws, the exact denoiser says k + 1 as well: what is left is the span of the "
        "sphere.\n\n"
    )
    rows = [
        [
            str(row["k"]),
            row["denoiser"],
            f"{row['sigma']:g}",
            *("/".join(map(str, row[name])) for name in
              ("as they draw", "orthogonal draws", "LocalDimension")),
            pm(row["kept along the radius"]),
        ]
        for row in r["rows"]
    ]  # fmt: skip
    header = ["k", "denoiser", "σ", "400 Gaussian draws", "orthogonal draws", "LocalDimension"]
    return (
        text
        + table([*header, "kept along the radius"], rows)
        + f"\nNetworks: width {r['width']}, {r['training_steps']:,} steps.\n"
    )


def crossover(r: dict[str, Any]) -> str:
    text = (
        "Mean squared errors at noisy training points beyond those of the exact denoiser of all N, "
        "± over training sets. Their approximation of the memorizing loss holds for a denoiser "
        "that sends unseen points to their mean, at the price of d v; one that knows training "
        "points alone sends them to another point, which costs up to twice as much and more.\n\n"
    )
    rows = [
        [
            f"{row['sigma']:g}",
            pm(row["generalizing"]),
            f"{row['theirs, generalizing']:.3g}",
            f"{row['theirs, crossover']:.3f}",
            *(f"{pm(row[f'crossover, {name}'])} ({row[f'crossings, {name}']})"
              for name in ("points and means", "points")),
        ]
        for row in r["rows"]
    ]  # fmt: skip
    header = ["σ", "generalizing", "theirs", "M*/N, theirs", "points and means", "points alone"]
    text += table(header, rows) + "\nIn brackets the training sets with a crossing.\n\n"
    sizes, middle = r["sizes"], r["rows"][len(r["rows"]) // 2]
    rows = [
        [
            str(M),
            f"{r['theirs, excess'][k]:.3g}",
            *(pm(middle[f"excess, {name}"][k]) for name in ("points and means", "points")),
        ]
        for k, M in enumerate(sizes)
    ]
    return text + table(
        ["M", f"d v (1 - M/N), at σ = {middle['sigma']:g}", "points and means", "points alone"],
        rows,
    )


def two_denoisers(r: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['load']:g}",
            f"{row['theirs']:.4f}",
            pm(row["q"]),
            f"{(row['q'][0] - row['theirs']) / row['q'][1]:+.1f}",
        ]
        for row in r["rows"]
    ]
    return (
        f"± over {r['pairs']} pairs of training sets, {r['samples']} samples each, d = {r['dim']}; "
        f"their formula is a limit of large d. {r['steps']} steps of the sampler add "
        f"{100 * r['sampler']:.2g} % to q.\n\n"
    ) + table(["N/d", "(∫ √x dMP)²", "q", "z"], rows)


def onset(r: dict[str, Any]) -> str:
    rows = [
        [
            str(row["N"]),
            *("not reached" if s is None else f"{s:,.0f}" for s in row["onset"]),
            f"{row['generalizes']:,.0f}",
            f"{max(row['copies']):.2f}",
            f"{row['steps'][-1]:,}",
        ]
        for row in r["rows"]
    ]
    shares = [f"steps to {100 * share:.0f} % copies" for share in r["shares"]]
    return table(
        ["N", *shares, "steps to within 10 % of the least error", "most copies", "steps"], rows
    ) + (
        f"\nExponents of the onset by least squares over all trainings, ± by bootstrap over them: "
        f"{', '.join(map(pm, r['exponent']))}. {r['samples']} samples a look; batches of "
        "min(512, N) points, so that small sets have small batches.\n"
    )


def effective(r: dict[str, Any]) -> str:
    rows = [
        [
            run["data"],
            f"{row['N']:,}",
            f"{row['step']:,}",
            str(row["trainings"]),
            "{:.1f} ({:.1f} to {:.1f}) %".format(*(100 * s for s in row["share"])),
        ]
        for run in r["runs"]
        for row in run["rows"]
    ]
    header = ["data", "N", "best step", "trainings", "ratio below 1/3, 95 % interval"]
    sizes = "; ".join(f"{run['data']} {run['parameters']:,}" for run in r["runs"])
    return table(header, rows) + f"\n{setting(r)} Parameters: {sizes}.\n"


def agreement(r: dict[str, Any]) -> str:
    rows = [
        [
            run["data"],
            f"{row['N']:,}",
            *(pm(level["ratio"]) for level in row["levels"][2::3]),
            "" if row["agreement"] is None else pm(row["agreement"]),
        ]
        for run in r["runs"]
        for row in run["rows"]
    ]
    run = r["runs"][0]
    levels = [f"σ = {level['sigma'] / run['rms']:.2g} rms" for level in run["rows"][0]["levels"]]
    return (
        (
            "Training over held-out squared error at the last step, ± over images, and the "
            "correlation of what two trainings draw from the same noise.\n\n"
        )
        + table(["data", "N", *levels[2::3], "agreement"], rows)
        + f"\n{setting(r)}\n"
    )


def setting(r: dict[str, Any]) -> str:
    r"""What was trained, in words."""
    said = []
    for run in r["runs"]:
        known = run["setting"]
        size = f", {known['size']} x {known['size']}" if known.get("size") else ""
        said.append(
            f"{run['data']}{size}: {known['network']}, channels "
            f"{known.get('channels', known.get('width'))}, {known['steps']:,} steps of "
            f"{known['batch_size']}"
        )
    return "; ".join(said) + "."


def sets(r: dict[str, Any]) -> str:
    unequal = any(
        row["concordance"]
        for one in r["sets"].values()
        for rows in one["methods"].values()
        for row in rows
    )
    text = "Mean absolute error over points, ± its standard error"
    if unequal:
        text += (
            "; in brackets the concordance index over pairs of unequal dimension, ± by bootstrap "
            "over points (a tie or no answer is half a pair), and as Kamkari et al. count, with "
            "whom pairs of equal dimension are right whatever is said"
        )
    else:
        text += ". Each set has one dimension, so that there is no pair to be put in order"
    text += ". No answer is an error of the whole dimension; how many gave none is said.\n"
    for where, one in r["sets"].items():
        rows = [
            [name, *(cell(row, one["points"]) for row in rows)]
            for name, rows in one["methods"].items()
        ]
        header = ["", *(f"σ = {s:.3g}" for s in r["sigmas"])]
        text += f"\n### {where[0].upper() + where[1:]}, {one['points']} points\n\n"
        text += table(header, rows) + NOTES.get(where, "")
        if "spread" in one:
            text += shared_noise(one, r)
    return text


NOTES = {
    "lollipop in R^2": "\nIn two dimensions a disc keeps all directions and a dot none, so that "
    "there is no gap to see: `LocalDimension` and the normal bundle look for one and have seldom "
    "or never an answer. The count without a test has. FLIPD has none where its value lies "
    "outside 0 to 2.\n",
}


def cell(row: dict[str, Any], points: int) -> str:
    text = pm(row["error"])
    if row["concordance"]:
        text += f" ({pm(row['concordance'])}; {row['of_all_pairs']:.3f})"
    missing = points - row["answered"]
    return text + (f", no answer at {missing}" if missing else "")


def shared_noise(one: dict[str, Any], r: dict[str, Any]) -> str:
    known = one["spread"]
    ratio = known["shared"][0] / known["own"][0]
    return (
        f"\nDenoising loss with 8 draws, at the largest σ: the mean over {one['points_of_spread']} "
        f"points varies by {pm(known['shared'])} where all points share the noise and by "
        f"{pm(known['own'])} where each has its own ({r['repeats']} repetitions): "
        f"{ratio:.1f} times as much.\n"
    )


def lost_on(where: str, one: dict[str, Any]) -> list[str]:
    r"""Sentences on a set where LocalDimension is worse than another by two joint errors."""
    best = {
        name: min(rows, key=lambda row: row["error"][0]) for name, rows in one["methods"].items()
    }
    ours, said = best["LocalDimension"], []
    worse = []
    for name, row in best.items():
        joint = 2 * (row["error"][1] ** 2 + ours["error"][1] ** 2) ** 0.5
        if name not in OURS and ours["error"][0] - row["error"][0] > joint:
            worse.append(f"{name.removesuffix(' (Yeats et al.)')} {pm(row['error'])}")
    if worse:
        missing = one["points"] - ours["answered"]
        why = f", with no answer at {missing} of {one['points']} points" if missing else ""
        said.append(
            f"On the {where} `LocalDimension` errs by {pm(ours['error'])} at its best level{why}: "
            f"worse than {' and '.join(worse)}."
        )
    return said


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "spheres": ("k-spheres: whose is the one too many?", spheres),
    "crossover": ("When memorizing pays", crossover),
    "two_denoisers": ("Two models of disjoint white data", two_denoisers),
    "onset": ("The onset of copying", onset),
    "effective": ("Effective model memorization", effective),
    "agreement": ("Training error and error on new images", agreement),
    "flipd_sets": ("The sets of FLIPD", sets),
    "yeats_sets": ("The sets of Yeats et al.", sets),
}
