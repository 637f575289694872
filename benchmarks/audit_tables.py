r"""The tables of docs/audit.md, from results; and the small summary of real audits.

Run:  python benchmarks/audit_tables.py [--check] [--strangers RUN RUN]

`--strangers` reads the run folders of finished audits and writes `results/strangers.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from side_by_side import versions

from geomem.compute.files import atomic_write_text

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "audit.md"
KEPT = ("kind", "label", "num_samples", "information", "information_stderr", "excess")
KEPT += ("excess_stderr", "auc", "auc_low", "auc_high", "p_value", "copies", "copies_of")
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
    rows = []
    for name, case in result["cases"].items():
        words = [str(case["verdicts"].get(word, 0)) for word in SHORT]
        copies = "–" if case["copies"] is None else str(case["copies"])
        angle = "–" if case["angle_median"] is None else f"{case['angle_median']:.1f}°"
        rivals = [str(case["plain loss"]), str(case["predicted noise"]), copies]
        cells = [label(name), str(case["audits"]), *words, *rivals, angle]
        rows.append("| " + " | ".join(cells) + " |\n")
    seconds = result["seconds"]
    return head + "".join(rows) + f"\n{seconds / 60:.0f} minutes of one core.\n"


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
    tables = {"audit_power": power_table, "strangers": strangers_table}
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
    text = PAGE.read_text(encoding="utf-8")
    if asked.check:
        sys.exit(page(text) != text)
    atomic_write_text(PAGE, page(text))


if __name__ == "__main__":
    main()
