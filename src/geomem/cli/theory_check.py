r"""``geomem theory check``: a file of measured cases against their predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from geomem.cli.output import estimate, plain, print_table
from geomem.theory.cases import check_cases, count_beyond, read_cases


@dataclass(frozen=True)
class Check:
    r"""Predict a file of measured cases and compare; exit status 1 if they disagree.

    The file is {"cases": [{"variances": [..], "num_samples": N, "t": sigma**2, "kind": "planted"
    | "fresh" | "centre" | "planted_average", "x": [..] or null, "planted": [..] or null,
    "retention": [..], "retention_stderr": [..], "participation": .., "participation_stderr": ..}]}.

    Example: geomem theory check --cases tests/data/theory_checks.json
    """

    cases: Path
    """The JSON file of cases."""
    json: bool = False
    """Print one JSON document."""

    def run(self) -> int:
        r"""Prints value, reference and z-score of every entry; returns the exit status."""
        checks = check_cases(read_cases(self.cases, references=True))
        beyond, allowed = count_beyond(checks)
        verdict = 0 if beyond <= allowed else 1
        if self.json:
            document = [
                {"value": plain(c.value), "stderr": plain(c.stderr), "z_score": plain(c.z_score)}
                for c in checks
            ]
            print(json.dumps({"cases": document, "beyond": beyond, "allowed": allowed}))
            return verdict
        rows = []
        for k, c in enumerate(checks, start=1):
            assert c.case.reference is not None
            names = [f"retention {i + 1}" for i in range(len(c.value) - 1)] + ["participation"]
            columns = zip(
                names,
                c.value,
                c.stderr,
                c.case.reference.value,
                c.case.reference.stderr,
                c.z_score,
                strict=True,
            )
            rows += [
                [str(k), c.case.kind, name, estimate(v, e), estimate(r, s), f"{z:+.2f}"]
                for name, v, e, r, s, z in columns
            ]
        head = ["case", "kind", "entry", "value", "reference", "z"]
        print_table(head, rows)
        print(f"{beyond} of {len(rows)} beyond 4 joint standard errors; chance allows {allowed}")
        return verdict
