r"""Writes docs/performance.md from the recorded results: no number in it is typed by hand.

python benchmarks/tables.py          writes the page
python benchmarks/tables.py --check  fails if the page is not what the results say
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tables_of_points as points
from table_cells import cell, load, number, spread, table, write_page

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"

INTRO = """# Performance

Written by `python benchmarks/tables.py` from `benchmarks/results/`; each result names its command,
versions and machine. Competitors run in turn in one process, so that ratios mean something where
absolute times do not: they are medians over rounds, with the range in brackets.
"""


def where(result: dict[str, Any]) -> str:
    m = result["machine"]
    versions = result.get("versions") or m["versions"]
    named = ", ".join(f"{k} {v}" for k, v in versions.items() if v and v != "missing")
    parts = [f"`{result['command']}`" if "command" in result else "", result.get("date", "")]
    parts.append(f"{m['cores']} cores" + (f" ({m['cpu']})" if "cpu" in m else ""))
    if "float32_product_gflops" in m:
        parts.append(f"float32 products {number(m['float32_product_gflops'])} Gflop/s")
        parts.append(f"copies {number(m['bandwidth_gbytes'])} GB/s")
    if "load_before" in m:
        parts.append(f"load {number(m['load_before'])} before")
    return "; ".join(p for p in [*parts, named] if p) + ".\n"


# --------------------------------------------------------------------------------- pages


def exact_score(r: dict[str, Any]) -> str:
    problems = r["problems"]
    names = [n for n in next(iter(problems.values()))["competitors"] if n != "bare product"]
    header = ["time, ours = 1", *problems]
    rows = [[n, *(cell(p["competitors"].get(n, {})) for p in problems.values())] for n in names]
    rows.insert(
        0,
        [
            "*seconds, ours*",
            *(number(p["competitors"]["ours"]["seconds"]["median"]) for p in problems.values()),
        ],
    )
    rows.insert(
        0,
        [
            "*N, d, B, T*",
            *(", ".join(f"{v:,}" for v in p["sizes"].values()) for p in problems.values()),
        ],
    )
    skipped = {
        n: p["competitors"][n]["skipped"]
        for p in problems.values()
        for n in names
        if "skipped" in p["competitors"].get(n, {})
    }
    text = table(header, rows)
    text += "".join(f"\nNot run: {n}, {why}\n" for n, why in skipped.items())
    return text + "\n" + exact_details(problems) + "\n" + exact_others(r)


def exact_details(problems: dict[str, Any]) -> str:
    rows = [
        ["dense pass, share of the product rate", "≥ .85, .85, .45, .2"]
        + [spread(p["share_of_product_rate"]) for p in problems.values()],
        ["scalars, ns a pair and level", "≤ .8"]
        + [number(p["scalars_ns_per_pair_and_level"]) for p in problems.values()],
        ["memory, MiB (allowed)", "4 B N + 64 MiB"]
        + [
            f"{p['competitors']['ours']['memory_mib']:.0f} ({p['allowed_mib']:.0f})"
            for p in problems.values()
        ],
        ["of it the means themselves, in float64, MiB", ""]
        + [number(p["means_mib"]) for p in problems.values()],
        ["smalldiffusion's memory, MiB", ""]
        + [
            number(p["competitors"]["smalldiffusion"].get("memory_mib", float("nan")))
            for p in problems.values()
        ],
        ["attention's memory, MiB", ""]
        + [
            number(p["competitors"]["attention"].get("memory_mib", float("nan")))
            for p in problems.values()
        ],
    ]
    keys = list(next(iter(problems.values()))["errors"])
    for key in keys:
        label = f"error, {key}" if "ours," not in key else key
        rows.append(
            [label, "< 1e-6" if key.startswith("ours") else ""]
            + [
                "NaN" if p["errors"].get(key) is None else f"{p['errors'][key]:.1e}"
                for p in problems.values()
            ]
        )
    return table(["", "target", *problems], rows) + (
        "\nErrors of means are the largest over queries at three levels, in units of the data's\n"
        "largest radius, against float64.\n"
    )


WHY = """
Where a target is missed: peers' times are mostly products, so on a machine whose products are slow
beside its exponentials no method can be much faster than its share of them (the last row below is
what products alone would take). With few coordinates and queries the products themselves run below
the machine's rate, distances are taken in float64 at half the rate of float32, and exponentials,
sums and two reductions a level are the rest. On noised paths the exponents are float64, because A
and G cancel; with few levels the two float64 products are most of it.
"""


def exact_others(r: dict[str, Any]) -> str:
    rows = []
    for T, p in r["paths"].items():
        for name, row in p["competitors"].items():
            if name != "ours":
                rows.append([f"noised paths, {T} levels: {name}", "≥ 15", cell(row)])
    for name, row in r["neighbours"]["competitors"].items():
        if name != "ours":
            rows.append([f"10 neighbours: {name}", "≥ 5", cell(row)])
    text = table(["time, ours = 1", "target", "measured"], rows)
    base = r["growth"]["base"]
    fits = [
        [name, ", ".join(map(str, f["sizes"])), number(f["exponent"])]
        for name, f in r["growth"]["fits"].items()
    ]
    around = ", ".join(f"{k} = {v:,}" for k, v in base.items())
    text += WHY + f"\nGrowth of the dense pass around {around}, one size at a time:\n\n"
    text += table(["in", "sizes", "fitted exponent"], fits)
    return text + profiles(r.get("profiles", {}))


def profiles(found: dict[str, Any]) -> str:
    if not found:
        return ""
    stages = list(next(iter(found.values()))["shares"])
    rows = [[s, *(f"{100 * p['shares'][s]:.0f} %" for p in found.values())] for s in stages]
    rows.append(
        ["dense levels", *(f"{p['dense_levels']} of {p['levels']}" for p in found.values())]
    )
    rows.append(
        [
            "products alone, at the machine's rate",
            *(f"{100 * p['products_alone']:.0f} %" for p in found.values()),
        ]
    )
    return "\nWhere our time goes, in shares of one pass:\n\n" + table(["", *found], rows)


def exact_spectrum(r: dict[str, Any]) -> str:
    text = ""
    for p in r["problems"].values():
        rows = [
            [n, number(c["seconds"]["median"]), cell(c), f"{p['errors_of_top_eigenvalue'][n]:.1e}"]
            for n, c in p["competitors"].items()
        ]
        text += (
            f"\n{p['kept']} of {p['N']:,} points kept, d = {p['d']}, sigma = {p['sigma']:.3g} "
            f"({r['data']}):\n\n"
        )
        text += table(["", "seconds", "time, ours = 1", "largest error / top eigenvalue"], rows)
        products = ", ".join(
            f"{n} {cell(c)}" for n, c in p["products_with_64_vectors"].items() if n != "ours"
        )
        text += f"\nProducts with 64 vectors, ours = 1: {products}.\n"
    return text


def spectra(r: dict[str, Any]) -> str:
    return "\n".join(SPECTRA[part](r[part]) for part in SPECTRA if part in r)


def full_spectra(cases: dict[str, Any]) -> str:
    ways = list(dict.fromkeys(w for case in cases.values() for w in case["ways"]))
    rows = [["*seconds, ours*"] + [number(c["ways"]["ours"]["seconds"]) for c in cases.values()]]
    for way in ways:
        rows.append([way, *(old_cell(c["ways"].get(way, {})) for c in cases.values())])
    rows.append(
        ["counts above 1/2: " + ", ".join(["ours", "paper_4d", "float64"])]
        + [
            ", ".join(str(c["counts"].get(k, "-")) for k in ("ours", "paper_4d", "float64"))
            for c in cases.values()
        ]
    )
    rows.append(
        ["error of the Jacobian against float64"]
        + [f"{c['relative_error']:.1e}" for c in cases.values()]
    )
    return "### Every eigenvalue of a network's Jacobian\n\n" + table(
        ["time, ours = 1", *cases], rows
    )


def old_cell(row: dict[str, Any]) -> str:
    if "ratio" not in row:
        return row.get("skipped", "not run")[:60]
    low, high = row["range"]
    return f"{number(row['ratio'])} ({number(low)} to {number(high)})"


def sampled_spectra(cases: dict[str, Any]) -> str:
    truth = {"trace": cases["exact_trace"], "leading": cases["exact_leading"]}
    truth["quadrature"] = truth["trace"]
    text = "### The same products by others\n\n"
    for name, case in cases.items():
        if isinstance(case, dict):
            rows = [
                [way, old_cell(c), off(case["found"].get(way), truth[name])]
                for way, c in case["ways"].items()
            ]
            text += f"{SAMPLED[name].format(**cases)}:\n\n"
            text += table(["", "time, ours = 1", "off the truth by"], rows) + "\n"
    return text


def off(found: float | None, truth: float) -> str:
    return "-" if found is None else f"{100 * abs(found / truth - 1):.2g} %"


SAMPLED = {
    "quadrature": "Lanczos quadrature, 8 probes of depth 16; the trace from it",
    "leading": (
        "The ten leading eigenpairs, with a gap of {leading_gap:.1g} below; ours, `tangent_basis`, "
        "turned by {leading_turned:.1g} at most, eigenvalues off by {leading_worst:.1g}; below, of "
        "the largest"
    ),
    "trace": "The trace: ours to ± 1, the others with 48 products",
}


def large_dimension(levels: dict[str, dict[str, Any]]) -> str:
    rows = []
    for level, r in levels.items():
        products = sorted({row["products"] for row in r["rows"]})
        rows.append(
            [
                level,
                number(r["trace"]),
                f"± {number(r['goal'])}",
                " to ".join(str(n) for n in dict.fromkeys((products[0], products[-1]))),
                f"{number(r['cost_ratio_products'])} ({number(r['cost_ratio_seconds'])} of time)",
                number(r["rms_error_over_goal"]),
                f"{number(r['z_mean'])} ± {number(r['z_sd'])}",
                number(r["peak_mib"]),
            ]
        )
    one = next(iter(levels.values()))
    header = ["", "trace", "asked for", "products", "times fewer than the Jacobian"]
    return (
        "### A dimension at d = 3072 without the Jacobian\n\n"
        f"A U-Net trained on synthetic images, d = {one['d']}, {len(one['rows'])} seeds a level; "
        "errors and z-scores\nagainst the trace of the whole Jacobian. Products were allowed "
        f"{one['max_bytes'] / 2**20:.0f} MiB of activations\n(`max_bytes`); the last column is the "
        "most anonymous memory that one trace took.\n\n"
    ) + table([*header, "rms error / asked for", "z-scores, mean ± sd", "peak, MiB"], rows)


def large_points(cases: dict[str, Any]) -> str:
    rows = [
        [name, way, str(c["products"]), number(c["seconds"]), number(c["forecast_ratio"])]
        for name, case in cases.items()
        for way, c in case.items()
    ]
    header = ["", "method", "products", "seconds a point", "forecast / truth"]
    return "### Larger images and a latent, matrix-free\n\n" + table(header, rows)


SPECTRA = {
    "full": full_spectra,
    "sampled": sampled_spectra,
    "dimension": large_dimension,
    "large": large_points,
}


def dimension(r: dict[str, Any]) -> str:
    text = (
        "Mean absolute error over points, ± its standard error; in brackets the products of the\n"
        "network and the milliseconds a point. No answer counts as an error of the whole\n"
        "dimension. Each method at its own best level for each family, chosen on other points.\n"
        f"Networks: {r['training_steps']:,} steps on 20,000 points of the manifold.\n"
    )
    for kind, families in r["tables"].items():
        if not families:
            continue
        title = "On population denoisers" if kind == "population" else "On trained networks"
        text += f"\n### {title}\n"
        for suffix, what in DIMENSION_TABLES.items():
            text += dimension_table(families, suffix, what)
        for rival, found in r["ratios"].get(kind, {}).items():
            if found["families"]:
                known = found["floor_by_family"]
                text += (
                    f"\nOur error / {rival}: **{number(known['ratio'])} ± "
                    f"{number(known['stderr'])}** over {found['families']} families (worst "
                    f"{number(known['worst_family'])}); errors below {r['floor']} count as that.\n"
                )
    return text


DIMENSION_TABLES = {
    " (equal)": "As many products as ours took",
    " (own)": "As many products as the method wants, fewer points",
    " (points alone)": "From 2,000 clean points, without a network",
    " (none)": "Without a level chosen for it",
}


def dimension_table(families: dict[str, dict[str, Any]], suffix: str, what: str) -> str:
    names = list(dict.fromkeys(n for row in families.values() for n in row if n.endswith(suffix)))
    rows = [
        [where, str(row["LocalDimension"]["points"])]
        + [error_cell(row.get(n)) for n in ["LocalDimension", *names]]
        for where, row in families.items()
        if any(n in row for n in names)
    ]
    header = ["", "points", "LocalDimension", *(n.removesuffix(suffix) for n in names)]
    return f"\n{what}:\n\n" + table(header, rows) if rows else ""


def error_cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    stderr = "" if row["stderr"] is None else f" ± {row['stderr']:.2f}"
    products = f"{row['products']:.0f}; " if row["products"] else ""
    missing = round((1 - row["answered"]) * row["points"])
    silent = f", no answer at {missing} of {row['points']}" if missing else ""
    cost = f" ({products}{number(1e3 * row['seconds'])} ms)"
    return f"{row['mean_absolute_error']:.2f}{stderr}{cost}{silent}"


def scaling(r: dict[str, Any]) -> str:
    job = r["job"]
    rows = []
    for name in ("local", "ray"):
        if name not in r:
            continue
        known = r[name]
        one, two = (known["workers"][w]["total"]["median"] for w in ("1", "2"))
        eight = known["extrapolated"]["8"]
        rows.append(
            [
                name,
                number(one),
                number(two),
                number(known["speedup"]),
                number(known["speedup_of_work"]),
                number(known["contention"]),
                number(eight),
            ]
        )
    header = [
        "",
        "1 worker, s",
        "2 workers, s",
        "speedup",
        "of the work alone",
        "contention",
        "8, model, s",
    ]
    return (
        f"{job['num_samples']:,} points of {job['dim']} coordinates in a memory-mapped file, "
        f"{job['queries']} queries, {job['levels']} levels; {r['what']}.\n\n" + table(header, rows)
    )


def together(r: dict[str, Any]) -> str:
    rows = [
        [
            name,
            number(1e3 * known["seconds"]["median"]),
            "1"
            if name == "together"
            else f"{number(known['ratio']['median'])} ({number(known['ratio']['min'])} to "
            f"{number(known['ratio']['max'])})",
        ]
        for name, known in r["table"].items()
    ]
    return (
        f"One step of all {r['networks']} MLPs of the linear experiments, on {r['device']}; median "
        "and range over rounds. A card gains most: [on a GPU](start.md#on-a-gpu).\n\n"
        + table(["", "a step of all, ms", "times as long"], rows)
    )


SECTIONS = {
    "exact_score": ("The exact denoiser", exact_score),
    "exact_spectrum": ("The spectrum of its Jacobian", exact_spectrum),
    "scaling": ("Workers", scaling),
    "together": ("Trainings together", together),
    "spectra": ("Spectra of networks", spectra),
    "dimension": ("Local dimensions: the zoo", dimension),
    "log_likelihood": ("Log-likelihood", points.log_likelihood),
    "local_machine": ("The local machine", points.local_machine),
}


def page() -> str:
    parts = [INTRO]
    for name, (title, write) in SECTIONS.items():
        if (HERE / "results" / f"{name}.json").exists():
            result = load(name)
            script = "" if "command" in result else f"`python benchmarks/{name}.py`; "
            parts.append(f"## {title}\n\n{script}{where(result)}\n{write(result)}")
    return "\n".join(parts)


def main() -> int:
    return write_page(__doc__, PAGE, page)


if __name__ == "__main__":
    sys.exit(main())
