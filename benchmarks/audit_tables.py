r"""The tables of docs/audit.md and docs/doors.md; and the small summary of real audits.

Run:  python benchmarks/audit_tables.py [--check] [--strangers RUN RUN]

`--strangers` reads the run folders of finished audits and writes `results/strangers.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from side_by_side import versions

from geomem.compute.files import atomic_write_text

HERE = Path(__file__).parent
PAGES = [HERE.parent / "docs" / f"{name}.md" for name in ("audit", "doors")]
KEPT = ("kind", "label", "num_samples", "information", "information_stderr", "excess")
KEPT += ("excess_stderr", "auc", "auc_low", "auc_high", "p_value", "copies", "copies_of")
PLANS = ("smallest", "64 + 64 points", "all that there is")
SHORT = {
    "generalization": "generalization",
    "inconclusive": "inconclusive",
    "geometric memorization": "geometric",
    "full memorization": "full",
}


def power_table(result: dict[str, Any]) -> str:
    r"""One row a case: verdicts, rivals, angle."""
    head = (
        "| model | audits | generalization | inconclusive | geometric | full | plain loss "
        "| noise norm | copies | median angle |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    rows, notes = [], dict.fromkeys(c["before"] for c in result["cases"].values() if "before" in c)
    for name, case in result["cases"].items():
        words = [str(case["verdicts"].get(word, 0)) for word in SHORT]
        copies = "–" if case["copies"] is None else str(case["copies"])
        angle = "–" if case["angle_median"] is None else f"{case['angle_median']:.1f}°"
        rivals = [str(case["plain loss"]), str(case["predicted noise"]), copies]
        mark = " *" if "before" in case else ""
        cells = [label(name) + mark, str(case["audits"]), *words, *rivals, angle]
        rows.append("| " + " | ".join(cells) + " |\n")
    seconds = result["seconds"]
    said = "".join(f" * Measured before {note}." for note in notes)
    return head + "".join(rows) + f"\n{seconds / 60:.0f} minutes of one core.{said}\n"


def label(name: str) -> str:
    r"""A case in words."""
    return name.replace("null", "population").replace("block", "planted block")


def strangers_table(result: dict[str, Any]) -> str:
    r"""One row an audit and control."""
    head = (
        "| model | control | nats | error over held-out images | decides | verdict |\n"
        "|---|---|---|---|---|---|\n"
    )
    rows = []
    for name, audit in result["audits"].items():
        for control, found in audit["controls"].items():
            nats = f"{found['information']:.1f} ± {found['information_stderr']:.1f}"
            main = control == audit["verdict"]["control"]
            cells = [name, control, nats, f"{found['control_error']:.1f}"]
            cells += ["yes", audit["verdict"]["text"]] if main else ["", ""]
            rows.append("| " + " | ".join(cells) + " |\n")
    return head + "".join(rows)


def cost_table(result: dict[str, Any]) -> str:
    r"""One row a network: what was timed, then what is forecast."""
    head = (
        "| network | parameters | Gflop a call | seconds a call | products a second | "
        + " | ".join(PLANS)
        + " |\n|---|---|---|---|---|"
        + "---|" * len(PLANS)
        + "\n"
    )
    rows = []
    for row in result["sizes"]:
        cells = [f"UNet2DModel {tuple(row['channels'])}", f"{row['parameters'] / 1e6:.2f}M"]
        cells += [
            f"{row['operations'] / 1e9:.2f}",
            f"{row['call']:.4f}",
            f"{1 / row['product']:.1f}",
        ]
        rows.append("| " + " | ".join([*cells, *["" for _ in PLANS]]) + " |\n")
    for one in result["forecasts"]:
        timed = f"; timed {one['timed']['call']:.2f}" if "timed" in one else ""
        error = one["error"]
        cells = [f"{one['name']}, on paper", f"{one['parameters'] / 1e6:.1f}M"]
        cells += [f"{one['operations'] / 1e9:.1f}", f"{spread(one['call'], error)}{timed}"]
        cells += [f"{one['products_a_second']:.2g}"]
        cells += [f"{spread(one[plan]['seconds'] / 3600, error)} h" for plan in PLANS]
        rows.append("| " + " | ".join(cells) + " |\n")
    calls = ", ".join(f"{result['forecasts'][0][plan]['calls']:,.0f} ({plan})" for plan in PLANS)
    return (
        head + "".join(rows) + f"\nSeconds of one thread ({result['machine']['cpu']}), "
        f"{result['operations_a_second'] / 1e9:.0f} Gflop/s within a factor of "
        f"{math.exp(result['error']):.2f}; a product with the Jacobian takes "
        f"{result['product_over_call']:.1f} calls. Calls of an audit: {calls}; the reference's "
        "training comes on top, and what is done on a faster device is in proportion.\n"
    )


def spread(value: float, error: float) -> str:
    r"""A number that is known up to a factor, as its range."""
    ends = (value * math.exp(side * error) for side in (-1, 1))
    low, high = (f"{float(f'{end:.2g}'):g}" for end in ends)
    return low if low == high else f"{low} to {high}"


def door_table(result: dict[str, Any]) -> str:
    r"""One row a family of networks: how many there are, how many are refused."""
    head = "| networks | how many | refused at training images | at held-out images |\n"
    rows = [
        f"| {row['family']} | {row['networks']} | {row['training']} | {row['held_out']} |\n"
        for row in result["refusals"]
    ]
    asked = result["declared_otherwise"].values()
    total, refused, named = (
        sum(row[key] for row in asked) for key in ("asked", "refused", "right name")
    )
    return (
        head
        + "|---|---|---|---|\n"
        + "".join(rows)
        + f"\nDeclared otherwise, in prediction or schedule, after 500 steps and more: {refused} "
        f"of {total} are refused, {named} by the right name.\n"
    )


def stranger(run: Path) -> dict[str, Any]:
    r"""What is kept of one audit: its verdict, its model's numbers, each control's."""
    import numpy as np

    import geomem
    from geomem.findings.sentences import summarize

    dataset = geomem.load(run)
    known = geomem.numbers(dataset)
    summary = summarize(dataset, known)
    row = next(r for r in summary["subjects"] if r["kind"] == "model")
    model = known.isel(subject=int(np.flatnonzero(known["kind"].values == "model")[0]))
    controls = {}
    for name in map(str, model["control"].values):
        one = model.sel(control=name)
        keys = ("information_beside", "information_beside_stderr", "control_error")
        values = {k.replace("_beside", ""): float(f"{float(one[k]):.6g}") for k in keys}
        r_squared = [round(float(v), 3) for v in one.r_squared.values]
        controls[name] = values | {"r_squared": r_squared}
    study = json.loads((run / "study.json").read_text())
    return {
        "verdict": geomem.verdict(known).to_json(),
        "model": {k: row[k] for k in KEPT if k in row},
        "controls": controls,
        "plan": study["plan"],
        "window": summary["run"]["window"],
        "near_duplicates": float(known.get("near_duplicates", float("nan"))),
    }


def page(text: str) -> str:
    r"""The page with its tables from the results that are there."""
    tables = {
        "audit_power": power_table,
        "strangers": strangers_table,
        "cost_model": cost_table,
        "door_checks": door_table,
    }
    for name, table in tables.items():
        path = HERE / "results" / f"{name}.json"
        content = table(json.loads(path.read_text())) if path.exists() else ""
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = mark.sub(lambda m, c=content: m[1] + c + m[2], text)  # type: ignore[misc]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    parser.add_argument("--strangers", nargs="+", type=Path, default=[], help="run folders")
    asked = parser.parse_args()
    if asked.strangers:
        audits = {run.name: stranger(run) for run in asked.strangers}
        content = {"versions": versions(), "audits": audits}
        atomic_write_text(HERE / "results" / "strangers.json", json.dumps(content, indent=1) + "\n")
    texts = {path: path.read_text(encoding="utf-8") for path in PAGES}
    if asked.check:
        sys.exit(any(page(text) != text for text in texts.values()))
    for path, text in texts.items():
        atomic_write_text(path, page(text))


if __name__ == "__main__":
    main()
