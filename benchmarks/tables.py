r"""Writes docs/performance.md from the recorded results: no number in it is typed by hand.

python benchmarks/tables.py          writes the page
python benchmarks/tables.py --check  fails if the page is not what the results say
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"

INTRO = """# Performance

Written by `python benchmarks/tables.py` from `benchmarks/results/`; each result names its command,
versions and machine. Competitors run in turn in one process, so that ratios mean something where
absolute times do not: they are medians over rounds, with the range in brackets.
"""


def load(name: str) -> dict[str, Any]:
    return dict(json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8")))


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float) -> str:
    r"""Two or three digits, whatever the size."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def spread(ratio: dict[str, float]) -> str:
    low, high = number(ratio["min"]), number(ratio["max"])
    return (
        f"{number(ratio['median'])} ({low} to {high})" if low != high else number(ratio["median"])
    )


def where(result: dict[str, Any]) -> str:
    m, versions = result["machine"], result["versions"]
    named = ", ".join(f"{k} {v}" for k, v in versions.items() if v)
    products, copies = number(m["float32_product_gflops"]), number(m["bandwidth_gbytes"])
    return (
        f"`{result['command']}`, {result['date']}; {m['cores']} cores ({m['cpu']}), float32 "
        f"products {products} Gflop/s, copies {copies} GB/s, load {number(m['load_before'])} "
        f"before; {named}.\n"
    )


def cell(row: dict[str, Any]) -> str:
    return spread(row["ratio"]) if "ratio" in row else "not run"


# --------------------------------------------------------------------------------- pages


def exact_score(r: dict[str, Any]) -> str:
    problems = r["problems"]
    names = list(next(iter(problems.values()))["competitors"])
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
        + [number(p["share_of_product_rate"]) for p in problems.values()],
        ["scalars, ns a pair and level", "≤ .8"]
        + [number(p["scalars_ns_per_pair_and_level"]) for p in problems.values()],
        ["memory, MiB (allowed)", "4 B N + 64 MiB"]
        + [
            f"{p['competitors']['ours']['memory_mib']:.0f} ({p['allowed_mib']:.0f})"
            for p in problems.values()
        ],
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
    text += f"\nGrowth of the dense pass around {base}, one size at a time:\n\n"
    return text + table(["in", "sizes", "fitted exponent"], fits)


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


SECTIONS = {
    "exact_score": ("The exact denoiser", exact_score),
    "exact_spectrum": ("The spectrum of its Jacobian", exact_spectrum),
}


def page() -> str:
    parts = [INTRO]
    for name, (title, write) in SECTIONS.items():
        if (HERE / "results" / f"{name}.json").exists():
            result = load(name)
            parts.append(f"## {title}\n\n{where(result)}\n{write(result)}")
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
